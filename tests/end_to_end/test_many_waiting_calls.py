"""64 calls that wait for people: others go on beside them, and they end with their client or their server."""

import json
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from support.local_page import approve_all
from support.ports import free_port
from support.raw_client import ended, message, serving
from support.server_process import Upstream, body, environment, over_http, running, stdio

from fastn_mcp.ledger.ledger import MAX_WAITING

CALLS = 2 * MAX_WAITING
"""Each request is waited for by two calls: more cannot be open."""

WAITING = "Waiting for a person to decide"


def secret(number: int) -> dict[str, Any]:
    return {"name": f"TOKEN_{number % MAX_WAITING}", "value": "of no use"}


def cancelled(number: int) -> bytes:
    body = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}
    return json.dumps(body).encode()


def patient(upstream: Upstream) -> dict[str, str]:
    return environment(upstream) | {"BROWSER": "true", "FASTN_APPROVAL_WAIT_SECONDS": "55"}


@asynccontextmanager
async def waiting_calls(client: Client) -> AsyncGenerator[list[dict[str, Any]]]:
    """Yield once all calls wait, with their results so far. They are cancelled at the end."""
    results: list[dict[str, Any]] = []
    wait, all_wait = set[int](), anyio.Event()
    async with anyio.create_task_group() as tasks:

        async def call(number: int) -> None:
            async def progress(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001
                if str(message).startswith(WAITING):
                    wait.add(number)
                if len(wait) == CALLS:
                    all_wait.set()

            results.append(body(await client.call_tool("create_secret", secret(number), progress_callback=progress)))

        for number in range(CALLS):
            tasks.start_soon(call, number)
        with anyio.fail_after(50):
            await all_wait.wait()
        yield results
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def served(env: dict[str, str], transport: str) -> AsyncGenerator[tuple[Client, Callable[[], bool]]]:
    """A client, and whether the server knows of every call that it has left: over HTTP it closes their connections."""
    if transport == "stdio":
        async with Client(stdio(env)) as client:
            yield client, lambda: True  # it reads what was cancelled before the next call
        return
    port = free_port()
    with running("--http", f"127.0.0.1:{port}", port=port, env=env):
        async with Client(over_http(f"http://127.0.0.1:{port}/mcp")) as client:
            yield client, lambda: connections(port) <= 2  # those that the client keeps


def connections(port: int) -> int:
    """Count the connections that a server at this port has not closed."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return len([row for row in rows if row[1].endswith(f":{port:04X}") and row[3] in ("01", "08")])


@pytest.mark.skipif(sys.platform != "linux", reason="connections are counted in /proc")
@pytest.mark.parametrize("transport", [pytest.param("stdio", marks=pytest.mark.long), "http"])
async def test_waiting_calls_block_no_other_call(upstream: Upstream, transport: str) -> None:
    env = patient(upstream)
    async with served(env, transport) as (client, has_left):
        async with waiting_calls(client) as results:
            for _ in range(MAX_WAITING):
                assert body(await client.call_tool("list_customers", {"limit": 1}))["data"]
            assert results == []
        with anyio.fail_after(30):
            while not has_left():  # noqa: ASYNC110 - another process closes them
                await anyio.sleep(0.01)
        assert body(await client.call_tool("list_customers", {"limit": 1}))["data"]
        assert await approve_all(env) == MAX_WAITING
        assert body(await client.call_tool("list_customers", {"limit": 1}))["data"]
        assert (results, upstream.changes()) == ([], [])
        done = [body(await client.call_tool("create_secret", secret(number)))["done"] for number in range(MAX_WAITING)]
    assert done == ["create_secret"] * MAX_WAITING
    assert upstream.changes() == ["POST /api/v1/secrets"] * MAX_WAITING


async def test_shutdown_answers_all_waiting_calls(upstream: Upstream) -> None:
    env, port = patient(upstream), free_port()
    with running("--http", f"127.0.0.1:{port}", port=port, env=env) as process:
        async with Client(over_http(f"http://127.0.0.1:{port}/mcp"), mode="2026-07-28") as client:
            await client.list_tools()  # by which it checks results, and which a server that stops would not answer
            async with waiting_calls(client) as results:
                process.send_signal(signal.SIGTERM)
                with anyio.fail_after(20):
                    while len(results) < CALLS:  # noqa: ASYNC110 - the last result is no event
                        await anyio.sleep(0.01)
        assert ended(process) == 0
    assert [result["status"] for result in results] == ["approval_required"] * CALLS
    assert await approve_all(env) == MAX_WAITING
    assert upstream.changes() == []


@pytest.mark.parametrize("ending", ["cancelled", "end of input", "SIGTERM"])
async def test_process_exits_with_waiting_calls(upstream: Upstream, ending: str) -> None:
    env = patient(upstream)
    with serving(env) as server:
        for number in range(CALLS):
            meta = {"progressToken": number}
            call = {"name": "create_secret", "arguments": secret(number), "_meta": meta}
            server.send(message(number, "tools/call", **call))
        wait = set[int]()
        while len(wait) < CALLS:
            progress = server.heard()["params"]
            if str(progress["message"]).startswith(WAITING):
                wait.add(progress["progressToken"])
        if ending == "cancelled":
            server.send(*map(cancelled, range(CALLS)))
        if ending == "SIGTERM":
            server.process.send_signal(signal.SIGTERM)
        else:
            server.close()
        assert ended(server.process) == 0
        answers = [line["result"]["structuredContent"]["status"] for line in server.rest() if "result" in line]
    assert answers == (["approval_required"] * CALLS if ending == "end of input" else [])
    assert await approve_all(env) == MAX_WAITING
    assert upstream.changes() == []
