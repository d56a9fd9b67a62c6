"""Access control for local HTTP: a loopback address is reached by every user of the machine, so a token is required."""

import hmac
from collections.abc import Collection, Sequence
from contextlib import suppress

from mcp.types import INVALID_REQUEST
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from fastn_mcp.hosted.bodies import asked, read
from fastn_mcp.hosted.challenge import Turned
from fastn_mcp.hosted.edge import Edge
from fastn_mcp.settings.http_token import HttpToken

_LARGEST = 65_536
"""Bytes of a request without a token that are read, for the id that the error answers."""

_REALM = 'Bearer realm="fastn-mcp"'


class LocalAccess:
    """Serve requests for exactly our hosts and origins that carry the token. Everything but `open_routes` needs it."""

    def __init__(
        self,
        app: ASGIApp,
        token: HttpToken,
        hosts: Collection[str],
        origins: Collection[str],
        head: int,
        open_routes: Sequence[BaseRoute],
    ) -> None:
        self._app = app
        self._token = token.value.encode()
        self._place = token.place
        self._open = tuple(open_routes)
        self._closed = Edge(self._with_token, hosts, origins, head, ())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_open = scope["type"] == "lifespan" or any(route.matches(scope)[0] is not Match.NONE for route in self._open)
        await (self._app if is_open else self._closed)(scope, receive, send)

    async def _with_token(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = [value for name, value in scope["headers"] if name == b"authorization"]
        scheme, _, token = sent[0].partition(b" ") if len(sent) == 1 else (b"", b"", b"")
        if scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), self._token):
            await self._app(scope, receive, send)
            return
        id_ = None
        if scope["method"] == "POST":
            with suppress(Turned):  # too large or too slow: refused all the same
                id_ = asked(await read(receive, _LARGEST)).id
        await self._refusal(is_sent=bool(sent)).response(id_)(scope, receive, send)

    def _refusal(self, *, is_sent: bool) -> Turned:
        what = "The bearer token is not the one of this server." if is_sent else "A bearer token is required."
        error = ', error="invalid_token", error_description="Not the token of this server."' if is_sent else ""
        return Turned(
            401,
            f"{what} Send 'Authorization: Bearer TOKEN'. TOKEN is in {self._place}.",
            INVALID_REQUEST,
            {"WWW-Authenticate": _REALM + error},
        )
