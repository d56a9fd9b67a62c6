"""Journal entries: one for each call that changed something or may have."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

BEGUN = "begun"
"""Outcome of a change that may have been sent and has no known outcome yet."""

KEPT_DAYS = 30
"""Number of days for which changes, requests that have expired and stops that were lifted are kept, at least."""

PERHAPS_MADE = ("unknown_outcome", BEGUN)
"""Outcomes of a change that may have happened."""


@dataclass(frozen=True, slots=True)
class Change:
    """Journal entry of one call that changes something, whatever its outcome."""

    id: str
    principal: str
    account: str
    tool: str
    arguments: Mapping[str, JsonValue]
    """Without secrets."""
    target: str | None
    """Id of the object that it changed or created."""
    name: str | None
    """Display name of that object."""
    before: Mapping[str, JsonValue] | None
    """The target before the call, by Fastn's field names, without secrets; None if it did not exist or was not read."""
    sent: Mapping[str, JsonValue]
    """The request body by Fastn's field names, without secrets. Values that Fastn returned replace those sent."""
    at: float
    """Unix seconds."""
    outcome: str = BEGUN
    undone_at: float = 0.0
    """Unix seconds at which its undo was claimed; 0 if it is neither undone nor being undone."""
    call: str = ""
    """Digest of the call if it is not idempotent; else empty."""
    approved_by: str = ""
    """What permitted it, such as `policy` or `verified: Dana (issuer|dana)`, with a line for each person; or empty."""
    unsettled_until: float = 0.0
    """Unix seconds until which repeating the call needs approval: its outcome is unknown, or unknown to the client."""
    stopped_triggers: tuple[str, ...] = ()
    """Name and id of the triggers that Fastn stops with a deletion, as its preview showed them."""
    batch: str = ""
    """Id of its list; empty for a single call. `number` is its place in the list, from 1."""
    number: int = 0
    approval: str = ""
    """Id of the approval request that allowed it, itself or by the temporary approval that came with it; or empty."""
    is_state_dropped: bool = False
    """Whether `arguments`, `before` and `sent` are no longer kept (`storage_limits`)."""

    @property
    def undone(self) -> bool:
        """Whether it was undone or is being undone."""
        return self.undone_at > 0

    @property
    def is_of_another(self) -> bool:
        """Whether a create made a new object, and not an update of the one that had its slug or name."""
        is_create = self.tool.startswith("create_") and bool(self.before)
        return is_create and str((self.before or {}).get("id")) != self.target


MADE_OUTCOMES = ("done", "applied_unreadable")
FINAL_OUTCOMES = (*MADE_OUTCOMES, *PERHAPS_MADE)
"""Outcomes after which a call of a batch is never made again."""

OUTCOME_FIELDS = ("outcome", "target", "name", "sent", "unsettled_until", "stopped_triggers")
"""Fields of a change that its outcome updates."""


class Journal(Protocol):
    """Storage of changes. A repeated list resumes where it stopped."""

    async def begin(self, change: Change) -> bool:
        """Record a change that is about to be sent. If this raises, the call is not sent.

        States before the oldest settled changes of the caller are dropped to stay below `MAX_JOURNAL_BYTES`
        (`storage_limits`). Raises `JournalFull` if they do not make enough room.

        False if this call of its list has an entry with an outcome in `FINAL_OUTCOMES`: only one process can begin it.
        """
        ...

    async def settle(self, change: Change) -> None:
        """Update the `OUTCOME_FIELDS`, without those that are None."""
        ...

    async def unsettled(self, call: str, now: float) -> Mapping[str, float]:
        """Return the unsettled changes with this call digest: id to the end of the unsettled time."""
        ...

    async def change(self, account: str, change: str) -> Change | None:
        """Return the change with this id on this account; None if there is none."""
        ...

    async def changes(self, account: str, limit: int, before: float) -> list[Change]:
        """Return at most `limit` changes older than `before` (Unix seconds), newest first."""
        ...

    async def changes_by(self, approvals: Collection[str]) -> list[Change]:
        """Return the changes that these approval requests allowed, oldest first."""
        ...

    async def claim(self, change: str, now: float) -> bool:
        """Claim the undo of a change, atomically. False if it is undone or claimed already."""
        ...

    async def release(self, change: str) -> None:
        """Release a claim: the change was not undone."""
        ...

    async def under_way(self, since: float) -> list[Change]:
        """Return the changes of all accounts that were begun after `since` and have no known outcome, oldest first."""
        ...

    async def changes_of(self, batch: str) -> list[Change]:
        """Return the calls of a list whose outcome is in `FINAL_OUTCOMES`, ordered by number."""
        ...
