"""`fastn-mcp approvals`: deciding at a terminal, and what never decides."""

import json
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from support import stores
from support.begun import used
from support.command_line import run_command
from support.decisions import answered, moved
from support.local_page import recording_browser
from support.questions import a_question
from support.state_folder import StateFolder
from support.terminal import Person, sitting
from support.values import not_none

from fastn_mcp.account.typed_argument import TypedArgument, TypedField
from fastn_mcp.audit.log import AuditFile
from fastn_mcp.build.startup import typed_seal
from fastn_mcp.build.stores import ApprovalStore
from fastn_mcp.config.command_line import PROGRAM
from fastn_mcp.guard.approval.votes import TerminalApprovals
from fastn_mcp.guard.key_files import TypedSecrets
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, Vote
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.runtime import System
from fastn_mcp.tools.access import CreateSecret
from fastn_mcp.tools.tool import Effect

KEY = "the-key-of-the-page"
CHOICES = "waiting > "
VALUE = TypedArgument("value", (TypedField("value"),))


class Folder(StateFolder):
    """State folder that a server and this command share."""

    def add_request(self, **changed: object) -> None:
        """Add a pending approval request, as an agent's call does."""
        asked = replace(GRANT, created=time.time(), expires=time.time() + 600)
        self.do(lambda ledger: ledger.open(replace(asked, **changed)))  # pyright: ignore[reportArgumentType]

    def grant(self, name: str = "g1") -> ApprovalRequest:
        return not_none(self.do(lambda ledger: ledger.find(name)))

    def temporary_approvals(self) -> list[ApprovalRequest]:
        return self.do(lambda ledger: ledger.temporary_approvals(time.time()))

    def decisions(self) -> list[tuple[object, ...]]:
        return self.recorded("event", "tool", "target", "approved_by", "message")

    def approvals(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        return self.run("approvals", *arguments, **env)

    @contextmanager
    def at_a_terminal(self) -> Generator[Person]:
        with sitting(["-m", "fastn_mcp", "approvals"], self.env) as person:
            yield person

    def answer(self, *turns: tuple[str, str]) -> str:
        """Answer the first request in turns of what is typed and the text awaited then. Return all that was shown."""
        with self.at_a_terminal() as person:
            person.sees(CHOICES)
            for typed, reply in turns:
                person.types(f"{typed}\r")
                person.sees(reply)
            assert person.leaves()[0] == 0
        return person.shown


GRANT = replace(
    stores.grant(),
    tool="run_workflow",
    target="wf_1",
    required="confirm",
    expected=None,
    permit=stores.permit(),
    question=a_question(
        title='Run workflow "Nightly sync" now.',
        then="Its effects in other systems cannot be undone from here.",
        tool="run_workflow",
        arguments={"workflow_id": "wf_1", "input": {"apiKey": KEY}},
        effect=Effect.EXTERNAL,
        target="wf_1",
        name="Nightly sync",
    ),
)
TYPED = {
    "required": "typed",
    "tool": "delete_customer",
    "target": "cus_1",
    "expected": "Acme",
    "permit": None,
}
HIDDEN = "the value (not shown as you type) > "
SECRET: dict[str, object] = {
    "tool": "create_secret",
    "target": None,
    "permit": None,
    "question": a_question(tool="create_secret", arguments={}, effect=Effect.ACCESS),
    "typed": VALUE,
}


@pytest.fixture
def state(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "state")


def test_approvals_without_a_terminal_lists_and_decides_nothing(state: Folder) -> None:
    state.add_request()
    state.add_request(id="g2", **TYPED)
    ran = state.approvals(given="y\nAcme\n", FASTN_YES="yes", FASTN_MCP_APPROVALS="yes")
    assert ran.returncode == 0
    assert 'run_workflow workflow_id="wf_1" ' in ran.stdout
    assert [state.grant(name).state for name in ("g1", "g2")] == [RequestState.OPEN, RequestState.OPEN]
    assert not (state.folder / "audit.jsonl").exists()


def test_approvals_with_piped_output_lists_and_decides_nothing(state: Folder) -> None:
    state.add_request()
    piped = "import subprocess, sys; sys.stdout.write(subprocess.run(sys.argv[1:], stdout=-1, text=True).stdout)"
    with sitting(["-c", piped, sys.executable, "-m", "fastn_mcp", "approvals"], state.env) as person:
        assert "Run this at a terminal" in person.leaves()[1]


@pytest.mark.parametrize("option", ["--yes", "--approve", "--all", "-y"])
def test_options_that_would_decide_are_rejected(option: str, state: Folder) -> None:
    state.add_request()
    assert state.approvals(option).returncode == 2
    assert state.grant().state is RequestState.OPEN


def test_approvals_without_requests_says_so_and_creates_no_file(state: Folder) -> None:
    assert state.approvals().stdout == "No call waits for approval.\n"
    assert not state.folder.exists()


def test_expired_request_is_listed_and_recorded_once(state: Folder) -> None:
    state.add_request(expires=time.time() - 1)
    for _ in range(2):
        first, second = state.approvals().stdout.splitlines()
        assert first == "No call waits for approval."
        assert re.fullmatch(r'Expired unanswered at \d\d:\d\d: Run workflow "Nightly sync" now\.', second)
    assert state.decisions() == [("expired", "run_workflow", "wf_1", None, None)]


def test_json_lists_requests_without_their_ids(state: Folder) -> None:
    state.add_request()
    (row,) = json.loads(state.approvals("--json").stdout)
    assert row["preview"]["call"] == "run_workflow"
    assert set(row) == {"principal", "asked_by", "asked", "until", "preview"}


def test_y_approves_one_call(state: Folder) -> None:
    state.add_request()
    state.do(lambda ledger: answered(ledger, "local", time.time()))
    output = state.answer(("y", "Approved. It is sent now if the agent is still waiting"))
    assert all(line in " ".join(output.split()) for line in GRANT.question.lines())
    assert "Requested by local at" in output
    assert output.index("Approve this one call?") > output.index("Nightly sync")
    decided = state.grant()
    assert (decided.state, decided.by) == (RequestState.APPROVED, "terminal")
    assert state.temporary_approvals() == []
    assert state.do(lambda ledger: ledger.declines("local")) == (0, 0.0)
    assert state.decisions() == [("approved", "run_workflow", "wf_1", "terminal", None)]
    assert KEY not in (state.folder / "audit.jsonl").read_text()


def test_enter_leaves_a_request_waiting_whose_sentence_came_before_who_asked(state: Folder) -> None:
    state.add_request(asked_by="Claude Code")
    output = state.answer(("", "Left waiting."))
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    assert lines[0] == GRANT.question.lines()[0]
    (asked,) = [number for number, line in enumerate(lines) if line.startswith('Requested by "Claude Code" at')]
    (account,) = [number for number, line in enumerate(lines) if line.endswith("Account: default at live.fastn.ai.")]
    assert asked > account
    assert "Nothing else waits." in output
    assert state.grant().state is RequestState.OPEN
    assert not (state.folder / "audit.jsonl").exists()


def test_ctrl_c_leaves_the_call_waiting_and_says_so(state: Folder) -> None:
    state.add_request()
    with state.at_a_terminal() as person:
        person.sees(CHOICES)
        code, message = person.gives_up()
    assert code == 130
    assert "fastn-mcp: Stopped. The last call was not decided: it still waits." in message
    assert "Traceback" not in message
    assert state.grant().state is RequestState.OPEN


def test_n_declines_with_a_note(state: Folder) -> None:
    state.add_request()
    state.answer(("n", "A note for the agent, or Enter > "), ("wait for the backup", "Declined."))
    declined = state.grant()
    assert (declined.state, declined.by, declined.note) == (RequestState.DECLINED, "terminal", "wait for the backup")
    assert state.do(lambda ledger: ledger.declines("local"))[0] == 1
    assert state.decisions() == [("declined", "run_workflow", "wf_1", "terminal", "wait for the backup")]


def test_15_approves_and_requests_a_temporary_approval(state: Folder) -> None:
    state.add_request()
    assert "Approved." in state.answer(("15", "no approval for 15 minutes from then on."))
    assert state.temporary_approvals() == []
    assert state.grant().state is RequestState.APPROVED
    assert state.grant().gives_permit
    assert state.decisions()[0][4] == "also for 15 minutes"


@pytest.mark.parametrize("changed", [TYPED, TYPED | {"permit": stores.permit()}, {"permit": None}])
def test_15_is_not_offered_without_temporary_approvals(changed: dict[str, object], state: Folder) -> None:
    state.add_request(**changed)
    output = state.answer(("15", CHOICES), ("", "Left waiting."))
    assert "15 = " not in output
    assert "That is" in output
    assert state.temporary_approvals() == []
    assert state.grant().state is RequestState.OPEN


def test_secret_is_typed_unseen_with_the_approval(state: Folder) -> None:
    state.add_request(**SECRET)
    assert KEY not in state.answer(("y", HIDDEN), (f" {KEY} ", "Approved."))
    assert state.grant().state is RequestState.APPROVED
    assert KEY.encode() not in b"".join(path.read_bytes() for path in state.folder.iterdir())

    async def taken(ledger: Ledger) -> str | None:
        seal = typed_seal([], state.folder, System())
        approved = await ledger.find("g1")
        filled = await TypedSecrets(ledger, lambda: seal, System()).fill(CreateSecret(name="A"), VALUE, approved)
        return filled.value

    assert state.do(taken) == f" {KEY} "


def test_approval_without_its_secret_leaves_the_request_waiting(state: Folder) -> None:
    state.add_request(**SECRET)
    assert "Nothing is approved yet: type the value." in state.answer(("y", HIDDEN), ("", "Left waiting."))
    assert state.grant().state is RequestState.OPEN


def test_line_that_the_terminal_cut_has_to_be_typed_again(state: Folder) -> None:
    state.add_request(**SECRET)
    with state.at_a_terminal() as person:
        person.answers(CHOICES, "y")
        person.answers(HIDDEN, "x" * 4094)
        person.sees("A line at a terminal cannot be that long")
        assert state.grant().state is RequestState.OPEN
        person.answers(HIDDEN, KEY)
        person.sees("Approved.")
        person.leaves()


async def test_secret_is_not_typed_where_no_server_could_open_it(tmp_path: Path) -> None:
    """Servers on a shared ledger open it by their state secret, which this process may lack."""
    shared = ApprovalStore(tmp_path, "valkey://ledger:6379", PROGRAM, print)
    ledger, system = Ledger(SqliteStore(str(tmp_path / "ledger"))), System()
    assert shared.typed(ledger, system) is None
    assert replace(shared, state_secrets=["s" * 32]).typed(ledger, system) is not None
    request = replace(GRANT, expires=time.time() + 600, **SECRET)  # pyright: ignore[reportArgumentType]
    await ledger.open(request)
    approvals = TerminalApprovals(ledger, AuditFile(tmp_path / "audit", system), system)
    assert "FASTN_STATE_SECRET" in await approvals.approve(request, secret="x")
    assert [each.state for each in await ledger.waiting(time.time())] == [RequestState.OPEN]
    await ledger.aclose()


def test_without_a_terminal_the_open_page_is_named(state: Folder) -> None:
    state.add_request(**SECRET)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        write_page_file(state, address)
        ran = state.approvals(given=f"y\n{KEY}\n")
    assert f"To decide on the approval page at {address}: " in ran.stdout
    assert KEY not in ran.stdout
    assert state.grant().state is RequestState.OPEN


def test_typed_request_is_approved_only_by_the_name(state: Folder) -> None:
    state.add_request(**TYPED)
    with state.at_a_terminal() as person:
        assert 'Type "Acme" to approve this one call' in person.sees(CHOICES)
        for slip in ("y", "yes", "acme", "Acme GmbH"):
            person.types(f"{slip}\r")
            person.sees("That is not the name.")
            assert state.grant().state is RequestState.OPEN
            person.sees(CHOICES)
        person.types("Acme\r")
        person.sees("Approved.")
        person.leaves()
    assert state.grant().state is RequestState.APPROVED


def test_four_eyes_request_is_not_approved_at_a_terminal(state: Folder) -> None:
    state.add_request(required="four_eyes")
    state.answer(("y", "two people have to approve"))
    assert state.grant().state is RequestState.OPEN


def test_requests_that_arrive_meanwhile_are_asked_about_too(state: Folder) -> None:
    state.add_request()
    state.add_request(id="g2", target="wf_2", call="another call")
    with state.at_a_terminal() as person:
        assert "1 more." in person.answers(CHOICES, "")
        person.sees(CHOICES)
        state.add_request(id="g3", target="wf_3", call="a third call")
        person.types("y\r")
        person.answers(CHOICES, "n")
        person.answers("or Enter > ", "")
        person.sees("Nothing else waits.")
        person.leaves()
    assert [state.grant(name).state for name in ("g1", "g2", "g3")] == [
        RequestState.OPEN,
        RequestState.APPROVED,
        RequestState.DECLINED,
    ]


@pytest.mark.parametrize(
    ("typed", "became"),
    [("y\r", RequestState.DECLINED), ("15\r", RequestState.USED), ("n\rlate\r", RequestState.APPROVED)],
)
def test_request_decided_meanwhile_stays_as_it_was(typed: str, became: RequestState, state: Folder) -> None:
    state.add_request()
    with state.at_a_terminal() as person:
        person.sees(CHOICES)
        state.do(lambda ledger: moved(ledger, "g1", [RequestState.OPEN], became, time.time(), by="local_page"))
        person.types(typed)
        person.sees(f"This request has already been {'declined' if became is RequestState.DECLINED else 'approved'}")
        person.leaves()
    assert (state.grant().state, state.grant().by) == (became, "local_page")
    assert state.temporary_approvals() == []
    assert not (state.folder / "audit.jsonl").exists()


def test_request_in_an_elicitation_form_is_not_listed(state: Folder) -> None:
    state.add_request(out_of_band=False)
    with state.at_a_terminal() as person:
        assert person.leaves() == (0, "No call waits for approval.\n")


def test_control_characters_in_a_request_are_escaped(state: Folder) -> None:
    hostile = a_question(title="Run workflow.", then="Target: \x1b[2J\u202eApprove all\x07.")
    state.add_request(question=hostile, principal="\x1b]0;me\x07")
    for text in (state.answer(("", "Left waiting.")), state.approvals().stdout):
        assert "Target: \\u{1b}[2J\\u{202e}Approve all\\u{7}." in text
        assert not set(text) & {"\x1b", "\x07", "\u202e"}


def test_decline_holds_if_the_audit_log_cannot_be_written(state: Folder) -> None:
    """A decline is never held up; an approved call is refused when it is to be sent."""
    state.add_request()
    (state.folder / "audit.jsonl").mkdir()
    output = state.answer(("n", "or Enter > "), ("", "(Is a directory)."))
    assert "Declined. The same call stays declined until " in output
    assert state.grant().state is RequestState.DECLINED


def add_temporary_approvals(state: Folder, *names: str) -> None:
    for name in names:
        temporary = stores.temporary_approval(name, time.time() + 900)
        state.do(lambda ledger, temporary=temporary: stores.add_temporary(ledger, temporary))


def test_temporary_and_revoke_work_without_a_terminal(state: Folder) -> None:
    add_temporary_approvals(state, "first", "second")
    assert 'first  run_workflow on "wf_1", default at live.fastn.ai, for local' in state.approvals("temporary").stdout
    assert [row["id"] for row in json.loads(state.approvals("temporary", "--json").stdout)] == ["first", "second"]
    ran = state.approvals("revoke", "fir")
    assert (ran.returncode, ran.stdout) == (0, 'Revoked: run_workflow on "wf_1" needs approval again.\n')
    assert [scope.id for scope in state.temporary_approvals()] == ["second"]
    assert state.decisions() == [("temporary_approval_revoked", "run_workflow", "wf_1", "terminal", None)]


@pytest.mark.parametrize("name", ["third", "s"])
def test_revoke_needs_exactly_one_match(name: str, state: Folder) -> None:
    add_temporary_approvals(state, "s1", "s2")
    ran = state.approvals("revoke", name)
    assert ran.returncode == 2
    assert "approvals temporary" in ran.stderr
    assert len(state.temporary_approvals()) == 2


def test_revoke_works_if_the_audit_log_cannot_be_written(state: Folder) -> None:
    add_temporary_approvals(state, "s1")
    (state.folder / "audit.jsonl").mkdir()
    ran = state.approvals("revoke", "s1")
    assert (ran.returncode, state.temporary_approvals()) == (0, [])
    assert "The audit log cannot be written" in ran.stderr


def test_unused_approvals_are_listed_and_withdrawn_at_a_terminal(state: Folder) -> None:
    for name in ("grant-1", "grant-2"):
        state.add_request(id=name)
        request, vote = state.grant(name), Vote("local_page", approves=True, at=time.time())
        state.do(lambda ledger, request=request, vote=vote: ledger.decide(request, vote, "local_page"))
    listed = state.approvals("withdraw", "")
    assert listed.stdout.count('Run workflow "Nightly sync" now.') == 2
    assert 'grant-1  Run workflow "Nightly sync" now.' in listed.stdout
    piped = state.approvals("withdraw", "grant-1", "--note", "no")
    assert (piped.returncode, piped.stdout) == (1, "")
    assert state.grant("grant-1").state is RequestState.APPROVED
    assert "No decided request has this id." in withdrawn(state, "grant")  # two begin so
    output = withdrawn(state, "grant-1", "--note", "no")
    assert 'Withdrawn: Run workflow "Nightly sync" now. Nothing was sent.' in output
    taken_back = state.grant("grant-1")
    assert (taken_back.state, taken_back.note) == (RequestState.WITHDRAWN, "no")
    assert state.decisions()[-1] == ("withdrawn", "run_workflow", "wf_1", "terminal", "no")
    assert "the approval was withdrawn" in withdrawn(state, "grant-1")
    state.do(lambda ledger: used(ledger, "grant-2", "call 1", time.time()))
    assert "Too late: the call was already sent." in withdrawn(state, "grant-2")


def withdrawn(state: Folder, *arguments: str) -> str:
    """Return what `approvals withdraw` prints at a terminal."""
    with sitting(["-m", "fastn_mcp", "approvals", "withdraw", *arguments], state.env) as person:
        person.leaves()
    return " ".join(person.shown.split())


def write_page_file(state: Folder, url: str = "http://127.0.0.1:8123", mode: int = 0o600) -> None:
    state.folder.mkdir(parents=True, exist_ok=True)
    (state.folder / "page.json").write_text(json.dumps({"url": url, "key": KEY}))
    (state.folder / "page.json").chmod(mode)


@pytest.fixture
def browser(tmp_path: Path) -> tuple[str, Path]:
    return recording_browser(tmp_path)


def test_open_gives_the_key_to_the_browser_only(state: Folder, browser: tuple[str, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as page:
        url = f"http://127.0.0.1:{page.getsockname()[1]}"
        write_page_file(state, url)
        ran = state.approvals("--open", BROWSER=browser[0])
    assert ran.returncode == 0
    assert KEY not in ran.stdout + ran.stderr
    opened = browser[1].read_text()
    assert KEY not in opened
    file = Path(opened.strip().removeprefix("file://"))
    assert f'action="{url}/enter">\n<input type="hidden" name="key" value="{KEY}">' in file.read_text()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        *((url, 0o600) for url in ("https://evil.example", "http://evil.example", "file:///etc", "ftp:x")),
        ("http://127.0.0.1.evil.example", 0o600),
        ("http://127.0.0.1:8123", 0o644),
    ],
)
def test_page_file_of_another_host_or_for_all_users_is_not_opened(
    url: str, mode: int, state: Folder, browser: tuple[str, Path]
) -> None:
    write_page_file(state, url, mode)
    ran = state.approvals("--open", BROWSER=browser[0])
    assert (ran.returncode, browser[1].exists()) == (2, False)
    assert KEY not in ran.stdout + ran.stderr


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"url": 1, "key": 2}', "\xff"])
def test_invalid_page_file_counts_as_none(text: str, state: Folder, browser: tuple[str, Path]) -> None:
    write_page_file(state)
    (state.folder / "page.json").write_bytes(text.encode("latin-1"))
    ran = state.approvals("--open", BROWSER=browser[0])
    assert (ran.returncode, browser[1].exists()) == (2, False)
    assert "No approval page is open" in ran.stderr
    assert ran.stderr.endswith("fastn-mcp approvals\n")
    assert "Traceback" not in ran.stderr


