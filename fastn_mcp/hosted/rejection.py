"""Reject a request: status and challenge; foreign Host or Origin before anything is read.

show. Pure.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from mcp.types import INTERNAL_ERROR, INVALID_REQUEST
from pydantic import JsonValue
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

FORBIDDEN = -32003
"""Of those that the specification leaves to servers."""


@dataclass(frozen=True, slots=True)
class Challenger:
    """`metadata` is where a client reads whose tokens are wanted (RFC 9728)."""

    metadata: str

    def _bearer(self, scopes: Iterable[str], error: str | None, description: str) -> str:
        parts = [f'resource_metadata="{self.metadata}"', f'scope="{" ".join(scopes)}"']
        if error is not None:
            parts = [f'error="{error}"', f'error_description="{description}"', *parts]
        return "Bearer " + ", ".join(parts)

    def unknown(self, scopes: Iterable[str], why: str | None) -> "RequestRejected":
        """Nobody signed in; `why` says why a token that came is none."""
        said = "Sign in first." if why is None else f"The token was refused. {why}"
        challenge = self._bearer(scopes, None if why is None else "invalid_token", why or "")
        return RequestRejected(401, said, INVALID_REQUEST, {"WWW-Authenticate": challenge})

    def insufficient(self, held: Iterable[str], needed: str, said: str) -> "RequestRejected":
        """The token lacks a scope. What it holds is named too, so that a new one has both."""
        challenge = self._bearer(sorted({*held, needed}), "insufficient_scope", f"It needs {needed}.")
        return RequestRejected(403, said, FORBIDDEN, {"WWW-Authenticate": challenge}, {"scope": needed})


class RequestRejected(Exception):
    """A request that goes no further. Nothing of it was sent anywhere."""

    def __init__(
        self,
        status: int,
        said: str,
        code: int = INVALID_REQUEST,
        headers: dict[str, str] | None = None,
        facts: dict[str, JsonValue] | None = None,
    ) -> None:
        super().__init__(said)
        self.status = status
        self._error: dict[str, JsonValue] = {"code": code, "message": f"{said} Nothing was sent."}
        if facts:
            self._error["data"] = {"outcome": "refused", **facts}
        self._headers = {"Cache-Control": "no-store"} | (headers or {})

    def response(self, id_: str | int | None) -> JSONResponse:
        """As an answer to the request of this id: clients show the message, where a mere status would tell nothing."""
        body = {"jsonrpc": "2.0", "id": id_, "error": self._error}
        return JSONResponse(body, self.status, self._headers)


def unavailable(said: str, seconds: int) -> RequestRejected:
    """It could not be looked at now."""
    return RequestRejected(503, said, INTERNAL_ERROR, {"Retry-After": str(seconds)})


MOST_HEADERS = 100


class Edge:
    """Hosts and origins are compared letter by letter: no wildcard, no prefix, no port that was not named.

    `open_paths` are for probes, which call by an address instead of a name.
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
        if scope["type"] == "http" and (refusal := self._refusal(scope)) is not None:
            return await refusal(scope, receive, send)
        return await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        if len(headers) > MOST_HEADERS or sum(len(name) + len(value) for name, value in headers) > self._head:
            return PlainTextResponse("The headers are too large.", 431)
        if scope["path"] in self._open:
            return None
        hosts = [value for name, value in headers if name == b"host"]
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return PlainTextResponse("This host is not served here.", 421)
        if any(value not in self._origins for name, value in headers if name == b"origin"):
            return PlainTextResponse("This origin is not allowed here.", 403)
        return None
