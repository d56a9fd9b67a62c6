"""Where an answer sends a person to the dashboard, it links the page, if the setting `dashboard_url` is given."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from faulty_sandbox import Status
from mcp import Client
from pydantic import JsonValue
from world import World

import fastn_mcp
from fastn_mcp.guard.policy import Policy
from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.procedures.diagnosis.diagnose_workflow import DiagnoseWorkflow
from fastn_mcp.server.handlers import build
from fastn_mcp.server.rendering import with_dashboard

pytestmark = pytest.mark.anyio

AT = "https://dashboard.example/app"
SETTLEMENTS = "wf_e5047fb2a8c3"

LINKED: list[tuple[str, dict[str, Any], str]] = [
    ("diagnose_workflow", {"workflow_id": SETTLEMENTS}, "/integrations?tab=workflows"),
    ("delete_workflow", {"workflow_id": SETTLEMENTS, "dry_run": True}, "/integrations?tab=workflows"),
    ("invite_user", {"email": "a@b.example", "role": "Viewer", "dry_run": True}, ""),
    ("ai_chat", {"message": "m"}, "/agent"),
]


each_version = pytest.mark.parametrize("version", ["legacy", "2026-07-28"])


async def said(world: World, version: str, tool: str, arguments: dict[str, Any]) -> dict[str, Any]:
    async with Client(build(world.dispatch, ALL_TOOLS, {}), mode=version) as client:
        return cast("dict[str, Any]", (await client.call_tool(tool, arguments)).structured_content)


@each_version
@pytest.mark.parametrize(("tool", "arguments", "page"), LINKED)
async def test_an_answer_that_names_the_dashboard_links_its_page(
    tmp_path: Path, version: str, tool: str, arguments: dict[str, Any], page: str
) -> None:
    """Ours: as a result, a preview and an error, by a real client; without the setting nothing is linked."""
    for url, linked in ((AT, AT + page), (None, None)):
        world = World(tmp_path, Policy("auto"), dashboard_url=url)
        world.sandbox.faults.add(Status(status=500, path="/api/v1/ai/chat", times=None))
        assert (await said(world, version, tool, arguments)).get("dashboard") == linked


def test_what_fastn_says_of_a_dashboard_links_nothing() -> None:
    """Ours: a name from Fastn is no word of ours."""
    answer: dict[str, Any] = {"data": [{"name": "dashboard"}], "fastn": {"message": "dashboard"}}
    assert with_dashboard(answer, None, AT) == answer


SOURCES = ("client", "guard", "procedures", "channels")


def texts() -> Iterator[tuple[str, str]]:
    """Every text about the dashboard that an answer can hold, but for what the list of tools shows."""
    root = Path(fastn_mcp.__file__).parent
    for folder in SOURCES:
        for file in sorted((root / folder).rglob("*.py")):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            for node in ast.walk(tree):
                if (
                    isinstance(node, ast.Constant)
                    and isinstance(node.value, str)
                    and "dashboard" in node.value.casefold()
                ):
                    yield file.name, node.value


def test_every_text_about_the_dashboard_is_found() -> None:
    """Ours: wherever a text says it, and in whichever part of an answer."""
    found = [(name, text) for name, text in texts() if " " in text]
    assert len(found) >= 10
    diagnosis = DiagnoseWorkflow(workflow_id="wf_1")
    for name, text in found:
        answers: list[dict[str, JsonValue]] = [{"message": text}, {"next": text}, {"data": {"causes": [{"fix": text}]}}]
        for answer in answers:
            assert with_dashboard(answer, diagnosis, AT)["dashboard"] == f"{AT}/integrations?tab=workflows", (
                name,
                text,
            )
