"""`fastn-mcp approvals`: who decides at a terminal, and what never decides. DESIGN 5.5; THREATS T2, T15."""

import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import anyio
import pytest
from at_a_terminal import Person, sitting
from command_line import run_command
from deciding import answered, moved
from pydantic import JsonValue

from fastn_mcp.guard.audit.files import entries
from fastn_mcp.guard.ledger.ledger import ApprovalRequest, RequestState, ShownCall, TemporaryApproval
from fastn_mcp.guard.ledger.sqlite import SqliteLedger

KEY = "the-key-of-the-page"
CHOICES = "Enter = leave it waiting > "
Result = TypeVar("Result")


@dataclass
class Folder:
    """The folder in which a server and this command meet."""

    folder: Path

    @property
    def env(self) -> dict[str, str]:
        home = str(self.folder.parent / "home")
        usual = {"HOME": home, "XDG_STATE_HOME": home}
        return {"FASTN_STATE_DIR": str(self.folder), "FASTN_CONFIG": os.devnull} | usual

    def do(self, work: Callable[[SqliteLedger], Awaitable[Result]]) -> Result:
        ledger = SqliteLedger(str(self.folder / "ledger.sqlite"))
        try:
            return anyio.run(work, ledger)
        finally:
            ledger.close()

    def asks(self, **changed: object) -> None:
        """An agent calls, and a person has to be asked."""
        asked = replace(GRANT, created=time.time(), expires=time.time() + 600)
        self.do(lambda ledger: ledger.open(replace(asked, **changed)))  # pyright: ignore[reportArgumentType]

    def grant(self, name: str = "g1") -> ApprovalRequest:
        found = self.do(lambda ledger: ledger.find(name))
        assert found is not None
        return found

    def scopes(self) -> list[TemporaryApproval]:
        return self.do(lambda ledger: ledger.temporary_approvals(time.time()))

    def recorded(self) -> list[tuple[JsonValue, ...]]:
        names = ("event", "tool", "target", "consent", "message")
        return [tuple(e.get(name) for name in names) for e in entries(self.folder / "audit.jsonl")]

    def run(self, *arguments: str, piped: str = "", **env: str) -> "subprocess.CompletedProcess[str]":
        return run_command(["approvals", *arguments], {**os.environ, **self.env, **env}, given=piped)

    @contextmanager
    def at_a_terminal(self) -> Generator[Person]:
        with sitting(["-m", "fastn_mcp", "approvals"], self.env) as person:
            yield person


GRANT = ApprovalRequest(
    id="g1",
    principal="local",
    account="default at live.fastn.ai",
    tool="run_workflow",
    target="wf_1",
    call="call",
    calls={1: ShownCall("binding", {})},
    required="confirm",
    expected=None,
    allows_temporary=True,
    out_of_band=True,
    preview={
        "call": "run_workflow",
        "arguments": {"workflow_id": "wf_1", "input": {"apiKey": KEY}},
        "effect": "external",
    },
    text=(
        'run_workflow workflow_id="wf_1"',
        "Account: default at live.fastn.ai.",
        'Target: "Nightly sync", id "wf_1".',
    ),
    created=0,
    expires=0,
)
TYPED = {
    "required": "typed",
    "tool": "delete_customer",
    "target": "cus_1",
    "expected": "Acme",
    "allows_temporary": False,
}
SCOPE = TemporaryApproval("scope-1", "local", "default at live.fastn.ai", "run_workflow", "wf_1", 0, 0, "local_page")


@pytest.fixture
def state(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "state")


@pytest.mark.parametrize("piped", ["", "y\n", "y\ny\ny\n", "Acme\n"])
def test_without_a_terminal_it_lists_and_decides_nothing(piped: str, state: Folder) -> None:
    """THREATS T2: no pipe and no variable of the environment stands in for a person."""
    state.asks()
    state.asks(id="g2", **TYPED)
    ran = state.run(piped=piped, FASTN_YES="yes", FASTN_MCP_APPROVALS="yes")
    assert ran.returncode == 0
    assert 'run_workflow workflow_id="wf_1"\n' in ran.stdout
    assert "deciding needs a person at a terminal" in ran.stdout
    assert [state.grant(name).state for name in ("g1", "g2")] == [RequestState.OPEN, RequestState.OPEN]
    assert not (state.folder / "audit.jsonl").exists()


