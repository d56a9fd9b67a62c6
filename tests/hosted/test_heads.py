"""HTTP at its edges, byte by byte: other protocols, what comes too slowly, too much at once, and probes. Issue 8."""

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
class Heard:
    """An application that says what it was sent, once it may."""

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
class Line:
    """A connection."""

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
        """Until it ends."""
        with suppress(ConnectionResetError):
            return await self.reader.read()
        return b""


@dataclass
class Server:
    heard: Heard
    port: int
    connections: Callable[[], int]

    @asynccontextmanager
    async def line(self) -> AsyncGenerator[Line]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Line(reader, writer)
        finally:
            writer.close()


@asynccontextmanager
async def serving(connections: int | None = None, **bounds: Any) -> AsyncGenerator[Server]:
    heard = Heard()
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
async def test_who_asks_for_another_protocol_is_answered_in_this_one(asked: bytes, apart: bool) -> None:
    """RFC 9110, 7.8: a server may ignore it. Its body is its body, and never a request."""
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
async def test_a_response_to_a_client_that_left_is_lost_whenever_its_leaving_is_noticed(turns: int) -> None:
    """Ours: after the response was written, between, and before; by turns of the event loop."""
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


async def test_a_response_that_was_read_before_the_client_left_is_not_lost() -> None:
    async with serving() as server:
        async with server.line() as line:
            await line.send(post("/mcp", b"{}") + b"{}")
            assert await line.answer() == (200, "POST /mcp {}")
        while server.connections():  # noqa: ASYNC110 - the same
            await asyncio.sleep(0)
        assert server.heard.lost is not None
        assert not server.heard.lost.is_set()


async def test_what_stands_around_a_value_is_none_of_it() -> None:
    """RFC 9110, 5.5: so that a name in a header is the name in the body, and a Host is ours."""
    async with serving() as server, server.line() as line:
        await line.send(b"GET / HTTP/1.1\r\nHost:\t x \t\r\nMcp-Name:  find  \r\nEmpty: \t \r\n\r\n")
        await line.answer()
        assert server.heard.headers == [(b"host", b"x"), (b"mcp-name", b"find"), (b"empty", b"")]


async def test_what_comes_after_a_body_is_no_header() -> None:
    """RFC 9110, 6.5.1: whoever checked the head before us has not seen it."""
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
async def test_a_head_that_others_take_for_something_else_is_refused(head: bytes) -> None:
    """RFC 9112, 3.2: a balancer and we have to mean the same host."""
    async with serving() as server, server.line() as line:
        await line.send(head)
        assert (await line.rest()).startswith(b"HTTP/1.1 400 ")
        assert server.heard.requests == []


async def test_a_connection_that_is_to_close_closes_whatever_else_it_asks_for() -> None:
    """RFC 9112, 9.6."""
    async with serving() as server, server.line() as line:
        await line.send(post("/mcp", b"{}", SOCKET.replace(b"Upgrade\r\n", b"close, Upgrade\r\n", 1)) + b"{}")
        assert b"POST /mcp {}" in await line.rest()
        async with server.line() as other:
            await other.send(b"CONNECT evil.example:80 HTTP/1.1\r\nHost: evil.example:80\r\n\r\n")
            assert (await other.rest()).startswith(b"HTTP/1.1 400 ")


async def test_more_requests_at_once_than_wait_for_their_turn_end_the_connection() -> None:
    """THREATS T17: each that waits is kept, and a read holds thousands of them."""
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
async def test_what_does_not_arrive_in_time_ends_its_connection(begun: bytes) -> None:
    """THREATS T17: so that who is slow, or says nothing, holds no place among the connections."""
    async with serving(arrives=0.2) as server, server.line() as line:
        await line.send(begun)
        rest = await line.rest()
        assert rest.count(b"HTTP/1.1 200") == begun.count(b"/first")


async def test_a_call_that_takes_long_is_not_slow_to_arrive() -> None:
    """Ours: neither is what waits behind it, since we do not read it."""
    async with serving(arrives=0.1) as server, server.line() as line:
        await line.send(post("/waits", b"{}") + b"{}" + post("/next", b"{}"))
        for _ in range(4):  # as often as it is looked at
            async with server.line() as silent:
                assert await silent.rest() == b""
        server.heard.may.set()
        await line.send(b"{}")
        assert await line.answer() == (200, "POST /waits {}")
        assert await line.answer() == (200, "POST /next {}")


async def test_a_probe_is_answered_when_there_are_as_many_connections_as_can_be() -> None:
    """Ours: a cluster would end a process that is merely full, and with it every call that it makes."""
    async with serving(connections=3) as server, server.line() as line, server.line(), server.line():
        await line.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await line.answer() == (200, "GET /healthz ")
        await line.send(post("/mcp", b"{}") + b"{}")
        assert b"503 Service Unavailable" in await line.rest()


async def test_who_leaves_says_so_with_each_answer() -> None:
    """Ours: a balancer that keeps connections sends no call on one that is about to end."""
    left = False
    async with serving(is_leaving=lambda: left) as server, server.line() as line, server.line() as other:
        await line.send(post("/mcp", b"{}") + b"{}")
        assert await line.answer() == (200, "POST /mcp {}")
        await other.send(post("/waits", b"{}") + b"{}")
        left = True
        await line.send(post("/mcp", b"{}") + b"{}")
        assert b"connection: close" in await line.rest()
