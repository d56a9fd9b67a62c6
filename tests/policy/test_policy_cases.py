"""Kept expectations of a policy: what a case can say, how a difference reads, and files that are wrong."""

from pathlib import Path

import pytest
from support.policy_files import rules_of

from fastn_mcp.cli.policy_calls import load_cases, record_case
from fastn_mcp.errors import SettingsError
from fastn_mcp.policy.policy import Policy
from fastn_mcp.policy.policy_file import load_rules

EXAMPLES = Path(__file__).parents[2] / "examples"
POLICY = """
[[protect]]
customer = "acme-*"

[[rule]]
tool = "delete_connector"
when = { dependents = { min = 1 } }
then = "four_eyes"

[[rule]]
tool = "run_workflow"
target = "wf_1"
who = { group = "ops" }
then = "allow"

[[rule]]
effects = "external"
key = "live"
when = { environment = "live" }
then = "deny"

[[window]]
effects = "trash"
open = "Mon-Fri 08:00-17:00 UTC"

[budget]
access = 2
"""
RUN = 'tool = "run_workflow"\narguments = { workflow_id = "wf_1", environment = "test" }\n'
OF_C = RUN + 'target = { customer_id = "c" }\n'
DELETE = 'tool = "delete_customer"\narguments = { customer_id = "c" }\n'
SUNDAY = 'tool = "delete_workflow"\narguments = { workflow_id = "w" }\ntime = 2026-01-04T12:00:00+01:00\n'
CASE = f"[[case]]\n{RUN}"
LIVE = RUN.replace('"test"', '"live"')
SECRET_OF_B = (
    'tool = "create_secret"\narguments = { name = "A", customer_id = "b" }\n'
    'records = [{ kind = "customer", id = "b", slug = "b" }]\n'
)
UNKNOWN = RUN.replace(', environment = "test"', "")


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return Policy("guarded", rules_of(tmp_path, POLICY))


def cases_file(folder: Path, text: str) -> Path:
    path = folder / "cases.toml"
    path.touch(0o600)
    path.write_text(text, encoding="utf-8")
    return path


def differences(folder: Path, policy: Policy, *cases: str) -> list[str | None]:
    path = cases_file(folder, "".join(f"[[case]]\n{case}\n" for case in cases))
    return [case.difference(policy) for case in load_cases(path)]


@pytest.mark.parametrize(
    "case",
    [
        RUN + 'expect = "confirm"\nrule = "mode guarded: external"',
        RUN + 'who = { group = "ops" }\nexpect = "allow"\nrule = "rule run_workflow"',
        RUN + 'who = { group = ["x", "ops"] }\nexpect = "allow"\nrule = "policy.toml line 10: rule run_workflow"',
        RUN + 'who = { person = "ops" }\nexpect = "confirm"',
        LIVE + 'expect = "deny"\nrule = "rule external"',
        LIVE + 'key = "test"\nexpect = "confirm"',
        UNKNOWN + 'expect = "deny"\nrule = "rule external"',
        UNKNOWN + 'environment = "test"\nexpect = "confirm"',
        RUN + 'mode = "read-only"\nexpect = "deny"\nrule = "mode read-only: external"',
        OF_C + 'records = [{ kind = "customer", id = "c", slug = "acme-x" }]\nexpect = "deny"',
        OF_C + 'records = [{ kind = "customer", id = "c", slug = "b" }]\nexpect = "confirm"',
        RUN + 'records = [{ kind = "customer", id = "c", slug = "acme-x" }]\nexpect = "deny"',
        DELETE + 'target = { name = "Acme-1" }\nexpect = "deny"',
        DELETE + 'dependents = 0\nmode = "guarded"\nexpect = "confirm"',
        'tool = "delete_connector"\narguments = { connector_id = "c" }\nexpect = "four_eyes"',
        'tool = "delete_connector"\narguments = { connector_id = "c" }\ndependents = 0\nexpect = "typed"',
        'tool = "delete_workflow"\narguments = { workflow_id = "w" }\nexpect = "typed"',
        SUNDAY + 'expect = "deny"\nrule = "window trash"',
        SECRET_OF_B + 'spent = 2\nexpect = "deny"\nrule = "budget"',
        SECRET_OF_B + 'spent = 1\nexpect = "confirm"',
        'tool = "create_secret"\narguments = { name = "A" }\nexpect = "deny"\nrule = "protected customer acme-*"',
        'tool = "create_customer"\narguments = { name = "A" }\nexpect = "allow"',
        'tool = "create_customer"\narguments = { name = "A" }\neffect = "external"\nexpect = "confirm"',
        'tool = "list_customers"\nexpect = "allow"\nrule = "reads"',
    ],
)  # fmt: skip
def test_case_is_decided_by_what_it_says(tmp_path: Path, policy: Policy, case: str) -> None:
    assert differences(tmp_path, policy, case) == [None]


