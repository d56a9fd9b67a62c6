"""Votes on approval requests, from every channel: what comes with a vote is stored in the step that counts it."""

import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from fastn_mcp.audit.log import AuditEvent
from fastn_mcp.guard.approval_form import BY_SEVERAL, VERIFIED
from fastn_mcp.guard.key_files import TypedSecrets
from fastn_mcp.ledger.approval_request import TEMPORARY_MINUTES, ApprovalRequest, RequestState, Vote
from fastn_mcp.ledger.ledger import ApprovalRequests


@dataclass(frozen=True, slots=True)
class NotCounted:
    """A vote that did not count, and left no trace. `why` is a sentence for whoever gave it."""

    why: str


@dataclass(frozen=True, slots=True)
class TypedValue:
    """The argument that an approver typed, and what seals it."""

    secrets: TypedSecrets
    value: JsonValue = field(repr=False)


Record = Callable[[AuditEvent, ApprovalRequest, str | None], None]
"""Records an audit event about a request, with the note to the agent."""


def unrecorded(_: AuditEvent, __: ApprovalRequest, ___: str | None) -> None:
    """Record nothing."""


async def count_vote(
    vote: Vote,
    request: ApprovalRequest,
    ledger: ApprovalRequests,
    by: str,
    note: str | None = None,
    record: Record = unrecorded,
    typed: TypedValue | None = None,
) -> ApprovalRequest | NotCounted:
    """Count a vote. Return the updated request, or why the vote does not count.

    `by` is recorded; `four_eyes` replaces `verified` if two have to approve. `record` is called for a counted vote.
    Where people type a secret, an approval counts only with one, which has to be that of the first approver.
    """
    several = request.needed > 1
    vote = replace(vote, is_temporary=vote.approves and vote.is_temporary and request.can_be_temporary)
    by, kept_note = BY_SEVERAL if several and by == VERIFIED else by, None if vote.approves else note
    argument = request.typed if vote.approves else None
    if argument is None:
        counted = await ledger.decide(request, vote, by, kept_note)
    elif typed is None:
        return NotCounted(f"The approver types the {argument.name}. Nothing was decided.")
    else:
        counted = await _count_typed(vote, request, ledger, by, typed)
    if counted is None:
        return NotCounted(why_not(await ledger.find(request.id), vote, request))
    if isinstance(counted, ApprovalRequest):
        event = AuditEvent.APPROVED if vote.approves else AuditEvent.DECLINED
        record(event, request, note or _progress(vote, counted))
    return counted


async def withdraw(
    vote: Vote,
    request: ApprovalRequest,
    ledger: ApprovalRequests,
    by: str,
    note: str | None = None,
    record: Record = unrecorded,
) -> ApprovalRequest | NotCounted:
    """Take back an approval that is not used up, by a vote that does not approve. `record` is called if it was."""
    taken_back = await ledger.withdraw(request.id, vote, by, note)
    if taken_back is None:
        return NotCounted(why_not_withdrawn(await ledger.find(request.id)))
    record(AuditEvent.WITHDRAWN, taken_back, note)
    return taken_back


def why_not_withdrawn(current: ApprovalRequest | None) -> str:
    """Say why there is no approval to withdraw."""
    match current.state if current else None:
        case RequestState.USED:
            return f"Too late: the call{'s were' if current and len(current.calls) > 1 else ' was'} already sent."
        case RequestState.OPEN:
            return "This request is not approved. Nothing was withdrawn."
        case RequestState.APPROVED:
            return "This approval expired unused. Nothing was withdrawn."
        case _:
            return why_closed(current)


async def _count_typed(
    vote: Vote, request: ApprovalRequest, ledger: ApprovalRequests, by: str, typed: TypedValue
) -> ApprovalRequest | NotCounted | None:
    """Count an approval with what was typed for it. Compare it again if somebody else votes meanwhile."""
    while True:
        current = await ledger.find(request.id)
        if current is None:
            return None
        if current.state is RequestState.OPEN and await _differs(current, vote, typed):
            return NotCounted("What you typed differs from what the first approver typed. Nothing was decided.")
        secret = typed.secrets.seal(current, vote.approver, typed.value, vote.at)
        shown_request = replace(request, votes=current.votes)
        counted = await ledger.decide(shown_request, vote, by, secret=secret)
        if counted is not None:
            return counted
        newer = await ledger.find(request.id)
        if newer is None or newer.votes == current.votes:
            return None


async def _differs(request: ApprovalRequest, vote: Vote, typed: TypedValue) -> bool:
    """Whether others typed another value, or one that cannot be opened any more."""
    mine = _canonical([typed.value])
    for earlier in request.votes:
        if earlier.approves and not earlier.is_of(vote):
            typed_before = await typed.secrets.typed(request, earlier.approver, vote.at)
            if not hmac.compare_digest(_canonical(typed_before), mine):
                return True
    return False


def _canonical(value: JsonValue) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _progress(vote: Vote, counted: ApprovalRequest) -> str | None:
    """Return what is recorded of an approval without a note."""
    several = f"{len(counted.approvers)} of {counted.needed} approvers" if vote.approves and counted.needed > 1 else ""
    temporary = f"also for {TEMPORARY_MINUTES} minutes" if vote.is_temporary else ""
    return ", ".join(filter(None, (several, temporary))) or None


def why_not(current: ApprovalRequest | None, vote: Vote, voted_on: ApprovalRequest) -> str:
    """Say why a vote on a request, as it is now, does not count. `voted_on`: the request as the voter was shown it."""
    if current is None or current.out_of_band is not voted_on.out_of_band:
        return why_closed(None)
    if current.state is RequestState.OPEN and current.expires > vote.at:
        if current.step_up is not None and current.needs_sign_in(vote):
            return f"{current.step_up.elsewhere} Nothing was decided."
        return "You have approved it already, and somebody else has to. Nothing was decided now."
    return why_closed(current)


def why_closed(current: ApprovalRequest | None) -> str:
    """Say why a request cannot be decided any more, or that there is none."""
    if current is None:
        return "This approval request does not exist. Nothing was decided."
    if current.state is RequestState.OPEN or (current.state is RequestState.UNANSWERED and current.by is None):
        return "This request has expired. Nothing was decided; the agent can ask again."
    outcome = {
        RequestState.APPROVED: "was approved already",
        RequestState.USED: "was approved already, and the call was made",
        RequestState.DECLINED: "was declined already",
        RequestState.WITHDRAWN: "was approved, and the approval was withdrawn",
        RequestState.STALE: "is void, since its target changed",
        RequestState.STOPPED: "is void, since changes were stopped",
        RequestState.UNANSWERED: "was left unanswered",
    }[current.state]
    return f"This request {outcome}. Nothing was decided now."
