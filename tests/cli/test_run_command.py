"""`fastn-mcp run`: a script's calls, each made as an agent's, and the result for a pipeline."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Run, run_command
from support.terminal import sitting

from fastn_mcp.cli.exit import strongest
from fastn_mcp.cli.run import read
from fastn_mcp.extensions.sandbox.server import Sandbox
from fastn_mcp.procedures.catalog import TOOLS

PROGRAM = (sys.executable, "-m", "fastn_mcp", "--sandbox")
Ran = tuple["subprocess.CompletedProcess[str]", dict[str, Any]]
CREATE = {"tool": "create_customer", "arguments": {"name": "Initech"}, "id": "made"}
STATE = Sandbox(lambda: datetime.now(UTC)).state
ACME, GLOBEX = (str(STATE.named("customers", slug)["id"]) for slug in ("acme-corp", "globex-exports"))
RENAME = {"tool": "update_customer", "arguments": {"customer_id": ACME, "plan": "Enterprise"}}
NOBODY = {"tool": "update_customer", "arguments": {"customer_id": "nobody", "name": "x"}}
LIST = {"tool": "list_customers", "arguments": {"search": "Globex Exports"}}
DELETE = {"tool": "delete_customer", "arguments": {"customer_id": GLOBEX}}
LAST = {"tool": "create_customer", "arguments": {"name": "Hooli"}}


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., str]:
    def written(*calls: "dict[str, Any] | str") -> str:
        path = tmp_path / "script.jsonl"
        path.write_text("".join((call if isinstance(call, str) else json.dumps(call)) + "\n" for call in calls))
        return str(path)

    return written


@pytest.fixture
def ran(fastn: Run, script: Callable[..., str], tmp_path: Path) -> Callable[..., Ran]:
    """Run a script of calls, with a report. Return how it ended, and the report."""

    def run(*calls: "dict[str, Any] | str", options: tuple[str, ...] = ()) -> Ran:
        done = fastn("--sandbox", *options, "run", script(*calls), "--json", "--report", str(tmp_path / "r.json"))
        return done, report_in(tmp_path)

    return run


def report_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "r.json").read_text())


def outcomes(report: dict[str, Any]) -> dict[str, list[str]]:
    return {group: [call["tool"] for call in calls] for group, calls in report["calls"].items() if calls}


def results(done: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_run_exits_0_and_its_report_has_the_hashes_of_the_audit_log(fastn: Run, ran: Callable[..., Ran]) -> None:
    done, report = ran("# a comment", "", CREATE, RENAME, LIST)
    assert done.returncode == 0, done.stderr
    assert [(line["number"], line["line"], line["id"], line["outcome"]) for line in results(done)] == [
        (1, 3, "made", "done"),
        (2, 4, None, "done"),
        (3, 5, None, "done"),
    ]
    assert results(done)[1]["result"]["data"]["plan"] == "Enterprise"
    assert outcomes(report) == {"done": ["create_customer", "update_customer"]}
    assert report["counts"]["reads"] == 1
    audit = Path(report["audit"]["file"])
    lines = [json.loads(line) for line in audit.read_text().splitlines()]
    links = [link for call in report["calls"]["done"] for link in call["audit"]]
    assert links == [{name: line[name] for name in ("n", "event", "hash")} for line in lines]
    verified = fastn("--sandbox", "audit", "verify", "--head", report["audit"]["hash"])
    assert (verified.returncode, "0 came after it" in verified.stdout) == (0, True)
    created = report["calls"]["done"][0]
    assert created["target"] == {"id": results(done)[0]["result"]["data"]["id"], "name": "Initech"}
    assert created["change_id"] == results(done)[0]["result"]["receipt"]["change_id"]


def batch(*calls: dict[str, Any]) -> dict[str, Any]:
    changes = [{name: call[name] for name in ("tool", "arguments")} for call in calls]
    return {"tool": "apply_changes", "arguments": {"changes": changes}}


def test_batch_in_a_script_is_reported_call_by_call(ran: Callable[..., Ran]) -> None:
    done, report = ran(CREATE, batch(RENAME, LAST))
    assert done.returncode == 0, done.stderr
    assert [row["outcome"] for row in results(done)[1]["result"]["data"]["calls"]] == ["done", "done"]
    assert outcomes(report) == {"done": ["create_customer", "update_customer", "create_customer"]}


def test_mistake_in_a_batch_is_found_before_the_first_call(fastn: Run, script: Callable[..., str]) -> None:
    done = fastn("--sandbox", "run", script(CREATE, batch(LAST, {"tool": "delete_customer", "arguments": {}})))
    assert done.returncode == 2
    assert "line 2: call 2, delete_customer: customer_id: is required" in done.stderr


def test_batch_that_stops_lists_the_calls_left(ran: Callable[..., Ran]) -> None:
    done, report = ran(LIST, batch(LAST, DELETE))
    assert done.returncode == 3, done.stderr
    assert outcomes(report) == {"waiting": ["apply_changes"]}
    done, _ = ran(batch(LAST, NOBODY))
    assert done.returncode == 1
    assert "Call 2, update_customer: " in done.stderr


def test_run_prints_a_line_per_call_on_stderr(fastn: Run, script: Callable[..., str]) -> None:
    done = fastn("--sandbox", "run", script(CREATE, RENAME))
    assert done.stdout == ""
    first, second, message = done.stderr.splitlines()
    assert re.fullmatch(r' +1  create_customer  "Initech" "[\w-]+"  done', first)
    assert re.fullmatch(r' +2  update_customer  "Acme Corp" "[\w-]+"  done', second)
    assert message == "2 done; 0 reads."


def test_run_stops_at_a_call_that_needs_approval(ran: Callable[..., Ran]) -> None:
    done, report = ran(LIST, DELETE, LAST)
    assert done.returncode == 3, done.stderr
    assert outcomes(report) == {"waiting": ["delete_customer"], "left": ["create_customer"]}
    assert report["calls"]["waiting"][0]["target"]["name"] == "Globex Exports"
    assert "approvals" in done.stderr


def test_keep_going_makes_all_calls(fastn: Run, script: Callable[..., str], tmp_path: Path) -> None:
    report = str(tmp_path / "r.json")
    done = fastn("--sandbox", "run", script(NOBODY, LIST, DELETE, LAST), "--keep-going", "--report", report)
    assert done.returncode == 1, done.stderr
    assert outcomes(report_in(tmp_path)) == {
        "failed": ["update_customer"],
        "waiting": ["delete_customer"],
        "done": ["create_customer"],
    }


def test_run_stops_at_the_first_failure(ran: Callable[..., Ran]) -> None:
    done, _ = ran({"tool": "get_customer", "arguments": {"customer_id": "00000000-0000-4000-8000-000000000000"}}, LAST)
    assert done.returncode == 1
    assert [line["outcome"] for line in results(done)] == ["not_found", "left"]
    assert done.stderr.splitlines()[-1] == "1 failed, 1 left; 1 read, including the guard's."


def test_call_refused_by_the_policy_exits_1(ran: Callable[..., Ran], tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[[rule]]\ntool = "create_customer"\nthen = "deny"\n')
    done, written = ran(CREATE, options=("--policy", str(policy)))
    assert done.returncode == 1, done.stderr
    assert outcomes(written) == {"refused": ["create_customer"]}
    assert written["calls"]["refused"][0]["rule"]
    assert re.fullmatch("[0-9a-f]{64}", written["policy"])


def test_dry_run_of_a_script_changes_nothing(fastn: Run, script: Callable[..., str], tmp_path: Path) -> None:
    start = ("--sandbox-file", str(tmp_path / "sandbox.json"))
    done = fastn(*start, "run", script(LIST, DELETE, CREATE, RENAME), "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    assert [line["outcome"] for line in results(done)] == ["done", "previewed", "previewed", "previewed"]
    assert results(done)[1]["result"]["preview"]["target"]["name"] == "Globex Exports"
    line = done.stderr.splitlines()[1]
    assert 'previewed: Delete customer "Globex Exports". Its connection' in line
    assert line.endswith('Approval: a person has to approve it by typing "Globex Exports".')
    again = fastn(*start, "run", script(LIST, {"tool": "list_customers", "arguments": {"search": "Initech"}}), "--json")
    assert [len(line["result"]["data"]) for line in results(again)] == [1, 0]


WRONG = {
    "no JSON": ("{C4N4RY", "invalid JSON"),
    "no object": ('["C4N4RY"]', "it is not an object"),
    "unknown key": ('{"tool": "list_customers", "argumnts": {}}', "did you mean 'arguments'?"),
    "no tool": ('{"arguments": {}}', "its tool is missing"),
    "unknown tool": ('{"tool": "delete_custmer"}', "did you mean 'delete_customer'?"),
    "bad argument": ('{"tool": "create_customer", "arguments": {"nam": "C4N4RY"}}', "did you mean 'name'?"),
    "bad id": ('{"tool": "list_customers", "id": 7}', "its id is not a string"),
    "twice": ('{"tool": "list_customers", "arguments": {"limit": 1, "limit": 2}}', "the same name twice"),
    "no number": ('{"tool": "list_customers", "arguments": {"limit": NaN}}', "invalid JSON"),
}


@pytest.mark.parametrize("what", WRONG)
def test_mistake_in_a_script_is_found_before_the_first_call(what: str) -> None:
    bad, problem = WRONG[what]
    lines = [b"# first", json.dumps(CREATE).encode(), b"", bad.encode()]
    _, (mistake,) = read(lines, TOOLS)
    assert mistake.startswith("line 4: ")
    assert problem in mistake
    assert "C4N4RY" not in mistake


def test_script_with_mistakes_exits_2_and_sends_nothing(
    fastn: Run, script: Callable[..., str], tmp_path: Path, environment: dict[str, str]
) -> None:
    report = str(tmp_path / "r.json")
    done = fastn("--sandbox", "run", script(CREATE, "{", '{"tool": 1}'), "--report", report)
    assert (done.returncode, done.stdout) == (2, "")
    assert "line 2: invalid JSON" in done.stderr
    assert "line 3: its tool is missing" in done.stderr
    assert done.stderr.endswith("Nothing was sent.\n")
    assert not (Path(environment["FASTN_STATE_DIR"]) / "sandbox" / "audit.jsonl").exists()
    assert not (tmp_path / "r.json").exists()


def test_unwritable_report_is_found_before_the_first_call(
    fastn: Run, script: Callable[..., str], tmp_path: Path
) -> None:
    path = script(CREATE)
    for report in (str(tmp_path / "nowhere" / "r.json"), str(tmp_path / "r.md"), path, "--help"):
        done = fastn("--sandbox", "run", path, "--report", report)
        assert done.returncode == 2
        assert "report" in done.stderr
    assert fastn("--sandbox", "--report", str(tmp_path / "r.json"), "tools").returncode == 2
    assert fastn("--sandbox", "run", str(tmp_path / "none.jsonl")).returncode == 2


def test_script_can_come_from_stdin(environment: dict[str, str]) -> None:
    done = run_command(["--sandbox", "run", "-"], environment, given=json.dumps(CREATE))
    assert (done.returncode, done.stderr.splitlines()[-1]) == (0, "1 done; 0 reads.")


def test_closed_pipe_does_not_stop_the_run(
    environment: dict[str, str], script: Callable[..., str], tmp_path: Path
) -> None:
    with subprocess.Popen(
        [*PROGRAM, "--report", str(tmp_path / "r.json"), "run", script(CREATE, RENAME), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(30) == 0
    assert report_in(tmp_path)["counts"]["done"] == 2


@pytest.mark.parametrize(("answer", "code", "group"), [("Globex Exports", 0, "done"), ("n", 5, "declined")])
def test_run_at_a_terminal_asks_for_approval(
    answer: str, code: int, group: str, script: Callable[..., str], environment: dict[str, str], tmp_path: Path
) -> None:
    program = ["-m", "fastn_mcp", "--sandbox", "--report", str(tmp_path / "r.json"), "run", script(LIST, DELETE)]
    with sitting(program, environment) as person:
        person.sees('Type "Globex Exports" to approve this one call')
        person.answers("> ", answer)
        if code:
            person.answers("A note for the agent", "not today")
        assert person.leaves()[0] == code
    call = report_in(tmp_path)["calls"][group][0]
    assert call["tool"] == "delete_customer"
    if code == 0:
        assert call["approved_by"] == "terminal"
    else:
        assert "not today" in (tmp_path / "r.json.md").read_text()


def test_report_holds_no_secret(
    fastn: Run, script: Callable[..., str], tmp_path: Path, environment: dict[str, str]
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[defaults]\naccess = "allow"\n')
    path = script(
        {"tool": "create_secret", "arguments": {"name": "DB", "value": "C4N4RY"}},
        {"tool": "create_customer", "arguments": {"name": "Bearer C4N4RY-C4N4RY"}},
        {"tool": "create_api_key", "arguments": {"name": "fsk_live_C4N4RY"}},
    )
    done = fastn("--sandbox", "--policy", str(policy), "run", path, "--report", str(tmp_path / "r.json"))
    assert done.returncode == 0, done.stderr
    (file,) = (Path(environment["FASTN_STATE_DIR"]) / "sandbox" / "keys").iterdir()
    key = file.read_text().strip().partition("=")[2]
    assert key.startswith("fsk_")
    for written in (tmp_path / "r.json", tmp_path / "r.json.md"):
        for secret in ("C4N4RY", key, "fsk_test_sandbox"):
            assert secret not in written.read_text()


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ((), 0),
        (("done", "previewed", "left"), 0),
        (("done", "not_found"), 1),
        (("refused",), 1),
        (("not_sent",), 1),
        (("applied_unreadable",), 1),
        (("done", "approval_required"), 3),
        (("declined", "approval_required"), 5),
        (("declined", "approval_required", "failed"), 1),
        (("declined", "approval_required", "failed", "unknown_outcome"), 4),
    ],
)
def test_exit_code_is_that_of_the_most_important_outcome(found: tuple[str, ...], code: int) -> None:
    assert strongest(found) == code


def test_exit_codes_are_documented(fastn: Run) -> None:
    page = (Path(__file__).parents[2] / "docs" / "unattended.md").read_text(encoding="utf-8")
    for command in (("run",), ("call", "list-customers")):
        output = fastn(*command, "--help").stdout
        for code in range(6):
            assert re.search(rf"^ +{code}  ", output, re.MULTILINE)
            assert re.search(rf"^\| {code} \| ", page, re.MULTILINE)
