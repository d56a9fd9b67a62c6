"""Rows of a statement as CSV in which a spreadsheet finds no formula, and a new file with them."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from fastn_mcp.config.paths import write_private
from fastn_mcp.errors import NOTHING_CHANGED, Failed, os_reason

MAX_FILE = 10_000_000
"""Maximum size of the rows of a file, in bytes of JSON."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a text that a spreadsheet would compute."""


def csv_text(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return rows as CSV, after the names of their columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([_cell(cell) for cell in row] for row in (columns, *rows))
    return text.getvalue()


def _cell(cell: object) -> object:
    """Return a cell that a spreadsheet takes for a text, even if it begins as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Write rows to a new file that only its owner can read. Raises `Failed`."""
    try:
        write_private(path, csv_text(columns, rows), replace=False)
    except OSError as error:
        raise Failed(
            f"{path} cannot be written: {os_reason(error)}.",
            "Leave csv out, and go on with offset.",
            certainty=NOTHING_CHANGED,
        ) from error
