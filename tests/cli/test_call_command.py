"""`fastn-mcp call`: one call as an agent would make it, guard included."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
from support.command_line import Run, error_line
from support.ports import free_port
from support.terminal import sitting

from fastn_mcp.cli.call import HELP, Calls
from fastn_mcp.tools.catalog import CATALOG, AnyOperation
from fastn_mcp.tools.tool import Effect


def body_of(done: "subprocess.CompletedProcess[str]", code: int = 0) -> dict[str, Any]:
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


def command_of(operation: AnyOperation) -> click.Command:
    group = Calls("call")
    command = group.get_command(click.Context(group), operation.tool_name().replace("_", "-"))
    assert command is not None
    return command


def options(operation: AnyOperation) -> dict[str, click.Option]:
    command = command_of(operation)
    assert command.help == operation.__doc__
    return {flag: p for p in command.params if isinstance(p, click.Option) for flag in p.opts}


@pytest.mark.parametrize("operation", CATALOG, ids=lambda operation: operation.tool_name())
def test_every_argument_of_every_tool_is_an_option(operation: AnyOperation) -> None:
    found = options(operation)
    schema = operation.input_schema()
    dry_run = {"--dry-run"} if operation.effect is not Effect.READ else set[str]()
    output = {"--json", "--color"} | ({"--all"} if operation.tool_name().startswith("list_") else set[str]())
    output |= {"--all"} if operation.tool_name() == "query_audit_log" else set[str]()
    assert found.keys() == {f"--{name.replace('_', '-')}" for name in schema["properties"]} | dry_run | output
    for name, facts in schema["properties"].items():
        option = found[f"--{name.replace('_', '-')}"]
        required = schema.get("required", [])
        is_bare = required == [name] and facts["type"] == "string"
        assert option.required is (name in required and not is_bare)
        assert any(isinstance(each, click.Argument) for each in command_of(operation).params) or not is_bare
        assert option.help is not None
        assert option.help.startswith(HELP.get(name, facts["description"]))
        assert option.help.endswith("As JSON.") is (
            facts["type"] == "object" or facts.get("items", {}).get("type") == "object"
        )


def test_only_required_argument_is_taken_bare(fastn: Run) -> None:
    by_option = body_of(fastn("--sandbox", "call", "get-customer", "--customer-id", "Acme Corp"))
    assert body_of(fastn("--sandbox", "call", "get-customer", "Acme Corp")) == by_option
    assert "same argument" in error_line(fastn("--sandbox", "call", "find", "acme", "--query", "acme"))
    assert error_line(fastn("--sandbox", "call", "find")).startswith("Missing option '--query'.")
    assert "unexpected extra argument" in error_line(fastn("--sandbox", "call", "list-customers", "acme"))


def test_help_is_a_command_too(fastn: Run) -> None:
    for command in ((), ("call",), ("call", "find"), ("policy", "check")):
        assert fastn("help", *command).stdout == fastn(*command, "--help").stdout
    assert "no command 'nope'" in error_line(fastn("help", "nope"))
    assert "no tool 'fid' (did you mean 'find'?)" in error_line(fastn("help", "call", "fid"))


def test_tools_are_listed_with_hyphens_and_called_with_either(fastn: Run) -> None:
    listed = fastn("call", "--help").stdout
    for operation in CATALOG:
        assert f"\n  {operation.tool_name().replace('_', '-')} " in listed
    assert "Usage: fastn-mcp call get_customer [OPTIONS]" in fastn("call", "get_customer", "--help").stdout
    output = fastn("call", "get-customer", "--help").stdout
    assert "--customer-id TEXT" in output
    assert "Id/name." in output


def test_write_is_stored_in_the_sandbox_file(fastn: Run, tmp_path: Path) -> None:
    start = ("--sandbox-file", str(tmp_path / "sandbox.json"), "call")
    made = body_of(fastn(*start, "create-customer", "--name", "Initech", "--external-ref", "crm-9"))
    assert made["done"] == "create_customer"
    assert made["account"]["profile"] == "sandbox"
    found = body_of(fastn(*start, "get-customer", "--customer-id", made["data"]["id"]))
    assert (found["data"]["name"], found["data"]["externalRef"]) == ("Initech", "crm-9")


def test_dry_run_previews_and_sends_nothing(fastn: Run, tmp_path: Path) -> None:
    start = ("--sandbox-file", str(tmp_path / "sandbox.json"), "call")
    customer = globex(fastn, start)
    done = body_of(fastn(*start, "delete-customer", "--customer-id", customer, "--dry-run"))
    assert (done["status"], done["message"]) == ("preview", "Nothing was sent.")
    assert done["preview"]["target"]["name"] == "Globex Exports"
    assert body_of(fastn(*start, "get-customer", "--customer-id", customer))["data"]["id"] == customer


BAD = {
    "too many": (("list-customers", "--limit", "1000"), "limit", 2),
    "no choice": (("list-customers", "--detail", "C4N4RY"), "detail: must be concise or full", 2),
    "no cursor": (("list-customers", "--cursor", "C4N4RY"), "not a next_cursor of an earlier page", 2),
    "no subject": (("get-overview", "--order", "name"), "it sorts the table of one subject", 2),
    "no id": (("get-execution", "--execution-id", "../C4N4RY"), "execution_id", 2),
    "no JSON": (("create-customer", "--name", "x", "--extra", "{C4N4RY"), "extra", 2),
    "no UTF-8": (("create-customer", "--name", os.fsdecode(b"C4N4RY\xff")), "name", 2),
    "nothing there": (("get-customer", "--customer-id", "nobody"), "not_found", 1),
}


@pytest.mark.parametrize("what", BAD)
def test_failed_call_says_the_reason_on_both_streams(what: str, fastn: Run) -> None:
    arguments, named, code = BAD[what]
    done = fastn("--sandbox", "call", *arguments)
    error = body_of(done, code)
    assert named in json.dumps(error)
    assert error["message"].endswith(("Nothing was sent.", "Nothing was changed."))
    in_words = error["message"].replace("execution_id: ", "--execution-id: ")
    error_line(done, in_words, code=code, stdout=None)
    assert "C4N4RY" not in done.stdout


NAMED_BY_OPTION = {
    "a name for an id": (("get-execution", "--execution-id", "Daily sync"), '--execution-id takes an id; "Daily sync"'),
    "how to look it up": (("get-execution", "--execution-id", "Daily sync"), "call find --query 'Daily sync'"),
    "no value": (("get-customer", "--customer-id", ""), "--customer-id: must not be empty"),
    "unknown value": (("list-executions", "--status", "failedd"), "--status: unknown value 'failedd'"),
}


@pytest.mark.parametrize("what", NAMED_BY_OPTION)
def test_error_of_an_argument_names_its_option(what: str, fastn: Run) -> None:
    arguments, named = NAMED_BY_OPTION[what]
    done = fastn("--sandbox", "call", *arguments)
    assert done.returncode == 2
    assert named in done.stderr


def test_disabled_tool_is_not_called(fastn: Run) -> None:
    for flags in (("--mode", "read-only"), ("--tools", "workflows")):
        error = body_of(fastn("--sandbox", *flags, "call", "create-customer", "--name", "x"), 2)
        assert (error["outcome"], "is disabled here" in error["message"]) == ("not_sent", True)


def globex(fastn: Run, start: tuple[str, ...]) -> str:
    return str(body_of(fastn(*start, "list-customers", "--search", "Globex Exports"))["data"][0]["id"])


_READING = 1.1
"""Seconds. The guard takes a no within one second for a program's."""


