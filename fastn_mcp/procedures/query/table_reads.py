"""Read the rows that a statement needs, within the budget of requests of an answer."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.account.entries import read_labels
from fastn_mcp.client.reads import GETS, MAX_LOOKUPS, read_page, read_pages
from fastn_mcp.errors import NOTHING_CHANGED, Failed, FastnError, LeftOut, NotFound
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.history import LOG_LACKS, History, begins_after, read_beginning
from fastn_mcp.procedures.query.bounds import Bounds
from fastn_mcp.procedures.query.run_counts import MAX_WINDOW_PAGES, read_run_counts
from fastn_mcp.procedures.query.tables import RUN_COUNTS, TABLES, Column, QueryTable
from fastn_mcp.procedures.reads import unique
from fastn_mcp.records.formats import counted, stamp
from fastn_mcp.records.rows import Row, key_of, row_of, text
from fastn_mcp.runtime import work_on
from fastn_mcp.tools.paging import MAX_LIMIT, List, created
from fastn_mcp.tools.tool import MAY_BE_ID

MAX_PAGES = 100
"""Maximum number of pages of 100 rows of a table."""

_LINE_ROWS = 500

_ROW_SIZE = 500
"""About as many bytes has a row as JSON."""

_ABSENCE = re.compile(
    r"\bnot\s+(?:[^\s()]+\s+)?(?:exists|in)\b|\bexcept\b|\b(?:left|right|full)\s+(?:outer\s+)?join\b|\bnot\s*\(|\bis\s+null\b|\bisnull\b"
    r"|\)\s*(?:=|==|<|<=)\s*\d|\b\d+\s*(?:=|==|>|>=)\s*\(",
    re.IGNORECASE,
)
"""Forms of a statement that may ask for what has no row."""

_VALUE_OF_A_QUERY = re.compile(
    r"(?:\b(?:select|distinct|all|case|when|then|else|by)|[,(])\s*(?:exists\s*)?\(\s*(?:select|with)\b", re.IGNORECASE
)
"""A query in parentheses that is a value: NULL or 0 for what has no row, beside rows of other tables."""

QUOTED = re.compile(
    r"'((?:[^']|'')*+)'?|\"(?:[^\"]|\"\")*+\"?|`[^`]*+`?|\[[^\]]*+\]?|--[^\n]*+|/\*.*?(?:\*/|\Z)", re.DOTALL
)
"""A text (its group), a name in quotes, or a comment, as SQLite reads them; also if its end is missing."""


@dataclass(slots=True)
class TableRows:
    """Rows of Fastn for one table, and how far they reach."""

    rows: Sequence[Row] = ()
    total: int | None = None
    """Fastn's count of all rows."""
    is_complete: bool = True
    back_to: datetime | None = None
    """Time from which on no row is missing, if any is."""
    count: int = 0
    """Number of rows of the table: a row of Fastn's list may be none, or several."""
    notes: list[str] = field(default_factory=list[str])

    def reach(self, table: QueryTable, bounds: Bounds) -> str | int:
        """Return how far the rows reach: their number, or which part they are."""
        bounded = bounds.in_words(table)
        if table.name == RUN_COUNTS:
            return "; ".join(self.notes)
        if self.is_complete and not table.is_window and not bounded and not self.notes:
            return self.count
        if self.is_complete:
            words = f"all {counted(self.count, 'row')}"
        else:
            of = "" if self.total is None else f" of {self.total:,}"
            back = "" if self.back_to is None else f", back to {stamp(self.back_to)}"
            words = f"only the newest {len(self.rows):,}{of}{back}; older rows are missing from counts and lists"
            if table.name == "runs":
                words += f" ({RUN_COUNTS} counts all, by status)"
        return "; ".join([f"{words} {bounded}".rstrip(), *self.notes])


