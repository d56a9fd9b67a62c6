"""Answers of identified approvers, by webhook or in Slack: whether they may decide, their vote, and what is audited."""

import hashlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

from fastn_mcp.audit.log import AuditEvent, AuditFile, LogEntry
from fastn_mcp.channels.approvers import Approver
from fastn_mcp.guard.approval.votes import NotCounted, count_vote, why_closed, why_not_withdrawn, withdraw
from fastn_mcp.guard.approval_form import VERIFIED, approved_elsewhere, is_typed
from fastn_mcp.guard.recorder import decision_entry, record_fact
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, Vote
from fastn_mcp.ledger.identity import account_name
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.runtime import System

MAX_REJECTIONS = 20
"""Audited rejections per `REJECTION_SPAN`, counted separately for strangers and approvers."""

REJECTION_SPAN = 3600.0
"""Seconds."""

OTHER_LINES = "What you were shown does not match the request. Nothing was decided."

Choice = Literal["approve", "decline", "withdraw"]


def digest(lines: Sequence[str]) -> str:
    """Hexadecimal SHA-256 of the lines of a request, joined by line feeds, by which an answer names what was shown."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class AnswerRejected(Exception):
    """Rejected answer. `why` is sent back; `approver` and `request` are set only once verified."""

    def __init__(
        self, status: int, why: str, approver: Approver | None = None, request: ApprovalRequest | None = None
    ) -> None:
        super().__init__(why)
        self.status = status
        """HTTP status of the response."""
        self.why = why
        self.approver = approver
        self.request = request


@dataclass(slots=True)
class _Rejections:
    began: float = float("-inf")
    recorded: int = 0
    left_out: int = 0


class ApproverAnswers:
    """Counts answers about calls on one account, of one tenant if there are any."""

    def __init__(self, account: str, tenant: str, ledger: Ledger, audit: AuditFile, system: System) -> None:
        self.account = account
        self._tenant = tenant
        self._audit = audit
        self.ledger = ledger
        self.system = system
        # Counted separately, so that strangers cannot hide rejections of an approver from the audit log.
        self._rejections = {True: _Rejections(), False: _Rejections()}

    async def find(self, id_: str, choice: Choice, approver: Approver) -> ApprovalRequest:
        """Return the open request, or the approved one to withdraw. Raises `AnswerRejected` if it is not theirs."""
        request, now = await self.ledger.find(id_), self.system.timestamp()
        own = (self.account, self._tenant)
        if request is None or not request.out_of_band or (request.account, request.tenant) != own:
            raise AnswerRejected(404, why_closed(None), approver)
        if choice == "withdraw":
            if not request.can_be_withdrawn(now):
                raise AnswerRejected(409, why_not_withdrawn(request), approver, request)
        elif request.state is not RequestState.OPEN:
            raise AnswerRejected(409, why_closed(request), approver, request)
        if request.expires <= now:
            raise AnswerRejected(410, why_closed(request), approver, request)
        if not approver.may_answer(request):
            why = (
                f"{approver.name} may not decide about it: it is or may be their own call, or its effect is not among"
                " theirs."
            )
            raise AnswerRejected(403, why, approver, request)
        return request

    def check_typed(self, request: ApprovalRequest, approver: Approver, typed: str | None) -> None:
        """Raise `AnswerRejected` unless the typed text is the expected one, and nothing more is typed."""
        if (elsewhere := approved_elsewhere(request)) is not None:
            raise AnswerRejected(422, elsewhere, approver, request)
        if not is_typed(request.expected, typed):
            raise AnswerRejected(422, "The typed text does not match exactly.", approver, request)

    async def count(
        self, choice: Choice, request: ApprovalRequest, approver: Approver, note: str | None
    ) -> ApprovalRequest:
        """Count an answer. Return the updated request. Raises `AnswerRejected` if it does not count."""
        vote = Vote(
            approver.person, choice == "approve", self.system.timestamp(), approver.display_name or "",
            groups=approver.groups,
        )  # fmt: skip

        def record(event: AuditEvent, decided_request: ApprovalRequest, message: str | None) -> None:
            self._record(decision_entry(event, decided_request, VERIFIED, message), approver)

        count = withdraw if choice == "withdraw" else count_vote
        counted = await count(vote, request, self.ledger, VERIFIED, (note or "").strip() or None, record)
        if isinstance(counted, NotCounted):
            raise AnswerRejected(409, counted.why, approver, request)
        return counted

    @contextmanager
    def recorded(self) -> Generator[None]:
        """Audit a rejection that is raised inside, and raise it again."""
        try:
            yield
        except AnswerRejected as rejected:
            self._record_rejection(rejected)
            raise

    def _record(self, entry: LogEntry, approver: Approver | None) -> None:
        if approver is not None:
            entry = replace(entry, approver=approver.person, approver_name=approver.display_name)
        record_fact(self._audit, entry)

    def _record_rejection(self, rejected: AnswerRejected) -> None:
        """Audit a rejection, or only count it if the limit of this span is reached."""
        request, approver, message = rejected.request, rejected.approver, rejected.why
        seen, now = self._rejections[approver is not None], self.system.monotonic()
        if now - seen.began >= REJECTION_SPAN:
            seen.began, seen.recorded = now, 0
        if seen.recorded >= MAX_REJECTIONS:
            seen.left_out += 1
            return
        seen.recorded += 1
        if seen.left_out:
            message = f"{message} Before it {seen.left_out} more were not recorded."
            seen.left_out = 0
        entry = LogEntry(AuditEvent.ANSWER_REFUSED, "unknown", account_name(self.account), "unknown")
        if request is not None:
            known = {"principal": request.principal, "account": account_name(request.account), "tool": request.tool}
            entry = replace(entry, **known, target=request.target, grant=request.id, principal_name=request.person)
        self._record(replace(entry, message=message), approver)
