"""`fastn-mcp policy`: its output and exit codes, and that it sends no change."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Run, error_line
from support.policy_files import CONFIRMS

from fastn_mcp.extensions.sandbox.server import Sandbox
from fastn_mcp.runtime import System

EXAMPLE = (Path(__file__).parents[2] / "examples" / "policy.toml").read_text(encoding="utf-8")


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that writes a policy file."""

    def file(text: str) -> str:
        path = tmp_path / "policy.toml"
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        return str(path)

    return file


@pytest.fixture
def sandbox_file(tmp_path: Path) -> Path:
    """File with a sandbox's state, so that tests see what happened to it."""
    path = tmp_path / "sandbox.json"
    Sandbox(System().now, file=path)
    return path


# --- check -------------------------------------------------------------------------------------------------------


def test_check_describes_the_file(fastn: Run, file: Callable[[str], str]) -> None:
    result = fastn("policy", "check", file(EXAMPLE))
    assert result.returncode == 0
    for part in (
        "protected customer acme-*: deny, whatever the rules allow. Reason: our largest customer.",
        "Breaker: after 3 declines in a row, no change is sent for 10 minutes.",
        "is valid.",
    ):
        assert part in result.stdout


def test_check_exits_2_with_the_line_of_an_error(fastn: Run, file: Callable[[str], str]) -> None:
    path = file('[defaults]\ndestory = "deny"')
    message = f"{path}, line 2: there is no key 'destory' in [defaults] (did you mean 'destroy'?)."
    assert error_line(fastn("policy", "check", path)).startswith(message)


def test_control_characters_in_a_policy_are_escaped(fastn: Run, file: Callable[[str], str]) -> None:
    result = fastn("policy", "check", file('[[protect]]\ntrigger = "a"\nreason = "\\u001b[2K\\u202e"'))
    assert "\\u{1b}[2K\\u{202e}" in result.stdout


# --- explain -----------------------------------------------------------------------------------------------------


def customer_id(fastn: Run, sandbox_file: Path, name: str) -> str:
    listed = json.loads(fastn("--sandbox-file", str(sandbox_file), "call", "list-customers").stdout)
    return next(row["id"] for row in listed["data"] if name in row["name"])


def test_explain_reads_the_account_and_changes_nothing(fastn: Run, sandbox_file: Path) -> None:
    globex = customer_id(fastn, sandbox_file, "Globex")
    before = sandbox_file.read_bytes()
    result = fastn("--sandbox-file", str(sandbox_file), "policy", "explain", "delete_customer", f"customer_id={globex}")
    assert result.returncode == 0
    assert "dependents: 1 connection; " in result.stdout
    assert sandbox_file.read_bytes() == before
    assert "Globex" in fastn("--sandbox-file", str(sandbox_file), "call", "list-customers").stdout


def test_explain_takes_another_file_and_mode(fastn: Run, sandbox_file: Path, file: Callable[[str], str]) -> None:
    globex = customer_id(fastn, sandbox_file, "Globex")
    path = file('[[rule]]\ntool = "delete_customer"\ntarget = "glob*"\nthen = "deny"\nreason = "they pay"')
    command = ("--sandbox-file", str(sandbox_file), "policy", "explain", "delete-customer", f"customer_id={globex}")
    result = fastn(*command, "--file", path, "--mode", "guarded")
    assert "Decision: deny. The call is refused. Nobody is asked." in result.stdout
    assert "Rule: policy.toml line 1: rule delete_customer." in result.stdout
    assert 'Why: Its slug "globex-exports" matches glob*. They pay' in result.stdout
    assert f"Policy: mode guarded, test key, file {path}." in result.stdout
    assert "Rule: mode read-only: destroy." in fastn(*command, "--mode", "read-only").stdout


def test_explain_names_unchecked_dependents(fastn: Run, sandbox_file: Path) -> None:
    listed = json.loads(fastn("--sandbox-file", str(sandbox_file), "call", "list-connections").stdout)
    command = ("--sandbox-file", str(sandbox_file), "policy", "explain", "delete_connection")
    result = fastn(*command, f"connection_id={listed['data'][0]['id']}")
    assert "dependents: unknown, since these could not be checked: workflows" in result.stdout


