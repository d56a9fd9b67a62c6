"""The audit's file: what is in it, who may add to it, and what if it cannot be written."""

import errno
import hashlib
import json
import os
import signal
import stat
import subprocess
from collections.abc import Generator, Mapping
from dataclasses import replace
from datetime import timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue
from support.audit_entries import INTENT, NOW, entries
from support.questions import a_question
from support.started_together import let_begin, started

from fastn_mcp.audit import log as audit_log
from fastn_mcp.audit.files import Keeping, verify
from fastn_mcp.audit.log import AuditEvent, AuditFile, LogEntry, Unwritten, about, digest, showable
from fastn_mcp.guard.questions import question_of_list
from fastn_mcp.guard.recorder import decision_entry
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.identity import bound_account
from fastn_mcp.policy.asker import Asker
from fastn_mcp.redaction import REDACTED
from fastn_mcp.runtime import System
from fastn_mcp.tools.access import CreateSecret
from fastn_mcp.tools.tool import Effect

CANARY = "kanarienvogel-41"


@pytest.fixture
def kept(path: Path) -> Generator[AuditFile]:
    kept = AuditFile(path, System(now=lambda: NOW))
    yield kept
    kept.close()


def test_entry_has_every_known_field(kept: AuditFile, path: Path) -> None:
    entry = replace(INTENT, effect="destroy", decision="typed", rule="mode guarded: destroy", approved_by="client_form")
    assert kept.record(replace(entry, grant="g1")) == "1"
    assert kept.record(replace(INTENT, event=AuditEvent.OUTCOME, of="1", outcome="done", duration_ms=41.5)) == "2"
    first, second = entries(path)
    assert {name: first[name] for name in first if name not in ("prev", "hash", "digest")} == {
        "n": 1,
        "time": "2026-11-25T01:40:35.532Z",
        "event": "intent",
        "principal": "local",
        "account": "default at live.fastn.ai",
        "tool": "delete_customer",
        "target": "cus_1",
        "arguments": {"customer_id": "cus_1"},
        "effect": "destroy",
        "decision": "typed",
        "rule": "mode guarded: destroy",
        "approved_by": "client_form",
        "grant": "g1",
    }
    assert first["digest"] == digest({"customer_id": "cus_1"})
    assert (second["of"], second["outcome"], second["duration_ms"]) == ("1", "done", 41.5)
    assert "effect" not in second


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_log_is_readable_by_its_owner_only(kept: AuditFile, path: Path) -> None:
    """Mode 0600 in a folder of mode 0700, whatever the umask."""
    before = os.umask(0)
    try:
        kept.record(INTENT)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_digest_ignores_the_order_of_arguments() -> None:
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest({"value": "one"}) != digest({"value": "two"})
    assert digest({"b": 2, "a": 1}) == hashlib.sha256(b'{"a":1,"b":2}').hexdigest()


def test_digest_does_not_depend_on_secrets() -> None:
    """The entry shows the other arguments, so a reader of the log could guess a short secret by its digest."""
    entries = [
        about(AuditEvent.INTENT, CreateSecret(name="db", value=value, customer_id="cus_1"), Asker(), "default")
        for value in (CANARY, "1234")
    ]
    assert {entry.digest for entry in entries} == {digest({"name": "db", "value": REDACTED, "customer_id": "cus_1"})}


REQUEST = ApprovalRequest(
    id="g1", principal="local", account=bound_account("default", "ab12"), tool="create_secret", target="sec_1",
    call="call", calls={}, required="typed", expected=None, out_of_band=True,
    question=a_question(
        arguments={"name": "db", "password": CANARY}, effect=Effect.ACCESS, target="sec_1", name="x" * 300
    ),
    created=0.0, expires=600.0,
)  # fmt: skip


def test_decision_is_recorded_with_its_request() -> None:
    entry = decision_entry(AuditEvent.DECLINED, REQUEST, "local_page", "not now")
    assert entry == LogEntry(
        AuditEvent.DECLINED,
        "local",
        "default",
        "create_secret",
        "sec_1",
        arguments={"name": "db", "password": "[hidden-by-fastn-mcp]"},
        effect="access",
        decision="typed",
        approved_by="local_page",
        grant="g1",
        message="not now",
        name="x" * 200 + " [100 more characters]",
    )