@pytest.fixture
def at_a_terminal(environment: dict[str, str], tmp_path: Path) -> Callable[..., tuple[int, str, str]]:
    """Type an answer at each prompt of a call. Return the exit code, stdout, and what the terminal showed."""

    def call(answers: list[str], *arguments: str) -> tuple[int, str, str]:
        output = tmp_path / "stdout"
        with output.open("wb") as stdout, sitting(["-m", "fastn_mcp", *arguments], environment, stdout) as person:
            for answer in answers:
                person.sees("> ")
                time.sleep(_READING)
                person.types(f"{answer}\r")
            code, _ = person.leaves()
        return code, output.read_text(), person.shown

    return call


def test_secret_is_typed_unseen_at_the_terminal(at_a_terminal: Callable[..., tuple[int, str, str]]) -> None:
    command = ("--sandbox", "call", "create-secret", "--name", "STRIPE_KEY")
    code, output, shown = at_a_terminal(["y", "canary-4711"], *command)
    assert code == 0, shown
    assert 'Store secret "STRIPE_KEY". You enter its value.' in shown
    assert "the value (not shown as you type) > " in shown
    assert json.loads(output)["done"] == "create_secret"
    assert "canary" not in output + shown


def test_typed_name_at_a_terminal_deletes(
    fastn: Run, at_a_terminal: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    start = ("--sandbox-file", str(tmp_path / "sandbox.json"), "call")
    target = globex(fastn, start)
    code, output, shown = at_a_terminal(["Globex Exports"], *start, "delete-customer", "--customer-id", target)
    assert code == 0, shown
    assert json.loads(output)["done"] == "delete_customer"
    assert body_of(fastn(*start, "get-customer", "--customer-id", target), 1)["outcome"] == "not_found"


def test_log_is_text_on_a_terminal_and_json_elsewhere(fastn: Run, environment: dict[str, str]) -> None:
    command = ("--base-url", f"http://127.0.0.1:{free_port()}", "--log-level", "info", "call", "list-customers")
    environment = environment | {"FASTN_API_KEY": "fsk_test_1234567890"}
    with sitting(["-m", "fastn_mcp", *command], environment) as person:
        code, shown = person.leaves()
    assert code == 1
    assert "\nfastn-mcp info: Fastn at 127.0.0.1:" in f"\n{shown}"
    assert '"level"' not in shown
    piped = fastn(*command, env=environment)
    assert json.loads(piped.stderr.splitlines()[0])["level"] == "info"
