"""Golden files: texts of the product that are reviewed as text, and written anew by `make golden`."""

import os
from difflib import unified_diff
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "golden"
"""Folder of the golden files, and of the tests that compare them."""

IS_WRITING = bool(os.environ.get("GOLDEN"))
"""Whether the files are written instead of compared."""


def check_golden(name: str, text: str) -> None:
    """Compare a text with its golden file, or write the file. Fail with the difference."""
    path = FOLDER / name
    if IS_WRITING:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return
    stored = path.read_text(encoding="utf-8") if path.exists() else ""
    difference = "\n".join(unified_diff(stored.splitlines(), text.splitlines(), name, "now", lineterm=""))
    if difference:
        pytest.fail(f"{difference}\n\n{name} differs. If the new text is right, run: make golden", pytrace=False)


def check_no_other(folder: str, names: set[str]) -> None:
    """Check that a folder holds golden files of these names only. Raises `AssertionError`."""
    found = {path.name for path in (FOLDER / folder).glob("*")}
    if IS_WRITING:
        for name in found - names:
            (FOLDER / folder / name).unlink()
        return  # another test may not have written its file yet
    unknown = sorted(found - names)
    missing = sorted(names - found)
    assert found == names, f"golden files in {folder} of nothing: {unknown}, and missing: {missing}. Run: make golden"