def test_explain_without_an_account_loosens_nothing(fastn: Run, file: Callable[[str], str]) -> None:
    path = file('[[rule]]\ntool = "delete_trigger"\nwhen = { dependents = { max = 0 } }\nthen = "allow"')
    result = fastn("policy", "explain", "delete_trigger", "trigger_id=t", "--file", path)
    assert result.returncode == 0
    assert "Decision: typed." in result.stdout
    assert "Decision: typed." in fastn("policy", "explain", "delete_workflow", "workflow_id=w").stdout


def test_explain_of_a_missing_target_says_that_it_is_refused(fastn: Run) -> None:
    result = fastn("--sandbox", "policy", "explain", "delete_trigger", "trigger_id=nothing")
    assert "The guard would refuse the call as it is: No " in result.stdout


def test_explain_without_a_target_shows_no_secrets(fastn: Run) -> None:
    result = fastn("--sandbox", "policy", "explain", "create_secret", "name=A", "value=kanarienvogel")
    assert "Decision: confirm." in result.stdout
    assert "dependents: none" in result.stdout
    assert "kanarienvogel" not in result.stdout + result.stderr


def test_explain_of_a_read_says_allowed(fastn: Run) -> None:
    result = fastn("policy", "explain", "list_customers", "limit=5", "--mode", "read-only")
    assert "list_customers limit=5" in result.stdout
    assert "Decision: allow. Nobody is asked." in result.stdout


DELETION = ("delete_trigger", "trigger_id=t")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["delete_custmer"], "no tool 'delete_custmer' (did you mean 'delete_customer'?)"),
        (["delete_trigger", "triger_id=t"], "unknown argument 'triger_id' (did you mean 'trigger_id'?)"),
        (["delete_trigger", "t"], "'t' is not NAME=VALUE"),
        (["list_customers", "limit=many"], "limit is not a string, and its value is not JSON"),
        ([*DELETION, "--file", "nowhere.toml"], "There is no policy file nowhere.toml"),
        ([*DELETION, "--as", "gruop=x"], "'gruop' is not FACT=VALUE (did you mean 'group'?)"),
        ([*DELETION, "--as", "group"], "'group' is not FACT=VALUE"),
        ([*DELETION, "--at", "tomorrow"], "'tomorrow' is not a time with an offset, such as 2026-12-24T22:00+01:00"),
        ([*DELETION, "--at", "2026-01-06T12:00"], "is not a time with an offset"),
    ],
)
def test_explain_reports_invalid_arguments(fastn: Run, arguments: list[str], expected: str) -> None:
    error_line(fastn("policy", "explain", *arguments), expected)


# --- test of a log ----------------------------------------------------------------------------------------------------


def entry(event: str, tool: str, arguments: dict[str, Any] | None, effect: str, **more: Any) -> dict[str, Any]:
    who = {"time": "2026-11-25T09:00:00.000Z", "event": event, "principal": "local", "account": "a", "tool": tool}
    return {**who, **({"arguments": arguments} if arguments is not None else {}), "effect": effect, **more}


def audit_of(folder: Path, *lines: dict[str, Any] | str) -> str:
    path = folder / "audit.jsonl"
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
    return str(path)


DELETED = entry("intent", "delete_trigger", {"trigger_id": "t1"}, "destroy", decision="typed", grant="g1")


