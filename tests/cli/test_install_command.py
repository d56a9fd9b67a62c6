"""`fastn-mcp install` and `uninstall`: their output, and what clients are told."""

import base64
import json
import shutil
import subprocess
import sys
import tomllib
import webbrowser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from mcp import Client, StdioServerParameters, stdio_client
from support.client_programs import ClientPrograms
from support.command_line import Run, error_line
from support.terminal import sitting

from fastn_mcp.extensions.install.clients import CLIENTS
from fastn_mcp.extensions.install.command import install

PROGRAM = str(Path(sys.executable).with_name("fastn-mcp"))

URL = "http://127.0.0.1:8080/mcp"


@pytest.fixture(autouse=True)
def programs(home: Path, environment: dict[str, str], tmp_path: Path) -> ClientPrograms:  # noqa: ARG001 - set before
    """The machine has Codex, and Cursor without its program."""
    programs = ClientPrograms(tmp_path / "programs")
    programs.create("codex")
    environment["PATH"] = programs.path
    return programs


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The links that were opened."""
    links: list[str] = []

    def record(link: str) -> bool:
        links.append(link)
        return True

    monkeypatch.setattr(webbrowser, "open", record)
    return links


def open_nothing(_link: str) -> bool:
    return False


def printed(output: str) -> Any:
    """Return the JSON document in an output."""
    return json.loads(output[output.index("{\n") : output.rindex("\n}") + 2])


def test_install_shows_and_runs_the_command_of_the_client(fastn: Run, programs: ClientPrograms) -> None:
    done = fastn("install", "codex", "--sandbox", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"Codex adds the server by its own command:\n\n  codex mcp add fastn -- {PROGRAM} --sandbox\n\n"
        f"Done. Check with: codex mcp list.\nUndo: {PROGRAM} uninstall codex\n"
    )
    assert programs.calls == [["codex", "mcp", "add", "fastn", "--", PROGRAM, "--sandbox"]]
    undone = fastn("uninstall", "codex", "--yes")
    assert undone.stdout.endswith("\nDone. Codex has no entry 'fastn' now.\n")
    assert programs.calls[1:] == [["codex", "mcp", "remove", "fastn"]]


def test_entry_of_the_same_name_is_removed_first_where_the_client_does_not_replace_it(
    fastn: Run, programs: ClientPrograms
) -> None:
    """That there was none is no error."""
    programs.answers = {"remove": (1, "No MCP server named fastn")}
    programs.create("claude")
    assert fastn("install", "claude-code", "--sandbox", "--yes").returncode == 0
    assert [call[2] for call in programs.calls] == ["remove", "add-json"]


def test_command_that_fails_says_why_and_how_to_run_it(fastn: Run, programs: ClientPrograms) -> None:
    programs.answers = {"add": (3, "first\nconfig.toml is broken."), "remove": (1, "")}
    programs.create("codex")
    failed = fastn("install", "codex", "--sandbox", "--yes")
    run = f"{programs.folder / 'codex'} mcp add fastn -- {PROGRAM} --sandbox"
    error_line(failed, f"codex ended with exit code 3. config.toml is broken. Run it yourself: {run}", stdout=None)
    assert "Nothing was changed" not in failed.stderr
    error_line(
        fastn("uninstall", "codex", "--yes"), "codex ended with exit code 1. It says nothing.", "Run it", stdout=None
    )
    (programs.folder / "codex").write_text("#!/nowhere\n")
    error_line(fastn("install", "codex", "--sandbox", "--yes"), "codex did not end: FileNotFoundError.", stdout=None)


def test_install_asks_and_can_be_declined(programs: ClientPrograms, environment: dict[str, str]) -> None:
    for answer, calls in (("", 0), ("y", 1)):
        with sitting(["-m", "fastn_mcp", "install", "codex", "--sandbox"], environment) as person:
            assert "--sandbox" in person.answers("Run this? [y/N]:", answer)
            code, shown = person.leaves()
        assert (code, "Done." in shown, len(programs.calls)) == (0, bool(calls), calls)


def test_install_without_a_terminal_needs_yes(fastn: Run, programs: ClientPrograms, opened: list[str]) -> None:
    for client in ("codex", "cursor"):
        error_line(fastn("install", client, "--sandbox"), "There is no terminal to ask on", "--yes", stdout=None)
        dry = fastn("install", client, "--sandbox", "--dry-run")
        assert (dry.returncode, "Undo" in dry.stdout) == (0, False)
        assert dry.stdout.endswith("Nothing was changed: this was a dry run.\n")
    assert fastn("uninstall", "codex", "--dry-run").returncode == 0
    assert (programs.calls, opened) == ([], [])


def test_link_is_opened_after_its_entry_was_shown(
    fastn: Run, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = fastn("install", "cursor", "--sandbox", "--yes")
    entry = {"type": "stdio", "command": PROGRAM, "args": ["--sandbox"]}
    assert printed(done.stdout) == {"mcpServers": {"fastn": entry}}
    (link,) = opened
    assert json.loads(base64.b64decode(parse_qs(urlsplit(link).query)["config"][0])) == entry
    monkeypatch.setattr(webbrowser, "open", open_nothing)
    elsewhere = fastn("install", "cursor", "--sandbox", "--yes")
    assert "It could not be opened here. Open it where Cursor is, or put the entry into " in elsewhere.stdout
    assert f"\n  {link}\n" in elsewhere.stdout


@pytest.mark.parametrize("client", ["zed", "windsurf", "claude-desktop", "codex", "claude-code", "json"])
async def test_printed_entry_works_when_it_is_pasted(fastn: Run, client: str, environment: dict[str, str]) -> None:
    """Of a client that has no command, or whose program this machine does not have."""
    environment["PATH"] = "/usr/bin:/bin"
    done = fastn("install", client, "--sandbox")
    assert done.returncode == 0
    if client == "codex":
        text = done.stdout[done.stdout.index("[mcp_servers") : done.stdout.index("Check with: ")]
        entry = tomllib.loads(text)["mcp_servers"]["fastn"]
    else:
        (servers,) = printed(done.stdout).values()
        entry = servers["fastn"]
    if client != "json":
        program = {"codex": "codex", "claude-code": "claude"}.get(client, "")
        why = f"{program}, the program of " if program else " has no command for this. Put"
        assert why in done.stdout
        assert f"Undo: {PROGRAM} uninstall {client}" in done.stdout
    start = StdioServerParameters(command=entry["command"], args=entry["args"], env=environment)
    async with Client(stdio_client(start)) as pasted:
        assert len((await pasted.list_tools()).tools) > 40


def test_batch_file_is_not_run(fastn: Run, programs: ClientPrograms, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell would read what an entry contains. On Windows, npm installs clients as such."""
    for suffix in (".cmd", ".BAT"):

        def which(name: str, suffix: str = suffix, **_: Any) -> str:
            return str(programs.folder / f"{name}{suffix}")

        monkeypatch.setattr(shutil, "which", which)
        installed = fastn("install", "codex", "--sandbox", "--yes").stdout
        assert "codex, the program of Codex, was not found, or is a batch file. Put this into " in installed
        assert "Remove the entry 'fastn' in " in fastn("uninstall", "codex", "--yes").stdout
    assert programs.calls == []


