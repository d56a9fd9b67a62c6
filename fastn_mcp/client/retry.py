"""Retries, their budget, and the rate limit of a key.

A request is retried only if that is safe: a POST whose response was lost is never sent again.
"""

import hashlib
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Protocol

import anyio
from pydantic import JsonValue

from fastn_mcp.config.model import Settings
from fastn_mcp.runtime import System

log = logging.getLogger("fastn_mcp.client")

MAX_ATTEMPTS = 3
MAX_WAIT = 15.0
"""Maximum wait in seconds that Fastn can impose on a call. For a longer one it fails at once and states the wait."""

_FIRST_PAUSE = 0.5
_MAX_PAUSE = 5.0
_DAY_SECONDS = 86_400.0


class AttemptOutcome(Enum):
    """Outcome of one attempt."""

    NOT_SENT = "nothing was sent"
    THROTTLED = "refused unprocessed: 429"
    UNKNOWN = "sent, and the answer was lost or says nothing"
    ANSWERED = "answered"


_NOT_SUPPORTED = frozenset({501, 505})
_IDEMPOTENT_METHODS = frozenset({"GET", "PUT", "DELETE"})


def outcome_of(status: int, code: object) -> AttemptOutcome:
    """Return the outcome by status and Fastn's `code`. Waiting helps with a rate limit, not with an exhausted quota."""
    if status == 429 and code != "QUOTA_EXCEEDED":
        return AttemptOutcome.THROTTLED
    # Gateways have 5xx statuses of their own, such as 524 for a late response.
    lost = status == 408 or (status >= 500 and status not in _NOT_SUPPORTED)
    return AttemptOutcome.UNKNOWN if lost else AttemptOutcome.ANSWERED


def may_retry(method: str, outcome: AttemptOutcome) -> bool:
    """Return whether a request may be sent again after an attempt with this outcome."""
    return outcome is not AttemptOutcome.ANSWERED and (
        method in _IDEMPOTENT_METHODS or outcome is not AttemptOutcome.UNKNOWN
    )