class StatementReads:
    """Reads the tables of one statement."""

    def __init__(self, reads: Mapping[str, Sequence[str]], bounds: Bounds, context: ProcedureContext) -> None:
        """`reads`: the columns that the statement reads, by table."""
        self._columns = reads
        self._bounds = bounds
        self._context = context
        self._look = context.look
        self.tables: dict[str, TableRows] = {}
        self._names: dict[str, dict[str, str]] = {}

    async def read(self, statement: str) -> None:
        """Read every table: first those that are read whole. Raises a `FastnError` if one of them cannot be."""
        for name in self._columns:
            if not TABLES[name].is_window and name != RUN_COUNTS:
                await self._read_whole(TABLES[name])
        if RUN_COUNTS in self._columns:
            await self._count_runs(self._columns[RUN_COUNTS])
        for name in self._columns:
            if TABLES[name].is_window:
                await self._read_window(TABLES[name], statement)
        wanted = (TABLES[name].needs(read) for name, read in self._columns.items())
        for name in sorted(set[str]().union(*wanted)):
            self._names[name] = await self._read_names(TABLES[name])

    async def _count_runs(self, columns: Sequence[str]) -> None:
        """Count runs, for all customers or workflows if a column tells them apart and no argument names any."""
        ids: dict[str, Sequence[str]] = {"customer": self._bounds.customers, "workflow": self._bounds.workflows}
        split: list[str] = []
        for kind, named in ids.items():
            if not named and {kind, f"{kind}_id"}.intersection(columns):
                rows = await self._rows_with_names(TABLES[f"{kind}s"])
                ids[kind] = [key_of(row) for row in rows]
                split.append(kind)
        rows, notes = await read_run_counts(columns, self._bounds, ids, self._context)
        notes += [f"only runs of {kind}s that are listed now" for kind in split]
        self.tables[RUN_COUNTS] = TableRows(rows, len(rows), notes=notes)

    def reach(self) -> dict[str, JsonValue]:
        """Return how far the rows of each table reach, windows first."""
        order = sorted(self.tables, key=lambda name: (not TABLES[name].is_window, name != RUN_COUNTS))
        return {name: self.tables[name].reach(TABLES[name], self._bounds) for name in order}

    async def lines(self) -> list[bytes]:
        """Return the rows of all tables as lines of JSON, made in a thread if they are many."""
        lines: list[bytes] = []
        for name, table_rows in self.tables.items():
            parts = await work_on(len(table_rows.rows) * _ROW_SIZE, partial(self._cells, name, table_rows.rows))
            table_rows.count = sum(map(len, parts))
            lines += [to_json([name, cells]) for cells in parts]
        return lines

    def _cells(self, name: str, rows: Sequence[Row]) -> list[list[list[Any]]]:
        starts = range(0, len(rows), _LINE_ROWS)
        return [TABLES[name].rows(rows[at : at + _LINE_ROWS], self._names, self._look.redactor) for at in starts]

    async def _read_whole(self, table: QueryTable) -> None:
        whole = TableRows()
        for listing in self._bounds.lists(table):
            part = await self._read_list(table, listing, MAX_PAGES)
            if not part.is_complete:
                raise self._partial(table, part)
            whole.rows = unique([*whole.rows, *part.rows])  # a trigger may be of two customers or workflows
        if table.lacks:
            whole.notes.append(f"{table.lacks} have no row")
        self.tables[table.name] = whole

    async def _read_names(self, table: QueryTable) -> dict[str, str]:
        """Return the names by id that columns show: of few ids one by one, else of the whole list."""
        ids: set[str] = set()
        for name in self._columns:
            showing = self._columns_with_names(name, table)
            for row in self.tables[name].rows if showing else ():
                keys = [column.read(part) for part in TABLES[name].parts(row) for column in showing]
                ids.update(str(key) for key in keys if key)
        kind = table.name.removesuffix("s")
        names = await read_labels(kind, ids, self._look, most=0)
        unnamed = sorted(ids - names.keys())
        if len(unnamed) <= min(MAX_LOOKUPS, self._look.affordable) and table.name not in self.tables:
            return names | await self._read_one_by_one(kind, unnamed, table)
        rows = await self._rows_with_names(table)
        return {key_of(row): text(row, "name", "slug", "email", "id") for row in rows}

    async def _read_one_by_one(self, kind: str, ids: Sequence[str], table: QueryTable) -> dict[str, str]:
        """Return the names of these ids, without those that do not exist. Raises a `FastnError` if one is not read."""
        names: dict[str, str] = {}
        for id_ in ids:
            if MAY_BE_ID.fullmatch(id_) is None:
                continue
            try:
                row = row_of(await self._look(GETS[kind].model_validate({f"{kind}_id": id_})))
            except NotFound:
                continue
            except FastnError as error:
                raise self._unread(table, error, is_named=True) from error
            names[id_] = text(row, "name", "slug", "id")
        return names

    async def _rows_with_names(self, table: QueryTable) -> Sequence[Row]:
        """Return the rows of a table to which others refer. Raises a `FastnError` if it cannot be read whole."""
        if table.name in self.tables:
            return self.tables[table.name].rows
        found = await self._read_list(table, table.lister.model_validate({"limit": 100}), MAX_PAGES, is_named=True)
        if not found.is_complete:
            raise self._partial(table, found, is_named=True)
        return found.rows

    async def _read_window(self, table: QueryTable, statement: str) -> None:
        needs_all = self._may_ask_for_absence(statement)
        window = TableRows(total=0)
        for listing in self._bounds.lists(table):
            if needs_all:
                await self._check_length(table, listing)
            part = await self._read_list(table, listing, MAX_WINDOW_PAGES)
            if not part.is_complete:
                if not part.rows:
                    raise self._partial(table, part)
                oldest = min(filter(None, map(created, part.rows)), default=None)
                window.back_to = max(filter(None, (window.back_to, oldest)), default=None)
            window.rows = [*window.rows, *part.rows]
            window.is_complete = window.is_complete and part.is_complete
            window.total = None if window.total is None or part.total is None else window.total + part.total
        if needs_all and not window.is_complete:
            raise self._not_whole(table, len(window.rows), window.total)
        window.notes += await self._beginning(table, window)
        if table.name == "audit":
            window.notes.append(f"the log lacks {LOG_LACKS}")
        self.tables[table.name] = window

    async def _check_length(self, table: QueryTable, listing: List[Any]) -> None:
        """Raise `Failed`, after one request, if a list has more rows than can be read."""
        try:
            page = await read_page(listing, self._look)
        except FastnError:
            return  # reading it all says why
        left = self._look.snapshot.pages_left(listing)
        readable = min(MAX_WINDOW_PAGES - 1, self._look.affordable)
        if left is not None and left > readable:
            raise self._not_whole(table, len(page.rows) + readable * MAX_LIMIT, page.total)

    def _not_whole(self, table: QueryTable, readable: int, total: int | None) -> Failed:
        of = "" if total is None else f" of {total:,}"
        why = "" if readable >= MAX_WINDOW_PAGES * MAX_LIMIT else " now, since Fastn's rate limit leaves no more"
        return Failed(
            f"Only the newest {readable:,}{of} rows of {table.name} can be read{why}, so this statement could miss"
            " older rows and report something as absent that is not.",
            f"Bound the reading with {self._ways(table)} until it is whole"
            + (f", or count by {RUN_COUNTS}." if table.name == "runs" else "."),
            certainty=NOTHING_CHANGED,
        )

    async def _beginning(self, table: QueryTable, window: TableRows) -> list[str]:
        """Return when the list of a window begins, if its rows are those since then."""
        since = self._bounds.since
        if not window.is_complete:
            return []
        history: History = table.lister  # pyright: ignore[reportAssignmentType]
        if since is not None:
            begins = await begins_after(history, since, self._look, is_empty=not window.rows)
        elif self._bounds.until is None or not window.rows:
            begins = await read_beginning(history, self._look)
        else:
            begins = None  # rows from before `until` show that it reaches back
        if begins is None:
            return []
        what = "the history of runs" if table.name == "runs" else "the log"
        return [f"{what} begins at {stamp(begins.at)}" if begins.at else f"when {what} begins is not known"]

    def _may_ask_for_absence(self, statement: str) -> bool:
        bare = QUOTED.sub("''", statement)
        if _ABSENCE.search(bare):
            return True
        return len(self._columns) > 1 and _VALUE_OF_A_QUERY.search(bare) is not None

    async def _read_list(
        self, table: QueryTable, listing: List[Any], most: int, *, is_named: bool = False
    ) -> TableRows:
        try:
            pages = await read_pages(listing, self._look, most)
        except LeftOut:
            return TableRows(is_complete=False)
        except FastnError as error:
            raise self._unread(table, error, is_named=is_named) from error
        if pages.error is not None and not isinstance(pages.error, LeftOut):
            raise self._unread(table, pages.error, is_named=is_named) from pages.error
        if unchecked := sorted({name for page in pages.pages for name in page.not_checked or ()}):
            raise Failed(
                f"The rows of {table.name} do not say their {', '.join(unchecked)}, by which the reading is bounded.",
                "Leave out that argument.",
                certainty=NOTHING_CHANGED,
            )
        if pages.lost_rows:
            raise Failed(
                f"Rows of {table.name} were removed while they were read, and others may be missing.",
                "Call again.",
                certainty=NOTHING_CHANGED,
            )
        rows = unique(pages.rows)
        is_complete = pages.is_complete and (pages.total is None or pages.total <= len(rows))
        return TableRows(rows, pages.total, is_complete)

    def _unread(self, table: QueryTable, error: FastnError, *, is_named: bool) -> FastnError:
        column = f"a column with names of {table.name}" if is_named else f"the table {table.name}"
        return type(error)(
            f"The statement reads {column}, which could not be read. {error.what}", error.next_step, facts=error.facts
        )

    def _partial(self, table: QueryTable, part: TableRows, *, is_named: bool = False) -> FastnError:
        stored = self._look.stored(table.lister.model_validate({"limit": 100}))
        read = max(len(part.rows), len(stored.rows))
        total = part.total or stored.total
        of = "" if total is None else f" of {total:,}"
        steps: list[str] = []
        if kept := self._look.settings.snapshot_seconds:
            steps.append(f"call again soon, which reads on (rows are kept for {kept} s)")
        if is_named:
            steps.append(f"leave out {self._name_columns(table)}")
        elif ways := self._ways(table):
            steps.append(f"bound the reading with {ways}")
        next_step = ", or ".join(steps or ["use the list tool"])
        return LeftOut(
            f"Fastn's rate limit stopped the reading of {table.name} after {read:,}{of} rows, so the statement was not"
            " run.",
            next_step[:1].upper() + next_step[1:] + ".",
            certainty=NOTHING_CHANGED,
        )

    def _name_columns(self, table: QueryTable) -> str:
        names = [column.name for name in self._columns for column in self._columns_with_names(name, table)]
        return ", ".join(dict.fromkeys(names or [f"{table.name.removesuffix('s')}_id"]))

    def _columns_with_names(self, name: str, of: QueryTable) -> list[Column]:
        """Return the columns of a table that the statement reads and that show names of another table's rows."""
        read = self._columns[name]
        return [column for column in TABLES[name].columns if column.names_of == of.name and column.name in read]

    @staticmethod
    def _ways(table: QueryTable) -> str:
        return ", ".join(bound.removesuffix("_id") for bound in table.bounds)
