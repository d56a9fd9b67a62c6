"""The places of the page beside its requests: Activity, Limits, Stop and Allow."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from fastn_mcp.channels.page import view
from fastn_mcp.channels.page.access import Session
from fastn_mcp.channels.page.activity import Activity
from fastn_mcp.channels.page.activity_log import EFFECTS, OUTCOMES, Search
from fastn_mcp.channels.page.decisions import Decisions, NotDecided
from fastn_mcp.channels.page.inbox import Inbox, InboxAccount
from fastn_mcp.guard.budgets import Limits
from fastn_mcp.guard.recorder import record_fact
from fastn_mcp.guard.stops import in_words, stop_entry, void_approvals
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.ledger.identity import account_name, holder, who
from fastn_mcp.ledger.ledger import Stop
from fastn_mcp.policy.asker import LOCAL
from fastn_mcp.policy.decision import Decision, least
from fastn_mcp.records.formats import counted, sentence
from fastn_mcp.redaction import redact_text, sanitize
from fastn_mcp.tools.tool import Effect

_MAX_FIELD = 200
"""Characters of a field of a form."""
_MAX_SEARCHED = 200
"""Newest decided requests that are searched for unused approvals."""


@dataclass(frozen=True, slots=True)
class PagePlaces(Decisions):
    """The handlers of all places. GET shows, POST stops or allows."""

    async def activity(self, request: Request) -> Response:
        session, query = await self.session(request), request.query_params
        search = Search(**{each.name: query.get(each.name, "")[:_MAX_FIELD] for each in fields(Search)})
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
            view.temporary_approval(each, now.timestamp())
            for each in await session.inbox.temporary_approvals(now.timestamp())
        ]
        async for account, limits in _account(session, request.query_params.get("tenant")):
            shown = await _limits_of(session.inbox, account, limits, now)
            return await self._show(request, session, "limits", tenant=account.tenant, temporary=temporary, **shown)
        return await self._show(request, session, "change", 404, row=None)

    async def stop_page(self, request: Request) -> Response:
        session, now = await self.session(request), self.system.timestamp()
        decided = [each.request for each in await session.inbox.decided(_MAX_SEARCHED)]
        unused = sum(each.state is RequestState.APPROVED and each.expires > now for each in decided)
        temporary = len(await session.inbox.temporary_approvals(now))
        tenants = _stoppable(session)
        return await self._show(request, session, "stop", unused=unused, tenants=tenants, temporary=temporary)

    async def stop(self, request: Request) -> Response:
        """Stop the changes of one tenant, or of all that they may stop: first in the ledger, for every process."""
        session, form = await self._form(request, "stop", "")
        reason, now = form.get("reason", "").strip(), self.system.timestamp()
        wanted = [tenant for tenant in _stoppable(session) if form.get("tenant", "") in ("", tenant)]
        if not wanted:
            raise NotDecided(session, 403, "Nothing was stopped: it is not yours to stop.")
        if len(reason) > _MAX_FIELD:
            raise NotDecided(session, 422, f"Nothing was stopped: the reason is longer than {_MAX_FIELD} characters.")
        known = {stop.whom for stop in await self.ledger.holding() if session.inbox.may_lift(stop)}
        is_operators = not session.inbox.tells_people_apart
        stops = [
            Stop(self.system.token(), now, _by(session), redact_text(reason), tenant, is_operators=is_operators)
            for tenant in wanted
        ]
        stops = [stop for stop in stops if stop.whom not in known]
        for stop in stops:
            await self.ledger.add_stop(stop)
        await self._void(session, stops)
        await self._record(session, stops)
        return RedirectResponse(session.root, 303)

    async def allow_page(self, request: Request) -> Response:
        session, now = await self.session(request), self.system.now()
        stops = await self.holding(session)
        rows = [(each.id, view.parts(in_words(each, now)), session.inbox.may_lift(each)) for each in stops]
        return await self._show(request, session, "allow", rows=rows)

    async def allow(self, request: Request) -> Response:
        """Lift one stop. What it made void is ended once more, in case that was interrupted."""
        session, form = await self._form(request, "allow", "stop")
        stop = next((each for each in await self.holding(session) if each.id == form.get("stop")), None)
        if stop is None or not session.inbox.may_lift(stop):
            raise NotDecided(session, 409, "Nothing was changed: this stop does not exist, or is not yours.")
        lifted = stop.lift(_by(session), self.system.timestamp())
        await self._void(session, [stop])
        if await self.ledger.lift_stop(lifted):
            await self._record(session, [lifted])
        return RedirectResponse(session.root, 303)

    async def _void(self, session: Session, stops: Sequence[Stop]) -> None:
        async for account in session.inbox.accounts():
            for stop in (stop for stop in stops if stop.tenant in ("", account.tenant)):
                await void_approvals(account.ledger, stop, self.system.timestamp())

    async def _record(self, session: Session, stops: Sequence[Stop]) -> None:
        """Record stops, or that they were lifted, in the audit logs of their accounts. They hold already."""
        async for account in session.inbox.accounts():
            for stop in stops:
                if account.limits is not None and stop.tenant in ("", account.tenant):
                    record_fact(account.limits.audit, stop_entry(stop, account_name(account.name or "")))

    async def _show(
        self, request: Request, session: Session, place: str, status: int = 200, **content: object
    ) -> Response:
        now, inbox = self.system.now(), session.inbox
        about = await self.frame(session, place) | {"clock": f"{now:%H:%M}", "tenants": sorted(inbox.tenants)}
        about["count"] = len(await inbox.waiting(now.timestamp()))
        return self.render(request, f"{place}.html", status, **about | content)


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


_CHANGES = {
    "write": "Create or change what nobody uses yet",
    "external": "Run a workflow; change what is in use",
    "spend": "Ask Fastn's AI",
    "access": "Invitations, roles, API keys, secrets",
    "trash": "Move to Trash",
    "destroy": "Delete, revoke",
}
_HOW = {
    Decision.ALLOW: "Sent without asking",
    Decision.CONFIRM: "A person approves",
    Decision.TYPED: "A person approves, and types the name",
    Decision.OUT_OF_BAND: "A person approves, outside of the client",
    Decision.FOUR_EYES: "Two people approve",
    Decision.DENY: "Refused",
}


async def _limits_of(inbox: Inbox, account: InboxAccount, limits: Limits, now: datetime) -> view.View:
    """Return the template variables of an account."""
    policy, principal = limits.policy, inbox.approver if inbox.tells_people_apart else LOCAL
    declines, last = await account.ledger.declines(holder(principal, account.name or ""))
    most, seconds = policy.rules.breaker
    so_far = counted(declines if now.timestamp() - last < seconds else 0, "decline")
    notes = [f"{so_far} in a row so far. After {most}, changes are refused for {seconds / 60:g} minutes."]
    if policy.destroy_rate is not None:
        most, seconds = policy.destroy_rate
        deletions = counted(max(0, most - await limits.budgets.destroyed(principal)), "more deletion")
        notes.append(f"You can approve {deletions} in the next {seconds / 60:g} minutes.")
    budgets: Any = await limits.budgets.left(principal, now)
    plan = await limits.budgets.plan_left()
    lines = [line.partition(": ") for line in policy.rules.words()]
    return {
        "mode": f"{policy.mode}, {policy.key} key",
        "defaults": [(what, _how(limits, Effect(effect))) for effect, what in _CHANGES.items()],
        "budgets": [each | {"what": _CHANGES[each["effect"]]} for each in budgets if each["per"] in ("day", "run")],
        "notes": notes,
        "lines": {
            "Plan": [(sanitize(f"{each.words()}: {left} left"), sanitize(each.name)) for each, left in plan],
            "Rules and protected resources": [
                (sanitize(sentence(words)), sanitize(name)) for name, _, words in lines if " line " in name
            ],
        },
        "signed": policy.plan and sanitize(next(policy.plan.words())),
    }


def _how(limits: Limits, effect: Effect) -> str:
    """Return what happens with calls of an effect that no rule is about."""
    policy = limits.policy
    own = policy.rules.default(effect, live=policy.live)
    decision = own.decision if own else least(policy.mode, effect, live=policy.live)
    if decision in (Decision.ALLOW, Decision.DENY) or policy.asks:
        within = effect is Effect.SPEND and not own and decision is Decision.CONFIRM and policy.mode == "guarded"
        step_up = None if decision in (Decision.ALLOW, Decision.DENY) else policy.step_up
        signed_in = ", with a fresh sign-in" if step_up and step_up.concerns([effect.value]) else ""
        return f"{'Sent within a budget; beyond it, a person approves' if within else _HOW[decision]}{signed_in}"
    return "Refused, unless the plan allows it"
