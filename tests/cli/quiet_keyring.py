"""A keyring for tests, as PYTHON_KEYRING_BACKEND names it: a file of its own, which several processes share."""

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
        return self._kept().get(f"{service}/{username}")

    def set_password(self, service: str, username: str, password: str) -> None:
        self._keep(self._kept() | {f"{service}/{username}": password})

    def delete_password(self, service: str, username: str) -> None:
        kept = self._kept()
        if kept.pop(f"{service}/{username}", None) is None:
            raise PasswordDeleteError(username)
        self._keep(kept)

    @property
    def _file(self) -> Path:
        return Path(os.environ["TEST_KEYRING"])

    def _kept(self) -> dict[str, str]:
        return json.loads(self._file.read_text()) if self._file.exists() else {}

    def _keep(self, kept: dict[str, str]) -> None:
        self._file.write_text(json.dumps(kept))


class Locked(Keyring):
    """One that nobody unlocks."""

    def get_password(self, service: str, username: str) -> str | None:  # noqa: ARG002
        raise KeyringLocked


class Forgetful(Keyring):
    """One that takes a key and keeps none."""

    def set_password(self, service: str, username: str, password: str) -> None:
        """Say nothing, and do nothing."""
