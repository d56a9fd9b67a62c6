"""Messages and dialogs of Slack (Block Kit). Slack interprets nothing in their texts. A request is never truncated."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue
from pydantic_core import from_json

from fastn_mcp.channels.approvers import Choice, digest
from fastn_mcp.channels.page.inbox import decided_by
from fastn_mcp.channels.page.view import hint, outcome
from fastn_mcp.guard.approval_form import MAX_NOTE, approved_elsewhere, asker, instruction
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.identity import without_issuers
from fastn_mcp.redaction import sanitize

_CHARACTERS = 550
"""Characters per block. Escaping can multiply them by five, within Slack's limit of 3,000."""

_MAX_LABEL = 75
"""Characters that Slack accepts on a button."""

_BLOCKS = 40
"""Text blocks per message. Slack accepts 50 blocks."""

WAITS = "A call waits for an approval."
DIALOG = "fastn_mcp_dialog"
BUTTON = "fastn_mcp_"
"""Prefix of the id of a button, to which its choice is added."""

Block = dict[str, JsonValue]


class SlackFailed(Exception):
    """What Slack refuses or does not answer, for this reason: a code of Slack's, or our words."""


class Reference(BaseModel):
    """What a button or a dialog refers to. `shown` is the digest of what people read there."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    request: str
    shown: str
    tenant: str = ""
    choice: Choice = "decline"
    """What a dialog asks for."""


def reference(request: ApprovalRequest, tenant: str, choice: Choice = "decline") -> Reference:
    lines = [request.id, asker(request), *request.question.lines()]
    return Reference(request=request.id, shown=digest(lines), tenant=tenant, choice=choice)


def reference_in(payload: Mapping[str, Any]) -> Reference | None:
    """Return what a click or a submitted dialog refers to; None if it is not about an approval request.

    Raises `ValidationError` if that cannot be read.
    """
    match payload:
        case {"type": "block_actions", "actions": [{"action_id": str(id_), "value": str(text)}]}:
            choice = id_.removeprefix(BUTTON)
            return Reference.model_validate({**from_json(text), "choice": choice}) if choice != id_ else None
        case {"type": "view_submission", "view": {"callback_id": str(id_), "private_metadata": str(text)}}:
            return Reference.model_validate_json(text) if id_ == DIALOG else None
        case _:
            return None


def message(request: ApprovalRequest, changes: Sequence[Change], now: float, tenant: str) -> Block:
    """Return the message of a request: its text, its outcome, and buttons for the remaining decisions.

    Raises `SlackFailed` if it is too long.
    """
    title = WAITS
    buttons = list[JsonValue]()
    value = reference(request, tenant).model_dump_json()
    if request.is_open(now):
        elsewhere = approved_elsewhere(request)
        texts = [elsewhere] if elsewhere else []
        if not texts:
            question = request.question
            label = question.button if len(_escaped(question.button)) <= _MAX_LABEL else "Approve"
            style = "danger" if question.lost else "primary"
            buttons.append({**_button("approve", label, value), "style": style})
        buttons.append(_button("decline", "Decline", value))
    else:
        title = outcome(request, changes, now)[1]
        texts = [*filter(None, (_decided(request), hint(request, changes)))]
        if request.can_be_withdrawn(now):
            buttons.append(_button("withdraw", "Withdraw", value))
    header: JsonValue = {"type": "header", "text": plain(title)}
    actions: JsonValue = {"type": "actions", "block_id": "fastn_mcp_approval", "elements": buttons}
    blocks = [header, *_sections([*_lines(request), *texts]), *([actions] if buttons else [])]
    # Slack interprets the text of its notification, so it contains no data.
    return {"text": title, "blocks": blocks}


def dialog(request: ApprovalRequest, choice: Choice, tenant: str) -> Block:
    """Return the dialog for a decision: the request again, what has to be typed, and a note."""
    approves = choice == "approve"
    label = choice.capitalize()
    texts = [*_lines(request), *([instruction(request)] if approves else [])]
    blocks = _sections(texts)
    if approves and request.expected is not None:
        blocks.append(_input("typed", "Text to type"))
    note = "Note for the audit log" if approves else "Note to the agent"
    blocks.append({**_input("note", note, max_length=MAX_NOTE), "optional": True})
    return {
        "type": "modal",
        "callback_id": DIALOG,
        "private_metadata": reference(request, tenant, choice).model_dump_json(),
        "title": plain(f"{label} a call"),
        "submit": plain(label),
        "close": plain("Cancel"),
        "blocks": blocks,
    }


def notice(text: str) -> Block:
    """Return what a submitted dialog shows in place of itself."""
    view: Block = {"type": "modal", "title": plain("Approval request"), "close": plain("Close")}
    return {"response_action": "update", "view": {**view, "blocks": _sections([text])}}


def _lines(request: ApprovalRequest) -> list[str]:
    lines = [f"{asker(request)} asks:", *request.question.lines()]
    return [*lines, *filter(None, [request.progress([without_issuers(each) for each in request.people])])]


def _decided(request: ApprovalRequest) -> str:
    """Say who decided a request, with their note."""
    by = decided_by(request)
    note = f" Note: {sanitize(request.note)}" if request.note else ""
    return f"Decided by {sanitize(by)}.{note}" if by else ""


def _sections(texts: Sequence[str]) -> list[JsonValue]:
    """Pack texts into blocks, one below the other. Raises `SlackFailed` if there are too many."""
    packed = [""]
    for part in (piece for text in texts for piece in pieces(text)):
        if not packed[-1] or len(packed[-1]) + len(part) < _CHARACTERS:
            packed[-1] = f"{packed[-1]}\n{part}".lstrip("\n")
        else:
            packed.append(part)
    if len(packed) > _BLOCKS:
        raise SlackFailed("it is longer than Slack accepts")
    return [{"type": "section", "text": plain(text)} for text in packed]


def pieces(text: str, longest: int = _CHARACTERS) -> Iterator[str]:
    """Cut a text into pieces. A quoted part that is cut ends with `" …` and goes on with `… "`."""
    piece = ""
    is_quoted = False
    for token in re.findall(r"\\?.", text):
        if len(piece) + len(token) > longest - len('" …'):
            yield f'{piece}" …' if is_quoted else piece
            piece = '… "' if is_quoted else ""
        piece += token
        if token == '"':  # noqa: S105 a quotation mark
            is_quoted = not is_quoted
    yield piece


def _input(name: str, label: str, **more: JsonValue) -> Block:
    element: Block = {"type": "plain_text_input", "action_id": name, **more}
    return {"type": "input", "block_id": name, "label": plain(label), "element": element}


def _button(choice: Choice, text: str, value: str) -> Block:
    return {"type": "button", "action_id": f"{BUTTON}{choice}", "text": plain(text), "value": value}


def plain(text: str) -> Block:
    """Return a text of Slack in which nothing is interpreted."""
    return {"type": "plain_text", "text": _escaped(text), "emoji": False}


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
