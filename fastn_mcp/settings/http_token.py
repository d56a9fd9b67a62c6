"""The bearer token of local HTTP: the setting `http_token`, or a file that only its owner can read.

The file is made once and stays, so that the configuration of clients outlives a restart. Removing it makes a new token.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from fastn_mcp.errors import SettingsError
from fastn_mcp.private_files import read_private, write_private
from fastn_mcp.settings.model import Settings, is_token

FILE = "http-token"
"""The name of the file in the state folder."""


@dataclass(frozen=True, slots=True)
class HttpToken:
    """A token, and where whoever may use it finds it. The place is for people, and holds no part of the token."""

    value: str = field(repr=False)
    place: str


def http_token(settings: Settings, state: Path, new: Callable[[], str]) -> HttpToken:
    """The token that clients of local HTTP have to send, made if there is none. Raises `SettingsError`."""
    path = state.absolute() / FILE
    try:
        if settings.http_token is None and not path.exists():
            write_private(path, f"{new()}{new()}\n", replace=False)
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be written: {error.strerror or type(error).__name__}.", "Or set FASTN_HTTP_TOKEN."
        ) from None
    return known_http_token(settings, state)


def known_http_token(settings: Settings, state: Path) -> HttpToken:
    """The token that there is. Raises `SettingsError`."""
    if settings.http_token is not None:
        return HttpToken(settings.http_token, "the setting http_token (FASTN_HTTP_TOKEN) of the server")
    path = state.absolute() / FILE
    if not os.path.lexists(path):
        raise SettingsError(
            f"There is no token yet in {path}.", "Start the server, which makes it: fastn-mcp --http 127.0.0.1:8080"
        )
    value = read_private(path).strip()
    if not is_token(value):
        raise SettingsError(f"{path} holds no token.", f"Remove it, and a new one is made: rm {path}")
    return HttpToken(value, str(path))
