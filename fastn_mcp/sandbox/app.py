"""The sandbox as an ASGI application. The only module of it that waits, and that knows what a socket is.

With `control` it also has paths of its own, for tests that speak HTTP. They want no key, so they are for a loopback
address; a request that a web page makes is refused.

    GET    /__sandbox/requests     what it was asked: {"requests": [{method, path, query, headers, body, tool}]}
    DELETE /__sandbox/requests     forget it
    GET    /__sandbox/faults       what waits to go wrong
    POST   /__sandbox/faults       {"kind": "status", "status": 503, "method": "GET", "path": "/api/v1/*", "times": 2}
    DELETE /__sandbox/faults       nothing goes wrong any more
    GET    /__sandbox/behaviour    envelope, error shape, paging, rate limit
    POST   /__sandbox/behaviour    {"envelope": "items", "rate_limit": 20}
    POST   /__sandbox/reset        fresh data, an empty log, no faults
"""

import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, cast
from urllib.parse import parse_qsl, quote

import anyio
from pydantic import ValidationError
from pydantic_core import to_json

from fastn_mcp.sandbox.behaviour import Behaviour
from fastn_mcp.sandbox.fake import LARGEST_BODY, Sandbox
from fastn_mcp.sandbox.faults import FAULT
from fastn_mcp.sandbox.reply import Broken, Dropwise, Late, Never, Prompt, Reply, Short

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CONTROL = "/__sandbox/"


def create_app(
    sandbox: Sandbox,
    *,
    control: bool,
    broken: Callable[[str], Exception] = ConnectionResetError,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> App:
    """An ASGI application around `sandbox`.

    Served by uvicorn, a broken connection is a socket that closes. In process there is none, and `broken` is raised:
    give the exception that the client's HTTP library raises then, as `httpx2.ReadError`.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            body = await _body(receive)
            if body is None:
                return
            path = _path(scope)
            if control and path.startswith(CONTROL):
                reply = _controlled(sandbox, scope["method"], path.removeprefix(CONTROL), _headers(scope), body)
            else:
                reply = sandbox.answer(scope["method"], path, _query(scope), _headers(scope), body)
            await _deliver(reply, receive, send, broken, sleep)
        else:
            await send({"type": "websocket.close", "code": 1000})

    return app


async def _deliver(
    reply: Reply,
    receive: Receive,
    send: Send,
    broken: Callable[[str], Exception],
    sleep: Callable[[float], Awaitable[None]],
) -> None:
    match reply.delivery:
        case Prompt():
            await _whole(reply, send)
        case Late(seconds):
            await sleep(seconds)
            await _whole(reply, send)
        case Never():
            while (await receive())["type"] != "http.disconnect":
                pass
        case Dropwise(seconds):
            await _head(reply, send)
            for number in range(len(reply.body)):
                await sleep(seconds)
                await _part(reply.body[number : number + 1], send, more=True)
            await _part(b"", send, more=False)
        case Short(kept):
            await _head(reply, send)
            await _part(reply.body[:kept], send, more=True)
            if not _close(receive):
                await _part(b"", send, more=False)
        case Broken(sent):
            if sent is not None:
                await _head(reply, send)
                await _part(reply.body[:sent], send, more=True)
            if not _reset(receive):
                raise broken("the connection was reset")


async def _whole(reply: Reply, send: Send) -> None:
    await _head(reply, send)
    await _part(reply.body, send, more=False)


async def _head(reply: Reply, send: Send) -> None:
    headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})


async def _part(body: bytes, send: Send, *, more: bool) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


def _transport(receive: Receive) -> Any:
    """The connection's transport. ASGI has no word for closing one, so this asks uvicorn's own object for it."""
    return getattr(getattr(receive, "__self__", None), "transport", None)


def _close(receive: Receive) -> bool:
    """End the connection in order, once what was written has gone out. False where there is none."""
    transport = _transport(receive)
    if transport is None:
        return False
    transport.close()
    return True


def _reset(receive: Receive) -> bool:
    """Reset the connection at once. False where there is none."""
    transport = _transport(receive)
    if transport is None:
        return False
    connection = transport.get_extra_info("socket")
    with suppress(AttributeError, OSError):
        # Not to linger makes the kernel say RST rather than FIN.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    return True


async def _body(receive: Receive) -> bytes | None:
    """The request's body, one byte more than is allowed at most; None where the client left."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        if len(body) <= LARGEST_BODY:
            body += message.get("body", b"")
        if not message.get("more_body", False):
            return bytes(body[: LARGEST_BODY + 1])


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def _path(scope: Scope) -> str:
    raw = scope.get("raw_path")
    return raw.decode("latin-1") if raw else quote(scope["path"], safe="/:@+=~")


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _controlled(sandbox: Sandbox, method: str, path: str, headers: dict[str, str], body: bytes) -> Reply:
    """What a control path answers."""
    if "origin" in headers:
        return _said(403, {"error": "Not for web pages"})
    try:
        match method, path:
            case "GET", "requests":
                return _said(200, {"requests": [heard.shown() for heard in sandbox.requests]})
            case "DELETE", "requests":
                sandbox.requests.clear()
            case "GET", "faults":
                return _said(200, {"faults": [fault.model_dump(mode="json") for fault in sandbox.faults.waiting]})
            case "POST", "faults":
                sandbox.faults.add(FAULT.validate_json(body))
            case "DELETE", "faults":
                sandbox.faults.clear()
            case "GET", "behaviour":
                pass
            case "POST", "behaviour":
                given = Behaviour.model_validate_json(body)
                named = {name: getattr(given, name) for name in given.model_fields_set}
                sandbox.behaviour = sandbox.behaviour.model_copy(update=named)
            case "POST", "reset":
                sandbox.reset()
            case _:
                return _said(404, {"error": f"There is no {method} {CONTROL}{path}"})
    except ValidationError as error:
        problems = cast("list[dict[str, Any]]", error.errors(include_url=False, include_context=False))
        return _said(422, {"error": [{"field": list(p["loc"]), "problem": p["msg"]} for p in problems]})
    return _said(200, sandbox.behaviour.model_dump(mode="json"))


def _said(status: int, value: Any) -> Reply:
    body = to_json(value)
    return Reply(status, {"content-type": "application/json", "content-length": str(len(body))}, body)
