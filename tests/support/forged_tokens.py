"""Forged and unusable tokens, each with why it is refused (RFC 8725)."""

import base64
import hmac
import json
from collections.abc import Callable
from functools import cache
from typing import Any

from joserfc.jwk import ECKey, OctKey, RSAKey

from support.identity_provider import AUDIENCE, ISSUER, Provider, rsa

EC = ECKey.generate_key("P-256", {"kid": "ec"}, auto_kid=False)


@cache
def stranger(kid: str = "first") -> RSAKey:
    """Return an RSA key that no issuer publishes."""
    return rsa(kid)


def _coded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _headed(token: str, **more: Any) -> str:
    header, rest = token.split(".", 1)
    fields = json.loads(base64.urlsafe_b64decode(header + "==")) | more
    return f"{_coded(json.dumps(fields).encode())}.{rest}"


def _confused(provider: Provider) -> str:
    """Sign with the public key as an HMAC secret: the RS/HS confusion."""
    public = provider.keys[0]
    assert isinstance(public, RSAKey)
    signed = _headed(provider.token(), alg="HS256").rpartition(".")[0]
    return f"{signed}.{_coded(hmac.digest(public.as_pem(private=False), signed.encode(), 'sha256'))}"


def _unsigned(alg: str, provider: Provider) -> str:
    return _headed(provider.token(), alg=alg).rpartition(".")[0] + "."


def _edited(provider: Provider) -> str:
    header, body, signature = provider.token().split(".")
    fields = json.loads(base64.urlsafe_b64decode(body + "==")) | {"sub": "the-boss"}
    return f"{header}.{base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip('=')}.{signature}"


NO_ALGORITHM = "It is signed with an algorithm that is not accepted."
NO_KEY = "It is signed by a key that the issuer does not publish."
WRONG = "Its signature or form is wrong."
REFUSED: dict[str, tuple[Callable[[Provider], str], str]] = {
    "for another audience": (lambda p: p.token(aud="https://other.example.com/mcp"), "It is for another audience."),
    "for many others": (lambda p: p.token(aud=["https://a.example", "api://b"]), "It is for another audience."),
    "for a prefix of ours": (lambda p: p.token(aud=AUDIENCE[:-1]), "It is for another audience."),
    "an ID token, for a client": (lambda p: p.token(aud="an-ide"), "It is for another audience."),
    "for nobody": (lambda p: p.token(aud=None), "It has no aud."),
    "of another issuer": (
        lambda p: p.token(iss="https://login.example.com/realms/other"),
        "It is from another issuer.",
    ),
    "of an issuer with a slash": (lambda p: p.token(iss=ISSUER + "/"), "It is from another issuer."),
    "of no issuer": (lambda p: p.token(iss=None), "It has no iss."),
    "expired": (lambda p: p.token(exp=int(p.now()) - 31), "It has expired."),
    "without an end": (lambda p: p.token(exp=None), "It has no exp."),
    "with an end that is none": (lambda p: p.token(exp="never"), "Its exp is not a time."),
    "with an end that is true": (lambda p: p.token(exp=True), "Its exp is not a time."),
    "not valid yet": (lambda p: p.token(nbf=int(p.now()) + 31), "It is not valid yet."),
    "issued in the future": (lambda p: p.token(iat=int(p.now()) + 31), "It is not valid yet."),
    "of nobody": (lambda p: p.token(sub=None), "It has no sub."),
    "of an empty subject": (lambda p: p.token(sub=""), "It names no subject."),
    "of a subject with a line break": (lambda p: p.token(sub="anna\nroot"), "It names no subject."),
    "of a subject that is too long": (lambda p: p.token(sub="a" * 256), "It names no subject."),
    "alg none": (lambda p: _unsigned("none", p), NO_ALGORITHM),
    "alg nOnE": (lambda p: _unsigned("nOnE", p), NO_ALGORITHM),
    "no signature": (lambda p: _unsigned("RS256", p), WRONG),
    "the public key as a secret": (_confused, NO_ALGORITHM),
    "a secret": (lambda p: p.token(OctKey.generate_key(256, {"kid": "first"}), "HS256"), NO_ALGORITHM),
    "another key of the same name": (lambda p: p.token(stranger()), WRONG),
    "a key that nobody knows": (lambda p: p.token(stranger("third")), NO_KEY),
    "an algorithm of another kind of key": (lambda p: p.token(EC, "ES256", {"kid": "first"}), NO_KEY),
    "edited": (_edited, WRONG),
    "critical extensions": (lambda p: _headed(p.token(), crit=["b64"], b64=True), "It is not an access token."),
    "a token of logout": (lambda p: p.token(header={"typ": "logout+jwt"}), "It is not an access token."),
    "a Fastn API key": (lambda _: "fsk_live_0123456789abcdef", "It is not a signed JWT."),
    "three dots": (lambda _: "..", "It is not a signed JWT."),
    "five parts": (lambda p: p.token() + ".a.b", "It is not a signed JWT."),
    "deep nonsense": (lambda _: base64.urlsafe_b64encode(b"[" * 9000).decode() + ".e30.x", "It is not a signed JWT."),
}
