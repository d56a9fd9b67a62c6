"""The tests' sandbox over HTTP, with control paths.

Usage: `python -m support.served_sandbox --port PORT [--large]`.

    GET    /__sandbox/requests     what it was asked: {"requests": [{method, path, query, headers, body, tool}]}
    POST   /__sandbox/faults       {"kind": "status", "status": 503, "method": "GET", "path": "/api/v1/*", "times": 2}
    DELETE /__sandbox/faults       nothing goes wrong any more
    POST   /__sandbox/reset        fresh data, an empty log, no faults

ASGI has no word for breaking a connection. Uvicorn's object for the request holds the transport, whose socket is
closed or reset.
"""

import argparse
import socket
import struct
from contextlib import suppress
from datetime import UTC, datetime

import anyio
import uvicorn
from large_account import large_account
from pydantic_core import to_json
from starlette.requests import Request
from starlette.routing import Router
from starlette.types import ASGIApp, Receive, Scope, Send

from fastn_mcp.extensions.sandbox.app import read_request
from fastn_mcp.extensions.sandbox.server import SandboxRequest, dataset
from support.faulty_sandbox import FAULT, FaultyReply, FaultySandbox

CONTROL = "/__sandbox/"


def create_faulty_app(sandbox: FaultySandbox) -> ASGIApp:
    """Return an application for uvicorn around `sandbox`, with delayed and broken responses and the control paths."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if (request := await read_request(Request(scope, receive))) is not None:
            controls = request.path.startswith(CONTROL)
            await _deliver(_control(sandbox, request) if controls else sandbox.reply(request), receive, send)

    return Router(default=answer)


def _control(sandbox: FaultySandbox, request: SandboxRequest) -> FaultyReply:
    match request.method, request.path.removeprefix(CONTROL):
        case "GET", "requests":
            return FaultyReply(200, {}, to_json({"requests": [heard.shown() for heard in sandbox.requests]}))
        case "POST", "faults":
            sandbox.faults.add(FAULT.validate_json(request.body))
        case "DELETE", "faults":
            sandbox.faults.clear()
        case "POST", "reset":
            sandbox.reset()
        case _:
            return FaultyReply(404)
    return FaultyReply(200)


async def _deliver(reply: FaultyReply, receive: Receive, send: Send) -> None:
    how, body = reply.delivery, reply.body[: reply.delivery.sent]
    if how.delay:
        await anyio.sleep(how.delay)
    if how.end != "hangs" and (how.end != "reset" or how.sent is not None):
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        for part in [body[at : at + 1] for at in range(len(body))] if how.pause is not None else [body]:
            if how.pause is not None:
                await anyio.sleep(how.pause)
            await send({"type": "http.response.body", "body": part, "more_body": True})
    if how.end == "complete":
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    transport = getattr(receive, "__self__").transport  # noqa: B009 - its type is not that of a method
    if how.end == "closed":
        transport.close()
    if how.end == "reset":
        with suppress(OSError):
            # Not to linger makes the system say RST rather than FIN.
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    while (await receive())["type"] != "http.disconnect":
        pass


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--large", action="store_true", help="the large account")
    options = parser.parse_args()
    served = FaultySandbox(lambda: datetime.now(UTC), begin=large_account if options.large else dataset)
    uvicorn.run(
        create_faulty_app(served),
        host="127.0.0.1",
        port=options.port,
        log_level="warning",
        access_log=False,
        server_header=False,
    )
