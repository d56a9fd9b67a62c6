"""`fastn-mcp policy`: what it prints, with which exit code, and that it sends no change. Ours (DESIGN 5.2)."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import Run, run_command

from fastn_mcp.runtime import System
from fastn_mcp.sandbox.server import Sandbox

EXAMPLE = (Path(__file__).parents[2] / "examples" / "policy.toml").read_text(encoding="utf-8")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The command line, in folders of its own, without an account."""
    folders = {"FASTN_CONFIG_DIR": str(tmp_path / "config"), "FASTN_STATE_DIR": str(tmp_path / "state")}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return run_command(arguments, folders)

    return run


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], str]:
    """A policy file that holds this."""

    def file(text: str) -> str:
        path = tmp_path / "policy.toml"
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
        return str(path)

    return file


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A sandbox's state in a file, so that what happened to it can be seen."""
    path = tmp_path / "sandbox.json"
    Sandbox(System().now, file=path)
    return path


# --- check -------------------------------------------------------------------------------------------------------


def test_check_says_the_file_in_words(run: Run, file: Callable[[str], str]) -> None:
    """Ours: a line for each part."""
    result = run("policy", "check", file(EXAMPLE))
    assert result.returncode == 0
    for part in (
        "By default, destroy: out_of_band.",
        "protected customer acme-*: deny, whatever the rules allow. our largest customer.",
        "rule delete_connector with dependents at least 1: four_eyes.",
        "rule run_workflow with target id wf_daily_report or wf_health_check: allow.",
        "trash, destroy only Mon-Thu 08:00-17:00 Europe/Berlin or Fri 08:00-12:00 Europe/Berlin.",
        "Budget: 10 spend calls a day, then a question.",
        "Budget: 3 destroy calls a day, then none.",
        "Breaker: after 3 declines in a row, nothing that changes something for 10 minutes.",
        "is valid.",
    ):
        assert part in result.stdout


def test_check_ends_with_2_and_the_line_where_the_file_is_wrong(run: Run, file: Callable[[str], str]) -> None:
    """Ours: nothing on the standard output."""
    path = file('[defaults]\ndestory = "deny"')
    result = run("policy", "check", path)
    assert (result.returncode, result.stdout) == (2, "")
    assert (
        f"fastn-mcp: {path}, line 2: there is no key 'destory' in [defaults] (did you mean 'destroy'?)."
        in result.stderr
    )


def test_what_a_file_says_cannot_steer_a_terminal(run: Run, file: Callable[[str], str]) -> None:
    """Ours (THREATS T15)."""
    result = run("policy", "check", file('[[protect]]\ntrigger = "a"\nreason = "\\u001b[2K\\u202e"'))
    assert "\\u{1b}[2K\\u{202e}" in result.stdout


# --- explain -----------------------------------------------------------------------------------------------------


def customer(run: Run, kept: Path, name: str) -> str:
    listed = json.loads(run("--sandbox-file", str(kept), "call", "list-customers").stdout)
    return next(row["id"] for row in listed["data"] if name in row["name"])


def test_explain_names_the_rule_the_facts_and_the_channel(run: Run, kept: Path) -> None:
    """Ours (issue 3): and the sandbox is as it was."""
    globex = customer(run, kept, "Globex")
    before = kept.read_bytes()
    result = run("--sandbox-file", str(kept), "policy", "explain", "delete_customer", f"customer_id={globex}")
    assert result.returncode == 0
    assert "Decision: typed. A person is asked to type the target's name: in the client's form" in result.stdout
    assert "Rule: mode guarded: destroy." in result.stdout
    assert f'target: "Globex Exports", id "{globex}"' in result.stdout
    assert "dependents: 1 connection; " in result.stdout
    assert "Policy: mode guarded, test key, no file." in result.stdout
    assert kept.read_bytes() == before
    assert "Globex" in run("--sandbox-file", str(kept), "call", "list-customers").stdout


