"""Doctor's checks of the state folder and the ledger. Without a ledger for approvals nothing is sent."""

import os
from pathlib import Path

import pytest
from support.begun import counted
from support.stores import put

from fastn_mcp.build.check import Check, CheckResult
from fastn_mcp.extensions.doctor import machine
from fastn_mcp.extensions.doctor.machine import check_folder, check_ledger
from fastn_mcp.extensions.valkey import checks
from fastn_mcp.ledger.change_start import BudgetLimit
from fastn_mcp.ledger.documents import LAYOUT
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.ledger.store import Write
from fastn_mcp.runtime import System


def test_file_in_place_of_the_folder_fails(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    found = check_folder(tmp_path / "state")
    assert (found.verdict, "FASTN_STATE_DIR" in found.next) == (CheckResult.FAILED, True)
    assert str(tmp_path) not in found.finding + found.next


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
def test_folder_that_others_can_open_differs(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    assert check_folder(tmp_path).verdict is CheckResult.DIFFERS
    tmp_path.chmod(0o777)
    found = check_folder(tmp_path)
    assert (found.verdict, found.next) == (CheckResult.FAILED, "Run: chmod go-w the state folder")
    tmp_path.chmod(0o700)
    assert check_folder(tmp_path).verdict is CheckResult.OK


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
async def test_folder_that_the_ledger_of_a_sandbox_creates_is_private(tmp_path: Path) -> None:
    ledger = Ledger(SqliteStore(str(tmp_path / "state" / "sandbox" / "ledger.sqlite")))
    assert await counted(ledger, BudgetLimit("calls", "2026-11-26", 1))
    await ledger.aclose()
    assert check_folder(tmp_path / "state").verdict is CheckResult.OK


async def test_damaged_ledger_fails_and_its_path_stays_at_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"no database, but something else entirely" * 100)
    (check,) = await check_ledger(None, tmp_path, System())
    assert (check.verdict, "is damaged" in check.finding) == (CheckResult.FAILED, True)
    assert "move the file away" in check.next
    assert str(path) in check.here
    assert str(path) not in check.finding + check.next


async def test_ledger_without_tls_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def reachable(*_: object) -> Ledger:
        return Ledger(SqliteStore(str(tmp_path / "ledger.sqlite")))

    async def durable(*_: object) -> list[Check]:
        return []

    monkeypatch.setattr(machine, "ledger_at", reachable)
    monkeypatch.setattr(checks, "check_store", durable)
    (check,) = await check_ledger("valkey://:secret@ledger.example:6379", tmp_path, System())
    assert (check.verdict, check.finding) == (CheckResult.DIFFERS, "It is used without TLS.")
    assert check.next.startswith("Anybody who reaches")
    assert check.here == "The ledger is ledger.example:6379."


async def test_ledger_that_can_be_read_is_fine(tmp_path: Path) -> None:
    (missing,) = await check_ledger(None, tmp_path, System())
    assert (missing.verdict, missing.finding) == (CheckResult.OK, "The first change creates it.")
    ledger = Ledger(SqliteStore(str(tmp_path / "ledger.sqlite")))
    assert await counted(ledger, BudgetLimit("calls", "2026-11-26", 1))
    await ledger.aclose()
    (check,) = await check_ledger(None, tmp_path, System())
    assert (check.verdict, check.finding) == (CheckResult.OK, "It can be read.")


async def test_ledger_of_a_newer_version_fails(tmp_path: Path) -> None:
    ledger = Ledger(SqliteStore(str(tmp_path / "ledger.sqlite")))
    await put(ledger, Write(LAYOUT, '{"layout": 99}'))
    await ledger.aclose()
    (check,) = await check_ledger(None, tmp_path, System())
    assert (check.verdict, check.finding, check.next) == (
        CheckResult.FAILED,
        "The ledger was written by a newer version of fastn-mcp.",
        "Reading still works. Update this server.",
    )
