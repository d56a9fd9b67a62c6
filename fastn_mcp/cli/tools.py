"""`fastn-mcp tools`: what there is, what it does to the world, and how its shape is known."""

import json
import sys

import click

from fastn_mcp.build.account import offered
from fastn_mcp.cli import StartOptions
from fastn_mcp.cli.layout import columns_of, say, table
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import AnyTool, Effect

_COLORS = {
    Effect.WRITE: "cyan",
    Effect.EXTERNAL: "yellow",
    Effect.SPEND: "yellow",
    Effect.ACCESS: "magenta",
    Effect.TRASH: "red",
    Effect.DESTROY: "bright_red",
}


@click.command(name="tools")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def tools(start: StartOptions, as_json: bool) -> None:
    """List the tools of these settings: effect, evidence, route."""
    found = offered(start.keyless())
    if as_json:
        rows = [dict(zip(_COLUMNS, _row(operation), strict=True)) for operation in found]
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    columns = columns_of()
    shown = len(_COLUMNS) if columns is None or columns >= _WIDE else 3 if columns >= _NARROW else 2
    rows = [_row(operation)[:shown] for operation in found]
    header, *lines = table([_COLUMNS[:shown], *rows], columns)
    click.secho(header, bold=True)
    for operation, line in zip(found, lines, strict=True):
        click.secho(line, fg=_COLORS.get(operation.effect))
    if columns is not None:
        say(f"\n{len(found)} tools. Arguments: fastn-mcp call TOOL --help")


_COLUMNS = ("tool", "effect", "route", "evidence")
_WIDE, _NARROW = 100, 80
"""Columns of a terminal from which all of that is shown, and the route."""


def _row(offer: AnyTool) -> tuple[str, str, str, str]:
    if not issubclass(offer, Operation):
        return offer.tool_name(), offer.effect.value, "", ""  # it is made of others
    return offer.tool_name(), offer.effect.value, str(offer.route), str(offer.evidence)
