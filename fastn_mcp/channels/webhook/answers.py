"""Answers to webhook requests: `POST /approvals/{request}`, and their verification.

A signature covers a timestamp, a nonce and the whole body, which prevents edits, replays and late use. A sender without
a valid signature learns nothing, neither which approvers nor which requests exist.
"""

import hashlib
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from fastn_mcp.channels.approvers import (
    OTHER_LINES,
    AnswerRejected,
    Approver,
    ApproverAnswers,
    ApproverSecret,
    Choice,
    digest,
)
from fastn_mcp.channels.http_server import read_body
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.ledger.store import LedgerLost

MAX_BODY = 16_384
"""Bytes of an answer."""

SIGNATURE = "x-fastn-mcp-signature"
"""Header of an answer's signature: `v1=` and the signature in hexadecimal digits."""

WINDOW = 300
"""Accepted difference in seconds between the signed timestamp and our clock, either way."""

_SLACK = 60.0
"""Extra seconds for which a nonce is stored, to allow for clock differences between replicas."""

_NOT_AN_APPROVER = "This is not an approver's answer. Nothing was decided."
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}


def path_of(request: str) -> str:
    """Return the path on this server for the answer about the request with this id."""
    return f"/approvals/{request}"


def signed_text(path: str, timestamp: int, nonce: str, body: bytes) -> bytes:
    """Return the text that an approver signs. `path` excludes any prefix that a proxy adds."""
    return f"v1:POST:{path}:{timestamp}:{nonce}:{hashlib.sha256(body).hexdigest()}".encode()


class _SignedAnswer(BaseModel):
    """Body of an answer. `timestamp` is in Unix seconds; `question` is the digest of the lines shown."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    grant: Annotated[str, Field(max_length=200)]
    decision: Choice
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


class WebhookAnswers:
    """Verifies and counts answers about calls on one account."""

    def __init__(self, approvers: Mapping[str, Approver], answers: ApproverAnswers) -> None:
        self._approvers = approvers
        self._answers = answers
        self._decoy = ApproverSecret(answers.system.token())

    async def __call__(self, id_: str, signature: str | None, body: bytes) -> AnswerResponse:
        """Process an answer sent to the path of a request."""
        try:
            with self._answers.recorded():
                return await self._decide(id_, signature, body)
        except AnswerRejected as rejected:
            return AnswerResponse(rejected.status, {"decided": False, "message": rejected.why})
        except LedgerLost as lost:
            return AnswerResponse(
                503, {"message": f"{lost.what} Your answer may have counted: send it again, with another nonce."}
            )

    def routes(self) -> list[Route]:
        """Return the route, for an application with other routes."""
        return [Route(path_of("{grant}"), self._receive, methods=["POST"])]

    async def _receive(self, request: Request) -> JSONResponse:
        signatures = request.headers.getlist(SIGNATURE)
        body = await read_body(request, MAX_BODY)
        if body is None:
            response = AnswerResponse(413, {"decided": False, "message": _NOT_AN_APPROVER})
            with suppress(AnswerRejected), self._answers.recorded():
                raise AnswerRejected(413, "It is too large, or its connection was lost.")
        else:
            response = await self(request.path_params["grant"], signatures[0] if len(signatures) == 1 else None, body)
        return JSONResponse(response.body, response.status, _HEADERS)

    async def _decide(self, id_: str, signature: str | None, body: bytes) -> AnswerResponse:
        answer, approver = self._verify(id_, signature, body)
        now = self._answers.system.timestamp()
        if abs(now - answer.timestamp) > WINDOW:
            raise AnswerRejected(401, "It was signed too long ago, or by a clock that runs ahead.", approver)
        keep = answer.timestamp + WINDOW + _SLACK
        if not await self._answers.ledger.use_nonce(f"{approver.name} {answer.nonce}", keep, now):
            raise AnswerRejected(409, "This nonce was used before: each answer needs a new one.", approver)
        if answer.grant != id_:
            raise AnswerRejected(400, "It names a different request than the address it was sent to.", approver)
        request = await self._answers.find(id_, answer.decision, approver)
        if answer.question is not None and answer.question != digest(request.question.lines()):
            raise AnswerRejected(409, OTHER_LINES, approver, request)
        if answer.decision == "approve":
            self._answers.check_typed(request, approver, answer.typed)
        counted = await self._answers.count(answer.decision, request, approver, answer.note)
        over = counted.state is not RequestState.OPEN
        needed = request.needed
        state = counted.state.value if over else "waiting"
        return AnswerResponse(
            200, {"decided": over, "state": state, "approvals": len(counted.approvers), "needed": needed}
        )

    def _verify(self, id_: str, signature: str | None, body: bytes) -> tuple[_SignedAnswer, Approver]:
        """Return the answer and the approver who signed it. Raises `AnswerRejected` if it is invalid."""
        try:
            answer = _SignedAnswer.model_validate_json(body)
        except ValidationError:
            raise AnswerRejected(400, _NOT_AN_APPROVER) from None
        approver = self._approvers.get(answer.approver)
        text = signed_text(path_of(id_), answer.timestamp, answer.nonce, body)
        # Check a signature for unknown approvers too, so that timing reveals less about who exists.
        credential = (approver and approver.credential) or self._decoy
        version, _, signed = (signature or "").partition("=")
        is_signed = credential.signed(text, signed if version == "v1" else "")
        if approver is None or credential is self._decoy or not is_signed:
            raise AnswerRejected(401, _NOT_AN_APPROVER)
        return answer, approver
