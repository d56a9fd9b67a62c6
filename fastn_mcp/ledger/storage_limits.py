"""How much the ledger stores for one caller, and what it drops to stay below that.

The limits count bytes as stored. A ledger counts them in the step that writes, so that they hold across processes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue

from fastn_mcp.errors import Refused
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState
from fastn_mcp.ledger.change import KEPT_DAYS, PERHAPS_MADE, Change
from fastn_mcp.ledger.documents import write

MEGABYTE = 1_000_000

MAX_OPEN_BYTES = 2 * MEGABYTE
"""Limit of a caller's open approval requests on one account."""

MAX_REQUEST_BYTES = 8 * MEGABYTE
"""Limit of all approval requests of a caller on one account. Past decisions are deleted to stay below it."""

MAX_JOURNAL_BYTES = 16 * MEGABYTE
"""Limit of a caller's changes on one account. States before settled changes are dropped to stay below it."""

_OVERHEAD = 512
"""Bytes that a record takes besides its values: names, keys and indexes, approximately."""

_CLAIM_SECONDS = 600.0
"""Seconds after a claim in which a change may still be being undone: longer than the undo may take."""


class RequestsFull(Refused):
    """The approval requests of a caller take as much as is stored for one caller."""

    def __init__(self, *, waiting: bool) -> None:
        if waiting:
            super().__init__(
                "With this call, the calls of this caller that wait for an approval would take more than"
                f" {MAX_OPEN_BYTES // MEGABYTE} MB of the ledger.",
                "Let a person decide about the waiting calls first, or send less in one call.",
            )
        else:
            super().__init__(
                "With this call, the approval requests of this caller that have not expired would take more than"
                f" {MAX_REQUEST_BYTES // MEGABYTE} MB of the ledger.",
                "Call again when some have expired, or send less in one call.",
            )


class JournalFull(Refused):
    """The changes of a caller that may not be dropped take as much as is stored for one caller."""

    def __init__(self) -> None:
        super().__init__(
            f"The journal of this caller is full: with this call, changes that are not settled would take more than"
            f" {MAX_JOURNAL_BYTES // MEGABYTE} MB of the ledger.",
            "list_changes has them. Find out in Fastn what those with an unknown outcome did, and tell the operator:"
            f" each is kept for {KEPT_DAYS} days.",
        )


@dataclass(frozen=True, slots=True)
class StoredItem:
    """A stored request or change, and whether it may be dropped."""

    id: str
    size: int
    can_be_dropped: bool
    has_state: bool = False
    """Whether it is a change whose state before is kept. That is dropped first, and the rest of the change last."""


def stored_size(record: ApprovalRequest | Change) -> int:
    """Return the bytes that a record counts for."""
    return _OVERHEAD + len((write(record, record.id).value or "").encode())


def items_to_drop(items: Sequence[StoredItem], excess: int) -> list[StoredItem]:
    """Return the oldest of `items` (oldest first) that may be dropped and free `excess` bytes; none if they do not.

    States are dropped before whole records, so another call may be needed once they are.
    """
    droppable = [item for item in items if item.can_be_dropped]
    if sum(item.size for item in droppable) < excess:
        return []
    chosen = list[StoredItem]()
    for item in [item for item in droppable if item.has_state] or droppable:
        if excess <= 0:
            break
        chosen.append(item)
        excess -= item.size
    return chosen


def is_past(state: RequestState, expires: float, temporary_until: float, now: float) -> bool:
    """Whether nothing can come of a request any more, not even a refusal of the same call."""
    return state is not RequestState.OPEN and expires <= now and temporary_until <= now


def is_settled(outcome: str, unsettled_until: float, undone_at: float, now: float) -> bool:
    """Whether a change has a known outcome that its caller has, and is not being undone."""
    return outcome not in PERHAPS_MADE and unsettled_until <= now and undone_at + _CLAIM_SECONDS <= now


def without_state(change: Change) -> Change:
    """Return a change without what it was and what was sent."""
    before = None if change.before is None else dict[str, JsonValue]()
    return replace(change, arguments={}, before=before, sent={}, is_state_dropped=True)
