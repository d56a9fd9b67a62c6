"""Routes of the places Activity and Limits. They show, and decide nothing."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fastn_mcp.channels.page import activity, limits, view
from fastn_mcp.channels.page.activity_log import EFFECTS, KINDS, Search
from fastn_mcp.channels.page.security import Render, Session
from fastn_mcp.guard.seal import Seal
from fastn_mcp.runtime import System

_LONGEST = 200
"""Characters of a field of the search form."""


def place_routes(
    prefix: str, render: Render, session: Callable[[Request], Awaitable[Session]], seal: Seal, system: System
) -> list[Route]:
    """Return the routes. `session` returns the session of a request, or raises if access is denied."""
    places = _Places(render, session, seal, system)
    return [
        Route(f"{prefix}/activity", places.activity, methods=["GET"]),
        Route(f"{prefix}/change", places.change, methods=["GET"]),
        Route(f"{prefix}/limits", places.limits, methods=["GET"]),
    ]


@dataclass(frozen=True, slots=True)
class _Places:
    render: Render
    session: Callable[[Request], Awaitable[Session]]
    seal: Seal
    system: System

    async def activity(self, request: Request) -> Response:
        session, now = await self.session(request), self.system.timestamp()
        given = {each.name: request.query_params.get(each.name, "")[:_LONGEST] for each in fields(Search)}
        search = Search(**given)
        rows = await activity.rows(session.inbox, search, request.query_params.get("before", ""), now)
        rows["more"] = rows["more"] and urlencode({**given, "before": rows["more"]})
        choices = {"outcome": list(dict.fromkeys(KINDS.values())), "effect": list(EFFECTS)}
        rows |= {"search": given, "searched": search != Search(), "choices": choices}
        return self._show(request, session, "activity", **rows)

    async def change(self, request: Request) -> Response:
        session, given, now = await self.session(request), request.query_params, self.system.timestamp()
        number = given.get("entry", "")
        entry = int(number) if number.isdecimal() and len(number) < 18 else 0
        row = await activity.row(session.inbox, given.get("tenant", ""), entry, given.get("change", ""), now)
        return self._show(request, session, "change", 404 if row is None else 200, row=row)

    async def limits(self, request: Request) -> Response:
        session, now = await self.session(request), self.system.now()
        shown = await limits.limits(session.inbox, request.query_params.get("tenant", ""), now)
        temporary = await session.inbox.temporary_approvals(now.timestamp())
        ended = [view.temporary_approval(each, now.timestamp(), None) for each in temporary]
        return self._show(request, session, "limits", temporary=ended, **shown)

    def _show(self, request: Request, session: Session, place: str, status: int = 200, **content: object) -> Response:
        def token(action: str, about: str) -> str:
            return self.seal.token(session.id, f"{action} {about}")

        about = {"root": session.root, "person": session.person, "place": place, "token": token, "count": 0}
        return self.render(request, f"{place}.html", status, clock=f"{self.system.now():%H:%M}", **about, **content)
