"""`fastn-mcp call`: one call as an agent would make it, guard included."""

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import pytest
from support.command_line import Run

from fastn_mcp.cli.call import Calls
from fastn_mcp.tools.catalog import CATALOG, AnyOperation
from fastn_mcp.tools.tool import Effect

pty = pytest.importorskip("pty")


def body_of(done: "subprocess.CompletedProcess[str]", code: int = 0) -> dict[str, Any]:
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def options(operation: AnyOperation) -> dict[str, click.Option]:
    group = Calls("call")
    command = group.get_command(click.Context(group), operation.tool_name().replace("_", "-"))
    assert command is not None
    assert command.help == operation.__doc__
    return {flag: p for p in command.params if isinstance(p, click.Option) for flag in p.opts}


@pytest.mark.parametrize("operation", CATALOG, ids=lambda operation: operation.tool_name())
def test_every_argument_of_every_tool_is_an_option(operation: AnyOperation) -> None:
    """Named like the argument, required if it is, with its description."""
    found = options(operation)
    schema = operation.input_schema()
    dry_run = {"--dry-run"} if operation.effect is not Effect.READ else set[str]()
    assert found.keys() == {f"--{name.replace('_', '-')}" for name in schema["properties"]} | dry_run
    for name, facts in schema["properties"].items():
        option = found[f"--{name.replace('_', '-')}"]
        assert option.required is (name in schema.get("required", []))
        assert option.help is not None
        assert option.help.startswith(facts["description"])
        assert option.help.endswith("As JSON.") is (
            facts["type"] == "object" or facts.get("items", {}).get("type") == "object"
        )


def test_tools_are_listed_with_hyphens_and_called_with_either(fastn: Run) -> None:
    """Hyphens as in the documentation; underscores, as agents write them, are accepted too."""
    listed = fastn("call", "--help").stdout
    for operation in CATALOG:
        assert f"\n  {operation.tool_name().replace('_', '-')} " in listed
    assert "Usage: fastn-mcp call get_customer [OPTIONS]" in fastn("call", "get_customer", "--help").stdout
    shown = fastn("call", "get-customer", "--help").stdout
    assert "--customer-id TEXT" in shown
    assert "Customer id." in shown


def test_read_prints_one_line_of_json(fastn: Run) -> None:
    done = fastn("--sandbox", "call", "list-customers", "--limit", "2")
    assert len(body_of(done)["data"]) == 2
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_write_is_stored_in_the_sandbox_file(fastn: Run, tmp_path: Path) -> None:
    start = ("--sandbox-file", str(tmp_path / "sandbox.json"), "call")
    made = body_of(fastn(*start, "create-customer", "--name", "Initech", "--external-ref", "crm-9"))
    assert made["done"] == "create_customer"
    assert made["account"]["profile"] == "sandbox"
    found = body_of(fastn(*start, "get-customer", "--customer-id", made["data"]["id"]))
    assert (found["data"]["name"], found["data"]["externalRef"]) == ("Initech", "crm-9")


def test_list_argument_is_a_repeated_option(fastn: Run) -> None:
    permissions = ("--permissions", "workflows:read", "--permissions", "executions:read")
    role = ("create-role", "--name", "Reader", "--parent", "Viewer", *permissions, "--dry-run")
    preview = body_of(fastn("--sandbox", "call", *role))["preview"]
    assert preview["arguments"]["permissions"] == ["workflows:read", "executions:read"]


def test_dry_run_previews_and_sends_nothing(fastn: Run, tmp_path: Path) -> None:
    start = ("--sandbox-file", str(tmp_path / "sandbox.json"), "call")
    customer = body_of(fastn(*start, "list-customers", "--search", "Globex Exports"))["data"][0]["id"]
    done = body_of(fastn(*start, "delete-customer", "--customer-id", customer, "--dry-run"))
    assert (done["status"], done["message"]) == ("preview", "Nothing was sent.")
    assert done["preview"]["target"]["name"] == "Globex Exports"
    assert body_of(fastn(*start, "get-customer", "--customer-id", customer))["data"]["id"] == customer


BAD = {
    "too many": (("list-customers", "--limit", "1000"), "limit"),
    "no id": (("get-customer", "--customer-id", "../C4N4RY"), "customer_id"),
    "no JSON": (("create-customer", "--name", "x", "--extra", "{C4N4RY"), "extra"),
    "no UTF-8": (("create-customer", "--name", os.fsdecode(b"C4N4RY\xff")), "name"),
    "nothing there": (("get-customer", "--customer-id", "nobody"), "not_found"),
}


