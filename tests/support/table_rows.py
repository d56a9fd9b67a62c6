"""Rows of a list's answer, of either form."""

from typing import Any, cast


def rows_of(data: Any) -> list[dict[str, Any]]:
    """Return the rows of `data` as objects, from objects or from a table."""
    if isinstance(data, list):
        return cast("list[dict[str, Any]]", data)
    shared = data.get("in_all_rows", {})
    columns = data["columns"]
    assert all(len(row) <= len(columns) for row in data["rows"])
    empty = dict.fromkeys(columns)
    return [{**shared, **empty, **dict(zip(columns, row, strict=False))} for row in data["rows"]]


def table_rows(table: Any) -> list[dict[str, Any]]:
    """Return the rows of an overview's table as objects without what is empty."""
    assert all(row[-1] is not None for row in table["rows"] if row)
    return [{name: cell for name, cell in row.items() if cell is not None} for row in rows_of(table)]