def test_log_counts_and_lists_other_decisions(fastn: Run, file: Callable[[str], str], tmp_path: Path) -> None:
    secret = {"connector_id": "h", "credentials": "[hidden-by-fastn-mcp]"}
    audit = audit_of(
        tmp_path,
        entry("asked", "delete_trigger", {"trigger_id": "t1"}, "destroy", decision="typed", grant="g1"),
        DELETED,
        entry("outcome", "delete_trigger", None, "destroy", outcome="done", grant="g1"),
        entry("intent", "create_customer", {"name": "A"}, "write", decision="allow", approved_by="policy"),
        entry("asked", "create_connection", secret, "external", decision="confirm", grant="g2"),
        entry("declined", "create_connection", secret, "external", outcome="declined"),
        entry("refused", "delete_secret", {"secret_id": "s"}, "destroy", outcome="not_found"),
        entry("refused", "run_workflow", {"workflow_id": "w"}, "external", outcome="refused", rule="budget"),
    )
    path = file('[[rule]]\ntool = "delete_trigger"\ntarget = "t*"\nthen = "deny"')
    result = fastn("policy", "test", audit, "--file", path)
    assert result.returncode == 1
    assert "2 of 5 calls would be decided differently than recorded." in result.stdout
    rows = [line.split() for line in result.stdout.splitlines()]
    for counted in (["typed", "deny", "1"], ["allow", "allow", "1"], ["confirm", "confirm", "1"],
                    ["none", "typed", "1"], ["deny", "confirm", "1"]):  # fmt: skip
        assert counted in rows
    by = ["policy.toml", "line", "1:", "rule", "delete_trigger"]
    assert ["2", "2026-11-25", "09:00Z", "delete_trigger", "t1", "typed", "deny", *by] in rows


def test_log_follows_budgets_and_the_circuit_breaker(fastn: Run, file: Callable[[str], str], tmp_path: Path) -> None:
    created = entry("intent", "create_customer", {"name": "A"}, "write", decision="allow", approved_by="policy")
    late = created | {"time": "2026-11-26T09:00:00.000Z"}
    declined = [entry("declined", "run_workflow", {"workflow_id": "w"}, "external")] * 2
    audit = audit_of(tmp_path, created, created, late, *declined, created | {"effect": "external"})
    path = file("[budget]\nwrite = 1\n[budget.run]\nwrite = 1\n[breaker]\ndeclined = 2")  # where runs began is unknown
    result = fastn("policy", "test", audit, "--file", path)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[0] for row in rows if row[-3:] == ["line", "1:", "budget"]] == ["2"]
    assert [row[0] for row in rows if row[-1:] == ["breaker"]] == ["6"]


def test_empty_file_is_neither_a_log_nor_cases(fastn: Run, tmp_path: Path) -> None:
    """A job that tests an emptied file has to fail."""
    error_line(fastn("policy", "test", audit_of(tmp_path)), "case", stdout=None)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{broken", "it is not an audit entry"),
        ("[1]", "it is not an audit entry"),
        ("", "it is not an audit entry"),
        (entry("intent", "remove_all", {}, "destroy"), "there is no tool 'remove_all'"),
        (entry("intent", "delete_trigger", None, "destroy"), "its arguments were not recorded"),
        (entry("intent", "delete_trigger", {"[left out]": "9 characters"}, "destroy"), "arguments were not recorded"),
        (
            entry("intent", "delete_trigger", {"id": "t"}, "destroy"),
            "the tool no longer takes its arguments (trigger_id)",
        ),
        (entry("intent", "delete_trigger", {"trigger_id": "t"}, "odd"), "it has no effect"),
        (DELETED | {"time": "yesterday"}, "it has no time"),
    ],
)
def test_log_reports_lines_that_cannot_be_evaluated(
    fastn: Run, tmp_path: Path, line: dict[str, Any] | str, problem: str
) -> None:
    result = fastn("policy", "test", audit_of(tmp_path, DELETED, line, DELETED))
    assert result.returncode == 1
    assert "0 of 2 calls would be decided differently than recorded." in result.stdout
    assert "Line 2 was not evaluated: " in result.stderr
    assert problem in result.stderr


def test_log_with_an_invalid_policy_or_no_file_exits_2(fastn: Run, file: Callable[[str], str], tmp_path: Path) -> None:
    audit = audit_of(tmp_path, DELETED)
    simulated = fastn("policy", "test", audit, "--file", file("[rules]"))
    error_line(simulated, "line 1: there is no table 'rules' (did you mean 'rule'?)")
    assert fastn("policy", "test", str(tmp_path)).returncode == 2


