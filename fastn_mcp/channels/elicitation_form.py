"""The client's elicitation form, in both protocol versions."""

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
    """The way to this client's person, if it has declared one."""
    capabilities = ctx.session.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    # A bare `elicitation: {}` means forms; one that names only `url` does not.
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return None
    if ctx.protocol_version >= MODERN:
        return RoundTrip(params)
    return ElicitationForm(ctx) if ctx.session.can_send_request else None


class ElicitationForm:
    """Up to 2025-11-25: a request from the server to the client, in the middle of the call."""

    name = "client_form"
    trusts_fast_answers = False
    submitted = None

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    async def ask(self, question: ApprovalForm) -> Answer:
        with anyio.move_on_after(question.lifetime):
            given = await self._ctx.session.elicit_form(question.text, _schema(question), self._ctx.request_id)
            return Submitted(given.action, given.content).answer(question)
        return NoAnswer("the form stayed open too long")


class RoundTrip:
    """From 2026-07-28: the call ends with the question, and comes again with the answer."""

    name = "client_form"
    trusts_fast_answers = False

    def __init__(self, params: CallToolRequestParams) -> None:
        self._state = params.request_state
        self._responses = params.input_responses or {}

    @property
    def submitted(self) -> tuple[str, Submitted] | None:
        given = self._responses.get(_KEY)
        if self._state is None or not isinstance(given, ElicitResult):
            return None
        return self._state, Submitted(given.action, given.content)

    async def ask(self, question: ApprovalForm) -> PendingForm:
        return PendingForm(question)


def round_trip(question: ApprovalForm) -> InputRequiredResult:
    """The answer to a call about which a person is asked. The SDK seals the state; the ledger makes it single use."""
    form = ElicitRequestFormParams(message=question.text, requested_schema=_schema(question))
    return InputRequiredResult(input_requests={_KEY: ElicitRequest(params=form)}, request_state=question.grant)


def _schema(question: ApprovalForm) -> dict[str, Any]:
    # No field for a note: some clients do not submit a form that has an empty one, and others drop it.
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
