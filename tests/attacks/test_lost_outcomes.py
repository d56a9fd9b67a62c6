"""A call whose outcome is not known is not made again unasked: by a real client, and a Fastn that counts requests."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx2
import pytest
from driving import ERAS, Upstream, body, environment, free_port, running
from mcp import Client, StdioServerParameters

pytestmark = pytest.mark.anyio

CREATE = {"name": "Initech"}
HANG = {"kind": "hang", "method": "POST", "path": "*", "moment": "after"}
MAY_HAVE_HAPPENED = "it may have happened"


@pytest.fixture(scope="module")
def fastn() -> Generator[Upstream]:
    port = free_port()
    with running("sandbox", "--port", str(port), port=port):
        yield Upstream(f"http://127.0.0.1:{port}")


@pytest.fixture
def hanging(fastn: Upstream) -> Upstream:
    """It does what it is asked, and does not answer the next request that changes something."""
    fastn.reset()
    httpx2.post(f"{fastn.url}/__sandbox/faults", json=HANG).raise_for_status()
    return fastn


def server(env: dict[str, str]) -> StdioServerParameters:
    return StdioServerParameters(command=sys.executable, args=["-m", "fastn_mcp"], env=env)


async def asked(client: Client, upstream: Upstream) -> None:
    """The same call again is a question that says what may have happened, and nothing is sent."""
    again = body(await client.call_tool("create_customer", CREATE))
    assert again["outcome"] == "approval_required"
    assert MAY_HAVE_HAPPENED in json.dumps(again)
    assert upstream.changes() == ["POST /api/v1/customers"]


async def until_sent(upstream: Upstream) -> None:
    with anyio.fail_after(30):
        while not await anyio.to_thread.run_sync(upstream.changes):
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("milliseconds", [0, 20])
@pytest.mark.parametrize("era", ERAS)
async def test_a_cancelled_call_is_asked_about_before_it_is_made_again(
    era: str, milliseconds: int, hanging: Upstream
) -> None:
    """Ours: the client cancels what is under way, and calls the same at once."""
    async with Client(server(environment(hanging)), mode=ERAS[era]) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "create_customer", CREATE)
            await until_sent(hanging)
            with anyio.move_on_after(milliseconds / 1000):
                await anyio.sleep_forever()
            tasks.cancel_scope.cancel()
        await asked(client, hanging)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
async def test_a_call_of_a_process_that_ended_is_asked_about_before_it_is_made_again(
    number: signal.Signals, hanging: Upstream
) -> None:
    """Ours: the process ends while the answer is awaited, and the client starts another."""
    env = environment(hanging)
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    messages: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": {"name": "create_customer", "arguments": CREATE}},
    ]
    with subprocess.Popen(  # noqa: ASYNC220 - it is to be killed by a signal
        [sys.executable, "-m", "fastn_mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **env}
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"".join(json.dumps({"jsonrpc": "2.0", **m}).encode() + b"\n" for m in messages))
        process.stdin.flush()
        await until_sent(hanging)
        process.send_signal(number)
        process.wait(20)
    async with Client(server(env), mode=ERAS["2026-07-28"]) as client:
        await asked(client, hanging)


STRACE = shutil.which("strace")


def can_trace() -> bool:
    if STRACE is None:
        return False
    return subprocess.run([STRACE, "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_trace() and not os.environ.get("CI"), reason="strace cannot trace here (apt-get: strace)")
async def test_the_intent_is_on_disk_before_the_request_leaves(fastn: Upstream, tmp_path: Path) -> None:
    """Ours: the ledger's write-ahead log, then the audit log, then the request, by the system calls of the server."""
    assert can_trace(), "strace cannot trace, and .ci/run installs it"
    assert STRACE is not None
    fastn.reset()
    trace, env = tmp_path / "trace", environment(fastn)
    calls = "trace=fsync,fdatasync,write,pwrite64,sendto,sendmsg,writev"
    arguments = ["-f", "-y", "-s", "64", "-e", calls, "-o", str(trace), sys.executable, "-m", "fastn_mcp"]
    traced = StdioServerParameters(command=STRACE, args=arguments, env=env)
    async with Client(traced, mode=ERAS["2026-07-28"]) as client:
        assert not (await client.call_tool("create_customer", CREATE)).is_error
    lines = trace.read_text(errors="replace").splitlines()
    sent = next(n for n, line in enumerate(lines) if "POST /api/v1/customers" in line)
    state = re.escape(env["FASTN_STATE_DIR"])
    synced = [n for n, line in enumerate(lines) if re.search(rf"f(data)?sync\(\d+<{state}/audit\.jsonl>", line)]
    logged = [n for n, line in enumerate(lines) if re.search(rf"f(data)?sync\(\d+<{state}/ledger\.sqlite-wal>", line)]
    assert [n for n in synced if n < sent], "the intent is not on disk when the request leaves"
    assert [n for n in logged if n < synced[0]], "the ledger is not on disk when the intent is written"
