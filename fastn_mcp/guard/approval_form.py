"""Text and form of an approval request, and the answers that it accepts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from fastn_mcp.account.typed_argument import TypedArgument
from fastn_mcp.errors import Refused
from fastn_mcp.guard.preview import Shown
from fastn_mcp.guard.sentences.facts import series
from fastn_mcp.ledger.approval_request import TEMPORARY_MINUTES, ApprovalRequest
from fastn_mcp.ledger.identity import who, without_issuers
from fastn_mcp.redaction import quote, sanitize
from fastn_mcp.tools.operation import Operation

FREE = frozenset({"input", "idempotency_key", "code", "description"})
"""Arguments whose values may differ under a temporary approval. All other values are bound by it."""

DECLINE, APPROVE, APPROVE_TEMPORARILY = "decline", "approve", f"approve for {TEMPORARY_MINUTES} minutes"
"""The choices of a form that asks for a decision."""

MAX_NOTE = 500
"""Characters of a note to the agent."""

_PLAIN_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")

BY_SEVERAL = "four_eyes"
"""Value of `by` for an approval given by several people."""

VERIFIED = "verified"
"""Value of `by` for the approval of one person, identified by a credential of their own."""


@dataclass(frozen=True, slots=True)
class ApprovalForm:
    """Elicitation form for one call or one batch."""

    request: str
    """Id of the approval request."""
    text: str
    expected: str | None
    """Text that has to be typed to approve; None if a choice is enough."""
    allows_temporary: bool = False
    """Whether a temporary approval may be given."""
    typing: str = "name"
    """Noun for the text to type: the target's name, or the words for a list."""
    lifetime: float = 0.0
    """Seconds until it expires."""
    secret: TypedArgument | None = None
    """What the person also types, at a terminal only: an elicitation form never asks for a secret."""

    @property
    def field(self) -> str:
        """Name of the form's only field."""
        return "decision" if self.expected is None else "name"

    @property
    def choices(self) -> tuple[str, ...]:
        """Values of that field if nothing has to be typed; the first is the default."""
        return (DECLINE, APPROVE, *((APPROVE_TEMPORARILY,) if self.allows_temporary else ()))


def approved_elsewhere(request: ApprovalRequest) -> str | None:
    """Return a sentence if a request can be approved on the page only: it needs a secret, or a fresh sign-in."""
    if request.step_up is not None:
        return request.step_up.elsewhere
    return None if request.typed is None else f"The approver types the {request.typed.name} on the page."


@dataclass(frozen=True, slots=True)
class Approve:
    """Approved. `typed` is the text they typed."""

    typed: str | None = None
    is_temporary: bool = False
    """Whether they also approve similar calls for `TEMPORARY_MINUTES`."""
    secret: JsonValue = field(default=None, repr=False)
    """The argument that they typed, if the request asks for one."""


@dataclass(frozen=True, slots=True)
class Decline:
    """Declined, with an optional note for the agent. `why` explains an answer that is not a valid approval."""

    note: str = ""
    why: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No person answered, for this reason."""

    reason: str


@dataclass(frozen=True, slots=True)
class PendingForm:
    """The client shows the form. Its answer comes when the client sends the call again."""

    form: ApprovalForm


@dataclass(frozen=True, slots=True)
class PendingApproval:
    """Waiting for an out-of-band approval. Repeat the call to get the answer; expires at `until` (Unix seconds)."""

    request: str
    """Id of the approval request."""
    preview: Shown
    where: str
    until: float
    page: str | None = None
    """URL of the page where it is decided, without a key; None if it is not decided on a page."""
    needs_link: bool = False
    """Whether the person is led to the page by the client, if it can: no browser shows it, and no form was left."""
    tells_first: bool = False
    """Whether the agent hears of it before the call waits: a person types something, where none looks yet."""


Answer = Approve | Decline | NoAnswer


@dataclass(frozen=True, slots=True)
class Submitted:
    """Unchecked response to an elicitation form: MCP's `action` and `content`."""

    action: str
    content: Mapping[str, object] | None

    def answer(self, form: ApprovalForm) -> Answer:
        """Return the checked answer. Only the form's one field, alone and with a valid value, approves."""
        content = self.content or {}
        note = content.get("note")
        if self.action == "cancel":
            return NoAnswer("the form was closed without a choice")
        if self.action != "accept" or content.get("decision") == DECLINE:
            return Decline(note[:MAX_NOTE] if isinstance(note, str) else "")
        if not content:
            return NoAnswer("the form came back without a choice")
        value = content.get(form.field)
        if content.keys() != {form.field} or not isinstance(value, str):
            why = f"The form has to come back with exactly one text field, {form.field!r}, and did not."
            return Decline(why=why)
        if form.expected is not None:
            return Approve(value)
        if value not in form.choices:
            return Decline(why=f"The form came back with a decision that was not offered: {quote(value, 60)}.")
        return Approve(is_temporary=value == APPROVE_TEMPORARILY)


