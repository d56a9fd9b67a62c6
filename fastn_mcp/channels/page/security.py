"""Page security: Host and Origin checks, single-use form tokens, sealed cookies and security headers."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastn_mcp.channels.http_server import read_body

MAX_BODY = 65_536
"""Bytes of a form."""

# Not `no-referrer`: it makes browsers send `Origin: null` with our own forms, like those of other sites.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:;"
        " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class PageSecurity:
    """Middleware that requires GET or POST and an exact Host, checks the Origin of posts, and adds security headers.

    A post to the path `entrance` may come from a file, whose origin is `null`: its one-time key authenticates it.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str], entrance: str | None = None) -> None:
        self._app = app
        self._entrance = entrance
        self._origins = frozenset(origins)
        self._hosts = frozenset(urlsplit(origin).netloc for origin in origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        problem = self._problem(scope)
        await (self._app if problem is None else problem)(scope, receive, send_with_headers)

    def _problem(self, scope: Scope) -> ASGIApp | None:
        headers = Headers(scope=scope)
        if headers.getlist("host") not in [[host] for host in self._hosts]:
            return PlainTextResponse("This page is served at its own address only.", 403)
        if scope["method"] not in ("GET", "POST"):
            return PlainTextResponse("This page supports GET and POST only.", 405, {"Allow": "GET, POST"})
        if scope["method"] == "POST" and not self._is_ours(scope, headers):
            return PlainTextResponse("Nothing was decided: the request did not come from this page.", 403)
        return None

    def _is_ours(self, scope: Scope, headers: Headers) -> bool:
        origins = headers.getlist("origin")
        if origins == ["null"] and self._entrance is not None:
            return scope["path"] == scope.get("root_path", "") + self._entrance
        return len(origins) == 1 and origins[0] in self._origins and urlsplit(origins[0]).netloc == headers["host"]


class BadForm(Exception):
    """Invalid form body. `status` is the HTTP status of the response."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


async def form(request: Request, most: int = 16) -> dict[str, str]:
    """Parse at most so many fields of a form body. Raises `BadForm` if it is invalid, too large or repeats a field."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise BadForm(415)
    if (body := await read_body(request, MAX_BODY)) is None:
        raise BadForm(413)
    try:
        pairs: list[tuple[str, Any]] = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=most
        )
    except ValueError:
        raise BadForm(400) from None
    fields = {str(name): str(value) for name, value in pairs}
    if len(fields) != len(pairs):
        raise BadForm(400)
    return fields
