"""How the command line lays text out: within the columns of a terminal, and in whole lines for a pipe or a file."""

import shutil
import sys
from collections.abc import Iterable
from typing import TextIO

import click
from rich.cells import cell_len, set_cell_size

from fastn_mcp.channels.terminal import wrapped
from fastn_mcp.redaction import sanitize


def columns_of(stream: TextIO | None = None) -> int | None:
    """Columns of the terminal that `stream` writes to, by default standard output; None for a pipe or a file."""
    return shutil.get_terminal_size().columns if (stream or sys.stdout).isatty() else None


def fit(text: str, columns: int) -> str:
    """Text in exactly so many columns: padded with spaces, or cut with an ellipsis."""
    if cell_len(text) <= columns:
        return set_cell_size(text, columns)
    return f"{set_cell_size(text, columns - 1)}…"


def tab_separated(cells: Iterable[str]) -> str:
    """One line for other programs. A tab or a line break inside a cell is escaped."""
    return "\t".join(sanitize(cell) for cell in cells)


def say(text: str, *, err: bool = False) -> None:
    """Print text for people, wrapped where it is read on a terminal."""
    columns = columns_of(sys.stderr if err else None)
    click.echo(wrapped(text, columns, whole_words=True) if columns else text, err=err)
