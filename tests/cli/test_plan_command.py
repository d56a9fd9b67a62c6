"""`fastn-mcp plan`: written from calls or a recorded run, read and signed by a person at a terminal."""

import json
import re
from pathlib import Path

import pytest
from support.command_line import Run, error_line
from support.terminal import sitting

CALLS = """\
# what the night run is to do
{"tool": "create_customer", "arguments": {"name": "Initech"}}
{"tool": "list_customers"}

{"tool": "delete_trigger", "arguments": {"trigger_id": "t1"}}
{"tool": "delete_trigger", "arguments": {"trigger_id": "t1"}}
"""
PASSPHRASE = "correct horse battery"


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    file = tmp_path / "calls.jsonl"
    file.write_text(CALLS)
    return file


def new_plan(fastn: Run, calls: Path, *more: str) -> Path:
    file = calls.with_name("plan.toml")
    done = fastn("--sandbox", "plan", "new", str(calls), "--name", "night", "--output", str(file), *more)
    assert (done.returncode, done.stdout) == (0, "")
    return file


def sign_plan(environment: dict[str, str], file: Path, name: str = "dana", *, first: bool = True) -> None:
    """Read and sign a plan as a person, whose key is created at the first time."""
    command = ["-m", "fastn_mcp", "--sandbox", "plan", "approve", str(file), "--as", name]
    with sitting(command, environment) as person:
        read = person.sees("To sign it, type the name of the plan (night): ")
        assert "2 x delete_trigger on t1" in read
        assert 'Delete trigger "t1": No trigger with this id' in read
        person.types("night\r")
        if first:
            person.answers("New passphrase for it: ", PASSPHRASE)
            person.sees("Repeat for confirmation: ")
        else:
            person.sees("Passphrase of your key: ")
        person.types(f"{PASSPHRASE}\r")
        code, shown = person.leaves()
    assert code == 0, shown
    assert PASSPHRASE not in person.shown
    assert f"fastn-mcp --sandbox --mode unattended --plan {file}" in " ".join(shown.split())


def test_new_writes_exact_entries_and_counts_equal_calls(fastn: Run, calls: Path) -> None:
    text = new_plan(fastn, calls).read_text()
    assert 'account = "sandbox at localhost"' in text
    assert re.findall(r'tool = "(\w+)"', text) == ["create_customer", "delete_trigger"]
    assert re.findall(r"count = (\d)", text) == ["1", "2"]


def test_new_replaces_no_plan(fastn: Run, calls: Path) -> None:
    before = (file := new_plan(fastn, calls)).read_text()
    done = fastn("--sandbox", "plan", "new", str(calls), "--name", "day", "--output", str(file))
    assert error_line(done) == f"{file}: File exists. Correct the path."
    assert file.read_text() == before


def test_new_writes_an_entry_for_each_call_of_a_batch(fastn: Run, tmp_path: Path) -> None:
    file = tmp_path / "calls.jsonl"
    targets = [{"tool": "delete_trigger", "arguments": {"trigger_id": key}} for key in ("t1", "t2")]
    file.write_text(json.dumps({"tool": "apply_changes", "arguments": {"changes": targets}}) + "\n")
    text = new_plan(fastn, file).read_text()
    assert [text.count(part) for part in ('tool = "delete_trigger"', 'target = "t1"', 'target = "t2"')] == [2, 1, 1]
    file.write_text(json.dumps({"tool": "apply_changes", "arguments": {"changes": [*targets, {"tool": "x"}]}}) + "\n")
    error_line(fastn("--sandbox", "plan", "new", str(file)), "line 1: ", "call 3: there is no tool 'x'")


