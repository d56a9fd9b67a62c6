"""One-time keys and browser sessions of the local page."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from fastn_mcp.runtime import System

KEY_HOLDS = 600.0
"""Lifetime of a one-time key in seconds."""

SESSION_HOLDS = 12 * 3600.0
"""Lifetime of a browser session in seconds, while the page runs."""

_MAX_ENTRIES = 32
"""Maximum keys and sessions. The oldest is dropped."""


@dataclass(frozen=True, slots=True)
class LocalSession:
    """Session of one browser.

    `room` is an unguessable path prefix to which the cookie is limited. Browsers do not separate cookies by port, so
    without it the page of another program on this computer could get the cookie.
    """

    room: str
    cookie: bytes
    """Digest of the cookie, so that memory does not contain the cookie itself."""
    ends: float


class PageSessions:
    """Keys and sessions of one page. `used` is called with each key that opened a session."""

    def __init__(self, system: System, used: Callable[[str], None] = lambda _: None) -> None:
        self._system = system
        self._used = used
        self._keys: dict[bytes, float] = {}
        self._lasting: bytes | None = None
        self._sessions: dict[str, LocalSession] = {}
        self._closed = False

    def close(self) -> None:
        """End all sessions and accept no more keys."""
        self._closed = True
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

    def enter(self, key: str) -> tuple[LocalSession, str] | None:
        """Open a session with a key. Return it with its cookie, or None if the key is not valid for any reason.

        Wrong keys do not lock the page, since any program on the machine could then lock the person out. A key has 192
        random bits, so that guessing is infeasible.
        """
        now = self._system.monotonic()
        if self._closed:
            return None
        # Looked up by digest, so that timing does not reveal the keys.
        digest = _digest(key)
        if self._lasting is not None and hmac.compare_digest(digest, self._lasting):
            self._lasting, holds_until = None, now
        else:
            holds_until = self._keys.pop(digest, None)
        if holds_until is None or holds_until < now:
            return None
        cookie = self._system.token()
        session = LocalSession(self._system.token(), _digest(cookie), now + SESSION_HOLDS)
        _make_room(self._sessions)
        self._sessions[session.room] = session
        self._used(key)
        return session, cookie

    def session(self, room: str, cookie: str | None) -> LocalSession | None:
        """Return the session of a room, or None if the cookie is wrong or the session has expired."""
        session = self._sessions.get(room)
        if session is None or cookie is None or not hmac.compare_digest(session.cookie, _digest(cookie)):
            return None
        if session.ends < self._system.monotonic():
            del self._sessions[room]
            return None
        return session


def _make_room(entries: dict[bytes, float] | dict[str, LocalSession]) -> None:
    while len(entries) >= _MAX_ENTRIES:
        del entries[next(iter(entries))]  # pyright: ignore[reportArgumentType]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
