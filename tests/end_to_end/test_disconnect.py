"""A client that disconnects during a call over HTTP: the call ends, and the audit log says what may have happened."""

import time
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from mcp import Client
from support.audit_entries import entries
from support.ports import free_port
from support.server_process import ERAS, Upstream, environment, over_http, running

pytestmark = pytest.mark.anyio

HANG = {"kind": "hang", "method": "POST", "path": "*", "moment": "after"}


async def unheard(*_: Any) -> None:
    """Ignore progress. Asking for it makes the response a stream."""


async def leave_once_it_is_under_way(era: str, server: str, progress: Any, upstream: Upstream) -> None:
    async with Client(over_http(server), mode=ERAS[era]) as client, anyio.create_task_group() as tasks:

        async def call() -> None:
            await client.call_tool("create_customer", {"name": "Initech"}, progress_callback=progress)

        tasks.start_soon(call)
        with anyio.fail_after(20):
            while not await anyio.to_thread.run_sync(upstream.changes):
                pass
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("progress", [None, unheard], ids=["in one piece", "as a stream"])
@pytest.mark.parametrize("era", ERAS)
async def test_disconnect_ends_the_call_as_unknown(era: str, progress: Any, upstream: Upstream) -> None:
    env, port = environment(upstream), free_port()
    with running("--http", f"127.0.0.1:{port}", port=port, env=env):
        upstream.fault(**HANG)
        began = time.monotonic()
        await leave_once_it_is_under_way(era, f"http://127.0.0.1:{port}/mcp", progress, upstream)
        audit, recorded = Path(env["FASTN_STATE_DIR"]) / "audit.jsonl", list[Any]()
        while len(recorded) < 2:
            recorded = [(line["event"], line.get("outcome")) for line in entries(audit)]
            assert time.monotonic() - began < 30
    assert recorded == [("intent", None), ("outcome", "unknown_outcome")]
    assert upstream.changes() == ["POST /api/v1/customers"]
