"""Journal entries: one for each call that changed something or may have."""

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from fastn_mcp.ledger.identity import holder

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
    repeat_id: str = ""
    """Id by which a repeated call is recognised (`Evaluation.repeat_id`); empty if the call is idempotent."""
    approved_by: str = ""
    """What permitted it, such as `policy` or `verified: Dana (issuer|dana)`, with a line for each person; or empty."""
    unsettled_until: float = 0.0
    """Unix seconds until which repeating the call needs approval: its outcome is unknown, or unknown to the client."""
    stopped_triggers: tuple[str, ...] = ()
    """Name and id of the triggers that Fastn stops with a deletion, as its preview showed them."""
    call_id: str = ""
    """Id of its call (`Evaluation.id`), by which its list finds it."""
    list_id: str = ""
    """Id of its list; empty for a single call."""
    number: int = 0
    """Place in its list, from 1, for people; 0 for a single call."""
    binding: str = ""
    """Digest of what it touches and of the policy (`Evaluation.binding`); empty if nothing was read."""
    approval: str = ""
    """Id of the approval request that allowed it, itself or by the temporary approval that came with it; or empty."""
    is_state_dropped: bool = False
    """Whether `arguments`, `before` and `sent` are no longer kept (`storage_limits`)."""

    @property
    def holder(self) -> str:
        """Key under which what is stored for its caller is counted."""
        return holder(self.principal, self.account)

    @property
    def undone(self) -> bool:
        """Whether it was undone or is being undone."""
        return self.undone_at > 0

    @property
    def is_of_another(self) -> bool:
        """Whether a create made a new object, and did not update the object that had its slug or name."""
        is_create = self.tool.startswith("create_") and bool(self.before)
        return is_create and str((self.before or {}).get("id")) != self.target


MADE_OUTCOMES = ("done", "applied_unreadable")
NEVER_REPEATED = (*MADE_OUTCOMES, *PERHAPS_MADE)
"""Outcomes after which a call of a list is never made again."""

OUTCOME_FIELDS = ("outcome", "target", "name", "sent", "unsettled_until", "stopped_triggers")
"""Fields of a change that its outcome updates."""
