"""This project's own transport: how it keeps connections, and its errors, which are those of httpx2's own transport."""

import asyncio
import socket
import struct
from contextlib import aclosing

import anyio
import anyio.lowlevel
import httpx2
import pytest
from support.raw_server import answer, serving

from fastn_mcp.client import transport
from fastn_mcp.client.exchange import HttpExchange, TransportFactory
from fastn_mcp.client.transport import HttpConnection, HttpTransport
from fastn_mcp.tools.operation import Request

READ = Request("GET", "/api/v1/customers")


def exchanging(url: str) -> "aclosing[HttpExchange]":
    return aclosing(HttpExchange(url, {}, transport_factory=HttpTransport))


async def test_connection_is_reused() -> None:
    async with serving(answer()) as wire, exchanging(wire.url) as exchange:
        for _ in range(5):
            await exchange(READ)
    assert (wire.connections, len(wire.heads)) == (1, 5)


async def test_connection_is_used_for_its_own_server_only() -> None:
    async with serving(answer(200, b"1")) as first, serving(answer(200, b"2")) as second:
        own = HttpTransport()
        for _ in range(2):
            for wire, body in ((first, b"1"), (second, b"2")):
                response = await own.handle_async_request(httpx2.Request("GET", wire.url))
                assert await response.aread() == body
        await own.aclose()
    assert (first.connections, second.connections) == (1, 1)


async def test_connection_of_a_call_that_is_cancelled_at_its_end_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if its response was complete, and only giving the connection back was cancelled."""
    arrived = HttpConnection.data_received

    def then_cancelled(self: HttpConnection, data: bytes) -> None:
        arrived(self, data)
        call.cancel()

    monkeypatch.setattr(HttpConnection, "data_received", then_cancelled)
    async with serving(answer()) as wire, exchanging(wire.url) as exchange:
        call = asyncio.create_task(exchange(READ))
        with pytest.raises(asyncio.CancelledError):
            await call
        with anyio.fail_after(5):
            while wire.open:
                await anyio.lowlevel.checkpoint()


async def test_idle_connections_expire(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "KEEP_ALIVE", 0.05)
    async with serving(answer()) as wire, exchanging(wire.url) as exchange:
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(exchange, READ)
        with anyio.fail_after(10):
            while wire.open > 1:
                await anyio.sleep(0.02)
                await exchange(READ)


async def test_connection_with_an_unsent_body_is_not_reused() -> None:
    """RFC 9112 9.3: after an early response, the rest of its request would stand before the next one.

    httpx2's own transport reads no response before the whole body is sent.
    """
    replied = anyio.Event()
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer(413, b"{}") if len(heads) == 1 else answer())
        await replied.wait()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        async with exchanging(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as exchange:
            with anyio.fail_after(10):
                assert (await exchange(Request("POST", "/x", body={"a": "x" * 8_000_000}))).status == 413
                assert (await exchange(READ)).status == 200
        replied.set()
    assert [head.split()[0] for head in heads] == [b"POST", b"GET"]


async def test_body_is_received_no_faster_than_it_is_read() -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(64):
            writer.write(b"x" * 1024 * 1024)
            await writer.drain()
            sent += 1
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        own = HttpTransport()
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        response = await own.handle_async_request(httpx2.Request("GET", url))
        await anyio.sleep(0.2)
        assert sent < 64
        with anyio.fail_after(10):
            assert len(await response.aread()) == 64 * 1024 * 1024


async def send(factory: TransportFactory, url: str, reset: asyncio.Event) -> None:
    opened = factory(None, None)
    request = httpx2.Request("POST", url, content=b"{}", extensions={"timeout": {"connect": 5.0}})
    try:
        with anyio.fail_after(10):
            response = await opened.handle_async_request(request)
            reset.set()
            await response.aread()
    finally:
        await opened.aclose()


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (None, httpx2.ConnectError),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", httpx2.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200_000, httpx2.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", httpx2.ReadError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}", httpx2.ReadError),
    ],
    ids=["refused", "not HTTP", "endless header", "reset", "reset before its end"],
)
async def test_errors_are_those_of_httpx2(
    reply: bytes | None, error: type[httpx2.TransportError], transport_factory: TransportFactory
) -> None:
    """RFC 9112 8: only an orderly end ends a body without a length."""
    reset = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply or b"")
        await reset.wait()
        sock: socket.socket = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        if reply is None:
            server.close()
            await server.wait_closed()
        with pytest.raises(error) as caught:
            await send(transport_factory, f"http://127.0.0.1:{port}", reset)
        assert type(caught.value) is error
        reset.set()
