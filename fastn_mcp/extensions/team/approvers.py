"""Approver rules of a team, each approver's inbox across tenants, and the approval channel that points to it.

Decisions are stored only in the ledger. Each approval or decline is a vote of a person whom the identity provider
authenticated.

A requester never approves their own call if it needs two people. Of the calls that need one, they may approve those
whose effects are all in `own` of the team file: by default neither deletions nor changes of access.
"""

import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from typing_extensions import override

from fastn_mcp.audit.log import AuditEvent, AuditFile
from fastn_mcp.channels.page.inbox import Inbox, InboxAccount
from fastn_mcp.errors import FastnError
from fastn_mcp.extensions.team.team_config import ApproverRule, Team
from fastn_mcp.extensions.team.tenants import Tenants
from fastn_mcp.extensions.team.tokens import login_names, person_name, signed_in
from fastn_mcp.guard.approval_form import VERIFIED
from fastn_mcp.guard.channel import Announcement, Channel, ChannelCapabilities, NobodyAble
from fastn_mcp.guard.recorder import decision_entry, record_fact
from fastn_mcp.guard.sentences.facts import series
from fastn_mcp.ledger.approval_request import ApprovalRequest, Vote
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.ledger.store import LedgerLost
from fastn_mcp.policy.asker import Asker
from fastn_mcp.runtime import System

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SignedInPerson:
    """Person who signed in, with the approver rules that matched at that time."""

    issuer: str
    subject: str
    name: str
    tenant: str | None
    """Tenant that serves their own calls."""
    rules: tuple[str, ...]
    """Digests of the approver rules and of the tenant."""
    login_names: tuple[str, ...] = ()
    """User name and e-mail address, which some providers put into `sub` of access tokens, but not of ID tokens."""
    auth_time: float | None = None
    """As in `Vote`, like `acr`."""
    acr: str = ""

    @property
    def principal(self) -> str:
        """Principal as recorded: the same as in their own calls."""
        return f"{self.issuer}|{self.subject}"


def person(team: Team, claims: Mapping[str, Any]) -> SignedInPerson:
    """Return the person, and their matching rules from the claims of an ID token."""
    rules = [rule.digest for rule in team.approver_rules if rule.holds(claims, team.groups_claim)]
    tenant = team.tenant_of(claims)
    rules += [tenant.digest] if tenant is not None else []
    name = person_name(claims) or str(claims["sub"])
    names = login_names(claims)
    auth_time, acr = signed_in(claims)
    return SignedInPerson(
        issuer=str(claims["iss"]),
        subject=str(claims["sub"]),
        name=name,
        tenant=tenant and tenant.name,
        rules=tuple(rules),
        login_names=names,
        auth_time=auth_time,
        acr=acr,
    )


def may_approve_own(team: Team, tenant: str, effects: frozenset[str]) -> bool:
    """Whether people may approve their own calls of a tenant with these effects."""
    served = team.named(tenant)
    return served is not None and effects.issubset(effect.value for effect in team.own_effects(served))


@dataclass(frozen=True, slots=True)
class TenantPage(Channel):
    """Approval page of a team, as the channel of one tenant."""

    team: Team
    tenant: str
    name = "approval page"

    @property
    def capabilities(self) -> ChannelCapabilities:
        page = f"{self.team.page_url}/"
        return ChannelCapabilities(identifies_people=True, notifies=True, takes_secrets=True, page=page)

    async def ask(self, request: ApprovalRequest) -> Announcement:
        """Say where the request is decided. Raises `NobodyAble` if nobody may decide it there."""
        if not self._is_on_page(request):
            effects = series(sorted(request.question.effects))
            raise NobodyAble(
                f"Nobody may approve this call: no approver in the team file covers the tenant {self.tenant} and the"
                f" effect {effects}, other than the person who asks for it.",
                f"Tell the operator: an [[approvals.approver]] has to cover it; or, to let people approve such calls of"
                f" their own, `own` in [approvals] has to name {effects} (own = true names all).",
            )
        return Announcement((f"at {self.capabilities.page}, where approvers sign in",))

    def _is_on_page(self, request: ApprovalRequest) -> bool:
        """Whether somebody may approve a request on the page."""
        effects = request.question.effects
        own = request.needed == 1 and may_approve_own(self.team, self.tenant, effects)
        if own and not request.undoes:
            return True
        rules = (rule for rule in self.team.approver_rules if rule.covers(self.tenant, effects))
        return any(own or not self._is_of_requester(rule, request) for rule in rules)

    def _is_of_requester(self, rule: ApproverRule, request: ApprovalRequest) -> bool:
        """Whether a rule names nobody but the person who asks."""
        subjects = rule.subjects or ()
        return bool(subjects) and all(request.may_be_of(f"{self.team.issuer}|{subject}") for subject in subjects)