def test_explain_asks_another_file_in_another_mode(run: Run, kept: Path, file: Callable[[str], str]) -> None:
    """Ours: as if it were set."""
    globex = customer(run, kept, "Globex")
    path = file('[[rule]]\ntool = "delete_customer"\ntarget = "glob*"\nthen = "deny"\nreason = "they pay"')
    command = ("--sandbox-file", str(kept), "policy", "explain", "delete-customer", f"customer_id={globex}")
    result = run(*command, "--file", path, "--mode", "auto")
    assert "Decision: deny. Nobody is asked: it is refused." in result.stdout
    assert "Rule: policy.toml line 1: rule delete_customer." in result.stdout
    assert "Why: they pay" in result.stdout
    assert f"Policy: mode auto, test key, file {path}." in result.stdout
    assert "Rule: mode read-only: destroy." in run(*command, "--mode", "read-only").stdout


def test_explain_says_which_kinds_could_not_be_counted(run: Run, kept: Path) -> None:
    """Ours (DESIGN 5.3)."""
    listed = json.loads(run("--sandbox-file", str(kept), "call", "list-connections").stdout)
    command = ("--sandbox-file", str(kept), "policy", "explain", "delete_connection")
    result = run(*command, f"connection_id={listed['data'][0]['id']}")
    assert "dependents: unknown, since these could not be checked: workflows" in result.stdout


def test_without_an_account_explain_says_what_is_unknown_and_loosens_nothing(
    run: Run, file: Callable[[str], str]
) -> None:
    """Ours."""
    path = file('[[rule]]\ntool = "delete_trigger"\nwhen = { dependents = { max = 0 } }\nthen = "allow"')
    result = run("policy", "explain", "delete_trigger", "trigger_id=t", "--file", path)
    assert result.returncode == 0
    assert "Decision: typed." in result.stdout
    assert "Unknown, and assumed so that nothing is loosened:" in result.stdout
    assert 'the target "t"' in result.stdout
    assert "Nothing was read: There is no API key." in result.stdout
    assert f"Policy: mode guarded, live key, file {path}." in result.stdout
    assert "Decision: typed." in run("policy", "explain", "delete_workflow", "workflow_id=w").stdout


def test_explain_says_that_the_guard_would_refuse_what_is_not_there(run: Run) -> None:
    """Ours."""
    result = run("--sandbox", "policy", "explain", "delete_trigger", "trigger_id=nothing")
    assert "The guard would refuse the call as it is: No " in result.stdout


def test_a_call_without_a_target_is_explained_and_secrets_are_not_shown(run: Run) -> None:
    """Ours."""
    result = run("--sandbox", "policy", "explain", "create_secret", "name=A", "value=kanarienvogel")
    assert "Decision: confirm." in result.stdout
    assert "dependents: none" in result.stdout
    assert "kanarienvogel" not in result.stdout + result.stderr


def test_a_read_is_always_allowed(run: Run) -> None:
    """Ours (DESIGN 5.1): numbers are given as JSON."""
    result = run("policy", "explain", "list_customers", "limit=5", "--mode", "read-only")
    assert "list_customers limit=5" in result.stdout
    assert "Decision: allow. Nobody is asked." in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["delete_custmer"], "no tool 'delete_custmer' (did you mean 'delete_customer'?)"),
        (["delete_trigger", "triger_id=t"], "unknown argument 'triger_id' (did you mean 'trigger_id'?)"),
        (["delete_trigger", "t"], "'t' is not NAME=VALUE"),
        (["list_customers", "limit=many"], "limit is not a text, and its value is not JSON"),
        (["delete_trigger", "trigger_id=t", "--file", "nowhere.toml"], "There is no policy file nowhere.toml"),
    ],
)
def test_explain_names_what_is_wrong_with_the_question(run: Run, arguments: list[str], said: str) -> None:
    """Ours."""
    result = run("policy", "explain", *arguments)
    assert result.returncode == 2
    assert said in result.stderr


