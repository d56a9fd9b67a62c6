"""The HTTP exchange over a real socket: which bytes are sent, and which are accepted."""

import asyncio
import gzip
import socket
import threading
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager, suppress
from typing import Protocol

import anyio
import anyio.lowlevel
import pytest
from pydantic import JsonValue
from support.clock import Clock
from support.fake_fastn import KEY
from support.raw_server import answer, serving

from fastn_mcp.client.client import FastnClient
from fastn_mcp.client.exchange import (
    MAX_BODY_BYTES,
    Answer,
    HttpExchange,
    NotSentError,
    ResponseLost,
    TransportFactory,
    UnreadableBody,
    headers,
)
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import FastnError
from fastn_mcp.tools.customers import GetCustomer
from fastn_mcp.tools.operation import Request
from fastn_mcp.tools.workflows import RunWorkflow

READ = Request("GET", "/api/v1/customers")
Talking = Callable[["Serve"], AbstractAsyncContextManager[HttpExchange]]
Once = Callable[..., Awaitable[Answer]]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Exchanging(Protocol):
    def __call__(self, url: str, sent: Mapping[str, str] = ...) -> AbstractAsyncContextManager[HttpExchange]: ...


@pytest.fixture
def exchanging(transport_factory: TransportFactory) -> Exchanging:
    """Exchange with the server at an address."""

    def open_exchange(url: str, sent: Mapping[str, str] | None = None) -> "aclosing[HttpExchange]":
        return aclosing(HttpExchange(url, sent or {}, transport_factory=transport_factory))

    return open_exchange


@pytest.fixture
def talking(exchanging: Exchanging) -> Talking:
    """Exchange with a server that answers in its own way, for at most 10 s."""

    @asynccontextmanager
    async def talk(serve: Serve) -> AsyncGenerator[HttpExchange]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with exchanging(f"http://127.0.0.1:{port}") as exchange:
                with anyio.fail_after(10):
                    yield exchange

    return talk


@pytest.fixture
def once(exchanging: Exchanging) -> Once:
    """Send one request to a server that sends a reply and closes."""

    async def send_once(reply: bytes, request: Request = READ) -> Answer:
        async with serving(reply, keep_open=False) as wire, exchanging(wire.url) as exchange:
            with anyio.fail_after(20):
                return await exchange(request)

    return send_once


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_redirect_is_never_followed(status: int, method: str, exchanging: Exchanging) -> None:
    """Libraries send our key, and bodies with secrets, to the other origin."""
    async with serving(answer()) as sink:
        reply = answer(status, b"", f"Location: {sink.url}/api/v1/customers")
        async with serving(reply) as wire, exchanging(wire.url, {"x-fastn-api-key": KEY}) as exchange:
            got = await exchange(Request(method, "/api/v1/customers"))
        assert got.status == status
        assert (sink.connections, sink.heads) == (0, [])
        assert len(wire.heads) == 1


async def test_cookies_are_never_sent_back(exchanging: Exchanging) -> None:
    reply = answer(200, b"{}", "Set-Cookie: session=evil; Path=/")
    async with serving(reply) as wire, exchanging(wire.url) as exchange:
        for _ in range(3):
            await exchange(READ)
    assert all("cookie" not in wire.headers(number) for number in range(3))


async def test_connection_of_a_cancelled_call_is_closed(exchanging: Exchanging) -> None:
    """A late response must not be read by the next call."""
    async with serving(answer()[:-1]) as wire, exchanging(wire.url) as exchange:
        with anyio.move_on_after(0.1) as scope:
            await exchange(READ)
        assert scope.cancelled_caught
        with anyio.fail_after(5):
            while wire.open:
                await anyio.lowlevel.checkpoint()


async def test_oversized_response_does_not_break_the_next_call(exchanging: Exchanging) -> None:
    big = answer(200, b"x" * (MAX_BODY_BYTES + 10))
    async with (
        serving(lambda wire: big if len(wire.heads) == 1 else answer()) as wire,
        exchanging(wire.url) as exchange,
    ):
        assert (await exchange(READ)).unreadable is UnreadableBody.TOO_LARGE
        assert await exchange(READ) == Answer(200, {"content-length": "2"}, b"{}")


