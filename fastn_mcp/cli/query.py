"""`fastn-mcp query SQL`: answer a question about the account by one SQL statement."""

import json
import sys
from typing import Any, cast

import anyio
import click

from fastn_mcp.build.composition import AccountParts
from fastn_mcp.cli.call import make_call
from fastn_mcp.cli.exit import Exit, exit_of
from fastn_mcp.cli.layout import print_table, warn
from fastn_mcp.cli.start_options import StartOptions
from fastn_mcp.errors import FastnError, InvalidArgument
from fastn_mcp.procedures.catalog import parse
from fastn_mcp.procedures.query.answer import MAX_KB
from fastn_mcp.procedures.query.csv_file import csv_text
from fastn_mcp.procedures.query.tables import TABLES

MAX_ROWS = 10_000
"""Maximum number of rows that are printed."""


@click.command(name="query")
@click.argument("sql", required=False)
@click.option("--since", metavar="TIME", help="Read only runs and audit entries from TIME on, in ISO 8601.")
@click.option("--until", metavar="TIME", help="Read only runs and audit entries before TIME.")
@click.option("--customer-id", metavar="NAMES", help="Read only what belongs to these customers: ids or names, A,B.")
@click.option("--workflow-id", metavar="NAMES", help="Read only what belongs to these workflows.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: a list of objects.")
@click.pass_obj
def query(start: StartOptions, sql: str | None, as_csv: bool, as_json: bool, **bounds: str | None) -> None:
    """Answer a question about the account with one SQLite SELECT. Without SQL, print the tables and their columns.

    Notes about the rows, such as how far back runs were read, are printed on stderr.
    """
    if as_csv and as_json:
        raise click.UsageError("Give either --csv or --json.")
    if sql is None:
        print_table([("table", "columns"), *((name, " ".join(TABLES[name].types())) for name in TABLES)])
        return
    arguments = {"sql": sql, **{name: value for name, value in bounds.items() if value is not None}}
    try:
        columns, rows = anyio.run(_all_rows, start.parts(), arguments)
    except FastnError as error:
        warn(str(error))
        sys.exit(Exit.WRONG if isinstance(error, InvalidArgument) else exit_of(error.outcome))
    if as_json:
        click.echo(json.dumps([dict(zip(columns, row, strict=True)) for row in rows], ensure_ascii=False))
    elif as_csv:
        click.echo(csv_text(columns, rows), nl=False)
    else:
        print_table([columns, *(["" if cell is None else str(cell) for cell in row] for row in rows)])


async def _all_rows(parts: AccountParts, arguments: dict[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Return the columns and rows of all pages of an answer. Notes about them go to stderr."""
    tools = {tool.tool_name(): tool for tool in parts.tools}
    rows: list[list[Any]] = []
    offset: int | None = 0
    columns: list[str] = []
    try:
        while offset is not None and len(rows) < MAX_ROWS:
            wanted = parse(tools, "query", {**arguments, "offset": offset, "max_kb": MAX_KB})
            outcome = await make_call(parts, wanted)
            data = cast("dict[str, Any]", (outcome.body or {})["data"])
            if offset == 0:
                columns = data["columns"]
                _note(data)
            rows += data["rows"]
            offset = data.get("next_offset")
    finally:
        await parts.aclose()
    if offset is not None:
        warn(f"Stopped after {len(rows):,} rows. Aggregate, or use LIMIT and OFFSET.")
    return columns, rows


def _note(data: dict[str, Any]) -> None:
    """Print the notes about the rows on stderr."""
    reach = [f"{table}: {part}" for table, part in data.get("reach", {}).items() if isinstance(part, str)]
    warn(*filter(None, (data.get("warning"), *reach, data.get("cut"))))
