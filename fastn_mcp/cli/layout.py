"""Text layout of the command line: wrapped on a terminal, whole lines in a pipe or a file."""

import shutil
import sys
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TextIO

import click
from rich.cells import cell_len, set_cell_size

from fastn_mcp.channels.terminal import wrapped
from fastn_mcp.redaction import sanitize

# Colours of 256 that are legible on white and on black, which yellow and white are not.
GREEN = 28
RED = 160
ORANGE = 166
CYAN = 31
MAGENTA = 127
GREY = 244

_COLUMN_GAP = 2
_MIN_LAST_CELL = 30


def style(color: int) -> str:
    """Return a color as rich names it."""
    return f"color({color})"


def columns_of(stream: TextIO | None = None) -> int | None:
    """Return the width of the terminal that `stream`, by default stdout, writes to. None for a pipe or a file."""
    return shutil.get_terminal_size().columns if (stream or sys.stdout).isatty() else None


def fit(text: str, columns: int) -> str:
    """Fit text into exactly `columns`: pad it with spaces, or cut it with an ellipsis."""
    if cell_len(text) <= columns:
        return set_cell_size(text, columns)
    return f"{set_cell_size(text, columns - 1)}…"


def tab_separated(cells: Iterable[str]) -> str:
    """Join cells into a line for other programs. Tabs and line breaks inside a cell are escaped."""
    return "\t".join(sanitize(cell) for cell in cells)


def print_table(rows: Sequence[Sequence[str]], colors: Iterable[int | None] = ()) -> None:
    """Print rows, header first, each of the others in its color; tab-separated in a pipe or a file.

    The last cell wraps. If too few columns are left for it, the cells of a row go below its first one, each with the
    name of its column.
    """
    columns = columns_of()
    if columns is None:
        click.echo("\n".join(map(tab_separated, rows)))
        return
    header, *lines = ([sanitize(cell) for cell in row] for row in rows)
    *widths, last = [max(map(cell_len, column)) for column in zip(header, *lines, strict=True)]
    if columns - sum(widths) - _COLUMN_GAP * len(widths) < min(last, _MIN_LAST_CELL):
        _print_narrow(header, lines, colors, columns)
    else:
        _print_wide(header, lines, colors)


def _print_narrow(
    header: Sequence[str], lines: Iterable[list[str]], colors: Iterable[int | None], columns: int
) -> None:
    for (name, *cells), color in zip_longest(lines, colors):
        facts = [f"  {title}: {cell}" for title, cell in zip(header[1:], cells, strict=True) if cell]
        click.secho("\n".join(wrapped(line, columns) for line in (name, *facts)), fg=color)


def _print_wide(header: Sequence[str], lines: Iterable[list[str]], colors: Iterable[int | None]) -> None:
    # Only needed on a terminal.
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, _COLUMN_GAP, 0, 0), header_style="bold")
    for number, name in enumerate(header):
        table.add_column(name, overflow="fold", no_wrap=number < len(header) - 1)  # names and ids are copied
    for line, color in zip_longest(lines, colors):
        table.add_row(*line, style=None if color is None else style(color))
    context = click.get_current_context()
    system = None if context.color is False else "auto"
    Console(color_system=system, highlight=False, markup=False, emoji=False).print(table)


def say(*lines: str, err: bool = False) -> None:
    """Print lines for people, wrapped on a terminal. A line break in one of them is escaped."""
    columns = columns_of(sys.stderr if err else None)
    for line in map(sanitize, lines):
        click.echo(wrapped(line, columns, whole_words=True) if columns else line, err=err)


def warn(*lines: str) -> None:
    """Print what this program has to tell beside its output, to stderr."""
    say(*(f"fastn-mcp: {line}" for line in lines), err=True)
