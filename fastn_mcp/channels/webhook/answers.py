"""Answers to webhook requests: `POST /approvals/{request}`, verification, decisions and auditing of rejections.

A sender without a valid signature learns nothing, neither which approvers nor which requests exist.
"""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import anyio
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fastn_mcp.audit.log import AuditEvent, AuditFile, LogEntry
from fastn_mcp.channels.webhook import payloads
from fastn_mcp.channels.webhook.approvers import Approver, ApproverSecret
from fastn_mcp.errors import FastnError
from fastn_mcp.guard.approval.votes import NotCounted, count_vote, why_not_withdrawn, withdraw
from fastn_mcp.guard.approval_form import VERIFIED, is_typed, typed_in
from fastn_mcp.guard.recorder import decision_entry
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, Vote
from fastn_mcp.ledger.identity import account_name
from fastn_mcp.ledger.ledger import Ledger, LedgerLost
from fastn_mcp.runtime import System

log = logging.getLogger(__name__)

MAX_REJECTIONS = 20
"""Audited rejections per `REJECTION_SPAN`, counted separately for strangers and approvers."""

REJECTION_SPAN = 3600.0
"""Seconds."""

LONGEST_BODY = 16_384
"""Bytes of an answer."""

_SLACK = 60.0
"""Extra seconds for which a nonce is stored, to allow for clock differences between replicas."""

_PATIENCE = 10.0
"""Seconds for a body to arrive."""

_STRANGER = "This is not an approver's answer. Nothing was decided."
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


