"""`fastn-mcp setup`: the clients that it connects, what it asks, and the command that it ends with."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Run, error_line
from support.identity_provider import listening
from support.terminal import sitting

from fastn_mcp.config.command_line import path_hint
from fastn_mcp.extensions.sandbox.app import create_app
from fastn_mcp.extensions.sandbox.auth import KEY
from fastn_mcp.extensions.sandbox.server import Sandbox
from fastn_mcp.runtime import System

PROGRAM = str(Path(sys.executable).with_name("fastn-mcp"))
SETUP = ["-m", "fastn_mcp", "setup"]
APPLY = "Apply this change? [y/N]:"


@pytest.fixture(autouse=True)
def codex_folder(home: Path) -> None:
    """The home folder has Codex beside Cursor."""
    (home / ".codex").mkdir()


def cursor(home: Path) -> dict[str, Any]:
    file = home / ".cursor" / "mcp.json"
    return json.loads(file.read_bytes())["mcpServers"]["fastn"] if file.exists() else {}


def codex(home: Path) -> dict[str, Any]:
    file = home / ".codex" / "config.toml"
    return tomllib.loads(file.read_text())["mcp_servers"]["fastn"] if file.exists() else {}


# --- without a terminal ----------------------------------------------------------------------------------------------


def test_setup_connects_every_client_and_ends_with_a_command_that_works(
    fastn: Run, home: Path, environment: dict[str, str]
) -> None:
    done = fastn("setup", "--sandbox", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Clients to connect: Cursor, Codex.\n")
    for change in (f"+++ {home}/.cursor/mcp.json\n", f"+++ {home}/.codex/config.toml\n", '+args = ["--sandbox"]\n'):
        assert change in done.stdout
    assert cursor(home) == {"type": "stdio", "command": PROGRAM, "args": ["--sandbox"]}
    assert codex(home) == {"command": PROGRAM, "args": ["--sandbox"]}
    *_, heading, command, first, second = done.stdout.splitlines()
    assert heading == "Check that it works:"
    assert (first, second) == ("  In Cursor, open Settings > MCP and turn it on", "  Check with: codex mcp list")
    shown = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout)["data"]["account"]["profile"] == "sandbox"
    again = fastn("setup", "--sandbox", "--yes")
    assert again.returncode == 0
    assert again.stdout.count("has this entry already") == 2
    assert again.stdout.splitlines()[-3:] == done.stdout.splitlines()[-3:]


def test_account_is_served_for_reading_unless_a_mode_is_chosen(
    fastn: Run, home: Path, environment: dict[str, str]
) -> None:
    environment["FASTN_API_KEY"] = KEY
    done = fastn("setup", "--account", "--yes", "--client", "cursor")
    assert (done.returncode, cursor(home)["args"], codex(home)) == (0, ["--mode", "read-only"], {})
    assert done.stdout.splitlines()[-2].endswith("fastn-mcp whoami")
    fastn("--mode", "guarded", "setup", "--account", "--yes", "--client", "cursor")
    assert cursor(home)["args"] == ["--mode", "guarded"]
    fastn("--mode", "read-only", "--sandbox", "setup", "--yes", "--client", "codex")
    assert codex(home)["args"] == ["--sandbox", "--mode", "read-only"]


def test_account_without_a_key_changes_nothing(fastn: Run, home: Path) -> None:
    error_line(fastn("setup", "--account", "--yes"), "There is no API key", "fastn-mcp login", stdout=None)
    assert (cursor(home), codex(home)) == ({}, {})


def test_setup_without_a_terminal_says_what_to_run(fastn: Run, home: Path) -> None:
    for options in ((), ("--sandbox",), ("--account",)):
        error_line(fastn("setup", *options), "no terminal to ask on", "setup --sandbox --yes", "login --stdin")
    assert cursor(home) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("setup", "--yes"), "say what is served: --sandbox or --account."),
        (("--sandbox", "setup", "--account", "--yes"), "--sandbox and --profile cannot be combined."),
        (("--profile", "acme", "setup", "--sandbox", "--yes"), "--sandbox and --profile cannot be combined."),
        (("setup", "--client", "cursr", "--yes"), "did you mean 'cursor'?"),
    ],
)
def test_contradictory_options_change_nothing(arguments: tuple[str, ...], message: str, fastn: Run, home: Path) -> None:
    error_line(fastn(*arguments), message, stdout=None)
    assert (cursor(home), codex(home)) == ({}, {})


def test_machine_without_clients_is_told_which_are_known(fastn: Run, home: Path) -> None:
    for folder in (".cursor", ".codex"):
        (home / folder).rmdir()
    error_line(
        fastn("setup", "--sandbox", "--yes"), "Claude Code, Claude Desktop, VS Code", "install json", "get-overview"
    )


def test_entry_of_somebody_else_stays_and_other_clients_are_connected(fastn: Run, home: Path) -> None:
    file = home / ".cursor" / "mcp.json"
    file.write_text('{"mcpServers": {"fastn": {"url": "x"}}}')
    done = fastn("setup", "--sandbox", "--yes")
    assert done.returncode == 1
    assert "has an entry 'fastn' already" in done.stderr
    assert (cursor(home), codex(home)["args"]) == ({"url": "x"}, ["--sandbox"])
    assert done.stdout.endswith("\n  Check with: codex mcp list\n")
    assert fastn("setup", "--sandbox", "--yes", "--replace").returncode == 0
    assert cursor(home)["args"] == ["--sandbox"]


# --- at a terminal ---------------------------------------------------------------------------------------------------


def test_person_chooses_the_clients_by_their_changes(home: Path, environment: dict[str, str]) -> None:
    (home / ".codex" / "config.toml").write_text('[mcp_servers.fastn]\ncommand = "theirs"\n')
    with sitting(SETUP, environment) as person:
        person.answers("Connect your Fastn account? (No: the sandbox, with sample data) [y/N]:", "")
        assert "+++ " in person.answers(APPLY, "n")
        assert '-command = "theirs"' in person.answers(APPLY, "y")
        code, shown = person.leaves()
    assert code == 0
    assert (cursor(home), codex(home)["args"]) == ({}, ["--sandbox"])
    assert "  Check with: codex mcp list" in shown
    assert "In Cursor" not in shown


def test_person_without_a_key_logs_in_first(home: Path, environment: dict[str, str], fastn: Run) -> None:
    """The tests have no keyring, so that a file is offered."""
    with listening(create_app(Sandbox(System().now))) as address:
        environment["FASTN_BASE_URL"] = address
        with sitting([*SETUP, "--account", "--client", "cursor"], environment) as person:
            person.answers("Keep the key in a file that only you can read? [Y/n]:", "")
            person.answers("(not shown): ", KEY)
            person.answers("Serve only tools that read, at first? [Y/n]:", "n")
            person.answers(APPLY, "y")
            code, shown = person.leaves()
        assert (code, cursor(home)["args"], KEY in person.shown) == (0, [], False)
        assert "fastn-mcp whoami" in shown
        assert fastn("whoami").returncode == 0


def test_key_that_does_not_work_connects_nothing(home: Path, environment: dict[str, str]) -> None:
    with listening(create_app(Sandbox(System().now))) as address:
        environment["FASTN_BASE_URL"] = address
        with sitting([*SETUP, "--account"], environment) as person:
            person.answers("[Y/n]:", "")
            person.answers("(not shown): ", "fsk_test_unknown")
            code, shown = person.leaves()
    assert (code, "Nothing was stored" in shown, cursor(home), codex(home)) == (1, True, {}, {})


# --- the PATH --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("/bin/bash", "echo 'export PATH=\"BIN:$PATH\"' >>~/.bashrc"),
        ("/usr/bin/zsh", "echo 'export PATH=\"BIN:$PATH\"' >>~/.zshrc"),
        ("/usr/bin/fish", "fish_add_path 'BIN'"),
    ],
)
def test_line_of_the_hint_puts_the_program_into_the_path_of_the_next_shell(
    shell: str, line: str, tmp_path: Path
) -> None:
    program = tmp_path / "bin of ann" / "fastn-mcp"
    program.parent.mkdir()
    program.touch(mode=0o755)
    environment = {"PATH": "/usr/bin:/bin", "SHELL": shell, "HOME": str(tmp_path)}
    hint = path_hint(environment, str(program))
    assert hint is not None
    command = hint.partition("for good:\n  ")[2]
    assert command == line.replace("BIN", str(program.parent))
    if not Path(shell).exists():
        pytest.skip(f"no {shell}")
    subprocess.run([shell, "-c", command], env=environment, check=True)
    next_shell = [shell, "-i", "-c", "command -v fastn-mcp"]
    done = subprocess.run(next_shell, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(program)


def test_no_hint_where_the_program_is_found_or_was_not_installed(tmp_path: Path) -> None:
    program = tmp_path / "fastn-mcp"
    program.touch(mode=0o755)
    assert path_hint({"PATH": str(tmp_path), "SHELL": "/bin/bash"}, str(program)) is None
    assert path_hint({"PATH": "/usr/bin"}, str(tmp_path / "__main__.py")) is None
    assert path_hint({"PATH": "/usr/bin"}, str(program)) == (
        f"fastn-mcp is not in your PATH. To add it for good:\n  put {tmp_path} into it"
    )
