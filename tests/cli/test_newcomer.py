"""Mistakes of the first ten minutes: one line that says what happened and what to do next."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from support.command_line import Run, error_line, run_process
from support.local_page import recording_browser
from support.terminal import sitting

KEY = {"FASTN_API_KEY": "fsk_test_C4N4RY"}

WRONG: dict[str, tuple[tuple[str, ...], dict[str, str], str, str]] = {
    "a tool without call": (("list-customers",), {}, "is a tool, not a command", "fastn-mcp call list-customers"),
    "a tool, as agents call it": (("list_customers",), {}, "is a tool", "fastn-mcp call list-customers"),
    "a command, misspelt": (("instal",), {}, "There is no command 'instal'", "did you mean 'install'?"),
    "a command below, misspelt": (("policy", "chek"), {}, "no command 'chek'", "did you mean 'check'?"),
    "a tool, misspelt": (("--sandbox", "call", "list-custmers"), {}, "no tool", "did you mean 'list-customers'?"),
    "something else": (("xyzzy",), {}, "There is no command 'xyzzy'.", "fastn-mcp --help"),
    "no argument": (("--sandbox", "call", "get-customer"), {}, "'--customer-id'", "call get-customer --help"),
    "no client": (("install",), {}, "Missing argument 'CLIENT'", "fastn-mcp install --help"),
    "an unknown client": (("install", "cursr"), {}, "no client 'cursr'", "did you mean 'cursor'?"),
    "nothing to uninstall, for any client": (("uninstall", "json"), {}, "There is no client 'json'", "One of: "),
    "no shell": (("completion",), {}, "Choose from: bash, zsh, fish.", "fastn-mcp completion --help"),
    "no terminal for a key": (("login", "--file"), {}, "no terminal", "fastn-mcp login --file --stdin"),
    "no terminal to sign at": (("plan", "approve", "x.toml", "--as", "me"), {}, "Nothing was signed", "at a terminal"),
    "no page": (("approvals", "--open"), {}, "No approval page is open", "fastn-mcp approvals"),
    "no plan": (("plan", "show", "x.toml"), {}, "no plan x.toml", "fastn-mcp plan new"),
    "no policy": (("policy", "check", "x.toml"), {}, "no policy file x.toml", "Correct the path"),
    "no script": (("--sandbox", "run", "x.jsonl"), {}, "'x.jsonl'", "No such file"),
    "no audit yet": (("audit", "tail"), {}, "There is no audit", "The first call that changes something creates it"),
    "no cases to test": (("policy", "test", "x"), {}, "x", "Correct the path"),
    "no profile": (("logout", "acme"), {}, "There is no profile 'acme'", "fastn-mcp login acme"),
    "no key kept": (("logout",), {}, "There is no stored key", "fastn-mcp profiles"),
    "plain http": (("whoami",), KEY | {"FASTN_BASE_URL": "http://live.fastn.ai"}, "must be https", "localhost"),
    "an address that is none": (("--sandbox", "--http", "8080"), {}, "must be HOST:PORT", "--http 127.0.0.1:8080"),
    "an option that comes late": (("call", "get-quotas", "--sandbox"), {}, "goes before", "--sandbox ... call"),
    "an option of a group, late": (("audit", "tail", "--file", "x"), {}, "goes before", "audit --file ... tail"),
    "an argument too many": (("whoami", "now"), {}, "extra argument (now). See", "fastn-mcp whoami --help"),
    "a server's policy": (("--sandbox", "--policy", "x.toml"), {}, "no policy file x.toml", "Correct the path"),
    "a server's plan": (("--sandbox", "--plan", "x.toml"), {}, "no plan x.toml", "fastn-mcp --sandbox plan new"),
    "a tool of the sandbox without call": (("--sandbox", "find"), {}, "is a tool", "fastn-mcp --sandbox call find"),
    "a tool of a policy, misspelt": (("policy", "explain", "get_quota"), {}, "'get_quotas'?", "fastn-mcp tools"),
    "a key as an option": (("--api-key", "fsk_test_C4N4RY"), {}, "users can read a command line", "fastn-mcp login"),
    "a key as an option of login": (("login", "--key", "fsk_test_C4N4RY"), {}, "There is no --key", "fastn-mcp login"),
    "a key as a profile": (("login", "fsk_test_C4N4RY"), {}, "That is a key", "Revoke the key"),
    "a variable, misspelt": (("whoami",), {"FASTN_APIKEY": "fsk_test_C4N4RY"}, "; FASTN_APIKEY is set", "login"),
    "a key in quotes": (("whoami",), {"FASTN_API_KEY": '"fsk_test_C4N4RY"'}, "is in quotes", "the whole key"),
    "a key that is a placeholder": (("whoami",), {"FASTN_API_KEY": "${FASTN_API_KEY}"}, "placeholder", "the whole key"),
    "a key of the documentation": (("whoami",), {"FASTN_API_KEY": "fsk_..."}, "is a placeholder", "the whole key"),
    "a key with its name": (("whoami",), {"FASTN_API_KEY": "FASTN_API_KEY=C4N4RY"}, "its variable", "the whole key"),
    "a key with a line end": (("whoami",), {"FASTN_API_KEY": "fsk_test_C4N4RY\r"}, "a line break", "the whole key"),
    "a host without https": (("whoami",), KEY | {"FASTN_BASE_URL": "live.fastn.ai"}, "not an https address", "example https://"),
    "an option, misspelt": (("--sandbox", "--mod", "x", "tools"), {}, "no option --mod ", "did you mean '--mode'?"),
    "an option of a command, misspelt": (("call", "--sandbx"), {}, "no option --sandbx", "did you mean '--sandbox'?"),
    "an option of a tool, misspelt": (("call", "list-customers", "--serch"), {}, "--serch", "did you mean '--search'?"),
    "a value, misspelt": (("--mode", "Gaurded", "tools"), {}, "'--mode'", "did you mean 'guarded'?"),
    "another value": (("--auth", "none", "tools"), {}, "'--auth': unknown value 'none'", "Use one of header, bearer."),
    "a colour": (("--color", "pink", "tools"), {}, "unknown value 'pink'", "Use one of auto, always, never."),
    "no number": (("--deadline", "soon", "tools"), {}, "'--deadline'", "fastn-mcp --help"),
    "no number for a tool": (("call", "list-customers", "--limit", "many"), {}, "'--limit'", "list-customers --help"),
    "no number of hours": (("plan", "new", "--hours", "nope"), {}, "'--hours'", "fastn-mcp plan new --help"),
    "no time": (("audit", "report", "--since", "nope"), {}, "'--since': not a time", "such as 24h"),
    "port 0": (("sandbox", "--port", "0"), {}, "'--port'", "1<=x<=65535"),
    "a port that is too high": (("sandbox", "--port", "65536"), {}, "'--port'", "1<=x<=65535"),
    "no port": (("sandbox", "--port", "http"), {}, "'--port'", "fastn-mcp sandbox --help"),
    "a page of all": (("--sandbox", "call", "list-roles", "--all", "--limit", "3"), {}, "whole pages", "Leave out"),
    "an unknown shell": (("completion", "tcsh"), {}, "unknown value 'tcsh'", "Use one of bash, zsh, fish."),
    "an option that was removed": (("--read-only", "tools"), KEY, "--read-only was removed", "--mode read-only"),
    "a mode that was removed": (("--mode", "auto", "tools"), KEY, "mode auto, which was removed", "spend ="),
    "a removed mode of a variable": (("tools",), KEY | {"FASTN_MODE": "manual"}, "FASTN_MODE", 'write = "confirm"'),
    "a toolset, misspelt": (("--tools", "custmers", "tools"), KEY, "--tools", "did you mean 'customers'?"),
    "a tool to serve, misspelt": (("--tools", "find,delete_custmer"), {}, "--tools", "did you mean 'delete_customer'?"),
    "a tool to exclude": (("--exclude-tools", "delete_custmer"), {}, "--exclude-tools", "mean 'delete_customer'?"),
    "a mode of a variable": (("tools",), KEY | {"FASTN_MODE": "gaurded"}, "FASTN_MODE", "did you mean 'guarded'?"),
    "a secret as a mode": (("tools",), KEY | {"FASTN_MODE": "C4N4RY"}, "FASTN_MODE", "it must be 'read-only'"),
    "a level": (("tools",), KEY | {"FASTN_LOG_LEVEL": "wraning"}, "FASTN_LOG_LEVEL", "did you mean 'warning'?"),
    "two lines": (("whoami",), KEY | {"FASTN_TENANT_ID": "C4N4RY\nx-fastn-env: live"}, "FASTN_TENANT_ID", "is wrong"),
    "no file": (("whoami",), KEY | {"FASTN_CONFIG": "/nowhere/x.toml"}, "/nowhere/x.toml", "FASTN_CONFIG"),
    "to everybody": (("--sandbox", "--http", "0.0.0.0:8080"), {}, "127.0.0.1 only", "docs/hosting.md"),
}  # fmt: skip


OF_INSTALL = {
    what: pytest.param(what, marks=pytest.mark.extension("install"))
    for what, (arguments, *_) in WRONG.items()
    if arguments[:1] in (("instal",), ("install",), ("uninstall",))
}


@pytest.mark.parametrize("what", [OF_INSTALL.get(what, what) for what in WRONG])
def test_mistake_is_answered_with_one_line_and_the_next_step(what: str, fastn: Run, tmp_path: Path) -> None:
    arguments, given, happened, following = WRONG[what]
    home = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "PATH": str(tmp_path)}
    done = fastn(*arguments, env=home | given, cwd=tmp_path)
    assert done.returncode in (1, 2)
    error_line(done, happened, following, code=done.returncode)


def test_output_file_in_a_missing_folder_is_named(fastn: Run, tmp_path: Path) -> None:
    (tmp_path / "calls.jsonl").write_text('{"tool": "delete_customer", "arguments": {"customer_id": "1"}}')
    done = fastn("--sandbox", "plan", "new", "calls.jsonl", "--output", "no/x.toml", cwd=tmp_path)
    assert error_line(done) == "no/x.toml: No such file or directory. Correct the path."


@pytest.fixture
def taken_port() -> Iterator[int]:
    """Port at which another program listens."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        yield other.getsockname()[1]


