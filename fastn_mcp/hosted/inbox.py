"""Pending requests of a team that one person may decide, over all tenants, and the rules for it.

The ledger alone knows what is decided; each yes and no is a vote of whom the identity provider says they are.

A requester never approves their own call where two people are asked. A plain one they may: the person behind an agent
is who a form of its client would ask too, unless the team file says `own = false`.
"""

import hashlib
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol, TypeVar

from fastn_mcp.channels.page.access import Decided, PendingRequest
from fastn_mcp.errors import FastnError, Refused
from fastn_mcp.guard.approval import quorum
from fastn_mcp.guard.approval.request import for_a_while
from fastn_mcp.guard.audit.log import Audit, AuditEvent, decided
from fastn_mcp.guard.audit.recorder import record_expired
from fastn_mcp.guard.ledger.ledger import Grant, GrantState, Ledger, LedgerLost, Scope, Vote
from fastn_mcp.guard.quoting import show
from fastn_mcp.hosted.team_config import Match, SecretRef, Team
from fastn_mcp.hosted.tenants import TenantAccount, Tenants
from fastn_mcp.runtime import System
from fastn_mcp.tools.tool import Effect

ALL = frozenset(effect.value for effect in Effect)


@dataclass(frozen=True, slots=True)
class ApproverRule:
    """Whose calls, of which effects, those may decide about who match."""

    match: Match
    tenants: frozenset[str]
    effects: frozenset[str]

    @property
    def name(self) -> str:
        """Names the rule by all that it says: one that was changed is another."""
        said = [
            sorted(self.match.subjects),
            [pattern.text for pattern in self.match.groups],
            sorted((name, [pattern.text for pattern in wanted]) for name, wanted in self.match.claims.items()),
            sorted(self.tenants),
            sorted(self.effects),
        ]
        return hashlib.sha256(repr(said).encode()).hexdigest()[:16]

    def covers(self, tenant: str, effects: frozenset[str]) -> bool:
        """Whether calls of a tenant with these effects are theirs to decide."""
        return tenant in self.tenants and effects <= self.effects


@dataclass(frozen=True, slots=True)
class Approvals:
    """What the team file says about the page."""

    url: str
    """Where people find it."""
    client: str
    secret: SecretRef
    scopes: tuple[str, ...]
    own: bool
    """Whether who asks may approve what is asked of one person."""
    session: float
    """Seconds that a sign-in holds."""
    rules: tuple[ApproverRule, ...]

    def able(self, tenant: str, grant: Grant) -> bool:
        """Whether there can be anybody who may approve it."""
        own = self.own and quorum.needed(grant) == 1
        return own or any(rule.covers(tenant, effects(grant)) for rule in self.rules)


@dataclass(frozen=True, slots=True)
class SignedInPerson:
    """Somebody who signed in, and which rules they matched then."""

    issuer: str
    subject: str
    name: str
    tenant: str | None
    """Whose calls they make themselves."""
    rules: tuple[str, ...]

    @property
    def principal(self) -> str:
        """As they are recorded: the same that their calls have."""
        return f"{self.issuer}|{self.subject}"


def person(team: Team, approvals: Approvals, claims: Mapping[str, Any]) -> SignedInPerson:
    """Who signed in, by the claims of their ID token."""
    rules = tuple(rule.name for rule in approvals.rules if rule.match.holds(claims, team.groups_claim))
    tenant = team.tenant_of(claims) if approvals.own else None
    shown = next((str(v) for k in ("name", "preferred_username", "email") if (v := claims.get(k))), claims["sub"])
    asks = tenant.name if tenant is not None and not tenant.caller_keys else None
    return SignedInPerson(str(claims["iss"]), str(claims["sub"]), str(shown)[:100], asks, rules)


def effects(grant: Grant) -> frozenset[str]:
    """What a grant does: of several calls, all that any of them does. One that is not known is nobody's."""
    several = grant.card.get("effects")
    return frozenset(map(str, several if isinstance(several, list) else [grant.card.get("effect")]))