def test_options_before_install_are_those_of_the_server(fastn: Run, home: Path, programs: ClientPrograms) -> None:
    """A file is named by its full path, since the client starts the server anywhere."""
    options = ("--mode", "read-only", "--tools", "customers", "--policy", "p.toml", "--deadline", "30")
    done = fastn(*options, "install", "codex", "--profile", "acme", "--yes", cwd=home)
    assert [*programs.calls[-1][-10:]] == [
        *("--mode", "read-only", "--tools", "customers", "--policy", str(home / "p.toml"), "--deadline", "30.0"),
        *("--profile", "acme"),
    ]
    assert done.stdout.endswith(f"{PROGRAM} --policy {home / 'p.toml'} --profile acme login\n")
    again = fastn("--sandbox", "install", "codex", "--sandbox", "--yes", "--name", "try")
    assert again.stdout.endswith(f"{PROGRAM} uninstall codex --name try\n")
    assert programs.calls[-1] == ["codex", "mcp", "add", "try", "--", PROGRAM, "--sandbox"]


@pytest.mark.usefixtures("opened")
def test_install_says_where_the_key_comes_from(fastn: Run) -> None:
    done = fastn("install", "cursor", "--key", "environment", "--yes")
    assert done.stdout.endswith("The key comes from FASTN_API_KEY, with which Cursor was started.\n")
    asked = fastn("install", "vscode", "--key", "prompt", "--yes")
    assert asked.stdout.endswith("VS Code asks for the key when it first starts the server, and stores it.\n")
    assert printed(asked.stdout)["inputs"][0]["password"] is True
    printed_toml = fastn("install", "codex", "--key", "environment", "--yes").stdout
    assert 'env_vars = ["FASTN_API_KEY"]' in printed_toml
    error_line(fastn("install", "cursor", "--key", "prompt"), "Cursor does not support --key prompt", "fastn-mcp login")
    error_line(fastn("install", "zed", "--key", "environment"), "Zed does not support --key environment")
    error_line(
        fastn("install", "json", "--key", "prompt"), "The entry for any other client does not support --key prompt"
    )


