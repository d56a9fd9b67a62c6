"""A finding of the overview: a sentence with numbers, examples, and the call that shows more.

Nothing is known of Fastn's rows: a row that does not say something is never accused of it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pydantic import JsonValue

from fastn_mcp.fastn.names import name_of
from fastn_mcp.fastn.rows import Row, key_of
from fastn_mcp.tools.tool import Tool

FEW = 3
"""Examples of a finding that stands among others."""


class Severity(Enum):
    """How bad it is, the worst first."""

    HIGH = "high"
    """Something does not work."""
    MEDIUM = "medium"
    """Something will stop working, or is open to the wrong people."""
    LOW = "low"
    """Something to tidy up."""


@dataclass(frozen=True, slots=True)
class Example:
    """One of the resources that a finding is about."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class AccountFinding:
    """One thing found: `what` in a sentence with numbers, and `more`, the call that shows more of it."""

    severity: Severity
    what: str
    more: Tool[Any]
    examples: tuple[Example, ...] = ()
    """All that are known."""

    def data(self, most: int = FEW) -> dict[str, JsonValue]:
        """As an agent reads it, with at most so many examples."""
        given = self.more.arguments()
        arguments = {name: value for name, value in given.items() if name in self.more.model_fields_set}
        said: dict[str, JsonValue] = {"severity": self.severity.value, "what": self.what}
        if self.examples:
            said["examples"] = [{"id": example.id, "name": example.name} for example in self.examples[:most]]
        said["more"] = {"tool": self.more.tool_name(), "arguments": arguments}
        return said


def worst_first(findings: Iterable[AccountFinding]) -> list[AccountFinding]:
    """By severity; what is equally bad stays in its order."""
    order = list(Severity)
    return sorted(findings, key=lambda finding: order.index(finding.severity))


def examples(rows: Sequence[Row]) -> tuple[Example, ...]:
    """Those of these rows that have an id."""
    return tuple(Example(key_of(row), name_of(row)) for row in rows if key_of(row))
