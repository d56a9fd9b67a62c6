"""Two servers with two state folders and one Valkey: one finishes what the other began, once."""

import os
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.types import CallToolResult, ElicitResult, InputRequiredResult
from support.command_line import run_command
from support.ports import free_port
from support.server_process import READING, Person, Upstream, approving, at_once, body, environment, over_http, running
from support.valkey_server import ValkeyServer

pytestmark = [pytest.mark.long, pytest.mark.anyio]

SECRET = "a-secret-of-more-than-32-characters"
MODERN = "2026-07-28"


@dataclass(frozen=True)
class Fleet:
    """Servers that share a ledger, and the environment of a command on it."""

    urls: list[str]
    env: dict[str, str]


@pytest.fixture
def fleet(upstream: Upstream, valkey: ValkeyServer) -> Generator[Fleet]:
    """Run two servers that share the state secret, and a third with another secret."""
    shared = {"FASTN_LEDGER": valkey.url(), "FASTN_STATE_SECRET": SECRET, "BROWSER": "true"}
    others = {"FASTN_STATE_SECRET": f"{SECRET[::-1]}"}
    with ExitStack() as stack:
        urls: list[str] = []
        for own in ({}, {"FASTN_STATE_SECRET": f"{SECRET}-new,{SECRET}"}, others):
            port = free_port()
            env = environment(upstream) | shared | own
            stack.enter_context(running("--http", f"127.0.0.1:{port}", port=port, env=env))
            urls.append(f"http://127.0.0.1:{port}/mcp")
        yield Fleet(urls, environment(upstream) | shared)


async def _customer(client: Client) -> dict[str, Any]:
    return body(await client.call_tool("list_customers", {"search": "Globex Exports"}))["data"][0]


async def test_form_of_one_server_is_answered_at_another_once(fleet: Fleet, upstream: Upstream) -> None:
    """MCP 2026-07-28: the round trip of a form. The second has an additional newer secret, the third only another."""
    async with (
        Client(over_http(fleet.urls[0]), mode=MODERN, elicitation_callback=Person(approving)) as one,
        Client(over_http(fleet.urls[1]), mode=MODERN, elicitation_callback=Person(approving)) as two,
        Client(over_http(fleet.urls[2]), mode=MODERN, elicitation_callback=Person(approving)) as stranger,
    ):
        target = await _customer(one)
        deletion = {"customer_id": target["id"]}
        asked = await one.session.call_tool("delete_customer", deletion, allow_input_required=True)
        assert isinstance(asked, InputRequiredResult)

        async def reply(client: Client) -> CallToolResult:
            return await client.session.call_tool(
                "delete_customer",
                deletion,
                input_responses={"approval": ElicitResult(action="accept", content={"name": target["name"]})},
                request_state=asked.request_state,
            )

        with pytest.raises(MCPError, match="Invalid or expired requestState"):
            await reply(stranger)
        assert upstream.changes() == []
        await anyio.sleep(READING)
        answers = await at_once(*(partial(reply, client) for client in (two, one, two)))
    assert sum("done" in answer for answer in answers) == 1
    assert upstream.changes() == [f"DELETE /api/v1/customers/{target['id']}"]


def test_shared_ledger_requires_a_state_secret(upstream: Upstream, valkey: ValkeyServer) -> None:
    """Fail closed. Without a shared secret a form would be lost at another replica."""
    env = {**os.environ, **environment(upstream), "FASTN_LEDGER": valkey.url().replace("//", "//user:canary@")}
    started = run_command(["--http", f"127.0.0.1:{free_port()}"], env)
    assert started.returncode == 2
    assert started.stderr == (
        "fastn-mcp: The ledger is shared but state_secret is not set: no other replica could continue an approval "
        "request."
        " Set FASTN_STATE_SECRET to the same 32 characters or more on each.\n"
    )
