"""The MCP endpoint: answers a request with JSON, or with a stream if it takes long or needs one.

The SDK has one mode for each session manager. A stream costs a third of a request, for the tasks around it. A JSON
response does not notice a client that disconnects and sends no keep-alive to a waiting proxy. Here a response that
takes long becomes a stream with one event.

Plain tool calls of 2025-11-25 and earlier are answered without a session manager, as the SDK answers those of
2026-07-28: it would open a session for each, with five memory streams and three task groups. With 64 in flight a call
takes a quarter less CPU time this way. `PlainCalls` can go once the SDK does the same.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any

import anyio
from mcp import types
from mcp.server import Server
from mcp.server.connection import Connection
from mcp.server.runner import serve_one
from mcp.server.streamable_http import check_accept_headers
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import (
    DEFAULT_MAX_REQUEST_BODY_SIZE,
    TransportSecurityMiddleware,
    TransportSecuritySettings,
)
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.shared.jsonrpc_dispatcher import handler_exception_to_error_data
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp_types import DEFAULT_NEGOTIATED_VERSION
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastn_mcp.channels.http_server import RESPONSE_LOST
from fastn_mcp.server.context import DELIVERY, ResponseDelivery
from fastn_mcp.server.http.requests import replay

log = logging.getLogger(__name__)

_STREAM_MARKS = (b"progressToken", b"logLevel", b"subscriptions/listen")
"""Markers of a request whose client expects more messages than its response."""
_WATCH_AFTER = 0.05
"""Seconds before a request gets a watcher task. Most are answered by then, and a task costs a twentieth of one."""
_KEEP_ALIVE_SECONDS = 15.0
"""Seconds without a response until a keep-alive: the SDK's interval for streams. Proxies close after 60."""
_RECORD_SECONDS = 10.0
"""Seconds at the end for cancelled requests to record their outcome."""
_PING = b": ping\r\n\r\n"
_EVENTS = b"text/event-stream"
_STREAM = [
    (b"content-type", _EVENTS),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]

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


class McpEndpoint:
    """The endpoint of a server. `app` serves requests while `run` is open."""

    def __init__(
        self,
        server: Server[Any],
        security: TransportSecuritySettings,
        max_body: int = DEFAULT_MAX_REQUEST_BODY_SIZE,
        silence: float = _KEEP_ALIVE_SECONDS,
    ) -> None:
        """`max_body` limits the body, in bytes. `silence`: seconds without a response until a keep-alive."""
        self._streamed, self._whole = (
            StreamableHTTPSessionManager(
                server,
                json_response=is_json,
                stateless=True,
                security_settings=security,
                max_request_body_size=max_body,
            )
            for is_json in (False, True)
        )
        whole = PlainCalls(server, security, max_body, self._whole.handle_request)
        self.app = ResponseMode(self._streamed.handle_request, whole, silence)

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        async with self.app.all_ended(), self._whole.run(), self._streamed.run():
            yield


class ResponseMode:
    """ASGI app that passes each request to `streamed` or to `whole`."""

    def __init__(self, streamed: ASGIApp, whole: ASGIApp, silence: float = _KEEP_ALIVE_SECONDS) -> None:
        self._streamed = streamed
        self._whole = whole
        self._silence = silence
        self._under_way = 0
        self._none_left = anyio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await self._streamed(scope, receive, send)
            return
        delivery = ResponseDelivery(scope.get(RESPONSE_LOST))
        is_complete = False

        async def sent(message: Message) -> None:
            nonlocal is_complete
            await send(message)
            is_complete = message["type"] == "http.response.body" and not message.get("more_body")

        self._under_way += 1
        try:
            await self._answer({**scope, DELIVERY: delivery}, receive, sent)
            if is_complete:
                await delivery.written()
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._none_left.set()

    @asynccontextmanager
    async def all_ended(self) -> AsyncGenerator[None]:
        """At the end, wait until cancelled requests have recorded their outcome: what they need closes after that."""
        yield
        self._none_left = anyio.Event()
        if self._under_way:
            with anyio.move_on_after(_RECORD_SECONDS, shield=True):
                await self._none_left.wait()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = await receive()
        body = first.get("body", b"")
        if first["type"] != "http.request" or first.get("more_body") or any(mark in body for mark in _STREAM_MARKS):
            await self._streamed(scope, replay(first, receive), send)
            return
        reads_streams = any(name == b"accept" and _EVENTS in value.lower() for name, value in scope["headers"])
        response = _PlainResponse(send, self._silence if reads_streams else inf)
        with _watched(receive, response):
            await self._whole(scope, replay(first, _never_receive), response.send)


