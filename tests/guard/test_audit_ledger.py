"""The audit log over time: rotated, deleted, emptied, and what the ledger knows of it. Ours."""

# ruff: noqa: ASYNC240 - files of a test, in a folder of its own

import errno
import fcntl
import gzip
import logging
import os
import shutil
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from fastn_mcp.build.ledger import ledger_at
from fastn_mcp.errors import Failed
from fastn_mcp.guard.audit import files
from fastn_mcp.guard.audit import log as audit_log
from fastn_mcp.guard.audit.chain import BrokenLine, End
from fastn_mcp.guard.audit.files import Keeping, entries, log_files, verify
from fastn_mcp.guard.audit.log import AuditEvent, AuditFile, Unwritten, about, deleted_name
from fastn_mcp.guard.ledger.ledger import Ledger
from fastn_mcp.runtime import System
from fastn_mcp.tools.customers import DeleteCustomer

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 11, 25, 1, 40, 35, tzinfo=UTC)
INTENT = about(AuditEvent.INTENT, DeleteCustomer(customer_id="cus_1"), "local", "default at live.fastn.ai")
OUTCOME = about(AuditEvent.OUTCOME, DeleteCustomer(customer_id="cus_1"), "local", "default at live.fastn.ai")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def ledger(tmp_path: Path) -> Generator[Ledger]:
    ledger = ledger_at(None, tmp_path / "ledger", System())
    yield ledger
    anyio.run(ledger.aclose)


@pytest.fixture
def opened(path: Path, ledger: Ledger) -> Generator[Callable[..., AuditFile]]:
    """The log as a new process opens it."""
    logs: list[AuditFile] = []

    def opened(keeping: Keeping | None = None, system: System | None = None) -> AuditFile:
        logs.append(AuditFile(path, system or System(now=lambda: NOW), ledger=ledger, keeping=keeping))
        return logs[-1]

    yield opened
    for log in logs:
        log.close()


async def written(log: AuditFile, count: int) -> None:
    for _ in range(count):
        log.record(INTENT)
        await log.anchor()


def heads(path: Path) -> list[str]:
    return [str(entry["hash"]) for entry in entries(path)]


async def test_ledger_knows_the_newest_entry_once_it_was_told(
    path: Path, ledger: Ledger, opened: Callable[..., AuditFile]
) -> None:
    """Ours: told before a call is sent, and after it where there is something new."""
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


