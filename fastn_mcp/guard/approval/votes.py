"""Votes on approval requests: what comes with a vote is stored in the step that counts it; votes at a terminal."""

import hmac
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from pydantic import JsonValue

from fastn_mcp.audit.log import AuditEvent, AuditFile
from fastn_mcp.errors import FastnError
from fastn_mcp.guard.approval.states import STATES
from fastn_mcp.guard.approval_form import BY_SEVERAL, VERIFIED, sent_words
from fastn_mcp.guard.key_files import TypedSecrets
from fastn_mcp.guard.recorder import decision_entry, record_expired
from fastn_mcp.ledger.approval_request import TEMPORARY_MINUTES, ApprovalRequest, RequestState, Vote
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.decision import Decision
from fastn_mcp.runtime import System


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
    ledger: Ledger,
    by: str,
    note: str | None = None,
    record: Record = unrecorded,
    typed: TypedValue | None = None,
) -> ApprovalRequest | NotCounted:
    """Count a vote. Return the updated request, or why the vote does not count.

    `by` is recorded; `four_eyes` replaces `verified` if two have to approve. `record` is called for a counted vote.
    Where people type a secret, an approval counts only with the secret that the first approver typed.
    """
    several = request.needed > 1
    vote = replace(vote, is_temporary=vote.approves and vote.is_temporary and request.can_be_temporary)
    by = BY_SEVERAL if several and by == VERIFIED else by
    kept_note = None if vote.approves else note
    argument = request.typed if vote.approves else None
    if argument is None:
        counted = await ledger.decide(request, vote, by, kept_note)
    elif typed is None:
        return NotCounted(f"The approver types the {argument.name}. Nothing was decided.")
    else:
        counted = await _count_typed(vote, request, ledger, by=by, typed=typed)
    if counted is None:
        return NotCounted(why_not(await ledger.find(request.id), vote, request))
    if isinstance(counted, ApprovalRequest):
        event = AuditEvent.APPROVED if vote.approves else AuditEvent.DECLINED
        record(event, request, note or _progress(vote, counted))
    return counted


