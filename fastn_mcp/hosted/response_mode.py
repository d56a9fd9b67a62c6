"""Respond in one piece, or as a stream once a request takes long or asks for one.

The SDK has it one way or the other for a whole server. A stream costs a third of a request, for the tasks around it; a
response in one piece takes no notice of a client that has left, and gives a proxy that waits for it no sign of life.
Both are therefore seen to here: a response that takes long becomes a stream, and is its one event.
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
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastn_mcp.guard.journal import ResponseDelivery, delivery
from fastn_mcp.hosted.request_limits import LOST, again

_WANT_MORE = (b"progressToken", b"logLevel", b"subscriptions/listen")
"""What stands in a request whose client wants to hear more than its response."""
_MOMENT = 0.05
"""Seconds until a request is watched: most are answered by then, and a task for each is a twentieth of its cost."""
_SILENCE = 15.0
"""Seconds without a response, after which a keep-alive is sent: the SDK's own for streams. Proxies close after 60."""
_PING = b": ping\r\n\r\n"
_STREAM = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


def within(app: Starlette, resources: Callable[[], AbstractAsyncContextManager[object]]) -> None:
    """Have `app` live within these resources: opened before whatever it opens already, and closed after it."""
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[Any]:
        async with resources(), inner(app) as state:
            yield state

    app.router.lifespan_context = lifespan


def choose_response_mode(
    app: Starlette, server: Server[Any], security: TransportSecuritySettings, silence: float = _SILENCE
) -> None:
    """Have the response mode chosen for each request of `app`, which the SDK made for `server`."""
    streamed = server.session_manager
    whole = StreamableHTTPSessionManager(
        server,
        json_response=True,
        stateless=True,
        security_settings=security,
        max_request_body_size=streamed.max_request_body_size,
    )
    # Not around the application: whoever stands before the SDK, to see who is calling, stands before this too.
    vars(streamed)["asgi_app"] = ResponseMode(streamed.asgi_app, whole.asgi_app, silence)
    within(app, whole.run)


class ResponseMode:
    """One request, handled by `streamed` or by `whole`."""

    def __init__(self, streamed: ASGIApp, whole: ASGIApp, silence: float = _SILENCE) -> None:
        self._streamed = streamed
        self._whole = whole
        self._silence = silence

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
        try:
            await self._answer(scope, receive, sent)
        finally:
            delivery.reset(token)
        if is_complete:
            await response.written()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = await receive()
        body = first.get("body", b"")
        if first["type"] != "http.request" or first.get("more_body") or any(sign in body for sign in _WANT_MORE):
            await self._streamed(scope, again(first, receive), send)
            return
        response = _Response(send, self._silence if _reads_streams(scope) else inf)
        with _watched(receive, response):
            await self._whole(scope, again(first, _nothing), response.send)


async def _nothing() -> Message:
    await anyio.sleep_forever()
    raise AssertionError


def _reads_streams(scope: Scope) -> bool:
    return any(name == b"accept" and b"text/event-stream" in value.lower() for name, value in scope["headers"])


class _Response:
    """One response. After too long a silence it is a stream, of which it is the one event."""

    def __init__(self, send: Send, silence: float) -> None:
        self.silence = silence
        self._send = send
        self._has_begun = False
        self._is_stream = False
        self._body = b""
        self._sending = anyio.Lock()

    async def send(self, message: Message) -> None:
        """Send a message of the SDK, which knows nothing of the stream."""
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
    """Cancel a request whose client has left, and keep the connection of one that waits alive."""
    loop = asyncio.get_running_loop()
    watcher: asyncio.Task[None] | None = None

    def watch() -> None:
        nonlocal watcher
        watcher = loop.create_task(_watch(receive, response, request))

    with anyio.CancelScope() as request:
        later = loop.call_later(_MOMENT, watch)
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
