"""A page of a list with as many matching rows as were asked for, by bounded reads, and shown as was asked."""

from typing import Any, cast

from fastn_mcp.errors import FastnError
from fastn_mcp.offer import Record
from fastn_mcp.procedures.procedure import Means
from fastn_mcp.procedures.rows import concise, legend_of, picked, referred
from fastn_mcp.tools.listing import CSV, FULL, List, Listed

FURTHER = 10
"""Further answers that are read for one page, of a hundred rows each, where Fastn does not filter."""

Rows = Listed[Record]


async def listed(call: List[Any], means: Means) -> Rows:
    """The page that `call` asks for. Raises a `FastnError`."""
    return await _shown(call, await _collected(call, means), means)


async def _collected(call: List[Any], means: Means) -> Rows:
    """Reads on while rows are missing that an answer left out because they do not match."""
    page = cast(Rows, await means.send(call))
    items, positions, unchecked = list(page.items), list(page.positions), set(page.not_checked or ())
    total, read = page.total, 1
    while call.filters() and len(items) < call.limit and page.next_cursor is not None and read <= FURTHER:
        await means.report(f"{len(items)} of {call.limit} rows found", read, None)
        try:
            page = cast(Rows, await means.send(call.wider(page.next_cursor, call.limit - len(items))))
        except FastnError:
            if not items:
                raise
            break  # what was found is worth more than an error, and the cursor goes on from here
        items += page.items
        positions += page.positions
        unchecked |= {*(page.not_checked or ())}
        total, read = None, read + 1
    values: dict[str, Any] = {
        "items": items,
        "next_cursor": page.next_cursor,
        "total": total,
        "not_checked": sorted(unchecked) or None,
        "unknown": call.unknown() or None if not items else None,
        "looked_at": call.limit + (read - 1) * 100 if read > 1 else None,
    }
    return Listed[Record].model_construct(**values).placed(positions)


async def _shown(call: List[Any], page: Rows, means: Means) -> Rows:
    """The rows with the fields that were asked for, or else those that a person would want, or all."""
    if call.detail == FULL and call.fields is None:
        return page
    rows = [row.model_dump(exclude_unset=True) for row in page.items]
    absent: list[str] | None = None
    ids: dict[str, dict[str, str]] = {}
    if call.fields is not None:
        there = {name for row in rows for name in row}
        absent = [name for name in call.fields if name not in there] if rows else None
        rows = [picked(row, call.fields) for row in rows]
    else:
        columns = _item(call).columns
        named, unnamed = referred(rows, columns)
        names = dict(named)
        for kind, keys in unnamed.items():
            names[kind] = {**named.get(kind, {}), **await means.directory.names(kind, keys, means.send)}
        legend = legend_of(names, len(rows))
        now = None if call.detail == CSV else means.system.now()
        rows = [concise(row, columns, names, legend, now) for row in rows]
        ids = {kind: {name: key for key, name in of_kind.items()} for kind, of_kind in legend.items()}
    shown = [Record.model_validate(row) for row in rows]
    return page.model_copy(update={"items": shown, "absent": absent or None, "ids": ids or None}).placed(page.positions)


def _item(call: List[Any]) -> type[Record]:
    """What the rows of a list are."""
    return cast("type[Record]", type(call).returns.model_fields["items"].annotation.__args__[0])  # pyright: ignore
