"""Who signed a plan. A signature is over the plan's exact bytes, by a key that the agent's process does not hold.

The signatures lie beside the plan, in `PLAN.sig`; the public keys of those who may sign in a file of the operator's.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

_PURPOSE = b"fastn-mcp run plan, version 1\n"


class BadSignature(Exception):
    """The signatures do not hold, and why."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One person's signature of one plan."""

    by: str
    at: str
    """ISO 8601."""
    value: str
    """Base64."""


def sign(data: bytes, by: str, at: datetime, key: Ed25519PrivateKey) -> Signature:
    """The signature of a plan's bytes."""
    when = at.isoformat(timespec="seconds")
    return Signature(by, when, base64.b64encode(key.sign(_message(data, by, when))).decode())


def written(signatures: tuple[Signature, ...]) -> bytes:
    """The content of the file beside the plan."""
    rows = [{"by": each.by, "at": each.at, "signature": each.value} for each in signatures]
    return json.dumps({"signatures": rows}, indent=2).encode() + b"\n"


def parsed(data: bytes) -> tuple[Signature, ...]:
    """The inverse. Raises `BadSignature`."""
    try:
        rows = cast("list[Mapping[str, Any]]", json.loads(data)["signatures"])
        return tuple(Signature(str(row["by"]), str(row["at"]), str(row["signature"])) for row in rows)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise BadSignature("the file of signatures cannot be read") from None


def signers(data: bytes, signatures: tuple[Signature, ...], trusted: Mapping[str, str]) -> tuple[str, ...]:
    """Who signed a plan's bytes: everybody whose name stands there, or nobody. Raises `BadSignature`."""
    if not signatures:
        raise BadSignature("nobody has signed it")
    for signature in signatures:
        known = trusted.get(signature.by)
        if known is None:
            raise BadSignature(f"{signature.by!r} is not among those who may sign")
        try:
            public = Ed25519PublicKey.from_public_bytes(base64.b64decode(known, validate=True))
            value = base64.b64decode(signature.value, validate=True)
            public.verify(value, _message(data, signature.by, signature.at))
        except (InvalidSignature, ValueError):
            raise BadSignature(
                f"the signature of {signature.by!r} does not fit: it was edited, or signed by another key"
            ) from None
    return tuple(dict.fromkeys(signature.by for signature in signatures))


def new_key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


def sealed(key: Ed25519PrivateKey, passphrase: str) -> bytes:
    """The key as a file holds it, under a passphrase."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase.encode()))


def opened(data: bytes, passphrase: str) -> Ed25519PrivateKey:
    """The inverse. Raises `BadSignature` where the passphrase is another, or it is no such key."""
    try:
        key = load_pem_private_key(data, passphrase.encode())
    except (ValueError, TypeError):
        raise BadSignature("the key cannot be opened with this passphrase") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadSignature("it is no Ed25519 key")
    return key


def public(key: Ed25519PrivateKey) -> str:
    """What others check signatures by, in base64."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def _message(data: bytes, by: str, at: str) -> bytes:
    digest = hashlib.sha256(data).hexdigest()
    return _PURPOSE + json.dumps([digest, by, at]).encode()