def test_decision_on_a_list_is_recorded_without_arguments_and_name() -> None:
    question = question_of_list("apply_changes", [REQUEST.question, replace(REQUEST.question, number=2)])
    entry = decision_entry(AuditEvent.EXPIRED, replace(REQUEST, question=question), "local_page")
    assert entry.effect == "access"
    assert (entry.arguments, entry.name, entry.approved_by, entry.message) == (None,) * 4


def test_decision_on_a_create_is_recorded_without_a_name() -> None:
    question = replace(REQUEST.question, target=None, arguments={})
    entry = decision_entry(AuditEvent.EXPIRED, replace(REQUEST, question=question), "local_page")
    assert (entry.arguments, entry.name) == ({}, None)


def test_nested_arguments_are_cut_and_counted() -> None:
    """At 32,768 characters an entry still holds its arguments."""
    cut = "a" * 1_000 + " [1 more character]"
    assert showable({"a": {"b": ["a" * 1_001, {"c": "a" * 1_001}], "n": 1}}) == {"a": {"b": [cut, {"c": cut}], "n": 1}}
    full: dict[str, Any] = {"many": ["a" * 1_000] * 32, "rest": "a"}
    full["rest"] = "a" * (32_768 - len(json.dumps(full)) + 1)
    assert showable(full) == full
    assert showable({**full, "rest": f"{full['rest']}a"}) == {"[left out]": "32769 characters"}


