"""Routes of the places Activity and Limits. They show, and decide nothing."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fastn_mcp.channels.page import view
from fastn_mcp.channels.page.access import Render, Session
from fastn_mcp.channels.page.activity import Activity
from fastn_mcp.channels.page.activity_log import EFFECTS, OUTCOMES, Search
from fastn_mcp.channels.page.inbox import Inbox, InboxAccount
from fastn_mcp.channels.page.limits import limits_of
from fastn_mcp.guard.allowance import Limits
from fastn_mcp.guard.seal import Seal
from fastn_mcp.guard.stops import in_words
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.runtime import System

_LONGEST = 200
"""Characters of a field of a form."""


@dataclass(frozen=True, slots=True)
class PagePlaces:
    """The handlers. `session` returns the session of a request, or raises if access is denied."""

    render: Render
    session: Callable[[Request], Awaitable[Session]]
    seal: Seal
    ledger: Ledger
    """Stores stops, and which form tokens were used."""
    system: System

    def routes(self, prefix: str) -> list[Route]:
        return [
            Route(f"{prefix}/activity", self.activity, methods=["GET"]),
            Route(f"{prefix}/limits", self.limits, methods=["GET"]),
        ]

    async def activity(self, request: Request) -> Response:
        session, query = await self.session(request), request.query_params
        search = Search(**{each.name: query.get(each.name, "")[:_LONGEST] for each in fields(Search)})
        numbers = (query.get(name, "") for name in ("entry", "before"))
        entry, before = (int(n) if n.isdecimal() and len(n) < 18 else None for n in numbers)
        async for account, limits in _account(session, query.get("tenant")):
            activity = Activity(session.inbox, account, limits.audit.path, self.system.timestamp())
            if entry or "change" in query:
                row = await activity.one(entry or 0, query.get("change", ""))
                return await self._show(request, session, "change", 404 if row is None else 200, row=row)
            rows = await activity.page(search, before)
            more = urlencode(asdict(search) | {"tenant": account.tenant, "before": rows["before"]})
            about = {"tenant": account.tenant, "more": more, "search": search, "is_search": search != Search()}
            about |= {"outcomes": OUTCOMES, "effects": EFFECTS}
            return await self._show(request, session, "activity", **about, **rows)
        return await self._show(request, session, "change", 404, row=None)

    async def limits(self, request: Request) -> Response:
        session, now = await self.session(request), self.system.now()
        temporary = [
            view.temporary_approval(each, now.timestamp(), None)
            for each in await session.inbox.temporary_approvals(now.timestamp())
        ]
        async for account, limits in _account(session, request.query_params.get("tenant")):
            shown = await limits_of(session.inbox, account, limits, now)
            return await self._show(request, session, "limits", tenant=account.tenant, temporary=temporary, **shown)
        return await self._show(request, session, "change", 404, row=None)

    async def _show(
        self, request: Request, session: Session, place: str, status: int = 200, **content: object
    ) -> Response:
        def token(action: str, about: str) -> str:
            return self.seal.token(session.id, f"{action} {about}")

        now, inbox = self.system.now(), session.inbox
        stops = await stops_in_words(inbox, self.ledger, now)
        about = {"root": session.root, "person": session.person, "place": place, "token": token, "stops": stops}
        about |= {"clock": f"{now:%H:%M}", "tenants": sorted(inbox.tenants)}
        count = len(await inbox.waiting(now.timestamp()))
        return self.render(request, f"{place}.html", status, **{**about, "count": count, **content})


async def holding(inbox: Inbox, ledger: Ledger) -> list[Stop]:
    """Return the stops that hold and are about accounts that a person sees."""
    tenants = ("", *inbox.tenants)
    return [stop for stop in await ledger.holding() if stop.tenant in tenants]


async def stops_in_words(inbox: Inbox, ledger: Ledger, now: datetime) -> list[list[view.Part]]:
    return [view.parts(in_words(stop, now)) for stop in await holding(inbox, ledger)]


async def _account(session: Session, tenant: str | None) -> AsyncIterator[tuple[InboxAccount, Limits]]:
    """Yield the account of a tenant, or the first one, if this person may see it."""
    async for account in session.inbox.accounts():
        if account.limits is not None and (not tenant or account.tenant == tenant):
            yield account, account.limits
            return
