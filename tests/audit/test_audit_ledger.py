"""The audit log over time: rotated, deleted, emptied, and what the ledger knows of it."""

# ruff: noqa: ASYNC240 - files of a test, in a folder of its own

import errno
import gzip
import logging
import os
import secrets
from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.audit_entries import INTENT, NOW, entries

from fastn_mcp.audit import files
from fastn_mcp.audit import log as audit_log
from fastn_mcp.audit.chain import FIRST_PREV, BrokenLine, End, sealed
from fastn_mcp.audit.files import Keeping, log_files, read_end, verify
from fastn_mcp.audit.log import NEVER_SEEN, AuditEvent, AuditFile, Unwritten, deleted_name
from fastn_mcp.audit.reader import AuditLog
from fastn_mcp.errors import Failed, SettingsError
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.runtime import System

OUTCOME = replace(INTENT, event=AuditEvent.OUTCOME)

Opened = Callable[..., AuditFile]


@pytest.fixture
def opened(path: Path, ledger: Ledger) -> Generator[Opened]:
    """The log as a new process opens it."""
    logs: list[AuditFile] = []

    def opened(keeping: Keeping | None = None, system: System | None = None) -> AuditFile:
        logs.append(AuditFile(path, system or System(now=lambda: NOW), marks=ledger, keeping=keeping))
        return logs[-1]

    yield opened
    for log in logs:
        log.close()


async def written(log: AuditFile, count: int) -> None:
    for _ in range(count):
        log.record(INTENT)
        await log.anchor()


async def rotate(path: Path, opened: Opened, count: int) -> None:
    """Write so many rotated files of one entry each, and the log with another."""
    opened().record(INTENT)
    await written(opened(Keeping(max_bytes=path.stat().st_size)), count)


def heads(path: Path) -> list[str]:
    return [str(entry["hash"]) for entry in entries(path)]


def aged(file: Path, seconds: float) -> None:
    """Set the time of a file to so much after NOW."""
    os.utime(file, (NOW.timestamp() + seconds, NOW.timestamp() + seconds))


async def test_ledger_has_the_newest_entry_before_and_after_a_call(path: Path, ledger: Ledger, opened: Opened) -> None:
    log = opened()
    await log.settle()
    assert await ledger.audit_mark("audit.jsonl") is None
    log.record(INTENT)
    await log.anchor()
    assert await ledger.audit_mark("audit.jsonl") == (1, heads(path)[0])
    log.record(OUTCOME)
    await log.settle()
    assert await ledger.audit_mark("audit.jsonl") == (2, heads(path)[1])
    alone = AuditFile(path.with_name("other.jsonl"), System())
    alone.record(INTENT)
    await alone.anchor()
    alone.close()
    assert await ledger.audit_mark("other.jsonl") is None


