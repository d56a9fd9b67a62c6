"""Attacks on the files of the audit log: emptied, truncated, removed or rewritten.

The attacker can write the file but not the ledger. `fastn-mcp audit verify` detects each attack.
"""

import os
import shutil
from collections.abc import Callable, Generator
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner, Result
from support.audit_entries import entries

from fastn_mcp.audit.files import Keeping
from fastn_mcp.audit.log import AuditEvent, AuditFile, about
from fastn_mcp.build.stores import audit_at, ledger_at
from fastn_mcp.cli.program import cli
from fastn_mcp.errors import FastnError
from fastn_mcp.policy.asker import Asker
from fastn_mcp.runtime import System
from fastn_mcp.tools.customers import DeleteCustomer

INTENT = about(AuditEvent.INTENT, DeleteCustomer(customer_id="cus_1"), Asker(), "default at live.fastn.ai")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def record_entries(path: Path, count: int, keeping: Keeping | None = None) -> None:
    """Record `count` entries, as a process that then ends."""

    async def write() -> None:
        ledger = ledger_at(None, path.parent, System())
        log = audit_at(ledger, None, path.parent, System(), keeping)
        await log.anchor()
        for _ in range(count):
            log.record(INTENT)
            await log.anchor()
        log.close()
        await ledger.aclose()

    anyio.run(write)


@pytest.fixture
def serving(path: Path) -> Generator[AuditFile]:
    ledger = ledger_at(None, path.parent, System())
    log = audit_at(ledger, None, path.parent, System())
    yield log
    log.close()
    anyio.run(ledger.aclose)


def run(path: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["audit", "--file", str(path), *arguments])


def verify(path: Path) -> Result:
    return run(path, "verify")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))


def rewrite(path: Path) -> None:
    path.unlink()
    forged = AuditFile(path, System())
    for _ in range(9):
        forged.record(INTENT)
    forged.close()


@pytest.mark.parametrize(
    ("attack", "finding"),
    [
        (empty, "entries 1 to 5 are missing at the end: the ledger has entry 5, the log does not"),
        (remove, "entries 1 to 5 are missing at the end: the ledger has entry 5, the log does not"),
        (truncate, "entries 4 to 5 are missing at the end: the ledger has entry 5, the log does not"),
        (rewrite, "it is not the entry that the ledger has under this number: the log was rewritten"),
    ],
)
def test_log_without_its_newest_entries_is_broken(path: Path, attack: Callable[[Path], object], finding: str) -> None:
    """The ledger knows the newest entry, so an empty log is not an intact one."""
    record_entries(path, 5)
    before = verify(path)
    assert (before.exit_code, "Entry 5 matches the ledger." in before.stdout) == (0, True)
    attack(path)
    after = verify(path)
    assert (after.exit_code, finding in after.stdout) == (1, True), after.stdout


def test_copytruncate_under_a_running_server_is_recorded_and_reported(path: Path, serving: AuditFile) -> None:
    """A copy is not a move. Entries between the copy and the truncation would be lost without a trace."""
    serving.record(INTENT)
    serving.record(INTENT)
    shutil.copyfile(path, path.with_name("audit.jsonl.1"))
    os.truncate(path, 0)
    assert serving.record(INTENT) == "4"
    anyio.run(serving.anchor)
    result = verify(path)
    assert result.exit_code == 1
    assert result.stdout.startswith("Broken: the log was emptied or shortened before entry 3.\n")
    shown = " ".join(run(path, "show", "3").stdout.split())
    assert "The log ended with entry 2 (hash " in shown
    assert "and was emptied in place, as logrotate's copytruncate does. A copy is beside it." in shown


@pytest.mark.parametrize("number", [0, 1, 2])
def test_removed_rotated_file_is_detected(path: Path, number: int) -> None:
    """Only files deleted by the retention setting may be missing."""
    record_entries(path, 11, Keeping(max_bytes=1_000))
    files = sorted(path.parent.glob("audit.0*.jsonl"))
    assert len(files) > 2
    assert (verify(path)).exit_code == 0
    files[number].unlink()
    result = verify(path)
    assert (result.exit_code, "should stand before it" in result.stdout) == (1, True), result.stdout


def test_log_is_verifiable_after_deletion_by_retention(path: Path) -> None:
    record_entries(path, 12, Keeping(max_bytes=1_000))
    *expired, _, _ = sorted(path.parent.glob("audit.0*.jsonl"))
    assert expired
    for file in expired:
        os.utime(file, (0, 0))
    record_entries(path, 1, Keeping(days=1))
    left = sorted(path.parent.glob("audit.0*.jsonl"))
    assert len(left) == 2
    result = verify(path)
    assert result.exit_code == 0, result.stdout
    assert "were deleted by the retention setting, as the ledger knows." in result.stdout
    assert "log_deleted" in [entry["event"] for entry in entries(path)]
    left[0].unlink()
    assert (verify(path)).exit_code == 1


def test_verify_fails_if_the_ledger_cannot_be_read(path: Path) -> None:
    record_entries(path, 2)
    for file in path.parent.glob("ledger.sqlite*"):
        file.write_bytes(b"no database at all, and longer than its header is" * 10)
    result = verify(path)
    assert (result.exit_code, "Whether entries were cut off at the end is unknown" in result.stderr) == (1, True)


def test_lost_ledger_refuses_calls(tmp_path: Path) -> None:
    """A server that cannot record the state of its log sends nothing."""
    (tmp_path / "ledger.sqlite").write_bytes(b"no database at all, and longer than its header is" * 10)
    log = audit_at(ledger_at(None, tmp_path, System()), None, tmp_path, System())
    with pytest.raises(FastnError):
        anyio.run(log.anchor)
