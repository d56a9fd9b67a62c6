"""List results for agents: matching rows from bounded reads, few columns, ages in words."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.errors import FastnError
from fastn_mcp.fastn.ages import aged
from fastn_mcp.fastn.rows import Row, parse_timestamp, row_of, started_workflows
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.redaction import shorten
from fastn_mcp.tools.paging import CSV, FULL, List, Listed
from fastn_mcp.tools.tool import FastnObject

REFERS = {
    "endOrgId": "customer",
    "customerId": "customer",
    "workflowId": "workflow",
    "connectorId": "connector",
}
"""Fields with the id of another resource, and its kind."""

Names = Mapping[str, Mapping[str, str]]
"""Names by kind and id."""

_LONGEST = 160
"""Maximum length of a value in characters."""

_MOST = 10
"""Fields shown if a row lacks most of the columns, as when Fastn names them differently."""

_SAYS_MOST = ("headline", "message", "name", "slug", "title", "type", "id")
"""Fields that represent a whole object, in order of preference."""

_TIME = re.compile(r"(At|_at|timestamp|lastUsed|lastActive|lastRun|nextRun|expires)$")
"""Names of fields in which a number is a time."""

_NEVER = ("lastUsed", "lastUsedAt", "lastActive")
"""Times whose absence means never."""


def concise(
    row: Mapping[str, JsonValue], columns: tuple[str, ...], names: Names, legend: Names, now: datetime | None
) -> dict[str, JsonValue]:
    """Return the columns of a row, in short form; without `now`, times have no age.

    An id in `names` is shown with its name; an id in `legend` is replaced by it.
    """
    shown = [name for name in columns if name in row]
    if len(shown) < len(columns) / 2:
        shown = [name for name, value in row.items() if not isinstance(value, (dict, list))][:_MOST]
    cells: dict[str, JsonValue] = {}
    for name in shown:
        kind, value = REFERS.get(name), row[name]
        if kind and isinstance(value, str) and value in names.get(kind, {}):
            cells |= {} if value in legend.get(kind, {}) else {name: value}
            cells[kind] = names[kind][value]
        elif name == "routes":
            cells |= _routed(row, names.get("workflow", {}), legend.get("workflow", {}))
        elif (thing := _thing(value)) is not None:
            kind, key = thing
            label = names.get(kind, {}).get(key)
            short = f"{kind} {label}" if key in legend.get(kind, {}) else f"{kind} {key} ({label})"
            cells[name] = short if label else f"{kind} {key}"
        elif not (name.endswith("Name") and name.removesuffix("Name") in cells):
            cells |= _plain(name, value, now)
    return cells


def picked(row: Mapping[str, JsonValue], fields: Iterable[str]) -> dict[str, JsonValue]:
    """Return the requested fields unchanged, and always the id."""
    return {name: row[name] for name in dict.fromkeys(["id", *fields]) if name in row}


def referred(rows: Iterable[Mapping[str, JsonValue]], columns: tuple[str, ...]) -> tuple[Names, dict[str, list[str]]]:
    """Return the names that rows give for the ids in them, and the ids without a name, by kind."""
    named: dict[str, dict[str, str]] = {}
    unnamed: dict[str, dict[str, None]] = {}
    fields = [(field, kind) for field, kind in REFERS.items() if field in columns]
    for row in rows:
        for field, kind in fields:
            if not isinstance(value := row.get(field), str):
                continue
            if (name := _name(row, kind)) is not None:
                named.setdefault(kind, {})[value] = name
            else:
                unnamed.setdefault(kind, {})[value] = None
        for thing in filter(None, (_thing(row.get(field)) for field in columns)):
            if thing[0] in REFERS.values():
                unnamed.setdefault(thing[0], {})[thing[1]] = None
        if "routes" in columns:
            unnamed.setdefault("workflow", {}).update(dict.fromkeys(started_workflows(row)))
    return named, {kind: [key for key in keys if key not in named.get(kind, {})] for kind, keys in unnamed.items()}


def legend_of(names: Names, rows: int) -> Names:
    """Return the names that can replace their ids: unique, and few enough for the number of rows."""
    found: dict[str, dict[str, str]] = {}
    for kind, of_kind in names.items():
        if kind not in REFERS.values():
            continue
        often = Counter(of_kind.values())
        if (single := {key: name for key, name in of_kind.items() if often[name] == 1}) and len(single) <= rows / 2:
            found[kind] = single
    return found


def _name(row: Mapping[str, JsonValue], kind: str) -> str | None:
    """Return the name that a row gives for the resource of this kind that it refers to."""
    inner = row.get(kind)
    name = row.get(f"{kind}Name") or (inner.get("name") if isinstance(inner, dict) else None)
    return name if isinstance(name, str) and name else None


def _thing(value: JsonValue) -> tuple[str, str] | None:
    """Return the kind and id that a reference object contains; None if it is not one."""
    if not isinstance(value, dict):
        return None
    kind, key = value.get("type"), value.get("id")
    return (kind, str(key)) if isinstance(kind, str) and isinstance(key, (str, int)) else None


def _plain(name: str, value: JsonValue, now: datetime | None) -> dict[str, JsonValue]:
    if value is None or value == "":
        return {name: "never"} if name in _NEVER else {}
    if isinstance(value, dict):
        value = next((value[key] for key in _SAYS_MOST if isinstance(value.get(key), (str, int))), None)
        return {} if value is None else _plain(name, value, now)
    if isinstance(value, list):
        plain = [item for item in value if isinstance(item, (str, int, float))]
        value = ", ".join(map(str, plain)) if len(plain) == len(value) else f"{len(value)} entries"
        return _plain(name, value, now)
    is_iso = isinstance(value, str) and len(value) >= 16 and value[4:5] == "-"
    is_epoch = _TIME.search(name) is not None and "-" not in str(value)
    if now and (is_iso or is_epoch) and (time := parse_timestamp(value)) is not None:
        return {name: aged(time, now)}
    return {name: shorten(value, _LONGEST) if isinstance(value, str) else value}


def _routed(row: Row, names: Mapping[str, str], legend: Mapping[str, str]) -> dict[str, JsonValue]:
    keys = started_workflows(row)
    started = [legend.get(key) or (f"{key} ({names[key]})" if key in names else key) for key in keys]
    return {"starts": ", ".join(started)} if started else {}


FURTHER = 10
"""Maximum number of further pages of 100 rows read to fill one page, if Fastn does not filter."""

Rows = Listed[FastnObject]


async def listed(call: List[Any], context: ProcedureContext) -> Rows:
    """Return the page that `call` asks for. Raises a `FastnError`."""
    return await shown(call, await collected(call, context), context)


async def collected(call: List[Any], context: ProcedureContext) -> Rows:
    """Read further pages while filters leave the page short of rows."""
    page = cast(Rows, await context.read(call))
    items, positions, unchecked = list(page.items), list(page.positions), set(page.not_checked or ())
    total, read = page.total, 1
    while call.filters and len(items) < call.limit and page.next_cursor is not None and read <= FURTHER:
        await context.report(f"{len(items)} of {call.limit} rows found", read, None)
        try:
            page = cast(Rows, await context.read(call.wider(page.next_cursor, call.limit - len(items))))
        except FastnError:
            if not items:
                raise
            break  # keep the rows found; the cursor continues from here
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
    return Listed[FastnObject].model_construct(**values).place(positions)


async def shown(call: List[Any], page: Rows, context: ProcedureContext, known: Names | None = None) -> Rows:
    """Return the rows with the requested fields, else in full or in concise form, as `detail` says.

    `known` are names of what the rows refer to.
    """
    if call.detail == FULL and call.fields is None:
        return page
    rows = [row_of(row) for row in page.items]
    absent: list[str] | None = None
    ids: dict[str, dict[str, str]] = {}
    if call.fields is not None:
        present = {name for row in rows for name in row}
        absent = [name for name in call.fields if name not in present] if rows else None
        rows = [picked(row, call.fields) for row in rows]
    else:
        columns = _item(call).columns
        named, unnamed = referred(rows, columns)
        names = {**(known or {}), **named}
        for kind, keys in unnamed.items():
            names[kind] = {**names.get(kind, {}), **await context.directory.names(kind, keys, context.read)}
        legend = legend_of(names, len(rows))
        now = None if call.detail == CSV else context.system.now()
        rows = [concise(row, columns, names, legend, now) for row in rows]
        ids = {kind: {name: key for key, name in of_kind.items()} for kind, of_kind in legend.items()}
    items = [FastnObject.model_validate(row) for row in rows]
    return page.model_copy(update={"items": items, "absent": absent or None, "ids": ids or None}).place(page.positions)


def _item(call: List[Any]) -> type[FastnObject]:
    """Return the row type of a list."""
    return cast("type[FastnObject]", type(call).returns.model_fields["items"].annotation.__args__[0])  # pyright: ignore
