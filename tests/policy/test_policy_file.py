"""A policy file that is wrong stops the start, and the message says where and what."""

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastn_mcp.cli.policy_calls import load_cases
from fastn_mcp.config.strict_toml import ConfigError
from fastn_mcp.errors import SettingsError
from fastn_mcp.policy.decision import DESTROY_RATE
from fastn_mcp.policy.policy import Policy
from fastn_mcp.policy.policy_file import load_rules
from fastn_mcp.policy.schema import condition, named
from fastn_mcp.tools.tool import Effect

EXAMPLE = Path(__file__).parents[2] / "examples" / "policy.toml"
DOCUMENTED = sorted((Path(__file__).parents[2] / "docs").glob("policy*.md"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.toml"
    path.touch(mode=0o600)
    return path


def wrong(file: Path, text: str) -> str:
    """What is said of a file that holds this."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_rules(file)
    return str(caught.value)


def rule(tool: str, more: str = "", then: str = "deny") -> str:
    return f'[[rule]]\ntool = "{tool}"\nthen = "{then}"\n{more}'


RULE = rule("delete_trigger")


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        # Names.
        ("\n[default]\n", 2, "there is no table 'default' (did you mean 'defaults'?)"),
        ("zzz = 1\n", 1, "known are defaults, protect, rule, window, budget, breaker"),
        ('[defaults]\n\ndestory = "deny"', 3, "no key 'destory' in [defaults] (did you mean 'destroy'?)"),
        (RULE + "resaon = 'x'\n", 4, "no key 'resaon' in [[rule]] (did you mean 'reason'?)"),
        (
            RULE + "when = { dependants = { min = 1 } }",
            4,
            "none of its tools has an argument 'dependants' (did you mean 'dependents'?)",
        ),
        (RULE + "when = { dependents = { mni = 1 } }", 4, "no key 'mni' in dependents (did you mean 'min'?)"),
        (
            rule("run_workflow", 'when.enviroment = "live"'),
            4,
            "no argument 'enviroment' (did you mean 'environment'?)".removeprefix("no "),
        ),
        ("[defaults.liv]\n", 1, "no key 'liv' in [defaults] (did you mean 'live'?)"),
        ('[defaults.live]\ndestory = "deny"', 2, "no key 'destory' in [defaults.live] (did you mean 'destroy'?)"),
        ('[budget.run]\nper = "day"', 2, "there is no key 'per' in [budget.run]"),
        (RULE + 'key = "prod"', 4, "key: must be 'live' or 'test'"),
        # Values.
        ('[defaults]\ndestroy = "outofband"', 2, "destroy: unknown decision 'outofband' (did you mean 'out_of_band'?)"),
        ("[defaults]\ndestroy = 3", 2, "destroy: unknown decision 3; use one of allow, confirm, typed"),
        ('[[rule]]\ntool = "delete_trigger"\nthen = "Deny"', 3, "then: unknown decision 'Deny' (did you mean 'deny'?)"),
        ('[[rule]]\ntool = "delete_trigger"\n', 1, "[[rule]] needs the key 'then'"),
        ("[[rule]]\ntool = 7\nthen = 'deny'", 2, "tool: must be a list of texts, or one text"),
        ("[[rule]]\ntool = ['']\nthen = 'deny'", 2, "tool: must be a non-empty text"),
        ("[[rule]]\ntool = []\nthen = 'deny'", 2, "tool: must not be empty"),
        (RULE + "reason = 1", 4, "reason: must be a text, in quotes"),
        (RULE + "when = 1", 4, "when: must be a table"),
        (RULE + "when = { dependents = 1 }", 4, "dependents must be a table"),
        (RULE + "when = { dependents = {} }", 4, "dependents: needs min, max or both"),
        (RULE + "when = { dependents = { min = -1 } }", 4, "min: must be greater than or equal to 0"),
        (RULE + "when = { dependents = { min = 2, max = 1 } }", 4, "dependents: min is more than max"),
        ('[[protect]]\nreason = "x"', 1, "[[protect]] names nothing; give it one of customer, connector"),
        ('[[protect]]\nsecret = "A"\nthen = "allow"', 3, "then: what is protected cannot be allowed"),
        ("[protect]\nsecret = 'A'", 1, "each protect is a table of its own, for example [[protect]]"),
        ("defaults = 1", 1, "defaults must be a table, for example [defaults]"),
        ('[[window]]\neffects = "trash"\nopen = "Mon 08:00-17:00"', 3, "open: 'Mon 08:00-17:00' names no time zone"),
        (
            '[[window]]\neffects = "trash"\nopen = ["Mon 08:00-17:00 UTC",\n"Mo 1"]',
            3,
            "open: 'Mo 1' is not of the form",
        ),
        ('[[window]]\neffects = ["trsh"]\nopen = "x"', 2, "effects: unknown effect 'trsh' (did you mean 'trash'?)"),
        ("[budget]\ndestroy = true", 2, "destroy: must be a whole number"),
        ("[budget]\ndestroy = -1", 2, "destroy: must be greater"),
        ("[budget]\nper = 'week'", 2, "per: must be 'day' or 'run'"),
        ("[breaker]\ndeclined = 0", 2, "declined: must be greater"),
        ("[breaker]\nrest = 10", 2, 'rest: must be a time in seconds, minutes or hours, for example "90s"'),
        ("[breaker]\nrest = '0m'", 2, "rest: must be a time"),
        # Reads are always allowed, so nothing can be said of them.
        ("[defaults]\nread = 'deny'", 2, "no key 'read' in [defaults]"),
        ('[[rule]]\neffects = "READ"\nthen = "deny"', 2, "effects: reads are always allowed"),
        ('[[rule]]\ntool = "list_*"\nthen = "deny"', 2, "tool: 'list_*' names only tools that read"),
        # What can never decide.
        (
            '[[rule]]\ntool = "delete_custmer"\nthen = "deny"',
            2,
            "unknown tool 'delete_custmer' (did you mean 'delete_customer'?)",
        ),
        ('[[rule]]\ntool = ["delete_*",\n "remove_*"]\nthen = "deny"', 2, "tool: unknown tool 'remove_*'"),
        (
            '[[rule]]\ntool = "delete_trigger"\neffects = ["TRASH"]\nthen = "deny"',
            3,
            "effects: none of its tools can have the effect trash; they have destroy",
        ),
        (
            RULE + '[[rule]]\ntool = "delete_*"\nthen = "deny"',
            1,
            "this rule never applies: policy.toml line 4: rule delete_* covers it and is at least as strict",
        ),
        (
            RULE + RULE,
            4,
            "this rule never applies: policy.toml line 1: rule delete_trigger covers it and is at least as strict",
        ),
        (
            '[[rule]]\ntool = "create_secret"\nthen = "deny"\n[[rule]]\ntool = "delete_*"\nthen = "deny"\n' + RULE,
            7,
            "line 4: rule delete_* covers it and is at least as strict",
        ),
        (
            '[[rule]]\neffects = "DESTROY"\nthen = "deny"\n[[rule]]\neffects = "destroy"\ntarget = "A"\nthen = "allow"',
            4,
            "line 1: rule destroy covers it and is at least as strict",
        ),
        (
            rule("delete_trigger", then="confirm"),
            1,
            'never applies: typed is asked for anyway. Only then = "allow" loosens a default',
        ),
        (
            '[defaults]\ntrash = "out_of_band"\n[[rule]]\neffects = "trash"\nthen = "typed"',
            3,
            "never applies: out_of_band is asked for anyway",
        ),
        (
            '[[rule]]\ntool = "delete_workflow"\nkey = "live"\nthen = "confirm"',
            1,
            "never applies: typed is asked for anyway",
        ),
        (
            '[defaults.live]\nwrite = "typed"\n[[rule]]\neffects = "write"\nkey = "live"\nthen = "confirm"',
            3,
            "never applies: typed is asked for anyway",
        ),
        (
            '[[rule]]\ntool = "delete_*"\nthen = "deny"\n' + RULE + 'key = "test"',
            4,
            "line 1: rule delete_* covers it and is at least as strict",
        ),
        # Values.
        ("[[rule]]\neffects = [1]\nthen = 'deny'", 2, "unknown effect 1"),
        ("[[window]]\neffects = 'trash'\nopen = [8]", 3, "'8' is not of the form"),
        *(
            (
                f"[budget]\ndestroy_rate = {rate}",
                2,
                'destroy_rate: must be a number and a time, for example "10 per 5m"',
            )
            for rate in ("10", '"10"', '"0 per 5m"', '"10 per 5"', '"10 per 5d"', '"10 per 0s"', '"-1 per 5m"')
        ),
        # Arguments.
        (
            '[[rule]]\ntool = "delete_secret"\nthen = "allow"\nwhen = { environment = "test" }',
            4,
            "when: none of its tools has an argument 'environment'",
        ),
        (
            '[[rule]]\ntool = "create_customer"\nthen = "deny"\nwhen = { new_name = "x" }',
            4,
            "when: none of its tools has an argument 'new_name'",
        ),
        ('[[rule]]\ntool = "delete_secret"\nthen = "deny"\nwhen = { environment = 5 }', 4, "compared with a text"),
        (
            '[[rule]]\neffects = "spend"\nthen = "deny"\nwhen = { trigger_id = "t" }',
            4,
            "when: none of its tools has an argument 'trigger_id'",
        ),
        (RULE + "when = { trigger_id = 1 }", 4, "when: trigger_id has to be compared with a text"),
        (RULE + "when = { trigger_id = [] }", 4, "when: trigger_id has to be compared with a text"),
        (
            rule("create_secret", 'when = { value = "*" }'),
            4,
            "'value' is a secret, which a policy file must not contain",
        ),
        (
            rule("run_workflow", 'when = { input = "*" }'),
            4,
            "'input' has parts, and only texts and numbers can be compared",
        ),
        (
            rule("create_workflow", "when = { timeout_ms = true }"),
            4,
            "when: timeout_ms has to be compared with a whole number",
        ),
        # TOML.
        ("[defaults\n", 1, "not TOML"),
        ("\n\na = \n", 3, "not TOML"),
        (RULE + 'then = "deny"\n', 4, "not TOML: Cannot overwrite a value"),
    ],
)
def test_each_mistake_is_named_with_its_line(file: Path, text: str, line: int, words: str) -> None:
    message = wrong(file, text)
    assert message.startswith(f"{file}, line {line}: ")
    assert words in message


def test_mistake_says_how_to_check_its_correction(file: Path) -> None:
    file.write_text("[defaults]\nwrite = 1\n")
    with pytest.raises(SettingsError) as caught:
        load_rules(file)
    assert caught.value.next_step == f"Correct the line, then run: fastn-mcp policy check {file}"


def test_first_of_several_mistakes_is_named(file: Path) -> None:
    assert "line 2: there is no key 'a'" in wrong(file, "[breaker]\na = 1\nb = 2\n[[rule]]\nthen = 'x'")


@pytest.mark.parametrize("text", ['x = """', "x = " + "[" * 5000, "x = " + "[" * 5000 + "]" * 5000])
def test_invalid_toml_is_refused(file: Path, text: str) -> None:
    assert str(file) in wrong(file, text)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o664])
