"""What a release says of itself: its notes, and what the MCP registry is told."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
from notes import notes
from registry import MANIFEST, SERVER, with_bundle

ROOT = Path(__file__).parent.parent.parent
HEAD = "# Changelog\n\nIntroduction.\n\n## [Unreleased]\n\n"
NEWER = "## [1.1.0] - 2026-12-01\n\n### Added\n\n- A thing.\n- Another,\n  longer.\n\n"
OLDER = "## [1.0.0] - 2026-11-25\n\n### Fixed\n\n- A defect.\n"


def test_release_notes_are_the_section_of_the_version() -> None:
    assert notes(HEAD + NEWER + OLDER, "1.1.0") == "### Added\n\n- A thing.\n- Another,\n  longer.\n"
    assert notes(HEAD + OLDER, "1.0.0") == "### Fixed\n\n- A defect.\n"


@pytest.mark.parametrize(
    ("changelog", "version", "message"),
    [
        (HEAD + NEWER, "1.2.0", "it has no sections [1.2.0]"),
        (HEAD + "- x\n", "Unreleased", "it has no sections [Unreleased]"),
        (HEAD + NEWER + NEWER, "1.1.0", "it has 2 sections [1.1.0]"),
        (HEAD + NEWER + OLDER, "1.0.0", "[1.1.0] stands above [1.0.0]"),
        (HEAD + "## [1.1.0]\n\n- A thing.\n", "1.1.0", "[1.1.0] has no date"),
        (HEAD + "## [1.1.0] - 2026-13-01\n\n- A thing.\n", "1.1.0", "[1.1.0] has no date"),
        (HEAD + "## [1.1.0] - soon\n\n- A thing.\n", "1.1.0", "[1.1.0] has no date"),
        (HEAD + "## [1.1.0] - 2026-12-01\n\n### Added\n\n" + OLDER, "1.1.0", "[1.1.0] says nothing"),
    ],
)
def test_unready_changelog_is_refused_with_the_reason(changelog: str, version: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        notes(changelog, version)


def test_registry_entry_has_the_address_and_digest_of_the_bundle() -> None:
    server: dict[str, Any] = json.loads(SERVER.read_text(encoding="utf-8"))
    repository = json.loads(MANIFEST.read_text(encoding="utf-8"))["repository"]["url"]
    told = with_bundle(server, repository, "fastn-mcp.mcpb", b"data")
    bundle = told["packages"][-1]
    assert told["packages"][:-1] == server["packages"]
    assert bundle["identifier"] == f"{repository}/releases/download/v{server['version']}/fastn-mcp.mcpb"
    assert bundle["fileSha256"] == hashlib.sha256(b"data").hexdigest()


def test_every_make_target_of_the_workflows_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        for line in re.findall(r"run: make (.*)", workflow.read_text(encoding="utf-8")):
            named = re.findall(r"(?:^| )([a-z][a-z-]*)(?= |$)", line)
            assert named
            assert set(named) <= targets


def test_every_action_is_pinned_to_a_commit() -> None:
    for workflow in (ROOT / ".github/workflows").glob("*.yml"):
        for used in re.findall(r"uses: (.*)", workflow.read_text(encoding="utf-8")):
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", used)