@pytest.mark.parametrize("what", BAD)
def test_failed_call_exits_1_with_the_reason_on_both_streams(what: str, fastn: Run) -> None:
    arguments, named = BAD[what]
    done = fastn("--sandbox", "call", *arguments)
    error = body_of(done, 1)
    assert named in json.dumps(error)
    assert error["message"].endswith(("Nothing was sent.", "Nothing was changed."))
    (line,) = done.stderr.splitlines()
    assert line.startswith("fastn-mcp: ")
    assert error["message"] in line
    assert "C4N4RY" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("get-customer",), "--customer-id"),
        (("list-customers", "--limit", "many"), "--limit"),
        (("list-customers", "--serch", "x"), "--search"),
        (("list-custmers",), "list-custmers"),
    ],
)
def test_invalid_command_exits_2(arguments: tuple[str, ...], named: str, fastn: Run) -> None:
    done = fastn("--sandbox", "call", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr.splitlines()[-1]


def test_disabled_tool_is_not_called(fastn: Run) -> None:
    """Read-only and toolsets hold on the command line too."""
    for flags in (("--read-only",), ("--mode", "read-only"), ("--toolsets", "workflows")):
        error = body_of(fastn("--sandbox", *flags, "call", "create-customer", "--name", "x"), 1)
        assert (error["outcome"], "is disabled here" in error["message"]) == ("not_sent", True)


def globex(fastn: Run, start: tuple[str, ...]) -> str:
    return str(body_of(fastn(*start, "list-customers", "--search", "Globex Exports"))["data"][0]["id"])


def test_call_without_a_terminal_asks_nobody_and_sends_nothing(fastn: Run, tmp_path: Path) -> None:
    start = ("--sandbox-file", str(tmp_path / "sandbox.json"), "call")
    target = globex(fastn, start)
    done = fastn(*start, "delete-customer", "--customer-id", target)
    assert done.returncode in (1, 3)
    assert json.loads(done.stdout)["outcome"] in ("refused", "approval_required")
    assert "Nothing was sent." in json.loads(done.stdout)["message"]
    assert body_of(fastn(*start, "get-customer", "--customer-id", target))["data"]["name"] == "Globex Exports"


_TAKE = "import fcntl,os,sys,termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"


_READING = 1.1
"""Seconds. The guard takes a no within one second for a program's."""


def at_a_terminal(environment: dict[str, str], answer: str, *arguments: str) -> tuple[int, str, str]:
    """Type the answer when asked. Return the exit code, stdout, and what the terminal showed."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", _TAKE, sys.executable, "-m", "fastn_mcp", *arguments]
    env = {name: value for name, value in environment.items() if name != "CI"}
    shown = b""
    with subprocess.Popen(
        command, stdin=theirs, stderr=theirs, stdout=subprocess.PIPE, env=env, start_new_session=True
    ) as process:
        try:
            os.close(theirs)
            deadline = time.monotonic() + 20
            answers = answer.split("\n")[::-1]
            prompted = 0
            while process.poll() is None:
                assert time.monotonic() < deadline, shown
                if select.select([ours], [], [], 0.1)[0]:
                    try:
                        shown += os.read(ours, 65536)
                    except OSError:  # closed by the other side
                        break
                if shown.endswith(b"> ") and len(shown) > prompted:
                    if prompted == 0:
                        time.sleep(_READING)
                    # Leave empty what is asked after the decision, such as a note.
                    os.write(ours, f"{answers.pop() if answers else ''}\n".encode())
                    prompted = len(shown)
            assert process.stdout is not None
            output = process.stdout.read().decode()
            return process.wait(10), output, shown.decode()
        finally:
            process.kill()
            os.close(ours)


def test_secret_is_typed_unseen_at_the_terminal(environment: dict[str, str], tmp_path: Path) -> None:
    """With the approval, and it is in no output and no file but the sandbox's request."""
    start = ("--sandbox-file", str(tmp_path / "sandbox.json"), "call")
    code, output, shown = at_a_terminal(environment, "y\ncanary-4711", *start, "create-secret", "--name", "STRIPE_KEY")
    assert code == 0, shown
    assert 'Store secret "STRIPE_KEY". You enter its value.' in shown
    assert "the value (not shown as you type) > " in shown
    assert json.loads(output)["done"] == "create_secret"
    assert "canary" not in output + shown


def test_typed_name_at_a_terminal_deletes(fastn: Run, environment: dict[str, str], tmp_path: Path) -> None:
    """The preview and the question are on the terminal; stdout holds the result alone."""
    start = ("--sandbox-file", str(tmp_path / "sandbox.json"), "call")
    target = globex(fastn, start)
    code, output, shown = at_a_terminal(
        environment, "Globex Exports", *start, "delete-customer", "--customer-id", target
    )
    assert code == 0, shown
    assert 'Delete customer "Globex Exports"' in shown
    assert 'type the name between the quotes: "Globex Exports"' in shown
    assert json.loads(output)["done"] == "delete_customer"
    assert body_of(fastn(*start, "get-customer", "--customer-id", target), 1)["outcome"] == "not_found"


@pytest.mark.parametrize("answer", ["n", "Globex"])
def test_other_answers_at_a_terminal_decline(
    answer: str, fastn: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    start = ("--sandbox-file", str(tmp_path / "sandbox.json"), "call")
    target = globex(fastn, start)
    code, output, shown = at_a_terminal(environment, answer, *start, "delete-customer", "--customer-id", target)
    assert code == 5, shown
    error = json.loads(output)
    assert error["outcome"] == "declined"
    assert "Nothing was sent." in error["message"]
    assert body_of(fastn(*start, "get-customer", "--customer-id", target))["data"]["name"] == "Globex Exports"