def test_open_without_a_page_says_what_to_do(state: Folder, browser: tuple[str, Path]) -> None:
    ran = state.approvals("--open")
    assert ran.returncode == 2
    assert "No approval page is open, and no calls wait here. A server opens one when a call needs" in ran.stderr
    with socket.create_server(("127.0.0.1", 0)) as ended:
        write_page_file(state, f"http://127.0.0.1:{ended.getsockname()[1]}")
    state.add_request()
    ran = state.approvals("--open", BROWSER=browser[0])
    assert (ran.returncode, browser[1].exists()) == (2, False)
    assert "No approval page is open, and 1 call waits here. " in ran.stderr
    assert "Decide at a terminal: " in ran.stderr


def test_other_stores_with_requests_are_listed_with_commands(state: Folder, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(f'[profiles.acme]\nledger = "{tmp_path}/acme/ledger.sqlite"\n')
    config.chmod(0o600)
    folders = (state.folder / "sandbox", tmp_path / "home" / "fastn-mcp", tmp_path / "acme")
    for folder in (*folders, state.folder / "tenants" / "globex"):
        Folder(folder).add_request()
    ran = state.approvals(FASTN_CONFIG=str(config))
    first, *others = ran.stdout.splitlines()
    assert first == "No call waits for approval."
    names = ["in the sandbox", "on the profile acme", "at the tenant globex", "on your accounts"]
    assert [line.partition(": ")[0] for line in others] == [f"1 call waits {name}" for name in names]
    for line in others:
        words = shlex.split(line.partition(": ")[2])
        program = next(n for n, word in enumerate(words) if word.endswith("fastn-mcp"))
        env = os.environ | state.env | {"FASTN_CONFIG": str(config)}
        env |= dict(setting.split("=", 1) for setting in words[:program])
        listed = run_command([*words[program + 1 :], "--json"], env)
        assert len(json.loads(listed.stdout)) == 1, line
    shown = state.approvals("--open", FASTN_CONFIG=str(config)).stderr
    assert (others[0] in shown, "at a terminal" in shown) == (True, False)
