"""The approval page as an ASGI application. GET shows, POST decides."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from fastn_mcp.channels.page import view
from fastn_mcp.channels.page.inbox import Inbox, PendingRequest
from fastn_mcp.channels.page.security import BadForm, PageSecurity, Seal, form
from fastn_mcp.channels.page.sessions import SESSION_HOLDS, PageSessions
from fastn_mcp.config.command_line import PROGRAM, CommandLine
from fastn_mcp.guard.approval.request import TEMPORARY_MINUTES, can_be_temporary
from fastn_mcp.guard.ledger.ledger import ApprovalRequest, Ledger, LedgerLost, RequestState
from fastn_mcp.redaction import sanitize
from fastn_mcp.runtime import System

COOKIE = "fastn_approvals"

LONGEST_NOTE = 500
"""Characters of a note to the agent."""

_FLASH_COOKIE = "fastn_said"
_FLASH_HOLDS = 60.0
_PAST = 30
_POLL = 0.5
"""Seconds between two looks at the ledger, while somebody watches."""
_BEAT = 20
"""Looks without a change, after which a keep-alive is sent: a browser that has gone is noticed by it."""

_HERE = Path(__file__).parent
_STATIC = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}

Render = Callable[..., Response]
"""Renders a template: `render(request, template, status, **content)`."""


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that was let in."""

    id: str
    """Tells it from all others, and is told to nobody."""
    root: str
    """The path under which everything lies for it, with a slash at its end."""
    inbox: Inbox
    person: str | None = None
    """Who they are, where that is known."""


class PageAccess(Protocol):
    """Who may open the page."""

    prefix: str
    """The path under which everything lies, as a route has it: it may hold a parameter."""
    entrance: str | None
    """The path to which a file of the person posts a key, where that is how they are let in."""
    context: dict[str, Any]
    """For the templates: `team`, whether people sign in; where none does, `commands` for a shell."""
    watching: int
    """Browsers that have the page in view."""

    def routes(self, render: Render) -> Sequence[BaseRoute]:
        """How to be let in, and out."""
        ...

    async def session(self, request: Request) -> Session | None:
        """Whose request it is; None for whom is not let in, whatever the reason."""
        ...


class LocalPageAccess:
    """Let in by a key that works once, and kept in by a cookie. `program` is how a person gets a new key at a shell."""

    prefix = "/{room}"
    entrance: str | None = "/enter"
    watching = 0

    def __init__(self, sessions: PageSessions, inbox: Inbox, program: CommandLine = PROGRAM) -> None:
        commands = {"decide": program.to("approvals"), "open": program.to("approvals", "--open")}
        self.context: dict[str, Any] = {"team": False, "commands": commands}
        self._sessions = sessions
        self._inbox = inbox

    def routes(self, render: Render) -> Sequence[Route]:
        async def enter(request: Request) -> Response:
            try:
                entered = self._sessions.enter((await form(request)).get("key", ""))
            except BadForm:
                entered = None
            if entered is None:
                response = render(request, "closed.html", 403)
                response.headers["Connection"] = "close"  # each guess costs a new connection
                return response
            root = _root(request, entered[0].room)
            secure = request.url.scheme == "https"
            # Not a redirect: a browser that came from a file sends a strict cookie only with what this page asks for.
            response = render(request, "entered.html", root=root)
            response.set_cookie(COOKIE, entered[1], path=root, httponly=True, samesite="strict", secure=secure)
            return response

        return [Route("/enter", enter, methods=["POST"])]

    async def session(self, request: Request) -> Session | None:
        room = request.path_params.get("room") or request.path_params["path"].partition("/")[0]
        if self._sessions.session(room, request.cookies.get(COOKIE)) is None:
            return None
        return Session(room, _root(request, room), self._inbox)


def _root(request: Request, room: str) -> str:
    return f"{request.scope.get('root_path', '')}/{room}/"


def page(
    access: PageAccess, origins: Sequence[str], ledger: Ledger, system: System, secrets: Sequence[str] = (),
    is_leaving: Callable[[], bool] = lambda: False,
) -> ASGIApp:  # fmt: skip
    """The page, for browsers that call it by one of `origins` and that `access` lets in.

    `ledger` remembers which forms were sent. Processes that share `secrets` take each other's forms.
    """
    made = _Page(access, Seal(secrets or [system.token()], system), ledger, system, is_leaving)
    prefix = access.prefix
    routes = [
        *(Route(f"/static/{name}", _static(name, kind), methods=["GET"]) for name, kind in _STATIC.items()),
        *access.routes(made.render),
        Route(f"{prefix}/", made.home, methods=["GET"]),
        Route(f"{prefix}/now", made.now, methods=["GET"]),
        Route(f"{prefix}/events", made.events, methods=["GET"]),
        Route(f"{prefix}/approve", made.approve, methods=["POST"]),
        Route(f"{prefix}/decline", made.decline, methods=["POST"]),
        Route(f"{prefix}/revoke", made.revoke, methods=["POST"]),
        Route("/{path:path}", made.anything, methods=["GET", "POST"]),
    ]
    handlers: dict[Any, Any] = {
        NotLetIn: made.closed, NotDecided: made.not_decided, LedgerLost: made.away, Exception: made.failed,
    }  # fmt: skip
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return PageSecurity(app, origins, access.entrance)


