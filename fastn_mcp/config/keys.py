"""API keys and the local HTTP token: where each is stored, and the host that a key is bound to.

A keyring entry belongs to one account and host, both part of its name, and its key is used for no other. The file of
the HTTP token is created once and reused, so that client configurations survive a restart.
"""

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from fastn_mcp.config.model import ConfigFile, Settings, is_token
from fastn_mcp.config.paths import create_secret, read_private, require_private
from fastn_mcp.errors import NoKey, SettingsError, os_reason

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

_SERVICE = "fastn-mcp"


class NoKeyring(SettingsError):
    """No keyring is available, or it cannot be used."""


class SystemKeyring:
    """Keyring found by the library `keyring`, or named by PYTHON_KEYRING_BACKEND. All methods raise `NoKeyring`."""

    def get(self, entry: str) -> str | None:
        with _usable_backend() as backend:
            return backend.get_password(_SERVICE, entry)

    def keep(self, entry: str, key: str) -> str:
        """Store a key. Returns the name of the keyring for people."""
        with _usable_backend() as backend:
            backend.set_password(_SERVICE, entry, key)  # pyright: ignore[reportUnknownMemberType]
            if backend.get_password(_SERVICE, entry) != key:
                raise NoKeyring(f"{backend.name} did not store the key.")
            return backend.name

    def drop(self, entry: str) -> bool:
        """Delete a key. Returns False if there was none."""
        with _usable_backend() as backend:
            if backend.get_password(_SERVICE, entry) is None:
                return False
            backend.delete_password(_SERVICE, entry)
            return True

    def check(self) -> None:
        with _usable_backend():
            pass


@contextmanager
def _usable_backend() -> "Generator[KeyringBackend]":
    """Yield the system's keyring. Any exception of the backend is raised as `NoKeyring`."""
    import keyring
    from keyring.backends import fail, null

    try:
        backend = keyring.get_keyring()
        if isinstance(backend, (fail.Keyring, null.Keyring)):
            raise NoKeyring("This system has no usable keyring.")
        yield backend
    except NoKeyring:
        raise
    except Exception as error:
        raise NoKeyring(f"The system's keyring cannot be used ({type(error).__name__}).") from None


VARIABLE = "FASTN_API_KEY"

_MAX_KEY_FILE = 4096
_WRITTEN = "key="


@dataclass(frozen=True, slots=True)
class Key:
    value: object
    place: str


def entry(profile: str, host: str) -> str:
    return f"{profile} at {host}"


def without_key(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the default account's key."""
    return {name: value for name, value in environment.items() if name != VARIABLE}


def key_in_file(file: ConfigFile, profile: str | None, environment: Mapping[str, str]) -> Key | None:
    """Return the key that the table of a profile specifies, or None. Raises `SettingsError`."""
    table = file.table(profile)
    if "api_key" in table:
        return Key(table["api_key"], file.line_of("api_key", profile))
    if "api_key_env" in table:
        name = table["api_key_env"]
        where = file.line_of("api_key_env", profile)
        if not isinstance(name, str) or not name:
            raise SettingsError(f"{where}: api_key_env must be the name of a variable.")
        if not environment.get(name):
            raise NoKey(f"{where}: the key comes from {name}, which is not set.", f"Set {name}.")
        return Key(environment[name], f"environment {name}")
    if "api_key_file" in table:
        path = table["api_key_file"]
        where = file.line_of("api_key_file", profile)
        if not isinstance(path, Path):
            raise SettingsError(f"{where}: api_key_file must be the path of a file.")
        return Key(_contents(path, where, profile), f"file {path}")
    return None


def key_in_text(text: str) -> str:
    """Return the key in the text of a key file: the text itself, or the value of its line `key=`.

    The server writes such a line into the file of a key that an agent created.
    """
    written = [line.removeprefix(_WRITTEN) for line in text.splitlines() if line.startswith(_WRITTEN)]
    return (written[0] if len(written) == 1 else text).strip()


def _contents(path: Path, where: str, profile: str | None) -> str:
    try:
        with path.open("rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            data = opened.read(_MAX_KEY_FILE)
    except FileNotFoundError:
        name = f" {profile}" if profile else ""
        next_step = f"Store a key there: fastn-mcp login{name} --file"
        raise NoKey(f"{where}: there is no file {path}.", next_step) from None
    except OSError as error:
        raise SettingsError(f"{where}: {path} cannot be read: {os_reason(error)}.") from None
    require_private(path, mode, "a key")
    return key_in_text(data.decode("utf-8", "replace"))


FILE = "http-token"
"""File name in the state folder."""


@dataclass(frozen=True, slots=True)
class HttpToken:
    """A token and where it is stored. `place` is for people and contains no part of the token."""

    value: str = field(repr=False)
    place: str


def http_token(settings: Settings, state: Path, new: Callable[[], str]) -> HttpToken:
    """Return the token that clients of local HTTP send; create one if there is none. Raises `SettingsError`."""
    if settings.http_token is None:
        create_secret(state.absolute() / FILE, new, "FASTN_HTTP_TOKEN")
    return known_http_token(settings, state)


def known_http_token(settings: Settings, state: Path) -> HttpToken:
    """Return the existing token. Raises `SettingsError`."""
    if settings.http_token is not None:
        return HttpToken(settings.http_token, "the setting http_token (FASTN_HTTP_TOKEN) of the server")
    path = state.absolute() / FILE
    if not os.path.lexists(path):
        raise SettingsError(
            f"There is no token yet in {path}.", "Start the server, which creates it: fastn-mcp --http 127.0.0.1:8080"
        )
    value = read_private(path).strip()
    if not is_token(value):
        raise SettingsError(f"{path} holds no token.", f"Remove it to get a new one: rm {path}")
    return HttpToken(value, str(path))
