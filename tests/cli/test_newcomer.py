"""What somebody does wrong in the first ten minutes: one line that says what happened and what to do next."""

import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

KEY = {"FASTN_API_KEY": "fsk_test_C4N4RY"}

WRONG: dict[str, tuple[tuple[str, ...], dict[str, str], str, str]] = {
    "a tool without call": (("list-customers",), {}, "is a tool and no command", "fastn-mcp call list-customers"),
    "a tool, as agents call it": (("list_customers",), {}, "is a tool", "fastn-mcp call list-customers"),
    "a command, misspelt": (("instal",), {}, "There is no command 'instal'", "did you mean 'install'?"),
    "a command below, misspelt": (("policy", "chek"), {}, "no command 'chek'", "did you mean 'check'?"),
    "a tool, misspelt": (("--sandbox", "call", "list-custmers"), {}, "no tool", "did you mean 'list-customers'?"),
    "something else": (("hello",), {}, "There is no command 'hello'.", "fastn-mcp --help"),
    "no argument": (("--sandbox", "call", "get-customer"), {}, "'--customer-id'", "call get-customer --help"),
    "no client": (("install",), {}, "Missing argument 'CLIENT'", "fastn-mcp install --help"),
    "an unknown client": (("install", "cursr"), {}, "no client 'cursr'", "did you mean 'cursor'?"),
    "a client that is not there": (("install", "cursor"), {}, "There is no Cursor here", "--anyway"),
    "one whose file lies in the home": (("install", "claude-code"), {}, ".claude.json nor a program", "--anyway"),
    "nothing to uninstall": (("uninstall", "cursor"), {}, "no entry", "Name the place as you did then"),
    "no shell": (("completion",), {}, "Choose from: bash, zsh, fish.", "fastn-mcp completion --help"),
    "no terminal for a key": (("login", "--file"), {}, "no terminal", "fastn-mcp login --stdin"),
    "no terminal to sign at": (("plan", "approve", "x.toml", "--as", "me"), {}, "Nothing was signed", "Run it"),
    "no page": (("approvals", "--open"), {}, "No approval page is open", "fastn-mcp approvals"),
    "no plan": (("plan", "show", "x.toml"), {}, "no plan x.toml", "fastn-mcp plan new"),
    "no policy": (("policy", "check", "x.toml"), {}, "no policy file x.toml", "Correct the path"),
    "no script": (("--sandbox", "run", "x.jsonl"), {}, "x.jsonl cannot be read", "No such file"),
    "no audit yet": (("audit", "tail"), {}, "There is no audit", "It begins with the first call"),
    "no profile": (("profiles", "use", "acme"), {}, "There is no profile 'acme'", "fastn-mcp profiles add NAME"),
    "no key kept": (("logout",), {}, "login has kept no key", "fastn-mcp profiles"),
    "a folder that is none": (("openapi", "--output", "no/x.json"), {}, "no/x.json: No such", "Correct the path"),
    "plain http": (("whoami",), KEY | {"FASTN_BASE_URL": "http://live.fastn.ai"}, "must be https", "localhost"),
    "an address that is none": (("--sandbox", "--http", "8080"), {}, "is not HOST:PORT", "--http 127.0.0.1:8080"),
    "to everybody": (("--sandbox", "--http", "0.0.0.0:8080"), {}, "this machine only", "docs/hosting.md"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_mistake_ends_with_one_line_and_what_to_do_next(what: str, fastn: Run, tmp_path: Path) -> None:
    """Issue 7: every error that a newcomer can meet in the first ten minutes says what to do next."""
    arguments, given, happened, following = WRONG[what]
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "PATH": str(tmp_path)}
    done = fastn(*arguments, env=home | given, cwd=tmp_path)
    assert (done.returncode in (1, 2), done.stdout) == (True, ""), done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("fastn-mcp: ")
    assert happened in line
    assert following in line
    assert "C4N4RY" not in line


@pytest.fixture
def taken() -> Iterator[int]:
    """A port at which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.mark.parametrize("how", [("sandbox", "--port", "{}"), ("--sandbox", "--http", "127.0.0.1:{}")])
def test_a_port_that_is_taken_is_said_before_anything_else(how: tuple[str, ...], taken: int, fastn: Run) -> None:
    """Issue 7."""
    done = fastn(*(part.format(taken) for part in how))
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert f"127.0.0.1:{taken}: another program listens there. Name another" in line


def test_a_host_where_nobody_is_says_so_and_how_to_learn_more(fastn: Run) -> None:
    """Issue 7: no network, and the way to learn more."""
    nobody = KEY | {"FASTN_BASE_URL": "http://127.0.0.1:1"}
    done = fastn("call", "list-customers", env=nobody)
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "Nothing was sent. Check the network and FASTN_BASE_URL; fastn-mcp doctor says what is wrong." in done.stderr
    known = fastn("whoami", env=nobody)
    assert known.returncode == 1
    assert "Whether the key works could not be learnt" in known.stdout + known.stderr
