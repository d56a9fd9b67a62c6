"""Matching sign-ins to tenants: the first tenant whose conditions all match, without scanning all of them."""

from collections.abc import Mapping
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastn_mcp.extensions.team.claim_match import pattern_matches
from fastn_mcp.extensions.team.team_config import Team, Tenant


def team(*matches: Mapping[str, Any]) -> Team:
    tenants = [Tenant(name=f"t{number}", **match) for number, match in enumerate(matches)]
    return Team(url="https://here.example/mcp", issuer="https://issuer.example", tenant=tenants)


WORDS = st.sampled_from(["a", "b", "a*", "*", "true", "7"])
PATTERNS = st.lists(WORDS, min_size=1, max_size=2)
MATCHES = st.fixed_dictionaries(
    {"claims": st.dictionaries(st.sampled_from(["hd", "org"]), PATTERNS, max_size=2)},
    optional={
        "subjects": st.lists(st.sampled_from(["ann", "bob"]), min_size=1, max_size=2),
        "groups": PATTERNS,
    },
)
VALUES = st.sampled_from(["a", "b", "ab", "", True, 7, None, 1.5, {"a": 1}])
CLAIMS = st.fixed_dictionaries(
    {"sub": st.sampled_from(["ann", "bob", "eve"])},
    optional={"groups": VALUES | st.lists(VALUES, max_size=3), "hd": VALUES, "org": st.lists(VALUES, max_size=2)},
)


@given(st.lists(MATCHES, max_size=6), CLAIMS)
def test_lookup_finds_the_first_match(matches: list[dict[str, Any]], claims: dict[str, Any]) -> None:
    house = team(*matches)
    first = next((tenant for tenant in house.tenant if tenant.holds(claims, "groups")), None)
    assert house.tenant_of(claims) is first


class Counting(dict[str, Any]):
    looks = 0

    def get(self, key: str, default: Any = None, /) -> Any:
        self.looks += 1
        return super().get(key, default)


def test_lookup_cost_does_not_grow_with_tenants() -> None:

    def looks(tenants: int) -> int:
        match = [{"groups": [f"team-{number}"], "claims": {"hd": ["*"]}} for number in range(tenants)]
        claims = Counting(sub="ann", groups=["all", f"team-{tenants - 1}"], hd="example.com")
        served = team(*match).tenant_of(cast(Mapping[str, Any], claims))
        assert served is not None
        assert served.name == f"t{tenants - 1}"
        return claims.looks

    assert looks(200) == looks(2)


def _is(pattern: str, text: str) -> bool:
    """Reference implementation of patterns, character by character."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(_is(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return text[:1] == pattern[0] and _is(pattern[1:], text[1:])


@given(st.text("ab*.", max_size=7), st.text("ab*.\n", max_size=9))
def test_only_the_star_is_special_in_a_pattern(pattern: str, text: str) -> None:
    """docs/team-server.md: every other character matches only itself."""
    assert pattern_matches(pattern, text) == _is(pattern, text)


@pytest.mark.parametrize("verified", [False, "false"])
def test_unverified_address_matches_nothing(verified: object) -> None:
    """Whoever signs in may have made it up. Other claims and groups still match."""
    ann = {"sub": "ann", "email": "ann@example.com", "org": "acme", "email_verified": verified}
    by_address, by_both, by_org = ({"email": ["*@example.com"]}, {"email": ["*"], "org": ["acme"]}, {"org": ["acme"]})
    for claims, matches in ((by_address, False), (by_both, False), (by_org, True)):
        tenant = team({"claims": claims}).tenant_of
        assert (tenant(ann) is not None) is matches
        assert tenant(ann | {"email_verified": True}) is not None
        assert tenant({name: value for name, value in ann.items() if name != "email_verified"}) is not None


def test_hostile_claim_matches_in_linear_time() -> None:
    assert not pattern_matches("*a*b*a*b*a*b*c*a*@*.example.com", "ab" * 6_000)
    assert pattern_matches("*@*.example.com", "@" * 12_000 + ".example.com")
