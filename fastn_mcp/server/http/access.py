"""Access to MCP over HTTP: the Host and Origin of every request, and the bearer token of this machine.

A rejected request never reaches a handler. Every call of an accepted request still passes the guard.
"""

import hmac
from collections.abc import Collection, Sequence
from contextlib import suppress

from mcp.server.transport_security import DEFAULT_MAX_REQUEST_BODY_SIZE
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from fastn_mcp.config.keys import HttpToken
from fastn_mcp.server.http.requests import (
    OversizedMessage,
    RequestRejected,
    body_message,
    check_size,
    read,
    replay,
    summarize,
)

MAX_HEADERS = 100

_UNAUTHENTICATED_BYTES = 65_536
"""Bytes that are read of an unauthenticated request, to find its id for the error."""


class HostCheck:
    """Reject a foreign Host or Origin and oversized headers before the body is read.

    Hosts and origins must match exactly, including the port. The Host is not checked for `open_paths`: probes call by
    IP address.
    """

    def __init__(
        self, app: ASGIApp, hosts: Collection[str], origins: Collection[str], head: int, open_paths: Sequence[str]
    ) -> None:
        self._app = app
        self._hosts = frozenset(host.lower().encode() for host in hosts)
        self._origins = frozenset(origin.encode() for origin in origins)
        self._head = head
        self._open = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rejection = self._rejection(scope) if scope["type"] == "http" else None
        if rejection is not None:
            return await rejection(scope, receive, send)
        return await self._app(scope, receive, send)

    def _rejection(self, scope: Scope) -> PlainTextResponse | None:
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        if scope["http_version"] not in ("1.0", "1.1"):
            return PlainTextResponse("This version of HTTP is not supported.", 505)
        if {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}:
            # A proxy may frame such a request otherwise (RFC 9112, 6.3).
            return PlainTextResponse("The length of the request is ambiguous.", 400, {"Connection": "close"})
        if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > self._head:
            return PlainTextResponse("The headers are too large.", 431)
        if scope["path"] in self._open:
            return None
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return PlainTextResponse("This host is not served here.", 421)
        if any(value not in self._origins for name, value in headers if name == b"origin"):
            return PlainTextResponse("This origin is not allowed here.", 403)
        return None


class LocalAccess:
    """MCP endpoint for callers with the token of this machine."""

    def __init__(self, app: ASGIApp, token: HttpToken) -> None:
        self._app = app
        self._token = token.value.encode()
        self._place = token.place

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = sent[0].partition(b" ") if len(sent) == 1 else (b"", b"", b"")
        if scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token):
            return await self._checked(scope, receive, send)
        id_ = None
        if scope["method"] == "POST":
            with suppress(RequestRejected):  # too large: rejected without an id
                id_ = summarize(await read(Request(scope, receive), _UNAUTHENTICATED_BYTES)).id
        problem = "The bearer token is not this server's." if sent else "A bearer token is required."
        message = f"{problem} Send 'Authorization: Bearer TOKEN'. TOKEN is in {self._place}."
        error = ', error="invalid_token", error_description="Not the token of this server."' if sent else ""
        headers = {"WWW-Authenticate": f'Bearer realm="fastn-mcp"{error}'}
        return await RequestRejected(401, message, headers=headers).response(id_)(scope, receive, send)

    async def _checked(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            return await self._app(scope, receive, send)
        try:
            body = await read(Request(scope, receive), DEFAULT_MAX_REQUEST_BODY_SIZE)
            check_size(body)
        except OversizedMessage as rejected:
            return await rejected.response(rejected.id)(scope, receive, send)
        except RequestRejected as rejected:
            return await rejected.response(None)(scope, receive, send)
        return await self._app(scope, replay(body_message(body), receive), send)
