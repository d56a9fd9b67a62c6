"""Validate access tokens and ID tokens.

No claim is trusted before the signature is verified by a key that the issuer publishes.
"""

import hmac
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import jwt
from jwt.types import Options
from mcp.server.auth.provider import AccessToken

from fastn_mcp.extensions.team.oidc import IssuerKeys, UnknownKey
from fastn_mcp.redaction import person
from fastn_mcp.runtime import System

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""Supported signature algorithms: asymmetric only, so neither HMAC nor `none`."""

_TYPES = ("jwt", "at+jwt", "application/at+jwt")
_ID_TYPES = ("jwt", "id_token+jwt")
_CLIENT_CLAIMS = ("azp", "client_id", "appid", "cid")
_MAX_SUBJECT = 255
"""Characters (OpenID Connect Core, 2)."""

_CHECKED: Options = {
    "require": ["iss", "aud", "exp", "sub"],
    "enforce_minimum_key_length": True,
    # `_check_times` checks these by our clock.
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}


class TokenRefused(Exception):
    """The token is invalid. The message is for its sender."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Issuer, audience and algorithms of accepted tokens, and the clock leeway in seconds."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    leeway: float
    scope_prefix: str = ""
    """Text before each scope that clients request. Tokens may have it too."""
    subject_claim: str = "sub"
    """Claim that names the person, in access tokens and ID tokens alike. Machines are recognised by `sub`."""
    is_workload: bool = False
    """Whether the issuer signs for machines only."""


class VerifiedToken(AccessToken):
    """A token whose claims are as the issuer signed them: its own `sub` tells machines from people."""

    is_machine: bool
    """Whether a client has it for itself. It names no person then."""

    def of_person(self, claim: str) -> "VerifiedToken":
        """Return the token with the claim that names the person as `sub`. Raises `TokenRefused` if it names nobody."""
        claims = dict(self.claims or {})
        name_subject(claims, claim)
        return self.model_copy(update={"subject": claims["sub"], "claims": claims})


class Tokens:
    """Verifier of one issuer's tokens, and of access tokens of other issuers."""

    def __init__(
        self, trust: Trust, keys: IssuerKeys, system: System, workloads: "Mapping[str, Tokens] | None" = None
    ) -> None:
        self._trust = trust
        self._keys = keys
        self._system = system
        self._workloads = workloads or {}

    async def aclose(self) -> None:
        for each in (self, *self._workloads.values()):
            await each._keys.aclose()

    async def verify(self, token: str) -> VerifiedToken:
        """Return the verified access token. Raises `TokenRefused`, or `NoKeys` if it cannot be verified."""
        return await self._of(token)._access_token(token)

    async def id_claims(self, token: str, client: str, nonce: str) -> dict[str, Any]:
        """Return the claims of an ID token for a client and a nonce (OpenID Connect Core, 3.1.3.7), with `sub` as it
        is.

        Raises `TokenRefused` if it is invalid, `NoKeys` if it cannot be verified.
        """
        claims = await self._claims(token, client, _ID_TYPES)
        claimed = claims.get("nonce")
        if not isinstance(claimed, str) or not hmac.compare_digest(claimed.encode(), nonce.encode()):
            raise TokenRefused("It is from another sign-in.")
        has_others = isinstance(claims["aud"], list) and claims["aud"] != [client]
        if (has_others or "azp" in claims) and claims.get("azp") != client:
            raise TokenRefused("It is for another client.")
        if "iat" not in claims:
            raise TokenRefused("It has no iat.")
        return claims

    def _of(self, token: str) -> "Tokens":
        """Return the verifier of the issuer that a token names, without trusting it; this one if that is no other's."""
        with suppress(jwt.PyJWTError, ValueError, RecursionError):
            named = jwt.decode(token, options={"verify_signature": False}).get("iss")
            return self._workloads.get(str(named), self)
        return self

    async def _access_token(self, token: str) -> VerifiedToken:
        claims = await self._claims(token, self._trust.audience, _TYPES)
        name_subject(claims, "sub")
        return VerifiedToken(
            token=token,
            client_id=client_of(claims) or "unknown",
            scopes=scopes(claims, self._trust.scope_prefix),
            subject=claims["sub"],
            claims=claims,
            is_machine=self._trust.is_workload or is_machines(claims),
        )

    async def _claims(self, token: str, audience: str, types: Collection[str]) -> dict[str, Any]:
        """Return the verified claims of a token for this audience. Raises `TokenRefused` or `NoKeys`."""
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise TokenRefused("It is not a signed JWT.") from None
        key = await self._key(header, types)
        try:
            claims = jwt.decode(
                token, key, [header["alg"]], audience=audience, issuer=self._trust.issuer, options=_CHECKED
            )
        except jwt.InvalidIssuerError:
            raise TokenRefused("It is from another issuer.") from None
        except jwt.InvalidAudienceError:
            raise TokenRefused("It is for another audience.") from None
        except jwt.MissingRequiredClaimError as missing:
            raise TokenRefused(f"It has no {missing.claim}.") from None
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise TokenRefused("Its signature or form is wrong.") from None
        self._check_times(claims)
        return claims

    async def _key(self, header: Mapping[str, Any], types: Collection[str]) -> jwt.PyJWK:
        algorithm = header.get("alg")
        type_ = header.get("typ")
        kid = header.get("kid")
        if algorithm not in self._trust.algorithms:
            raise TokenRefused("It is signed with an algorithm that is not accepted.")
        if "crit" in header or (type_ is not None and str(type_).lower() not in types):
            raise TokenRefused("It is not an access token." if types is _TYPES else "It is not an ID token.")
        try:
            return await self._keys.find(kid if isinstance(kid, str) else None, str(algorithm))
        except UnknownKey:
            raise TokenRefused("It is signed by a key that the issuer does not publish.") from None

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        now = self._system.timestamp()
        leeway = self._trust.leeway
        expires = _timestamp(claims, "exp")
        if expires is None or now >= expires + leeway:
            raise TokenRefused("It has expired.")
        for claim in ("nbf", "iat"):
            since = _timestamp(claims, claim)
            if since is not None and since > now + leeway:
                raise TokenRefused("It is not valid yet.")


