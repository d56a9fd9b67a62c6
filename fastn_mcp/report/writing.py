"""Writes a report: FILE as JSON and FILE with `.md` as Markdown, each whole or not at all, for its owner only."""

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from fastn_mcp.errors import SettingsError
from fastn_mcp.report.document import Document
from fastn_mcp.report.markdown import markdown


def readable(path: Path) -> Path:
    """Where the Markdown goes."""
    return path.with_suffix(".md")


def check(path: Path) -> None:
    """Whether a report can be written there. Raises `SettingsError`, before anything is sent."""
    if path.suffix == ".md":
        raise SettingsError("The report's FILE ends in .md, which is its Markdown's name.", "As in: --report run.json")
    for file in (path, readable(path)):
        if file.is_dir():
            raise SettingsError(f"The report cannot be written: {file} is a folder.", "Name a file in it.")
    if not path.parent.is_dir():
        raise SettingsError(f"The report cannot be written: there is no folder {path.parent}.", "Make it first.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise SettingsError(f"The report cannot be written: {path.parent} is not yours to write.", "Name another.")


def write(path: Path, report: Document) -> None:
    """Write both, over what was there. Raises `OSError`."""
    replace(path, json.dumps(report, indent=2) + "\n")
    replace(readable(path), markdown(report))


def replace(path: Path, text: str) -> None:
    """Put `text` there, whole or not at all. Raises `OSError`."""
    file, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # 0600
    try:
        with os.fdopen(file, "w", encoding="utf-8", newline="\n") as writing:
            writing.write(text)
            writing.flush()
            os.fsync(writing.fileno())
        Path(name).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
