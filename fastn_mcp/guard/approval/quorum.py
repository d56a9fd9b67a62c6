"""Count what people say of a request (four eyes), and what a caller's scopes allow.

The policy decides about a call, and who signed in can be allowed less than it, never more.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fastn_mcp.errors import Refused
from fastn_mcp.guard.audit.log import AuditEvent
from fastn_mcp.guard.ledger.ledger import ApprovalRequest, Ledger, Vote
from fastn_mcp.tools.tool import Effect

BY = "four_eyes"
"""The approval that several people give together."""

VERIFIED = "verified"
"""The consent of one person who is told from all others."""


def effects_of(grant: ApprovalRequest) -> frozenset[str]:
    """What a request does: of several calls, all that any of them does. An effect that is not known is nobody's."""
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
    """Count what a person said of a request: the request after it, or None where it was not open to them.

    `by` is the approval of one alone. `record` is called for what counts. Raises what the ledger raises.
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
"""The scope that each effect needs. None contains another."""


class InsufficientScope(Refused):
    """The sign-in lacks the scope that the call needs."""

    def __init__(self, tool: str, scope: str) -> None:
        super().__init__(
            f"{tool} needs the scope {scope}, which this sign-in does not hold.",
            "Sign in again with it; where that is not offered, the operator can give it.",
            facts={"scope": scope},
        )
        self.scope = scope


@dataclass(frozen=True, slots=True)
class Rights:
    """The scopes of a sign-in. Those that are not ours mean nothing here."""

    scopes: frozenset[str]

    def lacks(self, effect: Effect) -> str | None:
        """The scope that is missing for a call of this effect."""
        needed = SCOPES[effect]
        return None if needed in self.scopes else needed

    def check(self, tool: str, effect: Effect) -> None:
        """Raises `InsufficientScope`."""
        if (missing := self.lacks(effect)) is not None:
            raise InsufficientScope(tool, missing)
