"""`query` by a real client, over both transports, and what else the server does during its worst statement."""

import re
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import anyio
import httpx2
import pytest
from mcp import Client
from support.local_page import globex, recording_browser
from support.page_visitor import Visitor, posted_by
from support.ports import free_port
from support.server_process import (
    TLS,
    Connect,
    Upstream,
    body,
    each_transport_and_era,
    environment,
    over_http,
    running,
)
from support.statements import COSTLY

WORST = "with recursive t(x) as (select 1 union all select x + 1 from t) select count(*) from t"


@each_transport_and_era
async def test_statement_is_answered_and_the_worst_one_is_stopped(
    transport: str, era: str, connect: Connect, upstream: Upstream
) -> None:
    async with connect(transport, era) as client:
        customer = (await globex(client))["id"]
        answer = body(
            await client.call_tool("query", {"sql": "select id from customers where name = 'Globex Exports'"})
        )
        assert answer["data"]["rows"] == [[customer]]
        assert answer["untrusted"]
        exported = body(await client.call_tool("query", {"sql": "select name from customers", "csv": True}))
        if transport == "stdio":
            assert "Globex Exports" in await anyio.Path(exported["data"]["file"]).read_text()
        else:
            assert exported["outcome"] == "not_sent"
        before = len(upstream.requests())
        began = time.monotonic()
        stopped = body(await client.call_tool("query", {"sql": WORST}))
        assert time.monotonic() - began < 5
        assert "longer than 2 seconds" in stopped["message"]
        assert len(upstream.requests()) == before
    assert not upstream.changes()


async def slowest(ask: Callable[[], Awaitable[httpx2.Response]], times: int) -> float:
    """Return the seconds that the slowest of some answers takes."""
    most = 0.0
    for _ in range(times):
        began = time.monotonic()
        assert (await ask()).is_success
        most = max(most, time.monotonic() - began)
    return most


@pytest.mark.long
async def test_health_and_stop_answer_within_200_ms_during_the_worst_statements(
    upstream: Upstream, tmp_path: Path
) -> None:
    """Beside what the same takes before: other tests may run on the machine. Of two statements, one runs at a time."""
    browser, opened = recording_browser(tmp_path)
    port = free_port()
    host = f"http://127.0.0.1:{port}"
    async with AsyncExitStack() as stack:
        stack.enter_context(
            running("--http", f"127.0.0.1:{port}", port=port, env=environment(upstream) | {"BROWSER": browser})
        )
        client = await stack.enter_async_context(Client(over_http(f"{host}/mcp"), mode="2026-07-28"))
        http = await stack.enter_async_context(httpx2.AsyncClient(verify=TLS, timeout=30))
        target = await globex(client)
        await client.call_tool("delete_customer", {"customer_id": target["id"]})
        visitor = await entered_page(http, opened.read_text().strip())

        async def health() -> httpx2.Response:
            return await http.get(f"{host}/healthz")

        async def stop_page() -> httpx2.Response:
            return await http.get(f"{visitor.origin}{visitor.room}stop")

        before = max(await slowest(health, 50), await slowest(stop_page, 10))
        for statement in COSTLY:
            during = 0.0
            async with anyio.create_task_group() as group:
                for _ in range(2):
                    group.start_soon(client.call_tool, "query", {"sql": statement})
                during = max(await slowest(health, 50), await slowest(stop_page, 10))
            assert during < before + 0.2, statement
        form = await visitor.form("stop", place="stop")
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "query", {"sql": WORST})
            await anyio.sleep(0.5)
            began = time.monotonic()
            assert (await visitor.send("stop", form)).status_code == 303
            assert time.monotonic() - began < before + 0.2
        assert body(await client.call_tool("create_customer", {"name": "Initech"}))["outcome"] == "stopped"
    assert not upstream.changes()


async def entered_page(http: httpx2.AsyncClient, address: str) -> Visitor:
    """Return a person who entered the approval page by the key file that their browser was given."""
    page_url, keys = posted_by(address)
    entered = await http.post(page_url, data=keys, headers={"Origin": "null"})
    url = entered.url.join(re.findall(r"url=([^\"]+)", entered.text)[0])
    origin = f"{url.scheme}://{url.netloc.decode()}"
    http.base_url = httpx2.URL(origin)
    return Visitor(http, origin, room=url.path)
