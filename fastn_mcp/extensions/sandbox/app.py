"""The sandbox as an ASGI application."""

from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from fastn_mcp.extensions.sandbox.server import MAX_BODY, Sandbox, SandboxRequest


def create_app(sandbox: Sandbox) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        request = await read_request(Request(scope, receive))
        if request is not None:
            reply = sandbox.answer(request)
            await Response(reply.body, reply.status, reply.headers)(scope, receive, send)

    return Router(default=answer)


async def read_request(request: Request) -> SandboxRequest | None:
    """Read the request, with at most one byte of its body beyond the limit; None if the client disconnected."""
    # The encoded path: ids contain colons, and a segment may contain an encoded slash.
    raw = request.scope.get("raw_path")
    path = raw.decode("latin-1") if raw else quote(request.scope["path"])
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk[: MAX_BODY + 1 - len(body)]
    except ClientDisconnect:
        return None
    headers = {name.lower(): value for name, value in request.headers.items()}
    return SandboxRequest(request.method, path, dict(request.query_params), headers=headers, body=bytes(body))