@pytest.mark.parametrize("how", [("sandbox", "--port", "{}"), ("--sandbox", "--http", "127.0.0.1:{}")])
def test_taken_port_is_reported_first(how: tuple[str, ...], taken_port: int, fastn: Run) -> None:
    done = fastn(*(part.format(taken_port) for part in how))
    error_line(done, f"127.0.0.1:{taken_port}: another program listens there. Choose another")


def test_unreachable_host_is_reported_with_a_hint_to_doctor(fastn: Run) -> None:
    nobody = KEY | {"FASTN_BASE_URL": "http://127.0.0.1:1"}
    done = fastn("call", "list-customers", env=nobody)
    assert done.returncode == 1
    assert "cannot be reached" in done.stderr
    assert "Nothing was sent. Check host and port in FASTN_BASE_URL" in done.stderr
    known = fastn("whoami", env=nobody)
    assert known.returncode == 1
    assert "Could not check whether the key works" in known.stdout + known.stderr


FILES = {
    "a text without quotes": (b"mode = guarded", "not TOML", 'put texts in quotes, for example mode = "guarded"'),
    "UTF-16, as PowerShell writes it": ("mode = 1".encode("utf-16"), "is not text in UTF-8", "Save it as UTF-8."),
}


@pytest.mark.parametrize("what", FILES)
def test_invalid_settings_file_is_reported_with_the_right_form(what: str, fastn: Run, tmp_path: Path) -> None:
    content, happened, following = FILES[what]
    file = tmp_path / "config.toml"
    file.write_bytes(content)
    file.chmod(0o600)
    error_line(fastn("--config", str(file), "whoami"), happened, following)


