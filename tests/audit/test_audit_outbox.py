"""Entries of the audit log that are not exported yet: read in order, across rotation and restarts."""

import gzip
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from support.audit_entries import INTENT, NOW
from support.long_log import write_log

from fastn_mcp.audit import files
from fastn_mcp.audit import outbox as outbox_module
from fastn_mcp.audit.chain import End, link_of
from fastn_mcp.audit.files import Keeping, log_files
from fastn_mcp.audit.log import AuditEvent, AuditFile
from fastn_mcp.audit.outbox import NotExported, Outbox
from fastn_mcp.guard.recorder import Recorder
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.runtime import System

SMALL = Keeping(max_bytes=1)
"""Each entry has a file of its own."""


def recorded(path: Path, count: int, keeping: Keeping | None = None, at: datetime = NOW) -> None:
    """Append entries as a process of its own would."""
    log = AuditFile(path, System(now=lambda: at), keeping=keeping)
    for _ in range(count):
        log.record(INTENT)
    log.close()


def numbers(outbox: Outbox, most: int = 100) -> list[int]:
    return [entry.end.n for entry in outbox.unsent(most)]


def accept(outbox: Outbox, most: int = 100) -> None:
    with outbox.claimed() as is_ours:
        assert is_ours
        outbox.accepted(outbox.unsent(most)[-1])


def test_entries_wait_in_order_until_they_are_accepted(path: Path) -> None:
    outbox = Outbox(path)
    assert outbox.unsent(5) == []
    recorded(path, 5)
    lines = path.read_bytes().splitlines()
    assert [entry.line for entry in outbox.unsent(3)] == lines[:3]
    accept(outbox, 2)
    assert outbox.sent() == outbox.unsent(1)[0].before
    assert numbers(outbox) == numbers(Outbox(path)) == [3, 4, 5]
    assert numbers(outbox, 2) == [3, 4]
    accept(outbox)
    assert outbox.sent().n == 5
    assert numbers(outbox) == numbers(Outbox(path)) == []
    recorded(path, 1)
    assert numbers(outbox) == numbers(Outbox(path)) == [6]


def test_position_is_sought_without_reading_the_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_log(path, 600)
    outbox = Outbox(path)
    *_, last, late, latest = outbox.unsent(1000)
    outbox.accepted(last)
    read: list[bytes] = []

    def counted(line: bytes) -> tuple[End, End] | None:
        read.append(line)
        return link_of(line)

    for module in (files, outbox_module):
        monkeypatch.setattr(module, "link_of", counted)
    assert outbox.unsent(1000) == [late, latest]
    assert 2 < len(read) < 40


