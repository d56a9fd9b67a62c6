"""The table of an overview about one subject: all rows in few columns, by a chosen order, as many as fit."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic_core import to_json

from fastn_mcp.procedures.checks.finding import TableRow

Order = Literal["failed", "rate", "name", "age"]

MAX_CHARACTERS = 10_300
"""Maximum size of the rows of a page in characters of JSON: under 4,000 tokens with ids of workflows."""


_KEYS: Mapping[Order, Callable[[TableRow], Any]] = {
    "failed": lambda row: -row.failed,
    "rate": lambda row: (row.rate is None, row.rate or 0.0, -row.failed),
    "name": lambda row: ("name" not in row.cells, str(row.cells.get("name", "")).casefold()),
    "age": lambda row: row.at or datetime.max.replace(tzinfo=UTC),
}


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
