"""`fastn-mcp install` and `uninstall`: their output, and what they write."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Run, error_line
from support.terminal import sitting

from fastn_mcp.extensions.install.clients import CLIENTS
from fastn_mcp.extensions.install.command import install

PROGRAM = str(Path(sys.executable).with_name("fastn-mcp"))

SOURCE = str(Path(__file__).parents[2])
"""What the tests' environment installed the program from."""


def cursor(home: Path) -> Any:
    return json.loads((home / ".cursor" / "mcp.json").read_bytes())["mcpServers"]


def test_install_shows_the_change_and_how_to_undo_it(fastn: Run, home: Path) -> None:
    done = fastn("install", "cursor", "--sandbox", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"+++ {home}/.cursor/mcp.json\n" in done.stdout
    assert '+        "--sandbox"\n' in done.stdout
    assert done.stdout.endswith(f"{PROGRAM} uninstall cursor\n")
    assert cursor(home) == {"fastn": {"type": "stdio", "command": PROGRAM, "args": ["--sandbox"]}}
    fastn("uninstall", "cursor", "--yes")
    assert list((home / ".cursor").iterdir()) == []


def test_install_asks_and_can_be_declined(home: Path, environment: dict[str, str]) -> None:
    with sitting(["-m", "fastn_mcp", "install", "cursor", "--sandbox"], environment) as person:
        person.answers("Apply this change? [y/N]:", "")
        code, shown = person.leaves()
    assert (code, "Nothing was changed." in shown, (home / ".cursor" / "mcp.json").exists()) == (0, True, False)
    with sitting(["-m", "fastn_mcp", "install", "cursor", "--sandbox"], environment) as person:
        assert "--sandbox" in person.answers("Apply this change? [y/N]:", "y")
        code, shown = person.leaves()
    assert (code, "Done." in shown, "fastn" in cursor(home)) == (0, True, True)


def test_install_without_a_terminal_needs_yes(fastn: Run, home: Path) -> None:
    error_line(fastn("install", "cursor", "--sandbox"), "There is no terminal to ask on", "--yes", stdout=None)
    assert fastn("install", "cursor", "--sandbox", "--dry-run").returncode == 0
    assert not (home / ".cursor" / "mcp.json").exists()


def test_options_before_install_are_those_of_the_server(fastn: Run, home: Path) -> None:
    """A file is named by its full path, since the client starts the server anywhere."""
    options = ("--mode", "read-only", "--tools", "customers", "--policy", "p.toml", "--deadline", "30")
    done = fastn(*options, "install", "cursor", "--profile", "acme", "--yes", cwd=home)
    assert cursor(home)["fastn"]["args"] == [
        *("--mode", "read-only", "--tools", "customers", "--policy", str(home / "p.toml"), "--deadline", "30.0"),
        *("--profile", "acme"),
    ]
    assert done.stdout.endswith(f"{PROGRAM} --policy {home / 'p.toml'} --profile acme login\n")
    again = fastn("--sandbox", "install", "cursor", "--sandbox", "--yes", "--name", "try")
    assert again.stdout.endswith(f"{PROGRAM} uninstall cursor --name try\n")
    assert cursor(home)["try"]["args"] == ["--sandbox"]
    assert f"A copy of the old file: {home.parent}/FASTN_STATE_DIR/installed/" in again.stdout


def test_uninstall_of_an_entry_that_is_gone_says_so(fastn: Run, home: Path) -> None:
    fastn("install", "cursor", "--sandbox", "--yes")
    (home / ".cursor" / "mcp.json").write_text("{}")
    assert "is no longer in" in fastn("uninstall", "cursor").stdout


def test_uninstall_names_the_copy_of_a_replaced_entry(fastn: Run, home: Path) -> None:
    file = home / ".cursor" / "mcp.json"
    file.write_text('{"mcpServers": {"fastn": {"url": "x"}}}')
    error_line(fastn("install", "cursor", "--yes"), "has an entry 'fastn' already", "--replace", "--name")
    fastn("install", "cursor", "--replace", "--yes")
    file.write_text(file.read_text() + "\n")
    done = fastn("uninstall", "cursor", "--yes")
    last = done.stdout.splitlines()[-1]
    assert last.startswith("The entry that was there before is in ")
    assert '"url"' in Path(last.rpartition(" ")[2]).read_text()


def test_install_says_where_the_key_comes_from(fastn: Run, home: Path) -> None:
    done = fastn("install", "cursor", "--key", "environment", "--yes")
    assert done.stdout.endswith("The key comes from FASTN_API_KEY, with which Cursor was started.\n")
    prompted = fastn("install", "vscode", "--key", "prompt", "--yes", "--anyway")
    assert prompted.stdout.endswith("VS Code asks for the key when it first starts the server, and stores it.\n")
    written = (home / ".config" / "Code" / "User" / "mcp.json").read_text()
    assert json.loads(written)["inputs"][0]["password"] is True
    error_line(fastn("install", "cursor", "--key", "prompt"), "Cursor does not support --key prompt", "fastn-mcp login")
    error_line(fastn("install", "zed", "--key", "environment", "--anyway"), "Zed does not support --key environment")
    error_line(
        fastn("install", "json", "--key", "prompt"), "The entry for any other client does not support --key prompt"
    )


def test_project_entry_holds_no_path_of_this_machine(fastn: Run, home: Path) -> None:
    fastn("install", "vscode", "--project", "--key", "prompt", "--yes", cwd=home)
    written = json.loads((home / ".vscode" / "mcp.json").read_bytes())
    assert written["servers"]["fastn"]["command"] == "fastn-mcp"
    error_line(fastn("install", "vscode", "--project", "--uvx", cwd=home), "other machines", "Leave out --uvx")
    assert fastn("uninstall", "vscode", "--project", "--yes", cwd=home).returncode == 0
    assert not (home / ".vscode" / "mcp.json").exists()
    error_line(fastn("install", "windsurf", "--project"), "Windsurf has no file for a project", "Leave out --project")


def test_file_option_selects_another_file(fastn: Run, home: Path) -> None:
    file = home / "else.json"
    fastn("install", "vscode", "--file", str(file), "--uvx", "--sandbox", "--yes")
    assert json.loads(file.read_bytes())["servers"]["fastn"] == {
        "type": "stdio",
        "command": "uvx",
        "args": ["--from", SOURCE, "fastn-mcp", "--sandbox"],
    }
    fastn("uninstall", "vscode", "--file", str(file), "--yes")
    assert not file.exists()
    for command in ("install", "uninstall"):
        error_line(fastn(command, "vscode", "--file", str(file), "--project"), "Give either --project or --file")


def test_printed_commands_work_in_another_folder(fastn: Run, home: Path) -> None:
    """They name the account and the folders, and quote what a shell would split."""
    (home / "my files").mkdir()
    options = ("--file", "my files/mcp.json", "--name", "our server", "--profile", "acme", "--yes")
    done = fastn("--base-url", "https://eu.example.com", "install", "cursor", *options, cwd=home)
    undo, login = (line.partition(": ")[2] for line in done.stdout.splitlines()[-2:])
    assert login.endswith(f"{PROGRAM} --base-url https://eu.example.com --profile acme login")
    subprocess.run(f"{undo} --yes", shell=True, cwd="/", check=True, capture_output=True)  # noqa: S602
    assert list((home / "my files").iterdir()) == []


@pytest.mark.usefixtures("home")
def test_settings_of_the_shell_are_named_since_clients_start_elsewhere(fastn: Run, environment: dict[str, str]) -> None:
    environment |= {"FASTN_PROFILE": "acme", "FASTN_MODE": "read-only", "FASTN_API_KEY": "fsk_test_C4N4RY"}
    done = fastn("install", "cursor", "--yes")
    assert done.stderr.startswith("fastn-mcp: The server has FASTN_PROFILE, FASTN_MODE only if Cursor is started")
    assert "C4N4RY" not in done.stdout + done.stderr
    with_options = fastn("--mode", "read-only", "install", "cursor", "--profile", "acme", "--yes", "--replace")
    assert with_options.stderr == ""


@pytest.mark.usefixtures("home")
def test_settings_that_the_sandbox_ignores_are_not_named(fastn: Run, environment: dict[str, str]) -> None:
    environment |= {"FASTN_PROFILE": "acme", "FASTN_BASE_URL": "https://eu.example.com", "FASTN_MODE": "read-only"}
    done = fastn("install", "cursor", "--sandbox", "--yes")
    assert done.stderr.startswith("fastn-mcp: The server has FASTN_MODE only if Cursor is started")


def test_json_prints_the_entry_for_any_other_client(fastn: Run, home: Path) -> None:
    done = fastn("--mode", "read-only", "install", "json", "--sandbox", "--uvx")
    assert json.loads(done.stdout) == {
        "mcpServers": {
            "fastn": {"command": "uvx", "args": ["--from", SOURCE, "fastn-mcp", "--mode", "read-only", "--sandbox"]}
        }
    }
    assert list(home.iterdir()) == [home / ".cursor"]


def test_http_entry_is_installed_and_removed(fastn: Run, home: Path) -> None:
    """docs/local-http.md: byte for byte; it says where the token comes from, and takes no options."""
    url = "http://127.0.0.1:8080/mcp"
    file = home / ".cursor" / "mcp.json"
    file.write_bytes(before := b'{"mcpServers": {"other": {"command": "x"}}, // mine\r\n}')
    done = fastn("install", "cursor", "--url", url, "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert b"FASTN_HTTP_TOKEN" in file.read_bytes()
    assert done.stdout.endswith(f" {PROGRAM} http-token)\n")
    assert fastn("uninstall", "cursor", "--yes").returncode == 0
    assert file.read_bytes() == before
    claude = fastn("install", "claude-code", "--sandbox", "--url", url, "--yes", "--anyway").stdout
    assert f'"headersHelper": "{PROGRAM} --sandbox http-token --header"' in claude
    project = fastn("install", "claude-code", "--project", "--url", url, "--yes", cwd=home).stdout
    assert '"headersHelper": "fastn-mcp http-token --header"' in project
    asked = fastn("install", "vscode", "--url", url, "--yes", "--anyway").stdout
    assert asked.endswith(f" {PROGRAM} http-token\n")
    printed = json.loads(fastn("install", "json", "--url", url).stdout)["mcpServers"]["fastn"]
    assert printed["headers"] == {"Authorization": "Bearer ${FASTN_HTTP_TOKEN}"}
    for more in (("--key", "environment"), ("--profile", "acme")):
        error_line(
            fastn("install", "cursor", "--url", url, *more), "already running with the account and options", "Leave out"
        )
    error_line(
        fastn("--mode", "read-only", "install", "cursor", "--url", url), "already running with the account and options"
    )
    error_line(fastn("install", "zed", "--url", url, "--anyway"), "Zed cannot use a server over HTTP", "stdio")
    error_line(fastn("install", "cursor", "--url", "http://localhost:8080/mcp"), "127.0.0.1:8080/mcp. Not localhost")


def test_http_token_is_printed_if_there_is_one(fastn: Run, environment: dict[str, str]) -> None:
    """The command creates no token, lest one of another state folder is taken for the server's."""
    file = Path(environment["FASTN_STATE_DIR"]) / "sandbox" / "http-token"
    error_line(fastn("--sandbox", "http-token"), f"There is no token yet in {file}", "--http")
    assert not file.exists()
    file.parent.mkdir(parents=True, mode=0o700)
    file.write_text(f"{'t' * 40}\n")
    file.chmod(0o640)
    error_line(fastn("--sandbox", "http-token"), "users other than its owner can read it")
    file.chmod(0o600)
    assert fastn("--sandbox", "http-token").stdout == f"{'t' * 40}\n"
    assert json.loads(fastn("--sandbox", "http-token", "--header").stdout) == {"Authorization": f"Bearer {'t' * 40}"}
    error_line(fastn("http-token"), "There is no token yet")
    named = fastn("http-token", env={"FASTN_HTTP_TOKEN": "n" * 32})
    assert (named.stdout, named.stderr) == (f"{'n' * 32}\n", "")
    (target := file.with_name("elsewhere")).write_text(f"{'t' * 40}\n")
    target.chmod(0o600)
    file.unlink()
    file.symlink_to(target)
    error_line(fastn("--sandbox", "http-token"), "cannot be read")


def test_help_of_install_names_every_client() -> None:
    epilog = install.epilog or ""
    assert [name for name in epilog.splitlines()[1].split() if name != "Clients:"] == [one.name for one in CLIENTS]
