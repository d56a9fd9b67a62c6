"""Decisions on the approval requests of a ledger by one person at a terminal."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from fastn_mcp.audit.log import AuditEvent, AuditFile
from fastn_mcp.errors import FastnError
from fastn_mcp.guard.approval.votes import NotCounted, TypedValue, count_vote, withdraw
from fastn_mcp.guard.approval_form import sent_words
from fastn_mcp.guard.key_files import TypedSecrets
from fastn_mcp.guard.recorder import decision_entry, record_expired
from fastn_mcp.ledger.approval_request import TEMPORARY_MINUTES, ApprovalRequest, Vote
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.decision import Decision
from fastn_mcp.runtime import System

log = logging.getLogger(__name__)

_APPROVED_BY = "terminal"
_SENT_WHEN = "now if its call waits, or when the agent makes it again"

_MAX_SEARCHED = 1000
"""Number of the latest decided requests among which an approval is looked for."""

UNSEALABLE = (
    "What a person types here is sealed for the servers by their FASTN_STATE_SECRET, which this terminal does not have:"
    " set it, or approve on the approval page."
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
            await record_expired(self.ledger, account, self.system.timestamp(), self._record_event)
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
        sent = "when it is undone once more on the approval page" if request.undoes else _SENT_WHEN
        vote = Vote(_APPROVED_BY, approves=True, at=self.system.timestamp(), is_temporary=is_temporary)
        also = f" Such calls need no approval for {TEMPORARY_MINUTES} minutes from then on." if is_temporary else ""
        return await self._vote(request, vote, None, f"Approved. It is sent {sent}.{also}", typed)

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
        (request,), vote = matches, Vote(_APPROVED_BY, approves=False, at=self.system.timestamp())
        taken_back = await withdraw(vote, request, self.ledger, _APPROVED_BY, note or None, self._record_event)
        if isinstance(taken_back, NotCounted):
            return taken_back.why
        return f"Withdrawn: {request.text[0]} {sent_words(taken_back)}"

    async def unused(self) -> list[ApprovalRequest]:
        """Return the approvals that are not used up and can be withdrawn."""
        now, decided = self.system.timestamp(), await self.ledger.decided(_MAX_SEARCHED)
        return [one for one in decided if one.can_be_withdrawn(now)]

    async def _vote(
        self, request: ApprovalRequest, vote: Vote, note: str | None, message: str, typed: TypedValue | None = None
    ) -> str:
        """Count a vote, and return the message, or why it did not count."""
        counted = await count_vote(vote, request, self.ledger, _APPROVED_BY, note, self._record_event, typed)
        return counted.why if isinstance(counted, NotCounted) else message

    async def temporary_approvals(self) -> list[ApprovalRequest]:
        """Return the requests with a temporary approval that has not expired."""
        return await self.ledger.temporary_approvals(self.system.timestamp())

    async def revoke(self, prefix: str) -> ApprovalRequest | None:
        """Revoke the temporary approval whose id starts with `prefix`. Return None unless exactly one does."""
        matches = [each for each in await self.temporary_approvals() if each.id.startswith(prefix)]
        revoked = await self.ledger.revoke_temporary(matches[0].id) if len(matches) == 1 else None
        if revoked is not None:
            self._record_event(AuditEvent.TEMPORARY_APPROVAL_REVOKED, revoked, None)
        return revoked

    def _record_event(self, event: AuditEvent, request: ApprovalRequest, note: str | None) -> None:
        """Record an event, or warn if that fails. Sending records again, and refuses if it still fails."""
        try:
            self.audit.record(decision_entry(event, request, _APPROVED_BY, note))
        except FastnError as error:
            self.warn(str(error))