async def test_entry_that_the_ledger_cannot_be_told_of_is_logged_and_told_of_later(
    path: Path,
    ledger: Ledger,
    opened: Callable[..., AuditFile],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Ours: a call that was made stays made; before one is sent the ledger has to know."""

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
    ledger: Ledger, opened: Callable[..., AuditFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours: after a loss of power the ledger must not know of entries that the log has lost."""
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
async def test_log_that_lost_entries_goes_on_with_its_number_and_says_what_is_missing(
    path: Path, ledger: Ledger, opened: Callable[..., AuditFile], left: int | None
) -> None:
    """Ours: whoever can empty the log can neither stop the server nor hide it."""
    await written(opened(), 5)
    head = heads(path)[-1]
    lines = path.read_bytes().splitlines(keepends=True)
    path.unlink()
    if left is not None:
        path.write_bytes(b"".join(lines[:left]))
    anchor = End(5, head)
    assert await ledger.audit_mark("audit.jsonl") == (5, head)
    gone = f"entries {(left or 0) + 1} to 5"
    cut = BrokenLine((left or 0) + 1, f"the ledger knows entry 5: {gone} were cut off or removed")
    assert verify(path, anchor=anchor).broken == cut
    log = opened()
    await log.anchor()
    assert log.record(INTENT) == "7"
    *_, note, entry = entries(path)
    assert (note["n"], note["event"], note["principal"], note["tool"]) == (6, "log_shortened", "fastn-mcp", "audit")
    assert note["message"] == (
        f"The log ended with entry 5 (hash {head}); {gone} are not in this folder:"
        " the log was emptied, shortened or moved elsewhere."
    )
    assert (entry["n"], entry["event"]) == (7, "intent")
    assert verify(path, anchor=anchor).broken is not None


async def test_log_that_is_copied_and_cut_in_place_says_so(path: Path, opened: Callable[..., AuditFile]) -> None:
    """Ours: entries written between the copy and the cut would be lost without a trace."""
    log = opened()
    await written(log, 2)
    head = heads(path)[-1]
    shutil.copyfile(path, path.with_name("audit.jsonl.1"))
    os.truncate(path, 0)
    assert log.record(INTENT) == "4"
    note = list(entries(path))[2]
    assert (note["n"], note["event"]) == (3, "log_shortened")
    assert note["message"] == (
        f"The log ended with entry 2 (hash {head}) and was emptied in place, as copytruncate of logrotate does."
        " A copy is beside it."
    )
    assert verify(path).shortened == (3,)


async def test_log_that_is_moved_or_compressed_is_one_chain(path: Path, opened: Callable[..., AuditFile]) -> None:
    """Ours: files belong together by their entries, whatever they are called."""
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


async def test_torn_line_is_accounted_for_before_the_log_is_rotated(
    path: Path, opened: Callable[..., AuditFile]
) -> None:
    """Ours: no file ends with what no entry accounts for."""
    await written(opened(), 2)
    os.truncate(path, path.stat().st_size - 10)
    opened(Keeping(max_bytes=1)).record(INTENT)
    report = verify(path)
    assert (report.broken, report.torn, report.files) == (None, (2,), (("audit.jsonl", 3),))


async def test_torn_line_of_a_log_that_lost_entries_is_accounted_for(
    path: Path, opened: Callable[..., AuditFile]
) -> None:
    """Ours."""
    await written(opened(), 2)
    os.truncate(path, 10)
    log = opened()
    await log.anchor()
    assert log.record(INTENT) == "4"
    assert verify(path).broken == BrokenLine(2, "it is entry 3, and entries 1 to 2 should stand before it")


@pytest.mark.parametrize(("more", "names"), [(0, ["audit.000000001.jsonl", "audit.jsonl"]), (1, ["audit.jsonl"])])
async def test_log_is_rotated_from_its_size_on(
    path: Path, opened: Callable[..., AuditFile], more: int, names: list[str]
) -> None:
    opened().record(INTENT)
    size = path.stat().st_size
    opened(Keeping(max_bytes=size + more)).record(INTENT)
    assert [name for name, _ in verify(path).files] == names
    assert verify(path).entries == 2


@pytest.mark.parametrize(("seconds", "files"), [(86_399, 1), (86_400, 2)])
async def test_log_is_rotated_when_it_is_a_day_old(
    path: Path, opened: Callable[..., AuditFile], seconds: int, files: int
) -> None:
    """Ours: by the time of its first entry, which another process wrote."""
    opened().record(INTENT)
    later = System(now=lambda: NOW + timedelta(seconds=seconds))
    opened(Keeping(days=3), later).record(INTENT)
    assert len(verify(path).files) == files


async def test_expired_files_are_deleted_once_the_ledger_knows(
    path: Path, ledger: Ledger, opened: Callable[..., AuditFile]
) -> None:
    """Ours: what is left can be verified at any moment, and the log says what is gone."""
    opened().record(INTENT)
    keeping = Keeping(max_bytes=path.stat().st_size, files=1)
    log = opened(keeping)
    await written(log, 1)
    first = path.with_name("audit.000000001.jsonl")
    assert first.exists()
    last = heads(path)[0]
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


async def test_expired_file_that_was_edited_is_not_deleted(
    path: Path, ledger: Ledger, opened: Callable[..., AuditFile], caplog: pytest.LogCaptureFixture
) -> None:
    """Ours: retention is no way to remove the trace of an attack."""
    opened().record(INTENT)
    size = path.stat().st_size
    opened(Keeping(max_bytes=size)).record(INTENT)
    first = path.with_name("audit.000000001.jsonl")
    first.write_bytes(first.read_bytes().replace(b"cus_1", b"cus_2"))
    with caplog.at_level(logging.ERROR):
        await opened(Keeping(files=0)).anchor()
    assert first.exists()
    assert "is not as it was written; it and what is older are not deleted" in caplog.text
    assert await ledger.audit_mark(deleted_name("audit.jsonl")) is None


@pytest.mark.parametrize(
    ("keeping", "left"),
    [
        (Keeping(), 3),
        (Keeping(files=0), 0),
        (Keeping(files=2), 2),
        (Keeping(files=9), 3),
        (Keeping(days=1), 2),
        (Keeping(days=1, files=1), 1),
        (Keeping(days=0, files=3), 1),
    ],
)
async def test_file_is_kept_for_whole_days_and_while_an_older_one_is(
    tmp_path: Path, keeping: Keeping, left: int
) -> None:
    """Ours: a file that is exactly as old as allowed stays."""
    rotated = [tmp_path / f"audit.{n}.jsonl" for n in range(3)]
    for file, age in zip(rotated, (86_401, 86_400, 0), strict=True):
        file.touch()
        os.utime(file, (NOW.timestamp(), NOW.timestamp() - age))
    assert keeping.expired(rotated, NOW.timestamp()) == rotated[: 3 - left]


async def test_log_that_another_process_keeps_locked_is_not_written(
    path: Path, opened: Callable[..., AuditFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ours: whoever cannot record does not send."""
    monkeypatch.setattr(files, "_PATIENCE", 3)
    opened().record(INTENT)
    with path.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Unwritten, match="another process keeps it locked"):
            opened().record(INTENT)
    assert opened().record(INTENT) == "2"
