"""Program of the process in which a statement runs. It has the standard library only, and is started by its path.

It reads one line of JSON, the `Task`, then lines `[table, rows]`, all from stdin, and writes one line of JSON, the
`StatementAnswer`. Before that it writes a line `ready`, once it has taken all rows. It has no key, no ledger and no
environment, opens no file or connection once it has started, and ends at its limits of memory and time.
"""

import contextlib
import json
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from functools import lru_cache, partial
from typing import Any, Literal, NotRequired, TypedDict

READY = "ready"

WORD = "word"
TIME = "time"
"""Types of columns that are compared in a way of their own: any spelling of a word, any form of a time."""

Failure = Literal["refused", "failed", "memory"]


class Task(TypedDict):
    """What to do: compile a statement to learn what it reads, or run it."""

    tables: dict[str, dict[str, str]]
    """Types of the columns, by table and name."""
    statement: str
    now: str
    runs: bool
    """Whether to run the statement; otherwise it is only compiled."""
    documented: NotRequired[dict[str, list[str]]]
    """Values that a column `table.column` may have, also if no row has them."""
    offset: NotRequired[int]
    max_bytes: NotRequired[int]
    max_cell: NotRequired[int]


class StatementAnswer(TypedDict, total=False):
    """What a statement reads, or its rows, or why there are none."""

    reads: dict[str, list[str]]
    """Columns by table."""
    columns: list[str]
    rows: list[list[Any]]
    total: int | None
    """Number of all rows; None if counting them takes too long."""
    unknown: dict[str, dict[str, list[str]]]
    """By column: the values that it was compared with and no row has, and those that rows have."""
    failure: Failure
    message: str


MEMORY = 300_000_000
"""Maximum size of the process in bytes of address space."""

HEAP = 200_000_000
"""Maximum memory of SQLite in bytes, rows included."""

CPU_SECONDS = 8

COUNT_SECONDS = 1.0
"""Seconds after which the rows that do not fit are no longer counted."""

MAX_LENGTH = 100_000
"""Maximum size of a text, and of a row, in bytes."""

MAX_UNKNOWN = 60
"""Maximum size of a value, in characters, that no row has, as it is told."""

MAX_COMPARED, MAX_VALUES = 5, 20
"""Maximum numbers of the values of a column that no row has, and of those that rows have, as they are told."""

MAX_STATEMENT = 10_000
"""Maximum size of a statement in bytes."""

_EXPLAIN = "explain "

LIMITS: Mapping[int, int] = {
    sqlite3.SQLITE_LIMIT_LENGTH: MAX_LENGTH,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: MAX_STATEMENT + len(_EXPLAIN),
    sqlite3.SQLITE_LIMIT_COLUMN: 100,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 50,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 20,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 25_000,
    sqlite3.SQLITE_LIMIT_FUNCTION_ARG: 20,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 200,
    sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}

FUNCTIONS = frozenset({
    "abs", "avg", "ceil", "ceiling", "coalesce", "count", "cume_dist", "dense_rank", "first_value", "floor",
    "format", "glob", "group_concat", "ifnull", "iif", "instr", "lag", "last_value", "lead", "length", "like",
    "lower", "ltrim", "max", "min", "mod", "nth_value", "ntile", "nullif", "percent_rank", "printf", "rank",
    "replace", "round", "row_number", "rtrim", "sign", "string_agg", "substr", "substring", "sum", "total", "trim",
    "typeof", "upper",
    "ago", "date", "datetime", "julianday", "median", "p90", "strftime", "time", "unixepoch", "current_date",
    "current_time", "current_timestamp",
})  # fmt: skip
"""Functions that a statement may use. Those in the last two lines are ours, also where SQLite has one of the name."""

_ACTIONS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_RECURSIVE})

_QUERY = re.compile(r"(?:\s+|--[^\n]*(?:\n|$)|/\*.*?\*/)*+(?:select|with|values)\b", re.IGNORECASE | re.DOTALL)
"""Beginning of a statement that reads, perhaps after comments."""

_RESERVED = ("sqlite_", "pragma_")
"""Beginnings of the names of SQLite's own tables. Those of its modules, such as `dbstat`, are reserved as well."""


class RefusedStatement(Exception):
    """The statement is not one that may run. Nothing was read."""


# --- values ------------------------------------------------------------------------------------------------------

