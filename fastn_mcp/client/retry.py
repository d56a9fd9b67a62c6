"""When a request is sent again, and how many retries a credential has left.

Retries go by what may have happened, not by habit: a POST whose answer was lost is never sent again.

First attempts always go. A retry costs, a success gives back; once it is used up, failures are said at once.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from email.utils import parsedate_to_datetime
from enum import Enum

ATTEMPTS = 3
LONGEST_WAIT = 15.0
"""Seconds that a call waits because Fastn asks it to. Asked for more, it returns at once and says how long."""

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 5.0


class Fate(Enum):
    """What became of one attempt."""

    UNSENT = "nothing was sent"
    THROTTLED = "refused unprocessed: 429"
    UNKNOWN = "sent, and the answer was lost or says nothing"
    ANSWERED = "answered"


_NOT_DONE = frozenset({501, 505})
_REPEATABLE = frozenset({"GET", "PUT", "DELETE"})


def fate(status: int, code: str | None) -> Fate:
    """What a status means. `code` is Fastn's: an exhausted quota is no rate limit, waiting does not help."""
    if status == 429 and code != "QUOTA_EXCEEDED":
        return Fate.THROTTLED
    # Gateways have 5xx statuses of their own, as 524 for an answer that came too late.
    lost = status == 408 or (status >= 500 and status not in _NOT_DONE)
    return Fate.UNKNOWN if lost else Fate.ANSWERED


def may_repeat(method: str, fate: Fate) -> bool:
    """Whether a request may be sent again after this."""
    if fate is Fate.ANSWERED:
        return False
    return method in _REPEATABLE or fate is not Fate.UNKNOWN


def pause(attempt: int, retry_after: float | None, share: float) -> float:
    """Seconds before attempt `attempt + 1`: full jitter, and never less than Fastn asks for."""
    backoff = max(0.2, share) * min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE)
    return max(backoff, retry_after or 0.0)


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds that `Retry-After` asks for, in either of its forms; None where it says nothing sensible."""
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,10}", value):
        return float(value)
    try:
        when = parsedate_to_datetime(value)
        seconds = (when - _server_time(headers, now)).total_seconds()
    except (ValueError, TypeError, OverflowError):
        return None
    return seconds if seconds > 0 else None


def exhausted_for(headers: Mapping[str, str], now: datetime) -> float | None:
    """Seconds until a used-up rate limit opens again; None where there is room, or the reset is implausible."""
    if headers.get("x-ratelimit-remaining", "").strip() != "0":
        return None
    reset = headers.get("x-ratelimit-reset", "").strip()
    if not re.fullmatch(r"\d{1,12}", reset):
        return None
    seconds = int(reset) - _server_time(headers, now).timestamp()
    return seconds if 0 < seconds <= 86_400 else None


def _server_time(headers: Mapping[str, str], now: datetime) -> datetime:
    try:
        return parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError, TypeError, OverflowError):
        return now


FULL = 500.0
_COST = {Fate.UNSENT: 14.0, Fate.UNKNOWN: 14.0, Fate.THROTTLED: 5.0, Fate.ANSWERED: 0.0}
_REFILL = 1.0


class RetryBudget:
    """Tokens: 14 for a retry after a failure, 5 after a 429, one back for each answer."""

    def __init__(self) -> None:
        self._left = FULL

    def take(self, after: Fate) -> bool:
        """Pay for a retry; False where it cannot be paid."""
        if self._left < _COST[after]:
            return False
        self._left -= _COST[after]
        return True

    def refill(self) -> None:
        """An answer came."""
        self._left = min(FULL, self._left + _REFILL)