def test_log_reads_what_this_server_records(
    fastn: Run, sandbox_file: Path, file: Callable[[str], str], tmp_path: Path
) -> None:
    fastn("--sandbox-file", str(sandbox_file), "call", "create-customer", "--name", "Delta")
    audit = next((tmp_path / "FASTN_STATE_DIR").rglob("audit.jsonl"))
    result = fastn("policy", "test", str(audit), "--file", file(CONFIRMS))
    assert result.returncode == 1
    assert ["allow", "confirm", "1"] in [line.split() for line in result.stdout.splitlines()]


def test_log_evaluates_the_calls_of_a_batch_one_by_one(fastn: Run, file: Callable[[str], str], tmp_path: Path) -> None:
    asked = entry("asked", "apply_changes", {"changes": []}, "destroy", decision="typed", grant="g")
    audit = audit_of(tmp_path, asked, {**asked, "event": "agreed"}, {**DELETED, "grant": "g.1"})
    result = fastn("policy", "test", audit, "--file", file("[defaults]\nwrite = 'confirm'\n"))
    assert result.returncode == 0
    assert "0 of 1 call would be decided differently than recorded." in result.stdout
    assert "apply_changes" not in result.stdout


def test_policy_of_a_profile_needs_no_key(fastn: Run, tmp_path: Path) -> None:
    config = tmp_path / "FASTN_CONFIG_DIR" / "config.toml"
    config.parent.mkdir()
    config.write_text('[profiles.acme]\nmode = "read-only"\n')
    config.chmod(0o600)
    refused = DELETED | {"event": "refused", "outcome": "refused", "decision": "deny"}
    tested = fastn("--profile", "acme", "policy", "test", audit_of(tmp_path, refused))
    assert tested.returncode == 0
    assert tested.stdout.endswith(
        "0 of 1 call would be decided differently than recorded. Policy: mode read-only, live key, no file.\n"
    )
    explained = fastn("--profile", "acme", "policy", "explain", "run_workflow", "workflow_id=wf_1")
    assert "Rule: mode read-only: external." in explained.stdout
    assert "Nothing was read: The profile 'acme' has no key" in explained.stdout


# --- who asks, and when ------------------------------------------------------------------------------------------

WHO = """
[[rule]]
tool = "delete_trigger"
who = { client = "ide-1", group = "ops" }
then = "allow"

[[rule]]
tool = "delete_*"
who = { person = "bob@example.com" }
then = "deny"

[[window]]
effects = "destroy"
open = "Mon-Fri 08:00-17:00 Europe/Berlin"
"""
NOON = ("--at", "2026-01-06T12:00+01:00")


def test_explain_decides_for_whom_and_when_it_is_told(fastn: Run, file: Callable[[str], str]) -> None:
    command = ("policy", "explain", "delete_trigger", "trigger_id=t", "--file", file(WHO))
    ana = ("--as", "person=ana@example.com", "--as", "client=ide-1", "--as", "group=ops", "--as", "group=x")
    result = fastn(*command, *NOON, *ana)
    assert "Decision: allow. Nobody is asked." in result.stdout
    assert (
        '  policy.toml line 2: rule delete_trigger: allow. The client is "ide-1"; the group is "ops"' in result.stdout
    )
    assert (
        'Time: 2026-01-06T12:00:00+01:00. Caller: person "ana@example.com", group "ops", group "x", client "ide-1".'
        " Not known about the caller: tenant, client_name." in result.stdout
    )
    assert "Decision: typed." in fastn(*command, *NOON, *ana[:-6], "--as", "group=ops").stdout
    bob = fastn(*command, *NOON, "--as", "person=bob@example.com", "--as", "group=").stdout
    assert 'Why: The person is "bob@example.com".' in bob
    nobody = fastn(*command, *NOON).stdout
    assert "Why: The person is not known, because there is no sign-in." in nobody
    closed = fastn(*command, "--at", "2026-01-06T21:00+01:00", *ana).stdout
    assert "Rule: policy.toml line 12: window destroy." in closed
    assert "  policy.toml line 2: rule delete_trigger: allow" in closed