def test_rotation_while_the_log_is_read_loses_no_entry(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorded(path, 4)
    outbox = Outbox(path)
    accept(outbox, 1)

    def after_rotation(file: Path, number: int) -> Iterator[bytes]:
        monkeypatch.undo()
        path.rename(path.with_name("audit.000000004.jsonl"))
        recorded(path, 1)
        return files.lines_after(file, number)

    monkeypatch.setattr(outbox_module, "lines_after", after_rotation)
    assert numbers(outbox) == [2, 3, 4, 5]
    assert caplog.text == ""


def test_entries_are_read_across_rotation_and_compression(path: Path) -> None:
    recorded(path, 2)
    outbox = Outbox(path)
    accept(outbox, 1)
    recorded(path, 4, SMALL)
    assert len(log_files(path)) == 5
    assert numbers(outbox) == [2, 3, 4, 5, 6]
    assert numbers(outbox, 2) == [2, 3]
    accept(outbox, 3)
    rotated = path.with_name("audit.000000005.jsonl")
    with rotated.open("rb") as plain, gzip.open(f"{rotated}.gz", "wb") as packed:
        shutil.copyfileobj(plain, packed)
    shutil.copystat(rotated, f"{rotated}.gz")
    rotated.unlink()
    assert numbers(outbox) == [5, 6]
    accept(outbox)
    recorded(path, 1)
    path.rename(path.with_name("audit.before.jsonl"))
    path.touch()  # as logrotate does with `create`
    assert numbers(outbox) == numbers(Outbox(path)) == [7]
    accept(outbox)
    recorded(path, 1)
    accept(outbox)
    path.rename(path.with_name("audit.last.jsonl"))  # nothing was written since
    assert numbers(outbox) == []
    recorded(path, 1)
    assert numbers(outbox) == numbers(Outbox(path)) == [9]


def test_read_is_limited_to_the_requested_number(path: Path) -> None:
    recorded(path, 2)
    recorded(path, 4, Keeping(max_bytes=path.stat().st_size))
    assert len(log_files(path)) == 3
    assert numbers(Outbox(path), 3) == [1, 2, 3]
    assert numbers(Outbox(path), 4) == [1, 2, 3, 4]


def test_incomplete_line_is_not_read(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorded(path, 2)
    outbox = Outbox(path)
    first, second = path.read_bytes().splitlines(keepends=True)
    for cut in (second[:20], second[:-1]):
        path.write_bytes(first + cut)
        assert numbers(outbox) == numbers(Outbox(path)) == [1]
    accept(outbox)
    assert numbers(outbox) == []
    assert caplog.text == ""
    path.write_bytes(first + second)
    assert numbers(outbox) == [2]
    accept(outbox)
    with path.open("ab") as file:
        file.write(b'{"n":3,"ti')
    recorded(path, 1)
    assert numbers(outbox) == numbers(Outbox(path)) == [3]


def test_lost_position_sends_all_entries_again(path: Path) -> None:
    recorded(path, 3)
    outbox = Outbox(path)
    accept(outbox)
    stored = outbox.file.read_bytes()
    assert len(stored) == 110  # whatever the number: a write replaces all of it
    recorded(path, 8)
    accept(outbox)
    assert len(outbox.file.read_bytes()) == 110
    for damaged in (b"", stored[:30], b"x" + stored[1:], stored.replace(b'"n":3', b'"n":x')):
        outbox.file.write_bytes(damaged)
        assert numbers(outbox) == numbers(Outbox(path)) == [*range(1, 12)]
    outbox.file.unlink()
    assert outbox.sent() == End()
    assert numbers(outbox) == [*range(1, 12)]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_replaced_log_is_sent_from_its_beginning(path: Path, caplog: pytest.LogCaptureFixture, count: int) -> None:
    recorded(path, 3)
    outbox = Outbox(path)
    accept(outbox)
    path.unlink()
    recorded(path, count, at=NOW + timedelta(hours=1))
    assert numbers(outbox) == numbers(Outbox(path)) == [*range(1, count + 1)]
    assert f"{path} lacks entry 3, which was exported" in caplog.text
    assert numbers(outbox) == [*range(1, count + 1)]
    accept(outbox)
    assert numbers(outbox) == []


def test_truncated_log_is_sent_from_its_beginning(path: Path) -> None:
    recorded(path, 5)
    outbox = Outbox(path)
    accept(outbox)
    assert numbers(outbox) == []
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    recorded(path, 4, at=NOW + timedelta(hours=1))
    assert numbers(outbox) == [1, 2, 3, 4, 5, 6, 7]


def test_entries_deleted_before_sending_are_logged(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorded(path, 6, SMALL)
    outbox = Outbox(path)
    accept(outbox, 1)
    for n in (2, 3):
        path.with_name(f"audit.00000000{n}.jsonl").unlink()
    assert numbers(outbox) == [4, 5, 6]
    assert "entries 2 to 3 of" in caplog.text
    caplog.clear()
    assert numbers(Outbox(path.with_name("other.jsonl"))) == []
    path.with_name("audit.000000001.jsonl").unlink()
    outbox.file.unlink()
    assert numbers(outbox) == [4, 5, 6]
    assert caplog.text == ""


async def test_retention_keeps_unsent_entries(path: Path, ledger: Ledger, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    outbox = Outbox(path)
    keeping = Keeping(max_bytes=1, days=1)

    async def one_more() -> None:
        log = AuditFile(path, System(now=lambda: NOW), marks=ledger, keeping=keeping, outbox=outbox)
        log.record(INTENT)
        for rotated in log_files(path)[:-2]:
            os.utime(rotated, (0, 0))
        await log.anchor()
        log.close()

    for _ in range(5):
        await one_more()
    assert numbers(outbox) == [1, 2, 3, 4, 5]
    assert "audit.000000001.jsonl is kept, since some of its entries have not been exported" in caplog.text
    accept(outbox, 3)
    await one_more()
    names = [file.name for file in log_files(path)]
    assert names[0] == "audit.000000004.jsonl"
    assert numbers(outbox)[:3] == [4, 5, 6]


@pytest.mark.posix
def test_only_one_process_exports_at_a_time(path: Path) -> None:
    outbox, other = Outbox(path), Outbox(path)
    with outbox.claimed() as ours, other.claimed() as theirs:
        assert (ours, theirs) == (True, False)
    with other.claimed() as theirs:
        assert theirs
    with pytest.raises(RuntimeError), outbox.claimed():
        raise RuntimeError
    with other.claimed() as theirs:
        assert theirs


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_position_is_readable_by_its_owner_only(path: Path) -> None:
    outbox = Outbox(path)
    with outbox.claimed():
        assert outbox.file.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_change_is_refused_while_an_entry_waits_for_too_long(path: Path) -> None:
    strict, lenient = Outbox(path, 60), Outbox(path)
    strict.check(NOW + timedelta(days=1))
    recorded(path, 2)
    strict.check(NOW + timedelta(seconds=60))
    with pytest.raises(NotExported, match="not been accepted by the collector for 61 seconds") as refused:
        strict.check(NOW + timedelta(seconds=61))
    assert refused.value.outcome == "refused"
    assert "Nothing was sent." in str(refused.value)
    lenient.check(NOW + timedelta(days=1))
    accept(strict, 1)
    with pytest.raises(NotExported):
        strict.check(NOW + timedelta(seconds=61))
    accept(strict)
    strict.check(NOW + timedelta(days=1))


def test_change_is_refused_if_the_position_or_a_time_cannot_be_read(path: Path) -> None:
    recorded(path, 1)
    outbox = Outbox(path, 60)
    outbox.file.mkdir()
    with pytest.raises(NotExported, match="cannot be read"):
        outbox.check(NOW)
    Outbox(path).check(NOW)
    outbox.file.rmdir()
    path.write_bytes(path.read_bytes().replace(b'"time":"2026-', b'"time":"then-'))
    with pytest.raises(NotExported):
        outbox.check(NOW)


def test_log_is_on_disk_before_it_is_sent(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[os.stat_result] = []

    def sync(file: int) -> None:
        synced.append(os.fstat(file))

    monkeypatch.setattr(outbox_module, "sync", sync)
    Outbox(path).sync()
    recorded(path, 1)
    Outbox(path).sync()
    assert [each.st_ino for each in synced] == [path.stat().st_ino]


async def test_late_export_refuses_a_call_before_it_is_sent_and_not_after(path: Path) -> None:
    recorded(path, 1)
    late = System(now=lambda: NOW + timedelta(seconds=61))
    log = AuditFile(path, late, outbox=Outbox(path, 60))
    recorder = Recorder(log, "default", late)
    with pytest.raises(NotExported):
        await recorder.anchor()
    log.record(replace(INTENT, event=AuditEvent.OUTCOME))
    await recorder.settle()
    log.close()