def test_difference_says_where_what_was_expected_and_every_rule_that_matches(tmp_path: Path, policy: Policy) -> None:
    right = RUN + 'expect = "confirm"'
    wrong = 'tool = "delete_connector"\narguments = { connector_id = "c" }\nexpect = "typed"\nrule = "budget"'
    rule = "policy.toml line 5: rule delete_connector"
    assert differences(tmp_path, policy, right, wrong) == [
        None,
        (
            f"cases.toml line 5, delete_connector c: expected typed by budget, got four_eyes by {rule}. Every rule that"
            f" matches: {rule}: four_eyes; mode guarded: destroy: typed."
        ),
    ]


def test_other_rule_of_the_same_decision_is_a_difference(tmp_path: Path, policy: Policy) -> None:
    (difference,) = differences(tmp_path, policy, RUN + 'expect = "confirm"\nrule = "rule run_workflow"')
    assert difference is not None
    assert "expected confirm by rule run_workflow, got confirm by mode guarded: external." in difference


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (CASE, 1, "[[case]] needs the key 'expect'"),
        ("[[cases]]\n", 1, "there is no table 'cases' (did you mean 'case'?)"),
        (CASE + 'expect = "denny"', 4, "unknown decision 'denny' (did you mean 'deny'?)"),
        ('[[case]]\n\ntool = "run_workflw"\nexpect = "deny"', 3, "'run_workflw' (did you mean 'run_workflow'?)"),
        ('[[case]]\ntool = "apply_changes"\nexpect = "deny"', 2, "there is no 'apply_changes'"),
        ('[[case]]\ntool = "run_workflow"\narguments = { workflow = "w" }\nexpect = "deny"', 3, "argument 'workflow'"),
        (CASE + 'who = { groups = "a" }\nexpect = "deny"', 4, "no key 'groups' in who"),
        (CASE + 'records = [{ kind = "costumer", id = "c" }]\nexpect = "deny"', 4, "needs a kind (customer"),
        (CASE + 'records = [{ kind = "customer" }]\nexpect = "deny"', 4, "and an id"),
        (CASE + 'time = 2026-01-06T10:00:00\nexpect = "deny"', 4, "time: must have timezone info"),
        (CASE + 'key = "prod"\nexpect = "deny"', 4, "key: "),
    ],
)  # fmt: skip
def test_wrong_file_names_the_line_and_the_nearest_key(tmp_path: Path, text: str, line: int, words: str) -> None:
    path = cases_file(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load_cases(path)
    assert f"{path}, line {line}: " in str(caught.value)
    assert words in str(caught.value)


def test_recorded_case_that_would_differ_is_not_written(tmp_path: Path, policy: Policy) -> None:
    path = cases_file(tmp_path, "# kept\n")
    assert record_case(path, f'[[case]]\n{RUN}expect = "deny"\n', policy) is not None
    assert path.read_text() == "# kept\n"
    assert record_case(path, f'[[case]]\n{RUN}expect = "confirm"\n', policy) is None
    assert len(load_cases(path)) == 1
    assert path.read_text().startswith("# kept\n")


def test_examples_keep_their_promises() -> None:
    policy = Policy("guarded", load_rules(EXAMPLES / "policy.toml"), live=True)
    cases = load_cases(EXAMPLES / "policy-cases.toml")
    assert [case.difference(policy) for case in cases] == [None] * len(cases)
