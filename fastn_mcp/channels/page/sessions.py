"""One-time keys and browser sessions of the local page."""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from fastn_mcp.runtime import System

KEY_HOLDS = 600.0
"""Seconds that the key in a browser's file can be used."""

SESSION_HOLDS = 12 * 3600.0
"""Seconds that a browser stays let in, as long as the page runs."""

_MOST = 32
"""Keys and sessions that are kept; the oldest makes room."""


@dataclass(frozen=True, slots=True)
class LocalSession:
    """One browser that was let in.

    `room` is the part of the path under which everything lies. It is not guessable, and the cookie is sent nowhere
    else: browsers do not tell ports apart for cookies, and a page of another program on this computer must not get it.
    """

    room: str
    cookie: bytes
    """Its digest: what is kept here lets nobody in."""
    ends: float


class PageSessions:
    """Keys and sessions of one page. `used` is called with each key that let somebody in."""

    def __init__(self, system: System, used: Callable[[str], None] = lambda _: None) -> None:
        self._system = system
        self._used = used
        self._keys: dict[bytes, float] = {}
        self._lasting: bytes | None = None
        self._sessions: dict[str, LocalSession] = {}
        self._closed = False

    def close(self) -> None:
        """Let nobody in any more, and everybody out."""
        self._closed = True
        self._keys.clear()
        self._lasting = None
        self._sessions.clear()

    def key(self) -> str:
        """A new key, which opens the page once and soon."""
        key = self._system.token()
        _make_room(self._keys)
        self._keys[_digest(key)] = self._system.monotonic() + KEY_HOLDS
        return key

    def lasting_key(self) -> str:
        """A new key, which opens the page once at any time. There is one of them: it ends the one before."""
        key = self._system.token()
        self._lasting = _digest(key)
        return key

    def enter(self, key: str) -> tuple[LocalSession, str] | None:
        """The session that a key opens, with its cookie; None for any key that does not, whatever the reason.

        Wrong keys do not lock the page: any program of the machine could keep the person out by them. A key has 192
        random bits, so that no number of guesses finds it.
        """
        now = self._system.monotonic()
        if self._closed:
            return None
        # Found by its digest, so that the time it takes says nothing about the keys.
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
        """The session of a room, for whom has its cookie."""
        session = self._sessions.get(room)
        if session is None or cookie is None or not hmac.compare_digest(session.cookie, _digest(cookie)):
            return None
        if session.ends < self._system.monotonic():
            del self._sessions[room]
            return None
        return session


def _make_room(kept: dict[bytes, float] | dict[str, LocalSession]) -> None:
    while len(kept) >= _MOST:
        del kept[next(iter(kept))]  # pyright: ignore[reportArgumentType]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
