"""The table of an overview about one subject: all rows in few columns, by a chosen order, as many as fit."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.records.rows import Row, owner_of, without_empty

Order = Literal["failed", "rate", "name", "age"]

Cells = dict[str, JsonValue]

UNREAD_NAME = "\0"
"""Stands in cells for the name of the customer, until it is read."""

MAX_CHARACTERS = 10_000
"""Maximum size of the rows of a page in characters of JSON: under 4,000 tokens with ids of workflows."""


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


_KEYS: Mapping[Order, Callable[[TableRow], Any]] = {
    "failed": lambda row: -row.failed,
    "rate": lambda row: (row.rate is None, row.rate or 0.0, -row.failed),
    "name": lambda row: ("name" not in row.cells, str(row.cells.get("name", "")).casefold()),
    "age": lambda row: row.at or datetime.max.replace(tzinfo=UTC),
}


def unread_names(rows: Iterable[Row]) -> dict[str, str]:
    """Return what stands for the names of the customers of these rows."""
    return dict.fromkeys(filter(None, map(owner_of, rows)), UNREAD_NAME)


def ordered(rows: Sequence[TableRow], order: Order | None) -> list[TableRow]:
    """Sort rows; None keeps the order of the findings. Unknown rates and names come last.

    Rows by age have the date that they are ordered by, unless another column does.
    """
    if order == "age":
        rows = [
            replace(row, cells={**row.cells, "since": f"{row.at:%Y-%m-%d}"})
            if row.at and row.cells.keys().isdisjoint(("since", "expires"))
            else row
            for row in rows
        ]
    return [*rows] if order is None else sorted(rows, key=_KEYS[order])


def fitting(rows: Sequence[TableRow], room: int) -> int:
    """Return how many rows fit on a page, at least one."""
    for number, row in enumerate(rows):
        cells = row.named({row.customer or "": "a name of the usual length"})
        room -= len(to_json([*map(cells.get, row.cells)])) + 1
        if room < 0 and number:
            return number
    return len(rows)
