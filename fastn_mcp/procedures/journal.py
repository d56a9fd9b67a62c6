"""What was changed, with the state before it, so that it can be undone. Pure: the ledger keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

BEGUN = "begun"
"""The outcome of a change that was sent, and of which nothing has been heard yet."""

PERHAPS_MADE = ("unknown_outcome", BEGUN)
"""Outcomes of a change that may have happened."""


@dataclass(frozen=True, slots=True)
class Change:
    """One call that changed something, or was to."""

    id: str
    principal: str
    account: str
    tool: str
    arguments: Mapping[str, JsonValue]
    """As they may be shown: without secrets."""
    target: str | None
    """What it acted on, or made."""
    name: str | None
    """How people call that."""
    before: Mapping[str, JsonValue] | None
    """The target before, by Fastn's names, without secrets; None where there was none, or none was read."""
    sent: Mapping[str, JsonValue]
    """The body that was sent, by Fastn's names, without secrets; as Fastn then showed it, where it did."""
    at: float
    """Unix seconds."""
    outcome: str = BEGUN
    undone: bool = False
    """Whether it was undone, or is being undone just now."""
    call: str = ""
    """Digest of the call, where repeating it would do it twice; else empty."""
    approved_by: str = ""
    """By what it was allowed: `policy`, `plan`, `client_form`, `terminal`; empty where that was not recorded."""
    unsettled_until: float = 0.0
    """Unix seconds until which this call is not repeated unasked: its outcome is not known, or not to the client."""


class Journal(Protocol):
    """Keeps the changes of an account."""

    async def note(self, change: Change) -> None:
        """Record a change that is about to be sent. What cannot be recorded is not sent."""
        ...

    async def settle(self, change: Change) -> None:
        """Record its outcome, what was sent, how long it is unsettled, and target and name where they are known."""
        ...

    async def unsettled(self, call: str, now: float) -> Mapping[str, float]:
        """The changes by this call that are unsettled, each with the time until which it is."""
        ...

    async def change(self, account: str, change: str) -> Change | None:
        """The change of this id on this account."""
        ...

    async def changes(self, account: str, limit: int, before: float) -> list[Change]:
        """The newest changes that are older than `before`, in Unix seconds."""
        ...

    async def claim(self, change: str) -> bool:
        """Take it upon oneself to undo a change, atomically; False where it is undone, or somebody is at it."""
        ...

    async def release(self, change: str) -> None:
        """Give that back: it was not undone."""
        ...
