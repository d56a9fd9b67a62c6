"""The sandbox as an ASGI application: HTTP in, HTTP out.

With `control` it also has the paths of `control.py`, by which tests that speak HTTP ask what was sent and order what is
to go wrong.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qsl, quote

import anyio

from fastn_mcp.sandbox.control import CONTROL, controlled
from fastn_mcp.sandbox.delivery import Delivery, Receive, Send
from fastn_mcp.sandbox.fake import LARGEST_BODY, Sandbox

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
                await Delivery(receive, send, broken, sleep)(reply)
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
