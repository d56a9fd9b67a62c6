"""Validate access tokens and ID tokens.

Nothing that a token says is believed before its signature, by a key that the issuer publishes.
"""

import hmac
import logging
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.types import Options
from mcp.server.auth.provider import AccessToken

from fastn_mcp.hosted.oidc import IssuerKeys, NoKeys, UnknownKey
from fastn_mcp.runtime import System

log = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""What can be accepted: signatures by a key that only the issuer has. Never a shared secret, never none."""

_TYPES = ("jwt", "at+jwt", "application/at+jwt")
_LONGEST_SUBJECT = 255
"""Characters, as OpenID Connect has it."""

_CHECKED: Options = {
    "require": ["iss", "aud", "exp", "sub"],
    "enforce_minimum_key_length": True,
    # Times by our clock, below.
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}


class TokenRefused(Exception):
    """Why a token is none, in words for whoever sent it."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose tokens are accepted, and for what."""

    issuer: str
    audience: str
    resource: str
    """The address of this server, which tokens for that audience are for."""
    algorithms: tuple[str, ...]
    leeway: float


class Tokens:
    """Verifies the tokens of one issuer. The SDK's `TokenVerifier`."""

    def __init__(self, trust: Trust, keys: IssuerKeys, system: System) -> None:
        self._trust = trust
        self._signed = _Signed(trust, keys, system, trust.audience, _TYPES)

    async def verify_token(self, token: str) -> AccessToken | None:
        """The sign-in; None where it is none, for a reason that `reason` gives."""
        try:
            return await self._verified(token)
        except TokenRefused as refused:
            log.info("a token was refused: %s", refused)
        except NoKeys:
            log.warning("no token can be verified: the keys of the issuer are not known")
        return None

    async def reason(self, token: str) -> str:
        """Why a token was refused. Raises `NoKeys` where nobody can know."""
        try:
            await self._verified(token)
        except TokenRefused as refused:
            return str(refused)
        return "It cannot be used here."

    async def _verified(self, token: str) -> AccessToken:
        claims, expires = await self._signed.verified(token)
        return AccessToken(
            token=token,
            client_id=_text(claims.get("azp")) or _text(claims.get("client_id")) or "unknown",
            scopes=scopes(claims),
            # The SDK looks at it again, without leeway.
            expires_at=math.ceil(expires + self._trust.leeway),
            resource=self._trust.resource,
            subject=claims["sub"],
            claims=claims,
        )


class _Signed:
    """What a JWT of the issuer says, for one audience."""

    def __init__(self, trust: Trust, keys: IssuerKeys, system: System, audience: str, kinds: Collection[str]) -> None:
        self._trust = trust
        self._keys = keys
        self._system = system
        self._audience = audience
        self._kinds = kinds

    async def verified(self, token: str) -> tuple[dict[str, Any], float]:
        """The claims, and when they end. Raises `TokenRefused`, `NoKeys`."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise TokenRefused("It is not a signed JWT.") from None
        claims = await self._claims(token, header)
        expires = self._in_time(claims)
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= _LONGEST_SUBJECT or not subject.isprintable():
            raise TokenRefused("It names no subject.")
        return claims, expires

    async def _claims(self, token: str, header: Mapping[str, Any]) -> dict[str, Any]:
        algorithm, kind, kid = header.get("alg"), header.get("typ"), header.get("kid")
        if algorithm not in self._trust.algorithms:
            raise TokenRefused("It is signed with an algorithm that is not accepted.")
        if "crit" in header or (kind is not None and str(kind).lower() not in self._kinds):
            raise TokenRefused("It is not an access token." if self._kinds is _TYPES else "It is not an ID token.")
        try:
            key = await self._keys.find(kid if isinstance(kid, str) else None, str(algorithm))
        except UnknownKey:
            raise TokenRefused("It is signed by a key that the issuer does not publish.") from None
        trust = self._trust
        try:
            return jwt.decode(
                token, key, [str(algorithm)], audience=self._audience, issuer=trust.issuer, options=_CHECKED
            )
        except jwt.InvalidIssuerError:
            raise TokenRefused("It is from another issuer.") from None
        except jwt.InvalidAudienceError:
            raise TokenRefused("It is for another audience.") from None
        except jwt.MissingRequiredClaimError as missing:
            raise TokenRefused(f"It has no {missing.claim}.") from None
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise TokenRefused("Its signature or form is wrong.") from None

    def _in_time(self, claims: Mapping[str, Any]) -> float:
        """When it expires. Raises `TokenRefused` where that was, or where it does not hold yet."""
        now, leeway = self._system.now().timestamp(), self._trust.leeway
        expires = _moment(claims, "exp")
        if expires is None or now >= expires + leeway:
            raise TokenRefused("It has expired.")
        for claim in ("nbf", "iat"):
            if (since := _moment(claims, claim)) is not None and since > now + leeway:
                raise TokenRefused("It is not valid yet.")
        return expires


class IdTokens:
    """Verifies what the issuer tells one client of who signed in there (OpenID Connect Core, 3.1.3.7)."""

    def __init__(self, trust: Trust, keys: IssuerKeys, system: System, client: str) -> None:
        self._signed = _Signed(trust, keys, system, client, ("jwt", "id_token+jwt"))
        self._client = client

    async def claims(self, token: str, nonce: str) -> dict[str, Any]:
        """What it says, where it is for the sign-in of this nonce. Raises `TokenRefused`, `NoKeys`."""
        claims, _ = await self._signed.verified(token)
        given = claims.get("nonce")
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
            raise TokenRefused("It is from another sign-in.")
        several = isinstance(claims["aud"], list) and claims["aud"] != [self._client]
        if (several or "azp" in claims) and claims.get("azp") != self._client:
            raise TokenRefused("It is for another client.")
        if "iat" not in claims:
            raise TokenRefused("It has no iat.")
        return claims


def _moment(claims: Mapping[str, Any], claim: str) -> float | None:
    value = claims.get(claim)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        raise TokenRefused(f"Its {claim} is not a time.")
    return float(value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def scopes(claims: Mapping[str, Any]) -> list[str]:
    """The scopes of a token: `scope` is the standard's, a text; `scp` is what some providers call it, or a list."""
    for claim in ("scope", "scp"):
        value: Any = claims.get(claim)
        if isinstance(value, str):
            return value.split()
        if isinstance(value, list):
            return [item for item in value if isinstance(item, str)]  # pyright: ignore[reportUnknownVariableType]
    return []