def pause(attempt: int, retry_after: float | None, share: float) -> float:
    """Return the seconds before attempt `attempt + 1`: full jitter, and never less than Fastn asks for."""
    backoff = max(0.2, share) * min(_FIRST_PAUSE * 2 ** (attempt - 1), _MAX_PAUSE)
    return max(backoff, retry_after or 0.0)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds of `Retry-After` in either of its forms; None if it is missing or implausible."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,10}", value):
        return float(value)
    try:
        seconds = (parsedate_to_datetime(value) - _server_time(headers, now)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return seconds if seconds > 0 else None


def exhausted_for(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the seconds until a used-up rate limit resets; None if it is not used up, or the reset is implausible."""
    reset = headers.get("x-ratelimit-reset", "").strip()
    if headers.get("x-ratelimit-remaining", "").strip() != "0" or not re.fullmatch(r"\d{1,12}", reset):
        return None
    seconds = int(reset) - _server_time(headers, now).timestamp()
    return seconds if 0 < seconds <= _DAY_SECONDS else None


def _server_time(headers: Mapping[str, str], now: datetime) -> datetime:
    try:
        return parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError, TypeError, OverflowError):
        return now


_UNKNOWN_PAUSE = 600.0
"""Seconds for which a quota counts as used up if Fastn does not state when it resets."""

_OF_API_CALLS = re.compile(r"\bapi[ _-]?(call|request)", re.IGNORECASE)


def is_of_api_calls(response: Mapping[str, JsonValue]) -> bool:
    """Return whether the facts of an error response refuse an API call because the quota of these is used up."""
    text = f"{response.get('message')} {response.get('details')}"
    return response.get("code") == "QUOTA_EXCEEDED" and _OF_API_CALLS.search(text) is not None


@dataclass(frozen=True, slots=True)
class RateWindow:
    """Requests that a limit still allows until it resets."""

    left: int
    until: float
    """Monotonic time."""
    reset: str = ""


FULL_BUDGET = 500.0
_COST = {AttemptOutcome.NOT_SENT: 14.0, AttemptOutcome.UNKNOWN: 14.0, AttemptOutcome.THROTTLED: 5.0}


class RetryBudget:
    """Tokens for the retries of all calls. First attempts are free, and each answer returns a token."""

    def __init__(self) -> None:
        self.left = FULL_BUDGET

    def take(self, after: AttemptOutcome) -> bool:
        """Take the tokens for a retry. Returns False if too few are left."""
        if self.left < _COST[after]:
            return False
        self.left -= _COST[after]
        return True


_READ_EVERY = 1.0
"""Seconds between two reads of the store. The cost of a stale one is a request that Fastn refuses unprocessed."""

_STORE_TIMEOUT = 0.25
"""Timeout of a store access in seconds."""

_STORE_PAUSE = 10.0
"""Seconds without a read after the store failed, so that not every call waits for it."""


class RateLimitStore(Protocol):
    """Shares a used-up rate limit between processes with the same key. Times are Unix seconds."""

    async def mark(self, name: str, until: float, now: float) -> None: ...

    async def marked(self, name: str) -> float: ...


class RateLimit:
    """Rate limit of one account's key. Only exhaustion is shared, so that a normal call costs nothing."""

    def __init__(self, settings: Settings, system: System, store: RateLimitStore | None) -> None:
        self._system = system
        self._store = store
        self._mark = f"limit {hashlib.sha256(f'{settings.base_url} {settings.api_key}'.encode()).hexdigest()}"
        self._windows: dict[str, RateWindow] = {}
        """What Fastn stated last about each of its limits: usually one of a minute, and perhaps one of a day."""
        self.may_be_stated = True
        """Whether the next response may state `requests_left`: it is the first, or earlier ones did."""
        self.under_way = 0
        """Number of calls that wait for an answer."""
        self._closed_until = 0.0  # monotonic
        self._next_read = 0.0  # monotonic
        self._shared = 0.0  # Unix

    async def closed_for(self) -> float:
        """Return the seconds until the limit resets; 0 or less if it is not known to be used up."""
        now = self._system.monotonic()
        if now >= self._next_read:
            self._next_read = now + _READ_EVERY  # before the read, so that concurrent calls do not read as well
            await self._with_store(self._read)
        return self._closed_until - self._system.monotonic()

    @property
    def requests_left(self) -> int | None:
        """Requests that Fastn's limits still allow, less those under way; None if Fastn has not stated it."""
        window = self._tightest
        return None if window is None else max(window.left - self.under_way, 0)

    @property
    def resets_in(self) -> float | None:
        """Seconds until the limit of `requests_left` resets; None if that is not known."""
        window = self._tightest
        return None if window is None else window.until - self._system.monotonic()

    @property
    def _tightest(self) -> RateWindow | None:
        """The window with the fewest requests left; None if Fastn has stated none that is still open."""
        now = self._system.monotonic()
        windows = [window for window in self._windows.values() if now < window.until]
        return min(windows, key=lambda window: (window.left, -window.until), default=None)

    async def note(self, status: int, headers: Mapping[str, str], response: Mapping[str, JsonValue]) -> None:
        """Note what a response tells about the limits. `response` has the facts of an error."""
        now = self._system.now()
        self._note_stated(status, headers, now)
        seconds = exhausted_for(headers, now)
        if seconds is not None:
            self._closed_until = self._system.monotonic() + seconds
            await self._share(seconds)
        if status == 429:
            wait = retry_after(headers, now)
            if is_of_api_calls(response):
                self._close("quota", wait)
            elif wait and response.get("code") != "QUOTA_EXCEEDED":
                self._close("refused", wait)
                await self._share(wait)  # the next request of this process finds out for itself

    def _note_stated(self, status: int, headers: Mapping[str, str], now: datetime) -> None:
        """Note the limit that a response states, by its number. The others have one request less."""
        if not self._windows and "x-ratelimit-remaining" not in headers:
            self.may_be_stated = False
            return
        remaining, reset, limit = (
            headers.get(f"x-ratelimit-{name}", "").strip() for name in ("remaining", "reset", "limit")
        )
        # A limit that was used up would have refused the request.
        others = {name: window for name, window in self._windows.items() if window.left or status == 429}
        self._windows = {name: replace(window, left=max(0, window.left - 1)) for name, window in others.items()}
        if re.fullmatch(r"[0-9]{1,9}", remaining) and re.fullmatch(r"[0-9]{1,12}", reset):
            left = int(remaining)
            earlier = others.get(limit)
            if earlier is not None and earlier.reset == reset:  # responses can arrive in another order
                self._windows[limit] = replace(earlier, left=min(left, earlier.left))
            elif 0 < (seconds := int(reset) - _server_time(headers, now).timestamp()) <= _DAY_SECONDS:
                self._windows[limit] = RateWindow(left, self._system.monotonic() + seconds, reset)
        self.may_be_stated = bool(self._windows)

    def _close(self, limit: str, seconds: float | None) -> None:
        """Note that a limit allows nothing for `seconds`; if that is not known, until the last reset that is."""
        now = self._system.monotonic()
        resets = [window.until - now for window in self._windows.values()]
        self._windows[limit] = RateWindow(0, now + min(seconds or max([*resets, _UNKNOWN_PAUSE]), _DAY_SECONDS))

    async def _share(self, seconds: float) -> None:
        """Tell other processes that the limit is used up."""
        now = self._system.timestamp()
        until = now + min(seconds, _DAY_SECONDS)
        if until < self._shared + _READ_EVERY:
            return
        self._shared = until
        await self._with_store(lambda store: store.mark(self._mark, until, now))

    async def _read(self, store: RateLimitStore) -> None:
        closed = await store.marked(self._mark) - self._system.timestamp()
        if 0 < closed <= _DAY_SECONDS:
            self._close("refused", closed)
            self._closed_until = max(self._closed_until, self._system.monotonic() + closed)

    async def _with_store(self, use: Callable[[RateLimitStore], Awaitable[None]]) -> None:
        """Use the store, if there is one, with a timeout. If it fails, the call goes on without it."""
        if self._store is None:
            return
        problem = ""
        with anyio.move_on_after(_STORE_TIMEOUT) as tried:
            try:
                await use(self._store)
            except Exception as error:
                problem = type(error).__name__
        if problem or tried.cancelled_caught:
            problem = problem or "no answer"
            log.warning("rate limits are not shared between processes for %.0f s (%s)", _STORE_PAUSE, problem)
            self._next_read = self._system.monotonic() + _STORE_PAUSE


listener: ContextVar[Callable[[str], Awaitable[None]] | None] = ContextVar("listener", default=None)
"""Receives the reason of each wait of calls in this context."""


async def announce_wait(why: str) -> None:
    """Log why a call waits and notify the listener. `why` never holds Fastn's text, which stays marked in results."""
    log.info(why)
    listen = listener.get()
    if listen is not None:
        await listen(why)