class NotLetIn(Exception):
    """The request has no session."""


class NotDecided(Exception):
    """A form decided nothing. Why stands above the page or, with `request`, beside the form of that request."""

    def __init__(self, session: Session, status: int, why: str, request: str | None = None, **draft: str) -> None:
        super().__init__(why)
        self.session = session
        self.status = status
        self.draft = None if request is None else {"grant": request, "problem": why, "name": "", "note": ""} | draft


class _Page:
    def __init__(
        self, access: PageAccess, seal: Seal, ledger: Ledger, system: System, is_leaving: Callable[[], bool]
    ) -> None:
        self._access = access
        self._seal = seal
        self._ledger = ledger
        self._system = system
        self._is_leaving = is_leaving
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    async def home(self, request: Request) -> Response:
        session = await self._session(request)
        sealed = request.cookies.get(_FLASH_COOKIE)
        flash = self._seal.open(f"said {session.id}", sealed, _FLASH_HOLDS)
        response = await self._shown(request, session, said=None if flash is None else {"text": flash, "good": True})
        if sealed is not None:
            response.delete_cookie(_FLASH_COOKIE, path=session.root, httponly=True, samesite="lax")
        return response

    async def now(self, request: Request) -> Response:
        """The changing part alone, for a page that is open already."""
        session = await self._session(request)
        return self.render(request, "now.html", root=session.root, **await self._content(session))

    async def events(self, request: Request) -> Response:
        """Says that something has changed, and never what."""
        session = await self._session(request)
        return StreamingResponse(self._changes(session, request), media_type="text/event-stream")

    async def _changes(self, session: Session, request: Request) -> AsyncIterator[str]:
        seen, silent = None, 0
        self._access.watching += 1
        try:
            # Once this process is to end, the browser goes on with another.
            while not self._is_leaving() and not await request.is_disconnected():
                if await self._access.session(request) is None:
                    return
                revision, silent = await session.inbox.revision(), silent + 1
                if revision != seen:
                    seen, silent = revision, 0
                    yield f"event: changed\ndata: {revision}\n\n"
                elif silent >= _BEAT:
                    silent = 0
                    yield ": still here\n\n"
                await self._system.sleep(_POLL)
        except LedgerLost:
            return  # the browser comes again, and is told why
        finally:
            self._access.watching -= 1

    async def approve(self, request: Request) -> Response:
        session, fields, pending, now = await self._decision(request, "approve")
        grant, extent = pending.request, fields.get("extent")
        if extent not in ("once", "while") or (extent == "while" and not can_be_temporary(grant)):
            raise NotDecided(session, 400, "This cannot be approved this way. Nothing was decided.")
        if pending.barred is not None:
            raise NotDecided(session, 403, f"{pending.barred} Nothing was decided.")
        typed = fields.get("name", "")
        # As it is, or as the page shows it where it holds what no keyboard has.
        if grant.expected is not None and typed not in (grant.expected, sanitize(grant.expected)):
            problem = "Nothing was approved: the text you typed does not match exactly."
            raise NotDecided(session, 422, problem, grant.id, name=typed)
        if (follows := await session.inbox.approve(pending, now)) is None:
            raise await self._void(session, grant.id)
        more = ""
        if extent == "while":
            await session.inbox.approve_similar(pending, now)
            more = f", and more such calls on its target for {TEMPORARY_MINUTES} minutes"
        return self._back(request, session, f"Approved: {view.title(grant.tool)}{more}. {follows}")

    async def decline(self, request: Request) -> Response:
        session, fields, pending, now = await self._decision(request, "decline")
        grant = pending.request
        note = fields.get("note", "").replace("\r\n", "\n").strip()
        if len(note) > LONGEST_NOTE:
            problem = f"Nothing was decided: the note has {len(note)} characters, and {LONGEST_NOTE} is the limit."
            raise NotDecided(session, 422, problem, grant.id, note=note)
        if not await session.inbox.decline(pending, now, note or None):
            raise await self._void(session, grant.id)
        told = " The agent gets your note." if note else ""
        holds = f"The same call stays declined for {view.left(grant.expires - now)}."
        return self._back(request, session, f"Declined: {view.title(grant.tool)}. Nothing is sent.{told} {holds}")

    async def revoke(self, request: Request) -> Response:
        session, fields = await self._form(request, "revoke", "scope")
        if not await session.inbox.revoke(fields["scope"], self._now()):
            raise NotDecided(session, 409, "This temporary approval has already ended.")
        return self._back(request, session, "Revoked. Such calls need approval again.")

    async def anything(self, request: Request) -> Response:
        """Addresses that are none: home for whom is let in, closed for all others."""
        return RedirectResponse((await self._session(request)).root, 303)

    async def closed(self, request: Request, _: Exception) -> Response:
        """The same for everybody who is not let in, whatever the reason."""
        return self.render(request, "closed.html", 403)

    async def not_decided(self, request: Request, problem: NotDecided) -> Response:
        said = None if problem.draft else {"text": str(problem), "good": False}
        return await self._shown(request, problem.session, problem.status, said, problem.draft)

    async def away(self, request: Request, _: Exception) -> Response:
        """Who is let in and what waits is in the ledger: nothing can be said of either, nor decided."""
        return self.render(request, "away.html", 503)

    async def failed(self, request: Request, _: Exception) -> Response:
        return self.render(request, "failed.html", 500)

    def render(self, request: Request, template: str, status: int = 200, **content: Any) -> Response:
        base = request.scope.get("root_path", "")
        text = self._templates.get_template(template).render(base=base, **self._access.context, **content)
        return HTMLResponse(text, status)

    async def _session(self, request: Request) -> Session:
        """Raises `NotLetIn`."""
        if (session := await self._access.session(request)) is None:
            raise NotLetIn
        return session

    async def _form(self, request: Request, action: str, about: str) -> tuple[Session, dict[str, str]]:
        """A form that this session was given and has not sent before. Raises `NotDecided`."""
        session = await self._session(request)
        try:
            fields = await form(request)
        except BadForm as problem:
            raise NotDecided(session, problem.status, "Nothing was decided: the form is not from this page.") from None
        if not await spend(self._seal, self._ledger, session.id, f"{action} {fields.get(about)}", fields, self._now()):
            why = "Nothing was decided: this form was already submitted, or is not from this page."
            raise NotDecided(session, 403, why)
        return session, fields

    async def _decision(self, request: Request, action: str) -> tuple[Session, dict[str, str], PendingRequest, float]:
        """A form about a request that can be answered here; those of a client's form are answered there."""
        session, fields = await self._form(request, action, "grant")
        pending, now = await session.inbox.find(fields["grant"]), self._now()
        if pending is None or not _is_open(pending.request, now):
            raise await self._void(session, fields["grant"])
        return session, fields, pending, now

    async def _void(self, session: Session, request: str) -> NotDecided:
        """It cannot be decided any more: somebody else was quicker, or it has run out."""
        pending = await session.inbox.find(request)
        return NotDecided(session, 409, view.what_became(None if pending is None else pending.request))

    def _back(self, request: Request, session: Session, said: str) -> Response:
        response = RedirectResponse(session.root, 303)
        response.set_cookie(
            _FLASH_COOKIE, self._seal.close(f"said {session.id}", said), max_age=int(_FLASH_HOLDS), path=session.root,
            secure=request.headers.get("origin", "").startswith("https:"), httponly=True, samesite="lax",
        )  # fmt: skip
        return response

    async def _shown(
        self, request: Request, session: Session, status: int = 200, said: dict[str, Any] | None = None,
        draft: dict[str, str] | None = None,
    ) -> Response:  # fmt: skip
        content = await self._content(session, draft)
        about = {"root": session.root, "person": session.person, "said": said}
        return self.render(request, "page.html", status, **about, **content)

    async def _content(self, session: Session, draft: dict[str, str] | None = None) -> dict[str, Any]:
        def token(action: str, about: str) -> str:
            return self._seal.token(session.id, f"{action} {about}")

        now, inbox = self._now(), session.inbox
        # Before what it counts is read: a change in between is noticed again, and never missed.
        revision = await inbox.revision()
        return {
            "revision": revision,
            "clock": int(now),
            "questions": [view.pending(each, now) for each in await inbox.waiting(now)],
            "scopes": [view.temporary_approval(scope, now) for scope in await inbox.scopes(now)],
            "decided": [view.decided(each, now) for each in await inbox.decided(_PAST)],
            "draft": draft,
            "minutes": TEMPORARY_MINUTES,
            "longest_note": LONGEST_NOTE,
            "token": token,
        }

    def _now(self) -> float:
        return self._system.now().timestamp()


async def spend(seal: Seal, ledger: Ledger, session: str, form: str, fields: dict[str, str], now: float) -> bool:
    """Whether the token among `fields` is of this form and session and was not used before; from now on it was."""
    nonce = seal.nonce(session, form, fields.get("token", ""))
    return nonce is not None and await ledger.use_nonce(f"form {nonce}", now + SESSION_HOLDS + 60, now)


def _static(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = (_HERE / "static" / name).read_bytes()

    async def static(_: Request) -> Response:
        return Response(content, media_type=kind)

    return static


def _is_open(grant: ApprovalRequest, now: float) -> bool:
    return grant.out_of_band and grant.state is RequestState.OPEN and grant.expires > now