def test_policy_file_that_others_can_change_is_refused(file: Path, mode: int) -> None:
    file.write_text(RULE)
    file.chmod(mode)
    with pytest.raises(SettingsError, match=rf"changed by users other than.*chmod go-w {file}"):
        load_rules(file)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400])
def test_policy_file_that_others_can_read_is_accepted(file: Path, mode: int) -> None:
    file.write_text(RULE)
    file.chmod(mode)
    assert load_rules(file).rules


def test_missing_or_binary_file_is_refused(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"no policy file .*Correct the path, --policy or FASTN_POLICY\."):
        load_rules(file.with_name("other.toml"))
    with pytest.raises(SettingsError, match="cannot be read"):
        load_rules(file.parent)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not text in UTF-8"):
        load_rules(file)


def test_empty_file_keeps_the_defaults(file: Path) -> None:
    rules = load_rules(file)
    policy = Policy("guarded", rules)
    assert policy.rules.breaker == Policy("guarded").rules.breaker
    assert not any(policy.rules.budgets(effect, datetime.now(UTC)) for effect in Effect)
    assert all(rules.default(effect, live=live) is None for effect in Effect for live in (True, False))


def test_digest_covers_every_byte(file: Path) -> None:
    file.write_text(RULE)
    first = load_rules(file).digest
    file.write_text(RULE + "#")
    assert first == hashlib.sha256(RULE.encode()).hexdigest() != load_rules(file).digest