# --- simulate ----------------------------------------------------------------------------------------------------


def entry(event: str, tool: str, arguments: dict[str, Any] | None, effect: str, **more: Any) -> dict[str, Any]:
    who = {"time": "2026-11-25T09:00:00.000Z", "event": event, "principal": "local", "account": "a", "tool": tool}
    return {**who, **({"arguments": arguments} if arguments is not None else {}), "effect": effect, **more}


def audit_of(folder: Path, *lines: dict[str, Any] | str) -> str:
    path = folder / "audit.jsonl"
    path.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
    return str(path)


DELETED = entry("intent", "delete_trigger", {"trigger_id": "t1"}, "destroy", decision="typed", grant="g1")


def test_simulate_counts_and_names_what_would_be_decided_otherwise(
    run: Run, file: Callable[[str], str], tmp_path: Path
) -> None:
    """Ours: each call once, by its last event; secrets are judged unseen."""
    secret = {"connector_id": "h", "credentials": "[hidden-by-fastn-mcp]"}
    audit = audit_of(
        tmp_path,
        entry("asked", "delete_trigger", {"trigger_id": "t1"}, "destroy", decision="typed", grant="g1"),
        DELETED,
        entry("outcome", "delete_trigger", None, "destroy", outcome="done", grant="g1"),
        entry("intent", "create_customer", {"name": "A"}, "write", decision="allow", consent="policy"),
        entry("asked", "create_connection", secret, "external", decision="confirm", grant="g2"),
        entry("declined", "create_connection", secret, "external", outcome="declined"),
        entry("refused", "delete_secret", {"secret_id": "s"}, "destroy", outcome="not_found"),
        entry("refused", "run_workflow", {"workflow_id": "w"}, "external", outcome="refused", rule="budget"),
    )
    path = file('[[rule]]\ntool = "delete_trigger"\ntarget = "t*"\nthen = "deny"')
    result = run("policy", "simulate", "--audit", audit, "--file", path)
    assert result.returncode == 0
    assert "5 calls, 3 with another decision." in result.stdout
    rows = [line.split() for line in result.stdout.splitlines()]
    for counted in (["typed", "deny", "1"], ["allow", "allow", "1"], ["confirm", "confirm", "1"],
                    ["not_found", "typed", "1"], ["deny", "confirm", "1"]):  # fmt: skip
        assert counted in rows
    by = ["policy.toml", "line", "1:", "rule", "delete_trigger"]
    assert ["2", "2026-11-25", "09:00Z", "delete_trigger", "t1", "typed", "deny", *by] in rows


def test_simulate_follows_budgets_and_the_breaker_through_the_record(
    run: Run, file: Callable[[str], str], tmp_path: Path
) -> None:
    """Ours: by what was sent and declined before, and in the hours of then."""
    created = entry("intent", "create_customer", {"name": "A"}, "write", decision="allow", consent="policy")
    late = created | {"time": "2026-11-26T09:00:00.000Z"}
    declined = [entry("declined", "run_workflow", {"workflow_id": "w"}, "external")] * 2
    audit = audit_of(tmp_path, created, created, late, *declined, created | {"effect": "external"})
    path = file("[budget]\nwrite = 1\n[breaker]\ndeclined = 2")
    result = run("policy", "simulate", "--audit", audit, "--file", path)
    rows = [line.split() for line in result.stdout.splitlines()]
    assert [row[0] for row in rows if row[-3:] == ["line", "1:", "budget"]] == ["2"]
    assert [row[0] for row in rows if row[-1:] == ["breaker"]] == ["6"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{broken", "it is not JSON"),
        ("[1]", "it is not an audit entry"),
        ("", "it is not JSON"),
        (entry("intent", "remove_all", {}, "destroy"), "there is no tool 'remove_all'"),
        (entry("intent", "delete_trigger", None, "destroy"), "its arguments were not recorded"),
        (entry("intent", "delete_trigger", {"[left out]": "9 characters"}, "destroy"), "arguments were not recorded"),
        (entry("intent", "delete_trigger", {"id": "t"}, "destroy"), "no longer those of the tool (trigger_id)"),
        (entry("intent", "delete_trigger", {"trigger_id": "t"}, "odd"), "it has no effect"),
        (DELETED | {"time": "yesterday"}, "it has no time"),
    ],
)
def test_a_line_that_cannot_be_judged_is_named(
    run: Run, tmp_path: Path, line: dict[str, Any] | str, problem: str
) -> None:
    """Ours: never passed over in silence; the rest is judged."""
    result = run("policy", "simulate", "--audit", audit_of(tmp_path, DELETED, line, DELETED))
    assert result.returncode == 1
    assert "2 calls, 0 with another decision." in result.stdout
    assert "Line 2 was not evaluated: " in result.stderr
    assert problem in result.stderr


