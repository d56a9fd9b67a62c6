"""`fastn-mcp audit`: printing entries, and finding changes to the log."""

import json
import os
import shutil
import subprocess
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.cells import cell_len
from support.audit_entries import ACCOUNT, INTENT, NOW
from support.command_line import Run, run_command
from support.terminal import sitting

from fastn_mcp.audit.files import verify
from fastn_mcp.audit.log import NEVER_SEEN, AuditEvent, AuditFile, about
from fastn_mcp.audit.reader import Entry, following
from fastn_mcp.cli.audit import TAIL_COLUMNS, audit_group, row
from fastn_mcp.cli.program import cli
from fastn_mcp.errors import SettingsError
from fastn_mcp.policy.asker import Asker
from fastn_mcp.runtime import System
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.connectors import DeleteConnection
from fastn_mcp.tools.customers import CreateCustomer
from fastn_mcp.tools.workflows import RunWorkflow

DELETE = replace(INTENT, decision="typed", approved_by="client_form", grant="g1")
RUN = about(AuditEvent.REFUSED, RunWorkflow(workflow_id="wf_1"), Asker("agent"), ACCOUNT)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def log(path: Path) -> Generator[AuditFile]:
    log = AuditFile(path, System(now=lambda: NOW))
    log.record(replace(DELETE, event=AuditEvent.ASKED, approved_by=None))
    log.record(DELETE)
    log.record(replace(DELETE, event=AuditEvent.OUTCOME, of="2", outcome="done", duration_ms=41.4, requests=6))
    log.record(replace(RUN, message="The policy refuses it.", outcome="refused"))
    yield log
    log.close()


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["audit", "--file", str(path), *arguments])


def lines(result: Result) -> list[list[str]]:
    return [line.split("\t") for line in result.stdout.splitlines()]


@pytest.mark.usefixtures("log")
def test_tail_in_a_pipe_prints_tab_separated_lines(path: Path) -> None:
    time = "2026-11-25T01:40:35.532Z"
    call = ["local", "delete_customer", "cus_1", ""]
    assert lines(run(path, "tail", "-n", "3")) == [
        ["2", time, "intent", *call, "typed", "client_form", "", "", "", ""],
        ["3", time, "outcome", *call, "typed", "client_form", "done", "41.4", "", ""],
        [
            "4",
            time,
            "refused",
            "agent",
            "run_workflow",
            "wf_1",
            "",
            "",
            "",
            "refused",
            "",
            "The policy refuses it.",
            "",
        ],
    ]
    message = " ".join((audit_group.commands["tail"].help or "").split())
    assert f"tab-separated: {', '.join(TAIL_COLUMNS)}." in message


LONG_NAME = replace(
    about(
        AuditEvent.DECLINED, DeleteConnection(connection_id="5c4bc270-6e5f-4523-afd7-6538d17c6c3a"), Asker(), ACCOUNT
    ),
    message="A person declined this call. Keep it until the end of the quarter.",
)


@pytest.mark.parametrize(("columns", "time", "lines_each"), [
    (60, "11-25 01:40", 2), (80, "11-25 01:40", 1), (120, "2026-11-25 01:40:35Z", 1),
])  # fmt: skip
def test_tail_on_a_terminal_never_cuts_number_time_and_event(columns: int, time: str, lines_each: int) -> None:
    entry: Entry = {"n": 12, "event": "declined", "time": "2026-11-25T01:40:35.532Z"}
    entry |= {"tool": LONG_NAME.tool, "target": LONG_NAME.target, "message": LONG_NAME.message}
    shown = row(entry, "TikTok Shop 客户 of Katana", columns)
    assert shown[0].startswith(f'  12 {time}  declined   delete_connection "TikTok Sh')
    assert len(shown) == lines_each
    assert all(cell_len(line) <= columns for line in shown)
    assert "A person declined" in shown[-1]
    assert shown[-1].endswith("…")
    withdrawn = row(entry | {"event": "withdrawn"}, "TikTok Shop 客户 of Katana", columns)
    assert withdrawn[0].index("delete_") == shown[0].index("delete_"), "the longest event of a call keeps the column"


