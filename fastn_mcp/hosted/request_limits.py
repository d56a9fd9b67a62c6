"""Request limits: bytes and time of the head (httptools limits neither), size of the body, and rejections.

An upgrade request is answered over HTTP/1.1, including its body. Otherwise the parser would read the body as the next
request, and whoever shares the connection would get its answer.

This subclasses uvicorn's protocol, which has no public hook for these limits. httptools makes an HTTP request a tenth
cheaper. With uvicorn's h11 parser and its head limit, 17 of the 28 tests in tests/hosted/test_heads.py fail: a request
may take forever to arrive, pipelined requests are unlimited, probes are refused when the server is full, and an
undelivered response goes unnoticed. The upgrade handling can go once uvicorn delivers the bodies of upgrade requests
(https://github.com/Kludex/uvicorn/issues/2722), the rest once it limits the time of a head.
"""

import os
import socket
from asyncio import Transport
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, cast

import anyio
from httptools import HttpParserUpgrade, HttpRequestParser
from mcp.types import INTERNAL_ERROR, INVALID_REQUEST
from pydantic import JsonValue
from pydantic_core import from_json
from starlette.responses import JSONResponse
from starlette.types import Message, Receive
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fastn_mcp.server.stdio import unread_bytes

ARRIVES = 30.0
"""Seconds for a request to arrive, counted from its first byte or from the opening of its connection."""

_MAX_PIPELINED = 16
"""Pipelined requests of one connection that may wait."""

_HOSTS = {"1.0": (0, 1), "1.1": (1,)}
"""Allowed numbers of Host headers by HTTP version (RFC 9112, 3.2)."""

LOST = "fastn_mcp.lost"
"""Scope key of the event that is set if the client did not receive what was written to it."""

_UPGRADE_HEADERS = (b"connection", b"upgrade", b"http2-settings")


class TooManyPipelined(Exception):
    """More pipelined requests than may wait."""


class AmbiguousHead(Exception):
    """Ambiguous head: unsupported HTTP version, or the wrong number of Host headers."""


def _never() -> bool:
    return False


def bounded(
    head: int, arrives: float = ARRIVES, always: Collection[bytes] = (), is_leaving: Callable[[], bool] = _never
) -> type[HttpToolsProtocol]:
    """Return a protocol class that reads at most `head` bytes (and one read more) without a whole head or body data.

    The limit covers request lines, headers, addresses, chunk extensions and trailers. `always` are the paths of probes,
    which are answered whatever the number of connections, since a full process is still alive. Once `is_leaving`, each
    response closes its connection, so that a load balancer does not reuse one that is about to end.
    """
    bounds = {"head": head, "arrives": arrives, "always": frozenset(always), "is_leaving": staticmethod(is_leaving)}
    return type("Bounded", (_Bounded,), bounds)


class _Bounded(HttpToolsProtocol):
    head: int
    arrives: float
    always: frozenset[bytes]
    is_leaving: Callable[[], bool]
    _unread = 0
    _in_head = False
    _since: float | None = None
    """Start of the request that is still arriving, by the loop's clock."""

    @override
    def connection_made(self, transport: Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self.parser = _NoUpgradeParser(self)
        self._since = self.loop.time()
        self._timer = self.loop.call_later(self.arrives, self._check_arrival)
        self._lost = anyio.Event()

    @override
    def eof_received(self) -> None:
        # The response may still complete before the connection is lost, but nothing written from now on arrives.
        if self._busy():
            self._lost.set()
        super().eof_received()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        if exc is not None or self._busy() or _unread(self.transport):
            self._lost.set()
        super().connection_lost(exc)

    @override
    def data_received(self, data: bytes) -> None:
        self._unread += len(data)
        super().data_received(data)
        if self._unread > self.head and not self.transport.is_closing():
            self.send_400_response(f"More than {self.head} bytes of a head.")

    @override
    def on_message_begin(self) -> None:
        self._since = self.loop.time()
        self._in_head = True
        super().on_message_begin()

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        # Ignore trailers: they come after the head was checked (RFC 9110, 6.5.1).
        if self._in_head:
            # Whitespace around a value is not part of it (RFC 9110, 5.5). The parser keeps the trailing whitespace.
            super().on_header(name, value.rstrip(b" \t"))

    @override
    def on_headers_complete(self) -> None:
        self._unread = 0
        self._in_head = False
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts not in _HOSTS.get(self.parser.get_http_version(), ()):
            raise AmbiguousHead
        if self._wants_upgrade():
            return
        if len(self.pipeline) >= _MAX_PIPELINED:
            raise TooManyPipelined
        limit = self.limit_concurrency
        if self.url in self.always:
            self.limit_concurrency = None
        super().on_headers_complete()
        cast("dict[str, object]", self.cycle.scope)[LOST] = self._lost
        self.limit_concurrency = limit
        if self.is_leaving():
            self.cycle.keep_alive = False

    @override
    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        self._unread = 0
        if self._wants_upgrade():
            return
        self._since = None
        super().on_message_complete()

    def without_upgrade(self) -> bytes:
        """Rebuild the head that was read, without the headers that request an upgrade."""
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % pair for pair in self.headers if pair[0] not in _UPGRADE_HEADERS]
        if not self.parser.should_keep_alive():
            self.parser = HttpRequestParser(self)  # the old parser accepts no further request
            lines.append(b"connection: close")
        return b"\r\n".join([*lines, b"", b""])

    def _wants_upgrade(self) -> bool:
        # CONNECT asks for a tunnel, so there is no plain request to go on with. It is rejected as it is.
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _check_arrival(self) -> None:
        """Close the connection if its request takes too long to arrive, else check again later."""
        now, wait = self.loop.time(), self.arrives
        if self._since is not None:
            if self._busy():
                self._since = now  # the server is busy, not the client slow; closing would cancel the call
            wait = self._since + self.arrives - now
            if wait <= 0:
                self.transport.close()
                return
        self._timer = self.loop.call_later(wait, self._check_arrival)

    def _busy(self) -> bool:
        """Whether a complete request is being answered or reading is paused."""
        last = cast("RequestResponseCycle | None", self.cycle)  # None before the first request, despite its type
        answering = last is not None and not (last.response_complete or last.more_body)
        return bool(self.pipeline) or answering or self.flow.read_paused


