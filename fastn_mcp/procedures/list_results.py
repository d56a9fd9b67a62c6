"""List results for agents: few columns, names for ids, ages in words."""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import Any

import anyio
from pydantic import JsonValue
from pydantic.alias_generators import to_snake

from fastn_mcp.account.dependence import Unchecked, by_reason
from fastn_mcp.account.entries import read_many_labels
from fastn_mcp.account.short_ids import short_id
from fastn_mcp.client.reads import MAX_LOOKUPS
from fastn_mcp.errors import FastnError, first_few, nearest
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.history import begins_within
from fastn_mcp.procedures.list_rows import ListAnswer, collected
from fastn_mcp.procedures.reads import AccountReads
from fastn_mcp.procedures.run_origin import started_by_stored
from fastn_mcp.records.formats import age, aged, counted, named_id, stamp
from fastn_mcp.records.labels import NO_NAMES, Names
from fastn_mcp.records.rows import Row, key_of, parse_timestamp, row_of, started_workflows, text
from fastn_mcp.records.states import run_state
from fastn_mcp.redaction import shorten, texts_in
from fastn_mcp.tools.fields import FIELD
from fastn_mcp.tools.operation import plain
from fastn_mcp.tools.paging import FULL, MAX_OBJECTS, List, created
from fastn_mcp.tools.workflows import ELAPSED_COLUMN, STARTED_COLUMN, GetExecution, ListExecutions

REFERENCES = {
    "endOrgId": "customer",
    "customerId": "customer",
    "workflowId": "workflow",
    "connectorId": "connector",
}
"""Fields with the id of another resource, and its kind."""

_STARTS_COLUMN = "starts"
"""Column with the workflows of a trigger's routes."""

_MAX_VALUE = 160
"""Maximum length of a value in characters."""

_MAX_PERMISSIONS = 1_000
"""Maximum length of a role's permissions in characters."""

_MAX_COLUMNS = 10
"""Fields shown if a row lacks its id or most of the columns, as when Fastn names them differently."""

_REPRESENTATIVE_FIELDS = ("headline", "message", "name", "slug", "title", "type", "id")
"""Fields that represent a whole object, in order of preference."""

_DIGITS = "0123456789"

_TIME = re.compile(r"(At|_at|timestamp|lastUsed|lastActive|lastRun|nextRun|expires)$")
"""Names of fields in which a number is a time."""

_UTC = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?Z", re.ASCII)
"""A time as `stamp` formats it, perhaps with fractions of a second. To parse and format it takes four times as long."""

_NEVER_IF_ABSENT = ("lastUsed", "lastUsedAt", "lastActive")
"""Times whose absence means never."""


