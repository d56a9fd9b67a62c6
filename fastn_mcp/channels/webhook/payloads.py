"""Webhook payloads, as JSON or for Slack, and signatures of requests and answers.

Text from Fastn is sent as plain text that receivers do not interpret. A request is never truncated.

Both signatures cover a timestamp, an id or nonce and the whole body, which prevents edits, replays and late use.
"""

import hashlib
import hmac
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from pydantic import JsonValue
from pydantic_core import to_json
from standardwebhooks import Webhook

from fastn_mcp.errors import Refused
from fastn_mcp.guard.approval_form import asker
from fastn_mcp.guard.sentences import facts as sentences
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.identity import account_name, without_issuers
from fastn_mcp.redaction import quote

_CHARACTERS = 550
"""Characters per block. Escaping can multiply them by five, within Slack's limit of 3,000."""

_LONGEST_LABEL = 75
"""Characters that Slack accepts on a button."""

_BLOCKS = 40
"""Text blocks per message. Slack accepts 50 blocks."""


def path(request: str) -> str:
    """Return the path on this server for the answer about the request with this id."""
    return f"/approvals/{request}"


def digest(lines: Sequence[str]) -> str:
    """Hexadecimal SHA-256 of the lines, joined by line feeds."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def generic(request: ApprovalRequest, url: str) -> dict[str, JsonValue]:
    """Return the payload for any receiver. Answers go to the server at `url`. Times are in Unix seconds."""
    groups: dict[str, JsonValue] = {"groups": list(request.second)} if request.second else {}
    return {
        "kind": "fastn-mcp approval",
        "version": 1,
        "grant": request.id,
        "requester": request.principal,
        "requester_name": request.asked_by,
        "account": account_name(request.account),
        "asks": request.required,
        "expected": request.expected,
        "lines": list(request.text),
        "question": digest(request.text),
        "preview": dict(request.preview),
        "approvals": {"needed": request.needed, "by": list(request.approvers), **groups},
        "callback": url + path(request.id),
        "path": path(request.id),
        "created": int(request.created),
        "expires": int(request.expires),
    }


def slack(request: ApprovalRequest, url: str) -> dict[str, JsonValue]:
    """Return a Slack message whose buttons carry what a relay needs to answer. Raises `Refused` if it is too long."""
    texts = [f"{asker(request)} asks:", *request.text]
    if request.needed > 1:
        by = f" ({without_issuers(', '.join(request.people))})" if request.people else ""
        texts.append(f"It takes {request.people_needed}; {len(request.approvers)} approved{by}.")
    if request.expected is not None:
        texts.append(f"To approve, the text between the quotes has to be typed: {quote(request.expected)}")
    blocks: list[JsonValue] = [{"type": "section", "text": plain(text)} for text in _pack(texts)]
    if len(blocks) > _BLOCKS:
        raise Refused(
            "Nobody could be asked: the request is longer than Slack accepts.",
            "Make smaller calls, or let a person do it in the dashboard.",
        )
    value = to_json({"grant": request.id, "callback": url + path(request.id), "path": path(request.id)}).decode()
    says = sentences.read(request.preview)
    label = says.button if says is not None and len(says.button) <= _LONGEST_LABEL else "Approve"
    style = "danger" if says is None or says.lost else "primary"
    blocks.append(
        {
            "type": "actions",
            "block_id": "fastn_mcp_approval",
            "elements": [
                {**_button("approve", label, value), "style": style},
                _button("decline", "Decline", value),
            ],
        }
    )
    # Slack interprets the notification text, so it contains no data.
    return {"text": "A call waits for an approval.", "blocks": blocks}


def _pack(texts: Sequence[str]) -> list[str]:
    """Split texts into blocks. If there are too many, pack several texts into each."""
    parts = [piece for text in texts for piece in pieces(text)]
    if len(parts) <= _BLOCKS:
        return parts
    packed = [""]
    for part in parts:
        if len(packed[-1]) + len(part) < _CHARACTERS:
            packed[-1] = f"{packed[-1]}\n{part}".lstrip("\n")
        else:
            packed.append(part)
    return packed


def pieces(text: str, longest: int = _CHARACTERS) -> Iterator[str]:
    """Cut a text into pieces. A quoted part that is cut ends with `" …` and goes on with `… "`."""
    piece, is_quoted = "", False
    for token in re.findall(r"\\?.", text):
        if len(piece) + len(token) > longest - len('" …'):
            yield f'{piece}" …' if is_quoted else piece
            piece = '… "' if is_quoted else ""
        piece += token
        if token == '"':  # noqa: S105 a quotation mark
            is_quoted = not is_quoted
    yield piece


def _button(action: str, text: str, value: str) -> dict[str, JsonValue]:
    return {"type": "button", "action_id": f"fastn_mcp_{action}", "text": plain(text), "value": value}


def plain(text: str) -> dict[str, JsonValue]:
    """Return a text of Slack in which nothing is interpreted."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"type": "plain_text", "text": escaped, "emoji": False}


SIGNATURE = "x-fastn-mcp-signature"
"""Header of an answer's signature."""

WINDOW = 300
"""Accepted difference in seconds between the signed timestamp and our clock, either way."""

SHORTEST_SECRET = 32
"""Characters."""

_VERSION = "v1="


def headers(secret: str, at: datetime, id_: str, body: bytes) -> dict[str, str]:
    """Return the Standard Webhooks headers of a body. A secret without `whsec_` is used as the key itself."""
    key = Webhook(secret if secret.startswith("whsec_") else secret.encode())
    signature = key.sign(id_, at.astimezone(UTC), body.decode())
    return {"webhook-id": id_, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


def answer(path: str, timestamp: int, nonce: str, body: bytes) -> bytes:
    """Return the text that an approver signs. `path` excludes any prefix that a proxy adds."""
    return f"v1:POST:{path}:{timestamp}:{nonce}:{hashlib.sha256(body).hexdigest()}".encode()


def hmac_hex(secret: str, text: bytes) -> str:
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()


def signature_in(header: str | None) -> str:
    """Return the signature in a header without its version, or "" if the version is unknown."""
    return header[len(_VERSION) :] if header is not None and header.startswith(_VERSION) else ""