def test_tail_on_a_terminal_takes_no_names_from_entries_without_a_target(path: Path) -> None:
    log = AuditFile(path, System())
    log.record(replace(about(AuditEvent.INTENT, CreateCustomer(name="Initech"), Asker(), ACCOUNT), name="Initech"))
    log.record(about(AuditEvent.REFUSED, AiChat(message="Hello"), Asker(), ACCOUNT))
    env = {"FASTN_CONFIG": os.devnull, "COLUMNS": "80"}
    with sitting(["-m", "fastn_mcp", "audit", "--file", str(path), "tail"], env) as person:
        shown = person.leaves()[1]
    assert ('create_customer "Initech"' in shown, shown.count("Initech")) == (True, 1)


@pytest.mark.usefixtures("log")
def test_tail_on_a_terminal_takes_target_names_from_earlier_entries(path: Path, log: AuditFile) -> None:
    log.record(replace(DELETE, event=AuditEvent.ASKED, name="Acme"))
    log.record(LONG_NAME)
    log.record(replace(DELETE, event=AuditEvent.DECLINED))
    env = {"FASTN_CONFIG": os.devnull, "COLUMNS": "80"}
    with sitting(["-m", "fastn_mcp", "audit", "--file", str(path), "tail", "-n", "1"], env) as person:
        person.sees('7 11-25 01:40  declined   delete_customer "Acme"')


@pytest.mark.usefixtures("log")
def test_tail_accepts_zero_and_more_than_all_entries(path: Path) -> None:
    assert run(path, "tail", "-n", "0").stdout == ""
    assert len(lines(run(path, "tail", "-n", "50"))) == 4


@pytest.mark.usefixtures("log")
def test_tail_as_json_prints_one_entry_per_line(path: Path) -> None:
    rows = [json.loads(line) for line in run(path, "tail", "--json").stdout.splitlines()]
    assert [row["n"] for row in rows] == [1, 2, 3, 4]
    assert rows == [json.loads(line) for line in path.read_bytes().splitlines()]


def test_control_characters_in_an_entry_are_escaped(path: Path, log: AuditFile) -> None:
    log.record(replace(DELETE, target="\x1b[2K\r\u202ecus", message="a\nb [bold red]c[/] [link=x]d"))
    for command in (["tail", "-n", "1"], ["show", "5"]):
        shown = run(path, *command).stdout
        assert not set(shown) & {"\x1b", "\r", "\u202e"}
        assert "\\u{1b}[2K\\u{d}\\u{202e}cus" in shown
        assert "a\\u{a}b [bold red]c[/] [link=x]d" in shown
    assert len(lines(run(path, "tail", "-n", "1"))) == 1


def test_following_yields_only_complete_lines(path: Path, log: AuditFile) -> None:
    later = iter([b'{"n":1,', b'"event":', b'"intent"}\n', b"x\n"])

    class Enough(Exception):
        pass

    def pause() -> None:
        with path.open("ab") as file:
            try:
                file.write(next(later))
            except StopIteration:
                raise Enough from None

    log.close()
    path.write_bytes(b"")
    with path.open("rb") as file:
        added = following(file.readline, pause)
        assert [next(added), next(added)] == [b'{"n":1,"event":"intent"}\n', b"x\n"]
        with pytest.raises(Enough):
            next(added)


@pytest.mark.usefixtures("log")
def test_tail_and_show_read_rotated_files(path: Path) -> None:
    path.rename(path.with_name("audit.000000004.jsonl"))
    assert [line[0] for line in lines(run(path, "tail"))] == ["1", "2", "3", "4"]
    log = AuditFile(path, System(now=lambda: NOW))
    log.record(DELETE)
    log.close()
    assert [line[0] for line in lines(run(path, "tail", "-n", "2"))] == ["4", "5"]
    assert [json.loads(line)["n"] for line in run(path, "show", "2", "--json").stdout.splitlines()] == [2, 1, 3, 5]


