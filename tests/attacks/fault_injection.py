"""Kill the server, cancel calls and close connections at random moments, then make the same calls again.

Covers every changing tool, by a real client, over stdio and HTTP, in both protocol versions, with SQLite and a real
Valkey as the ledger, against an upstream that counts. No `POST` whose response the client did not receive may reach the
upstream a second time, as nobody approves it. Updates and deletions are idempotent and are only counted.

`make faults`, or `make faults COUNT=20 ARGS="--seed 7"`.
"""

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import anyio  # noqa: E402
import httpx2  # noqa: E402
from mcp import Client, StdioServerParameters, stdio_client  # noqa: E402
from mcp.client.streamable_http import streamable_http_client  # noqa: E402
from mcp.shared.message import SessionMessage  # noqa: E402
from mcp.types import ElicitResult, jsonrpc_message_adapter  # noqa: E402
from starlette.requests import Request  # noqa: E402
from starlette.responses import JSONResponse, Response  # noqa: E402
from starlette.types import Receive, Scope, Send  # noqa: E402
from support.direct_sandbox import Fastn  # noqa: E402
from support.faulty_sandbox import FaultySandbox  # noqa: E402
from support.identity_provider import listening as serving  # noqa: E402
from support.policy_files import ALLOWS, policy_file  # noqa: E402
from support.ports import free_port, listening  # noqa: E402
from support.sensible_calls import sensible  # noqa: E402
from support.server_process import BEARER, ERAS, HTTP_TOKEN, KEY, Person  # noqa: E402
from support.tcp_proxy import Proxy, proxied  # noqa: E402
from support.valkey_server import ValkeyServer  # noqa: E402

from fastn_mcp.extensions.sandbox.app import read_request  # noqa: E402
from fastn_mcp.tools.operation import Operation  # noqa: E402
from fastn_mcp.tools.tool import Effect  # noqa: E402

KINDS = ("killed", "cancelled", "dropped")
LEDGERS = ("sqlite", "valkey")
TRANSPORTS = ("stdio", "http")
PROGRAM = ("-m", "fastn_mcp")
WITH_LIBRARY = (str(HERE.parent / "support" / "library_transport.py"),)
"""The program with httpx2's own transport to Fastn."""
WITHIN = 0.03
"""Maximum seconds from a call, or from its arrival at the upstream, to the fault."""
SLOWEST = 0.02
"""Maximum seconds that the upstream takes to answer a change."""
POLICY = """
[budget]
destroy_rate = "500 per 1m"
[[rule]]
tool = ["create_*", "invite_user", "delete_*", "revoke_api_key", "run_workflow"]
then = "allow"
"""
"""Allows the first call of each tool without approval, so that a repetition needs one for a single reason."""


def seen(tool: str, wire: bytes) -> bool:
    """Whether these bytes hold the result of a tool."""
    return f'"done":"{tool}"'.encode() in wire


