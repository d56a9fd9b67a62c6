"""Token validation. RFC 8725 and RFC 9068 say what to check; joserfc signs the tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from support.clock import Clock
from support.forged_tokens import EC, NO_ALGORITHM, NO_KEY, REFUSED, WRONG, stranger
from support.identity_provider import AUDIENCE, ISSUER, Key, Provider, rsa

from fastn_mcp.extensions.team.oidc import FIRST_RETRY_AFTER, REFRESH_AFTER, RETRY_AFTER, TRUST_FOR, IssuerKeys, NoKeys
from fastn_mcp.extensions.team.tokens import ALGORITHMS, TokenRefused, Tokens, Trust, person_name, scopes


class Verifier:
    """The verifier of one server, and the provider that it trusts."""

    def __init__(self, **trust: Any) -> None:
        self.clock = Clock()
        self.provider = Provider(now=lambda: self.clock.at.timestamp())
        transport = httpx2.ASGITransport(app=self.provider.app)
        self.keys = IssuerKeys(ISSUER, self.clock.system(), transport)
        fields: dict[str, Any] = {"algorithms": ALGORITHMS, "leeway": 30.0} | trust
        self.tokens = Tokens(Trust(ISSUER, AUDIENCE, **fields), self.keys, self.clock.system())

    async def __call__(self, token: str) -> str:
        """Return `ok` or the reason of a refusal."""
        try:
            await self.tokens.verify(token)
        except TokenRefused as refused:
            return str(refused)
        return "ok"

    @property
    def reads(self) -> int:
        return self.provider.asked.count("/realms/team/keys")


async def test_subject_is_read_from_the_configured_claim() -> None:
    door = Verifier()
    access = await door.tokens.verify(door.provider.token(oid="4711"))
    assert (access.subject, (access.claims or {})["sub"]) == ("anna", "anna")
    named = access.of_person("oid")
    assert (named.subject, (named.claims or {})["sub"]) == ("4711", "4711")
    unusable: list[dict[str, Any]] = [{}, {"oid": ""}, {"oid": 7}, {"oid": ["4711"]}]
    for claims in unusable:
        access = await door.tokens.verify(door.provider.token(**claims))
        with pytest.raises(TokenRefused, match="It names no subject"):
            access.of_person("oid")


async def test_valid_token_is_accepted() -> None:
    """RFC 9068: issuer, subject, client, scopes; for exactly this server (RFC 8707)."""
    door = Verifier()
    token = door.provider.token(groups=["ops"])
    access = await door.tokens.verify(token)
    assert (access.subject, access.client_id, access.scopes) == ("anna", "an-ide", ["fastn:read"])
    assert access.claims is not None
    assert access.claims["groups"] == ["ops"]


@pytest.mark.parametrize("what", REFUSED)
async def test_invalid_token_is_refused_with_its_reason(what: str) -> None:
    """RFC 8725."""
    door = Verifier()
    make, why = REFUSED[what]
    assert await door(make(door.provider)) == why
    assert await door(door.provider.token()) == "ok"


GOOD: dict[str, Callable[[Provider], str]] = {
    "one of several audiences": lambda p: p.token(aud=["https://other.example.com", AUDIENCE]),
    "just expired": lambda p: p.token(exp=int(p.now()) - 29),
    "nearly valid": lambda p: p.token(nbf=int(p.now()) + 29, iat=int(p.now()) + 29),
    "typ JWT": lambda p: p.token(header={"typ": "JWT"}),
    "no typ": lambda p: p.token(header={"typ": None}),
    "no nbf and no iat": lambda p: p.token(nbf=None, iat=None),
    "PS256": lambda p: p.token(alg="PS256"),
    "no kid, and one key": lambda p: p.token(header={"kid": None}),
}


@pytest.mark.parametrize("what", GOOD)
async def test_provider_variants_are_accepted(what: str) -> None:
    """Any OpenID provider, and clocks that differ by half a minute."""
    door = Verifier()
    assert await door(GOOD[what](door.provider)) == "ok"


@dataclass(frozen=True)
class KeyCase:
    """Keys that the issuer publishes, and what becomes of a token that is signed with another or the same."""

    published: tuple[Key, ...]
    signer: Key
    alg: str = "RS256"
    outcome: str = NO_KEY


def key_cases() -> dict[str, KeyCase]:
    p384 = ECKey.generate_key("P-384", {"kid": "ec"}, auto_kid=False)
    ed25519 = OKPKey.generate_key("Ed25519", {"kid": "ed"}, auto_kid=False)
    secret = OctKey.generate_key(256, {"kid": "first", "alg": "RS256"}, auto_kid=False)
    signs, small, no_kid = RSAKey.generate_key(2048, {"kid": "enc"}, auto_kid=False), rsa("small", 1024), rsa(None)
    encrypts = RSAKey.import_key(signs.as_dict(private=True) | {"use": "enc"})
    return {
        "RFC 7517: P-256": KeyCase((stranger(), EC), EC, "ES256", "ok"),
        "RFC 7517: P-384": KeyCase((stranger(), p384), p384, "ES384", "ok"),
        "RFC 7517: Ed25519": KeyCase((stranger(), ed25519), ed25519, "EdDSA", "ok"),
        "RFC 7518, 3.4: ES256 is P-256": KeyCase((p384,), EC, "ES256"),
        "RFC 7518, 3.3: 2048 bits": KeyCase((small,), small, outcome=WRONG),
        "one of two keys without an id": KeyCase((no_kid, stranger()), no_kid),
        "RFC 7517: a published secret proves nothing": KeyCase((secret, encrypts), stranger()),
        "RFC 7517, 4.2: a key to encrypt": KeyCase((secret, encrypts), signs),
    }


async def test_key_is_used_only_as_it_is_published() -> None:
    outcomes: dict[str, str] = {}
    cases = key_cases()
    for name, case in cases.items():
        door = Verifier()
        door.provider.keys = [*case.published]
        outcomes[name] = await door(door.provider.token(case.signer, case.alg))
    assert outcomes == {name: case.outcome for name, case in cases.items()}


async def test_unlisted_algorithms_are_refused() -> None:
    """The team file lists the algorithms; the token does not choose."""
    door = Verifier(algorithms=("ES256",))
    assert await door(door.provider.token()) == NO_ALGORITHM


async def test_unknown_key_id_refreshes_the_keys() -> None:
    door = Verifier()
    old = door.provider.keys[0]
    assert await door(door.provider.token()) == "ok"
    door.provider.keys = [stranger("second")]
    door.clock.pass_(RETRY_AFTER)
    assert await door(door.provider.token()) == "ok"
    assert door.reads == 2
    assert await door(door.provider.token(old)) == NO_KEY


async def test_invented_key_ids_do_not_flood_the_provider() -> None:
    door = Verifier()
    await door(door.provider.token())
    for number in range(10):
        assert await door(door.provider.token(stranger(), header={"kid": f"invented {number}"})) == NO_KEY
    assert door.reads == 1
    door.clock.pass_(RETRY_AFTER)
    for number in range(10):
        await door(door.provider.token(stranger(), header={"kid": f"invented {number}"}))
    assert door.reads == 2


async def test_keys_are_refreshed_and_trusted_during_outages() -> None:
    """A short outage of the provider locks nobody out; one of a day does."""
    door = Verifier()
    good = door.provider.token(exp=int(door.clock.at.timestamp()) + 10 * 86_400)
    assert await door(good) == "ok"
    door.clock.pass_(REFRESH_AFTER)
    assert await door(good) == "ok"
    assert door.reads == 2
    door.provider.down = True
    door.clock.pass_(TRUST_FOR - 1)
    assert await door(good) == "ok"
    door.clock.pass_(1)
    with pytest.raises(NoKeys):
        await door(good)
    door.provider.down = False
    door.clock.pass_(RETRY_AFTER)
    assert await door(good) == "ok"


NO_PROVIDER: dict[str, dict[str, Any]] = {
    "another issuer's document": {"issuer": "https://evil.example"},
    "keys without TLS": {"jwks_uri": "http://login.example.com/realms/team/keys"},
    "no keys": {"jwks_uri": f"{ISSUER}/.well-known/openid-configuration"},
    "no address": {"jwks_uri": None},
    "an address that is none": {"jwks_uri": "https://["},
    "an address with a control character": {"jwks_uri": f"{ISSUER}/\0"},
    "something not there": {"jwks_uri": f"{ISSUER}/nothing"},
    "a document that is too large": {"more": "x" * 600_000},
}


@pytest.mark.parametrize("what", NO_PROVIDER)
async def test_token_is_undecided_without_keys(what: str) -> None:
    """It is not refused as invalid, since a client would discard it."""
    door = Verifier()
    door.provider.metadata = NO_PROVIDER[what]
    with pytest.raises(NoKeys):
        await door.tokens.verify(door.provider.token())
    assert not await door.keys.reached()
    door.provider.metadata = {}
    door.clock.pass_(FIRST_RETRY_AFTER)
    assert await door.keys.reached()
    assert await door(door.provider.token()) == "ok"
    await door.keys.aclose()


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"scope": "fastn:read openid"}, ["fastn:read", "openid"]),
        ({"scp": ["fastn:read", 7]}, ["fastn:read"]),
        ({"scp": "fastn:read"}, ["fastn:read"]),
        ({"scope": 7}, []),
        ({}, []),
    ],
)
def test_scopes_are_parsed_in_all_forms(claims: dict[str, Any], expected: list[str]) -> None:
    """RFC 9068: scope. Scp, as some providers call it."""
    assert scopes(claims, "") == expected


@pytest.mark.parametrize(
    ("claims", "shown"),
    [
        ({"name": "Anna Example", "email": "anna@example.com"}, "Anna Example <anna@example.com>"),
        ({"preferred_username": "anna", "email": "anna@example.com"}, "anna <anna@example.com>"),
        ({"name": "Anna", "preferred_username": "anna7"}, "Anna"),
        ({"email": "anna@example.com"}, "anna@example.com"),
        ({"preferred_username": "anna@example.com", "email": "anna@example.com"}, "anna@example.com"),
        ({"name": "Anna", "email": "anna@example.com", "email_verified": False}, "Anna"),
        ({"name": "Anna", "email": "anna@example.com", "email_verified": "false"}, "Anna"),
        ({"name": ["Anna"], "email": 7, "sub": "anna"}, ""),
        ({"name": "Boss <boss@example.com>|"}, "Boss boss@example.com"),
        ({"name": "An\u202ena\n"}, "An\\u{202e}na"),
        ({"name": "a" * 150}, "a" * 100 + " [50 more characters]"),
    ],
)
def test_person_is_shown_by_name_and_address(claims: dict[str, Any], shown: str) -> None:
    """OpenID Connect Core, 5.1: standard claims. Neither of the two can pose as the other, or hide text."""
    assert person_name(claims) == shown
