"""Elicitation: the client asks its person by a form, or leads them to the approval page; in each protocol version.

A form's answer decides. The answer to a link says whether the person went to the page, and never decides anything.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import anyio
from mcp import MCPError, types
from mcp.server import ServerRequestContext
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from fastn_mcp.guard.approval_form import (
    Answer,
    NoAnswer,
    PendingApproval,
    SubmittedForm,
    form_choices,
    form_field,
    form_text,
    instruction,
    read_answer,
    typed_noun,
)
from fastn_mcp.guard.caller import PageLink
from fastn_mcp.guard.channel import Channel, ChannelCapabilities
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.runtime import System, with_background

Context = ServerRequestContext[Any]

_CLIENT_FORM = "client_form"
"""Name of the form in the audit log."""

# Names of the requests in a result that asks.
_FORM = "approval"
_LINK = "page"


def client_form(ctx: Context) -> "ElicitationForm | FormInResult | None":
    """Return the form channel of this client, or None if it has not declared form elicitation."""
    capabilities = ctx.session.client_capabilities
    elicitation = capabilities.elicitation if capabilities else None
    # An empty `elicitation: {}` means forms. One with only `url` does not.
    if elicitation is None or (elicitation.form is None and elicitation.url is not None):
        return None
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return FormInResult()
    return ElicitationForm(ctx) if ctx.session.can_send_request else None


def submitted_form(params: types.CallToolRequestParams) -> SubmittedForm | None:
    """Return the answer to a form that comes with this call (from 2026-07-28), or None."""
    response = (params.input_responses or {}).get(_FORM)
    if params.request_state is None or not isinstance(response, types.ElicitResult):
        return None
    return SubmittedForm(params.request_state, response.action, response.content)


class ElicitationForm(Channel):
    """Up to 2025-11-25: the server sends an elicitation request during the call."""

    name = _CLIENT_FORM

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx

    @property
    def capabilities(self) -> ChannelCapabilities:
        return ChannelCapabilities(notifies=True)

    async def ask(self, request: ApprovalRequest) -> Answer:
        try:
            with anyio.move_on_after(request.expires - request.created):
                text = form_text(request)
                schema = _schema(request)
                result = await self._ctx.session.elicit_form(text, schema, self._ctx.request_id)
                return read_answer(request, result.action, result.content)
        except (MCPError, ValidationError):
            return NoAnswer("the client did not show the form, or answered with an error")
        return NoAnswer("the form stayed open too long")


class FormInResult(Channel):
    """From 2026-07-28: the call returns the form, and the client repeats the call with the answer."""

    name = _CLIENT_FORM

    @property
    def capabilities(self) -> ChannelCapabilities:
        return ChannelCapabilities(notifies=True)

    async def ask(self, request: ApprovalRequest) -> None:
        """Do nothing: `form_request` makes the form of the call's result."""


def form_request(request: ApprovalRequest) -> types.InputRequiredResult:
    """Return the result that requests the form. The SDK seals the state; the ledger makes it single-use."""
    params = types.ElicitRequestFormParams(message=form_text(request), requested_schema=_schema(request))
    elicitation = types.ElicitRequest(params=params)
    return types.InputRequiredResult(input_requests={_FORM: elicitation}, request_state=request.id)


def _schema(request: ApprovalRequest) -> dict[str, Any]:
    # No field for a note: some clients do not submit a form with an empty one, and others drop it.
    if request.expected is not None:
        noun = typed_noun(request)
        field: dict[str, Any] = {
            "type": "string",
            "title": noun.capitalize(),
            "description": instruction(request),
        }
    else:
        choices = form_choices(request)
        field = {
            "type": "string",
            "title": "Decision",
            "description": "The call is sent only if you approve.",
            "enum": list(choices),
            "default": choices[0],
        }
    name = form_field(request)
    return {"type": "object", "properties": {name: field}, "required": [name]}


def client_link(ctx: Context, params: types.CallToolRequestParams, system: System) -> PageLink | None:
    """Return the link of this client; None if it opens no URLs, or repeats a call that returned the link."""
    capabilities = ctx.session.client_capabilities
    if capabilities is None or capabilities.elicitation is None or capabilities.elicitation.url is None:
        return None
    if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return None if _LINK in (params.input_responses or {}) else link_in_result
    return partial(_elicit_link, ctx, system.token()) if ctx.session.can_send_request else None


async def _elicit_link(ctx: Context, id_: str, waiting: PendingApproval, wait: Callable[[], Awaitable[bool]]) -> bool:
    """Up to 2025-11-25: the client offers the page while the call waits, and is told once it was decided."""

    async def offer() -> None:
        link = _link(waiting)
        with suppress(Exception):  # whatever the client answers decides nothing, an error included
            await ctx.session.elicit_url(link.message, link.url, id_, ctx.request_id)

    async def decided() -> bool:
        is_decided = await wait()
        if is_decided:
            await ctx.session.send_elicit_complete(id_, ctx.request_id)
        return is_decided

    return await with_background(offer, decided)


async def link_in_result(waiting: PendingApproval, wait: Callable[[], Awaitable[bool]]) -> bool:  # noqa: ARG001
    """From 2026-07-28: the call returns the link at once. The client repeats it when the person was there."""
    return False


def link_request(waiting: PendingApproval) -> types.InputRequiredResult:
    """Return the result that offers the page. It needs no state: the repeated call finds its open request."""
    return types.InputRequiredResult(input_requests={_LINK: types.ElicitRequest(params=_link(waiting))})


def _link(waiting: PendingApproval) -> types.ElicitRequestURLParams:
    what = waiting.request.question.lines()[0]
    message = f"{what}\nDecide on the approval page, then come back here. Opening it approves nothing."
    return types.ElicitRequestURLParams(message=message, url=waiting.page or "")