def test_printed_commands_work_in_another_folder(
    fastn: Run, programs: ClientPrograms, environment: dict[str, str]
) -> None:
    """They name the account and the folders, and quote what a shell would split."""
    options = ("--name", "our server", "--profile", "acme", "--yes")
    done = fastn("--base-url", "https://eu.example.com", "install", "codex", *options)
    undo, login = (line.partition(": ")[2] for line in done.stdout.splitlines()[-2:])
    assert login.endswith(f"{PROGRAM} --base-url https://eu.example.com --profile acme login")
    subprocess.run(f"{undo} --yes", shell=True, cwd="/", env=environment, check=True, capture_output=True)  # noqa: S602
    assert programs.calls[-1] == ["codex", "mcp", "remove", "our server"]


@pytest.mark.usefixtures("opened")
def test_settings_of_the_shell_are_named_since_clients_start_elsewhere(fastn: Run, environment: dict[str, str]) -> None:
    environment |= {"FASTN_PROFILE": "acme", "FASTN_MODE": "read-only", "FASTN_API_KEY": "fsk_test_C4N4RY"}
    done = fastn("install", "cursor", "--yes")
    assert done.stderr.startswith("fastn-mcp: The server has FASTN_PROFILE, FASTN_MODE only if Cursor is started")
    assert "C4N4RY" not in done.stdout + done.stderr
    with_options = fastn("--mode", "read-only", "install", "cursor", "--profile", "acme", "--yes")
    assert with_options.stderr == ""


@pytest.mark.usefixtures("opened")
def test_settings_that_the_sandbox_ignores_are_not_named(fastn: Run, environment: dict[str, str]) -> None:
    environment |= {"FASTN_PROFILE": "acme", "FASTN_BASE_URL": "https://eu.example.com", "FASTN_MODE": "read-only"}
    done = fastn("install", "cursor", "--sandbox", "--yes")
    assert done.stderr.startswith("fastn-mcp: The server has FASTN_MODE only if Cursor is started")


def test_nothing_in_the_home_folder_is_written(fastn: Run, home: Path, opened: list[str]) -> None:
    before = sorted(home.rglob("*"))
    for client in CLIENTS:
        assert fastn("install", client.name, "--sandbox", "--yes").returncode == 0
        assert fastn("uninstall", client.name, "--yes").returncode == 0
    assert sorted(home.rglob("*")) == before
    assert [link.partition(":")[0] for link in opened] == ["vscode", "cursor"]


def test_server_over_http_is_installed_without_its_token(fastn: Run, programs: ClientPrograms) -> None:
    """docs/clients.md: it says where the token comes from, and takes no options."""
    done = fastn("install", "codex", "--url", URL, "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    token = ["--bearer-token-env-var", "FASTN_HTTP_TOKEN"]
    assert programs.calls == [["codex", "mcp", "add", "fastn", "--url", URL, *token]]
    assert done.stdout.endswith(f" {PROGRAM} http-token)\n")
    claude = printed(fastn("install", "claude-code", "--sandbox", "--url", URL).stdout)["mcpServers"]["fastn"]
    assert claude["headersHelper"] == f"{PROGRAM} --sandbox http-token --header"
    other = printed(fastn("install", "json", "--url", URL).stdout)["mcpServers"]["fastn"]
    assert other["headers"] == {"Authorization": "Bearer ${FASTN_HTTP_TOKEN}"}
    for more in (("--key", "environment"), ("--profile", "acme")):
        error_line(
            fastn("install", "cursor", "--url", URL, *more), "already running with the account and options", "Leave out"
        )
    error_line(
        fastn("--mode", "read-only", "install", "cursor", "--url", URL), "already running with the account and options"
    )
    error_line(fastn("install", "zed", "--url", URL), "Zed cannot use a server over HTTP", "stdio")
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