class ApproverRights:
    """What one person may do, by the rules as they are now."""

    def __init__(self, approvals: Approvals, person: SignedInPerson) -> None:
        self.person = person
        self._own = approvals.own
        self._rules = [rule for rule in approvals.rules if rule.name in person.rules]

    @property
    def tenants(self) -> frozenset[str]:
        """Those of whose calls any can be theirs."""
        own = {self.person.tenant} if self._own and self.person.tenant is not None else set[str]()
        return frozenset(own).union(*(rule.tenants for rule in self._rules))

    def sees(self, tenant: str, grant: Grant) -> bool:
        """Whether a question is before them at all: it is theirs to decide, or they asked it and may withdraw it."""
        return self._asked(grant.principal) or self._covered(tenant, grant)

    def barred(self, tenant: str, grant: Grant) -> str | None:
        """Why they cannot approve what they see; None where they can."""
        if not self._asked(grant.principal):
            return None if self._covered(tenant, grant) else "This call is not yours to approve."
        if quorum.needed(grant) > 1:
            return "It is your own call, and others have to approve it."
        # One that is like theirs, and not the same, letter by letter, is kept from approving and given nothing.
        exact = grant.principal == self.person.principal
        return None if self._own and exact else "It is your own call, and somebody else has to approve it."

    def holds(self, tenant: str, scope: Scope) -> bool:
        """Whether a temporary approval is theirs to end."""
        return self._asked(scope.principal) or any(tenant in rule.tenants for rule in self._rules)

    def _covered(self, tenant: str, grant: Grant) -> bool:
        return any(rule.covers(tenant, effects(grant)) for rule in self._rules)

    def _asked(self, principal: str) -> bool:
        return principal.casefold() == self.person.principal.casefold()


log = logging.getLogger(__name__)

VERIFIED = "verified"
"""The consent of one person who signed in."""


class Decidable(TenantAccount, Protocol):
    """An account about whose calls people decide."""

    @property
    def ledger(self) -> Ledger: ...
    @property
    def audit(self) -> Audit: ...
    @property
    def account(self) -> str:
        """As its grants name it: several accounts can share a ledger."""
        ...


T = TypeVar("T")


class TenantInbox:
    """Where the questions of one tenant lie: on the page, for those who may decide about them."""

    verifies = True

    def __init__(self, approvals: Approvals, tenant: str, ledger: Ledger) -> None:
        self._approvals = approvals
        self._tenant = tenant
        self._ledger = ledger

    async def show(self, grant: str) -> str:
        """Raises `Refused` where nobody could decide."""
        found = await self._ledger.find(grant)
        if found is None:
            raise Refused("There is no such approval request.")
        if not self._approvals.able(self._tenant, found):
            raise Refused(
                "Nobody may approve this call: no approver in the team file covers it.",
                "Tell the operator: [[approvals.approver]] says who may approve what.",
            )
        if (needed := quorum.needed(found)) == 1:
            return f"A person decides at {self._approvals.url}/, where they sign in."
        have = await quorum.approving(grant, self._ledger)
        return (
            f"{needed} different people have to approve it at {self._approvals.url}/, where they sign in, and none of"
            f" them is who asks. {have} of {needed} approved so far."
        )


