"""The sandbox as an ASGI application, with its control paths and delayed or broken responses.

With `control` it also has the paths of `control.py`, by which tests that speak HTTP ask what was sent and order what is
to go wrong.

They want no key, so they are for a loopback address; a request that a web page makes is refused.

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

import socket
import struct
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qsl, quote

import anyio
from pydantic import ValidationError
from pydantic_core import to_json

from fastn_mcp.sandbox.behaviour import Behaviour
from fastn_mcp.sandbox.faults import FAULT
from fastn_mcp.sandbox.reply import BrokenReply, Dropwise, Late, NoReply, Prompt, SandboxReply, Short
from fastn_mcp.sandbox.server import LARGEST_BODY, Sandbox

CONTROL = "/__sandbox/"


def controlled(sandbox: Sandbox, method: str, path: str, headers: Mapping[str, str], body: bytes) -> SandboxReply:
    """What a control path answers."""
    if "origin" in headers:
        return _said(403, {"error": "Not for web pages"})
    action = _ACTIONS.get((method, path.removeprefix(CONTROL)))
    if action is None:
        return _said(404, {"error": f"There is no {method} {path}"})
    try:
        return _said(200, action(sandbox, body))
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        return _said(422, {"error": [{"field": list(p["loc"]), "problem": p["msg"]} for p in problems]})


def _requests(sandbox: Sandbox, _: bytes) -> object:
    return {"requests": [heard.shown() for heard in sandbox.requests]}


def _forget(sandbox: Sandbox, _: bytes) -> object:
    sandbox.requests.clear()
    return _behaviour(sandbox)


def _faults(sandbox: Sandbox, _: bytes) -> object:
    return {"faults": [fault.model_dump(mode="json") for fault in sandbox.faults.waiting]}


def _add_fault(sandbox: Sandbox, body: bytes) -> object:
    sandbox.faults.add(FAULT.validate_json(body))
    return _behaviour(sandbox)


def _clear_faults(sandbox: Sandbox, _: bytes) -> object:
    sandbox.faults.clear()
    return _behaviour(sandbox)


def _behaviour(sandbox: Sandbox, _: bytes = b"") -> object:
    return sandbox.behaviour.model_dump(mode="json")


def _behave(sandbox: Sandbox, body: bytes) -> object:
    given = Behaviour.model_validate_json(body)
    named = {name: getattr(given, name) for name in given.model_fields_set}
    sandbox.behaviour = sandbox.behaviour.model_copy(update=named)
    return _behaviour(sandbox)


def _reset(sandbox: Sandbox, _: bytes) -> object:
    sandbox.reset()
    return _behaviour(sandbox)


_ACTIONS: dict[tuple[str, str], Callable[[Sandbox, bytes], object]] = {
    ("GET", "requests"): _requests,
    ("DELETE", "requests"): _forget,
    ("GET", "faults"): _faults,
    ("POST", "faults"): _add_fault,
    ("DELETE", "faults"): _clear_faults,
    ("GET", "behaviour"): _behaviour,
    ("POST", "behaviour"): _behave,
    ("POST", "reset"): _reset,
}


def _said(status: int, value: object) -> SandboxReply:
    body = to_json(value)
    return SandboxReply(status, {"content-type": "application/json", "content-length": str(len(body))}, body)


Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ReplyDelivery:
    """One request's way back."""

    def __init__(
        self,
        receive: Receive,
        send: Send,
        broken: Callable[[str], Exception],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._receive = receive
        self._send = send
        self._broken = broken
        self._sleep = sleep

    async def __call__(self, reply: SandboxReply) -> None:
        """Raises what `broken` gives, where the connection is to break and there is none."""
        match reply.delivery:
            case Prompt():
                await self._whole(reply)
            case Late(seconds):
                await self._sleep(seconds)
                await self._whole(reply)
            case NoReply():
                await self._gone()
            case Dropwise(seconds):
                await self._dropwise(reply, seconds)
            case Short(kept):
                await self._short(reply, kept)
            case BrokenReply(sent):
                await self._break(reply, sent)

    async def _whole(self, reply: SandboxReply) -> None:
        await self._head(reply)
        await self._part(reply.body, more=False)

    async def _dropwise(self, reply: SandboxReply, seconds: float) -> None:
        await self._head(reply)
        for number in range(len(reply.body)):
            await self._sleep(seconds)
            await self._part(reply.body[number : number + 1], more=True)
        await self._part(b"", more=False)

    async def _short(self, reply: SandboxReply, kept: int) -> None:
        await self._head(reply)
        await self._part(reply.body[:kept], more=True)
        transport = self._transport()
        if transport is None:
            # In process nobody counts the bytes: the body simply ends.
            await self._part(b"", more=False)
        else:
            transport.close()
            await self._gone()

    async def _break(self, reply: SandboxReply, sent: int | None) -> None:
        if sent is not None:
            await self._head(reply)
            await self._part(reply.body[:sent], more=True)
        transport = self._transport()
        if transport is None:
            raise self._broken("the connection was reset")
        with suppress(OSError):
            # Not to linger makes the system say RST rather than FIN.
            linger = struct.pack("ii", 1, 0)
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
        await self._gone()

    async def _head(self, reply: SandboxReply) -> None:
        headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
        await self._send({"type": "http.response.start", "status": reply.status, "headers": headers})

    async def _part(self, body: bytes, *, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})

    async def _gone(self) -> None:
        """Wait until the client has left."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _transport(self) -> Any:
        return getattr(getattr(self._receive, "__self__", None), "transport", None)


Scope = MutableMapping[str, Any]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def create_app(
    sandbox: Sandbox,
    *,
    control: bool,
    broken: Callable[[str], Exception] = ConnectionResetError,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> App:
    """An ASGI application around `sandbox`.

    Served by uvicorn, a broken connection is a socket that is reset. In process there is none, and `broken` is raised:
    give the exception that the client's HTTP library raises then, as `httpx2.ReadError`.
    """

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "http":
            body = await _body(receive)
            if body is not None:
                method, path, headers = scope["method"], _path(scope), _headers(scope)
                if control and path.startswith(CONTROL):
                    reply = controlled(sandbox, method, path, headers, body)
                else:
                    reply = sandbox.answer(method, path, _query(scope), headers, body)
                await ReplyDelivery(receive, send, broken, sleep)(reply)
        else:
            await send({"type": "websocket.close", "code": 1000})

    return app


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
    """As it came, encoded: an id holds colons, and a segment may hold an encoded slash."""
    raw = scope.get("raw_path")
    return raw.decode("latin-1") if raw else quote(scope["path"])


def _query(scope: Scope) -> dict[str, str]:
    return dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
