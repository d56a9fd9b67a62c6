"""Rules by who asks with which client: what matches, what may loosen, and that less knowledge never loosens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.policy_files import policy_file, rules_of
from support.situations import situation

from fastn_mcp.errors import SettingsError
from fastn_mcp.policy.asker import FACTS, LOCAL, Asker, asker_of
from fastn_mcp.policy.conditions import Glob, UserCount, Who
from fastn_mcp.policy.decision import Decision, PolicyDecision
from fastn_mcp.policy.matching import PolicyRule
from fastn_mcp.policy.policy import Policy
from fastn_mcp.policy.policy_file import load_rules, without_sign_in
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.triggers import DeleteTrigger

NOW = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
ISSUER = "https://login.example.com/realms/team"
CALL = DeleteTrigger(trigger_id="t")
ANA = Asker(
    f"{ISSUER}|0001", "Ana Example <ana@example.com>", ("ana", "ana@example.com"), ("ops", "Staff"), "acme", "ide-1",
    "Claude Code",
)  # fmt: skip
STDIO = Asker(client_name="Claude Code")
Judge = Callable[..., PolicyDecision]


def decided(folder: Path, text: str, asker: Asker, call: Operation[Any] = CALL) -> PolicyDecision:
    policy = Policy("guarded", rules_of(folder, text))
    target = FastnObject.model_validate({"id": call.target}) if call.target else None
    return policy.decide(situation(call, call.effective, NOW, target, asker=asker))


def rule(then: str, who: str, key: str = "who") -> str:
    return f'[[rule]]\n{key} = {{ {who} }}\nthen = "{then}"\n'


@pytest.mark.parametrize(
    ("who", "matches"),
    [
        ('person = "ana@example.com"', True),
        ('person = "ANA@Example.COM"', True),
        ('person = "ana"', True),
        ('person = "an\u200ba"', True),
        ('person = "\uff21na Example"', True),
        ('person = "Ana Example <ana@example.com>"', True),
        (f'person = "{ISSUER}|0001"', True),
        ('person = "0001"', True),
        ('person = ["bob", "*@example.com"]', True),
        ('person = "bob"', False),
        (f'person = "{ISSUER}|0002"', False),
        ('group = "staff"', True),
        ('group = "st*"', True),
        ('group = "contractors"', False),
        ('tenant = "acme"', True),
        ('tenant = "globex"', False),
        ('client = "IDE-1"', True),
        ('client = "ide-2"', False),
        ('client_name = "claude*"', True),
        ('client_name = "Cursor"', False),
        ('person = "ana", client = "ide-1"', True),
        ('person = "ana", client = "ide-2"', False),
    ],
)
def test_rule_that_refuses_matches_as_a_person_reads(tmp_path: Path, who: str, *, matches: bool) -> None:
    verdict = decided(tmp_path, rule("deny", who), ANA)
    assert (verdict.decision is Decision.DENY) is matches
    assert (verdict.rule == "policy.toml line 1: rule *") is matches


@pytest.mark.parametrize(
    ("who", "matches"),
    [
        (f'person = "{ISSUER}|0001"', True),
        ('person = "0001"', True),
        ('person = "*|0001"', True),
        ('person = "000?"', True),
        ('person = "ana"', False),
        ('group = "Staff"', True),
        ('group = "staff"', False),
        ('group = "ops", client = "ide-1"', True),
        ('tenant = "acme"', True),
        ('tenant = "Acme"', False),
        ('client = "ide-1"', True),
        ('client = "IDE-1"', False),
        ('client = "ide-1", tenant = "globex"', False),
    ],
)
def test_rule_that_allows_matches_exactly_and_by_what_is_verified(tmp_path: Path, who: str, *, matches: bool) -> None:
    assert (decided(tmp_path, rule("allow", who), ANA).decision is Decision.ALLOW) is matches


@pytest.mark.parametrize(
    ("who", "decision"),
    [
        ('machine = "nightly"', Decision.ALLOW),
        ('machine = "hourly"', Decision.TYPED),
        ('tenant = "acme"', Decision.TYPED),
    ],
)
def test_rule_that_allows_a_machine_names_it(tmp_path: Path, who: str, decision: Decision) -> None:
    """What people may do without being asked is not meant for machines."""
    machine = replace(ANA, machine="nightly")
    assert decided(tmp_path, rule("allow", who), machine).decision is decision


@pytest.mark.parametrize(
    ("asker", "who", "decision", "words"),
    [
        # Without a sign-in nobody knows the person; there is no tenant and no OAuth client.
        (STDIO, 'group = "contractors"', Decision.DENY, "the group is not known, because there is no sign-in"),
        (STDIO, 'person = "bob"', Decision.DENY, "the person is not known, because there is no sign-in"),
        (STDIO, 'tenant = "acme"', Decision.TYPED, ""),
        (STDIO, 'client = "ide-1"', Decision.TYPED, ""),
        (STDIO, 'client_name = "Claude*"', Decision.DENY, 'the client name is "Claude Code"'),
        (STDIO, 'client_name = "Cursor"', Decision.TYPED, ""),
        (Asker(), 'client_name = "Cursor"', Decision.DENY, "the client name is not known"),
        # A sign-in that does not say.
        (replace(ANA, groups=None), 'group = "contractors"', Decision.DENY, "the group is not known"),
        (replace(ANA, groups=()), 'group = "contractors"', Decision.TYPED, ""),
        (replace(ANA, client=""), 'client = "ide-2"', Decision.DENY, "the client is not known"),
        (replace(ANA, tenant=""), 'tenant = "globex"', Decision.DENY, "the tenant is not known"),
        (replace(ANA, login_names=()), 'person = "bob"', Decision.DENY, "the person is not known"),
        (replace(ANA, login_names=(), person=""), 'person = "bob"', Decision.DENY, "the person is not known"),
        (replace(ANA, login_names=(), person=""), f'person = "{ISSUER}|0002"', Decision.TYPED, ""),
        (replace(ANA, client_name=""), 'client_name = "Cursor"', Decision.DENY, "the client name is not known"),
    ],
)  # fmt: skip
def test_unknown_fact_counts_as_the_stricter_case(
    tmp_path: Path, asker: Asker, who: str, decision: Decision, words: str
) -> None:
    verdict = decided(tmp_path, rule("deny", who), asker)
    assert (verdict.decision, verdict.matched) == (decision, words)


@pytest.mark.parametrize("asker", [STDIO, Asker(), asker_of({"tenant": ["other"]})])
@pytest.mark.parametrize("fact", ["person", "group", "client"])
def test_rule_that_allows_never_matches_what_is_not_known(tmp_path: Path, fact: str, asker: Asker) -> None:
    assert decided(tmp_path, rule("allow", f'{fact} = "*"'), asker).decision is Decision.TYPED


@pytest.mark.parametrize(
    ("asker", "decision"),
    [
        (ANA, Decision.TYPED),
        (replace(ANA, groups=("OPS",)), Decision.DENY),
        (replace(ANA, groups=("sales",)), Decision.DENY),
        (replace(ANA, groups=None), Decision.DENY),
        (STDIO, Decision.DENY),
    ],
)
def test_exemption_from_a_rule_that_refuses_is_exact(tmp_path: Path, asker: Asker, decision: Decision) -> None:
    assert decided(tmp_path, rule("deny", 'group = "ops"', "unless"), asker).decision is decision


@pytest.mark.parametrize(
    ("name", "decision"), [("Cursor", Decision.ALLOW), ("CLAUDE code", Decision.TYPED), ("", Decision.TYPED)]
)
def test_exemption_from_a_rule_that_allows_is_read_loosely(tmp_path: Path, name: str, decision: Decision) -> None:
    text = rule("allow", 'client_name = "claude*"', "unless")
    assert decided(tmp_path, text, replace(ANA, client_name=name)).decision is decision


ALL_DESTROY = '[[rule]]\neffects = "destroy"\nthen = "deny"\n'


REMOVED = "second: was removed: who may approve is set for approvers"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (rule("deny", 'groups = "a"'), 2, "no key 'groups' in who (did you mean 'group'?); known are person, group,"),
        (rule("deny", ""), 2, "who: names nobody; known are person, group, tenant, client, client_name"),
        (rule("deny", "group = []"), 2, "group: must not be empty"),
        (rule("deny", "client = 7"), 2, "client: must be a list of texts, or one text"),
        (rule("allow", 'client_name = "Claude Code"'), 2, "client_name: any client can call itself so"),
        (rule("allow", 'group = "a", client_name = "b"'), 2, "client_name: any client can call itself so"),
        (rule("deny", 'client_name = "b"', "unless"), 2, "client_name: any client can call itself so"),
        (rule("allow", 'person = "Ana Example"'), 2, "'Ana Example' reads like a name or an e-mail address"),
        (rule("allow", 'person = ["0001", "ana@example.com"]'), 2, "'ana@example.com' reads like a name or an e-mail"),
        (rule("confirm", 'person = "ana@example.com"', "unless"), 2, 'a rule that loosens needs "ISSUER|SUBJECT"'),
        (rule("four_eyes", 'group = "a"') + 'second = "b"\n', 4, REMOVED),
        ('[[protect]]\ncustomer = "a"\nsecond = "b"', 3, REMOVED),
        (rule("deny", 'group = "a"') + '[[rule]]\nthen = "deny"', 1, "never applies: policy.toml line 4: rule *"),
        ('[[rule]]\nthen = "deny"\n' + rule("allow", 'group = "a"'), 3, "never applies: policy.toml line 1: rule *"),
        (ALL_DESTROY + '[[rule]]\ntool = "delete_trigger"\nthen = "deny"\nunless = { group="a" }', 4, "never applies"),
    ],
)  # fmt: skip
def test_wrong_condition_stops_the_start_with_the_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_rules(policy_file(tmp_path, text))
    assert f"policy.toml, line {line}: " in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize("key", ["who", "unless"])
def test_rule_with_a_condition_covers_no_other(tmp_path: Path, key: str) -> None:
    text = rule("deny", 'group = "a"', key) + '[[rule]]\ntool = "delete_trigger"\nthen = "four_eyes"\n'
    assert len(rules_of(tmp_path, text).rules) == 2


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (rule("deny", 'group = "a"'), "applies to everybody on a server without a sign-in: the group is not known"),
        (rule("deny", 'group = "a"', "unless"), "applies to everybody on a server without a sign-in."),
        (rule("allow", 'group = "a"'), "never applies on a server without a sign-in."),
        (rule("deny", 'client = "a"'), "never applies on a server without a sign-in."),
        (rule("deny", 'client = "a", client_name = "b"'), "never applies on a server without a sign-in."),
        (rule("deny", 'client_name = "b"'), None),
    ],
)
def test_check_warns_of_what_a_server_without_a_sign_in_cannot_tell(
    tmp_path: Path, text: str, warning: str | None
) -> None:
    warnings = [*without_sign_in(rules_of(tmp_path, text))]
    assert len(warnings) == (warning is not None)
    assert all(f"policy.toml line 1: rule * {warning}" in each for each in warnings)


_texts = st.sampled_from(["a", "A", "b", "ab", "*", "?b", "i|a", "*|b", "\uff41"])
_values = st.sampled_from(["a", "A", "b", "ab", "\uff41", "a\u200b"])
_tables = st.dictionaries(st.sampled_from(FACTS), st.lists(_texts, min_size=1, max_size=2), min_size=1, max_size=3)
_askers = st.builds(
    Asker,
    st.sampled_from([LOCAL, "i|a", "i|b", "i|ab", "|"]),
    st.one_of(st.just(""), _values),
    st.lists(_values, max_size=2).map(tuple),
    st.one_of(st.none(), st.lists(_values, max_size=2).map(tuple)),
    st.one_of(st.just(""), _values),
    st.one_of(st.just(""), _values),
    st.one_of(st.just(""), _values),
)
_LESS: Mapping[str, object] = {
    "person": "", "login_names": (), "groups": None, "tenant": "", "client": "", "client_name": "",
}  # fmt: skip


def who(table: Mapping[str, Sequence[str]]) -> Who:
    return Who({name: tuple(map(Glob, texts)) for name, texts in table.items()})


def made(then: Decision, table: Mapping[str, Sequence[str]], exempt: Mapping[str, Sequence[str]]) -> PolicyRule:
    return PolicyRule(
        name="r",
        tools=None,
        effects=None,
        targets=(),
        dependents=None,
        conditions={},
        then=then,
        who=who(table),
        unless=who(exempt),
    )


@given(_tables, _askers)
def test_rule_that_allows_matches_no_more_than_one_that_refuses(
    table: Mapping[str, Sequence[str]], asker: Asker
) -> None:
    if who(table).match(asker, exact=True) is not None:
        assert who(table).match(asker, exact=False) is not None


@given(_tables, st.one_of(st.just({}), _tables), _askers, st.sampled_from(sorted(_LESS)))
def test_knowing_less_of_who_asks_never_loosens(
    table: Mapping[str, Sequence[str]], exempt: Mapping[str, Sequence[str]], asker: Asker, fact: str
) -> None:
    less = replace(asker, **{fact: _LESS[fact]})
    assert (
        asker.principal == LOCAL
        or made(Decision.DENY, table, exempt).asked_by(asker) is None
        or (made(Decision.DENY, table, exempt).asked_by(less) is not None)
    )
    if made(Decision.ALLOW, table, exempt).asked_by(less) is not None:
        assert made(Decision.ALLOW, table, exempt).asked_by(asker) is not None


@given(_tables, _askers, st.sampled_from(["person", "login_names", "client_name"]), _values)
def test_claims_of_a_caller_never_let_a_rule_allow(
    table: Mapping[str, Sequence[str]], asker: Asker, fact: str, claim: str
) -> None:
    claimed = replace(asker, **{fact: (claim,) if fact == "login_names" else claim})
    assert who(table).match(claimed, exact=True) == who(table).match(asker, exact=True)


def test_dependents_and_who_have_to_match_together() -> None:
    facts = made(Decision.DENY, {"client": ["ide-1"]}, {})
    assert replace(facts, dependents=UserCount(1, None)).match(situation(CALL, CALL.effective, NOW, asker=ANA))
