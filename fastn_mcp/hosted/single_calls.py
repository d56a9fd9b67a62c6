"""Answer a tool call of 2025-11-25 and earlier without the SDK's streams and tasks for it.

For each of these requests the SDK opens a session: a transport with five memory streams, and three task groups. A
request of 2026-07-28 it serves directly, as this module does: without it a call over HTTP with 64 in flight takes 35 %
more CPU time. It can be removed once the SDK serves the earlier versions in the same way. Anything but a plain tool
call is left to the SDK.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio
from mcp.server import Server
from mcp.server.connection import Connection
from mcp.server.runner import modern_error_data, serve_one
from mcp.server.streamable_http import check_accept_headers
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.inbound import MCP_PROTOCOL_VERSION_HEADER
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from mcp.types import JSONRPCError, JSONRPCRequest, JSONRPCResponse, RequestId, jsonrpc_message_adapter
from mcp_types import DEFAULT_NEGOTIATED_VERSION
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastn_mcp.hosted.request_limits import replay


@dataclass
class _Exchange:
    """Context of one request. The client gets its response and nothing else."""

    request_id: RequestId
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


class SingleCalls:
    """ASGI app that answers plain tool calls, and passes everything else to `otherwise`, the SDK's own app."""

    def __init__(
        self, server: Server[Any], security: TransportSecuritySettings, largest: int, otherwise: ASGIApp
    ) -> None:
        """`largest` limits the body, in bytes."""
        self._server = server
        self._security = TransportSecurityMiddleware(security)
        self._largest = largest
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
        exchange = _Exchange(call.id, ServerMessageMetadata(request_context=request, can_send_request=False))
        connection = Connection.from_envelope(version, None, None)
        try:
            result = await serve_one(
                self._server, exchange, call.method, call.params, connection=connection, lifespan_state={}
            )
            answer = JSONRPCResponse(jsonrpc="2.0", id=call.id, result=result)
        except Exception as error:
            answer = JSONRPCError(jsonrpc="2.0", id=call.id, error=modern_error_data(error))
        text = answer.model_dump_json(by_alias=True, exclude_unset=True)
        await Response(text, media_type="application/json")(scope, receive, send)

    async def _is_valid(self, request: Request) -> bool:
        """Return whether the SDK would accept the headers."""
        is_json = request.headers.get("content-type", "").partition(";")[0].strip() == "application/json"
        return is_json and check_accept_headers(request)[0] and await self._security.validate_request(request) is None

    def _call_in(self, message: Message) -> JSONRPCRequest | None:
        """Return the tool call in a complete and valid body."""
        body = message.get("body", b"")
        if message["type"] != "http.request" or message.get("more_body") or len(body) > self._largest:
            return None
        try:
            parsed = jsonrpc_message_adapter.validate_python(from_json(body), by_name=False)
        except (ValueError, RecursionError):
            return None
        return parsed if isinstance(parsed, JSONRPCRequest) and parsed.method == "tools/call" else None