class ConciseRows:
    """Format of a page's rows: few columns, names for ids, times with their age, nothing empty.

    An id in `names` is shown with its name; an id in `legend` is replaced by it. Without `now`, times have no age.
    """

    def __init__(
        self,
        columns: Sequence[str],
        never: Sequence[str] = (),
        names: Names = NO_NAMES,
        legend: Names = NO_NAMES,
        now: datetime | None = None,
    ) -> None:
        self._columns = columns
        self._never = (*_NEVER_IF_ABSENT, *never)
        self._names = names
        self._legend = legend
        self._now = now
        self._plain_columns = frozenset(
            name for name in columns if name not in REFERENCES and name != "routes" and not name.endswith("Name")
        )

    def __call__(self, row: Row) -> dict[str, JsonValue]:
        """Return a row in short form."""
        cells, absent = self._cells(row, self._columns)
        if absent > len(self._columns) / 2 or ("id" in self._columns and "id" not in row):
            plain = [name for name, value in row.items() if not isinstance(value, (dict, list))]
            cells, _ = self._cells(row, plain[:_MAX_COLUMNS])
        return cells

    def _cells(self, row: Row, fields: Sequence[str]) -> tuple[dict[str, JsonValue], int]:
        """Return the cells of these fields, and how many of them the row lacks."""
        cells: dict[str, JsonValue] = {}
        absent = 0
        plain = self._plain_columns
        for name in fields:
            value = row.get(name)
            if isinstance(value, str) and value and name in plain:
                is_short = len(value) <= _MAX_VALUE and value[0] not in _DIGITS
                cells[name] = value if is_short else self.dated(name, value)
            elif value is None or value == "":
                if name not in row:
                    absent += 1
                elif name in self._never:
                    cells[name] = "never"
            elif name in REFERENCES and isinstance(value, str):
                self._refer(cells, name, value)
            elif name == "routes":
                cells |= self._routed(row)
            elif name.endswith("Name") and name.removesuffix("Name") in cells:
                continue
            elif (cell := self._plain(name, value)) is not None:
                cells[name] = cell
        return cells, absent

    def _refer(self, cells: dict[str, JsonValue], name: str, key: str) -> None:
        kind = REFERENCES[name]
        label = self._names.get(kind, {}).get(key)
        if label is None or key not in self._legend.get(kind, {}):
            cells[f"{kind}_id"] = key  # as arguments are called
        if label is not None:
            cells[kind] = label

    def _routed(self, row: Row) -> dict[str, JsonValue]:
        started = ", ".join(self._named("workflow", key) for key in started_workflows(row))
        return {_STARTS_COLUMN: started} if started else {}

    def _plain(self, name: str, value: JsonValue) -> JsonValue:
        """Return a value as one text, number or boolean; None if it is empty."""
        if name == "permissions":
            return _permissions(value)
        if isinstance(value, dict):
            thing = _thing(value)
            if thing is not None:
                return f"{thing[0]} {self._named(*thing)}"
            value = next((value[key] for key in _REPRESENTATIVE_FIELDS if isinstance(value.get(key), (str, int))), None)
        elif isinstance(value, list):
            plain = [item for item in value if isinstance(item, (str, int, float))]
            value = ", ".join(map(str, plain)) if len(plain) == len(value) else f"{len(value)} entries"
        return self.dated(name, value) if isinstance(value, (str, int, float)) and value != "" else value or None

    def dated(self, name: str, value: str | float, longest: int = _MAX_VALUE) -> str | float:
        """Return a time with its age, or any other value as it is, up to `longest` characters."""
        if isinstance(value, str) and value[4:5] == "-":  # ISO 8601
            if self._now is None and (utc := _UTC.fullmatch(value)):
                return f"{utc[1]}Z"
            may_be_time = len(value) >= 16
        else:
            is_number = value.isdigit() if isinstance(value, str) else value is not True
            may_be_time = is_number and _is_time(name)
        if may_be_time and (time := parse_timestamp(value)) is not None:
            return stamp(time) if self._now is None else aged(time, self._now)
        return shorten(value, longest) if isinstance(value, str) else value

    def _named(self, kind: str, key: str) -> str:
        label = self._names.get(kind, {}).get(key)
        if label is None:
            return short_id(key)
        return label if key in self._legend.get(kind, {}) else named_id(short_id(key), label)


@lru_cache(maxsize=1024)
def _is_time(name: str) -> bool:
    return _TIME.search(name) is not None


def _with_elapsed(run: dict[str, JsonValue], now: datetime) -> dict[str, JsonValue]:
    """Add to a run that has not ended how long it has been under way."""
    at = created(run) if text(run, "status") and not run_state(run).has_ended else None
    return run if at is None else run | {ELAPSED_COLUMN: age(at, now).removesuffix(" ago")}


def _with_starter(run: dict[str, JsonValue], starters: Mapping[str, str]) -> dict[str, JsonValue]:
    """Add to a run who started it, if that is known."""
    starter = starters.get(key_of(run))
    return run if starter is None else run | {STARTED_COLUMN: starter}


def _derived(column: str) -> str | None:
    """Return the column of the concise form that is made of this one."""
    return _STARTS_COLUMN if column == "routes" else REFERENCES.get(column)


def _permissions(value: JsonValue) -> JsonValue:
    """Group permissions by what they are for: `connections:create,read; workflows:read`."""
    if isinstance(value, dict):
        value = [f"{group}:{action}" for group, actions in value.items() for action in texts_in(actions)]
    if not isinstance(value, list):
        return value
    groups: dict[str, list[str]] = {}
    for permission in texts_in(value):
        group, colon, action = permission.rpartition(":")
        groups.setdefault(group + colon, []).append(action)
    grouped = "; ".join(group + ",".join(actions) for group, actions in groups.items())
    return shorten(grouped, _MAX_PERMISSIONS) or None