async def test_log_that_the_ledger_has_never_seen_is_reported_once(
    path: Path, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    first = opened()
    await first.anchor()
    await written(first, 3)
    opened().record(INTENT)
    assert caplog.messages == []
    log = AuditFile(path, System(now=lambda: NOW), marks=Ledger(SqliteStore(":memory:")))
    for _ in range(2):
        await log.anchor()
        log.record(INTENT)
    log.close()
    assert caplog.messages == [f"the audit log {path}: {NEVER_SEEN}"]


async def test_log_whose_first_process_was_killed_at_a_question_is_known(
    path: Path, ledger: Ledger, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    first = opened()
    await first.anchor()
    first.record(replace(INTENT, event=AuditEvent.ASKED))
    assert await ledger.audit_mark("audit.jsonl") == (0, FIRST_PREV)
    assert verify(path, anchor=End()).broken is None
    await opened().anchor()
    assert caplog.messages == []


async def test_ledger_gets_each_entry_once(
    path: Path, ledger: Ledger, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, str]] = []

    async def mark_audit(name: str, n: int, head: str) -> None:
        told.append((name, n, head))

    monkeypatch.setattr(ledger, "mark_audit", mark_audit)
    log = opened()
    await log.anchor()
    log.record(OUTCOME)
    for _ in range(2):
        await log.settle()
        await log.anchor()
    assert told == [("audit.jsonl", 0, FIRST_PREV), ("audit.jsonl", 1, heads(path)[0])]

    async def audit_mark(name: str) -> tuple[int, str]:
        return told[-1][1:] if name == "audit.jsonl" else (0, "")

    monkeypatch.setattr(ledger, "audit_mark", audit_mark)
    await opened().anchor()
    assert len(told) == 2
    log.record(INTENT)
    await log.settle()
    assert told[2:] == [("audit.jsonl", 2, heads(path)[1])]


async def test_closed_log_reads_its_end_from_the_ledger_again(path: Path, opened: Opened) -> None:
    log = opened()
    await written(log, 3)
    log.close()
    path.unlink()
    await log.anchor()
    assert log.record(INTENT) == "5"


async def test_entry_missing_from_the_ledger_is_logged_and_sent_later(
    path: Path,
    ledger: Ledger,
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def lost(*_: object) -> None:
        raise Failed("The ledger is lost.")

    log = opened()
    await written(log, 1)
    log.record(OUTCOME)
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "mark_audit", lost)
        with caplog.at_level(logging.ERROR):
            await log.settle()
        assert "the ledger does not know the newest entries of the audit log: The ledger is lost." in caplog.text
        with pytest.raises(Failed):
            await log.anchor()
    await log.settle()
    assert await ledger.audit_mark("audit.jsonl") == (2, heads(path)[1])


async def test_entry_is_on_disk_before_the_ledger_knows_of_it(
    ledger: Ledger, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def noted(_: int) -> None:
        synced.append("synced")

    def full(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    log = opened()
    monkeypatch.setattr(audit_log, "sync", noted)
    log.record(OUTCOME)
    assert synced == []
    log.record(INTENT)
    assert synced == ["synced"]
    monkeypatch.setattr(audit_log, "sync", full)
    with pytest.raises(Unwritten, match=r"The audit log cannot be written to disk \(Input/output error\)\."):
        await log.anchor()
    assert await ledger.audit_mark("audit.jsonl") is None


@pytest.mark.parametrize("left", [None, 0, 3])
async def test_log_that_lost_entries_continues_its_numbers(
    path: Path, ledger: Ledger, opened: Opened, caplog: pytest.LogCaptureFixture, left: int | None
) -> None:
    await written(opened(), 5)
    head = heads(path)[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.unlink()
    if left is not None:
        path.write_bytes(b"".join(lines[:left]))
    anchor = End(5, head)
    assert await ledger.audit_mark("audit.jsonl") == (5, head)
    gone = f"entries {(left or 0) + 1} to 5"
    cut = BrokenLine((left or 0) + 1, f"{gone} are missing at the end: the ledger has entry 5, the log does not")
    assert verify(path, anchor=anchor).broken == cut
    log = opened()
    await log.anchor()
    assert log.record(INTENT) == "7"
    *_, note, entry = entries(path)
    about_itself = {"event": "log_shortened", "principal": "fastn-mcp", "account": "", "tool": "audit"}
    assert (note["n"], {name: note.get(name) for name in about_itself}) == (6, about_itself)
    assert note["message"] == (
        f"The log ended with entry 5 (hash {head}); {gone} are not in this folder:"
        " the log was emptied, shortened or moved elsewhere."
    )
    assert caplog.messages == [f"the audit log {path}: {note['message']}"]
    assert (entry["n"], entry["event"]) == (7, "intent")
    assert verify(path, anchor=anchor).broken is not None


async def test_log_that_is_moved_or_compressed_is_one_chain(path: Path, opened: Opened) -> None:
    await written(opened(), 3)
    path.with_name("audit.jsonl.2.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    path.with_name("audit-notes.jsonl").write_text("of somebody else\n")
    log = opened()
    await log.anchor()
    assert log.record(INTENT) == "4"
    path.rename(path.with_name("audit.jsonl.1"))
    path.touch(0o600)
    assert log.record(INTENT) == "5"
    report = verify(path)
    assert (report.broken, report.entries, report.shortened) == (None, 5, ())
    assert report.files == (("audit.jsonl.2.gz", 3), ("audit.jsonl.1", 1), ("audit.jsonl", 1))
    path.unlink()
    assert [file.name for file in log_files(path)] == ["audit.jsonl.2.gz", "audit.jsonl.1"]


async def test_files_are_ordered_by_their_entries(path: Path, opened: Opened) -> None:
    opened().record(INTENT)
    size = path.stat().st_size
    await written(opened(Keeping(max_bytes=size)), 2)
    names = ["audit.000000001.jsonl", "audit.000000002.jsonl", "audit.jsonl"]
    aged(path.with_name(names[0]), 10**9)
    assert [file.name for file in log_files(path)] == names
    foreign, old = path.with_name("audit-notes.jsonl"), path.rename(path.with_name("audit.old"))
    foreign.write_text("of somebody else\n")
    for newer, file in enumerate((*map(path.with_name, names[:2]), old, foreign)):
        aged(file, newer)
    assert [file.name for file in log_files(path)] == [*names[:2], "audit.old"]


async def test_forged_file_is_read_only_if_the_original_is_missing(path: Path, opened: Opened) -> None:
    await rotate(path, opened, 1)
    right, forged = path.with_name("audit.000000001.jsonl"), path.with_name("audit-0.jsonl")
    forged.write_bytes(sealed(End(), {"event": "intent"})[0] + b"\n")
    assert verify(path).broken is None
    assert log_files(path) == [right, path]
    right.unlink()
    replaced = BrokenLine(2, "it does not follow the line before it: one of the two was replaced")
    assert verify(path).broken == replaced
    assert log_files(path) == [forged, path]


@pytest.mark.parametrize(("seconds", "following"), [(1, "4"), (0, "6"), (-1, "6")])
async def test_empty_log_goes_on_after_the_newest_file(
    path: Path, opened: Opened, seconds: float, following: str
) -> None:
    for name, count in (("audit-a.jsonl", 3), ("audit-b.jsonl", 5)):
        log = opened()
        for _ in range(count):
            log.record(INTENT)
        path.rename(path.with_name(f"of another log, {name}"))
    for name, age in (("audit-a.jsonl", seconds), ("audit-b.jsonl", 0)):
        aged(path.with_name(f"of another log, {name}").rename(path.with_name(name)), age)
    assert opened().record(INTENT) == following


async def test_file_of_another_program_beside_an_empty_log_is_not_part_of_it(path: Path, opened: Opened) -> None:
    """The first entry accounts for nothing that is not of the log."""
    path.parent.mkdir()
    path.with_name("audit-notes.jsonl").write_text("of somebody else\n")
    opened().record(INTENT)
    report = verify(path)
    assert (report.broken, report.torn, report.files) == (None, (), (("audit.jsonl", 1),))
    assert "torn" not in next(entries(path))


async def test_compressed_file_of_one_entry_is_part_of_the_chain(path: Path, opened: Opened) -> None:
    opened().record(INTENT)
    path.with_name("audit.jsonl.1.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    assert opened().record(INTENT) == "2"
    assert verify(path).files == (("audit.jsonl.1.gz", 1), ("audit.jsonl", 1))


async def test_damaged_compressed_file_is_left_out(path: Path, opened: Opened) -> None:
    """It must neither refuse changes nor keep people from reading the rest."""
    for _ in range(3):
        opened().record(replace(INTENT, message=secrets.token_hex(300)))
    packed = gzip.compress(path.read_bytes())
    path.with_name("audit.1.gz").write_bytes(packed[:20] + b"\xff" * 40 + packed[60:])
    path.unlink()
    opened().record(INTENT)
    assert log_files(path) == [path]
    with pytest.raises(SettingsError, match="cannot be read"):
        list(AuditLog(path).lines([path.with_name("audit.1.gz")]))


@pytest.mark.parametrize(("longest", "is_read"), [(1024, False), (1025, True)])
async def test_compressed_file_is_read_up_to_a_maximum(
    path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch, longest: int, is_read: bool
) -> None:
    opened().record(replace(INTENT, message="a" * 500))
    opened().record(INTENT)
    data = path.read_bytes()
    assert 2 * 512 < len(data) <= 3 * 512
    compressed = path.with_name("audit.1.gz")
    compressed.write_bytes(gzip.compress(data))
    path.unlink()
    opened().record(INTENT)
    monkeypatch.setattr(files, "_BLOCK", 512)
    monkeypatch.setattr(files, "_MAX_FILE", longest)
    assert log_files(path) == [*([compressed] if is_read else []), path]


async def test_end_is_read_whole_despite_partial_reads(
    path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        opened().record(INTENT)
    lines, read = path.read_bytes().splitlines(keepends=True), os.read

    def read_some(file: int, size: int) -> bytes:
        return read(file, min(size, 100))

    monkeypatch.setattr(os, "read", read_some)
    monkeypatch.setattr(files, "_BLOCK", len(lines[2]) + 10)
    with path.open("rb") as file:
        end = read_end(file.fileno(), sum(map(len, lines[:3])))
    assert (end.n, end.head, end.torn) == (3, heads(path)[2], b"")


async def test_argument_like_an_entry_is_not_an_entry(
    path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened().record(replace(INTENT, arguments={"deep": {"n": 7, "a": "b"}}))
    line = path.read_bytes()
    monkeypatch.setattr(files, "_BLOCK", len(line) - line.index(b'{"n":7,'))
    assert opened().record(INTENT) == "2"
    assert verify(path).broken is None


@pytest.mark.posix
async def test_links_are_not_read(path: Path, opened: Opened) -> None:
    await rotate(path, opened, 1)
    rotated = path.with_name("audit.000000001.jsonl")
    path.with_name("audit-link.jsonl").symlink_to(rotated)
    assert log_files(path) == [rotated, path]
    second = path.read_bytes()
    path.write_bytes(second + rotated.read_bytes())
    path.with_name("audit-link.jsonl").unlink()
    rotated.unlink()
    assert log_files(path) == [path]


async def test_line_that_is_not_an_entry_is_skipped_by_a_reader(path: Path, opened: Opened) -> None:
    opened().record(INTENT)
    with path.open("a") as file:
        file.write('{"n":2,"tool":"delete_customer"}\n["event"]\n"event"\n2\nnull\n{"event":\n')
    assert [entry["n"] for entry in entries(path)] == [1]


async def test_torn_line_is_accounted_for_before_the_log_is_rotated(path: Path, opened: Opened) -> None:
    await written(opened(), 2)
    os.truncate(path, path.stat().st_size - 10)
    opened(Keeping(max_bytes=1)).record(INTENT)
    report = verify(path)
    assert (report.broken, report.torn, report.files) == (None, (2,), (("audit.jsonl", 3),))


async def test_torn_line_of_a_log_that_lost_entries_is_accounted_for(path: Path, opened: Opened) -> None:
    await written(opened(), 2)
    os.truncate(path, 10)
    log = opened()
    await log.anchor()
    assert log.record(INTENT) == "4"
    assert verify(path).broken == BrokenLine(2, "it is entry 3, and entries 1 to 2 should stand before it")


@pytest.mark.parametrize(("more", "names"), [(0, ["audit.000000001.jsonl", "audit.jsonl"]), (1, ["audit.jsonl"])])
async def test_log_is_rotated_from_its_size_on(path: Path, opened: Opened, more: int, names: list[str]) -> None:
    opened().record(INTENT)
    size = path.stat().st_size
    opened(Keeping(max_bytes=size + more)).record(INTENT)
    assert [name for name, _ in verify(path).files] == names
    assert verify(path).entries == 2


@pytest.mark.parametrize(("seconds", "files"), [(86_399, 1), (86_400, 2)])
async def test_log_is_rotated_when_it_is_a_day_old(path: Path, opened: Opened, seconds: int, files: int) -> None:
    opened().record(INTENT)
    later = System(now=lambda: NOW + timedelta(seconds=seconds))
    opened(Keeping(days=3), later).record(INTENT)
    assert len(verify(path).files) == files


async def test_expired_files_are_deleted_once_the_ledger_knows(path: Path, ledger: Ledger, opened: Opened) -> None:
    opened().record(INTENT)
    log = opened(Keeping(max_bytes=path.stat().st_size, days=1))
    await written(log, 1)
    first = path.with_name("audit.000000001.jsonl")
    assert first.exists()
    last = heads(path)[0]
    aged(first, -86_401)
    await written(log, 1)
    assert not first.exists()
    assert await ledger.audit_mark(deleted_name("audit.jsonl")) == (1, last)
    notes = [entry for entry in entries(path) if entry["event"] == "log_deleted"]
    assert [note["message"] for note in notes] == [
        "Entries up to 1 were deleted by the retention setting: audit.000000001.jsonl."
    ]
    report = verify(path, deleted=End(1, last))
    assert (report.broken, report.deleted) == (None, 1)
    assert verify(path).broken == BrokenLine(1, "it is entry 2, and entry 1 should stand before it")
    assert verify(path, report.head, deleted=End(1, last)).noted == report.entries


async def test_files_that_the_ledger_knows_as_deleted_and_that_are_still_there_are_verified(
    path: Path, opened: Opened
) -> None:
    await written(opened(), 2)
    report = verify(path, deleted=End(1, heads(path)[0]))
    assert (report.broken, report.entries, report.deleted) == (None, 2, 0)


async def test_several_files_expire_at_once(path: Path, ledger: Ledger, opened: Opened) -> None:
    await rotate(path, opened, 3)
    names = [f"audit.{n:09d}.jsonl" for n in (1, 2, 3)]
    assert [file.name for file in log_files(path)] == [*names, "audit.jsonl"]
    for name in names:
        aged(path.with_name(name), -86_401)
    last = heads(path)[2]
    await opened(Keeping(days=1)).anchor()
    assert [file.name for file in log_files(path)] == ["audit.jsonl"]
    assert await ledger.audit_mark(deleted_name("audit.jsonl")) == (3, last)
    *_, note = entries(path)
    assert note["message"] == f"Entries up to 3 were deleted by the retention setting: {', '.join(names)}."


async def test_undeletable_file_is_not_reported_as_deleted(
    path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await rotate(path, opened, 3)
    await opened().anchor()
    for file in log_files(path)[:-1]:
        aged(file, -86_401)
    caplog.clear()
    unlink = Path.unlink

    def unlink_some(file: Path) -> None:
        if file.name == "audit.000000001.jsonl":
            raise PermissionError(errno.EACCES, "Permission denied")
        unlink(file)
        if file.name == "audit.000000002.jsonl":
            raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(Path, "unlink", unlink_some)
    with caplog.at_level(logging.WARNING):
        await opened(Keeping(days=1)).anchor()
    assert caplog.messages == [f"{path.with_name('audit.000000001.jsonl')} cannot be deleted: Permission denied"]
    *_, note = entries(path)
    assert note["message"] == "Entries up to 3 were deleted by the retention setting: audit.000000003.jsonl."


async def test_expired_file_that_was_edited_is_not_deleted(
    path: Path, ledger: Ledger, opened: Opened, caplog: pytest.LogCaptureFixture
) -> None:
    opened().record(INTENT)
    size = path.stat().st_size
    opened(Keeping(max_bytes=size)).record(INTENT)
    first = path.with_name("audit.000000001.jsonl")
    first.write_bytes(first.read_bytes().replace(b"cus_1", b"cus_2"))
    aged(first, -86_401)
    with caplog.at_level(logging.ERROR):
        await opened(Keeping(days=1)).anchor()
    assert first.exists()
    assert "was changed after it was written; it and older files are not deleted" in caplog.text
    assert await ledger.audit_mark(deleted_name("audit.jsonl")) is None


@pytest.mark.parametrize(
    ("keeping", "left"),
    [
        (Keeping(), 3),
        (Keeping(days=1), 2),
        (Keeping(days=9), 3),
        (Keeping(days=0), 1),
    ],
)
async def test_file_is_kept_for_whole_days(tmp_path: Path, keeping: Keeping, left: int) -> None:
    rotated = [tmp_path / f"audit.{n}.jsonl" for n in range(3)]
    for file, age in zip(rotated, (86_401, 86_400, 0), strict=True):
        file.touch()
        os.utime(file, (NOW.timestamp(), NOW.timestamp() - age))
    assert keeping.expired(rotated, NOW.timestamp()) == rotated[: 3 - left]


@pytest.mark.posix
async def test_log_that_another_process_keeps_locked_is_not_written(
    path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl: Any = pytest.importorskip("fcntl")
    monkeypatch.setattr(files, "_MAX_LOCK_ATTEMPTS", 3)
    opened().record(INTENT)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Unwritten, match="another process has locked it"):
            opened().record(INTENT)
    assert opened().record(INTENT) == "2"