@pytest.mark.usefixtures("log")
def test_report_on_a_terminal_has_a_few_lines_per_call(path: Path) -> None:
    """A pipe and a file get Markdown, with values in code spans."""
    env = {"FASTN_CONFIG": os.devnull, "COLUMNS": "80"}
    with sitting(["-m", "fastn_mcp", "audit", "--file", str(path), "report"], env) as person:
        output = person.leaves()[1]
    assert f"- Account: {ACCOUNT}\n" in output
    assert "Refused (1)\n\n- Call 2: run_workflow wf_1, 2026-11-25 01:40:35Z\n  - refused: The policy refuses" in output
    assert "Done (1)\n\n- Call 1: delete_customer cus_1, 2026-11-25 01:40:35Z\n  - done\n" in output
    assert "approved by client_form; took 41 ms; requests 6" in output
    assert "`" not in output
    assert [line for line in output.split("\n") if cell_len(line) > 80 and " " in line.strip()] == []
    assert "- Call 2: `run_workflow` `wf_1`, `2026-11-25 01:40:35Z`\n  - `refused`: " in run(path, "report").stdout


def test_tail_follows_another_process_until_ctrl_c(path: Path, log: AuditFile) -> None:
    env = {"FASTN_CONFIG": os.devnull}
    with sitting(["-m", "fastn_mcp", "audit", "--file", str(path), "tail", "-f", "-n", "1"], env) as person:
        person.sees("The policy refuses it.")
        log.record(replace(DELETE, event=AuditEvent.DECLINED, message="not today"))
        person.sees("declined")
        person.sees("not today")
        path.rename(path.with_name("audit.jsonl.1"))
        log.record(replace(DELETE, event=AuditEvent.EXPIRED, message="after the rotation"))
        person.sees("after the rotation")
        person.types("\x03")
        code, shown = person.leaves()
    assert code != 0
    assert "Traceback" not in shown


@pytest.mark.usefixtures("log")
def test_show_prints_an_entry_and_the_others_of_its_call(path: Path) -> None:
    shown = run(path, "show", "2").stdout
    assert '  arguments  {"customer_id": "cus_1"}\n' in shown
    mine, others = shown.split("Other entries of the same call:")
    assert "client_form" in mine
    assert [line.split()[0] for line in others.split("\n") if line.strip()] == ["1", "3"]
    rows = [json.loads(line)["n"] for line in run(path, "show", "2", "--json").stdout.splitlines()]
    assert rows == [2, 1, 3]
    assert "of the same call" not in run(path, "show", "4").stdout


@pytest.mark.usefixtures("log")
def test_show_of_an_unknown_entry_is_an_error(path: Path) -> None:
    result = run(path, "show", "99")
    assert (result.exit_code, "There is no entry 99" in result.stderr) == (2, True)


@pytest.mark.usefixtures("log")
def test_verify_of_an_intact_log_prints_its_head_and_limits(path: Path) -> None:
    result = run(path, "verify")
    assert result.exit_code == 0
    assert f"Intact: 4 entries. Head: {verify(path).head}\n" in result.stdout
    assert "Entries removed from the end cannot be detected" in result.stdout
    assert "has no outcome" not in result.stdout


@pytest.mark.parametrize(
    ("before", "after", "line"), [(b"cus_1", b"cus_2", 1), (b'"n":3', b'"n":4', 3), (b"done", b"gone", 3)]
)
@pytest.mark.usefixtures("log")
def test_verify_of_an_edited_log_names_the_line(path: Path, before: bytes, after: bytes, line: int) -> None:
    path.write_bytes(path.read_bytes().replace(before, after, 1))
    result = run(path, "verify")
    assert result.exit_code == 1
    assert result.stdout.startswith(f"Broken at line {line}: it was edited")
    assert f"The {line - 1} entries before it are unchanged" in result.stdout