def test_entry_is_in_utc_redacted_and_traced(path: Path) -> None:
    """The trace is W3C's trace-id."""
    east = timezone(timedelta(hours=2))
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    log = AuditFile(path, System(now=lambda: NOW.astimezone(east), trace=lambda: trace))
    log.record(replace(INTENT, message=f"Bearer {CANARY}"))
    log.close()
    (entry,) = entries(path)
    assert entry["time"] == "2026-11-25T01:40:35.532Z"
    assert entry["trace"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert CANARY not in str(entry["message"])


def test_each_written_entry_is_passed_to_the_exporter(path: Path) -> None:
    passed: list[Mapping[str, JsonValue]] = []
    log = AuditFile(path, System(now=lambda: NOW), passed.append)
    log.record(INTENT)
    log.record(INTENT)
    log.close()
    assert passed == [{name: entry[name] for name in entry if name != "prev"} for entry in entries(path)]


def test_line_is_written_whole_despite_partial_writes(
    path: Path, kept: AuditFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """POSIX, write(): it can write fewer bytes."""
    write = os.write

    def write_some(file: int, data: bytes) -> int:
        return write(file, data[:100])

    monkeypatch.setattr(os, "write", write_some)
    for _ in range(3):
        kept.record(INTENT)
    report = verify(path)
    assert (report.broken, report.entries, report.torn) == (None, 3, ())


def test_name_of_a_new_file_is_on_disk_before_its_entry_counts(
    path: Path, kept: AuditFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a loss of power a file without a name would be an empty log."""
    synced: list[Path] = []
    monkeypatch.setattr(audit_log, "sync_folder", synced.append)
    kept.record(INTENT)
    kept.close()
    kept.record(INTENT)
    assert synced == [path.parent]


def test_log_that_cannot_be_renamed_keeps_growing(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Windows does not rename an open file."""

    def rename(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "rename", rename)
    log = AuditFile(path, System(now=lambda: NOW), keeping=Keeping(max_bytes=1))
    log.record(INTENT)
    log.record(INTENT)
    log.close()
    assert verify(path).files == (("audit.jsonl", 2),)
    assert caplog.messages == [f"the audit log {path} cannot be rotated: Permission denied"]


WRITE = """
import sys
from pathlib import Path
from fastn_mcp.audit.log import AuditEvent, AuditFile, LogEntry
from fastn_mcp.audit.files import Keeping
from fastn_mcp.runtime import System
kept = AuditFile(Path(sys.argv[1]), System(), keeping=Keeping(int(sys.argv[4]) or None))
print("ready", flush=True)
sys.stdin.readline()
for number in range(int(sys.argv[3])):
    kept.record(LogEntry(AuditEvent.INTENT, sys.argv[2], "default", "delete_customer", target=str(number)))
    if number == 10:
        print("writing", flush=True)
"""


def writer(path: Path, name: str, count: int, max_bytes: int = 0) -> "subprocess.Popen[str]":
    return started("-c", WRITE, str(path), name, str(count), str(max_bytes))


def test_two_processes_write_one_chain(path: Path) -> None:
    count, max_bytes = 200, 0 if os.name == "nt" else 5_000  # Windows renames no open file
    with writer(path, "one", count, max_bytes) as one, writer(path, "two", count, max_bytes) as two:
        let_begin(one, two)
        assert (one.wait(60), two.wait(60)) == (0, 0)
    report = verify(path)
    assert (report.broken, report.entries, report.shortened) == (None, 2 * count, ())
    assert (len(report.files) > 20) is (max_bytes > 0)
    if os.name != "nt":
        assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    written = list(entries(path))
    for name in ("one", "two"):
        targets = [entry["target"] for entry in written if entry["principal"] == name]
        assert targets == [str(number) for number in range(count)]


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_killed_writer_leaves_a_chain_that_continues(path: Path, kept: AuditFile) -> None:
    with writer(path, "killed", 1_000_000) as process:
        let_begin(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        process.send_signal(signal.SIGKILL)
    before = verify(path)
    assert before.broken is None
    assert before.entries > 10
    assert kept.record(INTENT) == str(before.entries + 1)
    after = verify(path)
    assert (after.broken, after.entries) == (None, before.entries + 1)
    assert len(after.unfinished) == after.entries


@pytest.mark.parametrize("kept_bytes", [1, 5, 60, -2])
def test_torn_line_is_accounted_for_by_the_next_entry(path: Path, kept: AuditFile, kept_bytes: int) -> None:
    kept.record(INTENT)
    kept.record(INTENT)
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    end = len(whole) + kept_bytes if kept_bytes < 0 else first + kept_bytes
    kept.close()  # by a process that ended: what one has written itself it knows
    path.write_bytes(whole[:end])
    assert kept.record(INTENT) == "2"
    assert kept.record(INTENT) == "3"
    report = verify(path)
    assert (report.broken, report.torn, report.entries) == (None, (2,), 3)


def test_entry_without_its_line_break_counts(path: Path, kept: AuditFile) -> None:
    kept.record(INTENT)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert kept.record(INTENT) == "2"
    report = verify(path)
    assert (report.broken, report.torn, report.entries) == (None, (), 2)


def test_chain_is_continued_after_many_torn_lines(path: Path, kept: AuditFile) -> None:
    kept.record(INTENT)
    kept.record(replace(INTENT, message="a" * 200_000))
    kept.close()
    data = path.read_bytes()
    with path.open("wb") as file:
        file.write(data[:-300] + b"\n" + b'{"n":2,' + b"b" * 100_000)
    assert kept.record(INTENT) == "2"
    report = verify(path)
    assert (report.broken, report.torn, report.entries) == (None, (2, 3), 2)


def test_moved_file_is_left_alone_and_the_chain_continues(path: Path, kept: AuditFile) -> None:
    kept.record(INTENT)
    kept.record(INTENT)
    moved = path.rename(path.with_suffix(".old"))
    assert kept.record(INTENT) == "3"
    report = verify(path)
    assert (report.broken, report.entries, report.files) == (None, 3, ((moved.name, 2), (path.name, 1)))


@pytest.mark.skipif(os.name == "nt", reason="there is no limit to set")
def test_chain_continues_after_a_full_disk(path: Path, kept: AuditFile) -> None:
    kept.record(INTENT)
    resource: Any = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, limits[1]))
    try:
        for _ in range(3):
            with pytest.raises(Unwritten, match="File too large"):
                kept.record(INTENT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert kept.record(INTENT) == "2"
    report = verify(path)
    assert (report.broken, report.torn, report.entries) == (None, (2,), 2)


@pytest.mark.parametrize(("event", "certainty"), [(AuditEvent.INTENT, "Nothing was sent. "), (AuditEvent.OUTCOME, "")])
def test_unwritable_log_says_that_nothing_was_sent_unless_it_was(
    tmp_path: Path, event: AuditEvent, certainty: str
) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(Unwritten) as raised:
        AuditFile(tmp_path / "state" / "audit.jsonl", System()).record(replace(INTENT, event=event))
    assert str(raised.value) == (
        f"The audit log cannot be written (File exists). {certainty}Until then, no change is sent."
        " A person has to fix the state folder, or set another: FASTN_STATE_DIR."
    )


def test_value_that_is_not_json_raises(kept: AuditFile) -> None:
    with pytest.raises(Unwritten, match=r"^The audit log cannot be written \(ValueError\)\. Nothing was sent\."):
        kept.record(replace(INTENT, duration_ms=float("nan")))
    assert kept.record(INTENT) == "1"
