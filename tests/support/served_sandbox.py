"""The tests' sandbox over HTTP, with control paths.

Usage: `python -m support.served_sandbox --port PORT [--large] [--file F]`.

    GET    /__sandbox/requests     what it was asked: {"requests": [{method, path, query, headers, body, tool}]}
    DELETE /__sandbox/requests     forget it
    GET    /__sandbox/faults       what waits to go wrong
    POST   /__sandbox/faults       {"kind": "status", "status": 503, "method": "GET", "path": "/api/v1/*", "times": 2}
    DELETE /__sandbox/faults       nothing goes wrong any more
    GET    /__sandbox/behaviour    envelope, error shape, paging, rate limit
    POST   /__sandbox/behaviour    {"envelope": "items", "rate_limit": 20}
    POST   /__sandbox/reset        fresh data, an empty log, no faults

What changes something answers like `GET /__sandbox/behaviour`.

ASGI has no word for breaking a connection. Served by uvicorn, whose object for the request holds the transport, the
socket is closed or reset; in process there is no socket, and an exception says the same.
"""

import argparse
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import anyio
import uvicorn
from large_account import large_account
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from fastn_mcp.sandbox.app import answer_lifespan, read_request
from fastn_mcp.sandbox.server import SandboxRequest, dataset
from support.behaviour import Behaviour
from support.faulty_sandbox import FAULT, FaultyReply, FaultySandbox

CONTROL = "/__sandbox/"


def create_faulty_app(
    sandbox: FaultySandbox,
    *,
    broken: Callable[[str], Exception] = ConnectionResetError,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> ASGIApp:
    """An ASGI application around `sandbox`, with delayed and broken responses and the control paths.

    Where a connection is to break and there is none, `broken` is raised: give the exception that the client's HTTP
    library raises then, as `httpx2.ReadError`.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await answer_lifespan(receive, send)
        elif (request := await read_request(Request(scope, receive))) is not None:
            controls = request.path.startswith(CONTROL)
            reply = _control(sandbox, request) if controls else sandbox.reply(request)
            await _deliver(reply, receive, send, broken, sleep)

    return app


def _control(sandbox: FaultySandbox, request: SandboxRequest) -> FaultyReply:
    if "origin" in request.headers:
        return _json(403, {"error": "Not for web pages"})
    match request.method, request.path.removeprefix(CONTROL):
        case "GET", "requests":
            return _json(200, {"requests": [heard.shown() for heard in sandbox.requests]})
        case "GET", "faults":
            return _json(200, {"faults": [fault.model_dump(mode="json") for fault in sandbox.faults.waiting]})
        case "GET", "behaviour":
            return _json(200, sandbox.behaviour.model_dump(mode="json"))
        case method, path:
            return _change(sandbox, method, path, request.body)


def _change(sandbox: FaultySandbox, method: str, path: str, body: bytes) -> FaultyReply:
    try:
        match method, path:
            case "DELETE", "requests":
                sandbox.requests.clear()
            case "POST", "faults":
                sandbox.faults.add(FAULT.validate_json(body))
            case "DELETE", "faults":
                sandbox.faults.clear()
            case "POST", "behaviour":
                given = Behaviour.model_validate_json(body)
                named = {name: getattr(given, name) for name in given.model_fields_set}
                sandbox.behaviour = sandbox.behaviour.model_copy(update=named)
            case "POST", "reset":
                sandbox.reset()
            case _:
                return _json(404, {"error": f"There is no {method} {CONTROL}{path}"})
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        return _json(422, {"error": [{"field": list(p["loc"]), "problem": p["msg"]} for p in problems]})
    return _json(200, sandbox.behaviour.model_dump(mode="json"))


def _json(status: int, value: object) -> FaultyReply:
    body = to_json(value)
    return FaultyReply(status, {"content-type": "application/json", "content-length": str(len(body))}, body)


async def _deliver(
    reply: FaultyReply,
    receive: Receive,
    send: Send,
    broken: Callable[[str], Exception],
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    how, body = reply.delivery, reply.body[: reply.delivery.sent]
    if how.delay:
        await sleep(how.delay)
    if how.end != "hangs" and (how.end != "reset" or how.sent is not None):
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        for part in [body[at : at + 1] for at in range(len(body))] if how.pause is not None else [body]:
            if how.pause is not None:
                await sleep(how.pause)
            await send({"type": "http.response.body", "body": part, "more_body": True})
    transport = getattr(getattr(receive, "__self__", None), "transport", None)
    # In process nobody counts the bytes: a body that is too short simply ends.
    if how.end == "complete" or (how.end == "closed" and transport is None):
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        return
    if transport is None and how.end == "reset":
        raise broken("the connection was reset")
    if transport is not None and how.end == "closed":
        transport.close()
    if transport is not None and how.end == "reset":
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
    parser.add_argument("--file", type=Path)
    options = parser.parse_args()
    served = FaultySandbox(
        lambda: datetime.now(UTC), begin=large_account if options.large else dataset, file=options.file
    )
    uvicorn.run(
        create_faulty_app(served),
        host="127.0.0.1",
        port=options.port,
        log_level="warning",
        access_log=False,
        server_header=False,
    )
