"""The sandbox as an ASGI application, and variants of it that differ from the declared API.

Each variant is a difference that Fastn's own pages show or that third parties saw, for `doctor` to find.
"""

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote

from fastn_mcp.sandbox.auth import KEY, VIEWER_KEY
from fastn_mcp.sandbox.behaviour import Accepts, Behaviour, Envelope, ModeHeader, Paging
from fastn_mcp.sandbox.server import LARGEST_BODY, Sandbox, SandboxRequest
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.operation import Route

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]


def create_app(sandbox: Sandbox) -> App:
    """Return an ASGI application around `sandbox`."""

    async def app(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif (request := await read_request(scope, receive)) is not None:
            reply = sandbox.answer(*request)
            await send(response_start(reply.status, reply.headers))
            await send({"type": "http.response.body", "body": reply.body})

    return app


async def answer_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def read_request(scope: MutableMapping[str, Any], receive: Receive) -> SandboxRequest | None:
    """Read the request, with at most one byte of its body beyond the limit; None if the client disconnected."""
    # The encoded path: ids contain colons, and a segment may contain an encoded slash.
    raw = scope.get("raw_path")
    path = raw.decode("latin-1") if raw else quote(scope["path"])
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        if len(body) <= LARGEST_BODY:
            body += message.get("body", b"")
        if not message.get("more_body", False):
            return SandboxRequest(scope["method"], path, query, headers, bytes(body[: LARGEST_BODY + 1]))


def response_start(status: int, headers: Mapping[str, str]) -> Message:
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": encoded}


_MOVED = {
    "/api/v1/customers": "/api/v1/orgs",
    "/api/v1/triggers": "/api/v1/app-triggers",
    "/api/v1/audit": "/api/v1/audit-log",
    "/api/v1/api-keys": "/api/v1/api-access",
    "/api/v1/billing/usage": "/api/v1/quota/usage",
    "/api/v1/billing/quotas": "/api/v1/quota/summary",
    "/api/v1/workflows/{workflow_id}/run": "/api/v1/workflows/{workflow_id}/execute",
}


def _moved() -> dict[str, Route]:
    found: dict[str, Route] = {}
    for operation in CATALOG:
        path = operation.route.path
        for old, new in _MOVED.items():
            if path == old or path.startswith(f"{old}/"):
                found[operation.tool_name()] = Route(operation.route.method, new + path.removeprefix(old))
    return found


@dataclass(frozen=True, slots=True)
class Variant:
    """Behaviour of a sandbox, the routes that differ, and its user's key."""

    behaviour: Behaviour = field(default_factory=Behaviour)
    routes: Mapping[str, Route] = field(default_factory=dict[str, Route])
    key: str = KEY


VARIANTS = {
    "usual": Variant(),
    "bearer": Variant(Behaviour(accepts=Accepts.BEARER)),
    "test-mode": Variant(Behaviour(test_mode=ModeHeader.REFUSED)),
    "paths": Variant(routes=_moved()),
    "fields": Variant(
        Behaviour(
            envelope=Envelope.RESULTS,
            paging=Paging.SILENT,
            fields={"id": "_id", "name": "title", "createdAt": "created_at", "updatedAt": "updated_at"},
        )
    ),
    "scopes": Variant(key=VIEWER_KEY),
}
"""Variants by their name in `fastn-mcp sandbox --guise`."""
