"""Golden files: texts of the product that are reviewed as text, and written anew by `make golden`."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "golden"
"""Folder of the golden files, and of the tests that compare them."""

IS_WRITING = bool(os.environ.get("GOLDEN"))
"""Whether the files are written instead of compared."""


def check_golden(name: str, text: str) -> None:
    """Compare a text with its golden file, or write the file. Raises `AssertionError` if they differ."""
    path = FOLDER / name
    if IS_WRITING:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    stored = path.read_text(encoding="utf-8") if path.exists() else ""
    assert text.splitlines() == stored.splitlines(), f"{name} differs. If the new text is right, run: make golden"


def check_no_other(folder: str, names: set[str]) -> None:
    """Check that a folder holds golden files of these names only. Raises `AssertionError`."""
    found = {path.name for path in (FOLDER / folder).glob("*")}
    if IS_WRITING:
        for name in found - names:
            (FOLDER / folder / name).unlink()
        found &= names
    assert found == names, f"golden files of nothing in {folder}: {sorted(found - names)}; run: make golden"
