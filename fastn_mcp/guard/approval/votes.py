"""Votes on approval requests, from every channel: what comes with a vote is stored in the step that counts it."""

import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from pydantic import JsonValue

from fastn_mcp.audit.log import AuditEvent
from fastn_mcp.guard.approval.request import BY_SEVERAL, TEMPORARY_MINUTES, VERIFIED, can_be_temporary, typed_in
from fastn_mcp.guard.key_files import TypedSecrets
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, Vote
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


Recorded = Callable[[AuditEvent, str | None], None]


def unrecorded(_: AuditEvent, __: str | None) -> None:
    """Record nothing."""


async def count_vote(
    vote: Vote,
    request: ApprovalRequest,
    ledger: ApprovalRequests,
    by: str,
    note: str | None = None,
    record: Recorded = unrecorded,
    typed: TypedValue | None = None,
) -> ApprovalRequest | NotCounted:
    """Count a vote. Return the updated request, or why the vote does not count.

    `by` is recorded; `four_eyes` replaces `verified` if two have to approve. `record` is called for a counted vote.
    Where people type a secret, an approval counts only with one, which has to be that of the first approver.
    """
    several = request.needed > 1
    vote = replace(vote, is_temporary=vote.approves and vote.is_temporary and can_be_temporary(request))
    by, kept = BY_SEVERAL if several and by == VERIFIED else by, None if vote.approves else note
    argument = typed_in(request) if vote.approves else None
    if argument is None:
        counted = await ledger.decide(request, vote, by, kept)
    elif typed is None:
        return NotCounted(f"Whoever approves it types the {argument.name}. Nothing was decided.")
    else:
        counted = await _count_typed(vote, request, ledger, by, typed)
    if counted is None:
        return NotCounted(why_not(await ledger.find(request.id), vote, request))
    if isinstance(counted, ApprovalRequest):
        record(AuditEvent.APPROVED if vote.approves else AuditEvent.DECLINED, note or _progress(vote, counted))
    return counted


async def _count_typed(
    vote: Vote, request: ApprovalRequest, ledger: ApprovalRequests, by: str, typed: TypedValue
) -> ApprovalRequest | NotCounted | None:
    """Count an approval with what was typed for it. Compare it again if somebody else votes meanwhile."""
    while True:
        found = await ledger.find(request.id)
        if found is None:
            return None
        if found.state is RequestState.OPEN and await _differs(found, vote, typed):
            return NotCounted("What you typed differs from what the first approver typed. Nothing was decided.")
        secret = typed.secrets.seal(found, vote.approver, typed.value, vote.at)
        seen = replace(request, votes=found.votes)
        counted = await ledger.decide(seen, vote, by, secret=secret)
        if counted is not None:
            return counted
        newer = await ledger.find(request.id)
        if newer is None or newer.votes == found.votes:
            return None


async def _differs(request: ApprovalRequest, vote: Vote, typed: TypedValue) -> bool:
    """Whether others typed another value, or one that cannot be opened any more."""
    mine = _canonical([typed.value])
    for earlier in request.votes:
        if earlier.approves and not earlier.is_of(vote.approver):
            kept = await typed.secrets.typed(request, earlier.approver, vote.at)
            if not hmac.compare_digest(_canonical(kept), mine):
                return True
    return False


def _canonical(value: JsonValue) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _progress(vote: Vote, counted: ApprovalRequest) -> str | None:
    """Return what is recorded of an approval without a note."""
    several = f"{len(counted.approvers)} of {counted.needed} approvers" if vote.approves and counted.needed > 1 else ""
    temporary = f"also for {TEMPORARY_MINUTES} minutes" if vote.is_temporary else ""
    return ", ".join(filter(None, (several, temporary))) or None


def why_not(found: ApprovalRequest | None, vote: Vote, shown: ApprovalRequest) -> str:
    """Say why a vote on a request, as it is now, does not count. `shown`: the request as the voter was shown it."""
    if found is None or found.out_of_band is not shown.out_of_band:
        return why_closed(None)
    if found.state is RequestState.OPEN and found.expires > vote.at:
        return "You have approved it already, and somebody else has to. Nothing was decided now."
    return why_closed(found)


def why_closed(found: ApprovalRequest | None) -> str:
    """Say why a request cannot be decided any more, or that there is none."""
    if found is None:
        return "There is no such approval request. Nothing was decided."
    if found.state is RequestState.OPEN or (found.state is RequestState.UNANSWERED and found.by is None):
        return "This request has expired. Nothing was decided; the agent can ask again."
    outcome = {
        RequestState.APPROVED: "was approved already",
        RequestState.USED: "was approved already, and the call was made",
        RequestState.DECLINED: "was declined already",
        RequestState.STALE: "is void, since its target changed",
        RequestState.UNANSWERED: "was left unanswered",
    }[found.state]
    return f"This question {outcome}. Nothing was decided now."