def test_with_its_output_in_a_pipe_it_lists_and_decides_nothing(state: Folder) -> None:
    """Ours: who pages through the list is not asked behind it."""
    state.asks()
    piped = "import subprocess, sys; sys.stdout.write(subprocess.run(sys.argv[1:], stdout=-1, text=True).stdout)"
    with sitting(["-c", piped, sys.executable, "-m", "fastn_mcp", "approvals"], state.env) as person:
        assert "deciding needs a person at a terminal" in person.leaves()[1]


@pytest.mark.parametrize("option", ["--yes", "--approve", "--all", "-y"])
def test_there_is_no_option_that_decides(option: str, state: Folder) -> None:
    """THREATS T2: an agent with a shell finds nothing here that approves."""
    state.asks()
    assert state.run(option).returncode == 2
    assert state.grant().state is RequestState.OPEN


def test_where_nothing_waits_that_is_said_and_no_file_is_made(state: Folder) -> None:
    """Ours: looking leaves no trace."""
    assert state.run().stdout == "Nothing waits for an approval.\n"
    assert not state.folder.exists()


def test_what_ran_out_unanswered_is_listed_and_recorded_once(state: Folder) -> None:
    """Ours: nobody answered, which is neither a yes nor a no."""
    state.asks(expires=time.time() - 1)
    for _ in range(2):
        first, second = state.run().stdout.splitlines()
        assert first == "Nothing waits for an approval."
        assert re.fullmatch(r'Expired unanswered at \d\d:\d\d: run_workflow workflow_id="wf_1"', second)
    assert state.recorded() == [("expired", "run_workflow", "wf_1", None, None)]


def test_what_waits_is_data_for_other_programs(state: Folder) -> None:
    """Ours: a list, without the id by which a grant is kept."""
    state.asks()
    (row,) = json.loads(state.run("--json").stdout)
    assert row["preview"]["call"] == "run_workflow"
    assert set(row) == {"principal", "asked", "until", "preview"}


def test_a_person_approves_one_call(state: Folder) -> None:
    """Ours: the preview is shown, y approves, and the ledger and the audit say who did."""
    state.asks()
    with state.at_a_terminal() as person:
        shown = person.sees(CHOICES)
        assert all(f"\n{line}\n" in shown for line in GRANT.text)
        assert "local asked at" in shown
        assert shown.index("Approve this one call?") > shown.index("Nightly sync")
        person.types("y\r")
        person.sees("Approved. It is sent when the agent makes the same call again.")
        assert person.leaves()[0] == 0
    decided = state.grant()
    assert (decided.state, decided.by) == (RequestState.APPROVED, "terminal")
    assert state.scopes() == []
    assert state.recorded() == [("approved", "run_workflow", "wf_1", "terminal", None)]
    assert KEY not in (state.folder / "audit.jsonl").read_text()


def test_a_person_declines_with_a_note(state: Folder) -> None:
    """Ours: the note reaches the agent by the ledger, and the breaker counts the decline."""
    state.asks()
    with state.at_a_terminal() as person:
        person.sees(CHOICES)
        person.types("n\r")
        person.sees("A note for the agent, or Enter > ")
        person.types("wait for the backup\r")
        person.sees("Declined.")
        person.leaves()
    declined = state.grant()
    assert (declined.state, declined.by, declined.note) == (RequestState.DECLINED, "terminal", "wait for the backup")
    assert state.do(lambda ledger: ledger.declines("local"))[0] == 1
    assert state.recorded() == [("declined", "run_workflow", "wf_1", "terminal", "wait for the backup")]


def test_an_approval_ends_the_declines_in_a_row(state: Folder) -> None:
    """Ours: the breaker is for declines in a row."""
    state.asks()
    state.do(lambda ledger: answered(ledger, "local", time.time()))
    with state.at_a_terminal() as person:
        person.sees(CHOICES)
        person.types("y\r")
        person.leaves()
    assert state.do(lambda ledger: ledger.declines("local")) == (0, 0.0)