def test_simulate_of_a_wrong_policy_or_of_no_file_ends_with_2(
    run: Run, file: Callable[[str], str], tmp_path: Path
) -> None:
    """Ours."""
    audit = audit_of(tmp_path, DELETED)
    result = run("policy", "simulate", "--audit", audit, "--file", file("[rules]"))
    assert result.returncode == 2
    assert "line 1: there is no table 'rules' (did you mean 'rule'?)" in result.stderr
    assert run("policy", "simulate", "--audit", str(tmp_path)).returncode == 2


def test_simulate_says_where_there_is_no_audit(run: Run, tmp_path: Path) -> None:
    """Ours."""
    result = run("policy", "simulate", "--audit", str(tmp_path / "none.jsonl"))
    assert result.returncode == 2
    assert "There is no audit log at" in result.stderr


def test_simulate_reads_what_this_server_records(run: Run, kept: Path, tmp_path: Path) -> None:
    """Ours (DESIGN 5.7): from a call to its simulation."""
    run("--sandbox-file", str(kept), "--mode", "auto", "call", "create-customer", "--name", "Delta")
    audit = next((tmp_path / "state").rglob("audit.jsonl"))
    result = run("policy", "simulate", "--audit", str(audit), "--mode", "manual")
    assert result.returncode == 0
    assert ["allow", "confirm", "1"] in [line.split() for line in result.stdout.splitlines()]


def test_simulate_judges_the_calls_of_a_batch_and_not_the_batch(
    run: Run, file: Callable[[str], str], tmp_path: Path
) -> None:
    """Ours: a list that was asked about is in the record by each of its calls."""
    asked = entry("asked", "apply_changes", {"changes": []}, "destroy", decision="typed", grant="g")
    audit = audit_of(tmp_path, asked, {**asked, "event": "agreed"}, {**DELETED, "grant": "g.1"})
    result = run("policy", "simulate", "--audit", audit, "--file", file("[defaults]\nwrite = 'confirm'\n"))
    assert result.returncode == 0
    assert "1 calls, " in result.stdout
    assert "apply_changes" not in result.stdout


def test_policy_of_a_profile_is_asked_without_its_key(run: Run, tmp_path: Path) -> None:
    """Ours: its mode counts, and the sandbox does not come into it."""
    config = tmp_path / "config" / "config.toml"
    config.parent.mkdir()
    config.write_text('[profiles.acme]\nmode = "manual"\n')
    config.chmod(0o600)
    (tmp_path / "audit.jsonl").touch()
    simulated = run("--profile", "acme", "policy", "simulate", "--audit", str(tmp_path / "audit.jsonl"))
    assert simulated.stdout == "0 calls, 0 with another decision. Policy: mode manual, live key, no file.\n"
    explained = run("--profile", "acme", "policy", "explain", "run_workflow", "workflow_id=wf_1")
    assert "Rule: mode manual: external." in explained.stdout
    assert "Nothing was read: The profile 'acme' has no key" in explained.stdout
