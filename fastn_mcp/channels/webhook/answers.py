"""Answers to webhook requests: `POST /approvals/{grant}`, verification, decisions and the record of rejected ones.

Whoever is not known by their signature learns nothing: not which approvers there are, not which questions.
"""

import logging
import re
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import anyio
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fastn_mcp.channels.webhook import payloads
from fastn_mcp.channels.webhook.approvers import Approver, Approvers, ApproverSecret
from fastn_mcp.channels.webhook.payloads import SIGNATURE, digest
from fastn_mcp.errors import FastnError
from fastn_mcp.guard.approval import quorum
from fastn_mcp.guard.audit.log import AuditEvent, AuditFile, LogEntry, decided
from fastn_mcp.guard.ledger.ledger import ApprovalRequest, Ledger, LedgerLost, RequestState, Vote, account_name
from fastn_mcp.redaction import sanitize
from fastn_mcp.runtime import System

log = logging.getLogger(__name__)

MOST = 20
"""Entries of one kind in a span."""

SPAN = 3600.0
"""Seconds."""


@dataclass(slots=True)
class _Kind:
    began: float = float("-inf")
    recorded: int = 0
    left_out: int = 0


class Refusals:
    """Those of strangers and those of approvers are counted apart: no stranger can hide what an approver's key did."""

    def __init__(self, audit: AuditFile, system: System) -> None:
        self._audit = audit
        self._system = system
        self._kinds = {True: _Kind(), False: _Kind()}

    def record(self, entry: LogEntry) -> None:
        """Record it, or count it. What cannot be written is logged: the answer decides nothing in any case."""
        kind = self._kinds[entry.approver is not None]
        now = self._system.monotonic()
        if now - kind.began >= SPAN:
            kind.began, kind.recorded = now, 0
        if kind.recorded >= MOST:
            kind.left_out += 1
            return
        kind.recorded += 1
        if kind.left_out:
            entry = replace(entry, message=f"{entry.message} Before it {kind.left_out} more were not recorded.")
            kind.left_out = 0
        try:
            self._audit.record(entry)
        except FastnError:
            log.exception("an answer that decides nothing could not be audited")


LONGEST_BODY = 16_384
"""Bytes of an answer."""

_SLACK = 60.0
"""Seconds that a nonce is kept beyond its need, for clocks that differ between replicas."""

_STRANGER = "This is not an approver's answer. Nothing was decided."


def path(grant: str) -> str:
    """Where the answer about a grant goes, on this server."""
    return f"/approvals/{grant}"