class TeamInbox:
    """What lies before one person."""

    def __init__(
        self, standing: ApproverRights, team: Team, tenants: Tenants[Any], shared: Callable[[], Awaitable[int]] | None,
        system: System,
    ) -> None:  # fmt: skip
        """`shared` is the revision of the one ledger that all tenants share, where they do."""
        self._standing = standing
        self._team = team
        self._tenants = tenants
        self._shared = shared
        self._system = system

    async def revision(self) -> str:
        if self._shared is not None:
            return str(await self._shared())
        return ".".join([str(await account.ledger.revision()) async for _, account in self._accounts()])

    async def waiting(self, now: float) -> list[PendingRequest]:
        async for _, account in self._accounts():
            await record_expired(account.ledger, account.account, now, partial(self._ran_out, account.audit))
        found = [
            await self._lying(name, account, grant)
            async for name, account, grants in self._read(lambda ledger: ledger.waiting(now))
            for grant in grants
            if self._theirs(name, account, grant)
        ]
        return sorted(found, key=lambda lying: lying.grant.created)

    async def scopes(self, now: float) -> list[Scope]:
        return [
            scope
            async for name, account, scopes in self._read(lambda ledger: ledger.scopes(now))
            for scope in scopes
            if scope.account == account.account and self._standing.holds(name, scope)
        ]

    async def decided(self, limit: int) -> list[Decided]:
        # More than are shown: a ledger that is shared holds those of others too.
        found = [
            Decided(grant, await self._who(account, grant))
            async for name, account, grants in self._read(lambda ledger: ledger.decided(limit * 4))
            for grant in grants
            if self._theirs(name, account, grant)
        ]
        return sorted(found, key=lambda one: one.grant.decided or one.grant.created, reverse=True)[:limit]

    async def find(self, grant: str) -> PendingRequest | None:
        async for name, account, found in self._read(lambda ledger: ledger.find(grant)):
            if found is not None and self._theirs(name, account, found):
                return await self._lying(name, account, found)
        return None

    async def approve(self, lying: PendingRequest, now: float) -> str | None:
        have = await self._voted(lying.grant, now, approves=True, note=None)
        if have is None:
            return None
        needed = quorum.needed(lying.grant)
        if have < needed:
            return f"{have} of {needed} people approved it: another has to, before it can be sent."
        return "It is sent when the agent makes the call again."

    async def scope(self, lying: PendingRequest, now: float) -> None:
        async with self._of(lying.grant) as (_, account):
            await account.ledger.grant_scope(for_a_while(lying.grant, self._system.token(), now, VERIFIED))

    async def decline(self, lying: PendingRequest, now: float, note: str | None) -> bool:
        return await self._voted(lying.grant, now, approves=False, note=note) is not None

    async def revoke(self, scope: str, now: float) -> bool:
        async for name, account in self._accounts():
            for held in await account.ledger.scopes(now):
                if held.id == scope and held.account == account.account and self._standing.holds(name, held):
                    return await account.ledger.revoke_scope(scope)
        return False

    async def _voted(self, grant: Grant, now: float, *, approves: bool, note: str | None) -> int | None:
        """How many approve it from now on; None where nothing was counted."""
        async with self._of(grant) as (name, account):
            # Once more, at the last moment: whatever was shown, this is who may.
            if approves and self._standing.barred(name, grant) is not None:
                return None
            vote = Vote(grant.id, self._standing.person.principal, approves, now)
            record = partial(self._record, account.audit, grant)
            counted = await quorum.count(vote, grant, account.ledger, VERIFIED, note, record)
            return None if counted is None else counted.approving

    def _record(self, audit: Audit, grant: Grant, event: AuditEvent, said: str | None) -> None:
        person = self._standing.person
        entry = decided(event, grant, VERIFIED, said)
        try:
            audit.record(replace(entry, approver=person.principal, approver_name=show(person.name, 100)))
        except FastnError:  # it holds already; sending records again, or refuses
            log.exception("the decision %s on %s could not be audited", event.value, grant.tool)

    def _ran_out(self, audit: Audit, event: AuditEvent, grant: Grant, said: str | None) -> None:
        try:
            audit.record(decided(event, grant, None, said))
        except FastnError:
            log.exception("that nobody answered %s could not be audited", grant.tool)

    def _theirs(self, tenant: str, account: Decidable, grant: Grant) -> bool:
        return grant.elsewhere and grant.account == account.account and self._standing.sees(tenant, grant)

    async def _lying(self, tenant: str, account: Decidable, grant: Grant) -> PendingRequest:
        barred, so_far = self._standing.barred(tenant, grant), None
        if (needed := quorum.needed(grant)) > 1:
            votes = [vote for vote in await account.ledger.votes(grant.id) if vote.approves]
            named = f" ({', '.join(self._named(vote.approver) for vote in votes)})" if votes else ""
            so_far = f"{needed} different people have to approve this call: {len(votes)} did so far{named}."
            if any(vote.approver == self._standing.person.principal for vote in votes):
                barred = "You approved it, and another has to."
        return PendingRequest(grant, barred, so_far)

    async def _who(self, account: Decidable, grant: Grant) -> str | None:
        yes = grant.state is not GrantState.DECLINED
        votes = [vote for vote in await account.ledger.votes(grant.id) if vote.approves is yes]
        return " and ".join(self._named(vote.approver) for vote in votes) or None

    def _named(self, principal: str) -> str:
        if principal == self._standing.person.principal:
            return "you"
        return principal.removeprefix(f"{self._standing.person.issuer}|")

    @asynccontextmanager
    async def _of(self, grant: Grant) -> AsyncGenerator[tuple[str, Decidable]]:
        """The account of a grant, which is one of theirs. Raises `Refused` where it is gone meanwhile."""
        async for name, account in self._accounts():
            if account.account == grant.account:
                yield name, account
                return
        raise Refused("The account of this call cannot be opened now.")

    async def _read(self, read: Callable[[Ledger], Awaitable[T]]) -> AsyncGenerator[tuple[str, Decidable, T]]:
        """Their accounts, each with what is read for it: once for all where they share one ledger."""
        found: list[T] = []
        async for name, account in self._accounts():
            if not found or self._shared is None:
                found = [await read(account.ledger)]
            yield name, account, found[0]

    async def _accounts(self) -> AsyncGenerator[tuple[str, Decidable]]:
        for name in sorted(self._standing.tenants):
            tenant = self._team.named(name)
            if tenant is None or tenant.caller_keys:
                continue
            try:
                async with self._tenants.lease(tenant) as account:
                    yield name, account.served
            except LedgerLost:
                raise
            except FastnError as error:
                log.error("the approval requests of %s cannot be shown: %s", name, error)
