"""Respond with JSON, or with an SSE stream if a request takes long or needs one.

The SDK supports only one mode per server. A stream costs a third of a request, for the tasks around it. A JSON response
does not notice a client that disconnects and sends no keep-alive to a waiting proxy. Here a response that takes long
becomes a stream with one event.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from math import inf
from typing import Any

import anyio
from mcp.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastn_mcp.channels.connections import LOST
from fastn_mcp.guard.journal import ResponseDelivery, delivery
from fastn_mcp.hosted.request_limits import replay
from fastn_mcp.hosted.single_calls import SingleCalls

_STREAM_MARKS = (b"progressToken", b"logLevel", b"subscriptions/listen")
"""Markers of a request whose client expects more messages than its response."""
_WATCH_AFTER = 0.05
"""Seconds before a request gets a watcher task. Most are answered by then, and a task costs a twentieth of one."""
_SILENCE = 15.0
"""Seconds without a response until a keep-alive: the SDK's interval for streams. Proxies close after 60."""
_RECORDED = 10.0
"""Seconds at the end for cancelled requests to record their outcome."""
_PING = b": ping\r\n\r\n"
_STREAM = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


def add_lifespan(app: Starlette, resources: Callable[[], AbstractAsyncContextManager[object]]) -> None:
    """Add resources to the lifespan of `app`. They open before its existing ones and close after them."""
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[Any]:
        async with resources(), inner(app) as state:
            yield state

    app.router.lifespan_context = lifespan


def choose_response_mode(
    app: Starlette, server: Server[Any], security: TransportSecuritySettings, silence: float = _SILENCE
) -> None:
    """Choose the response mode per request of `app`, which the SDK built for `server`."""
    streamed = server.session_manager
    whole = StreamableHTTPSessionManager(
        server,
        json_response=True,
        stateless=True,
        security_settings=security,
        max_request_body_size=streamed.max_request_body_size,
    )
    single = SingleCalls(server, security, whole.max_request_body_size, whole.asgi_app)
    mode = ResponseMode(streamed.asgi_app, single, silence)
    # Replaces the inner app and does not wrap `app`, so that authentication still runs first.
    vars(streamed)["asgi_app"] = mode
    add_lifespan(app, whole.run)
    add_lifespan(app, mode.all_ended)


STREAM_PROBE = "/stream"
"""Path below MCP of a short stream, by which doctor sees whether a proxy passes each part on at once."""
PROBE_SECONDS = 0.5


async def stream_probe(_: Request) -> StreamingResponse:
    """Answer with two keep-alives, `PROBE_SECONDS` apart. It needs no token, and holds nothing."""

    async def pings() -> AsyncGenerator[bytes]:
        yield _PING
        await anyio.sleep(PROBE_SECONDS)
        yield _PING

    return StreamingResponse(pings(), headers={name.decode(): value.decode() for name, value in _STREAM})


class ResponseMode:
    """ASGI app that passes each request to `streamed` or to `whole`."""

    def __init__(self, streamed: ASGIApp, whole: ASGIApp, silence: float = _SILENCE) -> None:
        self._streamed = streamed
        self._whole = whole
        self._silence = silence
        self._under_way = 0
        self._none_left = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await self._streamed(scope, receive, send)
            return
        response, is_complete = ResponseDelivery(scope.get(LOST)), False

        async def sent(message: Message) -> None:
            nonlocal is_complete
            await send(message)
            is_complete = message["type"] == "http.response.body" and not message.get("more_body")

        token = delivery.set(response)
        self._under_way += 1
        try:
            await self._answer(scope, receive, sent)
            if is_complete:
                await response.written()
        finally:
            delivery.reset(token)
            self._under_way -= 1
            if not self._under_way:
                self._none_left.set()

    @asynccontextmanager
    async def all_ended(self) -> AsyncGenerator[None]:
        """At the end, wait until cancelled requests have recorded their outcome: what they need closes after that."""
        yield
        self._none_left = anyio.Event()
        if self._under_way:
            with anyio.move_on_after(_RECORDED, shield=True):
                await self._none_left.wait()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = await receive()
        body = first.get("body", b"")
        if first["type"] != "http.request" or first.get("more_body") or any(mark in body for mark in _STREAM_MARKS):
            await self._streamed(scope, replay(first, receive), send)
            return
        response = _Response(send, self._silence if _reads_streams(scope) else inf)
        with _watched(receive, response):
            await self._whole(scope, replay(first, _never_receive), response.send)


async def _never_receive() -> Message:
    await anyio.sleep_forever()
    raise AssertionError


def _reads_streams(scope: Scope) -> bool:
    return any(name == b"accept" and b"text/event-stream" in value.lower() for name, value in scope["headers"])


class _Response:
    """One response. After a keep-alive it is a stream whose only event is the response."""

    def __init__(self, send: Send, silence: float) -> None:
        self.silence = silence
        self._send = send
        self._has_begun = False
        self._is_stream = False
        self._body = b""
        self._sending = anyio.Lock()

    async def send(self, message: Message) -> None:
        """Send a message of the SDK's JSON response, converted to an event if the stream has started."""
        self._has_begun = True
        if not self._is_stream:
            await self._send(message)
        elif message["type"] == "http.response.body":
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                async with self._sending:
                    event = b"event: message\r\ndata: " + self._body + b"\r\n\r\n"
                    await self._send({"type": "http.response.body", "body": event})

    async def keep_alive(self) -> None:
        """Send an SSE keep-alive if no response has started."""
        if self._has_begun:
            return
        async with self._sending:
            if not self._is_stream:
                self._is_stream = True
                await self._send({"type": "http.response.start", "status": 200, "headers": _STREAM})
            await self._send({"type": "http.response.body", "body": _PING, "more_body": True})


@contextmanager
def _watched(receive: Receive, response: _Response) -> Generator[None]:
    """Cancel the request if its client disconnects, and send keep-alives while it runs."""
    loop = asyncio.get_running_loop()
    watcher: asyncio.Task[None] | None = None

    def watch() -> None:
        nonlocal watcher
        watcher = loop.create_task(_watch(receive, response, request))

    with anyio.CancelScope() as request:
        later = loop.call_later(_WATCH_AFTER, watch)
        try:
            yield
        finally:
            later.cancel()
            if watcher is not None:
                watcher.cancel()


async def _watch(receive: Receive, response: _Response, request: anyio.CancelScope) -> None:
    while True:
        message: Message | None = None
        with anyio.move_on_after(response.silence):
            message = await receive()
        if message is None:
            await response.keep_alive()
        elif message["type"] == "http.disconnect":
            request.cancel()
            return