def is_typed(expected: str | None, typed: str | None) -> bool:
    """Whether a person typed the expected text, or its sanitized form: no keyboard has every character."""
    return expected is None or typed in (expected, sanitize(expected))


def asker(request: ApprovalRequest) -> str:
    """Return who asks: a person by name and subject, a client by its name, or else the principal.

    A client chooses its name, so one that is not a plain word is quoted.
    """
    if request.person is not None or not request.asked_by:
        return sanitize(without_issuers(who(request.principal, request.person)))
    return request.asked_by if _PLAIN_WORD.fullmatch(request.asked_by) else quote(request.asked_by)


def form_of(request: ApprovalRequest, *further: str) -> ApprovalForm:
    """Return the form of an approval request, with `further` lines before the instruction.

    The instruction comes last, so that no name in the lines can pose as it.
    """
    is_temporary = request.can_be_temporary
    lines = [*request.text, *further, *([temporary(request)] if is_temporary else [])]
    lines.append(instruction(request))
    lifetime, typing = request.expires - request.created, "name" if len(request.calls) == 1 else "words"
    return ApprovalForm(request.id, "\n".join(lines), request.expected, is_temporary, typing, lifetime, request.typed)


def instruction(request: ApprovalRequest) -> str:
    """Return the last line of a form: what to do to approve."""
    what, typing = (
        ("this one call", "name") if len(request.calls) == 1 else (f"these {len(request.calls)} calls", "words")
    )
    if request.expected is None:
        return f"Approve {what}?"
    return f"To approve {what}, type the {typing} between the quotes: {quote(request.expected)}"


def temporary(request: ApprovalRequest) -> str:
    """Describe what a temporary approval of `request` would cover."""
    return f"For {TEMPORARY_MINUTES} minutes, {request.extent}"


def extent(call: Operation[Any]) -> str:
    """Describe the calls that a temporary approval of `call` covers: what is fixed and what may differ."""
    names = call.arguments().keys() - set(type(call).route.parameters)
    fixed, free = sorted(map(_in_words, names - FREE)), sorted(map(_in_words, names & FREE))
    same = f"the same {series(fixed)}" if fixed else ""
    any_ = f"any {series(free)}{'' if fixed else ' and nothing else'}" if free else ""
    arguments = f"with {' and '.join(filter(None, (same, any_)))}" if names else "without further arguments"
    verb, _, kind = call.tool_name().partition("_")
    kind = kind.replace("_", " ").replace("api", "API")
    return f"{_PLURALS.get(verb, f'calls of {call.tool_name()} on')} this {kind} {arguments} need no approval."


_PLURALS = {"run": "runs of", "update": "changes of", "delete": "deletions of"}
"""What a temporary approval covers, by the verb of the tool."""


def _in_words(argument: str) -> str:
    return "other fields" if argument == "extra" else argument.removesuffix("_id").replace("_", " ")


def effects_of(request: ApprovalRequest) -> frozenset[str]:
    """Return the effects of all calls of a request. No scope permits an unknown effect."""
    return effects_in(request.preview)


def effects_in(preview: Mapping[str, JsonValue]) -> frozenset[str]:
    """Return the effects of all calls of a stored preview."""
    effects = preview.get("effects")
    return frozenset(map(str, effects if isinstance(effects, list) else [preview.get("effect")]))


def sent_words(request: ApprovalRequest) -> str:
    """Say how many calls were sent before an approval was withdrawn."""
    if not request.used:
        return "Nothing was sent."
    return f"{len(request.used)} of {len(request.calls)} calls were already sent; the rest is not."


def used_up() -> Refused:
    """Return the refusal for an approval request that was used or has expired."""
    return Refused("This approval was already used, or has expired.", "Call again for a new approval request.")
