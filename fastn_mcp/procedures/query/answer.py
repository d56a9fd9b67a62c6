"""The answer to a statement: what to know before its rows, and as many rows as fit."""

from collections.abc import Mapping, Sequence
from typing import cast

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.records.formats import counted
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.redaction import safe, shorten

DEFAULT_KB, MAX_KB = 8, 30
"""Sizes of an answer in thousands of bytes of JSON."""

_AROUND = 700
"""Bytes that are kept free for what is around the data."""

_MIN_ROWS = 12
"""Number of rows for which long cells are cut, if they would not fit otherwise."""

_CELLS = (1_000, 500, 250, 120, 60, 30, 15)
"""Maximum sizes of a cell in characters that are tried, one after the other."""


class QueryResult(FastnObject):
    """Rows of a statement, after what to know of them."""

    shape = (("reach", "object"), ("columns", "array"), ("rows", "array"), ("next_offset", "integer"))


def result_of(
    around: Mapping[str, JsonValue],
    columns: Sequence[str],
    rows: Sequence[Sequence[JsonValue]],
    *,
    offset: int,
    total: int | None,
    max_kb: int,
) -> QueryResult:
    """Return the answer with the rows that fit.

    `rows` begin at `offset`; `total`: the number of all, None if it is not known; `max_kb`: thousands of bytes.
    """
    shown = cast("list[list[JsonValue]]", safe(cast(JsonValue, [[*row] for row in rows])))
    head: dict[str, JsonValue] = {**around, "columns": [*(shorten(name, 60) for name in columns)]}
    budget = max_kb * 1_000 - _AROUND - len(to_json(head))
    fitting, is_cut = _fitting(shown, budget)
    body = {**head, "rows": cast(JsonValue, fitting)}
    if is_cut:
        body["cut"] = "Long texts are cut: select fewer columns, or substr(column, 1, 1000)."
    end = offset + len(fitting)
    if total is None or end < total:
        of = "more" if total is None else f"{total:,}"
        larger = f", max_kb {MAX_KB}" if max_kb < MAX_KB else ""
        body["more"] = f"{counted(len(fitting), 'row')} of {of}. Aggregate{larger}, or go on with offset {end}."
        body["next_offset"] = end
    return QueryResult.model_validate(body)


def _fitting(rows: list[list[JsonValue]], budget: int) -> tuple[list[list[JsonValue]], bool]:
    """Return the rows that fit, at least one, and whether a cell was cut: so that at least a dozen rows fit."""
    wanted = min(len(rows), _MIN_ROWS)
    fitting = rows[: _count(rows, budget)]
    if len(fitting) >= wanted:
        return fitting, False
    for most in _CELLS:
        cut = [[shorten(cell, most) if isinstance(cell, str) else cell for cell in row] for row in rows]
        count = _count(cut, budget)
        if count >= wanted:
            return cut[:count], True
        fitting = cut[: max(1, count)]
    return fitting, True


def _count(rows: Sequence[Sequence[JsonValue]], budget: int) -> int:
    """Return how many of the first rows fit."""
    for number, row in enumerate(rows):
        budget -= len(to_json(row)) + 1
        if budget < 0:
            return number
    return len(rows)