def test_a_person_approves_for_a_quarter_of_an_hour(state: Folder) -> None:
    """DESIGN 5.5: this call, and more of this tool on this target, for 15 minutes."""
    state.asks()
    with state.at_a_terminal() as person:
        person.sees(CHOICES)
        person.types("15\r")
        person.sees("Approved, and this tool on this target until")
        person.leaves()
    (scope,) = state.scopes()
    assert (scope.principal, scope.account, scope.tool, scope.target, scope.by) == (
        "local", "default at live.fastn.ai", "run_workflow", "wf_1", "terminal",
    )  # fmt: skip
    assert scope.expires - scope.created == 900
    assert state.grant().state is RequestState.APPROVED
    assert state.recorded()[0][4] == f"also for 15 minutes, scope {scope.id}"


@pytest.mark.parametrize(
    "changed", [TYPED, TYPED | {"allows_temporary": True}, {"allows_temporary": False}, {"target": None}]
)
def test_what_may_not_be_approved_for_a_while_cannot_be(changed: dict[str, object], state: Folder) -> None:
    """DESIGN 5.5: never for what destroys or gives access, and never without a target."""
    state.asks(**changed)
    with state.at_a_terminal() as person:
        assert "15 = " not in person.sees(CHOICES)
        person.types("15\r")
        person.sees("That is")
        person.sees(CHOICES)
        person.types("\r")
        person.leaves()
    assert state.scopes() == []
    assert state.grant().state is RequestState.OPEN


def test_enter_leaves_it_waiting(state: Folder) -> None:
    """Ours: looking through decides nothing."""
    state.asks()
    with state.at_a_terminal() as person:
        person.sees(CHOICES)
        person.types("\r")
        person.sees("Left waiting.")
        person.sees("Nothing else waits.")
        person.leaves()
    assert state.grant().state is RequestState.OPEN
    assert not (state.folder / "audit.jsonl").exists()


def test_only_the_name_approves_where_it_is_asked_for(state: Folder) -> None:
    """DESIGN 5.5: y is no name, and a slip decides nothing."""
    state.asks(**TYPED)
    with state.at_a_terminal() as person:
        assert 'To approve this one call, type the name between the quotes: "Acme"' in person.sees(CHOICES)
        for slip in ("y", "yes", "acme", "Acme GmbH"):
            person.types(f"{slip}\r")
            person.sees("That is not the name.")
            assert state.grant().state is RequestState.OPEN
            person.sees(CHOICES)
        person.types("Acme\r")
        person.sees("Approved.")
        person.leaves()
    assert state.grant().state is RequestState.APPROVED


def test_two_people_are_not_one_person_at_a_terminal(state: Folder) -> None:
    """DESIGN 5.5: four eyes are two different people, which a terminal cannot tell apart."""
    state.asks(required="four_eyes")
    with state.at_a_terminal() as person:
        person.sees(CHOICES)
        person.types("y\r")
        person.sees("two people have to approve")
        person.leaves()
    assert state.grant().state is RequestState.OPEN


def test_all_that_waits_is_gone_through_also_what_comes_meanwhile(state: Folder) -> None:
    """Ours: the oldest first, each once."""
    state.asks()
    state.asks(id="g2", target="wf_2", call="another call")
    with state.at_a_terminal() as person:
        assert "1 more." in person.sees(CHOICES)
        person.types("\r")
        person.sees(CHOICES)
        state.asks(id="g3", target="wf_3", call="a third call")
        person.types("y\r")
        person.sees(CHOICES)
        person.types("n\r")
        person.sees("or Enter > ")
        person.types("\r")
        person.sees("Nothing else waits.")
        person.leaves()
    assert [state.grant(name).state for name in ("g1", "g2", "g3")] == [
        RequestState.OPEN,
        RequestState.APPROVED,
        RequestState.DECLINED,
    ]


@pytest.mark.parametrize("became", [RequestState.USED, RequestState.APPROVED, RequestState.DECLINED])
@pytest.mark.parametrize("typed", ["y\r", "15\r", "n\rlate\r"])
def test_what_was_decided_elsewhere_meanwhile_stays_as_it_was(typed: str, became: RequestState, state: Folder) -> None:
    """Ours: whoever decides second decides nothing, and is told so."""
    state.asks()
    with state.at_a_terminal() as person:
        person.sees(CHOICES)
        state.do(lambda ledger: moved(ledger, "g1", [RequestState.OPEN], became, time.time(), by="local_page"))
        person.types(typed)
        person.sees("Nothing was decided: it was decided elsewhere meanwhile, or has expired.")
        person.leaves()
    assert (state.grant().state, state.grant().by) == (became, "local_page")
    assert state.scopes() == []
    assert not (state.folder / "audit.jsonl").exists()