async def _never_receive() -> Message:
    await anyio.sleep_forever()
    raise AssertionError


class _PlainResponse:
    """One response. After a keep-alive it is a stream whose only event is the response."""

    def __init__(self, send: Send, silence: float) -> None:
        self.silence = silence
        self._send = send
        self._has_begun = False
        self._is_stream = False
        self._body = b""
        self._sending = asyncio.Lock()

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
def _watched(receive: Receive, response: _PlainResponse) -> Generator[None]:
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


async def _watch(receive: Receive, response: _PlainResponse, request: anyio.CancelScope) -> None:
    while True:
        message: Message | None = None
        with anyio.move_on_after(response.silence):
            message = await receive()
        if message is None:
            await response.keep_alive()
        elif message["type"] == "http.disconnect":
            request.cancel()
            return


@dataclass
class _PlainRequest:
    """Dispatch context of one request. The client gets its response and nothing else."""

    request_id: types.RequestId
    message_metadata: ServerMessageMetadata
    transport: TransportContext = field(
        default_factory=lambda: TransportContext(kind="streamable-http", can_send_request=False)
    )
    can_send_request: bool = False
    cancel_requested: anyio.Event = field(default_factory=anyio.Event)

    async def send_raw_request(
        self,
        method: str,
        params: Mapping[str, Any] | None,  # noqa: ARG002 - the SDK's interface
        opts: CallOptions | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Discard a notification: a JSON response has no room for it."""

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        """Discard progress: a request with a progress token gets a stream."""


class PlainCalls:
    """ASGI app that answers plain tool calls, and passes everything else to `otherwise`, an app of the SDK."""

    def __init__(
        self, server: Server[Any], security: TransportSecuritySettings, max_body: int, otherwise: ASGIApp
    ) -> None:
        self._server = server
        self._security = TransportSecurityMiddleware(security)
        self._max_body = max_body
        self._otherwise = otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        first = await receive()
        request = Request(scope, receive)
        version = request.headers.get(MCP_PROTOCOL_VERSION_HEADER, DEFAULT_NEGOTIATED_VERSION)
        call = None
        if version in HANDSHAKE_PROTOCOL_VERSIONS and await self._is_valid(request):
            call = self._call_in(first)
        if call is None:
            await self._otherwise(scope, replay(first, receive), send)
            return
        context = _PlainRequest(call.id, ServerMessageMetadata(request_context=request, can_send_request=False))
        connection = Connection.from_envelope(version, None, None)
        try:
            result = await serve_one(
                self._server, context, call.method, call.params, connection=connection, lifespan_state={}
            )
            answer = types.JSONRPCResponse(jsonrpc="2.0", id=call.id, result=result)
        except Exception as error:
            answer = types.JSONRPCError(jsonrpc="2.0", id=call.id, error=_error_data(error))
        text = answer.model_dump_json(by_alias=True, exclude_unset=True)
        await Response(text, media_type="application/json")(scope, receive, send)

    async def _is_valid(self, request: Request) -> bool:
        """Return whether the SDK would accept the headers."""
        is_json = request.headers.get("content-type", "").partition(";")[0].strip() == "application/json"
        return is_json and check_accept_headers(request)[0] and await self._security.validate_request(request) is None

    def _call_in(self, message: Message) -> types.JSONRPCRequest | None:
        """Return the tool call in a complete and valid body."""
        body = message.get("body", b"")
        if message["type"] != "http.request" or message.get("more_body") or len(body) > self._max_body:
            return None
        try:
            parsed = types.jsonrpc_message_adapter.validate_python(from_json(body), by_name=False)
        except (ValueError, RecursionError):
            return None
        return parsed if isinstance(parsed, types.JSONRPCRequest) and parsed.method == "tools/call" else None


def _error_data(error: Exception) -> types.ErrorData:
    """Return the error for the client. Only the log says what failed in the server."""
    known = handler_exception_to_error_data(error)
    if known is not None:
        return known
    log.exception("a tool call failed")
    return types.ErrorData(code=types.INTERNAL_ERROR, message="Internal server error")
