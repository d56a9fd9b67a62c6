"""Results of calls that were made."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import JsonValue

from fastn_mcp.errors import FastnError
from fastn_mcp.ledger.change import Change
from fastn_mcp.records.rows import FastnObject


@dataclass(frozen=True, slots=True)
class Done:
    """A call that succeeded: its result and its journal entry, if there is one."""

    result: FastnObject
    change: Change | None = None
    notes: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    """What its receipt says besides."""


CallOutcome = Done | FastnError | Change
"""Outcome of a call of a list: its result, its error, or its change if an earlier request made it."""


@dataclass(frozen=True, slots=True)
class ListResult:
    """Outcomes of the calls of a list. Calls without one were not attempted."""

    id: str
    """Id of the list: the same for the same list, name and caller in every process. Empty for a single call."""
    calls: tuple[str, ...]
    """Ids of its calls, in order."""
    outcomes: dict[str, CallOutcome]
    """By the id of a call."""

    @property
    def is_complete(self) -> bool:
        """Whether every call of the list has an outcome."""
        return bool(self.calls) and len(self.outcomes) == len(self.calls)

    @property
    def has_sent(self) -> bool:
        """Whether a call of the list was attempted now, rather than by an earlier request."""
        return any(not isinstance(outcome, Change) for outcome in self.outcomes.values())
