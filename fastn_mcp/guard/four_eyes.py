"""What people say of a call, each told by a credential: one, or two. What was counted is in the ledger alone."""

from collections.abc import Callable
from dataclasses import dataclass

from fastn_mcp.guard.audit import Event
from fastn_mcp.guard.ledger import Grant, Ledger, State, Vote
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
    return needed(grant) > 1 and await approving(grant.id, ledger) < PEOPLE


async def approving(grant: str, ledger: Ledger) -> int:
    """How many approve it so far."""
    return sum(vote.approves for vote in await ledger.votes(grant))


@dataclass(frozen=True, slots=True)
class Counted:
    """What an answer came to: the state of its grant, and how many approve it."""

    state: State
    approving: int


async def count(
    vote: Vote, grant: Grant, ledger: Ledger, by: str, note: str | None, record: Callable[[Event, str | None], None]
) -> Counted | None:
    """Count what a person said of a grant; None where it was not open to them. `by` is the consent of one alone.

    `record` is told of what counts, even where the ledger is lost right after. Raises what the ledger raises.
    """
    several = needed(grant) > 1
    state = await ledger.vote(vote, needed(grant), by=BY if several else by, note=None if vote.approves else note)
    if state is None:
        return None
    said = note
    try:
        have = await approving(grant.id, ledger)
        if vote.approves and several:
            said = note or f"{have} of {PEOPLE} approvers"
        if state is not State.OPEN:
            await ledger.note_answer(grant.holder, declined=not vote.approves, now=vote.at)
    finally:
        record(Event.APPROVED if vote.approves else Event.DECLINED, said)
    return Counted(state, have)
