"""What a browser keeps of a sign-in: sealed, so that every replica can read it and nobody else can. No HTTP, no I/O.

Sealed by `Fernet` (AES and HMAC, with the time), by keys that are derived from the secret that replicas share.
"""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic_core import from_json, to_json

from fastn_mcp.hosted.approvers import Person
from fastn_mcp.system import System


@dataclass(frozen=True, slots=True)
class Session:
    """A browser in which a person signed in. `id` tells it from all others, and is told to nobody."""

    id: str
    ends: float
    person: Person


class Seal:
    """Seals for one purpose each: what is sealed for one opens for no other."""

    def __init__(self, secrets: Sequence[str], system: System) -> None:
        """The first of `secrets` seals, all of them open."""
        self._secrets = [secret.encode() for secret in secrets]
        self._system = system

    def close(self, purpose: str, value: Any) -> str:
        """A sealed value."""
        return self._for(purpose).encrypt_at_time(to_json(value), self._now()).decode()

    def open(self, purpose: str, sealed: str | None, seconds: float) -> Any:
        """What was sealed for this purpose, at most so long ago; None for anything else."""
        try:
            return from_json(self._for(purpose).decrypt_at_time((sealed or "").encode(), int(seconds), self._now()))
        except (InvalidToken, ValueError):
            return None

    def session(self, sealed: str | None, seconds: float) -> Session | None:
        """The session that a cookie holds."""
        found = self.open("session", sealed, seconds)
        if found is None or found["ends"] <= self._system.now().timestamp():
            return None
        said = found["person"]
        return Session(found["id"], found["ends"], Person(**(said | {"rules": tuple(said["rules"])})))

    def token(self, session: Session, form: str, nonce: str) -> str:
        """What a form of a session carries."""
        return f"{nonce}.{self._signed(self._secrets[0], session, form, nonce)}"

    def nonce(self, session: Session, form: str, token: str) -> str | None:
        """The nonce of a token that is of this form and session."""
        nonce, _, signed = token.partition(".")
        good = [
            hmac.compare_digest(signed.encode(), self._signed(secret, session, form, nonce).encode())
            for secret in self._secrets
        ]
        return nonce if any(good) else None

    def _signed(self, secret: bytes, session: Session, form: str, nonce: str) -> str:
        key = _derived(secret, "form")
        return hmac.new(key, f"{session.id}\n{nonce}\n{form}".encode(), hashlib.sha256).hexdigest()

    def _for(self, purpose: str) -> MultiFernet:
        keys = [base64.urlsafe_b64encode(_derived(secret, purpose)) for secret in self._secrets]
        return MultiFernet([Fernet(key) for key in keys])

    def _now(self) -> int:
        return int(self._system.now().timestamp())


def _derived(secret: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), 32, None, f"fastn-mcp approvals {purpose}".encode()).derive(secret)
