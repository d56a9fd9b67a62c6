"""Sealing of values that are stored or sent, and signing of forms. Imported only where something is sealed."""

import base64
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic_core import from_json, to_json

from fastn_mcp.runtime import System


class Seal:
    """Seals values and signs form tokens. A value sealed for one purpose does not open for another.

    Values are sealed by `Fernet` (AES and HMAC, with the time), with keys derived from the secrets.
    """

    def __init__(self, secrets: Sequence[str], system: System) -> None:
        """The first of `secrets` seals. All of them open."""
        self._secrets = [secret.encode() for secret in secrets]
        self._system = system

    def close(self, purpose: str, value: Any) -> str:
        return self._fernet(purpose).encrypt_at_time(to_json(value), int(self._system.timestamp())).decode()

    def open(self, purpose: str, sealed: str | None, seconds: float) -> Any:
        """Return the value sealed for this purpose within the last `seconds`, or None."""
        try:
            return from_json(
                self._fernet(purpose).decrypt_at_time(
                    (sealed or "").encode(), int(seconds), int(self._system.timestamp())
                )
            )
        except (InvalidToken, ValueError):
            return None

    def token(self, session: str, form: str) -> str:
        """Return a single-use token for a form of a session. It is signed and stored only once used."""
        nonce = self._system.token()
        return f"{nonce}.{_sign(self._secrets[0], session, form, nonce)}"

    def nonce(self, session: str, form: str, token: str) -> str | None:
        """Return the nonce of a token, or None if it is not of this form and session."""
        nonce, _, signature = token.partition(".")
        good = [
            hmac.compare_digest(signature.encode(), _sign(secret, session, form, nonce).encode())
            for secret in self._secrets
        ]
        return nonce if any(good) else None

    def _fernet(self, purpose: str) -> MultiFernet:
        keys = [base64.urlsafe_b64encode(_derive(secret, purpose)) for secret in self._secrets]
        return MultiFernet([Fernet(key) for key in keys])


def _sign(secret: bytes, session: str, form: str, nonce: str) -> str:
    return hmac.new(_derive(secret, "form"), f"{session}\n{nonce}\n{form}".encode(), hashlib.sha256).hexdigest()


def _derive(secret: bytes, purpose: str) -> bytes:
    return HKDF(SHA256(), 32, None, f"fastn-mcp approvals {purpose}".encode()).derive(secret)
