"""Batches of calls, and the results of each call."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from fastn_mcp.errors import FastnError
from fastn_mcp.ledger.change import Change
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.tool import Tool


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
    undoes: Change | None = None
    """The earlier change that its call undoes."""

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
    notes: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    """What its receipt says besides."""


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
