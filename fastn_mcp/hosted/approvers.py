"""Who may decide about which calls of a team, and what keeps somebody from it. Pure.

A requester never approves their own call where two people are asked. A plain one they may: the person behind an agent
is who a form of its client would ask too, unless the team file says `own = false`.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastn_mcp.guard import four_eyes
from fastn_mcp.guard.ledger import Grant, Scope
from fastn_mcp.hosted.team import Kept, Match, Team
from fastn_mcp.operation import Effect

ALL = frozenset(effect.value for effect in Effect)


@dataclass(frozen=True, slots=True)
class Rule:
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
    secret: Kept
    scopes: tuple[str, ...]
    own: bool
    """Whether who asks may approve what is asked of one person."""
    session: float
    """Seconds that a sign-in holds."""
    rules: tuple[Rule, ...]

    def able(self, tenant: str, grant: Grant) -> bool:
        """Whether there can be anybody who may approve it."""
        own = self.own and four_eyes.needed(grant) == 1
        return own or any(rule.covers(tenant, effects(grant)) for rule in self.rules)


@dataclass(frozen=True, slots=True)
class Person:
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


def person(team: Team, approvals: Approvals, claims: Mapping[str, Any]) -> Person:
    """Who signed in, by the claims of their ID token."""
    rules = tuple(rule.name for rule in approvals.rules if rule.match.holds(claims, team.groups_claim))
    tenant = team.tenant_of(claims) if approvals.own else None
    shown = next((str(v) for k in ("name", "preferred_username", "email") if (v := claims.get(k))), claims["sub"])
    asks = tenant.name if tenant is not None and not tenant.caller_keys else None
    return Person(str(claims["iss"]), str(claims["sub"]), str(shown)[:100], asks, rules)


def effects(grant: Grant) -> frozenset[str]:
    """What a grant does: of several calls, all that any of them does. One that is not known is nobody's."""
    several = grant.card.get("effects")
    return frozenset(map(str, several if isinstance(several, list) else [grant.card.get("effect")]))


class Standing:
    """What one person may do, by the rules as they are now."""

    def __init__(self, approvals: Approvals, person: Person) -> None:
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
        if four_eyes.needed(grant) > 1:
            return "It is your own call, and others have to approve it."
        # One that is like theirs, and not the same, letter by letter, is kept from approving and given nothing.
        exact = grant.principal == self.person.principal
        return None if self._own and exact else "It is your own call, and somebody else has to approve it."

    def holds(self, tenant: str, scope: Scope) -> bool:
        """Whether an approval for a while is theirs to end."""
        return self._asked(scope.principal) or any(tenant in rule.tenants for rule in self._rules)

    def _covered(self, tenant: str, grant: Grant) -> bool:
        return any(rule.covers(tenant, effects(grant)) for rule in self._rules)

    def _asked(self, principal: str) -> bool:
        return principal.casefold() == self.person.principal.casefold()