_SEPARATORS = re.compile(r"[\s_-]+")
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(:\d\d)?(?:\.\d+)?)? ?(Z|[+-]\d\d:?\d\d)?", re.ASCII | re.IGNORECASE
)
_STAMP = "%Y-%m-%dT%H:%M:%SZ"
_AGO = re.compile(r"\s*(\d{1,6}(?:\.\d{1,3})?)\s*(minute|min|hour|h|day|d|week|w)s?\s*", re.IGNORECASE)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@lru_cache(4096)
def plain_word(text: str) -> str:
    """Return a word without case and separators: `Not Published` and `NOT_PUBLISHED` are both `not published`."""
    return _SEPARATORS.sub(" ", text.strip().lower())


@lru_cache(4096)
def plain_time(text: str) -> str:
    """Return a time as rows have it, in UTC and to the second; any other text as it is."""
    match = _TIME.fullmatch(text.strip())
    if match is None:
        return text
    day, minute, second, zone = match.groups()
    try:
        at = datetime.fromisoformat(f"{day}T{minute or '00:00'}{second or ':00'}")
        if zone not in (None, "Z", "z"):
            sign = -1 if zone[0] == "-" else 1
            at -= sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
    except (ValueError, OverflowError):
        return text
    return at.strftime(_STAMP) if at.year >= 1000 else text


def _order(one: str, other: str) -> int:
    return (one > other) - (one < other)


def compare_times(one: str, other: str) -> int:
    return _order(plain_time(one), plain_time(other))


class Words:
    """Values of one column, and what it was compared with. Compares without case and separators."""

    def __init__(self, documented: Iterable[str]) -> None:
        self._documented = set(map(plain_word, documented))
        self._values: dict[str, str] = {}
        self._others: dict[str, str] = {}
        self.is_read = False
        """Whether comparisons are those of the statement."""

    def add(self, value: str) -> None:
        self._values.setdefault(plain_word(value), value)

    def __call__(self, one: str, other: str) -> int:
        first = plain_word(one)
        second = plain_word(other)
        if self.is_read:
            if first not in self._values:
                self._others.setdefault(first, one)
            if second not in self._values:
                self._others.setdefault(second, other)
        return _order(first, second)

    def unknown(self) -> dict[str, list[str]] | None:
        """Return the values that no row has, and those that rows have; None if there is none of the first."""
        others = [value for plain, value in self._others.items() if plain not in self._documented]
        if not others:
            return None
        compared = [value[:MAX_UNKNOWN] for value in others[:MAX_COMPARED]]
        return {"compared": compared, "values": sorted(self._values.values())[:MAX_VALUES]}


class _Quantile:
    """Aggregate function: a quantile of numbers, between the two nearest if it is between them. NULL of none."""

    share: float

    def __init__(self) -> None:
        self._numbers: list[float] = []

    def step(self, value: object) -> None:
        if isinstance(value, (int, float)):
            self._numbers.append(value)

    def finalize(self) -> float | None:
        if not self._numbers:
            return None
        numbers = sorted(self._numbers)
        place = self.share * (len(numbers) - 1)
        below = int(place)
        above = min(below + 1, len(numbers) - 1)
        value = numbers[below] + (numbers[above] - numbers[below]) * (place - below)
        return int(value) if value == int(value) else round(value, 3)


class Median(_Quantile):
    share = 0.5


class P90(_Quantile):
    share = 0.9


def ago(now: datetime, text: object) -> str:
    """Return the time that is so long ago: `24 hours`, `7 days`, `2 weeks`, `30 min`."""
    match = _AGO.fullmatch(str(text))
    if match is None:
        raise ValueError("ago takes a text such as '24 hours', '7 days' or '30 minutes'")
    unit = _UNITS[match[2][0].lower()]
    return (now - timedelta(**{unit: float(match[1])})).strftime(_STAMP)


_CLOCK_FUNCTIONS = {"date": 0, "time": 0, "datetime": 0, "julianday": 0, "unixepoch": 0, "strftime": 1}
"""SQLite's functions of times, and the place of the time in their arguments. `now` is the time of the answer."""


