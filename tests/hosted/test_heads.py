"""HTTP edge cases at byte level: upgrades, slow requests, pipelining and probes."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from fastn_mcp.hosted.request_limits import LOST, bounded

pytestmark = pytest.mark.anyio

JAVA = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
"""What Java's own client sends with its first request over http."""
SOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"


@dataclass
class RecordingApp:
    """Application that records its requests and answers once allowed to."""

    requests: list[str] = field(default_factory=list[str])
    headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    may: asyncio.Event = field(default_factory=asyncio.Event)
    before_response: Callable[[], Awaitable[None]] | None = None
    lost: anyio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        heard = f"{scope['method']} {scope['path']} {body.decode()}"
        self.requests.append(heard)
        self.headers += scope["headers"]
        if scope["path"] == "/waits":
            await self.may.wait()
        self.lost = scope[LOST]
        if self.before_response is not None:
            await self.before_response()
        headers = [(b"content-length", str(len(heard)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": heard.encode()})


@dataclass
class Connection:
    """One client connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *parts: bytes) -> None:
        for part in parts:
            self.writer.write(part)
            await self.writer.drain()

    async def answer(self) -> tuple[int, str]:
        head = await self.reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        length = next(int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length"))
        return int(lines[0].split(" ")[1]), (await self.reader.readexactly(length)).decode()

    async def rest(self) -> bytes:
        """Read until the connection ends."""
        with suppress(ConnectionResetError):
            return await self.reader.read()
        return b""


@dataclass
class Server:
    heard: RecordingApp
    port: int
    connections: Callable[[], int]

    @asynccontextmanager
    async def line(self) -> AsyncGenerator[Connection]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Connection(reader, writer)
        finally:
            writer.close()


@asynccontextmanager
async def serving(connections: int | None = None, **bounds: Any) -> AsyncGenerator[Server]:
    heard = RecordingApp()
    protocol = bounded(65_536, always=(b"/healthz",), **bounds)
    config = uvicorn.Config(
        heard, port=0, http=protocol, ws="none", lifespan="off", log_config=None, limit_concurrency=connections
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        async with asyncio.timeout(20):
            port = server.servers[0].sockets[0].getsockname()[1]
            yield Server(heard, port, lambda: len(server.server_state.connections))
    finally:
        heard.may.set()
        await server.shutdown()


def post(path: str, body: bytes, more: bytes = b"") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n" % (path.encode(), more, len(body))


@pytest.mark.parametrize("asked", [JAVA, SOCKET], ids=["h2c", "websocket"])
@pytest.mark.parametrize("apart", [False, True], ids=["at once", "head and body apart"])
async def test_upgrade_request_is_answered_over_http(asked: bytes, apart: bool) -> None:
    """RFC 9110, 7.8: a server may ignore an upgrade. The body belongs to the request and is never a new one."""
    smuggled = b"POST /smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    head = post("/mcp", smuggled, asked)
    async with serving() as server, server.line() as line:
        await line.send(*([head, smuggled] if apart else [head + smuggled]))
        assert await line.answer() == (200, f"POST /mcp {smuggled.decode()}")
        await line.send(post("/next", b"{}", asked) + b"{}")  # and the connection goes on
        assert await line.answer() == (200, "POST /next {}")
        chunked = b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        await line.send(
            b"POST /chunked HTTP/1.1\r\nHost: x\r\n" + asked + chunked + b"GET /last HTTP/1.1\r\nHost: x\r\n\r\n"
        )
        assert await line.answer() == (200, "POST /chunked {}")
        assert await line.answer() == (200, "GET /last ")
        assert len(server.heard.requests) == 4


@pytest.mark.parametrize("turns", range(6))
async def test_response_after_disconnect_is_lost(turns: int) -> None:
    """Ours: before, during and after the response was written, by turns of the event loop."""
    async with serving() as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:

            async def leave() -> None:
                client.close()
                for _ in range(turns):
                    await asyncio.sleep(0)

            server.heard.before_response = leave
            client.sendall(post("/mcp", b"{}") + b"{}")
            while server.heard.lost is None:  # noqa: ASYNC110 - until the 20 s of `serving` are over
                await asyncio.sleep(0)
            await server.heard.lost.wait()


async def test_response_read_before_disconnect_is_not_lost() -> None:
    async with serving() as server:
        async with server.line() as line:
            await line.send(post("/mcp", b"{}") + b"{}")
            assert await line.answer() == (200, "POST /mcp {}")
        while server.connections():  # noqa: ASYNC110 - the same
            await asyncio.sleep(0)
        assert server.heard.lost is not None
        assert not server.heard.lost.is_set()


async def test_whitespace_around_header_values_is_stripped() -> None:
    """RFC 9110, 5.5: so that header values equal those of the body, and the Host is ours."""
    async with serving() as server, server.line() as line:
        await line.send(b"GET / HTTP/1.1\r\nHost:\t x \t\r\nMcp-Name:  find  \r\nEmpty: \t \r\n\r\n")
        await line.answer()
        assert server.heard.headers == [(b"host", b"x"), (b"mcp-name", b"find"), (b"empty", b"")]


async def test_trailers_are_ignored() -> None:
    """RFC 9110, 6.5.1: whoever checked the head has not seen them."""
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with serving() as server, server.line() as line:
        await line.send(head + b"2\r\n{}\r\n0\r\nX-Fastn-Api-Key: theirs\r\n\r\n")
        assert await line.answer() == (200, "POST / {}")
        assert server.heard.headers == [(b"host", b"x"), (b"transfer-encoding", b"chunked")]


@pytest.mark.parametrize(
    "head",
    [
        b"GET /\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: evil.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ],
    ids=["0.9", "2.0", "no host", "two hosts", "no host, and another protocol"],
)
async def test_ambiguous_head_is_rejected(head: bytes) -> None:
    """RFC 9112, 3.2: a load balancer and this server must agree on the host."""
    async with serving() as server, server.line() as line:
        await line.send(head)
        assert (await line.rest()).startswith(b"HTTP/1.1 400 ")
        assert server.heard.requests == []


async def test_connection_close_wins_over_upgrade() -> None:
    """RFC 9112, 9.6."""
    async with serving() as server, server.line() as line:
        await line.send(post("/mcp", b"{}", SOCKET.replace(b"Upgrade\r\n", b"close, Upgrade\r\n", 1)) + b"{}")
        assert b"POST /mcp {}" in await line.rest()
        async with server.line() as other:
            await other.send(b"CONNECT evil.example:80 HTTP/1.1\r\nHost: evil.example:80\r\n\r\n")
            assert (await other.rest()).startswith(b"HTTP/1.1 400 ")


async def test_excess_pipelined_requests_close_the_connection() -> None:
    """Ours: waiting requests take memory, and one read can contain thousands of them."""
    one = b"GET /waits HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serving() as server:
        async with server.line() as line:
            await line.send(one * 17)
            server.heard.may.set()
            for _ in range(17):
                assert await line.answer() == (200, "GET /waits ")
        server.heard.may.clear()
        async with server.line() as line:
            await line.send(one * 10_000)
            assert b"200 OK" not in await line.rest()
        assert len(server.heard.requests) < 40


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"POST /mcp HT",
        b"POST /mcp HTTP/1.1\r\nHost: x\r\n",
        post("/mcp", b"{}") + b"{",
        post("/first", b"{}") + b"{}" + b"POST /mcp HTTP/1.1\r\n",
    ],
    ids=["nothing", "half a line", "half a head", "half a body", "half a second one"],
)
async def test_slow_request_closes_its_connection(begun: bytes) -> None:
    """Ours: a slow or silent client does not keep a connection."""
    async with serving(arrives=0.2) as server, server.line() as line:
        await line.send(begun)
        rest = await line.rest()
        assert rest.count(b"HTTP/1.1 200") == begun.count(b"/first")


async def test_slow_call_does_not_count_as_slow_request() -> None:
    """Ours: nor do the requests that wait behind it, since we do not read them."""
    async with serving(arrives=0.1) as server, server.line() as line:
        await line.send(post("/waits", b"{}") + b"{}" + post("/next", b"{}"))
        for _ in range(4):  # as often as it is checked
            async with server.line() as silent:
                assert await silent.rest() == b""
        server.heard.may.set()
        await line.send(b"{}")
        assert await line.answer() == (200, "POST /waits {}")
        assert await line.answer() == (200, "POST /next {}")


async def test_probe_is_answered_at_the_connection_limit() -> None:
    """Ours: a cluster would otherwise end a process that is only full, and its calls with it."""
    async with serving(connections=3) as server, server.line() as line, server.line(), server.line():
        await line.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await line.answer() == (200, "GET /healthz ")
        await line.send(post("/mcp", b"{}") + b"{}")
        assert b"503 Service Unavailable" in await line.rest()


async def test_responses_close_connections_during_shutdown() -> None:
    """Ours: a load balancer sends no call on a connection that is about to end."""
    left = False
    async with serving(is_leaving=lambda: left) as server, server.line() as line, server.line() as other:
        await line.send(post("/mcp", b"{}") + b"{}")
        assert await line.answer() == (200, "POST /mcp {}")
        await other.send(post("/waits", b"{}") + b"{}")
        left = True
        await line.send(post("/mcp", b"{}") + b"{}")
        assert b"connection: close" in await line.rest()
