"""`fastn-mcp tools`: what there is, what it does to the world, and how its shape is known."""

import json
import sys

from rich import box
from rich.console import Console
from rich.table import Table

from fastn_mcp.offer import AnyOffer, Effect
from fastn_mcp.operation import Operation

_STYLES = {
    Effect.READ: "green",
    Effect.WRITE: "cyan",
    Effect.EXTERNAL: "yellow",
    Effect.SPEND: "yellow",
    Effect.ACCESS: "magenta",
    Effect.TRASH: "red",
    Effect.DESTROY: "bold red",
}


def show(offered: tuple[AnyOffer, ...], *, as_json: bool) -> None:
    """Print the table, or the same as JSON."""
    if as_json:
        rows = [dict(zip(_COLUMNS, _row(operation), strict=True)) for operation in offered]
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
        return
    console = Console(width=None if sys.stdout.isatty() else 120)
    shown = len(_COLUMNS) if console.width >= _WIDE else 2
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in _COLUMNS[:shown]:
        table.add_column(column, no_wrap=True)
    for operation in offered:
        name, effect, evidence, route = _row(operation)
        table.add_row(*(name, f"[{_STYLES[operation.effect]}]{effect}[/]", evidence, route)[:shown])
    console.print(table)
    console.print(f"{len(offered)} tools. Arguments: fastn-mcp call TOOL --help", highlight=False)


_COLUMNS = ("tool", "effect", "evidence", "route")
_WIDE = 72
"""Columns of a terminal. In fewer the names would be cut, so that only what is known of them by name is shown."""


def _row(offer: AnyOffer) -> tuple[str, str, str, str]:
    if not issubclass(offer, Operation):
        return offer.tool_name(), offer.effect.value, "", ""  # it is made of others
    return offer.tool_name(), offer.effect.value, str(offer.evidence), str(offer.route)
