"""Access to the approval page: checks of each request, form bodies, and who may open the page by what session."""

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastn_mcp.channels.http_server import read_body
from fastn_mcp.channels.page.inbox import Inbox
from fastn_mcp.config.command_line import PROGRAM, CommandLine
from fastn_mcp.guard.seal import Seal
from fastn_mcp.runtime import System

MAX_BODY = 65_536
"""Bytes of a form."""

# Not `no-referrer`: it makes browsers send `Origin: null` with our own forms, as with the forms of other sites.
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
            return PlainTextResponse("Wrong address. Run: fastn-mcp approvals --open", 403)
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
    body = await read_body(request, MAX_BODY)
    if body is None:
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


COOKIE = "fastn_approvals"

SESSION_HOLDS = 12 * 3600.0
"""Lifetime of a browser session of the local page in seconds, while the page runs."""

Render = Callable[..., Response]
"""Renders a template: `render(request, template, status, **content)`."""


@dataclass(frozen=True, slots=True)
class Session:
    id: str
    """Secret identifier."""
    root: str
    """Root path of the page for this session, with a trailing slash."""
    inbox: Inbox
    person: str | None = None
    """Name of the person, if known."""


class PageAccess(Protocol):
    """Access control for the approval page: who may open it, and which requests they may decide."""

    prefix: str
    """Path prefix of the routes. It may contain a parameter."""
    entrance: str | None
    """Path to which a local file posts a one-time key, if access works that way."""
    context: dict[str, Any]
    """Template variables: `team`, whether people sign in, or else `commands` for a shell."""
    seal: Seal
    """Seals cookies and forms. Processes with the same secrets accept each other's."""
    watching: int
    """Number of browsers that show the page."""

    def routes(self, render: Render) -> Sequence[BaseRoute]:
        """Return the routes to sign in and out."""
        ...

    async def session(self, request: Request) -> Session | None:
        """Return the session of a request, or None if access is denied for any reason."""
        ...


class LocalPageAccess:
    """Access by a one-time key, then by a sealed cookie. `program` is the command line that opens the page again.

    Each session has a room: an unguessable path prefix to which its cookie is limited. Browsers do not separate cookies
    by port, so without it the page of another program on this computer could get the cookie.
    """

    prefix = "/{room}"
    entrance: str | None = "/enter"
    watching = 0

    def __init__(
        self, inbox: Inbox, system: System, program: CommandLine = PROGRAM, used: Callable[[str], None] = lambda _: None
    ) -> None:
        """`used` is called with each key that opened a session."""
        commands = {"decide": program.to("approvals"), "open": program.to("approvals", "--open")}
        self.context: dict[str, Any] = {"team": False, "commands": commands}
        self.key = system.token()
        """Key that opens the next session. Any use replaces it."""
        self._inbox = inbox
        self._system = system
        self.seal = Seal([system.token()], system)
        self._used = used

    def routes(self, render: Render) -> Sequence[Route]:
        return [Route("/enter", partial(self._enter, render), methods=["POST"])]

    async def _enter(self, render: Render, request: Request) -> Response:
        try:
            is_let_in = self.redeem((await form(request)).get("key", ""))
        except BadForm:
            is_let_in = False
        if not is_let_in:
            response = render(request, "closed.html", 403)
            response.headers["Connection"] = "close"  # each guess costs a new connection
            return response
        room = self._system.token()
        secure = request.url.scheme == "https"
        root = _root(request, room)
        cookie = self.seal.close(f"session {room}", "")
        # Not a redirect: after a navigation from a file, browsers send a strict cookie only from this page on.
        response = render(request, "entered.html", root=root)
        response.set_cookie(COOKIE, cookie, path=root, httponly=True, samesite="strict", secure=secure)
        return response

    def redeem(self, key: str) -> bool:
        """Use the key that opens the next session. Return False if this is not it.

        Wrong keys do not lock the page, since any program on the machine could then lock the person out. A key has 192
        random bits, so that guessing is infeasible.
        """
        if not hmac.compare_digest(key.encode(), self.key.encode()):
            return False
        self.key = self._system.token()
        self._used(key)
        return True

    async def session(self, request: Request) -> Session | None:
        room = request.path_params.get("room") or request.path_params["path"].partition("/")[0]
        if self.seal.open(f"session {room}", request.cookies.get(COOKIE), SESSION_HOLDS) is None:
            return None
        return Session(room, _root(request, room), self._inbox)


def _root(request: Request, room: str) -> str:
    return f"{request.scope.get('root_path', '')}/{room}/"


class NoSession(Exception):
    """The request has no session."""