@pytest.mark.parametrize("extra", [0, 1])
async def test_body_is_read_up_to_the_cap(extra: int, once: Once) -> None:
    got = await once(answer(200, b"x" * (MAX_BODY_BYTES + extra)))
    assert got.unreadable is (UnreadableBody.TOO_LARGE if extra else None)
    assert len(got.body) == (0 if extra else MAX_BODY_BYTES)


@pytest.mark.parametrize("extra", [0, 1])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "GZIP "])
async def test_cap_applies_to_the_unpacked_body(coding: str, extra: int, once: Once) -> None:
    plain = b"\0" * (MAX_BODY_BYTES + extra * 200 * 1024 * 1024 // 8)
    packed = zlib.compress(plain, 9) if coding == "deflate" else gzip.compress(plain, 9, mtime=0)
    got = await once(answer(200, packed, f"Content-Encoding: {coding}"))
    assert got.unreadable is (UnreadableBody.TOO_LARGE if extra else None)
    assert len(got.body) == (0 if extra else MAX_BODY_BYTES)


@pytest.mark.parametrize(
    ("reply", "unreadable"),
    [
        (answer(200, b'{"id":1}')[:-3], UnreadableBody.BROKEN),
        (b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"id"', UnreadableBody.BROKEN),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", UnreadableBody.BROKEN),
        (answer(200, b"no gzip at all", "Content-Encoding: gzip"), UnreadableBody.BROKEN),
        (answer(200, gzip.compress(b"{}" * 90, mtime=0)[:-9], "Content-Encoding: gzip"), UnreadableBody.BROKEN),
        (answer(200, b"{}", "Content-Encoding: br"), UnreadableBody.PACKED),
        (answer(200, b"{}", "Content-Encoding: gzip, gzip"), UnreadableBody.PACKED),
        (answer(200, b"{}", "Content-Encoding: zstd"), UnreadableBody.PACKED),
        (answer(200, b"{}", "Content-Encoding: identity"), None),
        (answer(200, gzip.compress(b"{}", mtime=0), "Content-Encoding: gzip"), None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", None),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", None),
    ],
)
async def test_incomplete_body_is_unreadable(reply: bytes, unreadable: UnreadableBody | None, once: Once) -> None:
    got = await once(reply)
    assert (got.status, got.unreadable, got.body) == (200, unreadable, b"" if unreadable else b"{}")


@pytest.mark.parametrize(
    "reply",
    [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-", b"SSH-2.0-OpenSSH_9\r\n\r\n", b"\x00\xff" * 40 + b"\r\n\r\n",
     b"HTTP/1.1 099 -\r\nContent-Length: 2\r\n\r\n{}", b"HTTP/1.1 200 OK\r\nA: " + b"x" * 200_000],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_response_without_a_complete_head_is_lost(reply: bytes, method: str, once: Once) -> None:
    """The request may have arrived."""
    with pytest.raises(ResponseLost):
        await once(reply, Request(method, "/x", body={} if method == "POST" else None))


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\n" + answer(),
        b"HTTP/1.1 100 Continue\r\n\r\n" * 2 + answer(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nRetry-After: 9\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    ],
)
async def test_response_is_the_final_one(reply: bytes, exchanging: Exchanging) -> None:
    """RFC 9110 15.2 and 6.5: informational responses come before it, and a trailer is not a header."""
    async with serving(reply) as wire, exchanging(wire.url) as exchange:
        with anyio.fail_after(5):
            for _ in range(2):
                got = await exchange(READ)
                assert (got.status, got.body) == (200, b"{}")
                assert not got.headers.keys() & {"x-early", "retry-after"}


@pytest.mark.parametrize(
    "reply",
    [
        answer() + answer(200, b'{"id":"of another"}'),
        answer() + b"\x00",
        answer(204, b"") + b"{}",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n" + answer(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}x",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_connection_with_a_strange_response_is_not_reused(reply: bytes, exchanging: Exchanging) -> None:
    """RFC 9112 9.3: what follows a response, or cannot be told from it, must not be read by the next call."""
    async with (
        serving(lambda wire: reply if len(wire.heads) == 1 else answer(200, b"[]")) as wire,
        exchanging(wire.url) as exchange,
    ):
        with anyio.fail_after(5):
            with suppress(ResponseLost):
                assert (await exchange(READ)).body in (b"", b"{}")
            assert (await exchange(READ)).body == b"[]"
    assert wire.connections == 2


@contextmanager
def second_response_on_signal() -> Generator[tuple[int, list[int], Callable[[], None]]]:
    """Answer on each connection; once told, add another response to the first. Yields port, requests, and how to tell.

    A thread of its own, so that the bytes arrive while the loop of the client does something else.
    """
    requests: list[int] = []
    told, added = threading.Event(), threading.Event()

    def serve() -> None:
        with suppress(OSError):
            for number in (1, 2):
                accepted, _ = listening.accept()
                connections.append(accepted)
                accepted.settimeout(10)
                while b"\r\n\r\n" not in accepted.recv(65536):
                    pass
                requests.append(number)
                accepted.sendall(answer(200, b"[%d]" % number))
                if number == 1 and told.wait(10):
                    accepted.sendall(answer(200, b'{"id":"of nobody"}'))
                    added.set()

    def tell() -> None:
        told.set()
        assert added.wait(10)

    connections: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listening.getsockname()[1], requests, tell
        finally:
            told.set()
            for connection_ in connections:
                connection_.close()
            listening.close()
            thread.join()


@pytest.mark.parametrize("loop_has_read", [False, True])
async def test_unasked_response_is_not_the_answer_to_the_next_request(
    loop_has_read: bool, exchanging: Exchanging
) -> None:
    """RFC 9112 9.3: it arrives between two requests, also so late that only the system has it yet."""
    with second_response_on_signal() as (port, requests, tell):
        async with exchanging(f"http://127.0.0.1:{port}") as exchange:
            with anyio.fail_after(10):
                assert (await exchange(READ)).body == b"[1]"
                tell()
                if loop_has_read:
                    for _ in range(10):
                        await anyio.lowlevel.checkpoint()
                assert (await exchange(READ)).body == b"[2]"
    assert requests == [1, 2]


async def test_connection_that_the_server_closed_is_not_reused(exchanging: Exchanging) -> None:
    """A call is not lost to a connection that was idle for too long."""
    async with serving(answer(), keep_open=False) as wire, exchanging(wire.url) as exchange:
        with anyio.fail_after(5):
            for _ in range(3):
                await exchange(READ)
                while wire.open:
                    await anyio.lowlevel.checkpoint()
                await anyio.sleep(0.01)
    assert (wire.connections, len(wire.heads)) == (3, 3)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
PACKED = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(b"{}", mtime=0)


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (CHUNKED + b"2\r\n{}\r\n0\r\nX: ", b"a" * 50_000),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", b"X: a\r\n" * 10_000),
        (CHUNKED + b"2;", b"a" * 50_000),
        (PACKED, b"x" * 50_000),
    ],
    ids=["trailer", "trailers", "chunk extension", "after gzip"],
)
async def test_endless_response_is_given_up(begin: bytes, more: bytes, talking: Talking) -> None:
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begin)
        with suppress(ConnectionError):
            while sent < 50_000_000:
                writer.write(more)
                sent += len(more)
                await writer.drain()
        writer.close()

    async with talking(serve) as exchange:
        assert (await exchange(READ)).unreadable is UnreadableBody.BROKEN
    assert sent < 20_000_000


async def test_many_small_chunks_are_no_header(once: Once) -> None:
    """RFC 9112 7.1: their framing is five times what they hold."""
    body = b"[" + b"1," * 15_000 + b"1]"
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    got = await once(CHUNKED + chunks + b"0\r\n\r\n")
    assert (got.body == body, got.unreadable) == (True, None)


@pytest.mark.parametrize("size", [1, 2, 7])
async def test_response_may_arrive_in_pieces(size: int, talking: Talking) -> None:
    """RFC 9293: a stream has no messages."""
    whole = answer(200, b'{"id": "acme"}', "X-Long: " + "x" * 40)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for start in range(0, len(whole), size):
            writer.write(whole[start : start + size])
            await asyncio.sleep(0)
        writer.close()

    async with talking(serve) as exchange:
        got = await exchange(READ)
    assert (got.body, got.headers["x-long"]) == (b'{"id": "acme"}', "x" * 40)


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\nb", "a\x00", "\x7f", "\ud800"])
async def test_header_cannot_be_split(value: str, exchanging: Exchanging) -> None:
    """RFC 9110 5.5: neither by a value of a call nor by one of the settings."""
    async with serving(answer()) as wire, exchanging(wire.url) as exchange:
        with pytest.raises(NotSentError):
            await exchange(Request("GET", "/x", headers={"idempotency-key": value}))
        with pytest.raises(NotSentError):
            await exchange(Request("GET", f"/x/{value}"))
    assert wire.heads == []


async def test_invalid_header_is_not_sent_and_not_shown(exchanging: Exchanging) -> None:
    """The library's own error would show the key."""
    async with serving(answer()) as wire, exchanging(wire.url, {"x-fastn-api-key": KEY + "\n"}) as exchange:
        with pytest.raises(NotSentError) as caught:
            await exchange(READ)
    assert KEY not in f"{caught.value} {caught.value!r}"
    assert wire.heads == []


async def test_query_values_are_encoded(exchanging: Exchanging) -> None:
    request = Request("GET", "/api/v1/x", query={"a": "b&c=d#e f/ü+", "n": 7, "t": True, "f": False, "o": {"k": [1]}})
    async with serving(answer()) as wire, exchanging(wire.url) as exchange:
        await exchange(request)
    assert wire.line() == (
        "GET /api/v1/x?a=b%26c%3Dd%23e+f%2F%C3%BC%2B&n=7&t=true&f=false&o=%7B%22k%22%3A%5B1%5D%7D HTTP/1.1"
    )


@pytest.mark.parametrize("identifier", ["a%3Ab", "a%40b", "x.y", "a~b", "A..b"])
async def test_encoded_id_is_sent_unchanged(identifier: str, exchanging: Exchanging) -> None:
    async with serving(answer()) as wire, exchanging(wire.url + "/base/") as exchange:
        await exchange(Request("DELETE", f"/api/v1/customers/{identifier}"))
    assert wire.line() == f"DELETE /base/api/v1/customers/{identifier} HTTP/1.1"


async def test_body_is_json_with_its_length(exchanging: Exchanging) -> None:
    """Fastn's reference: Content-Type for POST and PUT."""
    body: dict[str, JsonValue] = {"name": "Ä \u202e", "n": 12345678901234567890, "none": None}
    async with serving(answer()) as wire, exchanging(wire.url) as exchange:
        await exchange(Request("POST", "/x", body=body))
        await exchange(Request("DELETE", "/x"))
    assert wire.bodies == ['{"name":"Ä \u202e","n":12345678901234567890,"none":null}'.encode(), b""]
    assert wire.headers(0)["content-type"] == "application/json"
    assert "content-type" not in wire.headers(1)


@pytest.mark.parametrize(
    ("account", "expected"),
    [
        (Settings(base_url="https://h", api_key="fsk_live_1"), {"x-fastn-api-key": "fsk_live_1"}),
        (Settings(base_url="https://h", api_key="fsk_live_1", auth="bearer"), {"Authorization": "Bearer fsk_live_1"}),
        (
            Settings(base_url="https://h", api_key="fsk_test_1"),
            {"x-fastn-api-key": "fsk_test_1", "X-fastn-Test-Mode": "true"},
        ),
        (
            Settings(base_url="https://h", api_key="fsk_test_1", auth="bearer"),
            {"Authorization": "Bearer fsk_test_1", "X-fastn-Test-Mode": "true"},
        ),
        (Settings(base_url="https://h", api_key="my_fsk_test_1"), {"x-fastn-api-key": "my_fsk_test_1"}),
        (Settings(base_url="https://h", api_key="FSK_TEST_1"), {"x-fastn-api-key": "FSK_TEST_1"}),
        (Settings(base_url="https://h", api_key="fsk_test"), {"x-fastn-api-key": "fsk_test"}),
        (Settings(base_url="https://h", api_key="fsk_test_1", test_mode="off"), {"x-fastn-api-key": "fsk_test_1"}),
        (
            Settings(base_url="https://h", api_key="fsk_live_1", test_mode="on"),
            {"x-fastn-api-key": "fsk_live_1", "X-fastn-Test-Mode": "true"},
        ),
        (
            Settings(base_url="https://h", api_key="k", space_id="s", tenant_id="t", end_org_id="o", env="live"),
            {
                "x-fastn-api-key": "k",
                "x-fastn-space-id": "s",
                "x-fastn-space-tenantid": "t",
                "x-end-org-id": "o",
                "x-fastn-env": "live",
            },
        ),
        (Settings(base_url="https://h", api_key="k", space_id="", env=None), {"x-fastn-api-key": "k"}),
    ],
)
def test_headers_are_those_of_the_account(account: Settings, expected: dict[str, str]) -> None:
    """Fastn's reference and its newer pages: the key in one of two ways; test mode for test keys, unless it is set."""
    own = headers(account)
    common = {name: own.pop(name) for name in ("Accept", "Accept-Encoding", "User-Agent")}
    assert own == expected
    assert common["Accept"] == "application/json"
    assert common["Accept-Encoding"] == "identity"
    assert common["User-Agent"].startswith("fastn-mcp/")


def test_account_repr_omits_the_key() -> None:
    account = Settings(base_url="https://fastn.example:8443/base", api_key=KEY)
    assert KEY not in repr(account)
    assert account.host == "fastn.example:8443"


async def test_header_of_a_call_replaces_the_accounts(transport_factory: TransportFactory) -> None:
    """Fastn's documentation of runs: a run names its environment. Which of two headers wins is not defined."""
    async with serving(answer(200, b'{"data": {"executionId": "e1"}}')) as wire:
        account = Settings(base_url=wire.url, api_key=KEY, end_org_id="globex", env="test", space_id="s")
        exchange = HttpExchange(account.base_url, headers(account), transport_factory=transport_factory)
        sender = FastnClient(account, exchange, Clock().system())
        await sender.send(RunWorkflow(workflow_id="wf", environment="live", customer_id="acme", idempotency_key="n7"))
        await sender.send(GetCustomer(customer_id="a:b"))
        await sender.aclose()
    run, read = wire.headers(0), wire.headers(1)
    assert wire.line(1) == "GET /api/v1/customers/a%3Ab HTTP/1.1"
    assert (run["x-fastn-env"], run["x-end-org-id"], run["idempotency-key"]) == ("live", "acme", "n7")
    assert (read["x-fastn-env"], read["x-end-org-id"], read["x-fastn-space-id"]) == ("test", "globex", "s")
    assert run["x-fastn-api-key"] == read["x-fastn-api-key"] == KEY
    assert [wire.heads[0].lower().count(name) for name in ("x-fastn-env:", "x-end-org-id:", "host:")] == [1, 1, 1]
    assert "idempotency-key" not in read


async def test_slow_response_ends_at_the_deadline(transport_factory: TransportFactory) -> None:
    """Timeouts per read never end a slow drip; the deadline does."""
    whole = answer(200, b'{"id": "acme"}')
    async with serving(whole[:-5]) as wire:
        account = Settings(base_url=wire.url, api_key=KEY, deadline=0.1)
        sender = FastnClient(
            account,
            HttpExchange(account.base_url, headers(account), transport_factory=transport_factory),
            Clock().system(),
        )
        with pytest.raises(FastnError) as caught:
            await sender.send(GetCustomer(customer_id="acme"))
        await sender.aclose()
    assert caught.value.outcome == "timeout"