def test_new_from_audit_writes_a_plan_of_a_recorded_run(fastn: Run, environment: dict[str, str]) -> None:
    for name in ("Initech", "Hooli"):
        assert fastn("--sandbox", "call", "create-customer", "--name", name).returncode == 0
    audit = Path(environment["FASTN_STATE_DIR"]) / "sandbox" / "audit.jsonl"
    with audit.open("a") as unfinished:
        unfinished.write('{"event": "intent", "to')
    done = fastn("--sandbox", "plan", "new", "--from-audit", str(audit))
    assert done.returncode == 0
    assert '"name" = "Initech"' in done.stdout
    assert '"name" = "Hooli"' in done.stdout
    assert "is left out: it is not an audit entry" in done.stderr
    recent = fastn("--sandbox", "plan", "new", "--from-audit", str(audit), "--since", "1h")
    assert recent.stdout.count("[[allow]]") == done.stdout.count("[[allow]]")
    assert "No call" in fastn("--sandbox", "plan", "new", "--from-audit", str(audit), "--since", "2099-01-01").stderr
    error_line(fastn("--sandbox", "plan", "new", "--from-audit", str(audit), "--since", "today"), "not a time")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("nonsense", "line 1: invalid JSON"),
        ('{"tool": "delete_trigger"}', "line 1: trigger_id: is required"),
        ('{"tool": "delete_triger", "arguments": {}}', "did you mean 'delete_trigger'?"),
        ('{"tool": "list_customers"}', "No call in it changes anything."),
    ],
)
def test_new_reports_an_invalid_call_with_its_line(fastn: Run, tmp_path: Path, line: str, expected: str) -> None:
    (tmp_path / "calls.jsonl").write_text(line)
    error_line(fastn("--sandbox", "plan", "new", str(tmp_path / "calls.jsonl")), expected)


def test_plan_signed_at_a_terminal_is_valid(fastn: Run, environment: dict[str, str], calls: Path) -> None:
    file = new_plan(fastn, calls)
    unsigned = fastn("--sandbox", "plan", "verify", str(file))
    assert unsigned.returncode == 1
    assert "plan approve" in unsigned.stderr
    sign_plan(environment, file)
    key = Path(environment["FASTN_CONFIG_DIR"]) / "plan-key.pem"
    assert key.stat().st_mode & 0o777 == 0o600
    assert b"ENCRYPTED" in key.read_bytes()
    good = fastn("--sandbox", "plan", "verify", str(file))
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith("Valid: signed by dana, until ")
    output = fastn("--sandbox", "plan", "show", str(file)).stdout
    assert "signed by dana." in output
    assert output.splitlines()[-1] == "In total, at most: delete 2, create 1."
    sign_plan(environment, file, first=False)
    output = fastn(
        "--sandbox", "--mode", "unattended", "--plan", str(file), "call", "create-customer", "--name", "Initech"
    )
    assert json.loads(output.stdout)["done"] == "create_customer"
    other = fastn(
        "--sandbox", "--mode", "unattended", "--plan", str(file), "call", "create-customer", "--name", "Hooli"
    )
    assert json.loads(other.stdout)["outcome"] == "refused"
    file.write_text(file.read_text().replace("Initech", "Hooli"))
    refused = fastn("--sandbox", "--mode", "unattended", "--plan", str(file), "call", "list-customers")
    assert refused.returncode == 2
    assert "the signature of 'dana' is invalid" in refused.stderr
    edited = fastn("--sandbox", "plan", "show", str(file))
    assert "unsigned." in edited.stdout
    assert "the signature of 'dana' is invalid" in edited.stderr


def test_plan_is_not_signed_if_another_name_is_typed(fastn: Run, environment: dict[str, str], calls: Path) -> None:
    file = new_plan(fastn, calls)
    command = ["-m", "fastn_mcp", "--sandbox", "plan", "approve", str(file), "--as", "dana"]
    with sitting(command, environment) as person:
        person.answers("(night): ", "nigth")
        code, shown = person.leaves()
    assert code == 1
    assert "Not signed" in shown
    assert not file.with_name("plan.toml.sig").exists()


def test_show_describes_a_plan_with_target_names(fastn: Run, calls: Path) -> None:
    found = fastn("--sandbox", "call", "list-triggers", "--limit", "1")
    trigger = json.loads(found.stdout)["data"][0]
    calls.write_text(json.dumps({"tool": "delete_trigger", "arguments": {"trigger_id": trigger["id"]}}))
    output = fastn("--sandbox", "plan", "show", str(new_plan(fastn, calls)))
    assert output.returncode == 0
    first, second, which, ids = (line.strip() for line in output.stdout.splitlines()[1:-1])
    assert first == f'Delete trigger "{trigger["name"]}".'
    assert second.startswith("The trigger itself can be created again, under a new id.")
    assert which.startswith('Customer: "')
    assert ids.endswith(f"1 x delete_trigger on {trigger['id']}.")
