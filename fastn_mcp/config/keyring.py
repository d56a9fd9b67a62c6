"""The system's keyring: macOS Keychain, Windows Credential Locker or Secret Service.

An entry belongs to an account, which its name says together with the host: a kept key is given to no other.
"""

from typing import TYPE_CHECKING, Protocol

from fastn_mcp.errors import SettingsError

if TYPE_CHECKING:
    from keyring.backend import KeyringBackend

_SERVICE = "fastn-mcp"


class NoKeyring(SettingsError):
    """There is no keyring here, or it cannot be used."""


class Keyring(Protocol):
    """Keeps keys."""

    def get(self, entry: str) -> str | None:
        """The key of an entry. Raises `NoKeyring`."""
        ...

    def keep(self, entry: str, key: str) -> str:
        """Keep a key; the name of the keyring for people. Raises `NoKeyring`."""
        ...

    def drop(self, entry: str) -> bool:
        """Forget a key; False where none was kept. Raises `NoKeyring`."""
        ...


class SystemKeyring:
    """The keyring that the library `keyring` finds, or that PYTHON_KEYRING_BACKEND names."""

    def get(self, entry: str) -> str | None:
        backend = self._backend()
        try:
            return backend.get_password(_SERVICE, entry)
        except Exception as error:
            raise _unusable(error) from None

    def keep(self, entry: str, key: str) -> str:
        backend = self._backend()
        try:
            backend.set_password(_SERVICE, entry, key)  # pyright: ignore[reportUnknownMemberType]
            kept = backend.get_password(_SERVICE, entry)
        except Exception as error:
            raise _unusable(error) from None
        if kept != key:
            raise NoKeyring(f"{backend.name} did not keep the key.")
        return backend.name

    def drop(self, entry: str) -> bool:
        backend = self._backend()
        try:
            if backend.get_password(_SERVICE, entry) is None:
                return False
            backend.delete_password(_SERVICE, entry)
        except Exception as error:
            raise _unusable(error) from None
        return True

    def check(self) -> None:
        """Raise `NoKeyring` where there is none."""
        self._backend()

    def _backend(self) -> "KeyringBackend":
        import keyring
        from keyring.backends import fail, null

        try:
            found = keyring.get_keyring()
        except Exception as error:  # a backend that is named and cannot be loaded raises what it likes
            raise _unusable(error) from None
        if isinstance(found, (fail.Keyring, null.Keyring)):
            raise NoKeyring("This system has no keyring that can be used.")
        return found


def _unusable(error: Exception) -> NoKeyring:
    return NoKeyring(f"The system's keyring cannot be used ({type(error).__name__}).")