def name_subject(claims: dict[str, Any], claim: str) -> None:
    """Make a claim the `sub` of verified claims. Raises `TokenRefused` if it cannot name anybody."""
    subject = claims["sub"] = claims.get(claim)
    if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT or not subject.isprintable():
        raise TokenRefused("It names no subject.")


def _timestamp(claims: Mapping[str, Any], claim: str) -> float | None:
    value = claims.get(claim)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e12:
        raise TokenRefused(f"Its {claim} is not a time.")
    return float(value)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def client_of(claims: Mapping[str, Any]) -> str:
    """Return the id of the OAuth client that a token was issued to; empty if it names none."""
    return next(filter(None, (_text(claims.get(name)) for name in _CLIENT_CLAIMS)), "")


def is_machines(claims: Mapping[str, Any]) -> bool:
    """Whether a client has a token for itself, by client credentials, from what providers put into one."""
    subject = claims.get("sub")
    user = claims.get("preferred_username")
    clients = filter(None, (_text(claims.get(name)) for name in _CLIENT_CLAIMS))
    return (
        # RFC 9068, 2.2: so too Okta and Cognito; Auth0 appends @clients
        any(subject in (client, f"{client}@clients") for client in clients)
        or claims.get("gty") == "client-credentials"  # Auth0
        or claims.get("idtyp") == "app"  # Microsoft Entra
        or (subject == claims.get("oid") and "scp" not in claims)  # Entra without the optional claim idtyp
        or (isinstance(user, str) and user.casefold() == f"service-account-{client_of(claims)}".casefold())  # Keycloak
    )


def signed_in(claims: Mapping[str, Any]) -> tuple[float | None, str]:
    """Return when a person signed in, if `auth_time` is a time, and how: `acr`, `amr`, and `acrs` of Entra."""
    auth_time = None
    with suppress(TokenRefused):
        auth_time = _timestamp(claims, "auth_time")
    held = [claims.get(name) for name in ("acr", "amr", "acrs")]
    values = [each for value in held for each in (cast("list[object]", value) if isinstance(value, list) else [value])]
    return auth_time, " ".join(each for each in values if isinstance(each, str) and each.split() == [each])


def has_unverified_email(claims: Mapping[str, Any]) -> bool:
    """Return whether the provider says that it has not verified the email address."""
    return claims.get("email_verified") in (False, "false")


def person_name(claims: Mapping[str, Any]) -> str:
    """Return `name <email>` of the person that claims are about, as far as they say; empty if they say nothing.

    An e-mail address that the provider calls unverified is left out.
    """
    email = "" if has_unverified_email(claims) else _text(claims.get("email")) or ""
    return person(_text(claims.get("name")) or _text(claims.get("preferred_username")) or "", email)


def login_names(claims: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the user name and the e-mail address that claims are about, verified or not."""
    return tuple(filter(None, (_text(claims.get(claim)) for claim in ("preferred_username", "email"))))


def scopes(claims: Mapping[str, Any], prefix: str) -> list[str]:
    """Return the scopes of a token without the prefix: `scope`, or some providers' `scp`, as a string or a list."""
    for claim in ("scope", "scp"):
        value: Any = claims.get(claim)
        if isinstance(value, str):
            value = value.split()
        if isinstance(value, list):
            items = cast("list[object]", value)
            return [item.removeprefix(prefix) for item in items if isinstance(item, str)]
    return []