def referred(rows: Iterable[Row], columns: Sequence[str]) -> tuple[Names, dict[str, list[str]]]:
    """Return the names that rows give for the ids in them, and the ids without a name, by kind."""
    named: dict[str, dict[str, str]] = {}
    unnamed: dict[str, dict[str, None]] = {}
    for field in columns:
        kind = REFERENCES.get(field)
        values = [row.get(field) for row in rows]
        if kind is None and {dict, list}.isdisjoint(map(type, values)):
            continue
        for row, value in zip(rows, values, strict=True):
            if kind is not None and isinstance(value, str):
                name = _name(row, kind)
                if name is not None:
                    named.setdefault(kind, {})[value] = name
                else:
                    unnamed.setdefault(kind, {})[value] = None
            elif field == "routes":
                unnamed.setdefault("workflow", {}).update(dict.fromkeys(started_workflows(row)))
            elif isinstance(value, dict) and (thing := _thing(value)) is not None and thing[0] in REFERENCES.values():
                unnamed.setdefault(thing[0], {})[thing[1]] = None
    return named, {kind: [key for key in keys if key not in named.get(kind, {})] for kind, keys in unnamed.items()}


def legend_of(names: Names, rows: int) -> Names:
    """Return the names that can replace their ids: unique, and few enough for the number of rows."""
    legend: dict[str, dict[str, str]] = {}
    for kind, of_kind in names.items():
        if kind not in REFERENCES.values():
            continue
        often = Counter(of_kind.values())
        single = {key: name for key, name in of_kind.items() if often[name] == 1}
        if single and len(single) <= rows / 2:
            legend[kind] = single
    return legend


def _name(row: Row, kind: str) -> str | None:
    """Return the name that a row gives for the resource of this kind that it refers to."""
    inner = row.get(kind)
    name = row.get(f"{kind}Name") or (inner.get("name") if isinstance(inner, dict) else None)
    return name if isinstance(name, str) and name else None


def _thing(value: Mapping[str, JsonValue]) -> tuple[str, str] | None:
    """Return the kind and id that a reference object contains; None if it is not one."""
    kind = value.get("type")
    key = value.get("id")
    return (kind, str(key)) if isinstance(kind, str) and isinstance(key, (str, int)) else None


async def listed(call: List[Any], context: ProcedureContext) -> ListAnswer:
    """Return the page that `call` asks for. Raises a `FastnError`."""
    page = await collected(call, context)
    answer = await shown(call, page, context)
    if not isinstance(call, ListExecutions):
        return answer
    begins = await begins_within(call, context.look, is_empty=not page.items)
    if begins is None:
        return answer
    return answer.model_copy(update={"history_begins": begins.in_words(context.system.now())})


async def shown(call: List[Any], page: ListAnswer, context: ProcedureContext, known: Names = NO_NAMES) -> ListAnswer:
    """Return the page with the requested fields, else in full or in concise form, as `detail` says.

    `known` are names of what the rows refer to.
    """
    items = page.items
    update = dict[str, Any]()
    now = context.system.now()
    if isinstance(call, ListExecutions) and call.detail != FULL:
        starters = started_by_stored(items, context)
        items = [_with_elapsed(row, now) for row in items]
        items = [_with_starter(row, starters) for row in items]
    if isinstance(call, ListExecutions):
        items, unread = await _with_details(call, items, context)
        update["gaps"] = [*page.gaps, *unread]
    if call.fields is not None:
        update |= await _picked(call, call.fields, items, context=context, known=known)
    elif call.detail == FULL:
        update["items"] = items
    else:
        concise, update["ids"] = await _concise(call, call.row_type().columns, items, context=context, known=known)
        update["items"] = list(map(concise, items))
    if len(items) > MAX_OBJECTS and call.detail != FULL:
        update["now"] = stamp(now)
    return page.model_copy(update=update)


async def _concise(
    call: List[Any], columns: Sequence[str], rows: Sequence[Row], context: ProcedureContext, known: Names
) -> tuple[ConciseRows, Names | None]:
    """Return the format of these columns, and what it calls by name, by kind and id."""
    named, unnamed = referred(rows, columns)
    names = {**known, **named}
    for kind, keys in unnamed.items():
        with suppress(FastnError):  # the ids say enough; a page of their list is a look-up too
            names[kind] = {**names.get(kind, {}), **await read_many_labels(kind, keys, context.look, MAX_LOOKUPS - 1)}
    legend = legend_of(names, len(rows))
    now = None if len(rows) > MAX_OBJECTS else context.system.now()
    return ConciseRows(columns, call.row_type().never, names, legend=legend, now=now), legend or None