def test_breaker_keeps_defaults_of_missing_keys(file: Path) -> None:
    file.write_text('[breaker]\nrest = "90s"\n[budget]\nper = "run"\nwrite = 0')
    policy = Policy("guarded", load_rules(file))
    assert policy.rules.breaker == (5, 90.0)
    assert policy.rules.budgets(Effect.WRITE, datetime(2026, 3, 29, tzinfo=UTC)) == {"run": 0}


def test_smaller_of_two_run_budgets_applies(file: Path) -> None:
    now = datetime(2026, 3, 29, tzinfo=UTC)
    file.write_text('[budget]\nper = "run"\nwrite = 5\nspend = 1\n[budget.run]\nwrite = 9\nspend = 0\naccess = 3\n')
    rules = load_rules(file)
    assert rules.budgets(Effect.WRITE, now) == {"run": 5}
    assert rules.budgets(Effect.SPEND, now) == {"run": 0}
    assert rules.budgets(Effect.ACCESS, now) == {"run": 3}
    file.write_text(file.read_text().replace('per = "run"', ""))
    both = load_rules(file)
    assert both.budgets(Effect.WRITE, now) == {"2026-03-29": 5, "run": 9}
    assert [*both.budgets(Effect.WRITE, datetime(2026, 3, 29, 23, 30, tzinfo=UTC))] == ["2026-03-29", "run"]
    assert [*both.budgets(Effect.WRITE, datetime.fromisoformat("2026-03-29T23:30:00-05:00"))] == ["2026-03-30", "run"]


