"""Webhook payloads as JSON, and signatures of requests and answers.

Text from Fastn is sent as plain text that receivers do not interpret. A request is never truncated.

Both signatures cover a timestamp, an id or nonce and the whole body, which prevents edits, replays and late use.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from pydantic import JsonValue
from standardwebhooks import Webhook

from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.identity import account_name


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


SIGNATURE = "x-fastn-mcp-signature"
"""Header of an answer's signature."""

WINDOW = 300
"""Accepted difference in seconds between the signed timestamp and our clock, either way."""

_VERSION = "v1="


def headers(secret: str, at: datetime, id_: str, body: bytes) -> dict[str, str]:
    """Return the Standard Webhooks headers of a body. A secret without `whsec_` is used as the key itself."""
    key = Webhook(secret if secret.startswith("whsec_") else secret.encode())
    signature = key.sign(id_, at.astimezone(UTC), body.decode())
    return {"webhook-id": id_, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


def answer(path: str, timestamp: int, nonce: str, body: bytes) -> bytes:
    """Return the text that an approver signs. `path` excludes any prefix that a proxy adds."""
    return f"v1:POST:{path}:{timestamp}:{nonce}:{hashlib.sha256(body).hexdigest()}".encode()


def signature_in(header: str | None) -> str:
    """Return the signature in a header without its version, or "" if the version is unknown."""
    return header[len(_VERSION) :] if header is not None and header.startswith(_VERSION) else ""
