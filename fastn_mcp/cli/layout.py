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

GREEN, RED, ORANGE, CYAN, MAGENTA, GREY = 28, 160, 166, 31, 127, 244
"""Colours of 256 that are legible on white and on black, which yellow and white are not."""

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


def table(rows: Sequence[Sequence[str]], columns: int | None) -> list[str]:
    """Render rows, header first, each as one string. Cells are tab-separated if `columns` is None.

    The last cell is wrapped. If too few columns are left for it, the cells of a row go below its first one, each
    with its column's name, and the header is empty.
    """
    if columns is None:
        return [tab_separated(row) for row in rows]
    cells = [[sanitize(cell) for cell in row] for row in rows]
    *widths, last = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    begins = sum(widths) + _COLUMN_GAP * len(widths)
    if columns - begins >= min(last, _MIN_LAST_CELL):
        return [_beside(row, widths, columns) for row in cells]
    return ["", *("\n".join(wrapped(line, columns) for line in _below(cells[0], row)) for row in cells[1:])]


def _beside(row: Sequence[str], widths: Sequence[int], columns: int) -> str:
    fixed = "".join(fit(cell, width) + " " * _COLUMN_GAP for cell, width in zip(row, widths, strict=False))
    begins = cell_len(fixed)
    lines = wrapped(row[-1], columns - begins, 0).split("\n")
    return "\n".join((" " * begins + line if number else fixed + line).rstrip() for number, line in enumerate(lines))


def _below(header: Sequence[str], row: Sequence[str]) -> list[str]:
    return [row[0], *(f"  {name}: {cell}" for name, cell in zip(header[1:], row[1:], strict=True) if cell)]


def print_table(rows: Sequence[Sequence[str]], colors: Iterable[int | None] = ()) -> None:
    """Print rows, header first, each of the others in its color."""
    header, *lines = table(rows, columns_of())
    if header:
        click.secho(header, bold=True)
    for line, color in zip_longest(lines, colors):
        click.secho(line, fg=color)


def say(text: str, *, err: bool = False) -> None:
    """Print text for people, wrapped on a terminal."""
    columns = columns_of(sys.stderr if err else None)
    click.echo(wrapped(text, columns, whole_words=True) if columns else text, err=err)
