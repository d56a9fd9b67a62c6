"""The plugin for Claude Code: what can be held without it. `make clients` has Claude Code itself install it."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from fastn_mcp import __version__, errors
from fastn_mcp.config.model import SOURCES
from fastn_mcp.errors import FastnError
from fastn_mcp.procedures.catalog import ALL_TOOLS

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "plugins" / "fastn"
MARKETPLACE: dict[str, Any] = json.loads((ROOT / ".claude-plugin" / "marketplace.json").read_text())
MANIFEST: dict[str, Any] = json.loads((PLUGIN / ".claude-plugin" / "plugin.json").read_text())
SERVERS: dict[str, Any] = json.loads((PLUGIN / ".mcp.json").read_text())["mcpServers"]
SKILL = (PLUGIN / "skills" / "fastn" / "SKILL.md").read_text()
FRONT = dict(re.findall(r"^(\w+): (.+)$", SKILL.split("---\n")[1], re.MULTILINE))
OUTCOMES = {kind.outcome for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FastnError)}


def test_marketplace_names_the_plugin() -> None:
    """Claude Code: a name, an owner, and a path from the root for each plugin."""
    assert (MARKETPLACE["name"], MARKETPLACE["owner"]["name"]) == ("fastn-mcp", "fastn-mcp")
    (listed,) = MARKETPLACE["plugins"]
    assert (ROOT / listed["source"]).resolve() == PLUGIN
    assert (listed["name"], listed["description"]) == (MANIFEST["name"], MANIFEST["description"])


def test_plugin_has_the_version_of_the_package() -> None:
    """Claude Code updates a plugin by its version."""
    assert MANIFEST["version"] == __version__


def test_plugin_starts_the_server_and_holds_no_key() -> None:
    server = SERVERS["fastn"]
    assert (server["command"], server["args"]) == ("fastn-mcp", [])
    variables = {source.variable for source in SOURCES}
    for name, value in server["env"].items():
        assert name in variables
        asked = re.fullmatch(r"\$\{user_config\.(\w+)\}", value)
        assert asked is not None
        assert MANIFEST["userConfig"][asked[1]]["default"] == ""  # or the server would not start before it is asked
    assert not re.search(r"fsk_|API_KEY", (PLUGIN / ".mcp.json").read_text())


def test_skill_says_when_to_use_it() -> None:
    """Claude Code: a name that is the folder's, and a description of at most 1,024 characters."""
    assert FRONT["name"] == "fastn"
    assert "Use when" in FRONT["description"]
    assert len(FRONT["description"]) <= 1024
    assert len(SKILL) < 4000  # it is read whole, each time


def test_skill_names_existing_tools_arguments_and_outcomes() -> None:
    tools = {tool.tool_name() for tool in ALL_TOOLS}
    arguments = {name for tool in ALL_TOOLS for name in tool.model_fields}
    fields = {"dry_run", "message", "next"} | arguments
    words = set(re.findall(r"`([a-z_]+)[`:]", SKILL))
    assert words <= tools | OUTCOMES | fields, words - tools - OUTCOMES - fields
    for needed in ("find", "find_dependents", "list_changes", "undo_change", "wait_for_execution", "diagnose"):
        assert needed in words
    for needed in ("approval_required", "declined", "unknown_outcome", "target_changed"):
        assert needed in words


@pytest.mark.parametrize("file", [*sorted(PLUGIN.rglob("*.json")), ROOT / ".claude-plugin" / "marketplace.json"])
def test_files_are_formatted_as_by_json_dumps(file: Path) -> None:
    assert file.read_text() == json.dumps(json.loads(file.read_text()), indent=2) + "\n"


def test_client_page_names_the_plugin_as_its_manifest_does() -> None:
    lines = (ROOT / "docs" / "clients.md").read_text().splitlines()
    words = next(shlex.split(line, comments=True) for line in lines if line.startswith("claude plugin install "))
    assert words[3] == f"{MANIFEST['name']}@{MARKETPLACE['name']}"
