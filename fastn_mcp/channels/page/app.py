"""ASGI application of the approval page. GET requests show approval requests, POST requests decide them."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from fastn_mcp.channels.page import view
from fastn_mcp.channels.page.access import NoSession, PageAccess, PageSecurity, Session
from fastn_mcp.channels.page.decisions import FLASH_COOKIE, FLASH_HOLDS, MAX_LISTED, NotDecided
from fastn_mcp.channels.page.places import PagePlaces
from fastn_mcp.guard.approval_form import MAX_NOTE
from fastn_mcp.guard.sentences.facts import MAX_FACTS
from fastn_mcp.ledger.approval_request import TEMPORARY_MINUTES
from fastn_mcp.ledger.ledger import Ledger, LedgerLost
from fastn_mcp.runtime import System

_MAX_HISTORY = 30
_MIN_LISTED = 3
"""Requests from which on they are a list, with one of them open."""
_MIN_GROUPED = 7
"""Requests from which on they are grouped by who asks, and several can be declined at once."""
_POLL_SECONDS = 0.5
"""Seconds between two polls of the ledger while a browser watches."""
_KEEP_ALIVE_POLLS = 20
"""Polls without a change until a keep-alive, which detects a closed browser."""

_STATIC_FOLDER = Path(__file__).parent / "static"
_SCRIPT = "text/javascript"
_STATIC = {"page.css": "text/css", "page.js": _SCRIPT, "closed.js": _SCRIPT, "icon.svg": "image/svg+xml"}


def page(
    access: PageAccess, origins: Sequence[str], ledger: Ledger, system: System, is_leaving: Callable[[], bool]
) -> ASGIApp:
    """Return the page for browsers that use one of `origins` and that `access` authenticates.

    `ledger` stores which form tokens were used.
    """
    pages = _Page(access, access.seal, ledger, system, is_leaving)
    prefix = access.prefix
    routes = [
        *(Route(f"/static/{name}", _static(name, kind), methods=["GET"]) for name, kind in _STATIC.items()),
        *access.routes(pages.render),
        Route(f"{prefix}/", pages.home, methods=["GET"]),
        Route(f"{prefix}/now", pages.now, methods=["GET"]),
        Route(f"{prefix}/events", pages.events, methods=["GET"]),
        Route(f"{prefix}/approve", pages.approve, methods=["POST"]),
        Route(f"{prefix}/decline", pages.decline, methods=["POST"]),
        Route(f"{prefix}/decline-several", pages.decline_several, methods=["POST"]),
        Route(f"{prefix}/withdraw", pages.withdraw, methods=["POST"]),
        Route(f"{prefix}/undo", pages.show_undo, methods=["GET"]),
        Route(f"{prefix}/undo", pages.undo, methods=["POST"]),
        Route(f"{prefix}/revoke", pages.revoke, methods=["POST"]),
        Route(f"{prefix}/activity", pages.activity, methods=["GET"]),
        Route(f"{prefix}/limits", pages.limits, methods=["GET"]),
        Route(f"{prefix}/stop", pages.stop_page, methods=["GET"]),
        Route(f"{prefix}/stop", pages.stop, methods=["POST"]),
        Route(f"{prefix}/allow", pages.allow_page, methods=["GET"]),
        Route(f"{prefix}/allow", pages.allow, methods=["POST"]),
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


@dataclass(frozen=True, slots=True)
class _Page(PagePlaces):
    is_leaving: Callable[[], bool]

    async def home(self, request: Request) -> Response:
        session = await self.session(request)
        sealed = request.cookies.get(FLASH_COOKIE)
        flash = self.seal.open(f"said {session.id}", sealed, FLASH_HOLDS)
        message = _message(flash, good=True) if isinstance(flash, str) else None
        response = await self._response(request, session, flash=message)
        if sealed is not None:
            response.delete_cookie(FLASH_COOKIE, path=session.root, httponly=True, samesite="lax")
        return response

    async def now(self, request: Request) -> Response:
        """Return only the part of the page that changes, for an open page."""
        session = await self.session(request)
        frame, content = await self.frame(session, ""), await self._content(request, session)
        return self.render(request, "now.html", **frame, **content)

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
                await self.system.sleep(_POLL_SECONDS)
        except LedgerLost:
            return  # the browser reconnects and gets the error page
        finally:
            self.access.watching -= 1

    async def anything(self, request: Request) -> Response:
        """Redirect unknown addresses to the page. Raises `NoSession` without a session."""
        return RedirectResponse((await self.session(request)).root, 303)

    async def not_decided(self, request: Request, problem: NotDecided) -> Response:
        flash = None if problem.draft else _message(str(problem), good=False)
        return await self._response(request, problem.session, problem.status, flash, problem.draft)

    async def problem(self, template: str, status: int, request: Request, _: Exception) -> Response:
        return self.render(request, template, status)

    async def _response(
        self, request: Request, session: Session, status: int = 200, flash: dict[str, Any] | None = None,
        draft: dict[str, str] | None = None,
    ) -> Response:  # fmt: skip
        content = await self._content(request, session, draft)
        return self.render(request, "page.html", status, said=flash, **await self.frame(session, ""), **content)

    async def _content(self, request: Request, session: Session, draft: dict[str, str] | None = None) -> dict[str, Any]:
        now, inbox = self.system.timestamp(), session.inbox
        # Read the revision first: a change in between is then reported again and never missed.
        revision = await inbox.revision()
        every = await inbox.waiting(now)
        waiting = [view.pending(each, now) for each in every[:MAX_LISTED]]
        decided = await inbox.decided(_MAX_HISTORY)
        wanted = draft["grant"] if draft else request.query_params.get("request")
        is_list = len(waiting) >= _MIN_LISTED
        cards = [each for each in waiting if each["id"] == wanted] or waiting
        temporary = await inbox.temporary_approvals(now)
        return {
            "revision": revision,
            "clock": int(now),
            "count": len(every),
            "groups": view.grouped(waiting) if is_list and len(waiting) >= _MIN_GROUPED else [("", waiting)],
            "queue": waiting if is_list else [],
            "cards": cards[:1] if is_list else waiting,
            "temporary": [view.temporary_approval(each, now) for each in temporary],
            "decided": [view.decided(each, now) for each in decided],
            "draft": draft,
            "minutes": TEMPORARY_MINUTES,
            "longest_note": MAX_NOTE,
            "most_facts": MAX_FACTS,
        }


def _static(name: str, kind: str) -> Callable[[Request], Awaitable[Response]]:
    content = (_STATIC_FOLDER / name).read_bytes()

    async def static(_: Request) -> Response:
        return Response(content, media_type=kind)

    return static


def _message(text: str, *, good: bool) -> dict[str, Any]:
    return {"parts": view.parts(text), "good": good}
