"""HTTP servers: time for a request to arrive, number of connections, and whether a response was received.

Each connection wraps uvicorn's h11 protocol by asyncio's interface of protocols, and the application by ASGI. uvicorn's
own settings limit the head of a request. A proxy sets tighter limits (deploy/nginx.conf); these hold without one.
"""

import asyncio
import logging
import os
import socket
import sys
from asyncio import Transport
from collections.abc import Callable, Collection
from contextlib import nullcontext
from contextvars import Context
from typing import Any, cast

import anyio
import uvicorn
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol

from fastn_mcp.runtime import unread_bytes

ARRIVAL_TIMEOUT = 30.0
"""Seconds for a request to arrive, counted from its first byte or from the opening of its connection."""

RESPONSE_LOST = "fastn_mcp.lost"
"""Scope key of the event that is set if the client did not receive what was written to it."""

_MAX_CONNECTIONS = 64
"""Maximum connections of a background server. Any program on this machine can open idle ones; they must not lock out a
person's browser."""

_HEAD = 16_384
"""Of a background server: bytes of a request's head."""

_GRACE = 2
"""Of a background server: seconds for open requests to finish on shutdown."""

_FRAMING = (b"content-length", b"transfer-encoding")


def _is_no_warning(record: logging.LogRecord) -> bool:
    """Filter uvicorn's warnings, which clients cause: invalid heads, and upgrades that are ignored."""
    return record.levelno != logging.WARNING


class ConnectionLimits:
    """Open connections of one server. As ASGI middleware it observes their requests.

    At `most` connections the oldest idle one closes in favor of a new one, or else the oldest one whose request is
    incomplete, so that neither keeps new clients out. If all of them are answering, requests get 503, except those of
    `always`: the probes of a process that is only full. Once `is_leaving`, each response closes its connection, so that
    a load balancer does not reuse it.
    """

    def __init__(
        self,
        app: ASGIApp,
        most: int,
        arrives: float = ARRIVAL_TIMEOUT,
        always: Collection[str] = (),
        is_leaving: Callable[[], bool] = lambda: False,
    ) -> None:
        self._app = app
        self._most = most
        self._arrives = arrives
        self._always = frozenset(always)
        self._is_leaving = is_leaving
        self._open: dict[object, _Connection] = {}
        """By address of the client, which the scope of a request has too."""

    def config(self, head: int, **options: Any) -> uvicorn.Config:
        """Return the uvicorn settings that all HTTP servers of this package share. They log through our log.

        `head` limits the bytes of everything without a declared length: lines, headers, chunk extensions, trailers.
        """
        logging.getLogger("uvicorn.error").addFilter(_is_no_warning)
        return uvicorn.Config(
            self,
            http=cast("type[asyncio.Protocol]", self._connection),
            h11_max_incomplete_event_size=head,
            ws="none",
            log_config=None,
            log_level=None,
            access_log=False,  # an address can contain a key
            server_header=False,
            proxy_headers=False,
            **options,
        )

    def _connection(self, **options: Any) -> "_Connection":
        return _Connection(H11Protocol(**options), self._open, self._most, self._arrives)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        connection = self._open.get(tuple(scope.get("client") or ()))
        if scope["type"] != "http" or connection is None:
            return await self._app(scope, receive, send)
        request = object()
        connection.begin(request, has_body=any(name in _FRAMING for name, _ in scope["headers"]))

        async def receive_noted() -> Message:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                connection.arrived(request)
            return message

        async def send_noted(message: Message) -> None:
            if message["type"] == "http.response.start" and self._is_leaving():
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                connection.end(request)

        app = self._app
        if len(self._open) > self._most and scope["path"] not in self._always:
            app = PlainTextResponse("Too many connections. Nothing was sent.", 503, {"Connection": "close"})
        try:
            await app({**scope, RESPONSE_LOST: connection.lost}, receive_noted, send_noted)
        finally:
            connection.end(request)


