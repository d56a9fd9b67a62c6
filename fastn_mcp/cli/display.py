"""Results of calls for people: tables, reports, previews and receipts, derived from the body that an agent gets."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeGuard, cast

from pydantic import JsonValue
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table as Grid
from rich.text import Text

from fastn_mcp.account.short_ids import short_id
from fastn_mcp.cli import layout
from fastn_mcp.cli.layout import style
from fastn_mcp.records.formats import (
    age,
    age_first,
    age_only,
    counted,
    field_in_words,
    lasting,
    name_only,
    quoted,
    sentence,
)
from fastn_mcp.records.rows import Row, as_word, parse_timestamp
from fastn_mcp.records.states import RunState, State, state_in_words
from fastn_mcp.records.table import Table
from fastn_mcp.redaction import sanitize

Object = dict[str, JsonValue]

_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "list_executions": ("workflow", "status", "createdAt", "error", "customer", "durationMs"),
    "list_connections": ("connector", "customer", "status", "expiresAt", "lastUsedAt", "name"),
    "list_triggers": ("name", "status", "starts", "customer"),
    "list_changes": ("name", "tool", "at", "outcome"),
    "query_audit_log": ("timestamp", "actor", "action", "resource", "outcome"),
}
"""First columns of tools whose rows do not begin with what a person looks for; the others follow."""

_NAME_COLUMNS = ("name", "headline", "what", "workflow", "workflowName", "email", "title")
_ID_COLUMNS = ("id", "run", "change_id")
_STATUS_COLUMNS = ("status", "state", "severity", "outcome", "subscriptionStatus")
_FOR_AGENTS = ("untrusted", "next_cursor", "now", "ids", "retry_after_seconds", "score")
_LEADING_FIELDS = ("message", "does", "verdict")
"""Sentences that a report begins with."""
_DIM = "dim"
_GREEN = style(layout.GREEN)
_STYLES = {
    **dict.fromkeys((State.LIVE, RunState.COMPLETED, "done", "success"), _GREEN),
    **dict.fromkeys((State.BROKEN, RunState.FAILED, RunState.TIMED_OUT, "high", "failure"), style(layout.RED)),
    **dict.fromkeys((State.OFF, State.DRAFT, RunState.CANCELLED, "medium", "invited"), style(layout.ORANGE)),
    **dict.fromkeys((RunState.UNDER_WAY, "low"), style(layout.CYAN)),
}
_ENDINGS = {"timeout": RunState.TIMED_OUT.value}
_PERCENT = re.compile(r"(?<=\d) (?=%)")
_MIN_WIDTH = 24
"""Columns below which a value is shown as plain text."""
_MAX_CELL = 22
_MAX_WORD = 40
_GAP = 2
"""Columns between two cells."""
_MAX_INLINE = 40
"""Characters of a value up to which its mapping is shown on a line."""
_MAX_SENTENCE = 60
"""Characters of a value up to which its row is shown in a table."""
_IMPORTANT = 4
"""Number of a tool's first columns that rather have the id below the name than are left out."""
_NAMES_SHOWN = 3
_MAX_MS = 120_000
"""Milliseconds up to which a length of time is shown in seconds."""


def rows_in(body: Mapping[str, JsonValue]) -> list[Row] | None:
    """Return the rows of a list's body, whichever of its forms it has; None if it is not a list."""
    data = body.get("data")
    table = Table.parse(data)
    if table is not None:
        return cast("list[Row]", table.records())
    match data:
        case {"changes": list() as rows, **rest} if rest.keys() <= {"next_cursor"}:
            return cast("list[Row]", rows)
        case list() as rows if _is_rows(rows) or not rows:
            return cast("list[Row]", rows)
        case _:
            return None


def cursor_of(body: Mapping[str, JsonValue]) -> str | None:
    """Return the cursor with which a list goes on."""
    data = body.get("data")
    cursor = body.get("next_cursor") or (data.get("next_cursor") if isinstance(data, dict) else None)
    return cursor if isinstance(cursor, str) else None


