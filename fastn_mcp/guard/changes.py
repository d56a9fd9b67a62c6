"""Changes, as the journal keeps them; batches of calls, and what became of each call."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import JsonValue

from fastn_mcp.errors import FastnError
from fastn_mcp.fastn.targets import Call
from fastn_mcp.tools.tool import FastnObject, Tool

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
    batch: str = ""
    """The id of the list that it is a call of, and its number there, from 1; empty for a single call."""
    number: int = 0


MADE = ("done", "applied_unreadable")
FINAL = (*MADE, *PERHAPS_MADE)
"""Outcomes after which a call of a batch is never made again."""


class Journal(Protocol):
    """Keeps the changes of an account, by which a list goes on where it stopped."""

    async def begin(self, change: Change) -> bool:
        """Record a change that is about to be sent. What cannot be recorded is not sent.

        False where this call of its list was begun before, with an outcome of `FINAL`: of several processes one begins.
        """
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

    async def changes_of(self, batch: str) -> list[Change]:
        """The calls of a list that are never made again (`FINAL`), by number."""
        ...


@dataclass(frozen=True, slots=True)
class Batch:
    """Calls that one answer approves, and that are sent in order. A single call is a batch of one."""

    tool: Tool[Any]
    """What was called: the single call itself, or the tool that was given a list of calls."""
    calls: tuple[Call, ...]
    name: str | None = None
    """Tells a list from the same list that was made before."""
    keep_going: bool = False
    """Whether the calls after a failure are sent too."""

    @property
    def is_list(self) -> bool:
        """Whether it is a list of calls. The same list again goes on where it stopped; the same call is made again."""
        return self.tool is not self.calls[0]

    def prefix(self, number: int) -> str:
        """How a refusal of one call of a list begins."""
        return f"Call {number}, {self.calls[number - 1].tool_name()}: " if self.is_list else ""


@dataclass(frozen=True, slots=True)
class Done:
    """A call that was made: what came back, and the change that it made, where it made one."""

    result: FastnObject
    change: Change | None = None


@dataclass(frozen=True, slots=True)
class NotDone:
    """A call that was refused or failed, or whose outcome is not known."""

    error: FastnError


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of the calls of a batch, by number: now, or when it was executed before. The others were left."""

    id: str
    """The same for the same list of calls of the same caller, in every process; empty for a single call."""
    results: dict[int, Done | NotDone | Change]

    def single(self) -> Done:
        """The result of a single call. Raises what became of it otherwise."""
        match self.results[1]:
            case Done() as done:
                return done
            case NotDone(error):
                raise error
            case Change():
                raise TypeError("only a list is resumed")
