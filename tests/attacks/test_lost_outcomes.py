"""A call with an unknown outcome is not repeated without approval: a real client, and a Fastn that counts requests."""

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from support.audit_entries import entries
from support.forkserver import forked
from support.policy_files import ALLOWS, policy_file
from support.ports import free_port
from support.raw_client import HTTP_HEADERS, META, Server, introducing, message, started
from support.server_process import (
    BEARER,
    ERAS,
    HTTP_TOKEN,
    TLS,
    Person,
    Upstream,
    approving,
    body,
    environment,
    over_http,
    running,
    stdio,
)
from support.team_world import MODERN, modern

each_version = pytest.mark.parametrize("version", [pytest.param("2025-11-25", marks=pytest.mark.long), "2026-07-28"])

CREATE = {"name": "Initech"}
HANG = {"kind": "hang", "method": "POST", "path": "*", "moment": "after"}
MAY_HAVE_HAPPENED = "it may have happened"


def calling(version: str, **meta: Any) -> bytes:
    meta |= META if version == MODERN else {}
    return message(2, "tools/call", name="create_customer", arguments=CREATE, **({"_meta": meta} if meta else {}))


def beginning(version: str) -> tuple[bytes, ...]:
    """Return the messages of a client before its first call."""
    return () if version == MODERN else introducing(version)


@pytest.fixture
def hanging(upstream: Upstream) -> Upstream:
    """Make it apply the next change without answering."""
    upstream.fault(**HANG)
    return upstream


async def check_repetition_needs_approval(client: Client, upstream: Upstream) -> None:
    """Check that the same call again needs an approval that names the possible effect, and sends nothing."""
    again = body(await client.call_tool("create_customer", CREATE))
    assert again["outcome"] == "approval_required"
    assert MAY_HAVE_HAPPENED in json.dumps(again)
    assert upstream.changes() == ["POST /api/v1/customers"]


async def until_sent(upstream: Upstream) -> None:
    with anyio.fail_after(30):
        while not await anyio.to_thread.run_sync(upstream.changes):
            await anyio.lowlevel.checkpoint()


@pytest.mark.parametrize("milliseconds", [0, pytest.param(20, marks=pytest.mark.long)])
@pytest.mark.parametrize("era", ERAS)
async def test_cancelled_call_needs_approval_to_be_repeated(era: str, milliseconds: int, hanging: Upstream) -> None:
    async with Client(stdio(environment(hanging)), mode=ERAS[era]) as client:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.call_tool, "create_customer", CREATE)
            await until_sent(hanging)
            with anyio.move_on_after(milliseconds / 1000):
                await anyio.sleep_forever()
            tasks.cancel_scope.cancel()
        await check_repetition_needs_approval(client, hanging)


@each_version
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1], ids=["stopped", "killed"])
async def test_repeating_a_call_of_an_ended_process_is_asked(
    number: signal.Signals, version: str, hanging: Upstream
) -> None:
    env = environment(hanging)
    with started(env=env, command=forked()) as process:
        Server(process).send(*beginning(version), calling(version))
        await until_sent(hanging)
        process.send_signal(number)
        process.wait(20)
    async with Client(stdio(env), mode=ERAS[version]) as client:
        await check_repetition_needs_approval(client, hanging)


async def check_repetition_names_the_change(client: Client, upstream: Upstream) -> None:
    """Check that the same call again needs an approval that names the applied change, and sends nothing."""
    again = body(await client.call_tool("create_customer", CREATE))
    assert again["outcome"] == "approval_required"
    assert re.search(r"was done \(chg_\S+, \S+\); you may not have received the response", json.dumps(again))
    assert upstream.changes() == ["POST /api/v1/customers"]


@each_version
async def test_response_lost_by_a_closed_connection_needs_approval(version: str, upstream: Upstream) -> None:
    env, port, sent = environment(upstream), free_port(), calling(version)
    modern = "Mcp-Method: tools/call\r\nMcp-Name: create_customer\r\n" if version == MODERN else ""
    with running("--http", f"127.0.0.1:{port}", port=port, env=env):
        with socket.create_connection(("127.0.0.1", port), 20) as connection:
            head = (
                f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {HTTP_TOKEN}\r\n{modern}"
                f"MCP-Protocol-Version: {version}\r\nAccept: application/json, text/event-stream\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
            )
            connection.sendall(head.encode() + sent)
            assert connection.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200"
        async with Client(over_http(f"http://127.0.0.1:{port}/mcp"), mode=ERAS[version]) as client:
            await check_repetition_names_the_change(client, upstream)


