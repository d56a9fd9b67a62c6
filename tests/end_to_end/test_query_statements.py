"""`query` by a real client, over both transports, and what else the server does during its worst statement."""

import time

import anyio
import httpx2
from support.local_page import globex
from support.server_process import Connect, Upstream, body, each_transport_and_era

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
        before = len(upstream.requests())
        began = time.monotonic()
        stopped = body(await client.call_tool("query", {"sql": WORST}))
        assert time.monotonic() - began < 5
        assert "longer than 2 seconds" in stopped["message"]
        assert len(upstream.requests()) == before
    assert not upstream.changes()


async def test_health_is_answered_during_the_worst_statements(connect: Connect, http_server: str) -> None:
    """Of two at once, one runs at a time."""
    health = http_server.removesuffix("/mcp") + "/healthz"
    slowest = 0.0
    async with (
        connect("http", "2026-07-28") as client,
        httpx2.AsyncClient() as http,
        anyio.create_task_group() as group,
    ):

        async def ask() -> None:
            await client.call_tool("query", {"sql": WORST})

        async def check() -> None:
            nonlocal slowest
            for _ in range(100):
                began = time.monotonic()
                assert (await http.get(health)).status_code == 200
                slowest = max(slowest, time.monotonic() - began)

        group.start_soon(ask)
        group.start_soon(ask)
        group.start_soon(check)
    assert slowest < 0.5  # 0.2 s is wanted; a machine that runs other tests beside this one takes longer
