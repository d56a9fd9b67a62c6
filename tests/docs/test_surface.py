"""What clients see is written to files, so that a change of it is reviewed: `make surface`, `make check-generated`."""

import json
from pathlib import Path

import surface
import write

from fastn_mcp.config.model import SOURCES, KeySettings
from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.server.tool_list import tool
from fastn_mcp.tools.catalog import CATALOG

ROOT = Path(__file__).parents[2]
FILES = surface.wanted(ROOT)


def test_generated_files_are_up_to_date() -> None:
    own = {path.relative_to(ROOT).as_posix() for path in FILES if path.parent != ROOT / "tools"}
    manifests = {"packaging/bundle/manifest.json", "server.json"}
    assert own == {"README.md", "fastn_mcp/introduction.json", "plugins/fastn/skills/fastn/SKILL.md"} | manifests
    names = {path.name for path in FILES if path.parent == ROOT / "tools"}
    assert names == {f"{offer.tool_name()}.json" for offer in ALL_TOOLS}
    assert [path for path in write.differing(ROOT, FILES) if path.parent != ROOT / "docs" / "tools"] == []


def test_tool_file_is_the_tool_as_listed_over_mcp() -> None:
    for operation in CATALOG:
        written = json.loads(FILES[ROOT / "tools" / f"{operation.tool_name()}.json"])
        assert (written["effect"], written["route"]) == (operation.effect.value, str(operation.route))
        assert written["tool"] == tool(operation).model_dump(mode="json", by_alias=True, exclude_none=True)


def test_differing_files_are_named_and_updated(tmp_path: Path) -> None:
    edited, missing, gone, right = (tmp_path / "tools" / f"{name}.json" for name in ("a", "b", "c", "d"))
    files = {edited: "a", missing: "b", right: "d"}
    write.bring_up_to_date(write.differing(tmp_path, files), files)
    edited.write_text("other")
    missing.unlink()
    gone.write_text("{}")
    assert write.differing(tmp_path, files) == [edited, missing, gone]
    write.bring_up_to_date([edited, missing, gone], files)
    assert (edited.read_text(), missing.read_text(), right.read_text(), gone.exists()) == ("a", "b", "d", False)
    assert write.differing(tmp_path, files) == []


def test_tables_are_filled_between_their_markers() -> None:
    page = "before\n<!-- settings: x -->\nOUTDATED\n<!-- /settings -->\nafter\n"
    text = surface.fill_tables(page, {"settings": surface.settings_table()})
    assert text.startswith("before\n<!-- settings: x -->\n| setting, variable, flag |")
    assert text.endswith("\n<!-- /settings -->\nafter\n")
    assert "OUTDATED" not in text
    assert text.count("\n| `") == len(SOURCES) + len(KeySettings.model_fields)