def test_verify_with_a_noted_head_finds_a_truncated_log(path: Path, log: AuditFile) -> None:
    head = verify(path).head
    whole = path.read_bytes()
    assert "belongs to entry 4; 0 came after it" in run(path, "verify", "--head", head).stdout
    log.record(DELETE)
    assert "belongs to entry 4; 1 came after it" in run(path, "verify", "--head", head).stdout
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:3]))
    assert run(path, "verify").exit_code == 0
    result = run(path, "verify", "--head", head)
    assert result.exit_code == 1
    assert result.stdout.startswith("Broken: no entry has the hash that you saved.")


@pytest.mark.usefixtures("log")
def test_verify_rejects_a_malformed_head(path: Path) -> None:
    result = run(path, "verify", "--head", "abc")
    assert (result.exit_code, "64 of the characters" in result.stderr) == (2, True)


def test_verify_lists_unfinished_calls_and_torn_lines(path: Path, log: AuditFile) -> None:
    """After a kill, one knows which calls to look for in Fastn."""
    for _ in range(7):
        log.record(DELETE)
    with path.open("ab") as file:
        file.write(b'{"n":12,"ti')
    result = run(path, "verify")
    assert result.exit_code == 0
    assert "Entry 5 has no outcome" in result.stdout
    assert "2 more entries have none." in result.stdout
    assert "Line 12 is unfinished" in result.stdout


def with_environment(*arguments: str, state: Path) -> "subprocess.CompletedProcess[str]":
    env = {**os.environ, "FASTN_STATE_DIR": str(state), "FASTN_CONFIG": os.devnull}
    return run_command(["audit", *arguments], env)


@pytest.mark.usefixtures("log")
def test_audit_reads_the_log_of_the_state_folder_by_default(tmp_path: Path) -> None:
    assert with_environment("verify", state=tmp_path).stdout.startswith("Intact: 4 entries.")


def test_audit_without_a_log_says_so(tmp_path: Path) -> None:
    ran = with_environment("tail", state=tmp_path / "none")
    assert ran.returncode == 2
    assert "There is no audit log at" in ran.stderr
    assert not (tmp_path / "none").exists()


def test_audit_reports_an_unreadable_log(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["audit", "--file", str(tmp_path), "verify"])
    assert isinstance(result.exception, SettingsError)


def test_verify_knows_a_log_that_was_moved_with_its_ledger_and_no_other(
    fastn: Run, environment: dict[str, str]
) -> None:
    assert fastn("--sandbox", "call", "create-customer", "--name", "Initech").returncode == 0
    first, second = Path(environment["FASTN_STATE_DIR"]), Path(environment["FASTN_CONFIG_DIR"]) / "moved"
    shutil.copytree(first, second)
    moved = fastn("--sandbox", "audit", "verify", env={"FASTN_STATE_DIR": str(second)})
    assert moved.returncode == 0
    assert "Entry 2 matches the ledger." in moved.stdout
    (second / "sandbox" / "ledger.sqlite").unlink()
    assert fastn("--sandbox", "call", "list-changes", env={"FASTN_STATE_DIR": str(second)}).returncode == 0
    alone = fastn("--sandbox", "audit", "verify", env={"FASTN_STATE_DIR": str(second)})
    assert alone.returncode == 1
    assert alone.stderr.startswith(f"Whether entries were cut off at the end is unknown. {NEVER_SEEN}")
    elsewhere = {"FASTN_LEDGER": str(second / "sandbox" / "ledger.sqlite")}
    assert NEVER_SEEN in fastn("--sandbox", "audit", "verify", env=elsewhere).stderr
    assert fastn("--sandbox", "call", "create-customer", "--name", "Hooli", env=elsewhere).returncode == 0
    assert "Entry 4" in fastn("--sandbox", "audit", "verify", env=elsewhere).stdout
