"""Bounds on requests: bytes and time of the head (httptools has none), the size of a body, and how one is rejected.

What asks to speak another protocol is answered in this one, body and all: to the parser its body would be the next
request, and whoever shares the connection would get the answer.

A subclass of uvicorn's protocol, which has no public place for this. httptools takes a tenth off a request over HTTP.
With uvicorn's other parser, h11, and its bound on the head, 17 of the 28 tests in tests/hosted/test_heads.py fail: a
request may take for ever to arrive, no bound holds for requests that wait on one connection, probes are refused when it
is full, and nobody learns that an answer was not received. What declines upgrades can go once uvicorn delivers their
bodies (https://github.com/Kludex/uvicorn/issues/2722), the rest once it bounds the time of a head.
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

from fastn_mcp.server.stdio import queued

ARRIVES = 30.0
"""Seconds for a request to arrive, from its first byte or the opening of its connection."""

_AT_ONCE = 16
"""Requests of one connection that wait for their turn."""

_HOSTS = {"1.0": (0, 1), "1.1": (1,)}
"""How many Hosts a request of each version has (RFC 9112, 3.2)."""

LOST = "fastn_mcp.lost"
"""In a request's scope: what is set when its client is found not to have received what was written to it."""

_OF_THE_CONNECTION = (b"connection", b"upgrade", b"http2-settings")


class TooManyAtOnce(Exception):
    """More requests came at once than wait for their turn."""


class NoRequest(Exception):
    """A head that another reader would take for something else: of another version, or for no host or several."""


def _never() -> bool:
    return False


def bounded(
    head: int, arrives: float = ARRIVES, always: Collection[bytes] = (), is_leaving: Callable[[], bool] = _never
) -> type[HttpToolsProtocol]:
    """A protocol that takes at most `head` bytes, and the rest of one read, without a whole head or a part of a body.

    So it holds for a line, for lines, for an address, for a chunk's extensions and for what follows a body. `always`
    are the addresses of probes, which are answered however many connections there are: a process that is full is alive.
    Once `is_leaving`, each answer is the last of its connection, so that a balancer uses none that is about to end.
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
    """When the request began to arrive that has not arrived yet."""

    @override
    def connection_made(self, transport: Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        self.parser = _Declining(self)
        self._since = self.loop.time()
        self._later = self.loop.call_later(self.arrives, self._look)
        self._lost = anyio.Event()

    @override
    def eof_received(self) -> None:
        # Before the connection is lost, a response may still be complete: what is written from now on goes nowhere.
        if self._busy():
            self._lost.set()
        super().eof_received()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._later.cancel()
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
        # What comes after a body is no header: whoever checked the head has not seen it (RFC 9110, 6.5.1).
        if self._in_head:
            # What stands around a value is none of it (RFC 9110, 5.5); the parser leaves what stands behind.
            super().on_header(name, value.rstrip(b" \t"))

    @override
    def on_headers_complete(self) -> None:
        self._unread = 0
        self._in_head = False
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts not in _HOSTS.get(self.parser.get_http_version(), ()):
            raise NoRequest
        if self._asks_for_another():
            return
        if len(self.pipeline) >= _AT_ONCE:
            raise TooManyAtOnce
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
        if self._asks_for_another():
            return
        self._since = None
        super().on_message_complete()

    def without_upgrade(self) -> bytes:
        """The head that was read, as of somebody who asks for nothing else."""
        lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%s: %s" % pair for pair in self.headers if pair[0] not in _OF_THE_CONNECTION]
        if not self.parser.should_keep_alive():
            self.parser = HttpRequestParser(self)  # that one has read its last
            lines.append(b"connection: close")
        return b"\r\n".join([*lines, b"", b""])

    def _asks_for_another(self) -> bool:
        # A CONNECT is none that could be answered in this one, and is refused as it stands.
        return self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"

    def _look(self) -> None:
        """Whether what is arriving does so in time."""
        now, wait = self.loop.time(), self.arrives
        if self._since is not None:
            if self._busy():
                self._since = now  # it is not the client that is slow, and a call would end with its connection
            wait = self._since + self.arrives - now
            if wait <= 0:
                self.transport.close()
                return
        self._later = self.loop.call_later(wait, self._look)

    def _busy(self) -> bool:
        """Whether a request that has arrived is being answered, or we read no more for now."""
        last = cast("RequestResponseCycle | None", self.cycle)  # none before the first, whatever its type says
        answering = last is not None and not (last.response_complete or last.more_body)
        return bool(self.pipeline) or answering or self.flow.read_paused


def _unread(transport: Transport) -> bool:
    """Whether the client closed its end before it had all that was written to it."""
    connection = transport.get_extra_info("socket")
    if connection is None:
        return False
    with socket.socket(fileno=os.dup(connection.fileno())) as same:  # uvloop's own has no getsockopt
        return same.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0 or queued(same.fileno()) > 0


class _Declining(HttpRequestParser):
    """Reads on where somebody asks for another protocol."""

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
    """A request that goes no further. Nothing of it was sent anywhere."""

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
        """The JSON-RPC error for the request of this id: clients show its message, and a mere status tells nothing."""
        body = {"jsonrpc": "2.0", "id": id_, "error": self._error}
        return JSONResponse(body, self._status, self._headers)


def unavailable(message: str, seconds: int) -> RequestRejected:
    """The request cannot be served now; it may be repeated after so many seconds."""
    return RequestRejected(503, message, INTERNAL_ERROR, {"Retry-After": str(seconds)})


_PATIENCE = 10.0
"""Seconds for a body to arrive."""


async def read(receive: Receive, largest: int) -> bytes:
    """Raises `RequestRejected` where it is too large or too slow, or the client left."""
    body = bytearray()
    with anyio.move_on_after(_PATIENCE):
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


def whole(body: bytes) -> Message:
    """The message that holds a whole body."""
    return {"type": "http.request", "body": body, "more_body": False}


def again(first: Message, receive: Receive) -> Receive:
    """What was received already, and from then on what really comes."""
    given = False

    async def receive_again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return first

    return receive_again


@dataclass(frozen=True, slots=True)
class RequestLine:
    """What a request asks for, as far as that can be told. Whether it is one of the protocol is for others to say."""

    id: str | int | None = None
    tool: str | None = None
    """The tool that it calls."""
    arguments: dict[str, Any] | None = None


def asked(body: bytes) -> RequestLine:
    """What is in a body, whatever it is."""
    try:
        message: object = from_json(body)
    except (ValueError, RecursionError):
        return RequestLine()
    if not isinstance(message, dict):
        return RequestLine()
    fields = cast("dict[str, object]", message)
    id_ = fields.get("id")
    known = id_ if isinstance(id_, (str, int)) and not isinstance(id_, bool) else None
    params = fields.get("params")
    if fields.get("method") != "tools/call" or not isinstance(params, dict):
        return RequestLine(known)
    called = cast("dict[str, object]", params)
    name, given = called.get("name"), called.get("arguments")
    arguments = cast("dict[str, Any]", given) if isinstance(given, dict) else None
    return RequestLine(known, name if isinstance(name, str) else None, arguments)
