"""The page as an ASGI application. GET shows, POST decides; the ledger alone knows what is decided."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from fastn_mcp.channels.page import view
from fastn_mcp.channels.page.entry import Entry, Said, Session
from fastn_mcp.channels.page.record import Record, unrecorded
from fastn_mcp.channels.page.shield import BadForm, Shield, form, from_elsewhere
from fastn_mcp.guard.audit import Event
from fastn_mcp.guard.ledger import Grant, Ledger, State
from fastn_mcp.guard.question import SCOPE_MINUTES, for_a_while, may_scope
from fastn_mcp.system import System

NAME = "local_page"
COOKIE = "fastn_approvals"
LONGEST_NOTE = 500
"""Characters of a note to the agent."""

_PAST = 30
_POLL = 0.5
"""Seconds between two looks at the ledger, while somebody watches."""
_BEAT = 20
"""Looks without a change, after which a sign of life is sent: a browser that has gone is noticed by it."""

_HERE = Path(__file__).parent
_STATIC = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}


def application(
    ledger: Ledger, system: System, entry: Entry, origins: Sequence[str], record: Record = unrecorded
) -> ASGIApp:
    """The page, for browsers that call it by one of `origins` and that `entry` lets in.

    `record` is told what is decided, once it is.
    """
    page = _Page(ledger, system, entry, record)
    routes = [
        *(Route(f"/static/{name}", _static(name, kind), methods=["GET"]) for name, kind in _STATIC.items()),
        Route("/enter/{key}", page.enter, methods=["GET"]),
        Route("/{room}/", page.home, methods=["GET"]),
        Route("/{room}/now", page.now, methods=["GET"]),
        Route("/{room}/events", page.events, methods=["GET"]),
        Route("/{room}/approve", page.approve, methods=["POST"]),
        Route("/{room}/decline", page.decline, methods=["POST"]),
        Route("/{room}/revoke", page.revoke, methods=["POST"]),
        Route("/{path:path}", page.anything, methods=["GET", "POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={Exception: page.failed})
    app.router.redirect_slashes = False
    return Shield(app, origins)


@dataclass(frozen=True, slots=True)
class Draft:
    """What a person had filled in, and why it did not do."""

    grant: str
    problem: str
    name: str = ""
    note: str = ""


class _Page:
    def __init__(self, ledger: Ledger, system: System, entry: Entry, record: Record) -> None:
        self._record = record
        self._ledger = ledger
        self._system = system
        self._entry = entry
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    async def enter(self, request: Request) -> Response:
        # A page of somebody else must not be able to use up the attempts of the person.
        entered = None if from_elsewhere(request) else self._entry.enter(request.path_params["key"])
        if entered is None:
            return self._closed(request)
        session, cookie = entered
        root = _root(request, session)
        answer = RedirectResponse(root, 303)
        answer.set_cookie(COOKIE, cookie, path=root, httponly=True, samesite="strict", secure=_secure(request))
        return answer

    async def home(self, request: Request) -> Response:
        if (session := self._session(request)) is None:
            return self._closed(request)
        said, session.said = session.said, None
        return await self._shown(request, session, said=said)

    async def now(self, request: Request) -> Response:
        """The changing part alone, for a page that is open already."""
        if (session := self._session(request)) is None:
            return self._closed(request)
        return HTMLResponse(
            self._render("now.html", request, root=_root(request, session), **await self._content(session))
        )

    async def events(self, request: Request) -> Response:
        """Says that something has changed, and never what."""
        if (session := self._session(request)) is None:
            return self._closed(request)
        return StreamingResponse(self._changes(session, request), media_type="text/event-stream")

    async def _changes(self, session: Session, request: Request) -> AsyncIterator[str]:
        seen, silent = None, 0
        cookie = request.cookies.get(COOKIE)
        with self._entry.watched():
            while self._entry.session(session.room, cookie) is not None and not await request.is_disconnected():
                revision, silent = await self._ledger.revision(), silent + 1
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
        session, fields, grant, now = given
        extent = fields.get("extent")
        if grant is None or not _open(grant, now):
            return await self._shown(request, session, 409, Said(view.what_became(grant), good=False))
        if extent not in ("once", "while") or (extent == "while" and not may_scope(grant)):
            return await self._shown(
                request, session, 400, Said("This cannot be approved so. Nothing was decided.", good=False)
            )
        if view.question(grant, now).two_people:
            said = "Two people have to approve this call, and this page cannot tell people apart. Nothing was decided."
            return await self._shown(request, session, 403, Said(said, good=False))
        typed = fields.get("name", "")
        if grant.expected is not None and typed not in _accepted(grant.expected):
            problem = "Nothing was approved: what you typed is not the same, letter by letter."
            return await self._shown(request, session, 422, draft=Draft(grant.id, problem, name=typed))
        if not await self._ledger.move(grant.id, [State.OPEN], State.APPROVED, now, by=NAME):
            return await self._overtaken(request, session, grant.id)
        self._record(Event.APPROVED, grant, None)
        if extent == "while" and grant.target is not None:
            await self._ledger.grant_scope(for_a_while(grant, self._system.token(), now, NAME))
        await self._ledger.note_answer(grant.principal, declined=False, now=now)
        more = f", and more such calls on its target for {SCOPE_MINUTES} minutes" if extent == "while" else ""
        session.said = Said(
            f"Approved: {view.title(grant.tool)}{more}. It is sent when the agent makes the call again.", good=True
        )
        return RedirectResponse(_root(request, session), 303)

    async def decline(self, request: Request) -> Response:
        given = await self._given(request, "decline")
        if isinstance(given, Response):
            return given
        session, fields, grant, now = given
        if grant is None or not _open(grant, now):
            return await self._shown(request, session, 409, Said(view.what_became(grant), good=False))
        note = fields.get("note", "").replace("\r\n", "\n").strip()
        if len(note) > LONGEST_NOTE:
            problem = f"Nothing was decided: the note has {len(note)} characters, and {LONGEST_NOTE} are the most."
            return await self._shown(request, session, 422, draft=Draft(grant.id, problem, note=note))
        if not await self._ledger.move(grant.id, [State.OPEN], State.DECLINED, now, by=NAME, note=note or None):
            return await self._overtaken(request, session, grant.id)
        await self._ledger.note_answer(grant.principal, declined=True, now=now)
        self._record(Event.DECLINED, grant, note or None)
        told = " The agent gets your note." if note else ""
        session.said = Said(f"Declined: {view.title(grant.tool)}. Nothing is sent.{told}", good=True)
        return RedirectResponse(_root(request, session), 303)

    async def revoke(self, request: Request) -> Response:
        sent = await self._sent(request, "revoke", "scope")
        if isinstance(sent, Response):
            return sent
        session, fields = sent
        if not await self._ledger.revoke_scope(fields["scope"]):
            return await self._shown(request, session, 409, Said("This approval has ended already.", good=False))
        session.said = Said("Revoked: from now on such calls ask again.", good=True)
        return RedirectResponse(_root(request, session), 303)

    async def anything(self, request: Request) -> Response:
        """Addresses that are none: home for whom is let in, closed for all others."""
        room = request.path_params["path"].partition("/")[0]
        session = self._entry.session(room, request.cookies.get(COOKIE))
        return self._closed(request) if session is None else RedirectResponse(_root(request, session), 303)

    async def failed(self, request: Request, _: Exception) -> Response:
        return HTMLResponse(self._render("failed.html", request), 500)

    async def _given(
        self, request: Request, action: str
    ) -> tuple[Session, dict[str, str], Grant | None, float] | Response:
        sent = await self._sent(request, action, "grant")
        if isinstance(sent, Response):
            return sent
        session, fields = sent
        return session, fields, await self._ledger.find(fields["grant"]), self._system.now().timestamp()

    async def _sent(self, request: Request, action: str, about: str) -> tuple[Session, dict[str, str]] | Response:
        """A form that this session was given and has not sent before."""
        if (session := self._session(request)) is None:
            return self._closed(request)
        try:
            fields = await form(request)
        except BadForm as problem:
            said = "Nothing was decided: this is no form of this page."
            return await self._shown(request, session, problem.status, Said(said, good=False))
        if not self._entry.spend(session, f"{action} {fields.get(about)}", fields.get("token", "")):
            said = "Nothing was decided now: this form was sent before, or is not from this page."
            return await self._shown(request, session, 403, Said(said, good=False))
        return session, fields

    async def _overtaken(self, request: Request, session: Session, grant: str) -> Response:
        """Somebody else was quicker."""
        became = view.what_became(await self._ledger.find(grant))
        return await self._shown(request, session, 409, Said(became, good=False))

    def _session(self, request: Request) -> Session | None:
        return self._entry.session(request.path_params["room"], request.cookies.get(COOKIE))

    async def _shown(
        self,
        request: Request,
        session: Session,
        status: int = 200,
        said: Said | None = None,
        draft: Draft | None = None,
    ) -> Response:
        content = await self._content(session, draft)
        page = self._render("page.html", request, root=_root(request, session), said=said, **content)
        return HTMLResponse(page, status)

    async def _content(self, session: Session, draft: Draft | None = None) -> dict[str, Any]:
        def token(action: str, about: str) -> str:
            return self._entry.token(session, f"{action} {about}")

        now = self._system.now().timestamp()
        # Before what it counts is read: a change in between is noticed again, and never missed.
        revision = await self._ledger.revision()
        return {
            "revision": revision,
            "clock": int(now),
            "questions": [view.question(grant, now) for grant in await self._ledger.waiting(now)],
            "scopes": [view.running(scope, now) for scope in await self._ledger.scopes(now)],
            "decided": [view.past(grant, now) for grant in await self._ledger.decided(_PAST)],
            "draft": draft,
            "minutes": SCOPE_MINUTES,
            "longest_note": LONGEST_NOTE,
            "token": token,
        }

    def _closed(self, request: Request) -> Response:
        """The same for everybody who is not let in, whatever the reason."""
        return HTMLResponse(self._render("closed.html", request), 403)

    def _render(self, template: str, request: Request, **content: Any) -> str:
        return self._templates.get_template(template).render(base=request.scope.get("root_path", ""), **content)


def _static(name: str, kind: str) -> Any:
    content = (_HERE / "static" / name).read_bytes()

    async def static(_: Request) -> Response:
        return Response(content, media_type=kind)

    return static


def _open(grant: Grant, now: float) -> bool:
    """Whether a question can be answered here; those of a form are answered in the form."""
    return grant.elsewhere and grant.state is State.OPEN and grant.expires > now


def _accepted(expected: str) -> tuple[str, str]:
    """The name itself, and as the page shows it where it holds what no keyboard has."""
    return expected, view.visible(expected)


def _root(request: Request, session: Session) -> str:
    return f"{request.scope.get('root_path', '')}/{session.room}/"


def _secure(request: Request) -> bool:
    return request.url.scheme == "https"
