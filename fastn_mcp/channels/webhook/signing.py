"""What is signed, and how: a question by the secret that we share with its receiver, an answer by an approver. Pure.

Both name the moment, a nonce and the whole body, so that neither can be edited, sent again, or kept for later.
"""

import hashlib
import hmac

TIMESTAMP = "x-fastn-mcp-timestamp"
NONCE = "x-fastn-mcp-nonce"
SIGNATURE = "x-fastn-mcp-signature"

WINDOW = 300
"""Seconds that what was signed may be old, or the clock of the other side be ahead."""

SHORTEST_SECRET = 32
"""Characters."""

_VERSION = "v1="


def headers(secret: str, timestamp: int, nonce: str, body: bytes) -> dict[str, str]:
    """The headers of a question with this body; `timestamp` is in Unix seconds."""
    text = f"v1:{timestamp}:{nonce}:{_digest(body)}"
    return {TIMESTAMP: str(timestamp), NONCE: nonce, SIGNATURE: _VERSION + keyed(secret, text.encode())}


def answer(path: str, timestamp: int, nonce: str, body: bytes) -> bytes:
    """What an approver signs of an answer that is sent to `path`, without what a proxy puts before it."""
    return f"v1:POST:{path}:{timestamp}:{nonce}:{_digest(body)}".encode()


def keyed(secret: str, text: bytes) -> str:
    """HMAC-SHA256, in hexadecimal."""
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()


def given(header: str | None) -> str:
    """The signature in a header, without its version; nothing where it is of none that we know."""
    return header[len(_VERSION) :] if header is not None and header.startswith(_VERSION) else ""


def _digest(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
