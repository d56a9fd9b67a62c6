"""What is refused before anything is read: a foreign Host or Origin, and heads that are too large. ASGI, no MCP."""

from collections.abc import Collection, Sequence

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

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
