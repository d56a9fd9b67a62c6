"""Text and form of an approval request, and the answers that it accepts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from fastn_mcp.errors import Refused
from fastn_mcp.guard.sentences.facts import series
from fastn_mcp.ledger.approval_request import TEMPORARY_MINUTES, ApprovalRequest
from fastn_mcp.ledger.identity import who, without_issuers
from fastn_mcp.ledger.question import Question
from fastn_mcp.redaction import quote, sanitize
from fastn_mcp.tools.operation import Operation

FREE = frozenset({"input", "idempotency_key", "code", "description"})
"""Arguments whose values may differ under a temporary approval. All other values are bound by it."""

DECLINE = "decline"
APPROVE = "approve"
APPROVE_TEMPORARILY = f"approve for {TEMPORARY_MINUTES} minutes"
"""The choices of a form that asks for a decision."""

MAX_NOTE = 500
"""Characters of a note to the agent."""

_PLAIN_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,59}")

BY_SEVERAL = "four_eyes"
"""Value of `by` for an approval given by several people."""

VERIFIED = "verified"
"""Value of `by` for the approval of one person, identified by a credential of their own."""


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
class PendingApproval:
    """A call that waits for the answer to its approval request. The same call, made again, gets the answer.

    If the request is not `out_of_band`, the client shows its form, and the answer comes with the repeated call.
    """

    request: ApprovalRequest
    question: Question
    """What the agent may read of it."""
    where: str = ""
    """Where people decide it out of band: a sentence for the agent, without secrets."""
    page: str | None = None
    """URL of the page where it is decided, without a key; None if it is not decided on a page."""
    needs_link: bool = False
    """Whether the person is led to the page by the client, if it can: no browser shows it, and no form was left."""
    tells_first: bool = False
    """Whether the agent hears of it before the call waits: a person types something, where none looks yet."""


Answer = Approve | Decline | NoAnswer


@dataclass(frozen=True, slots=True)
class SubmittedForm:
    """A client's response to the form of an earlier call, as MCP has it: unchecked."""

    approval_id: str
    """Id of the request that it answers."""
    action: str
    content: Mapping[str, object] | None = field(default=None, repr=False)


def form_field(request: ApprovalRequest) -> str:
    """Return the name of the only field of the form."""
    return "decision" if request.expected is None else "name"


def form_choices(request: ApprovalRequest) -> tuple[str, ...]:
    """Return the values of that field if nothing has to be typed; the first is the default."""
    return (DECLINE, APPROVE, APPROVE_TEMPORARILY) if request.can_be_temporary else (DECLINE, APPROVE)


def read_answer(request: ApprovalRequest, action: str, content: Mapping[str, object] | None) -> Answer:
    """Return the answer in a client's response to the form: MCP's `action` and `content`.

    Only the form's one field, alone and with a valid value, approves.
    """
    content = content or {}
    note = content.get("note")
    if action == "cancel":
        return NoAnswer("the form was closed without a choice")
    if action != "accept" or content.get("decision") == DECLINE:
        return Decline(note[:MAX_NOTE] if isinstance(note, str) else "")
    if not content:
        return NoAnswer("the form came back without a choice")
    field_name = form_field(request)
    value = content.get(field_name)
    if content.keys() != {field_name} or not isinstance(value, str):
        why = f"The form did not come back with exactly one text field, {field_name!r}."
        return Decline(why=why)
    if request.expected is not None:
        return Approve(value)
    if value not in form_choices(request):
        return Decline(why=f"The form came back with a decision that was not offered: {quote(value, 60)}.")
    return Approve(is_temporary=value == APPROVE_TEMPORARILY)


def accepted_texts(expected: str) -> tuple[str, ...]:
    """Return what a person may type where a text is expected: with or without the quotes in which it was shown.

    Its sanitized form counts too: no keyboard has every character.
    """
    return expected, sanitize(expected), f'"{expected}"'


def is_typed(expected: str | None, typed: str | None) -> bool:
    """Whether a person typed the expected text, if one is expected."""
    return expected is None or typed in accepted_texts(expected)


