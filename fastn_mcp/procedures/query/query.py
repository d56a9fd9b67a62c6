"""The tool `query`: any question about the account by one SQL statement."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, cast

import anyio
import anyio.to_thread
from pydantic import BeforeValidator, Field, JsonValue, WithJsonSchema

from fastn_mcp.account.short_ids import short_id
from fastn_mcp.errors import NOTHING_CHANGED, Failed, FastnError, InvalidArgument, NotSent, nearest
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.query.answer import DEFAULT_KB, MAX_KB, QueryResult, result_of
from fastn_mcp.procedures.query.bounds import read_bounds
from fastn_mcp.procedures.query.child_program import FUNCTIONS, MAX_STATEMENT, MAX_UNKNOWN, StatementAnswer, Task
from fastn_mcp.procedures.query.csv_file import MAX_FILE, write_csv
from fastn_mcp.procedures.query.statement_process import run_task, slot_of
from fastn_mcp.procedures.query.table_reads import QUOTED, StatementReads
from fastn_mcp.procedures.query.tables import TABLES, QueryTable, columns_in_words
from fastn_mcp.records.formats import quoted, stamp
from fastn_mcp.redaction import safe, shorten
from fastn_mcp.tools.bounds import TextBound
from fastn_mcp.tools.fields import Since, Until, separated
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.tool import MAY_BE_ID, Effect

_MAX_ROWS_BYTES = 40_000
"""Maximum size of the rows that the process returns, in bytes of JSON: more than an answer may have."""

_MAX_SHOWN_CELL = 8_000
"""Maximum size of a cell in characters."""

_MAX_WARNINGS = 5

Named = Annotated[list[str], BeforeValidator(separated), WithJsonSchema({"type": "string"}), TextBound(4_000)]
"""Ids or names: a text with commas, as which it is listed, or a list."""


class Query(Procedure[QueryResult]):
    __doc__ = (
        "Any question by one SQLite SELECT: absence, sums. ago('24 hours'), median(x), p90(x). runs, audit: the"
        " newest; bound them. run_counts: exact, a request per period, customer, workflow, status."
        f" *: and created_at, updated_at. {columns_in_words()}."
    )

    effect = Effect.READ

    sql: Annotated[str, Field(description="One SELECT."), TextBound(MAX_STATEMENT)]
    since: Since = None
    until: Until = None
    customer_id: Annotated[Named | None, Field(description="Ids/names: A,B.")] = None
    workflow_id: Annotated[Named | None, Field(description="Likewise.")] = None
    offset: Annotated[int, Field(ge=0, description="Skip, default 0.")] = 0
    max_kb: Annotated[int, Field(ge=1, le=MAX_KB, description=f"1-{MAX_KB}, default {DEFAULT_KB}.")] = DEFAULT_KB
    csv: Annotated[bool | None, Field(description="All rows to a file.")] = None

    async def run(self, context: ProcedureContext) -> QueryResult:
        folder = context.caller.export_folder
        if self.csv and folder is None:
            raise NotSent(
                "csv writes a file on this server's machine, which it does over stdio and at a terminal only.",
                "Leave csv out, and go on with offset.",
            )
        answer, around = await _run_statement(self, context)
        if self.csv and folder is not None:
            return await _written(answer, around, folder, context)
        return result_of(
            around,
            answer.get("columns", []),
            answer.get("rows", []),
            offset=self.offset,
            total=answer.get("total"),
            max_kb=self.max_kb,
        )


async def _written(
    answer: StatementAnswer, around: Mapping[str, JsonValue], folder: Path, context: ProcedureContext
) -> QueryResult:
    """Return where the rows are, in a new file. Raises a `FastnError` if they are too many."""
    rows = answer.get("rows", [])
    total = answer.get("total")
    if total is None or total > len(rows):
        raise Failed(
            f"The rows are larger than {MAX_FILE // 1_000_000} MB. No file was written.",
            "Select fewer columns or rows.",
            certainty=NOTHING_CHANGED,
        )
    path = folder / f"query-{context.system.now():%Y%m%dT%H%M%SZ}-{context.system.token()[:8]}.csv"

    def write() -> None:
        write_csv(path, answer.get("columns", []), cast("list[list[JsonValue]]", safe(cast(JsonValue, rows))))

    await anyio.to_thread.run_sync(write)
    return QueryResult.model_validate({**around, "file": str(path), "total": total})


async def _run_statement(call: Query, context: ProcedureContext) -> tuple[StatementAnswer, dict[str, JsonValue]]:
    """Return the rows of a statement, and what to know before them. Raises a `FastnError`."""
    if len(call.sql.encode(errors="replace")) > MAX_STATEMENT:
        raise InvalidArgument(f"The statement is larger than {MAX_STATEMENT:,} bytes.", "Shorten it.")
    missing = _missing(context)
    now = context.system.now()
    task: Task = {
        "tables": {name: table.types() for name, table in TABLES.items() if name not in missing},
        "statement": _with_short_ids(call.sql),
        "now": stamp(now),
        "runs": False,
    }
    async with slot_of(context.guard):
        compiled = _checked(await run_task(task), call.sql, missing)
    reads = compiled.get("reads", {})
    _check_bounds(call, reads)
    named = {"customer_id": call.customer_id, "workflow_id": call.workflow_id}
    bounds = await read_bounds(call.since, call.until, named, context)
    reading = StatementReads(reads, bounds, context)
    await reading.read(call.sql)
    lines = await reading.lines()
    task = {
        **task,
        "tables": {name: TABLES[name].types() for name in reads},
        "runs": True,
        "documented": {
            f"{name}.{column}": [*values] for name in reads for column, values in TABLES[name].documented.items()
        },
        "offset": 0 if call.csv else call.offset,
        "max_bytes": MAX_FILE if call.csv else _MAX_ROWS_BYTES,
        "max_cell": _MAX_SHOWN_CELL,
    }
    async with slot_of(context.guard):
        answer = _checked(await run_task(task, lines), call.sql, missing)
    return answer, _around(answer, reading, context)


def _with_short_ids(statement: str) -> str:
    """Return a statement with the short reference for each long id, as rows have them."""

    def shortened(match: re.Match[str]) -> str:
        text = match[1]
        if text is None or MAY_BE_ID.fullmatch(text) is None:
            return match[0]
        short = short_id(text)
        return match[0] if short == text else f"'{short}'"

    return QUOTED.sub(shortened, statement)


def _check_bounds(call: Query, reads: Mapping[str, Sequence[str]]) -> None:
    """Refuse an argument that bounds no table of the statement: rows would seem to be bounded by it."""
    bounds = {
        "since": call.since,
        "until": call.until,
        "customer_id": call.customer_id,
        "workflow_id": call.workflow_id,
    }
    for bound, value in bounds.items():
        if value and not any(bound in TABLES[name].bounds for name in reads):
            tables = ", ".join(name for name, table in TABLES.items() if bound in table.bounds)
            raise InvalidArgument(
                f"{bound} bounds none of the tables that the statement reads, only {tables}.", "Use WHERE."
            )


def _missing(context: ProcedureContext) -> dict[str, FastnError]:
    """Return the tables whose list is switched off or not permitted for the caller, and why."""
    refusals: dict[str, FastnError] = {}
    for name, table in TABLES.items():
        listing: Call = table.lister()  # pyright: ignore[reportAssignmentType]
        if (refusal := context.look.refusal(listing)) is not None:
            refusals[name] = refusal
    return refusals


def _around(answer: StatementAnswer, reading: StatementReads, context: ProcedureContext) -> dict[str, JsonValue]:
    """Return what to know before the rows: values that no row has, and how far the rows reach."""
    around: dict[str, JsonValue] = {}
    warnings: list[str] = []
    for name, found in answer.get("unknown", {}).items():
        compared = ", ".join(map(repr, found["compared"]))
        values = ", ".join(_in_sentence(each) for each in found["values"]) or "none: the table is empty"
        warnings.append(f"{name}: no row has {compared}. Its values: {values}")
    if warnings:
        around["warning"] = ". ".join(warnings[:_MAX_WARNINGS])
    around["reach"] = reading.reach()
    return around | {"now": stamp(context.system.now())} | context.look.age()


def _in_sentence(text: str) -> str:
    """Return a text of a row for a sentence of ours, in quotes unless it is plain."""
    return quoted(shorten(text, MAX_UNKNOWN))


_TABLE = re.compile(r"no such table: (\S+)")
_COLUMN = re.compile(r"no such column: (\S+)")
_FUNCTION = re.compile(r"(?:no such function|not authorized to use function): (\S+)")
_PROHIBITED = re.compile(r"access to (\S+) is prohibited")


def _checked(answer: StatementAnswer, statement: str, missing: Mapping[str, FastnError]) -> StatementAnswer:
    """Return an answer. Raises `InvalidArgument` if the statement could not be compiled or run."""
    if "failure" not in answer:
        return answer
    message = answer.get("message", "")
    if match := _TABLE.search(message):
        table = match[1].lower()
        if table in missing:
            why = missing[table]
            raise type(why)(f"The table {table} is not here. {why.what}", why.next_step)
        tables = [name for name in TABLES if name not in missing]
        what = f"no such table: {match[1]}{nearest(match[1], tables)}"
        next_step = f"Tables: {', '.join(tables)}."
    elif match := _COLUMN.search(message):
        what, next_step = _unknown_column(match[1], statement)
    elif match := _FUNCTION.search(message):
        what = f"no such function: {match[1]}{nearest(match[1], FUNCTIONS)}"
        next_step = f"Functions: {', '.join(sorted(FUNCTIONS))}."
    elif _PROHIBITED.search(message) or message == "not authorized":
        what = "a statement may only SELECT from the tables of this tool"
        next_step = f"Tables: {', '.join(TABLES)}."
    else:
        what = message
        next_step = "Correct the statement."
    if answer["failure"] == "failed" and "too big" in message:
        raise Failed(f"SQL: {what}.", "Build no long texts.", certainty=NOTHING_CHANGED)
    raise InvalidArgument(f"SQL: {what}.", next_step, certainty=NOTHING_CHANGED)


def _unknown_column(named: str, statement: str) -> tuple[str, str]:
    """Return what is wrong with the name of a column, and what its tables have instead."""
    prefix, _, column = named.rpartition(".")
    words = set(re.findall(r"\w+", statement.lower()))
    tables = [_table_called(prefix, statement)] if prefix else [TABLES[name] for name in TABLES if name in words]
    tables = [table for table in tables if table is not None]
    columns = {table.name: [each.name for each in table.columns] for table in tables}
    having = [name for name, names in columns.items() if column in names]
    lacking = [name for name in columns if name not in having]
    if having and lacking:
        hint = f" in {', '.join(lacking)}, only in {', '.join(having)}"
    else:
        lacking = [*columns]
        hint = nearest(column, [name for names in columns.values() for name in names])
    listed = " ".join(f"Columns of {name}: {', '.join(columns[name])}." for name in lacking)
    return f"no such column: {named}{hint}", listed or f"Name a table. Tables: {', '.join(TABLES)}."


def _table_called(name: str, statement: str) -> QueryTable | None:
    """Return the table that a statement calls by its name or by an alias; None if that is a query."""
    if name.lower() in TABLES:
        return TABLES[name.lower()]
    called = re.search(rf"\b({'|'.join(TABLES)})\s+(?:as\s+)?{re.escape(name)}\b", statement, re.IGNORECASE)
    return TABLES[called[1].lower()] if called else None
