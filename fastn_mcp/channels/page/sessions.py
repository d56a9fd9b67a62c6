"""One-time keys and browser sessions of the local page."""

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

from fastn_mcp.runtime import System

KEY_HOLDS = 600.0
"""Lifetime of a one-time key in seconds."""

SESSION_HOLDS = 12 * 3600.0
"""Lifetime of a browser session in seconds, while the page runs."""

_MAX_ENTRIES = 32
"""Maximum keys and sessions. The oldest is dropped."""


class PageSessions:
    """Keys and sessions of one page. `used` is called with each key that opened a session.

    Each session has a room: an unguessable path prefix to which its cookie is limited. Browsers do not separate cookies
    by port, so without it the page of another program on this computer could get the cookie.
    """

    def __init__(self, system: System, used: Callable[[str], None] = lambda _: None) -> None:
        self._system = system
        self._used = used
        self._keys: dict[bytes, float] = {}
        self._lasting: bytes | None = None
        self._sessions: dict[str, tuple[bytes, float]] = {}
        """Digest of the cookie, so that memory does not contain the cookie itself, and end, by room."""

    def close(self) -> None:
        """End all sessions and keys."""
        self._keys.clear()
        self._lasting = None
        self._sessions.clear()

    def key(self) -> str:
        """Create a one-time key that expires after `KEY_HOLDS` seconds."""
        key = self._system.token()
        _make_room(self._keys)
        self._keys[_digest(key)] = self._system.monotonic() + KEY_HOLDS
        return key

    def lasting_key(self) -> str:
        """Create a one-time key without expiry, which replaces the previous one."""
        key = self._system.token()
        self._lasting = _digest(key)
        return key

    def enter(self, key: str) -> tuple[str, str] | None:
        """Open a session with a key. Return its room and cookie, or None if the key is not valid for any reason.

        Wrong keys do not lock the page, since any program on the machine could then lock the person out. A key has 192
        random bits, so that guessing is infeasible.
        """
        now = self._system.monotonic()
        # Looked up by digest, so that timing does not reveal the keys.
        digest = _digest(key)
        if self._lasting is not None and hmac.compare_digest(digest, self._lasting):
            self._lasting, holds_until = None, now
        else:
            holds_until = self._keys.pop(digest, None)
        if holds_until is None or holds_until < now:
            return None
        cookie, room = self._system.token(), self._system.token()
        _make_room(self._sessions)
        self._sessions[room] = _digest(cookie), now + SESSION_HOLDS
        self._used(key)
        return room, cookie

    def is_open(self, room: str, cookie: str | None) -> bool:
        """Whether a room has a session with this cookie that has not expired."""
        digest, ends = self._sessions.get(room, (b"", 0.0))
        if cookie is None or not hmac.compare_digest(digest, _digest(cookie)):
            return False
        if ends < self._system.monotonic():
            del self._sessions[room]
            return False
        return True


def _make_room(entries: dict[Any, Any]) -> None:
    while len(entries) >= _MAX_ENTRIES:
        del entries[next(iter(entries))]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