def asker(request: ApprovalRequest) -> str:
    """Return who asks: a person by name and subject, a client by its name, or else the principal.

    A client chooses its name, so a name that is not a plain word is quoted.
    """
    if request.person is not None or not request.asked_by:
        return sanitize(without_issuers(who(request.principal, request.person)))
    return request.asked_by if _PLAIN_WORD.fullmatch(request.asked_by) else quote(request.asked_by)


def form_text(request: ApprovalRequest, *further: str) -> str:
    """Return the text of the form for an approval request, with `further` lines before the instruction.

    The instruction comes last, so that no name in the lines can pose as it.
    """
    return "\n".join([*form_lines(request, f"'{APPROVE_TEMPORARILY}'", *further), instruction(request)])


def form_lines(request: ApprovalRequest, temporarily: str, *further: str) -> list[str]:
    """Return the lines of a form without its instruction. `temporarily` is its choice for similar calls too."""
    offer = [temporary(request, temporarily)] if request.can_be_temporary else []
    return [*request.question.lines(), *further, *offer]


def typed_noun(request: ApprovalRequest) -> str:
    """Return the noun for the text that is typed to approve: the target's name, or the words for a list."""
    return "name" if len(request.calls) == 1 else "words"


def instruction(request: ApprovalRequest) -> str:
    """Return the last line of a form: what to do to approve."""
    count = len(request.calls)
    what = "this one call" if count == 1 else f"these {count} calls"
    if request.expected is None:
        return f"Approve {what}?"
    return f"{what_to_type(request)}."


def what_to_type(request: ApprovalRequest) -> str:
    """Say what to type to approve, without a full stop."""
    count = len(request.calls)
    what = "this one call" if count == 1 else f"these {count} calls"
    return f"Type {quote(request.expected)} to approve {what}"


def temporary(request: ApprovalRequest, choice: str) -> str:
    """Describe what the `choice` of a temporary approval of `request` covers besides this call."""
    extent = request.permit.extent if request.permit else "calls"
    return f"With {choice}, further {extent} need no approval for {TEMPORARY_MINUTES} minutes."


def extent(call: Operation[Any]) -> str:
    """Describe the calls that a temporary approval of `call` covers: what is fixed and what may differ."""
    names = call.arguments().keys() - set(type(call).route.parameters)
    fixed = sorted(map(_in_words, names - FREE))
    free = sorted(map(_in_words, names & FREE))
    verb, _, kind = call.tool_name().partition("_")
    kind = kind.replace("_", " ").replace("api", "API")
    if verb == "update":
        return _changes_extent(kind, fixed, free)
    same = f"the same {series(fixed)}" if fixed else ""
    any_ = f"any {series(free)}{'' if fixed else ' and nothing else'}" if free else ""
    arguments = f"with {' and '.join(filter(None, (same, any_)))}" if names else "without arguments"
    return f"{_PLURALS.get(verb, f'calls of {call.tool_name()} on')} this {kind} {arguments}"


def _changes_extent(kind: str, fixed: Sequence[str], free: Sequence[str]) -> str:
    """Describe the changes that a temporary approval covers, by the names of their fixed and free arguments."""
    if not fixed:
        return f"changes to only this {kind}'s {series(free)}" if free else f"changes to this {kind} without arguments"
    values = "the same value" if len(fixed) == 1 else "the same values"
    freely = f", with any {series(free)}" if free else ""
    return f"changes that set this {kind}'s {series(fixed)} to {values}{freely}"


_PLURALS = {"run": "runs of", "delete": "deletions of"}
"""What a temporary approval covers, by the verb of the tool."""


def _in_words(argument: str) -> str:
    return "other fields" if argument == "extra" else argument.removesuffix("_id").replace("_", " ")


def sent_words(request: ApprovalRequest) -> str:
    """Say how many calls were sent before an approval was withdrawn."""
    if not request.used:
        return "Nothing was sent."
    return f"{len(request.used)} of {len(request.calls)} calls were already sent; the others will not be sent."


def used_up() -> Refused:
    """Return the refusal for an approval request that was used or has expired."""
    return Refused("This approval was already used, or has expired.", "Call again for a new approval request.")
