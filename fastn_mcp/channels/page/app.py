"""ASGI application of the approval page. GET requests show approval requests, POST requests decide them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import JsonValue
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from fastn_mcp.channels.page import view
from fastn_mcp.channels.page.access import NoSession, PageAccess, Session
from fastn_mcp.channels.page.inbox import PendingRequest
from fastn_mcp.channels.page.places import stops_in_words
from fastn_mcp.channels.page.security import BadForm, PageSecurity, form
from fastn_mcp.channels.page.sessions import SESSION_HOLDS
from fastn_mcp.channels.page.stop import StopPlaces
from fastn_mcp.guard.approval.votes import NotCounted, why_closed
from fastn_mcp.guard.approval_form import LONGEST_NOTE, TEMPORARY_MINUTES, can_be_temporary, is_typed, typed_in
from fastn_mcp.guard.seal import Seal
from fastn_mcp.guard.sentences.facts import MOST_FACTS
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState
from fastn_mcp.ledger.ledger import Ledger, LedgerLost
from fastn_mcp.runtime import System

_FLASH_COOKIE = "fastn_said"
_FLASH_HOLDS = 60.0
_HISTORY = 30
_LONGEST_BRIEF = 300
_SHORTEST_LIST = 3
"""Requests from which on they are a list, with one of them open."""
_POLL = 0.5
"""Seconds between two polls of the ledger while a browser watches."""
_KEEP_ALIVE_POLLS = 20
"""Polls without a change until a keep-alive, which detects a closed browser."""

_HERE = Path(__file__).parent
_TEMPLATES = Environment(
    loader=FileSystemLoader(_HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
"""Compiled once in a process: a template takes longer than the rest of a page."""
_SCRIPT = "text/javascript"
_STATIC = {"page.css": "text/css", "page.js": _SCRIPT, "closed.js": _SCRIPT, "icon.svg": "image/svg+xml"}


def page(
    access: PageAccess, origins: Sequence[str], ledger: Ledger, system: System, secrets: Sequence[str] = (),
    is_leaving: Callable[[], bool] = lambda: False,
) -> ASGIApp:  # fmt: skip
    """Return the page for browsers that use one of `origins` and that `access` authenticates.

    `ledger` stores which form tokens were used. Processes that share `secrets` accept each other's forms.
    """
    pages = _Page(access, Seal(secrets or [system.token()], system), ledger, system, is_leaving)
    prefix = access.prefix
    routes = [
        *(Route(f"/static/{name}", _static(name, kind), methods=["GET"]) for name, kind in _STATIC.items()),
        *access.routes(pages.render),
        Route(f"{prefix}/", pages.home, methods=["GET"]),
        Route(f"{prefix}/now", pages.now, methods=["GET"]),
        Route(f"{prefix}/events", pages.events, methods=["GET"]),
        Route(f"{prefix}/approve", pages.approve, methods=["POST"]),
        Route(f"{prefix}/decline", pages.decline, methods=["POST"]),
        Route(f"{prefix}/revoke", pages.revoke, methods=["POST"]),
        *StopPlaces(pages.render, pages.session, pages.seal, ledger, system).routes(prefix),
        Route("/{path:path}", pages.anything, methods=["GET", "POST"]),
    ]
    handlers: dict[Any, Any] = {
        # The same page whatever the reason for denied access. Without the ledger, nothing can be checked.
        NoSession: partial(pages.problem, "closed.html", 403),
        LedgerLost: partial(pages.problem, "away.html", 503),
        Exception: partial(pages.problem, "failed.html", 500),
        NotDecided: pages.not_decided,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return PageSecurity(app, origins, access.entrance)


class NotDecided(Exception):
    """A form decided nothing. The reason is shown on top of the page or, with `request`, beside that request."""

    def __init__(self, session: Session, status: int, why: str, request: str | None = None, **draft: str) -> None:
        super().__init__(why)
        self.session = session
        self.status = status
        self.draft = None if request is None else {"grant": request, "problem": why, "name": "", "note": ""} | draft


@dataclass(frozen=True, slots=True)
class _Page:
    access: PageAccess
    seal: Seal
    ledger: Ledger
    system: System
    is_leaving: Callable[[], bool]

    async def home(self, request: Request) -> Response:
        session = await self.session(request)
        sealed = request.cookies.get(_FLASH_COOKIE)
        flash = self.seal.open(f"said {session.id}", sealed, _FLASH_HOLDS)
        message = None if flash is None else _message(flash, good=True)
        response = await self._response(request, session, flash=message)
        if sealed is not None:
            response.delete_cookie(_FLASH_COOKIE, path=session.root, httponly=True, samesite="lax")
        return response

    async def now(self, request: Request) -> Response:
        """Return only the part of the page that changes, for an open page."""
        session = await self.session(request)
        return self.render(request, "now.html", root=session.root, **await self._content(request, session))

    async def events(self, request: Request) -> Response:
        """Stream an event for each change, without its content."""
        session = await self.session(request)
        return StreamingResponse(self._changes(session, request), media_type="text/event-stream")

    async def _changes(self, session: Session, request: Request) -> AsyncIterator[str]:
        last, unchanged = None, 0
        self.access.watching += 1
        try:
            # On shutdown the stream ends, so that the browser reconnects to another process.
            while not self.is_leaving() and not await request.is_disconnected():
                if await self.access.session(request) is None:
                    return
                revision, unchanged = await session.inbox.revision(), unchanged + 1
                if revision != last:
                    last, unchanged = revision, 0
                    yield f"event: changed\ndata: {revision}\n\n"
                elif unchanged >= _KEEP_ALIVE_POLLS:
                    unchanged = 0
                    yield ": still here\n\n"
                await self.system.sleep(_POLL)
        except LedgerLost:
            return  # the browser reconnects and gets the error page
        finally:
            self.access.watching -= 1

    async def approve(self, request: Request) -> Response:
        session, fields, pending, now = await self._decision(request, "approve")
        approval_request, extent = pending.request, fields.get("extent")
        if extent not in ("once", "while") or (extent == "while" and not can_be_temporary(approval_request)):
            raise NotDecided(session, 400, "This cannot be approved this way. Nothing was decided.")
        if pending.barred is not None:
            raise NotDecided(session, 403, f"{pending.barred} Nothing was decided.")
        id_, typed = approval_request.id, fields.get("name", "")
        if not is_typed(approval_request.expected, typed):
            problem = "Nothing was approved: the text you typed does not match exactly."
            raise NotDecided(session, 422, problem, id_, name=typed)
        try:
            secret = _typed_secret(approval_request, fields)
        except ValueError as problem:
            raise NotDecided(session, 422, f"Nothing was approved: {problem}", id_, name=typed) from None
        follows = await session.inbox.approve(pending, now, secret, is_temporary=extent == "while")
        if isinstance(follows, NotCounted):
            raise NotDecided(session, 409, follows.why)
        more = f", and more such calls on its target for {TEMPORARY_MINUTES} minutes" if extent == "while" else ""
        return self._back(request, session, f"Approved: {_brief(approval_request)}{more}. {follows}")

    async def decline(self, request: Request) -> Response:
        session, fields, pending, now = await self._decision(request, "decline")
        approval_request = pending.request
        note = fields.get("note", "").replace("\r\n", "\n").strip()
        if len(note) > LONGEST_NOTE:
            problem = f"Nothing was decided: the note has {len(note)} characters, and {LONGEST_NOTE} is the limit."
            raise NotDecided(session, 422, problem, approval_request.id, note=note)
        if isinstance(counted := await session.inbox.decline(pending, now, note or None), NotCounted):
            raise NotDecided(session, 409, counted.why)
        noted = " The agent gets your note." if note else ""
        holds = f"The same call stays declined for {view.left(approval_request.expires - now)}."
        return self._back(request, session, f"Declined: {_brief(approval_request)}. Nothing is sent.{noted} {holds}")

    async def revoke(self, request: Request) -> Response:
        session, fields = await self._form(request, "revoke", "approval")
        if not await session.inbox.revoke(fields["approval"], self.system.timestamp()):
            raise NotDecided(session, 409, "This temporary approval has already ended.")
        return self._back(request, session, "Revoked. Such calls need approval again.")

    async def anything(self, request: Request) -> Response:
        """Redirect unknown addresses to the page. Raises `NoSession` without a session."""
        return RedirectResponse((await self.session(request)).root, 303)

    async def not_decided(self, request: Request, problem: NotDecided) -> Response:
        flash = None if problem.draft else _message(str(problem), good=False)
        return await self._response(request, problem.session, problem.status, flash, problem.draft)

    async def problem(self, template: str, status: int, request: Request, _: Exception) -> Response:
        return self.render(request, template, status)

    def render(self, request: Request, template: str, status: int = 200, **content: Any) -> Response:
        base = request.scope.get("root_path", "")
        text = _TEMPLATES.get_template(template).render(base=base, **self.access.context, **content)
        return HTMLResponse(text, status)

    async def session(self, request: Request) -> Session:
        """Return the session. Raises `NoSession` if access is denied."""
        if (session := await self.access.session(request)) is None:
            raise NoSession
        return session

    async def _form(self, request: Request, action: str, about: str) -> tuple[Session, dict[str, str]]:
        """Read a form of this session and use its token. Raises `NotDecided` if it is invalid or was sent before."""
        session = await self.session(request)
        try:
            fields = await form(request)
        except BadForm as problem:
            raise NotDecided(session, problem.status, "Nothing was decided: the form is not from this page.") from None
        if not await redeem(
            self.seal, self.ledger, session.id, f"{action} {fields.get(about)}", fields, self.system.timestamp()
        ):
            why = "Nothing was decided: this form was already submitted, or is not from this page."
            raise NotDecided(session, 403, why)
        return session, fields

    async def _decision(self, request: Request, action: str) -> tuple[Session, dict[str, str], PendingRequest, float]:
        """Read a form about an open out-of-band request. Raises `NotDecided` if it cannot be decided here."""
        session, fields = await self._form(request, action, "grant")
        pending, now = await session.inbox.find(fields["grant"]), self.system.timestamp()
        if pending is None or not _is_open(pending.request, now):
            raise NotDecided(session, 409, why_closed(None if pending is None else pending.request))
        return session, fields, pending, now

    def _back(self, request: Request, session: Session, flash: str) -> Response:
        response = RedirectResponse(session.root, 303)
        response.set_cookie(
            _FLASH_COOKIE, self.seal.close(f"said {session.id}", flash), max_age=int(_FLASH_HOLDS), path=session.root,
            secure=request.headers.get("origin", "").startswith("https:"), httponly=True, samesite="lax",
        )  # fmt: skip
        return response

    async def _response(
        self, request: Request, session: Session, status: int = 200, flash: dict[str, Any] | None = None,
        draft: dict[str, str] | None = None,
    ) -> Response:  # fmt: skip
        content = await self._content(request, session, draft)
        content["stops"] = await stops_in_words(session.inbox, self.ledger, self.system.now())
        about = {"root": session.root, "person": session.person, "said": flash, "place": ""}
        return self.render(request, "page.html", status, **about, **content)

    async def _content(self, request: Request, session: Session, draft: dict[str, str] | None = None) -> dict[str, Any]:
        def token(action: str, about: str) -> str:
            return self.seal.token(session.id, f"{action} {about}")

        now, inbox = self.system.timestamp(), session.inbox
        # Read the revision first: a change in between is then reported again and never missed.
        revision = await inbox.revision()
        waiting = [view.pending(each, now) for each in await inbox.waiting(now)]
        decided = await inbox.decided(_HISTORY)
        briefs = view.briefs(decided)
        wanted = draft["grant"] if draft else request.query_params.get("request")
        is_list = len(waiting) >= _SHORTEST_LIST
        cards = [each for each in waiting if each["id"] == wanted] or waiting
        temporary = await inbox.temporary_approvals(now)
        return {
            "revision": revision,
            "clock": int(now),
            "count": len(waiting),
            "queue": waiting if is_list else [],
            "cards": cards[:1] if is_list else waiting,
            "temporary": [view.temporary_approval(each, now, briefs.get(each.similar)) for each in temporary],
            "decided": [view.decided(each, now) for each in decided],
            "draft": draft,
            "minutes": TEMPORARY_MINUTES,
            "longest_note": LONGEST_NOTE,
            "most_facts": MOST_FACTS,
            "token": token,
        }


async def redeem(seal: Seal, ledger: Ledger, session: str, form: str, fields: dict[str, str], now: float) -> bool:
    """Use the token in `fields`. Return False if it is not of this form and session, or was used before."""
    nonce = seal.nonce(session, form, fields.get("token", ""))
    return nonce is not None and await ledger.use_nonce(f"form {nonce}", now + SESSION_HOLDS + 60, now)


def _static(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = (_HERE / "static" / name).read_bytes()

    async def static(_: Request) -> Response:
        return Response(content, media_type=kind)

    return static


def _typed_secret(request: ApprovalRequest, fields: Mapping[str, str]) -> JsonValue:
    """Return the argument that was typed. Raises `ValueError` if it is missing or invalid."""
    typed = typed_in(request)
    return typed and typed.value({each.name: fields.get(f"secret.{each.name}", "") for each in typed.fields})


def _is_open(request: ApprovalRequest, now: float) -> bool:
    return request.out_of_band and request.state is RequestState.OPEN and request.expires > now


def _brief(request: ApprovalRequest) -> str:
    """Return what a request is about, for a message that fits into a cookie."""
    brief = view.sentences(request.tool, request.preview).brief
    return brief if len(brief) <= _LONGEST_BRIEF else view.title(request.tool)


def _message(text: str, *, good: bool) -> dict[str, Any]:
    return {"parts": view.parts(text), "good": good}