class TeamInbox(Inbox):
    """Requests that one person may decide, by the current rules."""

    approved_by = VERIFIED
    tells_people_apart = True

    def __init__(
        self, team: Team, person: SignedInPerson, tenants: Tenants, system: System, shared: Ledger | None = None
    ) -> None:
        """`shared` is the ledger that all tenants share, if they do."""
        super().__init__(system)
        self.approver = person.principal
        self.approver_name = "" if person.name == person.subject else person.name
        self.shared = shared
        self._team = team
        self._person = person
        self._tenants = tenants
        tenant = team.named(person.tenant) if person.tenant and team.page and team.page.own else None
        is_served = tenant is not None and not tenant.caller_keys and tenant.digest in person.rules
        self._own_tenant = person.tenant if is_served else None
        self._rules = [rule for rule in team.approver_rules if rule.digest in person.rules]

    @property
    @override
    def tenants(self) -> frozenset[str]:
        own = {self._own_tenant} if self._own_tenant is not None else set[str]()
        return frozenset(own).union(*(rule.tenants or self._team.with_keys() for rule in self._rules))

    @override
    async def accounts(self) -> AsyncIterator[InboxAccount]:
        for name in sorted(self.tenants):
            tenant = self._team.named(name)
            if tenant is None or tenant.caller_keys:
                continue
            try:
                async with self._tenants.lease(tenant) as account:
                    yield replace(account.inbox, record=partial(self._record, account.audit))
            except LedgerLost:
                raise
            except FastnError as error:
                log.error("the approval requests of %s cannot be shown: %s", name, error)

    @override
    def sees(self, tenant: str, principal: str, effects: frozenset[str]) -> bool:
        return self._is_own(principal) or self.covers(tenant, effects)

    @override
    def covers(self, tenant: str, effects: frozenset[str]) -> bool:
        return any(rule.covers(tenant, effects) for rule in self._rules)

    @override
    def asker(self, tenant: str) -> Asker:
        person = self._person
        return Asker(person.principal, person.name, person.login_names, tenant=tenant)

    @override
    def barred(self, tenant: str, request: ApprovalRequest) -> str | None:
        if not request.may_be_of(self.approver, self._person.login_names):
            return None if self.covers(tenant, request.question.effects) else "This call is not yours to approve."
        if request.needed > 1:
            return "This is your own call, and other people have to approve it."
        effects = request.question.effects
        # A principal that only may be theirs counts as their own, but gets no right to approve.
        own = request.principal == self.approver and self._own_tenant == tenant
        # What they undo here needs a rule that covers it besides: no scope of a token limits it.
        may = self.covers(tenant, effects) if request.undoes else own
        if may and may_approve_own(self._team, tenant, effects):
            return None
        return "This is your own call, and somebody else has to approve it."

    @override
    def may_revoke(self, tenant: str, request: ApprovalRequest) -> bool:
        return self._is_own(request.principal) or any(
            tenant in (rule.tenants or self._team.with_keys()) for rule in self._rules
        )

    @override
    def may_stop(self, tenant: str) -> bool:
        return any(rule.may_stop(tenant) for rule in self._rules)

    @override
    def may_lift(self, stop: Stop) -> bool:
        """Those of a tenant, as this page orders them. The operator lifts all others, and their own, at a terminal."""
        rules = [rule for rule in self._rules if rule.lift_operator_stops or not stop.is_operators]
        is_of_tenant = bool(stop.tenant and not stop.person)
        return is_of_tenant and any(rule.may_stop(stop.tenant) for rule in rules)

    @override
    def approval(self, now: float, *, is_temporary: bool = False) -> Vote:
        person = self._person
        vote = super().approval(now, is_temporary=is_temporary)
        return replace(vote, auth_time=person.auth_time, acr=person.acr, login_names=person.login_names)

    def _is_own(self, principal: str) -> bool:
        return principal.casefold() == self.approver.casefold()

    def _record(self, audit: AuditFile, event: AuditEvent, request: ApprovalRequest, note: str | None) -> None:
        entry = decision_entry(event, request, VERIFIED, note)
        if event is not AuditEvent.EXPIRED:
            entry = replace(entry, approver=self.approver, approver_name=self.approver_name or None)
            entry = replace(entry, auth_time=self._person.auth_time, acr=self._person.acr or None)
        record_fact(audit, entry)
