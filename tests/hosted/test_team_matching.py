"""Which tenant serves a sign-in: the first whose every condition holds, found without looking at all of them."""

from collections.abc import Mapping
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from fastn_mcp.hosted.team_config import Team, Tenant, pattern_matches


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
def test_it_is_the_first_that_holds(matches: list[dict[str, Any]], claims: dict[str, Any]) -> None:
    """Ours (docs/hosting.md): as if each were looked at in turn."""
    house = team(*matches)
    first = next((tenant for tenant in house.tenant if tenant.holds(claims, "groups")), None)
    assert house.tenant_of(claims) is first


class Counting(dict[str, Any]):
    """Claims that count how often they are looked at."""

    looks = 0

    def get(self, key: str, default: Any = None, /) -> Any:
        self.looks += 1
        return super().get(key, default)


def test_a_request_costs_no_more_where_there_are_more_tenants() -> None:
    """Issue 9: nothing grows faster than its work. Counted in claims that are looked at."""

    def looks(tenants: int) -> int:
        match = [{"groups": [f"team-{number}"], "claims": {"hd": ["*"]}} for number in range(tenants)]
        claims = Counting(sub="ann", groups=["all", f"team-{tenants - 1}"], hd="example.com")
        found = team(*match).tenant_of(cast(Mapping[str, Any], claims))
        assert found is not None
        assert found.name == f"t{tenants - 1}"
        return claims.looks

    assert looks(200) == looks(2)


def _is(pattern: str, text: str) -> bool:
    """What a pattern means, letter by letter."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(_is(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return text[:1] == pattern[0] and _is(pattern[1:], text[1:])


@given(st.text("ab*.", max_size=7), st.text("ab*.\n", max_size=9))
def test_a_pattern_means_that_text_with_any_text_for_each_star(pattern: str, text: str) -> None:
    """Ours (docs/hosting.md): and nothing else in it is anything but itself."""
    assert pattern_matches(pattern, text) == _is(pattern, text)


def test_whoever_chooses_a_claim_cannot_make_it_take_long_to_match() -> None:
    """THREATS T16: with a search that goes back, this one would not end."""
    assert not pattern_matches("*a*b*a*b*a*b*c*a*@*.example.com", "ab" * 6_000)
    assert pattern_matches("*@*.example.com", "@" * 12_000 + ".example.com")
