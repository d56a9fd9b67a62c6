"""`fastn-mcp surface`: what clients see is written down, so that a change is reviewed."""

import json
from pathlib import Path

from command_line import Run

from fastn_mcp.config.model import FILE_ONLY, SOURCES
from fastn_mcp.procedures.catalog import OFFERS
from fastn_mcp.server.context import tool
from fastn_mcp.tools.catalog import CATALOG


def test_it_writes_a_file_for_each_tool_and_then_nothing_more(fastn: Run, tmp_path: Path) -> None:
    """Issue 2: written once, and again only where something changed."""
    folder = tmp_path / "tools"
    first = fastn("surface", str(folder))
    assert (first.returncode, first.stderr) == (0, "")
    names = {f"{operation.tool_name()}.json" for operation in OFFERS}
    assert {path.name for path in folder.iterdir()} == names
    assert first.stdout.splitlines() == [f"written: {folder / name}" for name in sorted(names)]
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = fastn("surface", str(folder))
    assert (again.returncode, again.stdout) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == times
    checked = fastn("surface", "--check", str(folder))
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_file_is_the_tool_as_it_goes_over_the_wire(fastn: Run, tmp_path: Path) -> None:
    """Ours: with its route, effect and evidence beside."""
    folder = tmp_path / "tools"
    fastn("surface", str(folder))
    for operation in CATALOG:
        written = json.loads((folder / f"{operation.tool_name()}.json").read_text())
        assert (written["effect"], written["route"]) == (operation.effect.value, str(operation.route))
        assert written["tool"] == tool(operation).model_dump(mode="json", by_alias=True, exclude_none=True)


def test_the_check_fails_on_a_change_and_names_it(fastn: Run, tmp_path: Path) -> None:
    """Issue 2: an edited file, a missing one and one too many; nothing is written."""
    folder = tmp_path / "tools"
    fastn("surface", str(folder))
    edited, missing, gone = (folder / f"{name}.json" for name in ("get_customer", "delete_customer", "no_more"))
    right = edited.read_text()
    edited.write_text(right.replace("Get one customer", "Get a customer"))
    missing.unlink()
    gone.write_text("{}")
    checked = fastn("surface", "--check", str(folder))
    assert checked.returncode == 1
    assert checked.stdout.splitlines() == [f"differs: {path}" for path in sorted((edited, missing, gone))]
    assert "Run: fastn-mcp surface" in checked.stderr
    assert (missing.exists(), gone.exists()) == (False, True)
    assert len(fastn("surface", str(folder)).stdout.splitlines()) == 3
    assert (edited.read_text(), missing.exists(), gone.exists()) == (right, True, False)


def test_the_tables_of_the_readme_are_between_their_markers(fastn: Run, tmp_path: Path) -> None:
    """Ours: what stands around them is left alone."""
    readme = tmp_path / "README.md"
    readme.write_text(
        "before\n<!-- tools: x -->\nOUTDATED\n<!-- /tools -->\nbetween\n<!-- settings: x -->\n<!-- /settings -->\n"
    )
    assert f"written: {readme}" in fastn("surface", str(tmp_path / "tools")).stdout.splitlines()
    text = readme.read_text()
    assert text.startswith("before\n<!-- tools: x -->\n| tool |")
    assert "\n<!-- /tools -->\nbetween\n" in text
    assert "OUTDATED" not in text
    assert text.count("\n| `") == len(OFFERS) + len(SOURCES) + len(FILE_ONLY)
    readme.write_text(text.replace("`FASTN_MODE`", "`FASTN_MOOD`"))
    checked = fastn("surface", "--check", str(tmp_path / "tools"))
    assert (checked.returncode, checked.stdout) == (1, f"differs: {readme}\n")