@dataclass(frozen=True, slots=True)
class Display:
    """Renders bodies in the width of a terminal. `command` returns the command line of a call that is suggested."""

    width: int
    now: datetime
    command: Callable[[str, Mapping[str, JsonValue]], str]

    def body(self, tool: str, body: Mapping[str, JsonValue]) -> Iterator[RenderableType]:
        """Render the body of a result, preview, pending request or error."""
        rest = {key: item for key, item in body.items() if key not in _FOR_AGENTS}
        rows = rows_in(body)
        done = rest.pop("done", None)
        receipt = rest.pop("receipt", None)
        if rows is not None:
            del rest["data"]
            total = rest.pop("total", None)
            yield from self._page(rows, _COLUMNS.get(tool, ()), total, has_more=bool(cursor_of(body)))
        elif done is not None:
            data = rest.pop("data", None)
            own: Object = data if isinstance(data, dict) else {"result": data}
            yield from self._receipt(str(done), own, {**rest, **(receipt if isinstance(receipt, dict) else {})})
            rest = {key: item for key, item in own.items() if item is not None}
        elif "preview" in rest:
            rest = {key: item for key, item in rest.items() if key not in ("status", "outcome")}
        if rest and (rows is not None or done is not None):
            yield Text()
        for inner in (rest.get("preview"), rest.get("data")):
            if isinstance(inner, dict):
                rest = {**{key: item for key, item in rest.items() if item is not inner}, **inner}
        in_all = rest.get("of")
        if isinstance(in_all, int):
            del rest["of"]
            rest["rows in all"] = in_all
        yield from self.report(rest)

    def _page(
        self, rows: Sequence[Row], first: Sequence[str], total: JsonValue, *, has_more: bool
    ) -> Iterator[RenderableType]:
        """Render the rows of a list, and how to get more of them."""
        if any(rows):
            yield self.table(rows, first)
        else:
            yield Text("None of these fields." if rows else "None.")
        if has_more or (isinstance(total, int) and total > len(rows)):
            of = f" of {total:,}" if isinstance(total, int) else " rows"
            yield Text(f"\n{len(rows):,}{of}. For more: --limit or --all. To narrow it down: --help.", _DIM)

    def _receipt(self, done: str, data: Object, receipt: Object) -> Iterator[RenderableType]:
        name = receipt.pop("name", None) or data.get("name")
        lead = Text(f"Done: {title(done)}", f"bold {_GREEN}")
        yield lead.append(f" {quoted(str(name))}" if name else "", "bold")
        if "why" in receipt:
            receipt["undo"] = f"undo-change cannot undo it. {receipt.pop('why')}"
        elif receipt.get("undo") == "undo_change":
            receipt["undo"] = self.command("undo_change", {"change_id": receipt.get("change_id")})
        yield from self.report(receipt)

    def report(self, fields: Mapping[str, JsonValue]) -> Iterator[RenderableType]:
        """Render a mapping: its sentences, then its short values in a grid, then a section for each of the others."""
        displayed = {key: item for key, item in fields.items() if key not in _FOR_AGENTS and item is not None}
        if not isinstance(displayed.get("next"), dict):
            displayed.pop("next", None)
        if displayed.get("not_checked") == []:
            del displayed["not_checked"]
        for name in _LEADING_FIELDS:
            lead = displayed.get(name)
            if isinstance(lead, str):
                del displayed[name]
                yield Text(_line(lead), "bold")
        grid = Grid.grid(padding=(0, _GAP, 0, 0))
        grid.add_column(style=_DIM, max_width=self.width // 3, overflow="fold")
        grid.add_column(overflow="fold")
        short = [name for name in _ordered(displayed) if self._is_short(displayed[name])]
        for name in short:
            grid.add_row(title(name), self.cell(name, displayed[name], is_whole=True))
        if short:
            yield grid
        for name, item in displayed.items():
            if _is_rows(item) and all("severity" in row and "what" in row for row in item):
                yield from (Text(), self._findings(item))
            elif name not in short:
                yield Text(f"\n{sentence(title(name))}", "bold")
                yield from self._inside(displayed[name])

    def _inside(self, item: JsonValue) -> Iterator[RenderableType]:
        """Render a value, indented."""
        inner = replace(self, width=self.width - 2)
        if isinstance(item, str):
            lines: Iterable[RenderableType] = (Text(sanitize(line), overflow="fold") for line in item.split("\n"))
        elif self.width < _MIN_WIDTH:
            lines = [Text(self.plain(item), overflow="fold")]
        elif (table := Table.parse(item)) is not None:
            columns = [column for column in table.columns if column not in _ID_COLUMNS]
            first = sorted(columns, key=lambda column: column not in _NAME_COLUMNS)
            lines = [inner.table(table.records(), first)] if table.rows else [Text("None.")]
        elif isinstance(item, dict):
            lines = inner.report(item)
        elif not _is_rows(item):
            lines = [Text(f"- {self.plain(each)}") for each in cast("list[JsonValue]", item)]
        elif all(
            name in (*_ID_COLUMNS, "next", "more") or (self._is_short(each) and len(self.plain(each)) <= _MAX_SENTENCE)
            for row in item
            for name, each in row.items()
        ):
            lines = [inner.table(item)]
        else:
            lines = [part for row in item for part in inner._block(dict(row))]
        yield from (Padding(line, (0, 0, 0, 2)) for line in lines)

    def _block(self, row: Object) -> Iterator[RenderableType]:
        """Render a row with rows or sentences of its own: what it is, then its fields below."""
        name = next(name for name in ("kind", *_NAME_COLUMNS, "customer", *_ID_COLUMNS, *row) if name in row)
        head = self.plain(row.pop(name))
        count = row.pop("count", None)
        head += f" {self.plain(row.pop('name'))}" if name == "kind" and "name" in row else ""
        examples = row.get("examples")
        of = f"{len(examples)} of " if _is_rows(examples) else ""
        yield Text(head if count is None else f"{head} ({of}{self.plain(count)})", "bold")
        for listed in ("all", "examples"):
            if _is_rows(row.get(listed)):
                yield from self._inside(row.pop(listed))
        if row:
            yield from self._inside(row)

    def _findings(self, rows: Sequence[Row]) -> RenderableType:
        grid = Grid.grid(padding=(0, _GAP, 0, 0))
        for row in rows:
            what = Text(_line(str(row["what"])))
            about = row.get("rows")
            items = about if _is_rows(about) else []
            names = [self.plain(item[next(iter(_ordered(item)))]) for item in items if item]
            unnamed = [name for name in names if name not in what.plain]
            shown = unnamed[:_NAMES_SHOWN]
            if shown:
                more = cast(int, row.get("of", len(names))) - (len(names) - len(unnamed)) - len(shown)
                what.append(" → ", _DIM).append(", ".join(map(quoted, shown)), "bold")
                what.append(f" and {more} more" if more > 0 else "")
            grid.add_row(self.cell("severity", row["severity"]), what)
        return grid

    def table(self, rows: Sequence[Row], first: Sequence[str] = ()) -> RenderableType:
        """Render rows under the columns that fit: names first. An id without room beside stands below the name."""
        fitted = self._fitted(rows, first)
        table = Grid(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
        for name, width in fitted.widths.items():
            is_number = all(type(row.get(name)) in (int, float, type(None)) for row in rows)
            justify = "right" if is_number else "left"
            table.add_column(title(name), width=min(width, self.width), overflow="fold", justify=justify)
        has_id_column = bool(fitted.id_field) and not fitted.is_id_below
        if has_id_column:
            table.add_column(title(fitted.id_field), overflow="fold", style=_DIM)
        for number, id_ in enumerate(fitted.ids):
            cells = [fitted.cells[name][number] for name in fitted.widths]
            if fitted.is_id_below:
                parts: list[str | Text | tuple[str, str]] = [cells[0], (id_, _DIM)]
                if cells[0].plain:
                    parts.insert(1, "\n")
                cells[0] = Text.assemble(*parts, overflow="fold")
            if has_id_column:
                table.add_row(*cells, id_)
            else:
                table.add_row(*cells)
        return table

    def _fitted(self, rows: Sequence[Row], first: Sequence[str]) -> "_FittedTable":
        """Choose the columns of a table, and whether the id has one."""
        names = _column_names(rows, first)
        ids_first = sorted(names, key=lambda name: name not in _ID_COLUMNS)
        id_field = next((name for name in ids_first if name in _ID_COLUMNS or name.endswith("_id")), "")
        columns = [name for name in names if name != id_field] or [""]
        cells = {name: [self.cell(name, row.get(name)) for row in rows] for name in columns}
        ids = [short_id(self.plain(row.get(id_field))) for row in rows]
        longest_id = max(map(len, ids))
        least = {name: _needed(name, column) for name, column in cells.items()}
        important = {*columns[:2], *first[:_IMPORTANT]}.intersection(cells)
        is_crowded = sum(least[name] + _GAP for name in important) + longest_id > self.width
        is_id_below = bool(columns[0] and id_field) and (is_crowded or longest_id > self.width // 4)
        room = self.width
        if is_id_below:
            least[columns[0]] = max(least[columns[0]], longest_id)
        elif id_field:
            room -= longest_id + _GAP
        return _FittedTable(_widths(least, cells, names, room), cells, ids, id_field, is_id_below=is_id_below)

    def cell(self, name: str, item: JsonValue, *, is_whole: bool = False) -> Text:
        """Return a value as text, in its colour. Without `is_whole`, only the age of a time, the name of an id."""
        if name in _STATUS_COLUMNS and isinstance(item, str):
            words = _line(item).replace("_", " ")
            color = _STYLES.get(state_in_words(item) or as_word(item), "")
            return Text(words.lower() if words.isupper() else words, color, overflow="fold")
        if name.endswith("Ms") and isinstance(item, (int, float)):
            return Text(f"{item / 1000:,.1f} s" if item < _MAX_MS else lasting(timedelta(milliseconds=item)))
        match item:
            case {"id": _, "name": str() as named} if not is_whole:
                text = _line(named)
            case _:
                text = self.plain(item)
        if is_whole and isinstance(item, str):
            text = age_first(text)
        return Text(name_only(age_only(text)), overflow="fold")

    def plain(self, item: JsonValue) -> str:
        """Return any value in words on one line."""
        match item:
            case None:
                return ""
            case bool():
                return "yes" if item else "no"
            case int():
                return f"{item:,}"
            case str() | list() | dict() if not item:
                return "none"
            case str():
                at = parse_timestamp(item) if item[10:11] == "T" else None
                return _line(item) if at is None else f"{item[:16]}Z ({age(at, self.now)})"
            case dict():
                return self._object(item)
            case list():
                items = [*map(self.plain, item)]
                return ("; " if any(", " in each for each in items) else ", ").join(items)
            case _:
                return _line(str(item))

    def _object(self, item: Object) -> str:
        match item:
            case {"tool": str() as tool, "arguments": dict() as arguments} if len(item) == 2:
                return self.command(tool, arguments)
            case {"profile": str() as profile, "host": str() as host, **facts}:
                words = {"key_ends": "key …", "key_id": "key id "}
                named = [words.get(name, "") + self.plain(each) for name, each in facts.items()]
                return ", ".join([f"{profile} at {host}", *named])
            case {"hours": int() as hours, "all": int() as all_, **ended}:
                return f"{counted(hours, 'hour')}: {counted(all_, 'run')}{self._endings(all_, ended)}"
            case _:
                return ", ".join(f"{title(name)} {self.plain(each)}" for name, each in item.items())

    def _endings(self, all_: int, ended: Mapping[str, JsonValue]) -> str:
        """Return how many runs of a period ended how, and how many have not ended, each after a comma."""
        counts = {name: each for name, each in ended.items() if isinstance(each, int)}
        others = all_ - sum(counts.values())
        words = [f"{each:,} {_ENDINGS.get(name, title(name))}" for name, each in counts.items() if each]
        if others > 0:
            words.append(f"{others:,} under way or cancelled")
        words += [f"{title(name)} {self.plain(each)}" for name, each in ended.items() if name not in counts]
        return "".join(f", {each}" for each in words)

    def _is_short(self, item: JsonValue) -> bool:
        """Whether a value is shown beside its name, and not as a section."""
        if not isinstance(item, (dict, list)):
            return not (isinstance(item, str) and "\n" in item.strip())
        if isinstance(item, dict):
            if item.keys() == {"tool", "arguments"}:
                return True
            items = [*item.values()]
            longest = _MAX_INLINE
        else:
            items = item
            longest = 3 * self.width if len(item) == 1 else _MAX_SENTENCE
        return all(not isinstance(each, (dict, list)) and len(str(each)) <= longest for each in items)


@dataclass(frozen=True, slots=True)
class _FittedTable:
    """The content of a table, and the columns of it that fit the width of a terminal."""

    widths: Mapping[str, int]
    """Width of each column but the id's, which stand in this order; that of the name comes first."""
    cells: Mapping[str, Sequence[Text]]
    """Cells by column and row, also of columns that do not fit."""
    ids: Sequence[str]
    id_field: str
    """Name of the id's field; empty if the rows have none."""
    is_id_below: bool
    """Whether the id stands below the name, for want of room beside."""


def _column_names(rows: Sequence[Row], first: Sequence[str]) -> list[str]:
    """Return the fields that hold something in a row, in the order of their columns."""
    filled = {name for row in rows for name, item in row.items() if item not in (None, "", [], {})}
    filled -= {*_FOR_AGENTS, "next", "more"}
    every = dict.fromkeys((*first, *_ordered(dict.fromkeys(name for row in rows for name in row))))
    return [name for name in every if name in filled]


def _widths(
    least: Mapping[str, int], cells: Mapping[str, Sequence[Text]], names: Sequence[str], room: int
) -> dict[str, int]:
    """Return the widths of the columns that fit in `room`: the first in any case, and each whose `least` width is left.

    What room then remains goes to them in the same order, to each as much as its longest cell takes. `names` are those
    of all columns, the id's included: an id is left out where its name has a column of its own.
    """
    lead, *others = least
    fitting = {lead: least[lead]}
    left = room - least[lead]
    for name in others:
        named = "customer" if name == "endOrgId" else name.removesuffix("_id").removesuffix("Id")
        has_own_column = named != name and named in names
        if least[name] + _GAP <= left and not has_own_column:
            fitting[name] = least[name]
            left -= least[name] + _GAP
    widths: dict[str, int] = {}
    for name, width in fitting.items():
        longest = max(width, *(cell.cell_len for cell in cells[name]))
        widths[name] = min(longest, width + max(left, 0))
        left -= widths[name] - width
    return widths


def title(name: str) -> str:
    """Return a field's name in words, `last used` for `lastUsedAt`, and an id as it is."""
    if re.search(r"\d", name):
        return sanitize(name)
    if name == "looked_at":
        return "rows read"
    return re.sub(r"(?<=.) (at|ms|count)$", "", field_in_words(sanitize(name))).replace("end org", "customer")


def _line(text: str) -> str:
    return _PERCENT.sub("", sanitize(" ".join(text.split())))


def _needed(name: str, cells: Sequence[Text]) -> int:
    """Return the least width of a column in which it is read well."""
    widest = max(cell.cell_len for cell in cells)
    word = max((Text(word).cell_len for cell in cells for word in cell.plain.split()), default=0)
    return max(min(widest, _MAX_CELL), min(word, _MAX_WORD), len(title(name)))


def _ordered(names: Iterable[str]) -> list[str]:
    """Return the names with those first that name a thing, then its status, then the others."""
    order = (*_NAME_COLUMNS, *_ID_COLUMNS, *_STATUS_COLUMNS)
    return sorted(names, key=lambda name: order.index(name) if name in order else len(order))


def _is_rows(value: object) -> "TypeGuard[list[Object]]":
    return isinstance(value, list) and value != [] and all(isinstance(row, dict) for row in cast("list[Any]", value))