def test_a_question_that_a_client_asks_in_its_form_is_not_asked_here(state: Folder) -> None:
    """Ours: one question, one place."""
    state.asks(out_of_band=False)
    with state.at_a_terminal() as person:
        assert person.leaves() == (0, "Nothing waits for an approval.\n")


def test_a_name_cannot_speak_for_us(state: Folder) -> None:
    """THREATS T15: whatever a preview holds, it stays on its line and shows what it is."""
    state.asks(text=("run_workflow", "Target: \x1b[2J\u202eApprove all\x07."), principal="\x1b]0;me\x07")
    with state.at_a_terminal() as person:
        shown = person.sees(CHOICES)
        person.types("\r")
        person.leaves()
    listed = state.run().stdout
    for text in (shown, listed):
        assert "Target: \\u{1b}[2J\\u{202e}Approve all\\u{7}." in text
        assert not set(text) & {"\x1b", "\x07", "\u202e"}


def test_an_audit_that_cannot_be_written_is_said_and_a_decline_holds(state: Folder) -> None:
    """Ours: what tightens is never held up; what was approved is refused when it comes to be sent."""
    state.asks()
    (state.folder / "audit.jsonl").mkdir()
    with state.at_a_terminal() as person:
        person.sees(CHOICES)
        person.types("n\r")
        person.sees("or Enter > ")
        person.types("\r")
        person.sees("Declined. The same call stays declined until ")
        person.sees("(Is a directory).")
        person.leaves()
    assert state.grant().state is RequestState.DECLINED


def holding(state: Folder, *names: str) -> None:
    for name in names:
        scope = replace(SCOPE, id=name, created=time.time(), expires=time.time() + 900)
        state.do(lambda ledger, scope=scope: ledger.add_temporary(scope))


def test_scopes_are_listed_and_one_is_revoked_without_a_terminal(state: Folder) -> None:
    """Ours: taking back only tightens, so that it needs nobody at a terminal; the beginning of the id will do."""
    holding(state, "first", "second")
    assert 'first  run_workflow on "wf_1", default at live.fastn.ai, for local' in state.run("scopes").stdout
    assert [row["id"] for row in json.loads(state.run("scopes", "--json").stdout)] == ["first", "second"]
    ran = state.run("revoke", "fir")
    assert (ran.returncode, ran.stdout) == (0, 'Revoked: run_workflow on "wf_1" needs approval again.\n')
    assert [scope.id for scope in state.scopes()] == ["second"]
    assert state.recorded() == [("scope_revoked", "run_workflow", "wf_1", "terminal", None)]


@pytest.mark.parametrize("name", ["third", "s"])
def test_what_is_not_one_scope_revokes_none(name: str, state: Folder) -> None:
    """Ours: an unknown beginning, and one of two, take nothing back."""
    holding(state, "s1", "s2")
    ran = state.run("revoke", name)
    assert ran.returncode == 1
    assert "approvals scopes" in ran.stderr
    assert len(state.scopes()) == 2


def test_a_scope_is_revoked_also_where_the_audit_cannot_be_written(state: Folder) -> None:
    """Ours: what tightens is never held up."""
    holding(state, "s1")
    (state.folder / "audit.jsonl").mkdir()
    ran = state.run("revoke", "s1")
    assert (ran.returncode, state.scopes()) == (0, [])
    assert "The audit log cannot be written" in ran.stderr


def test_no_scope_is_said(state: Folder) -> None:
    """Ours: an empty list says that it is empty."""
    assert state.run("scopes").stdout == "There are no temporary approvals.\n"


def door(state: Folder, url: str = "http://127.0.0.1:8123", mode: int = 0o600) -> None:
    state.folder.mkdir(parents=True, exist_ok=True)
    (state.folder / "page.json").write_text(json.dumps({"url": url, "key": KEY}))
    (state.folder / "page.json").chmod(mode)


@pytest.fixture
def browser(tmp_path: Path) -> tuple[dict[str, str], Path]:
    """A browser that only notes what it is told to open."""
    opened, script = tmp_path / "opened", tmp_path / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" >> {opened}\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return {"BROWSER": f"{script} %s"}, opened


