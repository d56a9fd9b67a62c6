"""Approval by the client's elicitation form, in legacy and current protocol versions."""

from typing import Any

import anyio
from mcp.server import ServerRequestContext
from mcp.types import CallToolRequestParams, ElicitRequest, ElicitRequestFormParams, ElicitResult, InputRequiredResult

from fastn_mcp.guard.approval.request import Answer, ApprovalForm, NoAnswer, PendingForm, Submitted
from fastn_mcp.redaction import quote

Context = ServerRequestContext[Any]

MODERN = "2026-07-28"
_KEY = "approval"


def channel(ctx: Context, params: CallToolRequestParams) -> "ElicitationForm | RoundTrip | None":
    """Return the form channel of this client, or None if it has not declared form elicitation."""
    capabilities = ctx.session.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    # An empty `elicitation: {}` means forms. One with only `url` does not.
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return None
    if ctx.protocol_version >= MODERN:
        return RoundTrip(params)
    return ElicitationForm(ctx) if ctx.session.can_send_request else None


class ElicitationForm:
    """Up to 2025-11-25: the server sends an elicitation request during the call."""

    name = "client_form"
    is_terminal = False
    submitted = None

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def ask(self, question: ApprovalForm) -> Answer:
        with anyio.move_on_after(question.lifetime):
            result = await self._ctx.session.elicit_form(question.text, _schema(question), self._ctx.request_id)
            return Submitted(result.action, result.content).answer(question)
        return NoAnswer("the form stayed open too long")


class RoundTrip:
    """From 2026-07-28: the call returns the form, and the client repeats the call with the answer."""

    name = "client_form"
    is_terminal = False

    def __init__(self, params: CallToolRequestParams) -> None:
        self._state = params.request_state
        self._responses = params.input_responses or {}

    @property
    def submitted(self) -> tuple[str, Submitted] | None:
        result = self._responses.get(_KEY)
        if self._state is None or not isinstance(result, ElicitResult):
            return None
        return self._state, Submitted(result.action, result.content)

    async def ask(self, question: ApprovalForm) -> PendingForm:
        return PendingForm(question)


def round_trip(question: ApprovalForm) -> InputRequiredResult:
    """Return the result that requests the form. The SDK seals the state; the ledger makes it single-use."""
    form = ElicitRequestFormParams(message=question.text, requested_schema=_schema(question))
    return InputRequiredResult(input_requests={_KEY: ElicitRequest(params=form)}, request_state=question.grant)


def _schema(question: ApprovalForm) -> dict[str, Any]:
    # No field for a note: some clients do not submit a form with an empty one, and others drop it.
    if question.expected is not None:
        field: dict[str, Any] = {
            "type": "string",
            "title": question.typing.capitalize(),
            "description": f"To approve, type the {question.typing} between the quotes: {quote(question.expected)}",
        }
    else:
        field = {
            "type": "string",
            "title": "Decision",
            "description": "Only approve sends the call.",
            "enum": list(question.choices),
            "default": question.choices[0],
        }
    return {"type": "object", "properties": {question.field: field}, "required": [question.field]}
