"""The table of an answer: rows under columns that are named once, as JSON for a model, as records for everything
else."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from pydantic import JsonValue

from fastn_mcp.records.rows import Row
from fastn_mcp.records.sizes import cut_to, fitting_rows, size_of, truncate

_LIMITS = (1_000, 500, 250, 120, 60, 30, 15)
"""Maximum sizes of a cell, in characters or entries, that are tried for a row that is too long."""

_MIN_CELL = 40
"""Minimum size of a cell that is cut, in bytes."""


@dataclass(frozen=True, slots=True)
class Table:
    """Columns, the cells of each row in their order, and the values that all rows share."""

    columns: Sequence[str]
    rows: Sequence[Sequence[JsonValue]]
    """A cell for each column in each row; None if it is empty."""
    in_all_rows: Mapping[str, JsonValue] = field(default_factory=dict[str, JsonValue])

    @classmethod
    def of(cls, records: Sequence[Row]) -> "Table":
        """Return the table of records with other fields each. A plain value that all of them share is stated once.

        The columns stand in the order in which the records have them. One that is empty in all records is left out.
        """
        first: Row = records[0] if len(records) > 1 else {}
        shared = {name: value for name, value in first.items() if _is_shared(name, value, records)}
        columns = [name for name in _in_order(records) if name not in shared and _is_filled(name, records)]
        return cls(columns, [[record.get(name) for name in columns] for record in records], shared)

    @classmethod
    def parse(cls, value: JsonValue) -> "Table | None":
        """Return the table that `to_json` made this value of; None if it is anything else."""
        if not isinstance(value, dict):
            return None
        columns = value.get("columns")
        rows = value.get("rows")
        if not (isinstance(columns, list) and isinstance(rows, list)):
            return None
        shared = value.get("in_all_rows")
        return cls(
            columns=cast("list[str]", columns),
            rows=cast("list[list[JsonValue]]", rows),
            in_all_rows=shared if isinstance(shared, dict) else {},
        )

    def to_json(self) -> dict[str, JsonValue]:
        """Return the table as a model reads it."""
        value: dict[str, JsonValue] = {"columns": [*self.columns]}
        if self.in_all_rows:
            value["in_all_rows"] = {**self.in_all_rows}
        value["rows"] = [[*row] for row in self.rows]
        return value

    def records(self) -> list[dict[str, JsonValue]]:
        """Return each row by its columns, with the values that all rows share."""
        return [{**dict(zip(self.columns, row, strict=False)), **self.in_all_rows} for row in self.rows]

    def has_room_in(self, budget: int, long_rows: int) -> bool:
        """Whether the columns leave room for this number of long rows, cut to what is still read well."""
        left = budget - self._head_size()
        return left >= budget // 2 and left // long_rows >= len(self.columns) * _MIN_CELL

    def fitted(self, budget: int, long_rows: int) -> "tuple[Table, int]":
        """Return the table with the rows that fit into `budget` bytes, at least one, and how many of them were cut.

        At least `long_rows` rows fit, if there are so many: the cells of longer ones are cut.
        """
        if size_of(self.to_json()) <= budget:
            return self, 0
        sized = [([*row], size_of([*row])) for row in self.rows]
        rows, cut = fitting_rows(
            sized,
            count=len(sized),
            budget=budget - self._head_size(),
            long_rows=long_rows,
            cut_row=_cut_row,
        )
        return replace(self, rows=rows), cut

    def _head_size(self) -> int:
        return size_of(replace(self, rows=()).to_json())


def _cut_row(cells: list[JsonValue], share: int) -> list[JsonValue]:
    """Cut the longest cells of a row until it fits into `share` bytes."""
    for limit in _LIMITS:
        cut = [truncate(cell, limit) for cell in cells]
        if size_of(cut) <= share:
            return cut
    return [cut_to(cell, share // len(cells) - 1)[0] for cell in cells]


def _in_order(records: Iterable[Row]) -> list[str]:
    """Return the names of all fields, in the order in which records have them."""
    columns: list[str] = []
    for names in dict.fromkeys(map(tuple, records)):
        place = 0
        for name in names:
            if name not in columns:
                columns.insert(place, name)
            place = columns.index(name) + 1
    return columns


def _is_filled(name: str, records: Iterable[Row]) -> bool:
    return any(record.get(name) is not None for record in records)


def _is_shared(name: str, value: JsonValue, records: Sequence[Row]) -> bool:
    """Whether all records have this plain value. The id stays in each row."""
    return name != "id" and isinstance(value, (str, int, float)) and all(each.get(name) == value for each in records)
