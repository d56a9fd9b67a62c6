"""What the ledger's file promises beyond the contract. Ours."""

import os
import sqlite3
import stat
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from stores import NOW, grant

from fastn_mcp.guard.ledger import State
from fastn_mcp.guard.ledger.sqlite import SqliteLedger

pytestmark = pytest.mark.anyio


async def test_nothing_is_opened_before_the_first_use(tmp_path: Path) -> None:
    """Issue 3: the ledger is not opened at start."""
    ledger = SqliteLedger(str(tmp_path / "state" / "ledger.sqlite"))
    ledger.close()
    assert not (tmp_path / "state").exists()
    assert await ledger.waiting(NOW) == []
    assert (tmp_path / "state" / "ledger.sqlite").exists()


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
async def test_only_the_owner_can_read_any_of_its_files(tmp_path: Path) -> None:
    """Ours: mode 0600 in a folder of mode 0700, whatever the umask, for the file and what SQLite puts beside it."""
    before = os.umask(0)
    try:
        ledger = SqliteLedger(str(tmp_path / "state" / "ledger.sqlite"))
        await ledger.open(grant())
    finally:
        os.umask(before)
    files = list((tmp_path / "state").iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    ledger.close()


async def test_it_outlives_its_process(tmp_path: Path) -> None:
    """Ours: an approval that was given is still there when the server starts anew."""
    path = str(tmp_path / "ledger.sqlite")
    ledger = SqliteLedger(path)
    await ledger.open(grant())
    assert await ledger.move("g1", [State.OPEN], State.APPROVED, NOW)
    ledger.close()
    again = SqliteLedger(path)
    found = await again.find("g1")
    again.close()
    assert found is not None
    assert found.state is State.APPROVED


async def test_the_history_ends_after_thirty_days(tmp_path: Path) -> None:
    """Ours: the file does not grow for ever."""
    ledger = SqliteLedger(str(tmp_path / "ledger.sqlite"))
    await ledger.open(grant())
    month = 30 * 86_400.0
    await ledger.open(grant("later", created=NOW + month + 600, expires=NOW + month + 1200))
    assert await ledger.find("g1") is not None
    await ledger.open(grant("last", created=NOW + month + 601, expires=NOW + month + 1201))
    assert await ledger.find("g1") is None
    ledger.close()


async def test_steps_are_kept_for_a_month() -> None:
    """Ours: as long as the grants that they name."""
    ledger = SqliteLedger(":memory:")
    await ledger.hold_steps("b1", {1: "g.1"}, NOW)
    await ledger.hold_steps("b2", {1: "g.1"}, NOW + 29 * 86_400)
    assert len(await ledger.steps("b1")) == 1
    await ledger.hold_steps("b2", {2: "g.2"}, NOW + 31 * 86_400)
    assert await ledger.steps("b1") == []
    ledger.close()


async def test_a_file_that_is_no_ledger_is_an_error_and_no_empty_ledger(tmp_path: Path) -> None:
    """Ours: what cannot be read refuses, and never looks as if nothing had been spent."""
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"no database, but something else entirely" * 100)
    ledger = SqliteLedger(str(path))
    with pytest.raises(sqlite3.DatabaseError):
        await ledger.find("g1")
    with pytest.raises(sqlite3.DatabaseError):
        await ledger.spend("destroy", "monday", 5)


async def test_text_stays_text(tmp_path: Path) -> None:
    """Ours: whatever a name holds, it is bound and never part of a statement."""
    ledger = SqliteLedger(str(tmp_path / "ledger.sqlite"))
    hostile = "'; DROP TABLE grants; --\x00\u202e"
    await ledger.open(replace(grant(hostile, principal=hostile), target=hostile, lines=(hostile,)))
    found = await ledger.find(hostile)
    assert found is not None
    assert (found.principal, found.target, found.lines) == (hostile, hostile, (hostile,))
    ledger.close()


async def test_a_second_ledger_of_the_process_does_not_drop_the_locks_of_the_first(tmp_path: Path) -> None:
    """SQLite, "How to corrupt a database", 2.2: closing any descriptor of the file drops the locks on it."""
    path = tmp_path / "ledger.sqlite"
    first, second = SqliteLedger(str(path)), SqliteLedger(str(path))
    await first.open(grant())
    await second.open(grant("g2"))
    # Whoever closes last takes away the write-ahead log; while we hold our locks, another process is not the last.
    look = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.execute('SELECT id FROM grants'); d.close()"
    await anyio.run_process([sys.executable, "-c", look, str(path)])
    assert path.with_name("ledger.sqlite-wal").exists()
    first.close()
    second.close()
