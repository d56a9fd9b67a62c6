"""A request is answered in one piece where only its answer is wanted, and by a stream where more may come of it.

The SDK has it one way or the other for a whole server. A stream costs a third of a request, for the tasks around it; an
answer in one piece takes no notice of a client that has left, which is therefore watched for here.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
from mcp.server import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_WANT_MORE = (b"progressToken", b"logLevel", b"subscriptions/listen")
"""What stands in a request whose client wants to hear more than its answer."""
_MOMENT = 0.05
"""Seconds until a request is watched: most are answered by then, and a task for each is a twentieth of its cost."""


def answered(app: Starlette, server: Server[Any], security: TransportSecuritySettings) -> None:
    """Have the requests of `app`, which the SDK made for `server`, answered so."""
    streamed = server.session_manager
    whole = StreamableHTTPSessionManager(
        server,
        json_response=True,
        stateless=True,
        security_settings=security,
        max_request_body_size=streamed.max_request_body_size,
    )
    # Not around the application: whoever stands before the SDK, to see who is calling, stands before this too.
    vars(streamed)["asgi_app"] = Answering(streamed.asgi_app, whole.asgi_app)
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def living(app: Starlette) -> AsyncGenerator[Any]:
        async with whole.run(), inner(app) as state:
            yield state

    app.router.lifespan_context = living


class Answering:
    """One request, handled by `streamed` or by `whole`."""

    def __init__(self, streamed: ASGIApp, whole: ASGIApp) -> None:
        self._streamed = streamed
        self._whole = whole

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await self._streamed(scope, receive, send)
            return
        first = await receive()
        if first["type"] != "http.request" or first.get("more_body") or _wants_more(first.get("body", b"")):
            await self._streamed(scope, _from(first, receive), send)
            return
        with _ended_by_leaving(receive):
            await self._whole(scope, _from(first, _nothing), send)


def _wants_more(body: bytes) -> bool:
    return any(sign in body for sign in _WANT_MORE)


def _from(first: Message, receive: Receive) -> Receive:
    """What was received already, and from then on what comes."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return first

    return again


async def _nothing() -> Message:
    await anyio.sleep_forever()
    raise AssertionError


@contextmanager
def _ended_by_leaving(receive: Receive) -> Generator[None]:
    loop = asyncio.get_running_loop()
    watcher: asyncio.Task[None] | None = None

    def watch() -> None:
        nonlocal watcher
        watcher = loop.create_task(_cancel_once_left(receive, request))

    with anyio.CancelScope() as request:
        later = loop.call_later(_MOMENT, watch)
        try:
            yield
        finally:
            later.cancel()
            if watcher is not None:
                watcher.cancel()


async def _cancel_once_left(receive: Receive, request: anyio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    request.cancel()
