"""HTTP edge cases at byte level: upgrades, slow requests, pipelining and probes."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send
from support.nginx_proxy import balanced
from support.ports import free_port

from fastn_mcp.channels.http_server import RESPONSE_LOST, ConnectionLimits
from fastn_mcp.server.http.access import HostCheck

JAVA = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk\r\n"
"""What Java's own client sends with its first request over http."""
SOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"


@dataclass
class RecordingApp:
    """Application that records its requests and answers once allowed to."""

    begun: int = 0
    requests: list[str] = field(default_factory=list[str])
    headers: list[tuple[bytes, bytes]] = field(default_factory=list[tuple[bytes, bytes]])
    may: asyncio.Event = field(default_factory=asyncio.Event)
    before_response: Callable[[], Awaitable[None]] | None = None
    lost: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.begun += 1
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message.get("body", b""), message.get("more_body", False)
        heard = f"{scope['method']} {scope['path']} {body.decode()}"
        self.requests.append(heard)
        self.headers += scope["headers"]
        if scope["path"] == "/waits":
            await self.may.wait()
        self.lost = scope[RESPONSE_LOST]
        if self.before_response is not None:
            await self.before_response()
        headers = [(b"content-length", str(len(heard)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": heard.encode()})


@dataclass
class Connection:
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

    async def check_served(self) -> None:
        await self.send(post("/mcp", b"{}") + b"{}")
        assert await self.answer() == (200, "POST /mcp {}")

    async def rest(self) -> bytes:
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
async def serving(connections: int = 1000, **bounds: Any) -> AsyncGenerator[Server]:
    heard = RecordingApp()
    checked = HostCheck(heard, ["x"], (), 65_536, ["/healthz"])
    config = ConnectionLimits(checked, connections, always=["/healthz"], **bounds).config(
        65_536, port=0, lifespan="off"
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


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, until the 20 s of `serving` are over."""
    while not condition():  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(0)


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


async def test_response_after_disconnect_is_lost() -> None:
    for turns in range(6):
        async with serving() as server:
            with socket.create_connection(("127.0.0.1", server.port)) as client:

                async def leave(client: socket.socket = client, turns: int = turns) -> None:
                    client.close()
                    for _ in range(turns):
                        await asyncio.sleep(0)

                server.heard.before_response = leave
                client.sendall(post("/mcp", b"{}") + b"{}")
                await until(lambda heard=server.heard: heard.lost is not None)
                assert server.heard.lost is not None
                await server.heard.lost.wait()


async def test_response_read_before_disconnect_is_not_lost() -> None:
    async with serving() as server:
        async with server.line() as line:
            await line.check_served()
        await until(lambda: not server.connections())
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


async def test_connection_close_wins_over_upgrade() -> None:
    """RFC 9112, 9.6."""
    async with serving() as server, server.line() as line:
        await line.send(post("/mcp", b"{}", SOCKET.replace(b"Upgrade\r\n", b"close, Upgrade\r\n", 1)) + b"{}")
        assert b"POST /mcp {}" in await line.rest()
        async with server.line() as other:
            await other.send(b"CONNECT evil.example:80 HTTP/1.1\r\nHost: evil.example:80\r\nConnection: close\r\n\r\n")
            assert (await other.rest()).startswith(b"HTTP/1.1 421 ")


async def test_pipelined_requests_are_answered_one_after_the_other() -> None:
    """RFC 9112, 9.3.2. Those that wait are not parsed, so that they take no more memory than was read."""
    one = b"GET /waits HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serving() as server, server.line() as line:
        await line.send(one * 100)
        await until(lambda: bool(server.heard.requests))
        assert len(server.heard.requests) == 1
        server.heard.may.set()
        for _ in range(100):
            assert await line.answer() == (200, "GET /waits ")


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
    async with serving(arrives=0.2) as server, server.line() as line:
        await line.send(begun)
        rest = await line.rest()
        assert rest.count(b"HTTP/1.1 200") == begun.count(b"/first")


async def test_slow_call_does_not_count_as_slow_request() -> None:
    async with serving(arrives=0.1) as server, server.line() as line:
        await line.send(post("/waits", b"{}") + b"{}" + post("/next", b"{}"))
        for _ in range(4):  # as often as it is checked
            async with server.line() as silent:
                assert await silent.rest() == b""
        server.heard.may.set()
        await line.send(b"{}")
        assert await line.answer() == (200, "POST /waits {}")
        assert await line.answer() == (200, "POST /next {}")


async def test_idle_connection_gives_way_to_a_new_one() -> None:
    async with serving(connections=3) as server, server.line() as oldest, server.line(), server.line():
        async with server.line() as line:
            await line.check_served()
        assert await oldest.rest() == b""


async def half_sent(server: Server, *lines: Connection) -> None:
    """Send the head and a part of the body, and wait until the server has begun to read it."""
    for line in lines:
        await line.send(post("/half", b"{}") + b"{")
    await until(lambda: server.heard.begun >= len(lines))


async def test_half_sent_request_gives_way_to_a_new_connection() -> None:
    async with serving(connections=2) as server, server.line() as oldest, server.line() as other:
        await half_sent(server, oldest, other)
        async with server.line() as line:
            await line.check_served()
        assert await oldest.rest() == b""
        await other.send(b"}")
        assert await other.answer() == (200, "POST /half {}")


async def test_idle_connection_gives_way_before_a_half_sent_request() -> None:
    async with serving(connections=2) as server, server.line() as oldest, server.line() as idle:
        await half_sent(server, oldest)
        async with server.line() as line:
            await line.check_served()
        assert await idle.rest() == b""
        await oldest.send(b"}")
        assert await oldest.answer() == (200, "POST /half {}")


async def test_full_process_answers_probes_alone() -> None:
    """A cluster would otherwise end a process that is only full, and its calls with it."""
    async with serving(connections=2) as server, server.line() as one, server.line() as two:
        for line in (one, two):
            await line.send(post("/waits", b"{}") + b"{}")
        await until(lambda: len(server.heard.requests) >= 2)
        async with server.line() as probe:
            await probe.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert await probe.answer() == (200, "GET /healthz ")
        async with server.line() as other:
            await other.send(post("/mcp", b"{}") + b"{}")
            assert (await other.rest()).startswith(b"HTTP/1.1 503 ")
        server.heard.may.set()
        assert [await line.answer() for line in (one, two)] == [(200, "POST /waits {}")] * 2


async def test_responses_close_connections_during_shutdown() -> None:
    left = False
    async with serving(is_leaving=lambda: left) as server, server.line() as line, server.line() as other:
        await line.check_served()
        await other.send(post("/waits", b"{}") + b"{}")
        left = True
        await line.send(post("/mcp", b"{}") + b"{}")
        assert b"connection: close" in await line.rest()


# --- strange requests: whatever comes, a proxy and this server agree on where each request begins and whose it is -----

_BODY = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
_LENGTH = b"Content-Length: %d\r\n" % len(_BODY)
_CHUNK = b"%x\r\n%s\r\n" % (len(_BODY), _BODY)
_CHUNKED = b"Transfer-Encoding: chunked\r\n"


def _get(line: bytes = b"GET / HTTP/1.1", headers: bytes = b"Host: x\r\n") -> bytes:
    return line + b"\r\n" + headers + b"\r\n"


def _framed(headers: bytes, body: bytes = _BODY, version: bytes = b"1.1") -> bytes:
    return b"POST / HTTP/" + version + b"\r\nHost: x\r\n" + headers + b"\r\n" + body


STRANGE: dict[str, bytes] = {
    **{f"the line {line[:40]!r}": _get(line) for line in (
        b"", b"GET", b"GET /", b"GET / ", b" GET / HTTP/1.1", b"GET  / HTTP/1.1", b"GET\t/\tHTTP/1.1",
        b"GET / HTTP/1.1 ", b"get / HTTP/1.1", b"G\x00T / HTTP/1.1", b"G(T / HTTP/1.1", b"\xff\xfe / HTTP/1.1",
        b"A" * 1000 + b" / HTTP/1.1",
        b"CONNECT evil.example:443 HTTP/1.1", b"TRACE / HTTP/1.1", b"PRI * HTTP/2.0", b"OPTIONS * HTTP/1.1",
        b"GET * HTTP/1.1", b"GET http://evil.example/ HTTP/1.1", b"GET evil.example:80 HTTP/1.1",
        b"GET //evil.example/ HTTP/1.1", b"GET /\x00 HTTP/1.1", b"GET /%00 HTTP/1.1", b"GET /a b HTTP/1.1",
        b"GET /\xc3\xa9 HTTP/1.1", b"GET /../../etc/passwd HTTP/1.1", b"GET /#part HTTP/1.1", b"GET /%zz HTTP/1.1",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1", b"GET / HTTP/0.9", b"GET / HTTP/1.2", b"GET / HTTP/2.0",
        b"GET / HTTP/3.0", b"GET / HTTP/1", b"GET / HTTP/11", b"GET / HTTP/1.1.1", b"GET / http/1.1", b"GET / ICY/1.1",
    )},
    **{f"the headers {headers[:40]!r}": _get(headers=headers) for headers in (
        b"", b"Host:\r\n", b"Host: x\r\nHost: x\r\n", b"Host: x\r\nHost: evil.example\r\n", b"Host: evil.example\r\n",
        b"Host: x@evil.example\r\n", b"Host: x/evil\r\n", b"Host: x:80\r\n", b"Host: x evil\r\n", b"Host: x,evil\r\n",
        b"Host : x\r\n", b" Host: x\r\n", b"Host: x\r\nno colon\r\n", b"Host: x\r\n: empty\r\n",
        b"Host: x\r\nA\x00: b\r\n", b"Host: x\r\nA: \x00\r\n", b"Host: x\r\nA: b\rHost: evil\r\n",
        b"Host: x\r\nA: b\n", b"Host: x\r\nA: b\r\n folded\r\n", b"Host: x\r\n\xc3\xa9: b\r\n",
        b"Host: x\r\n" + b"A: b\r\n" * 500, b"Host: x\r\nA: " + b"a" * 100_000 + b"\r\n",
        b"Host: x\r\nExpect: something\r\n", b"Host: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n",
        b"Host: x\r\nX-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\n",
    )},
    **{f"framed by {headers!r}": _framed(headers) for headers in (
        _LENGTH, b"Expect: 100-continue\r\n" + _LENGTH, JAVA + _LENGTH, SOCKET + _LENGTH, _LENGTH + _LENGTH,
        _LENGTH + b"Content-Length: 0\r\n", b"Content-Length: 0\r\n" + _LENGTH, b"Content-Length: +38\r\n",
        b"Content-Length: -1\r\n", b"Content-Length: 0x26\r\n", b"Content-Length: 0, 38\r\n",
        b"Content-Length: 3 8\r\n",
        b"Content-Length: 38.0\r\n", b"Content-Length: " + b"9" * 400 + b"\r\n", b"Content-Length:\r\n",
        b"Content-Length : 38\r\n", b"Content-Length\r\n", b"Transfer-Encoding: identity\r\n",
        b"Transfer-Encoding: xchunked\r\n", b"Transfer-Encoding: chunked, identity\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding:\x0bchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Transfer-Encoding: \r\n chunked\r\n",
    )},
    **{f"{headers!r} before {body[:40]!r}": _framed(headers, body) for headers, body in (
        (_LENGTH + _CHUNKED, _CHUNK + b"0\r\n\r\n"), (_CHUNKED + _LENGTH, _CHUNK + b"0\r\n\r\n"),
        (_CHUNKED + _CHUNKED, _CHUNK + b"0\r\n\r\n"), (b"Transfer-Encoding: Chunked\r\n", _CHUNK + b"0\r\n\r\n"),
        (_CHUNKED, _CHUNK + b"0\r\nHost: evil.example\r\n\r\n"), (_CHUNKED, b"0;a=b\r\n\r\n"),
        (_CHUNKED, b"-1\r\n\r\n"), (_CHUNKED, b"+0\r\n\r\n"), (_CHUNKED, b"0x0\r\n\r\n"), (_CHUNKED, b"g\r\n\r\n"),
        (_CHUNKED, b"\r\n\r\n"), (_CHUNKED, b"f" * 21 + b"\r\n"), (_CHUNKED, b"2\r\n{}XX0\r\n\r\n"),
        (_CHUNKED, b"1\r\n{}\r\n0\r\n\r\n"), (JAVA + _CHUNKED, _CHUNK + b"0\r\n\r\n"),
    )},
    "chunked by HTTP/1.0": _framed(_CHUNKED, _CHUNK + b"0\r\n\r\n", b"1.0"),
    "no host by HTTP/1.0": b"GET / HTTP/1.0\r\n\r\n",
    "two hosts by HTTP/1.0": b"GET / HTTP/1.0\r\nHost: x\r\nHost: evil.example\r\n\r\n",
    "lines that end with LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200 + b"\r\n\r\n",
    "nothing but line breaks": b"\r\n" * 10,
}  # fmt: skip
_LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


async def _problem(server: Server, port: int, sent: bytes) -> str | None:
    """Send a request and a last one. Say what is unsafe about the answers, if anything."""
    server.heard.requests.clear()
    server.heard.headers.clear()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent + _LAST)
    answered = b""
    try:
        with suppress(ConnectionError):
            async with asyncio.timeout(5):
                answered = await reader.read()
    except TimeoutError:
        return "it waits for more"
    finally:
        writer.close()
    heard = server.heard.requests
    statuses = [int(part[:3]) for part in answered.replace(b"HTTP/1.0 ", b"HTTP/1.1 ").split(b"HTTP/1.1 ")[1:]]
    taken = sum(status == 200 for status in statuses)
    if any("/smuggled HTTP" not in each and "/smuggled" in each for each in heard):
        return f"a body became a request: {heard}"
    if taken != len(heard):
        return f"{heard} were heard, and answered with {statuses}"
    if any(not (status in (100, 200) or 400 <= status < 600) for status in statuses):
        return f"answered with {statuses}"
    if any(name == b"host" and value.lower() != b"x" for name, value in server.heard.headers):
        return "another host was served"
    return None


@pytest.mark.parametrize("is_behind_nginx", [False, True], ids=["alone", "behind nginx"])
async def test_strange_request_gets_a_safe_answer(is_behind_nginx: bool, tmp_path: Path) -> None:
    """RFC 9112, 11: no request is answered as another one, and no body becomes a request."""
    async with serving() as server:
        with ExitStack() as stack:
            port = server.port
            if is_behind_nginx:
                port = free_port()
                stack.enter_context(balanced(tmp_path / "nginx", port, [server.port]))
            problems = {name: await _problem(server, port, sent) for name, sent in STRANGE.items()}
    assert {name: problem for name, problem in problems.items() if problem} == {}
    assert len(STRANGE) > 100
