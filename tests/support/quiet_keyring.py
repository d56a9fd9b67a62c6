"""Keyrings for tests, set by PYTHON_KEYRING_BACKEND. Their file is shared by processes."""

import json
import os
from pathlib import Path

from keyring import backend
from keyring.errors import KeyringLocked, PasswordDeleteError


class Keyring(backend.KeyringBackend):
    """Keeps keys in the file that TEST_KEYRING names."""

    priority = 1  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]
    name = "the test's keyring"  # pyright: ignore[reportAssignmentType, reportIncompatibleVariableOverride]

    def get_password(self, service: str, username: str) -> str | None:
        return self._read().get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._write(self._read() | {f"{service}/{username}": password})

    def delete_password(self, service: str, username: str) -> None:
        keys = self._read()
        if keys.pop(f"{service}/{username}", None) is None:
            raise PasswordDeleteError(username)
        self._write(keys)

    @property
    def _file(self) -> Path:
        return Path(os.environ["TEST_KEYRING"])

    def _read(self) -> dict[str, str]:
        return json.loads(self._file.read_text()) if self._file.exists() else {}

    def _write(self, keys: dict[str, str]) -> None:
        self._file.write_text(json.dumps(keys))


class Locked(Keyring):
    """Keyring that is locked."""

    def get_password(self, service: str, username: str) -> str | None:  # noqa: ARG002
        raise KeyringLocked


class Forgetful(Keyring):
    """Keyring that accepts a key and does not store it."""

    def set_password(self, service: str, username: str, password: str) -> None:
        """Say nothing, and do nothing."""
