"""A finding about an account: a problem in a sentence, with a row for each resource that has it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from pydantic import JsonValue

from fastn_mcp.records.rows import Row, owner_of, without_empty

Cells = dict[str, JsonValue]

UNREAD_NAME = "\0"
"""Stands in cells for the name of the customer, until it is read."""


class Severity(Enum):
    """Severity of a finding, highest first."""

    HIGH = "high"
    """Something is broken."""
    MEDIUM = "medium"
    """Something will stop working, or gives access to the wrong people."""
    LOW = "low"
    """Something to tidy up."""


MAX_ROWS: Mapping[Severity, int] = {Severity.HIGH: 3, Severity.MEDIUM: 2, Severity.LOW: 1}
"""Number of rows of a finding where there is no table."""


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row by the names of its columns, and what it is ordered by."""

    cells: Cells
    failed: int = 0
    rate: float | None = None
    """Success rate in percent, if it is known."""
    at: datetime | None = None
    """Since when it exists or is broken, or when it expires."""
    customer: str | None = None
    """Id of the customer whose name stands in place of `UNREAD_NAME`."""

    def named(self, names: Mapping[str, str]) -> Cells:
        """Return the cells that are not empty, with the customer's name, or else its id; no name that is the id."""
        own = self.customer or ""
        cells: Cells = {
            column: cell.replace(UNREAD_NAME, names.get(own, own)) if isinstance(cell, str) else cell
            for column, cell in without_empty(self.cells).items()
        }
        if cells.get("name") == cells.get("id"):
            cells.pop("name", None)
        return cells


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem: `what` is a sentence with numbers."""

    severity: Severity
    what: str
    fix: str = ""
    """What helps."""
    rows: Sequence[TableRow] = ()
    """All resources concerned, in a stated order."""
    shown: Sequence[TableRow] = ()
    """Those that the finding itself shows; the table has the others."""
    more: JsonValue = None
    """Call that shows all of them, if there are more."""

    @property
    def first_rows(self) -> Sequence[TableRow]:
        """The rows to show where there is no table."""
        return self.rows[: MAX_ROWS[self.severity]]

    def data(self, names: Mapping[str, str]) -> JsonValue:
        """Return the finding as JSON. `names` are names of customers."""
        entry: Cells = {"severity": self.severity.value, "what": self.what}
        entry |= {"fix": self.fix} if self.fix else {}
        entry |= {"rows": [row.named(names) for row in self.shown]} if self.shown else {}
        return entry | ({"of": len(self.rows), "more": self.more} if self.more else {})


def unread_names(rows: Iterable[Row]) -> dict[str, str]:
    """Return what stands for the names of the customers of these rows."""
    return dict.fromkeys(filter(None, map(owner_of, rows)), UNREAD_NAME)
