"""Calls of clients without forms that wait while a person decides elsewhere, and then go on by themselves."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from support.local_page import approve, globex, recording_browser
from support.server_process import ERAS, Upstream, body, environment, served
from support.terminal import sitting

pytestmark = pytest.mark.anyio


async def with_person(client: Client, decide: Callable[[], Awaitable[None]]) -> dict[str, Any]:
    """Return the result of one deletion, while a person decides about it."""
    answers: list[dict[str, Any]] = []
    target = await globex(client)

    async def delete() -> None:
        result = await client.call_tool("delete_customer", {"customer_id": target["id"]})
        answers.append(body(result))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(delete)
        await decide()
    return answers[0]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_waiting_call_is_approved_at_the_terminal(
    upstream: Upstream, tmp_path: Path, transport: str, era: str
) -> None:
    env = environment(upstream) | {"BROWSER": recording_browser(tmp_path)[0], "FASTN_APPROVAL_WAIT_SECONDS": "45"}

    def at_the_terminal() -> None:
        with sitting(["-m", "fastn_mcp", "approvals"], env) as person:
            person.sees("Globex Exports")
            person.types("Globex Exports\n")
            person.sees("Approved")

    async def decide() -> None:
        await anyio.sleep(1)
        await anyio.to_thread.run_sync(at_the_terminal)

    async with served(env, transport, era) as client:
        assert (await with_person(client, decide))["done"] == "delete_customer"
    assert [change.partition(" ")[0] for change in upstream.changes()] == ["DELETE"]


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_request_of_a_cancelled_call_can_be_approved(upstream: Upstream, tmp_path: Path, transport: str) -> None:
    env = environment(upstream) | {"BROWSER": recording_browser(tmp_path)[0], "FASTN_APPROVAL_WAIT_SECONDS": "45"}
    async with served(env, transport, "2026-07-28") as client:
        target = await globex(client)
        with anyio.move_on_after(2):
            await client.call_tool("delete_customer", {"customer_id": target["id"]})
        await anyio.to_thread.run_sync(approve, env)
        assert upstream.changes() == []
        answer = body(await client.call_tool("delete_customer", {"customer_id": target["id"]}))
        assert answer["done"] == "delete_customer"
    assert len(upstream.changes()) == 1


async def test_undecided_call_returns_the_next_step(upstream: Upstream, tmp_path: Path) -> None:
    env = environment(upstream) | {"BROWSER": recording_browser(tmp_path)[0], "FASTN_APPROVAL_WAIT_SECONDS": "1"}
    async with served(env, "stdio", "2026-07-28") as client:
        target = await globex(client)
        answer = body(await client.call_tool("delete_customer", {"customer_id": target["id"]}))
    assert answer["status"] == "approval_required"
    assert answer["message"].startswith("Nothing was sent. A person has to approve this call. ")
    assert answer["retry_after_seconds"] == 60
    assert answer["next"].startswith("Tell the person. Do not poll")
    assert upstream.changes() == []
