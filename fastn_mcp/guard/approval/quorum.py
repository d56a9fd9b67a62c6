"""How many people have to approve a call (four eyes), and what a caller's scopes allow.

The policy decides about a call, and who signed in can be allowed less than it, never more.
"""

from collections.abc import Callable
from dataclasses import dataclass

from fastn_mcp.errors import Refused
from fastn_mcp.guard.audit.log import AuditEvent
from fastn_mcp.guard.ledger.ledger import ApprovalRequest, Ledger, RequestState, Vote
from fastn_mcp.guard.policy import Decision
from fastn_mcp.tools.tool import Effect

PEOPLE = 2
"""Approvers that a call of four eyes needs."""

BY = "four_eyes"
"""The consent that they give together."""

VERIFIED = "verified"
"""The consent of one person who is told from all others."""


def needed(grant: ApprovalRequest) -> int:
    """How many approvers it takes."""
    return PEOPLE if grant.required == Decision.FOUR_EYES.value else 1


def effects_of(grant: ApprovalRequest) -> frozenset[str]:
    """What a request does: of several calls, all that any of them does. An effect that is not known is nobody's."""
    effects = grant.preview.get("effects")
    return frozenset(map(str, effects if isinstance(effects, list) else [grant.preview.get("effect")]))


def less_than(asked: str, decision: Decision) -> bool:
    """Whether what was asked takes less than what the policy wants now: it may know more than it did."""
    return Decision(asked).rank < decision.rank


async def incomplete(grant: ApprovalRequest, ledger: Ledger) -> bool:
    """Whether a call of four eyes lacks an approver, whatever state its grant is in."""
    return needed(grant) > 1 and await approving(grant.id, ledger) < PEOPLE


async def approving(grant: str, ledger: Ledger) -> int:
    """How many approve it so far."""
    return sum(vote.approves for vote in await ledger.votes(grant))


@dataclass(frozen=True, slots=True)
class Counted:
    """What an answer came to: the state of its grant, and how many approve it."""

    state: RequestState
    approving: int


async def count(
    vote: Vote,
    grant: ApprovalRequest,
    ledger: Ledger,
    by: str,
    note: str | None,
    record: Callable[[AuditEvent, str | None], None],
) -> Counted | None:
    """Count what a person said of a grant; None where it was not open to them. `by` is the consent of one alone.

    `record` is told of what counts, even where the ledger is lost right after. Raises what the ledger raises.
    """
    several = needed(grant) > 1
    state = await ledger.vote(
        vote, needed(grant), by=BY if several and by == VERIFIED else by, note=None if vote.approves else note
    )
    if state is None:
        return None
    said = note
    try:
        have = await approving(grant.id, ledger)
        if vote.approves and several:
            said = note or f"{have} of {PEOPLE} approvers"
        if state is not RequestState.OPEN:
            await ledger.note_answer(grant.holder, declined=not vote.approves, now=vote.at)
    finally:
        record(AuditEvent.APPROVED if vote.approves else AuditEvent.DECLINED, said)
    return Counted(state, have)


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