@pytest.mark.parametrize("group", ["approvals keygen", "audit", "call", "plan", "policy"])
def test_group_without_a_command_shows_its_help(group: str, fastn: Run) -> None:
    done = fastn(*group.split())
    assert (done.returncode, done.stdout) == (2, "")
    if group != "approvals keygen":
        assert done.stderr.startswith(f"Usage: fastn-mcp {group} [OPTIONS]")
        assert len(done.stderr.splitlines()) > 8
    assert "Traceback" not in done.stderr


def test_unusable_state_folder_refuses_changes_only(fastn: Run, tmp_path: Path) -> None:
    """A read-only home, such as a container's; reads go on, and the error says what to do."""
    (tmp_path / "file").touch()
    there = {"FASTN_STATE_DIR": str(tmp_path / "file" / "state")}
    assert fastn("--sandbox", "call", "list-customers", env=there).returncode == 0
    done = fastn("--sandbox", "call", "create-customer", "--name", "Acme", env=there)
    assert done.returncode == 1
    assert "Nothing was sent." in done.stderr
    assert "A person has to fix the state folder, or set another: FASTN_STATE_DIR." in done.stderr
    assert "Traceback" not in done.stderr
    decided = fastn("approvals", "scopes", env=there)
    assert "Traceback" not in decided.stderr


