"""Payloads of the webhook, as JSON or for Slack, and their signatures.

Text from Fastn stands in text that no receiver interprets, and nothing of what has to be decided is left out.

Both name the moment, a nonce and the whole body, so that neither can be edited, sent again, or kept for later.
"""

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import JsonValue
from pydantic_core import to_json
from standardwebhooks import Webhook

from fastn_mcp.errors import Refused
from fastn_mcp.guard.ledger.ledger import ApprovalRequest, account_name
from fastn_mcp.redaction import quote

_CHARACTERS = 550
"""Of a text in a block: five times as many, once escaped, are within the 3,000 that Slack takes."""

_BLOCKS = 40
"""Slack takes 50."""


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A grant, who approved it already, how many it takes, and where the answer goes."""

    grant: ApprovalRequest
    approved: Sequence[str]
    needed: int
    callback: str
    path: str


def digest(lines: Sequence[str]) -> str:
    """What names exactly these lines: SHA-256 of them with line feeds between, in hexadecimal."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def generic(asked: WebhookRequest) -> dict[str, JsonValue]:
    """For any receiver. `created` and `expires` are Unix seconds."""
    grant = asked.grant
    return {
        "kind": "fastn-mcp approval",
        "version": 1,
        "grant": grant.id,
        "requester": grant.principal,
        "account": account_name(grant.account),
        "asks": grant.required,
        "expected": grant.expected,
        "lines": list(grant.text),
        "question": digest(grant.text),
        "preview": dict(grant.preview),
        "approvals": {"needed": asked.needed, "by": list(asked.approved)},
        "callback": asked.callback,
        "path": asked.path,
        "created": int(grant.created),
        "expires": int(grant.expires),
    }


def slack(asked: WebhookRequest) -> dict[str, JsonValue]:
    """For Slack. Its buttons carry what a relay needs to answer. Raises `Refused` where it does not fit whole."""
    grant = asked.grant
    texts = [f"{grant.principal} asks:", *grant.text]
    if asked.needed > 1:
        by = f" ({', '.join(asked.approved)})" if asked.approved else ""
        texts.append(f"It takes {asked.needed} approvers; {len(asked.approved)} approved{by}.")
    if grant.expected is not None:
        texts.append(f"To approve, the text between the quotes has to be typed: {quote(grant.expected)}")
    blocks: list[JsonValue] = [{"type": "section", "text": _plain(text)} for text in _packed(texts)]
    if len(blocks) > _BLOCKS:
        raise Refused(
            "Nobody could be asked: the request is longer than Slack accepts.",
            "Make smaller calls, or let a person do it in the dashboard.",
        )
    value = to_json({"grant": grant.id, "callback": asked.callback, "path": asked.path}).decode()
    blocks.append(
        {
            "type": "actions",
            "block_id": "fastn_mcp_approval",
            "elements": [
                _button("approve", "Approve", "primary", value),
                _button("decline", "Decline", "danger", value),
            ],
        }
    )
    # What notifications show is interpreted: it is ours alone.
    return {"text": "A call waits for an approval.", "blocks": blocks}


def _packed(texts: Sequence[str]) -> list[str]:
    """The texts, each in a block of its own, or in several; the calls of a long list share blocks."""
    parts = [text[start : start + _CHARACTERS] for text in texts for start in range(0, len(text), _CHARACTERS)]
    if len(parts) <= _BLOCKS:
        return parts
    packed = [""]
    for part in parts:
        if len(packed[-1]) + len(part) < _CHARACTERS:
            packed[-1] = f"{packed[-1]}\n{part}".lstrip("\n")
        else:
            packed.append(part)
    return packed


def _button(action: str, text: str, style: str, value: str) -> JsonValue:
    return {
        "type": "button",
        "action_id": f"fastn_mcp_{action}",
        "text": _plain(text),
        "style": style,
        "value": value,
    }


def _plain(text: str) -> dict[str, JsonValue]:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"type": "plain_text", "text": escaped, "emoji": False}


SIGNATURE = "x-fastn-mcp-signature"
"""The header of an answer's signature."""

WINDOW = 300
"""Seconds that what was signed may be old, or the clock of the other side be ahead."""

SHORTEST_SECRET = 32
"""Characters."""

_VERSION = "v1="


def headers(secret: str, at: datetime, id_: str, body: bytes) -> dict[str, str]:
    """The headers of a question with this body, by Standard Webhooks. A text that is no `whsec_` secret is the key."""
    key = Webhook(secret if secret.startswith("whsec_") else secret.encode())
    signature = key.sign(id_, at.astimezone(UTC), body.decode())
    return {"webhook-id": id_, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


def answer(path: str, timestamp: int, nonce: str, body: bytes) -> bytes:
    """What an approver signs of an answer that is sent to `path`, without what a proxy puts before it."""
    return f"v1:POST:{path}:{timestamp}:{nonce}:{hashlib.sha256(body).hexdigest()}".encode()


def keyed(secret: str, text: bytes) -> str:
    """HMAC-SHA256, in hexadecimal."""
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()


def given(header: str | None) -> str:
    """The signature in a header, without its version; nothing where it is of none that we know."""
    return header[len(_VERSION) :] if header is not None and header.startswith(_VERSION) else ""
