"""ASGI application of the approval page: its requests, and the places Activity, Limits, Stop and Allow beside them.

GET shows, POST decides, stops or allows.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from fastn_mcp.channels.page import view
from fastn_mcp.channels.page.access import NoSession, PageAccess, PageSecurity, Session
from fastn_mcp.channels.page.activity import FILTERS, KINDS, Activity, Search
from fastn_mcp.channels.page.decisions import FLASH_COOKIE, FLASH_HOLDS, MAX_LISTED, Decisions, NotDecided
from fastn_mcp.channels.page.effects import EFFECTS
from fastn_mcp.channels.page.inbox import Inbox, InboxAccount
from fastn_mcp.errors import FastnError
from fastn_mcp.guard.approval_form import MAX_NOTE
from fastn_mcp.guard.budgets import Limits
from fastn_mcp.guard.recorder import record_fact
from fastn_mcp.guard.sentences.facts import MAX_FACTS
from fastn_mcp.guard.stops import in_words, stop_entry, void_approvals
from fastn_mcp.ledger.approval_request import TEMPORARY_MINUTES, RequestState
from fastn_mcp.ledger.identity import account_name, holder, who
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.ledger.store import LedgerLost
from fastn_mcp.policy.asker import LOCAL
from fastn_mcp.policy.decision import Decision, least
from fastn_mcp.records.formats import counted, sentence
from fastn_mcp.redaction import redact_text, sanitize
from fastn_mcp.runtime import System
from fastn_mcp.tools.tool import Effect

_MAX_FIELD = 200
"""Characters of a field of a form."""
_MAX_SEARCHED = 200
"""Newest decided requests that are searched for unused approvals."""
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
    pages = _Page(access, access.seal, ledger, system, is_leaving=is_leaving)
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
        FastnError: pages.refused,
    }
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return PageSecurity(app, origins, access.entrance)


@dataclass(frozen=True, slots=True)
class _Page(Decisions):
    """The handlers of all places."""

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
        frame = await self.frame(session, "")
        content = await self._content(request, session)
        return self.render(request, "now.html", **frame, **content)

    async def events(self, request: Request) -> Response:
        """Stream an event for each change, without its content."""
        session = await self.session(request)
        return StreamingResponse(self._changes(session, request), media_type="text/event-stream")

    async def _changes(self, session: Session, request: Request) -> AsyncIterator[str]:
        last = None
        unchanged = 0
        self.access.watching += 1
        try:
            # On shutdown the stream ends, so that the browser reconnects to another process.
            while not self.is_leaving() and not await request.is_disconnected():
                if await self.access.session(request) is None:
                    return
                revision = await session.inbox.revision()
                unchanged += 1
                if revision != last:
                    last = revision
                    unchanged = 0
                    yield f"event: changed\ndata: {revision}\n\n"
                elif unchanged >= _KEEP_ALIVE_POLLS:
                    unchanged = 0
                    yield ": still here\n\n"
                await self.system.sleep(_POLL_SECONDS)
        except LedgerLost:
            return  # the browser reconnects and gets the error page
        finally:
            self.access.watching -= 1

    async def activity(self, request: Request) -> Response:
        session = await self.session(request)
        query = request.query_params
        search = Search(**{each.name: query.get(each.name, "")[:_MAX_FIELD] for each in fields(Search)})
        entry = _entry_number(query.get("entry", ""))
        before = _entry_number(query.get("before", ""))
        async for account, limits in _account(session, query.get("tenant")):
            activity = Activity(session.inbox, account, limits.audit.path, self.system.timestamp())
            if entry or "change" in query:
                row = await activity.one(entry or 0, query.get("change", ""))
                return await self._show(request, session, "change", 404 if row is None else 200, row=row)
            rows = await activity.page(search, before)
            more = urlencode(asdict(search) | {"tenant": account.tenant, "before": rows["before"]})
            about = {"tenant": account.tenant, "more": more, "search": search, "is_search": search != Search()}
            about |= {"outcomes": FILTERS, "effects": KINDS}
            return await self._show(request, session, "activity", **about, **rows)
        return await self._show(request, session, "change", 404, row=None)

    async def limits(self, request: Request) -> Response:
        session = await self.session(request)
        now = self.system.now()
        temporary = [
            view.temporary_approval(each, now.timestamp())
            for each in await session.inbox.temporary_approvals(now.timestamp())
        ]
        async for account, limits in _account(session, request.query_params.get("tenant")):
            shown = await _limits_of(session.inbox, account, limits, now)
            return await self._show(request, session, "limits", tenant=account.tenant, temporary=temporary, **shown)
        return await self._show(request, session, "change", 404, row=None)

    async def stop_page(self, request: Request) -> Response:
        session = await self.session(request)
        now = self.system.timestamp()
        decided = [each.request for each in await session.inbox.decided(_MAX_SEARCHED)]
        unused = sum(each.state is RequestState.APPROVED and each.expires > now for each in decided)
        temporary = len(await session.inbox.temporary_approvals(now))
        tenants = _stoppable(session)
        return await self._show(request, session, "stop", unused=unused, tenants=tenants, temporary=temporary)

    async def stop(self, request: Request) -> Response:
        """Stop the changes of one tenant, or of all that they may stop: first in the ledger, for every process."""
        session, form = await self._form(request, "stop", "")
        reason = form.get("reason", "").strip()
        now = self.system.timestamp()
        wanted = [tenant for tenant in _stoppable(session) if form.get("tenant", "") in ("", tenant)]
        if not wanted:
            raise NotDecided(403, "Nothing was stopped: you may not stop these changes.")
        if len(reason) > _MAX_FIELD:
            raise NotDecided(422, f"Nothing was stopped: the reason is longer than {_MAX_FIELD} characters.")
        known = {stop.whom for stop in await self.ledger.holding() if session.inbox.may_lift(stop)}
        is_operators = not session.inbox.tells_people_apart
        stops = [
            Stop(
                self.system.token(),
                now,
                _by(session),
                reason=redact_text(reason),
                tenant=tenant,
                is_operators=is_operators,
            )
            for tenant in wanted
        ]
        stops = [stop for stop in stops if stop.whom not in known]
        for stop in stops:
            await self.ledger.add_stop(stop)
        await self._void(session, stops)
        await self._record(session, stops)
        return RedirectResponse(session.root, 303)

    async def allow_page(self, request: Request) -> Response:
        session = await self.session(request)
        now = self.system.now()
        stops = await self.holding(session)
        rows = [(each.id, view.parts(in_words(each, now)), session.inbox.may_lift(each)) for each in stops]
        return await self._show(request, session, "allow", rows=rows)

    async def allow(self, request: Request) -> Response:
        """Lift one stop. What it made void is ended once more, in case that was interrupted."""
        session, form = await self._form(request, "allow", "stop")
        stop = next((each for each in await self.holding(session) if each.id == form.get("stop")), None)
        if stop is None or not session.inbox.may_lift(stop):
            raise NotDecided(409, "Nothing was changed: this stop does not exist, or you may not lift it.")
        lifted = stop.lift(_by(session), self.system.timestamp())
        await self._void(session, [stop])
        if await self.ledger.lift_stop(lifted):
            await self._record(session, [lifted])
        return RedirectResponse(session.root, 303)

    async def _void(self, session: Session, stops: Sequence[Stop]) -> None:
        async for account in session.inbox.accounts():
            for stop in (stop for stop in stops if stop.tenant in ("", account.tenant)):
                await void_approvals(account.ledger, stop, self.system.timestamp(), account.record)

    async def _record(self, session: Session, stops: Sequence[Stop]) -> None:
        """Record stops, or that they were lifted, in the audit logs of their accounts. They hold already."""
        async for account in session.inbox.accounts():
            for stop in stops:
                if account.limits is not None and stop.tenant in ("", account.tenant):
                    record_fact(account.limits.audit, stop_entry(stop, account_name(account.name or "")))

    async def _show(
        self, request: Request, session: Session, place: str, status: int = 200, **content: object
    ) -> Response:
        now = self.system.now()
        inbox = session.inbox
        about = await self.frame(session, place) | {"clock": f"{now:%H:%M}", "tenants": sorted(inbox.tenants)}
        about["count"] = len(await inbox.waiting(now.timestamp()))
        return self.render(request, f"{place}.html", status, **about | content)

    async def anything(self, request: Request) -> Response:
        """Redirect unknown addresses to the page. Raises `NoSession` without a session."""
        return RedirectResponse((await self.session(request)).root, 303)

    async def not_decided(self, request: Request, problem: NotDecided) -> Response:
        flash = None if problem.draft else _message(str(problem), good=False)
        return await self._response(request, request.state.session, problem.status, flash=flash, draft=problem.draft)

    async def refused(self, request: Request, problem: FastnError) -> Response:
        return await self.not_decided(request, NotDecided(409, problem.message))

    async def problem(self, template: str, status: int, request: Request, _: Exception) -> Response:
        return self.render(request, template, status)

    async def _response(
        self,
        request: Request,
        session: Session,
        status: int = 200,
        *,
        flash: dict[str, Any] | None = None,
        draft: dict[str, str] | None = None,
    ) -> Response:
        content = await self._content(request, session, draft)
        return self.render(request, "page.html", status, said=flash, **await self.frame(session, ""), **content)

    async def _content(self, request: Request, session: Session, draft: dict[str, str] | None = None) -> dict[str, Any]:
        now = self.system.timestamp()
        inbox = session.inbox
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


def _entry_number(text: str) -> int | None:
    """Return the number of an entry in a query; None if it is not one."""
    return int(text) if text.isdecimal() and len(text) < 18 else None


def _message(text: str, *, good: bool) -> dict[str, Any]:
    return {"parts": view.parts(text), "good": good}


async def _account(session: Session, tenant: str | None) -> AsyncIterator[tuple[InboxAccount, Limits]]:
    """Yield the account of a tenant, or the first one, if this person may see it."""
    async for account in session.inbox.accounts():
        if account.limits is not None and (not tenant or account.tenant == tenant):
            yield account, account.limits
            return


def _by(session: Session) -> str:
    inbox = session.inbox
    return who(inbox.approver, inbox.approver_name) if inbox.tells_people_apart else "a person on the approval page"


def _stoppable(session: Session) -> list[str]:
    """Return the tenants whose changes they may stop; an empty one is every account of a page without tenants."""
    tenants = sorted(session.inbox.tenants) if session.inbox.tells_people_apart else [""]
    return [tenant for tenant in tenants if session.inbox.may_stop(tenant)]


_HOW = {
    Decision.ALLOW: "Sent without asking",
    Decision.CONFIRM: "A person approves",
    Decision.TYPED: "A person types the name to approve",
    Decision.OUT_OF_BAND: "A person approves outside the client",
    Decision.FOUR_EYES: "Two people approve",
    Decision.DENY: "Refused",
}


async def _limits_of(inbox: Inbox, account: InboxAccount, limits: Limits, now: datetime) -> view.View:
    """Return the template variables of an account."""
    policy = limits.policy
    principal = inbox.approver if inbox.tells_people_apart else LOCAL
    notes = await _notes_of(account, limits, principal, now)
    budgets: Any = await limits.budgets.left(principal, now)
    plan = await limits.budgets.plan_left()
    lines = [line.partition(": ") for line in policy.rules.words()]
    return {
        "mode": f"{policy.mode}, {policy.key} key",
        "defaults": [(EFFECTS[each].kinds, _how(limits, each, now)) for each in Effect if each is not Effect.READ],
        "budgets": [
            each | {"what": EFFECTS[Effect(each["effect"])].kinds} for each in budgets if each["per"] in ("day", "run")
        ],
        "notes": notes,
        "lines": {
            "Plan": [(sanitize(f"{each.words()}: {left} left"), sanitize(each.name)) for each, left in plan],
            "Rules and protected resources": [
                (sanitize(sentence(words)), sanitize(name)) for name, _, words in lines if " line " in name
            ],
        },
        "signed": policy.plan and sanitize(next(policy.plan.words())),
    }


async def _notes_of(account: InboxAccount, limits: Limits, principal: str, now: datetime) -> list[str]:
    """Return how many declines and deletions are left to a person."""
    policy = limits.policy
    declines, last = await account.ledger.declines(holder(principal, account.name or ""))
    most, seconds = policy.rules.breaker
    so_far = counted(declines if now.timestamp() - last < seconds else 0, "decline")
    notes = [f"{so_far} in a row so far. After {most}, changes are refused for {seconds / 60:g} minutes."]
    if policy.destroy_rate is not None:
        most, seconds = policy.destroy_rate
        deletions = counted(max(0, most - await limits.budgets.destroyed(principal)), "more deletion")
        notes.append(f"You can approve {deletions} in the next {seconds / 60:g} minutes.")
    return notes


def _how(limits: Limits, effect: Effect, now: datetime) -> str:
    """Return what happens with calls of an effect that no rule is about."""
    policy = limits.policy
    own = policy.rules.default(effect, live=policy.live)
    decision = own.decision if own else least(policy.mode, effect, live=policy.live)
    if decision in (Decision.ALLOW, Decision.DENY) or policy.asks:
        is_asked = not own and decision is Decision.CONFIRM and policy.mode == "guarded"
        within = effect is Effect.SPEND and is_asked and bool(policy.rules.budgets(effect, now))
        step_up = None if decision in (Decision.ALLOW, Decision.DENY) else policy.step_up
        signed_in = ", with a fresh sign-in" if step_up and step_up.concerns([effect.value]) else ""
        return f"{'Sent within a budget; beyond it, a person approves' if within else _HOW[decision]}{signed_in}"
    return "Refused, unless the plan allows it"
