"""The answer to a statement: what to know before its rows, and as many rows as fit."""

from collections.abc import Mapping, Sequence
from typing import cast

from pydantic import JsonValue

from fastn_mcp.records.formats import counted
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.records.sizes import size_of
from fastn_mcp.records.table import Table
from fastn_mcp.redaction import safe, shorten

DEFAULT_KB, MAX_KB = 8, 30
"""Sizes of an answer in thousands of bytes of JSON."""

_AROUND = 700
"""Bytes that are kept free for what is around the data."""

_LONG_ROWS = 12
"""Number of rows for which long cells are cut, if they would not fit otherwise."""


class QueryResult(FastnObject):
    """Rows of a statement, after what to know of them."""

    shape = (
        ("reach", "object"),
        ("columns", "array"),
        ("rows", "array"),
        ("next_offset", "integer"),
        ("file", "string"),
        ("total", "integer"),
    )


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
    whole = Table([shorten(name, 60) for name in columns], shown)
    table, cut = whole.fitted(max_kb * 1_000 - _AROUND - size_of({**around}), _LONG_ROWS)
    body: dict[str, JsonValue] = {**around, **table.to_json()}
    if cut:
        body["cut"] = "Long texts are cut: select fewer columns, or substr(column, 1, 1000)."
    end = offset + len(table.rows)
    if total is None or end < total:
        of = "more" if total is None else f"{total:,}"
        larger = f", max_kb {MAX_KB}" if max_kb < MAX_KB else ""
        body["more"] = f"{counted(len(table.rows), 'row')} of {of}. Aggregate{larger}, or go on with offset {end}."
        body["next_offset"] = end
    return QueryResult.model_validate(body)