async def withdraw(
    vote: Vote,
    request: ApprovalRequest,
    ledger: Ledger,
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
    vote: Vote, request: ApprovalRequest, ledger: Ledger, by: str, typed: TypedValue
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
    """Whether others typed another value, or a value that cannot be opened any more."""
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
        return "You have already approved. One more person has to approve. Your answer was not recorded."
    return why_closed(current)


def why_closed(current: ApprovalRequest | None) -> str:
    """Say why a request cannot be decided any more, or that there is none."""
    if current is None:
        return "This approval request does not exist. Nothing was decided."
    if current.state is RequestState.UNANSWERED and current.by is not None:
        return "This request was left unanswered. Nothing was decided."
    closed = f"This request {STATES[current.state].closed}."
    if current.state in (RequestState.OPEN, RequestState.UNANSWERED):
        return f"{closed} Your answer was not recorded; the agent can ask again."
    return f"{closed} Your answer was not recorded."


log = logging.getLogger(__name__)

_APPROVED_BY = "terminal"
_SENT_WHEN = "now if the agent is still waiting, or when it makes the call again"

_MAX_SEARCHED = 1000
"""Number of the latest decided requests among which an approval is looked for."""

UNSEALABLE = (
    "A value that is typed here is sealed with the servers' FASTN_STATE_SECRET, which this terminal does not have: set"
    " it, or approve on the approval page."
)


def clock(seconds: float) -> str:
    """Return the local time of day."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M")


@dataclass(frozen=True, slots=True)
class TerminalApprovals:
    """Approval requests of a ledger, decided by one person at a terminal."""

    ledger: Ledger
    audit: AuditFile
    system: System
    typed: TypedSecrets | None = None
    """Keeps what they type; None without the state secret by which the servers open it."""
    warn: Callable[[str], object] = log.warning
    """Gets a warning where a decision, an expiry or a revocation could not be recorded. It holds without that."""

    async def waiting(self) -> list[ApprovalRequest]:
        """Return the pending requests. Close expired ones, and record them in the audit log."""
        for account in {request.account for request in await self.ledger.waiting(0.0)}:
            await record_expired(self.ledger, account, self.system.timestamp(), self.record_event)
        return await self.ledger.waiting(self.system.timestamp())

    async def approve(self, request: ApprovalRequest, secret: JsonValue = None, *, is_temporary: bool = False) -> str:
        """Approve a request, and with `is_temporary` similar calls for a while. Return the message for the person.

        `secret` is the argument that they typed, if the request asks for one.
        """
        if request.required == Decision.FOUR_EYES.value:
            return "Nothing was decided: two people have to approve this call, and a terminal cannot tell people apart."
        if request.typed is not None and self.typed is None:
            return f"Nothing was decided. {UNSEALABLE}"
        typed = None if self.typed is None else TypedValue(self.typed, secret)
        sent = "when you undo the change again on the approval page" if request.undoes else _SENT_WHEN
        vote = Vote(_APPROVED_BY, approves=True, at=self.system.timestamp(), is_temporary=is_temporary)
        also = f" Such calls need no approval for {TEMPORARY_MINUTES} minutes from then on." if is_temporary else ""
        return await self._vote(request, vote, note=None, message=f"Approved. It is sent {sent}.{also}", typed=typed)

    async def decline(self, request: ApprovalRequest, note: str) -> str:
        """Decline a request. Return the message for the person."""
        vote = Vote(_APPROVED_BY, approves=False, at=self.system.timestamp())
        message = f"Declined. The same call stays declined until {clock(request.expires)}."
        return await self._vote(request, vote, note or None, message)

    async def withdraw(self, prefix: str, note: str) -> str | None:
        """Take back the approval of the request whose id starts with `prefix`. None unless exactly one does."""
        matches = [
            one for one in await self.ledger.decided(_MAX_SEARCHED) if one.id.startswith(prefix) and one.out_of_band
        ]
        if len(matches) != 1:
            return None
        (request,) = matches
        vote = Vote(_APPROVED_BY, approves=False, at=self.system.timestamp())
        taken_back = await withdraw(
            vote, request, self.ledger, by=_APPROVED_BY, note=note or None, record=self.record_event
        )
        if isinstance(taken_back, NotCounted):
            return taken_back.why
        return f"Withdrawn: {request.question.lines()[0]} {sent_words(taken_back)}"

    async def unused(self) -> list[ApprovalRequest]:
        """Return the approvals that are not used up and can be withdrawn."""
        now = self.system.timestamp()
        decided = await self.ledger.decided(_MAX_SEARCHED)
        return [one for one in decided if one.can_be_withdrawn(now)]

    async def _vote(
        self, request: ApprovalRequest, vote: Vote, note: str | None, message: str, typed: TypedValue | None = None
    ) -> str:
        """Count a vote, and return the message, or why it did not count."""
        counted = await count_vote(
            vote, request, self.ledger, by=_APPROVED_BY, note=note, record=self.record_event, typed=typed
        )
        return counted.why if isinstance(counted, NotCounted) else message

    async def temporary_approvals(self) -> list[ApprovalRequest]:
        """Return the requests with a temporary approval that has not expired."""
        return await self.ledger.temporary_approvals(self.system.timestamp())

    async def revoke(self, prefix: str) -> ApprovalRequest | None:
        """Revoke the temporary approval whose id starts with `prefix`. Return None unless exactly one does."""
        matches = [each for each in await self.temporary_approvals() if each.id.startswith(prefix)]
        revoked = await self.ledger.revoke_temporary(matches[0].id) if len(matches) == 1 else None
        if revoked is not None:
            self.record_event(AuditEvent.TEMPORARY_APPROVAL_REVOKED, revoked, None)
        return revoked

    def record_event(self, event: AuditEvent, request: ApprovalRequest, note: str | None) -> None:
        """Record an event, or warn if that fails. Sending records again, and refuses if it still fails."""
        try:
            self.audit.record(decision_entry(event, request, _APPROVED_BY, note))
        except FastnError as error:
            self.warn(str(error))