def test_check_warns_of_rules_and_people_that_cannot_be(fastn: Run, file: Callable[[str], str]) -> None:
    path = file(WHO + '[[rule]]\ntool = "delete_secret"\nthen = "four_eyes"\n')
    alone = fastn("policy", "check", path)
    assert alone.returncode == 0
    assert "rule delete_trigger by client ide-1 and group ops: allow." in alone.stdout
    assert "rule delete_trigger never applies on a server without a sign-in." in alone.stdout
    assert "rule delete_* applies to everybody on a server without a sign-in: the person is not known" in alone.stdout
    assert "rule delete_secret needs two people, but no approvers are set up" in alone.stdout


@pytest.mark.extension("team")
def test_check_counts_each_approver_rule_of_a_team_as_two_people(
    fastn: Run, file: Callable[[str], str], tmp_path: Path
) -> None:
    path = file(WHO + '[[rule]]\ntool = "delete_secret"\nthen = "four_eyes"\n')
    team = tmp_path / "team.toml"
    team.write_text(TEAM)
    team.chmod(0o600)
    assert "Warning" not in fastn("policy", "check", path, "--team", str(team)).stdout


TEAM = """
url = "https://fastn-mcp.example.com/mcp"
issuer = "https://login.example.com"
[approvals]
client_id = "page"
client_secret_env = "X"
[[approvals.approver]]
groups = ["approvers"]
[[tenant]]
name = "acme"
subjects = ["anna"]
api_key_env = "KEY"
"""


# --- test --------------------------------------------------------------------------------------------------------


def test_recorded_explanations_are_kept_and_tested(
    fastn: Run, sandbox_file: Path, file: Callable[[str], str], tmp_path: Path
) -> None:
    globex = customer_id(fastn, sandbox_file, "Globex")
    path = file('[[protect]]\ncustomer = "globex-*"\n[[rule]]\ntool = "create_secret"\nthen = "out_of_band"\n')
    cases = str(tmp_path / "cases.toml")
    keep = ("--record", cases, "--file", path, *NOON, "--as", "group=ops")
    explained = ("--sandbox-file", str(sandbox_file), "policy", "explain")
    for call in (
        ("delete_customer", f"customer_id={globex}"),
        ("create_secret", "name=A", "value=kanarienvogel"),
        ("run_workflow", "workflow_id=wf_b5880b29eb25", "environment=test"),
    ):
        result = fastn(*explained, *call, *keep)
        assert f"Recorded in {cases}." in result.stdout, result.stderr
    text = Path(cases).read_text(encoding="utf-8")
    assert "kanarienvogel" not in text
    assert 'rule = "protected customer globex-*"' in text
    assert 'who = { "group" = ["ops"] }' in text
    good = fastn("policy", "test", cases, "--file", path)
    assert (good.returncode, good.stdout.splitlines()[-1][:52]) == (
        0,
        "0 of 3 cases are decided differently than expected. ",
    ), good.stdout
    broken = fastn("policy", "test", cases, "--file", file('[[protect]]\ncustomer = "acme-*"\n'))
    assert broken.returncode == 1
    assert "expected deny by protected customer globex-*, got typed by mode guarded: destroy." in broken.stdout
    assert "2 of 3 cases are decided differently than expected." in broken.stdout
    Path(cases).write_text(text.replace("expect =", "expects =", 1))
    error_line(fastn("policy", "test", cases, "--file", path), "no key 'expects' in [[case]] (did you mean 'expect'?)")
    error_line(fastn("policy", "test", str(tmp_path / "none.toml"), "--file", path), "There is no file of cases")


def test_explanation_that_needs_what_was_not_read_is_not_recorded(
    fastn: Run, file: Callable[[str], str], tmp_path: Path
) -> None:
    path = file('[[protect]]\ncustomer = "globex-*"\n')
    command = ("policy", "explain", "delete_customer", "customer_id=c", "--file", path)
    result = fastn(*command, "--record", str(tmp_path / "cases.toml"))
    error_line(result, "without them cases.toml line 2, delete_customer c: expected deny", stdout=None)
    assert not (tmp_path / "cases.toml").exists()