def _unread(transport: Transport) -> bool:
    """Whether the client closed the connection before it received everything that was written."""
    connection = transport.get_extra_info("socket")
    if connection is None:
        return False
    with socket.socket(fileno=os.dup(connection.fileno())) as same:  # uvloop's socket has no getsockopt
        return same.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0 or unread_bytes(same.fileno()) > 0


class _NoUpgradeParser(HttpRequestParser):
    """Parser that ignores upgrade requests and goes on with HTTP/1.1."""

    def __init__(self, protocol: _Bounded) -> None:
        super().__init__(protocol)
        self._protocol = protocol
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it

    @override
    def feed_data(self, data: bytes) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        while True:
            try:
                return super().feed_data(data)
            except HttpParserUpgrade as upgrade:
                data = self._protocol.without_upgrade() + data[upgrade.args[0] :]
                if self._protocol.parser is not self:
                    return self._protocol.parser.feed_data(data)


class RequestRejected(Exception):
    """Request rejected before it reached a handler. Nothing was sent."""

    def __init__(
        self, status: int, message: str, code: int = INVALID_REQUEST, headers: dict[str, str] | None = None,
        facts: dict[str, JsonValue] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self._status = status
        self._error: dict[str, JsonValue] = {"code": code, "message": f"{message} Nothing was sent."}
        if facts:
            self._error["data"] = {"outcome": "refused", **facts}
        self._headers = {"Cache-Control": "no-store"} | (headers or {})

    def response(self, id_: str | int | None) -> JSONResponse:
        """Return the JSON-RPC error for the request of this id, since clients show its message."""
        body = {"jsonrpc": "2.0", "id": id_, "error": self._error}
        return JSONResponse(body, self._status, self._headers)


def unavailable(message: str, seconds: int) -> RequestRejected:
    """Return a 503 rejection that allows a retry after `seconds`."""
    return RequestRejected(503, message, INTERNAL_ERROR, {"Retry-After": str(seconds)})


_BODY_SECONDS = 10.0
"""Seconds for a body to arrive."""


async def read(receive: Receive, largest: int) -> bytes:
    """Read a body. Raises `RequestRejected` if it is too large or too slow, or the client disconnects."""
    body = bytearray()
    with anyio.move_on_after(_BODY_SECONDS):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise RequestRejected(400, "The request was cut off.")
            body += message.get("body", b"")
            if len(body) > largest:
                raise RequestRejected(413, f"The request is larger than {largest} bytes.")
            if not message.get("more_body", False):
                return bytes(body)
    raise RequestRejected(408, "The request took too long to arrive.")


def body_message(body: bytes) -> Message:
    """Return the ASGI message of a complete body."""
    return {"type": "http.request", "body": body, "more_body": False}


def replay(first: Message, receive: Receive) -> Receive:
    """Return a `receive` that replays `first` and then receives as before."""
    is_replayed = False

    async def receive_again() -> Message:
        nonlocal is_replayed
        if is_replayed:
            return await receive()
        is_replayed = True
        return first

    return receive_again


@dataclass(frozen=True, slots=True)
class Summary:
    """Id and tool call of a request, as far as they can be parsed. The request itself is not validated."""

    id: str | int | None = None
    tool: str | None = None
    arguments: dict[str, Any] | None = None


def summarize(body: bytes) -> Summary:
    """Parse the id and the tool call of any body. Invalid parts are None."""
    try:
        message: object = from_json(body)
    except (ValueError, RecursionError):
        return Summary()
    if not isinstance(message, dict):
        return Summary()
    fields = cast("dict[str, object]", message)
    id_ = fields.get("id")
    request_id = id_ if isinstance(id_, (str, int)) and not isinstance(id_, bool) else None
    params = fields.get("params")
    if fields.get("method") != "tools/call" or not isinstance(params, dict):
        return Summary(request_id)
    call = cast("dict[str, object]", params)
    name, values = call.get("name"), call.get("arguments")
    arguments = cast("dict[str, Any]", values) if isinstance(values, dict) else None
    return Summary(request_id, name if isinstance(name, str) else None, arguments)
