"""An answer that mentions the dashboard links the page if `dashboard_url` is set."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from pydantic import JsonValue
from support.faulty_sandbox import Status
from support.policy_files import ALLOWING
from support.server_process import body
from support.world import World

import fastn_mcp
from fastn_mcp.policy.policy import Policy
from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.server.handlers import build
from fastn_mcp.server.rendering import with_dashboard

AT = "https://dashboard.example/app"
SETTLEMENTS = "wf_e5047fb2a8c3"

LINKED: list[tuple[str, dict[str, Any], str]] = [
    ("diagnose", {"workflow_id": SETTLEMENTS}, "/integrations?tab=workflows"),
    ("delete_workflow", {"workflow_id": SETTLEMENTS, "dry_run": True}, "/integrations?tab=workflows"),
    ("invite_user", {"email": "a@b.example", "role": "Viewer", "dry_run": True}, ""),
    ("ai_chat", {"message": "m"}, "/agent"),
]


@pytest.mark.parametrize("version", ["legacy", "2026-07-28"])
async def test_answer_that_names_the_dashboard_links_its_page(tmp_path: Path, version: str) -> None:
    for url in (AT, None):
        world = World(tmp_path, Policy(rules=ALLOWING), dashboard_url=url)
        world.sandbox.faults.add(Status(status=500, path="/api/v1/ai/chat", times=None))
        async with Client(build(world.dispatch, ALL_TOOLS, {}), mode=version) as client:
            for tool, arguments, page in LINKED:
                answer = body(await client.call_tool(tool, arguments))
                assert answer.get("dashboard") == (url and url + page), tool


def test_text_from_fastn_adds_no_link() -> None:
    answer: dict[str, Any] = {"data": [{"name": "dashboard"}], "fastn": {"message": "dashboard"}}
    assert with_dashboard(answer, None, AT) == answer


SOURCES = ("client", "guard", "procedures", "channels")


def texts() -> Iterator[tuple[str, str]]:
    """Return every text about the dashboard that an answer can contain, except tool descriptions."""
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


def test_every_text_about_the_dashboard_is_linked() -> None:
    sentences = [(name, text) for name, text in texts() if " " in text]
    assert len(sentences) >= 10
    diagnosis = Diagnose(workflow_id="wf_1")
    for name, text in sentences:
        answers: list[dict[str, JsonValue]] = [{"message": text}, {"next": text}, {"data": {"causes": [{"fix": text}]}}]
        for answer in answers:
            assert with_dashboard(answer, diagnosis, AT)["dashboard"] == f"{AT}/integrations?tab=workflows", (
                name,
                text,
            )