class _SignedAnswer(BaseModel):
    """What an approver sends. `timestamp` is in Unix seconds; `question` names the lines that they were shown."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    grant: Annotated[str, Field(max_length=200)]
    decision: Literal["approve", "decline"]
    approver: Annotated[str, Field(max_length=64)]
    timestamp: int
    nonce: Annotated[str, Field(pattern=re.compile(r"^[A-Za-z0-9_.~+/=-]{16,128}\Z"))]
    typed: Annotated[str | None, Field(max_length=1000)] = None
    note: Annotated[str | None, Field(max_length=500)] = None
    question: Annotated[str | None, Field(max_length=64)] = None


@dataclass(frozen=True, slots=True)
class AnswerResponse:
    """What is answered to an answer."""

    status: int
    body: dict[str, JsonValue]


class _Nothing(Exception):
    """The answer decides nothing. An approver is told why; `approver` and `grant` are those that are known for sure."""

    def __init__(
        self, status: int, why: str, approver: Approver | None = None, grant: ApprovalRequest | None = None
    ) -> None:
        super().__init__(why)
        self.status = status
        self.why = why
        self.approver = approver
        self.grant = grant


class WebhookAnswers:
    """Decides about calls on one account."""

    def __init__(self, approvers: Approvers, account: str, ledger: Ledger, audit: AuditFile, system: System) -> None:
        self._approvers = approvers
        self._account = account
        self._ledger = ledger
        self._audit = audit
        self._system = system
        self._refusals = Refusals(audit, system)
        self._nobody = ApproverSecret(system.token())

    async def __call__(self, grant: str, signature: str | None, body: bytes) -> AnswerResponse:
        """What became of an answer that was sent to the path of `grant`."""
        try:
            return await self._decided(grant, signature, body)
        except _Nothing as nothing:
            self._refuse(nothing)
            return AnswerResponse(nothing.status, {"decided": False, "message": nothing.why})
        except LedgerLost as lost:
            return AnswerResponse(
                503, {"message": f"{lost.what} It may have counted: send it again, with another nonce."}
            )

    def too_large(self) -> AnswerResponse:
        """What becomes of an answer that was not read to its end."""
        self._refuse(_Nothing(413, "It is too large."))
        return AnswerResponse(413, {"decided": False, "message": _STRANGER})

    async def _decided(self, id_: str, signature: str | None, body: bytes) -> AnswerResponse:
        answer, approver = self._told(id_, signature, body)
        now = self._system.now().timestamp()
        if abs(now - answer.timestamp) > payloads.WINDOW:
            raise _Nothing(401, "It was signed too long ago, or by a clock that runs ahead.", approver)
        keep = answer.timestamp + payloads.WINDOW + _SLACK
        if not await self._ledger.use_nonce(f"{approver.name} {answer.nonce}", keep, now):
            raise _Nothing(409, "This nonce was used before: each answer needs a new one.", approver)
        grant = await self._asked(answer, id_, approver, now)
        if answer.decision == "approve":
            _complete(answer, grant, approver)
        return await self._voted(answer, grant, approver, now)

    def _told(self, id_: str, signature: str | None, body: bytes) -> tuple[_SignedAnswer, Approver]:
        """The answer, and who surely signed it. Until then nothing that it says is believed."""
        try:
            answer = _SignedAnswer.model_validate_json(body)
        except ValidationError:
            raise _Nothing(400, _STRANGER) from None
        approver = self._approvers.get(answer.approver)
        text = payloads.answer(path(id_), answer.timestamp, answer.nonce, body)
        # Somebody's who is not there as well, so that the time it takes says less about who is.
        signed = (approver.credential if approver else self._nobody).signed(text, payloads.given(signature))
        if approver is None or not signed:
            raise _Nothing(401, _STRANGER)
        return answer, approver

    async def _asked(self, answer: _SignedAnswer, id_: str, approver: Approver, now: float) -> ApprovalRequest:
        """The open question that this approver may answer."""
        if answer.grant != id_:
            raise _Nothing(400, "It names a different request than the address it was sent to.", approver)
        grant = await self._ledger.find(id_)
        if grant is None or not grant.out_of_band or grant.account != self._account:
            raise _Nothing(404, "There is no such approval request.", approver)
        if grant.state is not RequestState.OPEN:
            raise _Nothing(409, f"It is already decided or void: {grant.state.value}.", approver, grant)
        if grant.expires <= now:
            raise _Nothing(410, "This request has expired; the agent can ask again.", approver, grant)
        if not approver.may_answer(grant):
            why = f"{approver.name} may not decide about it: it is their own call, or its effect is not among theirs."
            raise _Nothing(403, why, approver, grant)
        if answer.question is not None and answer.question != digest(grant.text):
            raise _Nothing(409, "What you were shown does not match the request.", approver, grant)
        return grant

    async def _voted(
        self, answer: _SignedAnswer, grant: ApprovalRequest, approver: Approver, now: float
    ) -> AnswerResponse:
        note = (answer.note or "").strip() or None
        vote = Vote(grant.id, approver.name, answer.decision == "approve", now)

        def record(event: AuditEvent, said: str | None) -> None:
            self._record(replace(decided(event, grant, quorum.VERIFIED, said), approver=approver.name))

        counted = await quorum.count(vote, grant, self._ledger, quorum.VERIFIED, note, record)
        if counted is None:
            raise _Nothing(409, "You have already approved it, or it was decided meanwhile.", approver, grant)
        over, needed = counted.state is not RequestState.OPEN, quorum.needed(grant)
        state = counted.state.value if over else "waiting"
        return AnswerResponse(200, {"decided": over, "state": state, "approvals": counted.approving, "needed": needed})

    def _record(self, entry: LogEntry) -> None:
        """It holds already: what cannot be written is logged, and sending records again or refuses."""
        try:
            self._audit.record(entry)
        except FastnError:
            log.exception("the decision %s on %s could not be audited", entry.event.value, entry.tool)

    def _refuse(self, nothing: _Nothing) -> None:
        known: dict[str, Any] = {"message": nothing.why, "approver": nothing.approver and nothing.approver.name}
        grant = nothing.grant
        if grant is None:
            entry = LogEntry(AuditEvent.ANSWER_REFUSED, "unknown", account_name(self._account), "unknown")
        else:
            entry = LogEntry(
                AuditEvent.ANSWER_REFUSED, grant.principal, account_name(grant.account), grant.tool, grant.target
            )
            known["grant"] = grant.id
        self._refusals.record(replace(entry, **known))


def _complete(answer: _SignedAnswer, grant: ApprovalRequest, approver: Approver) -> None:
    """As it is, or as it is shown where it holds what no keyboard has."""
    if grant.expected is not None and answer.typed not in (grant.expected, sanitize(grant.expected)):
        raise _Nothing(422, "The typed text does not match exactly.", approver, grant)


_PATIENCE = 10.0
"""Seconds for a body to arrive."""

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def routes(deciding: WebhookAnswers) -> list[Route]:
    """The one route, for an application that serves more."""

    async def answer(request: Request) -> JSONResponse:
        body = await _body(request)
        if body is None:
            reply = deciding.too_large()
        else:
            signatures = request.headers.getlist(SIGNATURE)
            signature = signatures[0] if len(signatures) == 1 else None
            reply = await deciding(request.path_params["grant"], signature, body)
        return _json(reply)

    return [Route(path("{grant}"), answer, methods=["POST"])]


def application(deciding: WebhookAnswers) -> Starlette:
    """The route and nothing else."""
    return Starlette(routes=routes(deciding))


async def _body(request: Request) -> bytes | None:
    """The body; None where it is too large, too slow, or broke off."""
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


def _json(reply: AnswerResponse) -> JSONResponse:
    return JSONResponse(reply.body, reply.status, _HEADERS)