@pytest.mark.parametrize("streams", [False, True], ids=["in one piece", "as a stream"])
@each_version
async def test_call_that_timed_out_in_the_http_client_needs_approval(
    version: str, streams: bool, hanging: Upstream
) -> None:
    """The call ends with the connection, and the audit log says what may have happened."""
    # progress, which is asked for, makes the response a stream
    env, port, sent = environment(hanging), free_port(), calling(version, **({"progressToken": 1} if streams else {}))
    headers = BEARER | HTTP_HEADERS
    headers |= modern("create_customer") if version == MODERN else {"MCP-Protocol-Version": version}
    with running("--http", f"127.0.0.1:{port}", port=port, env=env):
        url = f"http://127.0.0.1:{port}/mcp"
        async with httpx2.AsyncClient(verify=TLS) as impatient, anyio.create_task_group() as tasks:
            tasks.start_soon(partial(impatient.post, url, headers=headers, content=sent, timeout=60))
            await until_sent(hanging)
            tasks.cancel_scope.cancel()
        recorded: list[Any] = []
        with anyio.fail_after(30):
            while len(recorded) < 2:
                await anyio.sleep(0.01)
                recorded = [(line["event"], line.get("outcome")) for line in entries(log_of(env))]
        assert recorded == [("intent", None), ("outcome", "unknown_outcome")]
        async with Client(over_http(url), mode=ERAS[version]) as client:
            await check_repetition_needs_approval(client, hanging)


def log_of(env: dict[str, str]) -> Path:
    return Path(env["FASTN_STATE_DIR"]) / "audit.jsonl"


@pytest.mark.parametrize("cancels", [True, False], ids=["cancelled", "closed"])
@each_version
async def test_response_not_read_from_the_pipe_needs_approval(version: str, cancels: bool, upstream: Upstream) -> None:
    env, first = environment(upstream), beginning(version)
    cancel = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":2}}'
    with started(env=env, command=forked()) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        client = Server(process)
        if first:
            client.send(*first)
            process.stdout.readline()
        client.send(calling(version))
        assert select.select([process.stdout], [], [], 30)[0]
        if cancels:
            client.send(cancel)
            process.stdout.readline()
        process.stdin.close()
        process.stdout.close()
        process.wait(20)
    async with Client(stdio(env), mode=ERAS[version]) as client:
        await check_repetition_names_the_change(client, upstream)


@each_version
async def test_call_with_a_received_response_is_repeated_without_approval(
    version: str, upstream: Upstream, tmp_path: Path
) -> None:
    env = environment(upstream) | {"FASTN_POLICY": str(policy_file(tmp_path, ALLOWS))}
    port = free_port()
    with running("--http", f"127.0.0.1:{port}", port=port, env=env):
        for _ in range(2):
            async with Client(over_http(f"http://127.0.0.1:{port}/mcp"), mode=ERAS[version]) as client:
                for _ in range(2):
                    assert not (await client.call_tool("ai_chat", {"message": "Hello"})).is_error
    assert upstream.changes() == ["POST /api/v1/ai/chat"] * 4
    upstream.reset()
    for _ in range(2):
        async with Client(stdio(env), mode=ERAS[version]) as client:
            assert not (await client.call_tool("ai_chat", {"message": "Hello"})).is_error
    assert upstream.changes() == ["POST /api/v1/ai/chat"] * 2


STRACE = shutil.which("strace")


def can_trace() -> bool:
    if STRACE is None:
        return False
    return subprocess.run([STRACE, "-o", os.devnull, "true"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_trace() and not os.environ.get("CI"), reason="strace cannot trace here (apt-get: strace)")
async def test_intent_is_on_disk_before_the_request(upstream: Upstream, tmp_path: Path) -> None:
    """Of a call that the policy allows, and of one that a person approves, whose approval is used up before."""
    assert can_trace(), "strace cannot trace, and .ci/run installs it"
    assert STRACE is not None
    id_ = upstream.ask("GET", "customers")[0]["id"]
    requests = ["POST /api/v1/customers", f"DELETE /api/v1/customers/{id_}"]
    trace, env = tmp_path / "trace", environment(upstream)
    calls = "trace=fsync,fdatasync,write,pwrite64,sendto,sendmsg,writev"
    flags = ["-f", "-y", "-s", "8192", "-e", calls, "-o", str(trace), sys.executable, "-m", "fastn_mcp"]
    traced = StdioServerParameters(command=STRACE, args=flags, env=env)
    async with Client(traced, mode=ERAS["2026-07-28"], elicitation_callback=Person(approving)) as client:
        assert not (await client.call_tool("create_customer", CREATE)).is_error
        assert not (await client.call_tool("delete_customer", {"customer_id": id_})).is_error
    assert upstream.changes() == requests
    lines = trace.read_text(errors="replace").splitlines()
    state = re.escape(env["FASTN_STATE_DIR"])

    def first(pattern: str, after: int = -1) -> int:
        return next(n for n, line in enumerate(lines) if n > after and re.search(pattern, line))

    logs = rf"f(?:data)?sync\(\d+<{state}/ledger\.sqlite-wal>"

    def check_order(request: str, after: int) -> int:
        written = first(rf"write\(\d+<{state}/audit\.jsonl>.*\\\"event\\\":\s?\\\"intent", after)
        synced = first(rf"f(?:data)?sync\(\d+<{state}/audit\.jsonl>", written)
        sent = first(re.escape(request), after)
        assert first(logs, after) < synced < sent
        return sent

    pages = rf"pwrite64\(\d+<{state}/ledger\.sqlite-wal>"
    created = check_order(requests[0], first(pages + r".*\\\"outcome\\\":\\\"begun"))
    # The change of the deletion is begun in the write that marks the approval as used.
    used = first(pages + r".*\\\"state\\\":\\\"used", created)
    check_order(requests[1], used)