async def read_body(request: Request, largest: int) -> bytes | None:
    """Return the body; None if it is larger, or the client disconnects. `ConnectionLimits` closes a slow one."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > largest:
                return None
    except ClientDisconnect:
        return None
    return bytes(body)


class _Connection(asyncio.Protocol):
    """One connection: passes everything on to uvicorn's protocol, and notes when its requests begin and end."""

    def __init__(self, inner: asyncio.Protocol, others: "dict[object, _Connection]", most: int, arrives: float) -> None:
        self.lost = asyncio.Event()
        self._inner = inner
        self._others = others
        self._most = most
        self._arrives = arrives
        self._loop = asyncio.get_running_loop()
        self._since: float | None = self._loop.time()
        """Start of the request that is still arriving."""
        self._answering: object = None
        """The request that is being answered."""
        self._has_more = False
        """Whether bytes arrived behind the request that is being answered."""

    def begin(self, request: object, *, has_body: bool) -> None:
        self._answering = request
        self._has_more = False
        if not has_body:
            self._since = None
        elif self._since is None:
            self._since = self._loop.time()

    def arrived(self, request: object) -> None:
        if self._answering is request:
            self._since = None
            self._has_more = False

    def end(self, request: object) -> None:
        if self._answering is request:
            self._answering = None
            if self._since is not None or self._has_more:
                self._since = self._loop.time()

    @property
    def is_answering(self) -> bool:
        """Whether a complete request has no complete response yet."""
        return self._answering is not None and self._since is None

    @override
    def connection_made(self, transport: Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._transport = transport
        self._key = tuple((transport.get_extra_info("peername") or ())[:2])
        if len(self._others) >= self._most:
            unanswered = (each for each in self._others.values() if not each.is_answering)
            oldest = min(unanswered, key=lambda each: each._answering is not None, default=None)  # idle ones first
            if oldest is not None:
                oldest.close()
        self._others[self._key] = self
        self._timer = self._loop.call_later(self._arrives, self._check_arrival)
        self._inner.connection_made(transport)

    def close(self) -> None:
        """Close the connection in favor of a new one."""
        self._others.pop(self._key, None)
        self._transport.close()

    @override
    def data_received(self, data: bytes) -> None:
        if self._answering is None:
            self._since = self._since or self._loop.time()
        else:
            self._has_more = True
        self._inner.data_received(data)

    @override
    def eof_received(self) -> bool | None:
        # The response may still complete before the connection is lost, but nothing written from now on arrives.
        if self.is_answering:
            self.lost.set()
        return self._inner.eof_received()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._timer.cancel()
        if self._others.get(self._key) is self:
            del self._others[self._key]
        if exc is not None or self.is_answering or _is_unread(self._transport):
            self.lost.set()
        self._inner.connection_lost(exc)

    @override
    def pause_writing(self) -> None:
        self._inner.pause_writing()

    @override
    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def _check_arrival(self) -> None:
        """Close the connection if its request takes too long to arrive, else check again later."""
        now = self._loop.time()
        wait = self._arrives
        if self._since is not None:
            wait = self._since + self._arrives - now
            if wait <= 0:
                self._transport.close()
                return
        self._timer = self._loop.call_later(wait, self._check_arrival)


def _is_unread(transport: Transport) -> bool:
    """Whether the client closed the connection before it received everything that was written."""
    connection = transport.get_extra_info("socket")
    if connection is None or sys.platform == "win32":  # sockets are not file descriptors on Windows
        return False
    with socket.socket(fileno=os.dup(connection.fileno())) as same:  # uvloop's socket has no getsockopt
        return same.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0 or unread_bytes(same.fileno()) > 0


class _BackgroundServer(uvicorn.Server):
    """Server that leaves signal handling to its process."""

    def capture_signals(self) -> nullcontext[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return nullcontext()


class BackgroundServer:
    """Application served by a background task on a socket that already listens."""

    def __init__(self, app: ASGIApp, listening: socket.socket, name: str) -> None:
        config = ConnectionLimits(app, _MAX_CONNECTIONS).config(
            _HEAD, lifespan="off", timeout_keep_alive=5, timeout_graceful_shutdown=_GRACE
        )
        config.load()
        self._server = _BackgroundServer(config)
        # In an empty context, so that requests do not inherit the context variables of the call that started it.
        self._task = asyncio.create_task(self._server.serve([listening]), name=name, context=Context())

    @property
    def ended(self) -> bool:
        return self._task.done()

    async def stop(self) -> None:
        """Stop once open requests are answered or the grace period is over."""
        self._server.should_exit = True
        with anyio.CancelScope(shield=True):  # the process may be shutting down; the grace period bounds this
            await self._task
