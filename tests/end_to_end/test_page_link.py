"""URL-mode elicitation: the client leads the person to the approval page, and its answer decides nothing."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from support.local_page import approve_all, globex
from support.policy_files import policy_file
from support.server_process import ERAS, Person, Upstream, approving, body, each_era, environment, stdio

from fastn_mcp.channels.elicitation import link_in_result
from fastn_mcp.guard.approval_form import PendingApproval


@asynccontextmanager
async def served(env: dict[str, str], folder: Path, era: str, person: Person) -> AsyncGenerator[Client]:
    """A client of a server whose policy wants deletions approved outside of the client."""
    policy = policy_file(folder, '[defaults]\ndestroy = "out_of_band"\n')
    async with Client(stdio(env, "--policy", str(policy)), mode=ERAS[era], elicitation_callback=person) as client:
        yield client


@pytest.mark.parametrize(("era", "action"), [*zip(ERAS, ["accept", "decline"], strict=True)])
async def test_person_decides_on_the_opened_page(upstream: Upstream, tmp_path: Path, era: str, action: str) -> None:
    env = environment(upstream) | {"BROWSER": "false", "FASTN_APPROVAL_WAIT_SECONDS": "45"}

    async def decide() -> str:
        await approve_all(env)
        return action

    person = Person(approving, at_link=decide)
    async with served(env, tmp_path, era, person) as client:
        target = await globex(client)
        answer = body(await client.call_tool("delete_customer", {"customer_id": target["id"]}))
    assert answer["done"] == "delete_customer"
    assert upstream.changes() == [f"DELETE /api/v1/customers/{target['id']}"]
    (link,) = person.led
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", link.url)
    assert link.message.startswith('Delete customer "Globex Exports".')
    assert link.message.endswith("\nDecide on the approval page, then come back here. Opening it approves nothing.")
    assert person.asked == []


@each_era
async def test_answer_to_the_link_approves_nothing(upstream: Upstream, tmp_path: Path, era: str) -> None:
    env = environment(upstream) | {"BROWSER": "false", "FASTN_APPROVAL_WAIT_SECONDS": "1"}

    async def accept() -> str:
        return "accept"

    person = Person(approving, at_link=accept)
    async with served(env, tmp_path, era, person) as client:
        target = await globex(client)
        for _ in range(2):
            answer = body(await client.call_tool("delete_customer", {"customer_id": target["id"]}))
            assert answer["status"] == "approval_required"
    assert len(person.led) == 2
    assert upstream.changes() == []


async def test_link_that_ends_the_call_comes_before_the_wait() -> None:
    """MCP 2026-07-28: the client cannot show it until the call has returned."""

    async def wait() -> bool:
        raise AssertionError("it waits")

    preview: Any = None
    assert await link_in_result(PendingApproval("g", preview, "there", 0.0, "https://page.example/"), wait) is False