def _clock_functions(now: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield SQLite's functions of times, by a clock that stands still, and in UTC only."""
    clock = sqlite3.connect(":memory:")

    def make(name: str, place: int) -> Callable[..., Any]:
        def function(*given: object) -> object:
            arguments = list(given)
            if len(arguments) == place:
                arguments.append(now)
            for argument in arguments:
                if isinstance(argument, str) and argument.strip().lower() in ("localtime", "utc", "subsec"):
                    raise ValueError(f"times are in UTC: leave out {argument.strip()!r}")
            if len(arguments) > place and str(arguments[place]).strip().lower() == "now":
                arguments[place] = now
            marks = ", ".join("?" * len(arguments))
            return clock.execute(f"select {name}({marks})", arguments).fetchone()[0]

        return function

    for name, place in _CLOCK_FUNCTIONS.items():
        yield name, make(name, place)


# --- the database ------------------------------------------------------------------------------------------------


class Database:
    """Tables in memory, and a statement that may only read them."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._now = task["now"]
        self.reads: dict[str, set[str]] = {}
        self.words: dict[str, Words] = {}
        self._error = ""
        self._db = sqlite3.connect(":memory:", isolation_level=None, cached_statements=0)
        self._db.text_factory = _decoded
        for pragma in ("temp_store = memory", f"hard_heap_limit = {HEAP}", "trusted_schema = off"):
            self._db.execute(f"pragma {pragma}")
        self._db.create_collation(TIME, compare_times)
        self._modules = {str(row[0]).lower() for row in self._db.execute("pragma module_list")}
        for table, columns in task["tables"].items():
            self._create(table, columns)
        self._add_functions()

    def _create(self, table: str, columns: Mapping[str, str]) -> None:
        declared: list[str] = []
        for column, type_ in columns.items():
            if type_ == WORD:
                name = f"{table}.{column}"
                words = self.words[name] = Words(self._task.get("documented", {}).get(name, ()))
                self._db.create_collation(f"words_{table}_{column}", words)
                declared.append(f'"{column}" text collate words_{table}_{column}')
            elif type_ == TIME:
                declared.append(f'"{column}" text collate {TIME}')
            else:
                declared.append(f'"{column}" {type_}')
        self._db.execute(f'create table "{table}" ({", ".join(declared)})')

    def _add_functions(self) -> None:
        now = datetime.fromisoformat(self._now)
        self._add("ago", 1, partial(ago, now))
        for name, function in _clock_functions(self._now):
            self._add(name, -1, function)
        moments = {"current_date": self._now[:10], "current_time": self._now[11:19], "current_timestamp": self._now}
        for name, moment in moments.items():
            self._add(name, 0, partial(str, moment))
        self._db.create_aggregate("median", 1, Median)  # pyright: ignore[reportArgumentType]
        self._db.create_aggregate("p90", 1, P90)  # pyright: ignore[reportArgumentType]

    def _add(self, name: str, arguments: int, function: Callable[..., Any]) -> None:
        def reporting(*given: object) -> Any:
            try:
                return function(*given)
            except ValueError as error:  # SQLite only says that a function of ours raised
                self._error = str(error)
                raise

        self._db.create_function(name, arguments, reporting)

    def insert(self, table: str, rows: list[list[Any]]) -> None:
        """Insert rows, with a cell for each column in order."""
        columns = self._task["tables"][table]
        marks = ", ".join("?" * len(columns))
        self._db.executemany(f'insert into "{table}" values ({marks})', rows)  # noqa: S608 - the names are fixed
        for place, (column, type_) in enumerate(columns.items()):
            if type_ == WORD:
                words = self.words[f"{table}.{column}"]
                for row in rows:
                    if row[place] is not None:
                        words.add(row[place])

    def limit(self) -> None:
        """Allow nothing but reading the tables, from now on."""
        for limit, most in LIMITS.items():
            self._db.setlimit(limit, most)
        self._db.set_authorizer(self._authorize)

    def _authorize(self, action: int, first: str | None, second: str | None, *_: str | None) -> int:
        if action in _ACTIONS:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION:
            return sqlite3.SQLITE_OK if (second or "").lower() in FUNCTIONS else sqlite3.SQLITE_DENY
        columns = self._task["tables"].get(first or "")
        if action == sqlite3.SQLITE_READ and columns is None and second == "" and self._is_own_name(first or ""):
            return sqlite3.SQLITE_OK
        if action != sqlite3.SQLITE_READ or columns is None or (second and second not in columns):
            return sqlite3.SQLITE_DENY
        self.reads.setdefault(str(first), set()).update([second] if second else [])
        return sqlite3.SQLITE_OK

    def _is_own_name(self, name: str) -> bool:
        """Whether a name can only be that of a table expression of the statement itself, whose columns are not read."""
        plain = name.lower()
        is_defined = re.search(rf"\b{re.escape(plain)}\b[\"`\]]?\s*(?:\(|as\b)", self._task["statement"].lower())
        return is_defined is not None and plain not in self._modules and not plain.startswith(_RESERVED)

    def compile(self) -> StatementAnswer:
        """Return which columns the statement reads."""
        self._db.execute(_EXPLAIN + _checked(self._task["statement"]))
        return {"reads": {table: sorted(columns) for table, columns in self.reads.items()}}

    def run(self) -> StatementAnswer:
        """Return the rows from the offset on that fit, and the number of all."""
        for words in self.words.values():
            words.is_read = True
        began = time.monotonic()
        try:
            cursor = self._db.execute(_checked(self._task["statement"]))
            rows, total = self._fetch(cursor, began)
        except sqlite3.Error as error:
            if self._error:
                raise RefusedStatement(self._error) from error
            raise
        answer: StatementAnswer = {
            "columns": [column[0] for column in cursor.description],
            "rows": rows,
            "total": total,
        }
        compared = {name: words.unknown() for name, words in self.words.items()}
        unknown = {name: values for name, values in compared.items() if values is not None}
        if unknown:
            answer["unknown"] = unknown
        return answer

    def _fetch(self, cursor: sqlite3.Cursor, began: float) -> tuple[list[list[Any]], int | None]:
        """Return the rows from the offset on that fit, and the number of all; None if counting takes too long."""
        offset = self._task.get("offset", 0)
        room = self._task.get("max_bytes", MAX_LENGTH)
        rows: list[list[Any]] = []
        count = 0
        for row in cursor:
            count += 1
            if count > offset and room > 0:
                cells = [self._cell(cell) for cell in row]
                room -= len(json.dumps(cells, ensure_ascii=False).encode(errors="replace"))
                if room > 0 or not rows:
                    rows.append(cells)
            elif count % 256 == 0 and time.monotonic() - began > COUNT_SECONDS:
                if not rows:
                    raise RefusedStatement(f"the rows before offset {offset:,} took too long")
                return rows, None
        if count < offset:
            raise RefusedStatement(f"there are only {count:,} rows, and offset {offset:,} is after them")
        return rows, count

    def _cell(self, cell: object) -> object:
        most = self._task.get("max_cell", MAX_LENGTH)
        if isinstance(cell, bytes):
            return f"[{len(cell)} bytes]"
        if isinstance(cell, str) and len(cell) > most:
            return f"{cell[:most]} [{len(cell) - most} more characters]"
        if isinstance(cell, float) and (cell != cell or cell in (float("inf"), float("-inf"))):
            return str(cell)
        return cell


def _decoded(text: bytes) -> str:
    return text.decode(errors="replace")


def _checked(statement: str) -> str:
    if _QUERY.match(statement) is None:
        raise RefusedStatement("a statement must begin with SELECT, WITH or VALUES")
    return statement


# --- the process -------------------------------------------------------------------------------------------------


def answer(task: Task, lines: Iterable[str], ready: Callable[[], object]) -> StatementAnswer:
    """Do a task, with rows as lines of JSON. `ready` is called once all rows are taken."""
    try:
        database = Database(task)
        for line in lines:
            table, rows = json.loads(line)
            database.insert(table, rows)
        database.limit()
        ready()
        return database.run() if task["runs"] else database.compile()
    except RefusedStatement as error:
        return {"failure": "refused", "message": str(error)}
    except (sqlite3.Error, sqlite3.Warning, UnicodeError, ValueError) as error:  # ValueError: a NUL in the statement
        failure: Failure = "memory" if "out of memory" in str(error) else "failed"
        return {"failure": failure, "message": str(error)}
    except (MemoryError, RecursionError):
        return {"failure": "memory", "message": "out of memory"}


def limit_process() -> None:
    """Limit memory and time of this process, and let it open, write and start nothing."""
    import resource  # not on Windows, where no statement runs

    limits = {
        resource.RLIMIT_AS: MEMORY,
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 3,
    }
    for kind, most in limits.items():
        with contextlib.suppress(ValueError, OSError):  # macOS takes no limit of memory: SQLite's own holds there
            resource.setrlimit(kind, (most, most))


def main() -> None:
    limit_process()
    source = sys.stdin

    def write(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    task: Task = json.loads(source.readline())
    write(json.dumps(answer(task, source, partial(write, READY))))  # of ASCII only


if __name__ == "__main__":
    main()
