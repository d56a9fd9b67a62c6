"""How the command line lays text out: within the columns of a terminal, and in whole lines for a pipe or a file."""

import shutil
import sys
from collections.abc import Iterable
from textwrap import wrap
from typing import TextIO

import click
from rich.cells import cell_len, set_cell_size

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


def wrapped(text: str, columns: int | None, indent: int = 2) -> str:
    """Text whose lines break between words. A continued line is indented by `indent` more than its first."""
    if columns is None:
        return text
    lines: list[str] = []
    for line in text.split("\n"):
        hanging = " " * (len(line) - len(line.lstrip()) + indent)
        # A word longer than a line, as a path or a command, is left whole: it can be copied.
        lines += wrap(line, columns, subsequent_indent=hanging, break_long_words=False, break_on_hyphens=False) or [""]
    return "\n".join(lines)


def say(text: str, *, err: bool = False) -> None:
    """Print text for people, wrapped where it is read on a terminal."""
    click.echo(wrapped(text, columns_of(sys.stderr if err else None)), err=err)