def test_the_page_opens_in_the_browser_and_its_key_goes_nowhere_else(
    state: Folder, browser: tuple[dict[str, str], Path]
) -> None:
    """DESIGN 5.5: the key goes to the browser, never into what a program can read."""
    with socket.create_server(("127.0.0.1", 0)) as page:
        url = f"http://127.0.0.1:{page.getsockname()[1]}"
        door(state, url)
        ran = state.run("--open", **browser[0])
    assert ran.returncode == 0
    assert KEY not in ran.stdout + ran.stderr
    opened = browser[1].read_text()
    assert KEY not in opened
    file = Path(opened.strip().removeprefix("file://"))
    assert f'action="{url}/enter">\n<input type="hidden" name="key" value="{KEY}">' in file.read_text()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize(
    "url",
    ["https://evil.example", "http://evil.example", "http://127.0.0.1.evil.example", "file:///etc", "ftp:x"],
)
def test_a_door_to_elsewhere_is_not_opened(url: str, state: Folder, browser: tuple[dict[str, str], Path]) -> None:
    """Ours: the page is on this machine, whatever its file says."""
    door(state, url)
    ran = state.run("--open", **browser[0])
    assert (ran.returncode, browser[1].exists()) == (2, False)
    assert KEY not in ran.stdout + ran.stderr


def test_a_door_that_others_can_read_is_not_opened(state: Folder, browser: tuple[dict[str, str], Path]) -> None:
    """Ours: a key that others could read lets in nobody by this command."""
    door(state, mode=0o644)
    ran = state.run("--open", **browser[0])
    assert (ran.returncode, browser[1].exists()) == (2, False)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"url": 1, "key": 2}', "\xff"])
def test_a_door_that_is_none_is_said(text: str, state: Folder, browser: tuple[dict[str, str], Path]) -> None:
    """Ours: no traceback for a file that somebody else wrote."""
    door(state)
    (state.folder / "page.json").write_bytes(text.encode("latin-1"))
    ran = state.run("--open", **browser[0])
    assert (ran.returncode, browser[1].exists()) == (2, False)
    assert "Decide at a terminal: " in ran.stderr
    assert ran.stderr.endswith("fastn-mcp approvals\n")
    assert "Traceback" not in ran.stderr


def test_where_no_page_is_open_what_to_do_is_said(state: Folder, browser: tuple[dict[str, str], Path]) -> None:
    """Ours: also where a server was ended before it could remove the address of its page."""
    ran = state.run("--open")
    assert ran.returncode == 2
    assert "No approval page is open, and nothing waits for an approval here. The page opens when" in ran.stderr
    with socket.create_server(("127.0.0.1", 0)) as ended:
        door(state, f"http://127.0.0.1:{ended.getsockname()[1]}")
    state.asks()
    ran = state.run("--open", **browser[0])
    assert (ran.returncode, browser[1].exists()) == (2, False)
    assert "No approval page is open, and 1 call waits here. Decide at a terminal: " in ran.stderr


def test_other_places_where_calls_wait_are_named_with_their_commands(state: Folder, tmp_path: Path) -> None:
    """Ours: the sandbox, the usual folder, a profile's own ledger, a tenant; each command lists what waits there."""
    config = tmp_path / "config.toml"
    config.write_text(f'[profiles.acme]\nledger = "{tmp_path}/acme/ledger.sqlite"\n')
    config.chmod(0o600)
    folders = (state.folder / "sandbox", tmp_path / "home" / "fastn-mcp", tmp_path / "acme")
    for folder in (*folders, state.folder / "tenants" / "globex"):
        Folder(folder).asks()
    ran = state.run(FASTN_CONFIG=str(config))
    first, *others = ran.stdout.splitlines()
    assert first == "Nothing waits for an approval."
    names = ["in the sandbox", "on the profile acme", "at the tenant globex", "on your accounts"]
    assert [line.partition(": ")[0] for line in others] == [f"1 call waits {name}" for name in names]
    env = os.environ | state.env | {"FASTN_CONFIG": str(config)}
    for line in others:
        command = f"{line.partition(': ')[2]} --json"
        listed = subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, check=True)
        assert len(json.loads(listed.stdout)) == 1, command
    assert others[0] in state.run("--open", FASTN_CONFIG=str(config)).stderr
