"""Votes on approval requests (four-eyes approval), and the OAuth scopes of callers.

A caller's scopes can only restrict what the policy allows, never extend it.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fastn_mcp.errors import Refused
from fastn_mcp.guard.audit.log import AuditEvent
from fastn_mcp.guard.ledger.ledger import ApprovalRequest, Ledger, Vote
from fastn_mcp.tools.tool import Effect

BY = "four_eyes"
"""Value of `by` for an approval given by several people."""

VERIFIED = "verified"
"""Value of `by` for the approval of one person, identified by a credential of their own."""


def effects_of(grant: ApprovalRequest) -> frozenset[str]:
    """Return the effects of all calls of a request. No scope permits an unknown effect."""
    effects = grant.preview.get("effects")
    return frozenset(map(str, effects if isinstance(effects, list) else [grant.preview.get("effect")]))


async def count(
    vote: Vote,
    request: ApprovalRequest,
    ledger: Ledger,
    by: str,
    note: str | None,
    record: Callable[[AuditEvent, str | None], None],
) -> ApprovalRequest | None:
    """Count a vote. Return the updated request, or None if the vote does not count.

    `by` is recorded; `four_eyes` replaces `verified` if two have to approve. `record` is called for a counted vote.
    """
    several = request.needed > 1
    decided = await ledger.decide(
        request, vote, BY if several and by == VERIFIED else by, None if vote.approves else note
    )
    if decided is None:
        return None
    said = note
    if vote.approves and several:
        said = note or f"{len(decided.approvers)} of {decided.needed} approvers"
    record(AuditEvent.APPROVED if vote.approves else AuditEvent.DECLINED, said)
    return decided


READ = "fastn:read"
WRITE = "fastn:write"
DESTROY = "fastn:destroy"
ADMIN = "fastn:admin"

SCOPES = {
    Effect.READ: READ,
    Effect.WRITE: WRITE,
    Effect.EXTERNAL: WRITE,
    Effect.SPEND: WRITE,
    Effect.TRASH: DESTROY,
    Effect.DESTROY: DESTROY,
    Effect.ACCESS: ADMIN,
}
"""Scope that each effect needs. No scope includes another."""

ALL_SCOPES = tuple(dict.fromkeys(SCOPES.values()))


class InsufficientScope(Refused):
    """The sign-in lacks the scope that a call needs."""

    def __init__(self, tool: str, scope: str) -> None:
        super().__init__(
            f"{tool} needs the scope {scope}, which this sign-in does not hold.",
            "Sign in again with it; where that is not offered, the operator can give it.",
            facts={"scope": scope},
        )
        self.scope = scope


@dataclass(frozen=True, slots=True)
class Rights:
    """Scopes of a sign-in. Unknown scopes are ignored."""

    scopes: frozenset[str]

    def check(self, tool: str, effect: Effect) -> None:
        """Raise `InsufficientScope` if the scope for this effect is missing."""
        if (needed := SCOPES[effect]) not in self.scopes:
            raise InsufficientScope(tool, needed)
