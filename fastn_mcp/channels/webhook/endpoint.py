"""Where answers arrive: `POST /approvals/{grant}`, alone or beside MCP. What they say is decided elsewhere."""

import anyio
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fastn_mcp.channels.webhook.deciding import LONGEST_BODY, Deciding, Reply, path
from fastn_mcp.channels.webhook.signing import SIGNATURE

_PATIENCE = 10.0
"""Seconds for a body to arrive."""

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def routes(deciding: Deciding) -> list[Route]:
    """The one route, for an application that serves more."""

    async def answer(request: Request) -> JSONResponse:
        body = await _body(request)
        if body is None:
            reply = deciding.too_large()
        else:
            signatures = request.headers.getlist(SIGNATURE)
            signature = signatures[0] if len(signatures) == 1 else None
            reply = await deciding(request.path_params["grant"], signature, body)
        return _json(reply)

    return [Route(path("{grant}"), answer, methods=["POST"])]


def application(deciding: Deciding) -> Starlette:
    """The route and nothing else."""
    return Starlette(routes=routes(deciding))


async def _body(request: Request) -> bytes | None:
    """The body; None where it is too large, too slow, or broke off."""
    body = bytearray()
    with anyio.move_on_after(_PATIENCE):
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > LONGEST_BODY:
                    return None
        except ClientDisconnect:
            return None
        return bytes(body)
    return None


def _json(reply: Reply) -> JSONResponse:
    return JSONResponse(reply.body, reply.status, _HEADERS)