class _SignedAnswer(BaseModel):
    """Body of an answer. `timestamp` is in Unix seconds; `question` is the digest of the lines shown."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    grant: Annotated[str, Field(max_length=200)]
    decision: Literal["approve", "decline", "withdraw"]
    approver: Annotated[str, Field(max_length=64)]
    timestamp: int
    nonce: Annotated[str, Field(pattern=re.compile(r"^[A-Za-z0-9_.~+/=-]{16,128}\Z"))]
    typed: Annotated[str | None, Field(max_length=1000)] = None
    note: Annotated[str | None, Field(max_length=500)] = None
    question: Annotated[str | None, Field(max_length=64)] = None


@dataclass(frozen=True, slots=True)
class AnswerResponse:
    status: int
    body: dict[str, JsonValue]


class _Rejected(Exception):
    """Rejected answer. `why` is sent back; `approver` and `request` are set only once verified."""

    def __init__(
        self, status: int, why: str, approver: Approver | None = None, request: ApprovalRequest | None = None
    ) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.approver = approver
        self.request = request


class WebhookAnswers:
    """Verifies and counts answers about calls on one account."""

    def __init__(
        self, approvers: Mapping[str, Approver], account: str, ledger: Ledger, audit: AuditFile, system: System
    ) -> None:
        self._approvers = approvers
        self._account = account
        self._ledger = ledger
        self._audit = audit
        self._system = system
        self._decoy = ApproverSecret(system.token())
        # Counted separately, so that strangers cannot hide rejections of an approver's key from the audit log.
        self._rejections = {True: _Rejections(), False: _Rejections()}

    async def __call__(self, id_: str, signature: str | None, body: bytes) -> AnswerResponse:
        """Process an answer sent to the path of a request."""
        try:
            return await self._decide(id_, signature, body)
        except _Rejected as rejected:
            self._record_rejection(rejected)
            return AnswerResponse(rejected.status, {"decided": False, "message": rejected.why})
        except LedgerLost as lost:
            return AnswerResponse(
                503, {"message": f"{lost.what} It may have counted: send it again, with another nonce."}
            )

    def too_large(self) -> AnswerResponse:
        """Reject an answer whose body could not be read completely."""
        self._record_rejection(_Rejected(413, "It is too large."))
        return AnswerResponse(413, {"decided": False, "message": _STRANGER})

    async def _decide(self, id_: str, signature: str | None, body: bytes) -> AnswerResponse:
        answer, approver = self._verify(id_, signature, body)
        now = self._system.timestamp()
        if abs(now - answer.timestamp) > payloads.WINDOW:
            raise _Rejected(401, "It was signed too long ago, or by a clock that runs ahead.", approver)
        keep = answer.timestamp + payloads.WINDOW + _SLACK
        if not await self._ledger.use_nonce(f"{approver.name} {answer.nonce}", keep, now):
            raise _Rejected(409, "This nonce was used before: each answer needs a new one.", approver)
        request = await self._open_request(answer, id_, approver, now)
        if answer.decision == "approve":
            _check_typed(answer, request, approver)
        return await self._count(answer, request, approver, now)

    def _verify(self, id_: str, signature: str | None, body: bytes) -> tuple[_SignedAnswer, Approver]:
        """Return the answer and the approver who signed it. Raises `_Rejected` if it is invalid."""
        try:
            answer = _SignedAnswer.model_validate_json(body)
        except ValidationError:
            raise _Rejected(400, _STRANGER) from None
        approver = self._approvers.get(answer.approver)
        text = payloads.answer(payloads.path(id_), answer.timestamp, answer.nonce, body)
        # Check a signature for unknown approvers too, so that timing reveals less about who exists.
        signed = (approver.credential if approver else self._decoy).signed(text, payloads.signature_in(signature))
        if approver is None or not signed:
            raise _Rejected(401, _STRANGER)
        return answer, approver

    async def _open_request(self, answer: _SignedAnswer, id_: str, approver: Approver, now: float) -> ApprovalRequest:
        """Return the open request, or the approved one to withdraw. Raises `_Rejected` if they may not decide it."""
        if answer.grant != id_:
            raise _Rejected(400, "It names a different request than the address it was sent to.", approver)
        request = await self._ledger.find(id_)
        if request is None or not request.out_of_band or request.account != self._account:
            raise _Rejected(404, "There is no such approval request.", approver)
        if answer.decision == "withdraw":
            if not request.can_be_withdrawn(now):
                raise _Rejected(409, why_not_withdrawn(request), approver, request)
        elif request.state is not RequestState.OPEN:
            raise _Rejected(409, f"It is already decided or void: {request.state.value}.", approver, request)
        if request.expires <= now:
            raise _Rejected(410, "This request has expired; the agent can ask again.", approver, request)
        if not approver.may_answer(request):
            why = f"{approver.name} may not decide about it: it is their own call, or its effect is not among theirs."
            raise _Rejected(403, why, approver, request)
        if answer.question is not None and answer.question != payloads.digest(request.text):
            raise _Rejected(409, "What you were shown does not match the request.", approver, request)
        return request

    async def _count(
        self, answer: _SignedAnswer, request: ApprovalRequest, approver: Approver, now: float
    ) -> AnswerResponse:
        note = (answer.note or "").strip() or None
        vote = Vote(
            approver.person, answer.decision == "approve", now, approver.display_name or "", groups=approver.groups
        )

        def record(event: AuditEvent, decided_request: ApprovalRequest, message: str | None) -> None:
            self._record(decision_entry(event, decided_request, VERIFIED, message), approver)

        count = withdraw if answer.decision == "withdraw" else count_vote
        counted = await count(vote, request, self._ledger, VERIFIED, note, record)
        if isinstance(counted, NotCounted):
            raise _Rejected(409, counted.why, approver, request)
        over, needed = counted.state is not RequestState.OPEN, request.needed
        state = counted.state.value if over else "waiting"
        return AnswerResponse(
            200, {"decided": over, "state": state, "approvals": len(counted.approvers), "needed": needed}
        )

    def _record(self, entry: LogEntry, approver: Approver | None) -> None:
        """Audit an entry. A failure is only logged, since the decision already holds or nothing was decided."""
        if approver is not None:
            entry = replace(entry, approver=approver.person, approver_name=approver.display_name)
        try:
            self._audit.record(entry)
        except FastnError:
            log.exception("%s of %s could not be audited", entry.event.value, entry.tool)

    def _record_rejection(self, rejected: _Rejected) -> None:
        """Audit a rejection, or only count it if the limit of this span is reached."""
        request, approver, message = rejected.request, rejected.approver, rejected.why
        seen, now = self._rejections[approver is not None], self._system.monotonic()
        if now - seen.began >= REJECTION_SPAN:
            seen.began, seen.recorded = now, 0
        if seen.recorded >= MAX_REJECTIONS:
            seen.left_out += 1
            return
        seen.recorded += 1
        if seen.left_out:
            message = f"{message} Before it {seen.left_out} more were not recorded."
            seen.left_out = 0
        entry = LogEntry(AuditEvent.ANSWER_REFUSED, "unknown", account_name(self._account), "unknown")
        if request is not None:
            known = {"principal": request.principal, "account": account_name(request.account), "tool": request.tool}
            entry = replace(entry, **known, target=request.target, grant=request.id, principal_name=request.person)
        self._record(replace(entry, message=message), approver)


@dataclass(slots=True)
class _Rejections:
    began: float = float("-inf")
    recorded: int = 0
    left_out: int = 0


def _check_typed(answer: _SignedAnswer, request: ApprovalRequest, approver: Approver) -> None:
    """Raise `_Rejected` unless the typed text is the expected one or its sanitized form, and nothing else is typed."""
    if (typed := typed_in(request)) is not None:
        raise _Rejected(422, f"The approver types the {typed.name} on the page.", approver, request)
    if not is_typed(request.expected, answer.typed):
        raise _Rejected(422, "The typed text does not match exactly.", approver, request)


def routes(answers: WebhookAnswers) -> list[Route]:
    """Return the route, for an application with other routes."""

    async def answer(request: Request) -> JSONResponse:
        body = await _body(request)
        if body is None:
            response = answers.too_large()
        else:
            signatures = request.headers.getlist(payloads.SIGNATURE)
            signature = signatures[0] if len(signatures) == 1 else None
            response = await answers(request.path_params["grant"], signature, body)
        return JSONResponse(response.body, response.status, _HEADERS)

    return [Route(payloads.path("{grant}"), answer, methods=["POST"])]


async def _body(request: Request) -> bytes | None:
    """Read the body. Return None if it is too large, too slow or incomplete."""
    body = bytearray()
    with anyio.move_on_after(_PATIENCE):
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > LONGEST_BODY:
                    return None
        except ClientDisconnect:
            return None
        return bytes(body)
    return None