class Upstream:
    """A Fastn whose account never changes: the sandbox serves reads; changes are counted and answered later."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.fastn = Fastn(FaultySandbox(lambda: datetime.now(UTC)))
        self.counted: Counter[str] = Counter()

    async def hears(self, what: Callable[[Counter[str]], bool]) -> None:
        """Wait for a limited time until this is true."""
        for _ in range(3000):
            if what(self.counted):
                return
            await anyio.sleep(0.001)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = await read_request(Request(scope, receive))
        if request is None:
            return
        if request.method == "GET":
            reply = self.fastn.sandbox.answer(request)
            answer = Response(reply.body, reply.status, media_type="application/json")
        else:
            self.counted[f"{request.method} {request.path}"] += 1
            await anyio.sleep(self._chance.uniform(0, SLOWEST))
            sent: dict[str, Any] = json.loads(request.body or b"{}")
            answer = JSONResponse({"data": {"id": "made_1", "name": "Made", "status": "pending", **sent}})
        await answer(scope, receive, send)


@dataclass
class Wire:
    """Bytes that a client has read from its pipe or its connections, and a way to close them."""

    read: bytearray = field(default_factory=bytearray)
    proxy: Proxy | None = None
    pipes: "subprocess.Popen[bytes] | None" = None

    def drop(self) -> None:
        if self.proxy is not None:
            self.proxy.switch(self.proxy.target)
        pipes = () if self.pipes is None else (self.pipes.stdin, self.pipes.stdout)
        for pipe in pipes:
            if pipe is not None and not pipe.closed:
                anyio.notify_closing(pipe.fileno())
                with suppress(OSError):  # unwritten data is discarded
                    pipe.close()


@asynccontextmanager
async def by_http(wire: Wire, port: int) -> AsyncGenerator[Any]:
    headers = BEARER | {"host": f"127.0.0.1:{port}"}
    async with proxied(port) as wire.proxy, httpx2.AsyncClient(headers=headers, timeout=60) as http:
        wire.proxy.answers = wire.read
        async with streamable_http_client(f"http://127.0.0.1:{wire.proxy.port}/mcp", http_client=http) as streams:
            yield streams


@asynccontextmanager
async def by_pipes(wire: Wire) -> AsyncGenerator[Any]:
    process = wire.pipes
    assert process is not None
    assert process.stdin is not None
    assert process.stdout is not None
    out = process.stdout.fileno()
    os.set_blocking(out, False)
    came, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](1000)
    outgoing, leaves = anyio.create_memory_object_stream[SessionMessage](1000)

    async def read() -> None:
        lines = bytearray()
        async with came:
            with suppress(OSError, ValueError, anyio.ClosedResourceError):
                while True:
                    await anyio.wait_readable(out)
                    if not (chunk := os.read(out, 1 << 16)):
                        return
                    wire.read.extend(chunk)
                    *whole, rest = bytes(lines + chunk).split(b"\n")
                    lines[:] = rest
                    for line in whole:
                        await came.send(SessionMessage(jsonrpc_message_adapter.validate_json(line)))

    async def write() -> None:
        assert process.stdin is not None
        with suppress(OSError, ValueError):
            async for item in leaves:
                process.stdin.write(item.message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                process.stdin.flush()

    async with incoming, outgoing, leaves, anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        tasks.start_soon(write)
        yield incoming, outgoing
        tasks.cancel_scope.cancel()


def _path(call: Operation[Any]) -> str:
    request = call.request()
    return f"{request.method} {request.path}"


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # unwritten data is discarded
                pipe.close()


@dataclass
class Tally:
    """Results of the faults of one kind, with one ledger, over one transport."""

    faults: int = 0
    before: int = 0
    """Calls that had not reached the upstream."""
    lost: int = 0
    """`POST`s that had, and whose response the client did not receive. The same call again sent nothing."""
    received: int = 0
    repeated: int = 0
    """`PUT`s and `DELETE`s that reached the upstream more than once."""
    wrong: list[str] = field(default_factory=list[str])


class Round:
    """One server, concurrent calls of all changing tools with a fault each, and the same calls again."""

    def __init__(
        self,
        upstream: Upstream,
        url: str,
        ledger: str,
        transport: str,
        chance: random.Random,
        program: tuple[str, ...],
    ) -> None:
        self._program = program
        self._upstream = upstream
        self._chance = chance
        self._transport = transport
        state = tempfile.mkdtemp(prefix="fastn-mcp-")
        names = ("FASTN_STATE_DIR", "FASTN_CONFIG_DIR")
        self._env = dict.fromkeys(names, state) | {
            "FASTN_BASE_URL": url,
            "FASTN_API_KEY": KEY,
            "FASTN_HTTP_TOKEN": HTTP_TOKEN,
            "FASTN_CONFIG": os.devnull,
            "FASTN_APPROVAL_WAIT_SECONDS": "0",
            "FASTN_POLICY": str(policy_file(Path(state), POLICY + ALLOWS)),
        }
        if ledger:
            self._env |= {"FASTN_LEDGER": ledger, "FASTN_STATE_SECRET": "s" * 64}

    def _start(self, port: int) -> "subprocess.Popen[bytes]":
        command = [sys.executable, *self._program]
        if self._transport == "http":
            command += ["--http", f"127.0.0.1:{port}"]
        process = subprocess.Popen(
            command,
            env={**os.environ, **self._env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        if self._transport == "http":
            listening(port, process)
        return process

    async def make(self, kind: str, version: str, calls: Sequence[Operation[Any]], tally: Tally) -> None:
        self._upstream.counted = Counter()
        port = free_port()
        process = self._start(port)
        try:
            received = await self._first(kind, version, calls, process, port)
            before = Counter(self._upstream.counted)
            if kind == "killed" or self._transport == "stdio":
                process.kill() if kind == "killed" else process.terminate()
                await anyio.to_thread.run_sync(process.wait)
                before = Counter(self._upstream.counted)
                if self._transport == "http":
                    port = free_port()
                    _end(process)
                    process = self._start(port)
            await self._again(version, calls, port)
        finally:
            _end(process)
        for call in calls:
            counted, is_post = self._upstream.counted[_path(call)], call.route.method == "POST"
            tally.faults += 1
            tally.before += before[_path(call)] == 0
            tally.received += call in received
            tally.repeated += counted > 1 and not is_post
            tally.lost += is_post and call not in received and before[_path(call)] > 0
            if is_post and counted > 1 and call not in received:
                tally.wrong.append(f"{call.tool_name()} {version}: {counted} requests")

    async def _first(
        self,
        kind: str,
        version: str,
        calls: Sequence[Operation[Any]],
        process: "subprocess.Popen[bytes]",
        port: int,
    ) -> list[Operation[Any]]:
        """Make the calls, with a fault. Returns those whose response the client has received."""
        wire = Wire(pipes=process if self._transport == "stdio" else None)
        way = by_http(wire, port) if self._transport == "http" else by_pipes(wire)
        received = list[Operation[Any]]()
        with suppress(Exception):  # errors of a client whose server has gone
            async with Client(way, mode=ERAS[version]) as client, anyio.create_task_group() as tasks:
                wire.read.clear()
                for call in calls:
                    tasks.start_soon(self._call, client, call, kind, received)
                if kind != "cancelled":
                    reached = self._chance.randrange(len(calls))
                    await self._upstream.hears(lambda counted: counted.total() >= reached)
                    await anyio.sleep(self._chance.uniform(0, WITHIN))
                    process.send_signal(signal.SIGKILL) if kind == "killed" else wire.drop()
                    with anyio.move_on_after(0.3 if kind == "killed" else 0):  # requests in progress still arrive
                        await anyio.sleep_forever()
                    tasks.cancel_scope.cancel()
        wire.drop()
        return [call for call in calls if call in received or seen(call.tool_name(), bytes(wire.read))]

    async def _call(self, client: Client, call: Operation[Any], kind: str, received: list[Operation[Any]]) -> None:
        with suppress(Exception), anyio.CancelScope() as scope:
            if kind == "cancelled":
                reached, moment = self._chance.random() < 0.7, self._chance.uniform(0, WITHIN)

                async def cancel() -> None:
                    if reached:
                        await self._upstream.hears(lambda counted: counted[_path(call)] > 0)
                    await anyio.sleep(moment)
                    scope.cancel()

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(cancel)
                    await client.call_tool(call.tool_name(), call.model_dump(mode="json", exclude_unset=True))
                    received.append(call)
                    tasks.cancel_scope.cancel()
            else:
                await client.call_tool(call.tool_name(), call.model_dump(mode="json", exclude_unset=True))
                received.append(call)

    async def _again(self, version: str, calls: Sequence[Operation[Any]], port: int) -> None:
        nobody = Person(lambda _: ElicitResult(action="cancel"), reading=0)
        async with AsyncExitStack() as stack:
            if self._transport == "http":
                wire = Wire()
                stack.callback(wire.drop)
                way: Any = by_http(wire, port)
            else:
                way = stdio_client(StdioServerParameters(command=sys.executable, args=[*self._program], env=self._env))
            client = await stack.enter_async_context(Client(way, mode=ERAS[version], elicitation_callback=nobody))
            tasks = await stack.enter_async_context(anyio.create_task_group())
            for call in calls:
                tasks.start_soon(client.call_tool, call.tool_name(), call.model_dump(mode="json", exclude_unset=True))


async def inject(
    count: int, seed: int, combinations: Sequence[tuple[str, str, str]], program: tuple[str, ...] = PROGRAM
) -> dict[tuple[str, str, str], Tally]:
    """Inject at least `count` faults of each kind, for each ledger and transport."""
    chance, tallies = random.Random(seed), dict[tuple[str, str, str], Tally]()  # noqa: S311
    upstream = Upstream(chance)
    calls = [call for call in sensible(upstream.fastn) if call.effect is not Effect.READ]
    async with AsyncExitStack() as stack:
        at = stack.enter_context(serving(upstream))
        valkey = (
            ValkeyServer(Path(tempfile.mkdtemp())) if any(which == "valkey" for _, which, _ in combinations) else None
        )
        if valkey is not None:
            valkey.start()
            stack.callback(valkey.stop)
        versions = itertools.cycle(ERAS)
        for kind, ledger, transport in combinations:
            tally = tallies[kind, ledger, transport] = Tally()
            while tally.faults < count:
                url = valkey.url() if ledger == "valkey" and valkey is not None else ""
                some = chance.sample(calls, min(len(calls), count - tally.faults))
                one = Round(upstream, at, url, transport, chance, program)
                with anyio.fail_after(180):
                    await one.make(kind, next(versions), some, tally)
            print(  # noqa: T201
                f"{kind:9} {ledger:6} {transport:5} faults {tally.faults:4}, not yet sent {tally.before:3}, "
                f"response received {tally.received:3}, POST lost and held {tally.lost:3}, "
                f"PUT or DELETE repeated {tally.repeated:3}, sent twice {len(tally.wrong)}",
                *tally.wrong,
                flush=True,
            )
    return tallies


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--library", action="store_true", help="use httpx2's own transport to Fastn")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)  # noqa: T201
    combinations = list(itertools.product(KINDS, LEDGERS, TRANSPORTS))
    program = WITH_LIBRARY if options.library else PROGRAM
    tallies = anyio.run(inject, options.count, options.seed, combinations, program)
    sys.exit(any(tally.wrong for tally in tallies.values()))


if __name__ == "__main__":
    main()
