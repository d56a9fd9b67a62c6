"""Rate limits of a key, shared by everybody who uses it, and why a call waits.

What one finds out it puts on a board where there is one: only what is used up, so that a call that finds room costs
nothing. Others look there at most once a second, and not at all for a while once the board did not answer.

Our own words only: what Fastn said of an error stays in the result, where it is marked.
"""

import hashlib
import logging
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from enum import Enum
from typing import Protocol

import anyio

from fastn_mcp.client.account import Account
from fastn_mcp.runtime import System

log = logging.getLogger("fastn_mcp.client")

_EVERY = 1.0
"""Seconds between two looks: what is missed meanwhile is a request that Fastn refuses, unprocessed."""

_PATIENCE = 0.25
"""Seconds that a call waits for the board."""

_AGAIN = 10.0
"""Seconds without a look after the board did not answer: a read must not wait for what is away."""

_LONGEST = 86_400.0


class RateLimitStore(Protocol):
    """Where those who share a key tell each other. Times are Unix seconds."""

    async def note_limit(self, key: str, until: float, now: float) -> None: ...

    async def limited(self, key: str) -> float: ...


class Limit:
    """The rate limit of one account's key."""

    def __init__(self, account: Account, system: System, board: RateLimitStore | None) -> None:
        self._system = system
        self._board = board
        self._key = hashlib.sha256(f"{account.base_url} {account.api_key}".encode()).hexdigest()
        self._closed_until = 0.0  # monotonic
        self._look_from = 0.0  # monotonic
        self._told = 0.0  # Unix

    async def closed_for(self) -> float:
        """Seconds until it opens; not above 0 where it is open, as far as is known."""
        now = self._system.monotonic()
        if self._board is not None and now >= self._look_from:
            self._look_from = now + _EVERY  # before looking: those who come meanwhile do not look as well
            await self._look(self._board)
        return self._closed_until - self._system.monotonic()

    async def used_up(self, seconds: float) -> None:
        """It is, says an answer."""
        self._closed_until = self._system.monotonic() + seconds
        await self.refused(seconds)

    async def refused(self, seconds: float) -> None:
        """A request was refused for it. Here the next one finds out for itself; the others need not."""
        now = self._system.now().timestamp()
        until = now + min(seconds, _LONGEST)
        if self._board is None or until < self._told + _EVERY:
            return
        self._told = until
        with anyio.move_on_after(_PATIENCE) as tried:
            try:
                await self._board.note_limit(self._key, until, now)
            except Exception as error:
                self._away(type(error).__name__)
        if tried.cancelled_caught:
            self._away("no answer")

    async def _look(self, board: RateLimitStore) -> None:
        with anyio.move_on_after(_PATIENCE) as tried:
            try:
                closed = await board.limited(self._key) - self._system.now().timestamp()
            except Exception as error:
                self._away(type(error).__name__)
                return
            if 0 < closed <= _LONGEST:
                self._closed_until = max(self._closed_until, self._system.monotonic() + closed)
        if tried.cancelled_caught:
            self._away("no answer")

    def _away(self, why: str) -> None:
        log.warning("rate limits are not shared between processes for %.0f s (%s)", _AGAIN, why)
        self._look_from = self._system.monotonic() + _AGAIN


class WaitReason(Enum):
    """Why a call waits."""

    RETRY = "retry"
    RATE_LIMIT = "rate_limit"


listener: ContextVar[Callable[[str], Awaitable[None]] | None] = ContextVar("listener", default=None)
"""Who is told of the waits of the calls that are made from here on."""

counter: ContextVar[Callable[[WaitReason, float], None] | None] = ContextVar("counter", default=None)
"""Who counts them, and their seconds."""


async def tell(why: str, cause: WaitReason, seconds: float) -> None:
    """A call waits."""
    log.info(why)
    if (counts := counter.get()) is not None:
        counts(cause, seconds)
    if (hears := listener.get()) is not None:
        await hears(why)