@pytest.mark.parametrize(
    ("text", "rate"), [("3 per 90s", (3, 90.0)), ("10 per 5m", (10, 300.0)), ("1 per 2 h", (1, 7200.0))]
)
def test_rate_of_destroying_is_a_number_and_a_time(file: Path, text: str, rate: tuple[int, float]) -> None:
    assert Policy("guarded", load_rules(file)).destroy_rate == DESTROY_RATE
    file.write_text(f'[budget]\ndestroy_rate = "{text}"')
    assert Policy("guarded", load_rules(file)).destroy_rate == rate
    assert Policy("unattended", load_rules(file)).destroy_rate is None


def test_rule_may_require_plain_confirmation_of_a_customer_deletion(file: Path) -> None:
    file.write_text('[[rule]]\ntool = "delete_customer"\nthen = "confirm"')
    assert len(load_rules(file).rules) == 1


def test_rule_is_named_after_its_tools_or_else_its_effects(file: Path) -> None:
    file.write_text(
        '[[rule]]\ntool = ["delete_trigger", "run_*"]\neffects = "destroy"\nthen = "deny"\n'
        '[[rule]]\neffects = ["trash", "spend"]\nthen = "deny"\n'
        '[[rule]]\nkey = "live"\nthen = "four_eyes"\n'
    )
    assert [rule.name for rule in load_rules(file).rules] == [
        "policy.toml line 1: rule delete_trigger, run_*",
        "policy.toml line 5: rule trash, spend",
        "policy.toml line 8: rule *",
    ]


def test_rule_names_tools_whatever_the_case() -> None:
    for glob in ("delete_trigger", "DELETE_TRIGG*"):
        assert [operation.tool_name() for operation in named(glob)] == ["delete_trigger"]
    with pytest.raises(ValueError, match=r"unknown tool 'remove_secret'"):
        named("remove_secret")


def test_argument_of_two_types_cannot_be_compared() -> None:
    tools: list[Any] = [
        SimpleNamespace(
            model_fields=["size"],
            secrets=frozenset,
            input_schema=lambda kind=kind: {"properties": {"size": {"type": kind}}},
        )
        for kind in ("string", "integer")
    ]
    with pytest.raises(ConfigError, match="'size' has parts, and only texts and numbers can be compared"):
        condition(("rule", 0, "when", "size"), tools, 1, loosens=False)


def test_example_and_cookbook_recipes_are_valid(file: Path) -> None:
    texts = [page.read_text(encoding="utf-8") for page in DOCUMENTED]
    recipes = [part.partition("```")[0] for text in texts for part in text.split("```toml\n")[1:]]
    assert len(recipes) > 5
    for text in [EXAMPLE.read_text(encoding="utf-8"), *recipes]:
        file.write_text(text, encoding="utf-8")
        assert load_cases(file) if text.startswith("[[case]]") else list(load_rules(file).words())
