"""Two different people for one call, each told by a credential. What was counted is in the ledger alone."""

from fastn_mcp.guard.ledger import Grant, Ledger
from fastn_mcp.guard.policy import Decision

PEOPLE = 2
"""Approvers that a call of four eyes needs."""

BY = "four_eyes"
"""The consent that they give together."""


def needed(grant: Grant) -> int:
    """How many approvers it takes."""
    return PEOPLE if grant.asks == Decision.FOUR_EYES.value else 1


def less_than(asked: str, decision: Decision) -> bool:
    """Whether what was asked takes less than what the policy wants now: it may know more than it did."""
    return Decision(asked).rank < decision.rank


async def incomplete(grant: Grant, ledger: Ledger) -> bool:
    """Whether a call of four eyes lacks an approver, whatever state its grant is in."""
    if needed(grant) == 1:
        return False
    return sum(vote.approves for vote in await ledger.votes(grant.id)) < PEOPLE