def run_in_shell(how: str, environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the program from a shell that closes or redirects its streams."""
    script = f'exec "$@" {how}'
    return run_process(["/bin/sh", "-c", script, "sh", sys.executable, "-m", "fastn_mcp", *arguments], environment)


@pytest.mark.posix
def test_closed_streams_are_accepted(environment: dict[str, str]) -> None:
    """For example by a service manager. No file that is opened later takes their place."""
    for how in (">&-", "<&- >&- 2>&-"):
        done = run_in_shell(how, environment, "--sandbox", "call", "create-customer", "--name", "Acme")
        assert (done.returncode, done.stderr) == (0, ""), how
    report = str(Path(environment["FASTN_STATE_DIR"]) / "r.json")
    empty = run_in_shell("<&-", environment, "--sandbox", "run", "-", "--report", report)
    assert (empty.returncode, empty.stderr) == (0, "Nothing changed; 0 reads.\n")
    served = run_in_shell("<&-", environment, "--sandbox")
    assert (served.returncode, served.stderr) == (0, "")


@pytest.mark.posix
@pytest.mark.parametrize("arguments", [("--help",), ("--sandbox", "call", "get-overview")])
def test_full_disk_is_reported_in_one_line(arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    done = run_in_shell(">/dev/full", environment, *arguments)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("fastn-mcp: The output cannot be written: No space left on device.")


@pytest.mark.posix
@pytest.mark.long
def test_demo_runs_with_an_ascii_encoding(environment: dict[str, str]) -> None:
    """LANG=C. In its own process, whose encoding is set at the start."""
    done = run_in_shell("", environment | {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}, "--color", "never", "demo")
    assert done.returncode == 0, done.stderr
    assert "Everything worked." in done.stdout


@pytest.mark.posix
@pytest.mark.extension("install")
def test_aborted_prompt_says_that_nothing_was_done(environment: dict[str, str], tmp_path: Path) -> None:
    install = ("install", "cursor", "--sandbox")
    environment["BROWSER"], opened = recording_browser(tmp_path)
    for key, arguments, question in (
        ("\x03", ("login", "--file"), "(not shown): "),
        ("\x04", install, "Open the link? [y/N]: "),
    ):
        with sitting(["-m", "fastn_mcp", *arguments], environment) as person:
            person.sees(question)
            code, message = person.gives_up(key)
        assert code == 130
        assert "Cancelled. " in message
    assert not opened.exists()


@pytest.mark.posix
def test_aborted_approval_says_that_nothing_was_sent(environment: dict[str, str]) -> None:
    customer = "5c4bc270-6e5f-4523-afd7-6538d17c6c3a"
    call = ["--sandbox", "call", "delete-customer", "--customer-id", customer]
    with sitting(["-m", "fastn_mcp", *call], environment) as person:
        person.answers("decline > ", "globex")
        person.sees("That is not the name.")
        code, message = person.gives_up()
    assert code == 130
    assert "fastn-mcp: Stopped. Nothing was sent." in message
    assert "audit" not in message
    assert "Traceback" not in message


@pytest.mark.posix
def test_declined_call_is_confirmed_in_one_line(environment: dict[str, str]) -> None:
    call = ["--sandbox", "call", "delete-customer", "--customer-id", "5c4bc270-6e5f-4523-afd7-6538d17c6c3a"]
    with sitting(["-m", "fastn_mcp", *call], environment) as person:
        person.answers("decline > ", "Globex")
        person.answers("That is not the name.", "n")
        person.answers("A note for the agent, or Enter > ", "")
        code, message = person.leaves()
    assert (code, message.strip()) == (5, "fastn-mcp: Declined. Nothing was sent.")


class _Hanging(BaseHTTPRequestHandler):
    """Server that has no data, and never answers a change."""

    sent = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "12")
        self.end_headers()
        self.wfile.write(b'{"data": []}')

    def do_POST(self) -> None:
        self.sent.set()
        self.rfile.read()  # until the client leaves

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Nothing."""


@pytest.mark.posix
def test_interrupted_call_points_to_the_audit_log(environment: dict[str, str]) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hanging)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    account = {"FASTN_BASE_URL": f"http://127.0.0.1:{server.server_port}", "FASTN_API_KEY": "fsk_test_1"}
    try:
        call = ["-m", "fastn_mcp", "call", "create-customer", "--name", "Initech"]
        with sitting(call, environment | account) as person:
            assert _Hanging.sent.wait(20)
            code, message = person.gives_up()
    finally:
        server.shutdown()
        server.server_close()
        serving.join()
    assert code == 130
    assert "Stopped. See the audit log for whether a change was made: " in message


@pytest.mark.posix
@pytest.mark.extension("doctor")
@pytest.mark.parametrize("arguments", [["tools"], ["--sandbox", "doctor"]])
def test_names_are_not_cut_on_a_narrow_terminal(arguments: list[str], environment: dict[str, str]) -> None:
    with sitting(["-m", "fastn_mcp", *arguments], environment | {"COLUMNS": "40", "NO_COLOR": "1"}) as person:
        code, message = person.leaves()
    assert code == 0
    assert "…" not in message.replace("...", "")
    assert "delete_customer" in message
