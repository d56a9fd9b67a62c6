"""The places Stop and Allow: a person stops the changes of agents, and allows them again."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from fastn_mcp.channels.page import view
from fastn_mcp.channels.page.access import Session
from fastn_mcp.channels.page.decisions import redeem
from fastn_mcp.channels.page.places import PagePlaces, holding
from fastn_mcp.channels.page.security import BadForm, form
from fastn_mcp.errors import FastnError
from fastn_mcp.guard.stops import in_words, stop_entry, void_approvals
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.ledger.identity import account_name, who
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.redaction import redact_text

log = logging.getLogger(__name__)

_LONGEST_REASON = 200
_MAX_DECIDED_REQUESTS = 200
"""Newest decided requests that are searched for unused approvals."""
_OLD_FORM = "Nothing was decided: this form was already submitted, or is not from this page."


@dataclass(frozen=True, slots=True)
class StopPlaces(PagePlaces):
    """The handlers of all places. GET shows, POST stops or allows."""

    def routes(self, prefix: str) -> list[Route]:
        return [
            *PagePlaces.routes(self, prefix),
            Route(f"{prefix}/stop", self.stop, methods=["GET", "POST"]),
            Route(f"{prefix}/allow", self.allow, methods=["GET", "POST"]),
        ]

    async def stop(self, request: Request) -> Response:
        """Stop the changes of one tenant, or of all that they may stop: first in the ledger, for every process."""
        if request.method != "POST":
            return await self._stop_page(request, await self.session(request))
        session, fields = await self._submitted(request, "stop")
        reason, allowed, now = fields.get("reason", "").strip(), _stoppable(session), self.system.timestamp()
        wanted = [tenant for tenant in allowed if fields.get("tenant", "") in ("", tenant)]
        if "token" not in fields:
            return await self._stop_page(request, session, 403, _OLD_FORM, reason)
        if not wanted:
            return await self._stop_page(request, session, 403, "Nothing was stopped: it is not yours to stop.", reason)
        if len(reason) > _LONGEST_REASON:
            problem = f"Nothing was stopped: the reason is longer than {_LONGEST_REASON} characters."
            return await self._stop_page(request, session, 422, problem, reason)
        known = {stop.whom for stop in await self.ledger.holding() if session.inbox.may_lift(stop)}
        stops = [Stop(self.system.token(), now, _by(session), redact_text(reason), tenant) for tenant in wanted]
        stops = [stop for stop in stops if stop.whom not in known]
        for stop in stops:
            await self.ledger.add_stop(stop)
        await self._void(session, stops)
        await self._record(session, stops)
        return RedirectResponse(session.root, 303)

    async def allow(self, request: Request) -> Response:
        """Lift one stop. What it made void is ended once more, in case that was interrupted."""
        if request.method != "POST":
            return await self._allow_page(request, await self.session(request))
        session, fields = await self._submitted(request, "allow", "stop")
        stops = await holding(session.inbox, self.ledger)
        stop = next((each for each in stops if each.id == fields.get("stop")), None)
        if "token" not in fields:
            return await self._allow_page(request, session, 403, _OLD_FORM)
        if stop is None or not session.inbox.may_lift(stop):
            return await self._allow_page(
                request, session, 409, "Nothing was changed: this stop does not exist, or is not yours."
            )
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
                    try:
                        account.limits.audit.record(stop_entry(stop, account_name(account.name or "")))
                    except FastnError:
                        log.exception("the stop, or its end, could not be audited")

    async def _submitted(self, request: Request, action: str, about: str = "") -> tuple[Session, dict[str, str]]:
        """Return the fields of a form of this session, without its token if that is invalid or was used before."""
        session, now = await self.session(request), self.system.timestamp()
        try:
            fields = await form(request)
        except BadForm:
            return session, {}
        of, token = f"{action} {fields.get(about, '')}", fields.get("token", "")
        if not await redeem(self.seal, self.ledger, session.id, of, token, now):
            fields.pop("token", None)
        return session, fields

    async def _stop_page(
        self, request: Request, session: Session, status: int = 200, problem: str = "", reason: str = ""
    ) -> Response:
        now = self.system.timestamp()
        decided = [each.request for each in await session.inbox.decided(_MAX_DECIDED_REQUESTS)]
        unused = [each for each in decided if each.state is RequestState.APPROVED and each.expires > now]
        shown = {"problem": problem, "reason": reason, "unused": len(unused), "tenants": _stoppable(session)}
        temporary = len(await session.inbox.temporary_approvals(now))
        return await self._show(request, session, "stop", status, **shown, temporary=temporary)

    async def _allow_page(self, request: Request, session: Session, status: int = 200, problem: str = "") -> Response:
        now, stops = self.system.now(), await holding(session.inbox, self.ledger)
        rows = [(each.id, view.parts(in_words(each, now)), session.inbox.may_lift(each)) for each in stops]
        return await self._show(request, session, "allow", status, problem=problem, rows=rows)


def _by(session: Session) -> str:
    inbox = session.inbox
    return who(inbox.approver, inbox.approver_name) if inbox.tells_people_apart else "a person on the approval page"


def _stoppable(session: Session) -> list[str]:
    """Return the tenants whose changes they may stop; an empty one is every account of a page without tenants."""
    tenants = sorted(session.inbox.tenants) if session.inbox.tells_people_apart else [""]
    return [tenant for tenant in tenants if session.inbox.may_stop(tenant)]
