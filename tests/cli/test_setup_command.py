"""`fastn-mcp setup`: the clients that it connects, what it asks, and the command that it ends with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.client_programs import ClientPrograms
from support.command_line import Run, error_line
from support.identity_provider import listening
from support.terminal import sitting

from fastn_mcp.config.command_line import path_hint
from fastn_mcp.extensions.sandbox.app import create_app
from fastn_mcp.extensions.sandbox.auth import KEY
from fastn_mcp.extensions.sandbox.server import Sandbox
from fastn_mcp.runtime import System

pytestmark = pytest.mark.extension("install")

PROGRAM = str(Path(sys.executable).with_name("fastn-mcp"))
SETUP = ["-m", "fastn_mcp", "setup"]
RUN = "Run this? [y/N]:"
RUN_BOTH = "Run these? [y/N]:"


@pytest.fixture(autouse=True)
def programs(home: Path, environment: dict[str, str], tmp_path: Path) -> ClientPrograms:
    """The machine has Claude Code and Codex, and nothing else."""
    (home / ".cursor").rmdir()
    programs = ClientPrograms(tmp_path / "programs")
    programs.create("claude", "codex")
    environment["PATH"] = programs.path
    return programs


def args_of(programs: ClientPrograms, client: str) -> list[str] | None:
    """Return the arguments of the server of which the client was told last; None if it was told of none."""
    for call in reversed(programs.calls):
        if call[0] == "claude" == client and call[2] == "add-json":
            return json.loads(call[-1])["args"]
        if call[0] == "codex" == client and call[2] == "add":
            return [*call[call.index("--") + 2 :]]
    return None


# --- without a terminal ----------------------------------------------------------------------------------------------


def test_setup_connects_every_client_and_ends_with_a_command_that_works(
    fastn: Run, programs: ClientPrograms, environment: dict[str, str]
) -> None:
    done = fastn("setup", "--sandbox", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Clients to connect: Claude Code, Codex.\n")
    assert f"  codex mcp add fastn -- {PROGRAM} --sandbox\n" in done.stdout
    entry = json.dumps({"type": "stdio", "command": PROGRAM, "args": ["--sandbox"]})
    assert f"  claude mcp add-json --scope user fastn '{entry}'\n" in done.stdout
    assert programs.calls == [
        ["claude", "mcp", "remove", "--scope", "user", "fastn"],
        ["claude", "mcp", "add-json", "--scope", "user", "fastn", entry],
        ["codex", "mcp", "add", "fastn", "--", PROGRAM, "--sandbox"],
    ]
    *_, heading, command, first, second = done.stdout.splitlines()
    assert heading == "Check that it works:"
    assert (first, second) == (
        "  Check with: claude mcp list. In an open session: /mcp",
        "  Check with: codex mcp list",
    )
    shown = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(shown.stdout)["data"]["account"]["profile"] == "sandbox"


def test_account_is_served_for_reading_unless_a_mode_is_chosen(
    fastn: Run, programs: ClientPrograms, environment: dict[str, str]
) -> None:
    environment["FASTN_API_KEY"] = KEY
    done = fastn("setup", "--account", "--yes", "--client", "claude-code")
    assert (done.returncode, args_of(programs, "claude"), args_of(programs, "codex")) == (
        *(0, ["--mode", "read-only"]),
        None,
    )
    assert done.stdout.splitlines()[-2].endswith("fastn-mcp whoami")
    fastn("--mode", "guarded", "setup", "--account", "--yes", "--client", "claude-code")
    assert args_of(programs, "claude") == ["--mode", "guarded"]
    fastn("--mode", "read-only", "--sandbox", "setup", "--yes", "--client", "codex")
    assert args_of(programs, "codex") == ["--sandbox", "--mode", "read-only"]


def test_account_without_a_key_changes_nothing(fastn: Run, programs: ClientPrograms) -> None:
    error_line(fastn("setup", "--account", "--yes"), "There is no API key", "fastn-mcp login", stdout=None)
    assert programs.calls == []


def test_setup_without_a_terminal_says_what_to_run(fastn: Run, programs: ClientPrograms) -> None:
    for options in ((), ("--sandbox",), ("--account",)):
        error_line(fastn("setup", *options), "no terminal to ask on", "setup --sandbox --yes", "login --stdin")
    assert programs.calls == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("setup", "--yes"), "say what is served: --sandbox or --account."),
        (("--sandbox", "setup", "--account", "--yes"), "--sandbox and --profile cannot be combined."),
        (("--profile", "acme", "setup", "--sandbox", "--yes"), "--sandbox and --profile cannot be combined."),
        (("setup", "--client", "cursr", "--yes"), "did you mean 'cursor'?"),
    ],
)
def test_contradictory_options_change_nothing(
    arguments: tuple[str, ...], message: str, fastn: Run, programs: ClientPrograms
) -> None:
    error_line(fastn(*arguments), message, stdout=None)
    assert programs.calls == []


def test_machine_without_clients_is_told_which_are_known(fastn: Run, environment: dict[str, str]) -> None:
    environment["PATH"] = "/usr/bin:/bin"
    error_line(
        fastn("setup", "--sandbox", "--yes"), "Claude Code, Claude Desktop, VS Code", "install json", "get-overview"
    )


def test_other_clients_are_connected_if_the_command_of_one_fails(fastn: Run, programs: ClientPrograms) -> None:
    programs.answers = {"add-json": (1, "Invalid settings")}
    programs.create("claude", "codex")
    done = fastn("setup", "--sandbox", "--yes")
    assert done.returncode == 1
    assert "claude ended with exit code 1. Invalid settings. Run it yourself: " in done.stderr
    assert args_of(programs, "codex") == ["--sandbox"]
    assert done.stdout.endswith("\n  Check with: codex mcp list\n")


# --- at a terminal ---------------------------------------------------------------------------------------------------


def test_person_chooses_the_clients_by_what_they_are_told(
    programs: ClientPrograms, environment: dict[str, str]
) -> None:
    with sitting(SETUP, environment) as person:
        person.answers("Connect your Fastn account? (No: the sandbox, with sample data) [y/N]:", "")
        assert "claude mcp add-json " in person.answers(RUN_BOTH, "n")
        assert "codex mcp add fastn " in person.answers(RUN, "y")
        code, shown = person.leaves()
    assert code == 0
    assert (args_of(programs, "claude"), args_of(programs, "codex")) == (None, ["--sandbox"])
    assert "  Check with: codex mcp list" in shown
    assert "Check with: claude" not in shown


def test_person_without_a_key_logs_in_first(programs: ClientPrograms, environment: dict[str, str], fastn: Run) -> None:
    """The tests have no keyring, so that a file is offered."""
    with listening(create_app(Sandbox(System().now))) as address:
        environment["FASTN_BASE_URL"] = address
        with sitting([*SETUP, "--account", "--client", "claude-code"], environment) as person:
            person.answers("Keep the key in a file that only you can read? [Y/n]:", "")
            person.answers("(not shown): ", KEY)
            person.answers("Serve only tools that read, at first? [Y/n]:", "n")
            person.answers(RUN_BOTH, "y")
            code, shown = person.leaves()
        assert (code, args_of(programs, "claude"), KEY in person.shown) == (0, [], False)
        assert "fastn-mcp whoami" in shown
        assert fastn("whoami").returncode == 0


def test_key_that_does_not_work_connects_nothing(programs: ClientPrograms, environment: dict[str, str]) -> None:
    with listening(create_app(Sandbox(System().now))) as address:
        environment["FASTN_BASE_URL"] = address
        with sitting([*SETUP, "--account"], environment) as person:
            person.answers("[Y/n]:", "")
            person.answers("(not shown): ", "fsk_test_unknown")
            code, shown = person.leaves()
    assert (code, "Nothing was stored" in shown, programs.calls) == (1, True, [])


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
