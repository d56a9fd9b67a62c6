"""The approval page as an ASGI application. GET shows, POST decides."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from fastn_mcp.channels.page import view
from fastn_mcp.channels.page.access import PageAccess, PendingRequest
from fastn_mcp.channels.page.security import BadForm, Shield, form
from fastn_mcp.channels.page.sessions import FlashMessage
from fastn_mcp.guard.approval.request import SCOPE_MINUTES, may_scope
from fastn_mcp.guard.ledger.ledger import Grant, GrantState, LedgerLost
from fastn_mcp.runtime import System

LONGEST_NOTE = 500
"""Characters of a note to the agent."""

S = TypeVar("S")

_PAST = 30
_POLL = 0.5
"""Seconds between two looks at the ledger, while somebody watches."""
_BEAT = 20
"""Looks without a change, after which a sign of life is sent: a browser that has gone is noticed by it."""

_HERE = Path(__file__).parent
_STATIC = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}


def page(way: PageAccess[S], system: System, origins: Sequence[str]) -> ASGIApp:
    """The page, for browsers that call it by one of `origins` and that are let in by this way."""
    made = _Page(way, system)
    room = way.room
    routes = [
        *(Route(f"/static/{name}", _static(name, kind), methods=["GET"]) for name, kind in _STATIC.items()),
        *way.routes(made.render),
        Route(f"{room}/", made.home, methods=["GET"]),
        Route(f"{room}/now", made.now, methods=["GET"]),
        Route(f"{room}/events", made.events, methods=["GET"]),
        Route(f"{room}/approve", made.approve, methods=["POST"]),
        Route(f"{room}/decline", made.decline, methods=["POST"]),
        Route(f"{room}/revoke", made.revoke, methods=["POST"]),
        Route("/{path:path}", made.anything, methods=["GET", "POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={LedgerLost: made.away, Exception: made.failed})
    app.router.redirect_slashes = False
    return Shield(app, origins, way.entrance)


@dataclass(frozen=True, slots=True)
class Draft:
    """What a person had filled in, and why it did not do."""

    grant: str
    problem: str
    name: str = ""
    note: str = ""


class _Page(Generic[S]):
    def __init__(self, way: PageAccess[S], system: System) -> None:
        self._way = way
        self._system = system
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    async def home(self, request: Request) -> Response:
        if (session := await self._way.session(request)) is None:
            return self._closed(request)
        answer = await self._shown(request, session, said=self._way.told(request, None, session))
        self._way.told(request, answer, session)
        return answer

    async def now(self, request: Request) -> Response:
        """The changing part alone, for a page that is open already."""
        if (session := await self._way.session(request)) is None:
            return self._closed(request)
        root = self._way.root(request, session)
        return self.render(request, "now.html", root=root, **await self._content(session))

    async def events(self, request: Request) -> Response:
        """Says that something has changed, and never what."""
        if (session := await self._way.session(request)) is None:
            return self._closed(request)
        return StreamingResponse(self._changes(session, request), media_type="text/event-stream")

    async def _changes(self, session: S, request: Request) -> AsyncIterator[str]:
        seen, silent = None, 0
        inbox = self._way.inbox(session)
        with self._way.watched() as goes_on:
            while goes_on() and not await request.is_disconnected():
                try:
                    if await self._way.session(request) is None:
                        return
                    revision, silent = await inbox.revision(), silent + 1
                except LedgerLost:
                    return  # the browser comes again, and is told why
                if revision != seen:
                    seen, silent = revision, 0
                    yield f"event: changed\ndata: {revision}\n\n"
                elif silent >= _BEAT:
                    silent = 0
                    yield ": still here\n\n"
                await self._system.sleep(_POLL)

    async def approve(self, request: Request) -> Response:
        given = await self._given(request, "approve")
        if isinstance(given, Response):
            return given
        session, fields, lying, now = given
        if lying is None or not _open(lying.grant, now):
            return await self._void(request, session, lying)
        grant, extent = lying.grant, fields.get("extent")
        if extent not in ("once", "while") or (extent == "while" and not may_scope(grant)):
            return await self._shown(
                request,
                session,
                400,
                FlashMessage("This cannot be approved this way. Nothing was decided.", good=False),
            )
        if lying.barred is not None:
            return await self._shown(
                request, session, 403, FlashMessage(f"{lying.barred} Nothing was decided.", good=False)
            )
        typed = fields.get("name", "")
        if grant.expected is not None and typed not in _accepted(grant.expected):
            problem = "Nothing was approved: the text you typed does not match exactly."
            return await self._shown(request, session, 422, draft=Draft(grant.id, problem, name=typed))
        inbox = self._way.inbox(session)
        if (follows := await inbox.approve(lying, now)) is None:
            return await self._overtaken(request, session, grant.id)
        if extent == "while" and grant.target is not None:
            await inbox.scope(lying, now)
        more = f", and more such calls on its target for {SCOPE_MINUTES} minutes" if extent == "while" else ""
        return self._back(request, session, f"Approved: {view.title(grant.tool)}{more}. {follows}")

    async def decline(self, request: Request) -> Response:
        given = await self._given(request, "decline")
        if isinstance(given, Response):
            return given
        session, fields, lying, now = given
        if lying is None or not _open(lying.grant, now):
            return await self._void(request, session, lying)
        grant = lying.grant
        note = fields.get("note", "").replace("\r\n", "\n").strip()
        if len(note) > LONGEST_NOTE:
            problem = f"Nothing was decided: the note has {len(note)} characters, and {LONGEST_NOTE} is the limit."
            return await self._shown(request, session, 422, draft=Draft(grant.id, problem, note=note))
        if not await self._way.inbox(session).decline(lying, now, note or None):
            return await self._overtaken(request, session, grant.id)
        told = " The agent gets your note." if note else ""
        holds = f"The same call stays declined for {view.left(grant.expires - now)}."
        return self._back(
            request,
            session,
            f"Declined: {view.title(grant.tool)}. Nothing is sent.{told} {holds}",
        )

    async def revoke(self, request: Request) -> Response:
        sent = await self._sent(request, "revoke", "scope")
        if isinstance(sent, Response):
            return sent
        session, fields = sent
        if not await self._way.inbox(session).revoke(fields["scope"], self._now()):
            return await self._shown(
                request, session, 409, FlashMessage("This temporary approval has already ended.", good=False)
            )
        return self._back(request, session, "Revoked. Such calls need approval again.")

    async def anything(self, request: Request) -> Response:
        """Addresses that are none: home for whom is let in, closed for all others."""
        session = await self._way.session(request)
        return self._closed(request) if session is None else RedirectResponse(self._way.root(request, session), 303)

    async def away(self, request: Request, _: Exception) -> Response:
        """Who is let in and what waits is in the ledger: nothing can be said of either, nor decided."""
        return self.render(request, "away.html", 503)

    async def failed(self, request: Request, _: Exception) -> Response:
        return self.render(request, "failed.html", 500)

    def render(self, request: Request, template: str, status: int = 200, **content: Any) -> Response:
        """An answer of a template."""
        base = request.scope.get("root_path", "")
        return HTMLResponse(
            self._templates.get_template(template).render(base=base, **self._way.looks, **content), status
        )

    async def _given(
        self, request: Request, action: str
    ) -> tuple[S, dict[str, str], PendingRequest | None, float] | Response:
        sent = await self._sent(request, action, "grant")
        if isinstance(sent, Response):
            return sent
        session, fields = sent
        return session, fields, await self._way.inbox(session).find(fields["grant"]), self._now()

    async def _sent(self, request: Request, action: str, about: str) -> tuple[S, dict[str, str]] | Response:
        """A form that this session was given and has not sent before."""
        if (session := await self._way.session(request)) is None:
            return self._closed(request)
        try:
            fields = await form(request)
        except BadForm as problem:
            said = "Nothing was decided: the form is not from this page."
            return await self._shown(request, session, problem.status, FlashMessage(said, good=False))
        if not await self._way.spend(session, f"{action} {fields.get(about)}", fields.get("token", "")):
            said = "Nothing was decided: this form was already submitted, or is not from this page."
            return await self._shown(request, session, 403, FlashMessage(said, good=False))
        return session, fields

    async def _overtaken(self, request: Request, session: S, grant: str) -> Response:
        """Somebody else was quicker."""
        return await self._void(request, session, await self._way.inbox(session).find(grant))

    async def _void(self, request: Request, session: S, lying: PendingRequest | None) -> Response:
        became = view.what_became(None if lying is None else lying.grant)
        return await self._shown(request, session, 409, FlashMessage(became, good=False))

    def _back(self, request: Request, session: S, said: str) -> Response:
        answer = RedirectResponse(self._way.root(request, session), 303)
        self._way.tell(answer, session, FlashMessage(said, good=True))
        return answer

    async def _shown(
        self,
        request: Request,
        session: S,
        status: int = 200,
        said: FlashMessage | None = None,
        draft: Draft | None = None,
    ) -> Response:
        content = await self._content(session, draft)
        root, person = self._way.root(request, session), self._way.person(session)
        return self.render(request, "page.html", status, root=root, said=said, person=person, **content)

    async def _content(self, session: S, draft: Draft | None = None) -> dict[str, Any]:
        def token(action: str, about: str) -> str:
            return self._way.token(session, f"{action} {about}")

        now, inbox = self._now(), self._way.inbox(session)
        # Before what it counts is read: a change in between is noticed again, and never missed.
        revision = await inbox.revision()
        return {
            "revision": revision,
            "clock": int(now),
            "questions": [view.question(lying, now) for lying in await inbox.waiting(now)],
            "scopes": [view.running(scope, now) for scope in await inbox.scopes(now)],
            "decided": [view.past(one, now) for one in await inbox.decided(_PAST)],
            "draft": draft,
            "minutes": SCOPE_MINUTES,
            "longest_note": LONGEST_NOTE,
            "token": token,
        }

    def _closed(self, request: Request) -> Response:
        """The same for everybody who is not let in, whatever the reason."""
        return self.render(request, "closed.html", 403)

    def _now(self) -> float:
        return self._system.now().timestamp()


def _static(name: str, kind: str) -> Any:
    content = (_HERE / "static" / name).read_bytes()

    async def static(_: Request) -> Response:
        return Response(content, media_type=kind)

    return static


def _open(grant: Grant, now: float) -> bool:
    """Whether a question can be answered here; those of a form are answered in the form."""
    return grant.elsewhere and grant.state is GrantState.OPEN and grant.expires > now


def _accepted(expected: str) -> tuple[str, str]:
    """The name itself, and as the page shows it where it holds what no keyboard has."""
    return expected, view.sanitize(expected)
