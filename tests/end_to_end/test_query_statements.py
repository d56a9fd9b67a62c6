"""`query` by a real client, over both transports, and what else the server does during its worst statement."""

import time
from typing import Any

import anyio
import httpx2
from support.local_page import globex
from support.server_process import Connect, Upstream, body, each_transport_and_era, environment, served

WORST = "with recursive t(x) as (select 1 union all select x + 1 from t) select count(*) from t"


@each_transport_and_era
async def test_statement_is_answered_and_the_worst_one_is_stopped(
    transport: str, era: str, connect: Connect, upstream: Upstream
) -> None:
    async with connect(transport, era) as client:
        customer = (await globex(client))["id"]
        answer = body(await client.call_tool("query", {"sql": "select id from customers where name = 'Globex Exports'"}))
        assert answer["data"]["rows"] == [[customer]]
        assert answer["untrusted"]
        before = len(upstream.requests())
        began = time.monotonic()
        stopped = body(await client.call_tool("query", {"sql": WORST}))
        assert time.monotonic() - began < 5
        assert "longer than 2 seconds" in stopped["message"]
        assert len(upstream.requests()) == before
    assert not upstream.changes()
