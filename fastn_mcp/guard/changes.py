"""Journal entries (changes), batches of calls and the results of each call."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import JsonValue

from fastn_mcp.account.targets import Call
from fastn_mcp.errors import FastnError
from fastn_mcp.tools.tool import FastnObject, Tool

BEGUN = "begun"
"""Outcome of a change that may have been sent and has no known outcome yet."""

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
    undone: bool = False
    """Whether it was undone or is being undone."""
    call: str = ""
    """Digest of the call if it is not idempotent; else empty."""
    approved_by: str = ""
    """What permitted it, such as `policy` or `verified: Dana (issuer|dana)`, with a line for each person; or empty."""
    unsettled_until: float = 0.0
    """Unix seconds until which repeating the call needs approval: its outcome is unknown, or unknown to the client."""
    batch: str = ""
    """Id of its list; empty for a single call. `number` is its place in the list, from 1."""
    number: int = 0


MADE = ("done", "applied_unreadable")
FINAL = (*MADE, *PERHAPS_MADE)
"""Outcomes after which a call of a batch is never made again."""


class Journal(Protocol):
    """Storage of changes. A repeated list resumes where it stopped."""

    async def begin(self, change: Change) -> bool:
        """Record a change that is about to be sent. If this raises, the call is not sent.

        False if this call of its list has an entry with an outcome in `FINAL`: only one process can begin it.
        """
        ...

    async def settle(self, change: Change) -> None:
        """Update outcome, sent fields and end of the unsettled time, and target and name if they are known."""
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

    async def claim(self, change: str) -> bool:
        """Claim the undo of a change, atomically. False if it is undone or claimed already."""
        ...

    async def release(self, change: str) -> None:
        """Release a claim: the change was not undone."""
        ...

    async def changes_of(self, batch: str) -> list[Change]:
        """Return the calls of a list whose outcome is in `FINAL`, ordered by number."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Calls that are approved together and sent in order. A single call is a batch of one."""

    tool: Tool[Any]
    """The single call itself, or the tool that received the list of calls."""
    calls: tuple[Call, ...]
    name: str | None = None
    """Distinguishes this list from an earlier list of the same calls."""
    keep_going: bool = False
    """Whether the calls after a failed one are still sent."""
    undoes: str = ""
    """The earlier change that its call undoes, for people: `what was done 2 hours ago`."""

    @property
    def is_list(self) -> bool:
        """Whether it is a list of calls. A repeated list resumes where it stopped; a repeated call is made again."""
        return self.tool is not self.calls[0]

    def prefix(self, number: int) -> str:
        """Return the prefix of an error message about one call of a list; empty for a single call."""
        return f"Call {number}, {self.calls[number - 1].tool_name()}: " if self.is_list else ""


@dataclass(frozen=True, slots=True)
class Done:
    """A call that succeeded: its result and its journal entry, if there is one."""

    result: FastnObject
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class NotDone:
    """A call that was refused or failed, or whose outcome is unknown."""

    error: FastnError


@dataclass(frozen=True, slots=True)
class BatchResult:
    """Results of the calls of a batch by number, from this or an earlier execution. Missing calls were not made."""

    id: str
    """Stable for the same list, name and caller in every process; empty for a single call."""
    results: dict[int, Done | NotDone | Change]

    def single(self) -> Done:
        """Return the result of a single call. Raises its error if it did not succeed."""
        match self.results[1]:
            case Done() as done:
                return done
            case NotDone(error):
                raise error
            case Change():
                raise TypeError("only a list is resumed")
