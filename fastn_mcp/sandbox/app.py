"""The sandbox as an ASGI application, and variants of it that differ from the declared API.

Each variant is a difference that Fastn's own pages show or that third parties saw, for `doctor` to find.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from fastn_mcp.sandbox.auth import KEY, VIEWER_KEY
from fastn_mcp.sandbox.behaviour import Accepts, Behaviour, Envelope, Paging
from fastn_mcp.sandbox.server import LARGEST_BODY, Sandbox, SandboxRequest
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.operation import Route


def create_app(sandbox: Sandbox) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif (request := await read_request(Request(scope, receive))) is not None:
            reply = sandbox.answer(request)
            await Response(reply.body, reply.status, reply.headers)(scope, receive, send)

    return app


async def answer_lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def read_request(request: Request) -> SandboxRequest | None:
    """Read the request, with at most one byte of its body beyond the limit; None if the client disconnected."""
    # The encoded path: ids contain colons, and a segment may contain an encoded slash.
    raw = request.scope.get("raw_path")
    path = raw.decode("latin-1") if raw else quote(request.scope["path"])
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk[: LARGEST_BODY + 1 - len(body)]
    except ClientDisconnect:
        return None
    headers = {name.lower(): value for name, value in request.headers.items()}
    return SandboxRequest(request.method, path, dict(request.query_params), headers, bytes(body))


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
    "test-mode": Variant(Behaviour(refuses_test_mode=True)),
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
