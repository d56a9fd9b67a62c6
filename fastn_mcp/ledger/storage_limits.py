"""How much the ledger stores for one caller on one account, and what it drops to stay below that.

Bytes are counted as stored, in the step that writes, so that the limits hold across processes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from fastn_mcp.errors import Refused
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState
from fastn_mcp.ledger.change import KEPT_DAYS, PERHAPS_MADE, Change

MEGABYTE = 1_000_000

MAX_OPEN_BYTES = 2 * MEGABYTE
"""Limit of a caller's open approval requests."""

MAX_REQUEST_BYTES = 8 * MEGABYTE
"""Limit of all approval requests of a caller. Past decisions are deleted to stay below it."""

MAX_JOURNAL_BYTES = 16 * MEGABYTE
"""Limit of a caller's changes. States before settled changes are dropped to stay below it."""

SPARE_BYTES = MEGABYTE // 10
"""Bytes that are freed beyond what is needed, so that not each of many small records has to make room."""

MAX_DROPPED = 256
"""Number of records that are dropped in one step."""

_OVERHEAD = 512
"""Bytes that a record takes besides its text: key and indexes, approximately."""

_BLOCK = 500
"""Sizes are multiples of this, so that most outcomes and votes change no size."""

BARE_BYTES = 3 * _BLOCK
"""Bytes of a change without its state, approximately."""

_CLAIM_SECONDS = 600.0
"""Seconds after a claim in which a change may still be being undone: longer than the undo may take."""

_DAY = 86_400.0


class RequestsFull(Refused):
    """The approval requests of a caller take as much as is stored for one caller."""

    def __init__(self, excess: int, *, waiting: bool) -> None:
        """`waiting`: whether the calls that wait for an approval take too much by themselves."""
        self.excess = excess
        """Bytes by which the limit would be exceeded."""
        self.waiting = waiting
        if waiting:
            super().__init__(
                "With this call, this caller's waiting calls would take more than"
                f" {MAX_OPEN_BYTES // MEGABYTE} MB of the ledger.",
                "Let a person decide on the waiting calls first, or send less in one call.",
            )
        else:
            super().__init__(
                "With this call, this caller's unexpired approval requests would take more than"
                f" {MAX_REQUEST_BYTES // MEGABYTE} MB of the ledger.",
                "Call again when some have expired, or send less in one call.",
            )


class JournalFull(Refused):
    """The changes of a caller that may not be dropped take as much as is stored for one caller."""

    def __init__(self, excess: int) -> None:
        self.excess = excess
        """Bytes by which the limit would be exceeded."""
        super().__init__(
            "This caller's journal is full: with this call, its unsettled changes would take more than"
            f" {MAX_JOURNAL_BYTES // MEGABYTE} MB of the ledger.",
            "See list_changes. Check in Fastn what the changes with an unknown outcome did, and tell the"
            f" operator: each change is kept for {KEPT_DAYS} days.",
        )


def stored_bytes(text: str | None) -> int:
    """Return the bytes that a stored record counts for; 0 for a deleted record."""
    if text is None:
        return 0
    size = _OVERHEAD + len(text.encode())
    return -(-size // _BLOCK) * _BLOCK


@dataclass(frozen=True, slots=True)
class StoredBytes:
    """Bytes of a caller's records of one kind, by the day on which the ledger forgets them.

    The few bytes by which a change grows when it is undone are not counted.
    """

    by_day: Mapping[int, int] = field(default_factory=dict[int, int])
    """Days are counted from 1970."""

    def total(self, now: float) -> int:
        """Return the bytes of the records that are kept at this time."""
        return sum(size for day, size in self.by_day.items() if day >= now // _DAY)

    def unforgotten(self, now: float) -> "StoredBytes":
        return StoredBytes({day: size for day, size in self.by_day.items() if day >= now // _DAY})

    def added(self, text: str | None, until: float) -> "StoredBytes":
        """Return the bytes with a record of this text that is kept until then."""
        return self._changed(int(until // _DAY), stored_bytes(text))

    def removed(self, text: str | None, until: float) -> "StoredBytes":
        return self._changed(int(until // _DAY), -stored_bytes(text))

    def _changed(self, day: int, difference: int) -> "StoredBytes":
        sizes = {**self.by_day, day: self.by_day.get(day, 0) + difference}
        return StoredBytes({each: size for each, size in sizes.items() if size > 0})


def is_past(request: ApprovalRequest, now: float) -> bool:
    """Whether a request can no longer decide anything, not even refuse the same call."""
    return request.state is not RequestState.OPEN and decides_until(request) <= now


def decides_until(request: ApprovalRequest) -> float:
    """Return until when a decided request permits or refuses calls."""
    return max(request.expires, request.permit_until)


def has_outcome(change: Change) -> bool:
    """Whether it is known whether the change was made."""
    return change.outcome not in PERHAPS_MADE


def is_settled(change: Change, now: float) -> bool:
    """Whether a change has a known outcome that its caller has, and is not being undone."""
    return has_outcome(change) and change.unsettled_until <= now and change.undone_at + _CLAIM_SECONDS <= now


def has_state(change: Change, text: str) -> bool:
    """Whether a change, stored as this text, takes less without its state."""
    return not change.is_state_dropped and stored_bytes(text) > BARE_BYTES


def without_state(change: Change) -> Change:
    """Return a change without what it was and what was sent."""
    before = None if change.before is None else dict[str, JsonValue]()
    return replace(change, arguments={}, before=before, sent={}, is_state_dropped=True)