async def _picked(
    call: List[Any], fields: Sequence[str], rows: Sequence[Row], context: ProcedureContext, known: Names
) -> dict[str, Any]:
    """Return rows with these fields. Columns of the concise form are as they are there, unless in full."""
    existing = list(dict.fromkeys([*call.row_type().columns, *(name for row in rows for name in row)]))
    field_by_name = {name: _field_of(name, existing) for name in fields}
    asked = set(field_by_name.values())
    columns = [name for name in call.row_type().columns if name in asked or _derived(name) in asked]
    concise, ids = await _concise(call, columns, rows, context=context, known=known)
    picked: list[dict[str, JsonValue]] = []
    for row in rows:
        cells: dict[str, JsonValue] = concise(row) if columns else {}
        dated = {} if call.detail == FULL else _dated(row, asked, concise)
        cells = {**cells, **row} if call.detail == FULL else {**row, **dated, **cells}
        for name in columns:  # a name that is not known
            derived = _derived(name)
            if derived is not None and row.get(name) and derived not in cells:
                cells[derived] = row[name]
        picked.append({name: cells[field] for name, field in field_by_name.items() if field in cells})
    present = {name for row in picked for name in row} | set(map(_derived, columns))
    absent = _absent({name: field for name, field in field_by_name.items() if name not in present}, existing)
    return {"items": picked, "ids": ids, "absent": absent or None if rows else None}


def _dated(row: Row, fields: Iterable[str], concise: ConciseRows) -> dict[str, JsonValue]:
    """Return these fields of a row that are one text or number, times with their age."""
    values = [(name, row.get(name)) for name in fields]
    return {
        name: concise.dated(name, value, sys.maxsize) for name, value in values if isinstance(value, (str, int, float))
    }


def _absent(missing: Mapping[str, str], existing: Sequence[str]) -> list[str]:
    """Describe requested names whose fields no row has. After an unknown one come the fields that there are."""
    unknown = {name for name, field in missing.items() if field not in existing}
    words = first_few(
        missing, lambda name: shorten(name, _MAX_VALUE) + (nearest(name, existing) if name in unknown else "")
    )
    return [*words, f"rows have: {', '.join(_argument_names(existing))}"] if unknown else words


_MAX_NAMED_FIELDS = 40
"""Maximum number of fields that are named to choose from."""

_OWNER_FIELDS = ("endorgid", "customerid")
"""Fields with the customer of a row, as `plain` returns them."""


def _field_of(name: str, existing: Sequence[str]) -> str:
    """Return the field of rows that is called so, by Fastn or as an argument: `endOrgId` is `customer_id` too."""
    if name in existing:
        return name
    wanted = _OWNER_FIELDS if name == "customer_id" else (plain(name),)
    return next((field for field in existing if plain(field) in wanted), name)


def _argument_names(existing: Iterable[str]) -> list[str]:
    """Return the names of fields as arguments have them."""
    fields = [name for name in existing if FIELD.fullmatch(name)][:_MAX_NAMED_FIELDS]
    names = ["customer_id" if plain(name) in _OWNER_FIELDS else to_snake(name) for name in fields]
    return list(dict.fromkeys(names))


MAX_DETAILS = 20
"""Maximum number of runs of a page that are read for their input and output."""

_MAX_PARALLEL = 5
"""Maximum number of these reads at once."""

_DETAIL_FIELDS = ("input", "output", "summary", "steps", "trace")
"""Fields of a run that a list may leave out."""


async def _with_details(
    call: ListExecutions, rows: list[dict[str, JsonValue]], context: ProcedureContext
) -> tuple[list[dict[str, JsonValue]], list[str]]:
    """Add the details that are asked for by reading each run. Return also what was not read."""
    wanted = ["input", "output"] if call.detail == FULL else []
    wanted = [name for name in call.fields if name in _DETAIL_FIELDS] if call.fields is not None else wanted
    lacking = {text(row, "id"): number for number, row in enumerate(rows) if not row.keys() >= {*wanted}}
    lacking.pop("", None)
    whole = list(rows)
    reads = AccountReads(context.look)
    names = " and ".join(wanted)
    most = min(MAX_DETAILS, context.look.affordable)
    limiter = anyio.CapacityLimiter(_MAX_PARALLEL)

    async def read(key: str) -> None:
        async with limiter:
            whole[lacking[key]] = rows[lacking[key]] | row_of(await context.read(GetExecution(execution_id=key)))

    await reads.run(dict.fromkeys([*lacking][:most], read))
    failed = by_reason(Unchecked(key, error.what) for key, error in reads.failed.items())
    gaps = [f"The {names} of {gap.what} could not be read: {gap.why}" for gap in failed]
    unread = len(lacking) - most
    if unread > 0:
        then = f"Use limit {most} and next_cursor." if most else "Call again in a minute."
        gaps.append(f"{counted(unread, 'row')} without {names}: they are read for {most} rows of a page. {then}")
    return whole, gaps
