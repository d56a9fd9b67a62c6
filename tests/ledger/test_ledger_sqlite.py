"""What the ledger's file promises beyond the contract."""

# ruff: noqa: ASYNC240 - files of a test, in a folder of its own

import os
import shutil
import sqlite3
import stat
import sys
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from support.begun import claimed, counted, rated
from support.decisions import moved
from support.questions import a_question
from support.stores import NOW, add_temporary, change, close, database_of, grant, store_of, temporary_approval

from fastn_mcp.ledger import sqlite_file
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.ledger.change_start import BudgetLimit, StartResult
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.ledger.store import LedgerUnusable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Generator[Ledger]:
    ledger = Ledger(SqliteStore(str(path)))
    yield ledger
    close(ledger)


async def test_nothing_is_opened_before_the_first_use(tmp_path: Path) -> None:
    ledger = Ledger(SqliteStore(str(tmp_path / "state" / "ledger.sqlite")))
    await ledger.aclose()
    assert not (tmp_path / "state").exists()
    assert await ledger.waiting(NOW) == []
    assert (tmp_path / "state" / "ledger.sqlite").exists()
    await store_of(ledger).check()
    await ledger.aclose()


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
async def test_ledger_files_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    """Mode 0600 in a folder of mode 0700, whatever the umask."""
    before = os.umask(0)
    try:
        ledger = Ledger(SqliteStore(str(tmp_path / "state" / "ledger.sqlite")))
        await ledger.open(grant())
    finally:
        os.umask(before)
    files = list((tmp_path / "state").iterdir())
    assert len(files) == 3
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    await ledger.aclose()


@pytest.mark.skipif(os.name == "nt", reason="modes are POSIX")
@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
async def test_ledger_that_other_users_can_change_is_not_used(ledger: Ledger, path: Path, end: str) -> None:
    """They could write an approval into it. A cluster's volumes are writable by their group."""
    await ledger.open(grant())
    other, file = Ledger(SqliteStore(str(path))), path.with_name(path.name + end)
    file.chmod(0o666)
    with pytest.raises(LedgerUnusable, match=rf"{end} cannot be used: users other than its owner can change it"):
        await other.find("g1")
    file.chmod(0o660)
    assert await other.find("g1") is not None
    await other.aclose()


async def test_history_is_deleted_after_thirty_days(ledger: Ledger) -> None:
    await ledger.begin(replace(change("c1"), list_id="b1", call_id="call 1", number=1))
    await ledger.begin(change("c2", at=NOW + 29 * 86_400))
    assert len(await ledger.changes_of("b1")) == 1
    await ledger.begin(change("c3", at=NOW + 31 * 86_400))
    assert await ledger.changes_of("b1") == []
    assert await ledger.changes("default at live.fastn.ai", 9, NOW + 1) == []
    await ledger.open(grant())
    month = 30 * 86_400.0
    await ledger.open(grant("later", created=NOW + month + 599, expires=NOW + month + 1199))
    assert await ledger.find("g1") is not None
    await ledger.open(grant("last", created=NOW + month + 600, expires=NOW + month + 1200))
    assert await ledger.find("g1") is None


async def test_file_that_is_not_a_ledger_is_an_error(ledger: Ledger, path: Path) -> None:
    path.write_bytes(b"no database, but something else entirely" * 100)
    for _ in range(2):
        with pytest.raises(LedgerUnusable) as unusable:
            await counted(ledger, BudgetLimit("destroy", "monday", 5))
        assert str(unusable.value) == (
            f"The ledger {path} cannot be used: file is not a database, or is damaged. Nothing was sent. Reading"
            " still works. To fix it: restore a copy (docs/operations.md), or stop fastn-mcp and move the file away."
            " That loses approvals, stops, the counts of budgets and plans, and the changes that undo_change knows."
            " The audit log stays."
        )


async def test_ledger_that_cannot_be_used_says_which_file_why_and_what_to_do(ledger: Ledger, path: Path) -> None:
    await ledger.open(grant())
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnusable) as locked:
            await counted(ledger, BudgetLimit("destroy", "monday", 5))
        other.execute("ROLLBACK")
    assert (
        str(locked.value)
        == f"The ledger {path} cannot be used: another process has locked it. Nothing was sent. Reading still works."
        " To fix it: end that process, then call again."
    )
    database_of(ledger).execute("PRAGMA query_only = ON")
    with pytest.raises(LedgerUnusable) as read_only:
        await counted(ledger, BudgetLimit("destroy", "monday", 5))
    assert (
        str(read_only.value)
        == f"The ledger {path} cannot be used: it is read-only. Nothing was sent. Reading still works."
        " To fix it: make the file and its folder writable for this user, or set FASTN_STATE_DIR."
    )


@pytest.mark.parametrize(
    ("place", "why"), [("a file/ledger.sqlite", "File exists"), ("a folder", "unable to open database file")]
)
async def test_unknown_cause_is_quoted_from_the_system(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, place: str, why: str
) -> None:
    (tmp_path / "a file").touch()
    (tmp_path / "a folder").mkdir()
    path = tmp_path / place
    with pytest.raises(LedgerUnusable) as unusable:
        await Ledger(SqliteStore(str(path))).find("g1")
    assert unusable.value.what == f"The ledger {path} cannot be used: {why}."
    assert (
        unusable.value.next_step
        == "Reading still works. To fix it: look at the file, its folder and its disk, or set FASTN_STATE_DIR."
    )
    assert caplog.messages[-1].startswith(f"the ledger {path} cannot be used: ")
    assert why in caplog.messages[-1]


class Pause:
    """The clock of a ledger that waits: each pause takes a quarter of a second, and `after` them `then` happens."""

    def __init__(self, after: int, then: Callable[[], object]) -> None:
        self.now = 0.0
        self.pauses: list[float] = []
        self._after = after
        self._then = then

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += 0.25
        if len(self.pauses) == self._after:
            self._then()


@pytest.mark.parametrize(("after", "is_opened"), [(3, True), (4, False)])
async def test_ledger_waits_a_while_for_another_process_that_prepares_it(
    ledger: Ledger, path: Path, monkeypatch: pytest.MonkeyPatch, after: int, is_opened: bool
) -> None:
    """SQLite: nobody waits for a lock while the journal's mode is changed. So it is tried again."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        pause = Pause(after, lambda: other.execute("ROLLBACK"))
        monkeypatch.setattr(sqlite_file, "time", pause)
        monkeypatch.setattr(sqlite_file, "_LOCK_TIMEOUT", 0.5)
        if is_opened:
            assert await ledger.waiting(NOW) == []
        else:
            with pytest.raises(LedgerUnusable, match="another process has locked it"):
                await ledger.waiting(NOW)
        assert pause.pauses == [0.01] * 3


async def test_damaged_ledger_is_reported(ledger: Ledger, path: Path) -> None:
    await ledger.open(grant())
    await ledger.aclose()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(LedgerUnusable, match="is damaged") as damaged:
        await ledger.find("g1")
    assert "move the file away" in damaged.value.next_step
    with pytest.raises(LedgerUnusable, match="is damaged"):
        await store_of(ledger).check()


async def test_damage_that_no_call_notices_is_found_by_the_check(
    ledger: Ledger, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await counted(ledger, BudgetLimit("destroy", "monday", 5))
    await ledger.aclose()
    with closing(sqlite3.connect(path)) as other:
        (page,) = other.execute("SELECT rootpage FROM sqlite_master WHERE name = 'documents'").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096 + 1)
        file.write(b"\x00\x10")  # its first free block would lie in its header
    assert await ledger.spent("destroy", "monday") == 1
    with pytest.raises(LedgerUnusable, match="file is not a database, or is damaged"):
        await store_of(ledger).check()
    assert caplog.messages[-1].startswith(f"the ledger {path} is damaged: ['*** in database main")


@pytest.mark.skipif(os.name == "nt", reason="there is no limit to set")
async def test_full_disk_is_reported(ledger: Ledger) -> None:
    await ledger.open(grant())
    database_of(ledger).execute("PRAGMA max_page_count = 1")
    with pytest.raises(LedgerUnusable, match="the disk is full") as full:
        await ledger.open(replace(grant("g2"), question=a_question(title="x" * 200_000)))
    assert "free space" in full.value.next_step
    database_of(ledger).execute("PRAGMA max_page_count = 100000")
    assert await ledger.open(grant("g3")) == "g3"


async def test_failed_commit_is_rolled_back(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would be a part of the next one, or keep all later ones from beginning."""
    await ledger.open(grant())
    file, failures = store_of(ledger).file, iter([True])
    execute = file.execute

    def failing(statement: str, values: Sequence[object] = ()) -> list[Any]:
        if statement == "COMMIT" and next(failures, False):
            raise LedgerUnusable("ledger.sqlite", "the disk is full", "free space on its disk.")
        return execute(statement, values)

    monkeypatch.setattr(file, "execute", failing)
    with pytest.raises(LedgerUnusable):
        await ledger.void("g1", RequestState.STALE, NOW)
    assert await ledger.open(grant("g2")) == "g2"
    assert [each.id for each in await ledger.waiting(NOW)] == ["g1", "g2"]


@pytest.mark.parametrize(("free", "why"), [(4096, "the disk is full"), (1 << 30, "disk I/O error"), (None, "disk I/O")])
async def test_input_output_error_on_a_full_disk_is_reported_as_such(
    path: Path, monkeypatch: pytest.MonkeyPatch, free: int | None, why: str
) -> None:
    def disk_usage(_: Path) -> SimpleNamespace:
        if free is None:
            raise FileNotFoundError
        return SimpleNamespace(free=free)

    class Failing(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:  # noqa: ARG002
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
            raise error

    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Failing))
    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    with pytest.raises(LedgerUnusable, match=why):
        await Ledger(SqliteStore(str(path))).find("g1")


async def test_ledger_needs_no_returning(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python 3.11 of RHEL 9 comes with SQLite 3.34, which does not have it."""

    class Earlier(sqlite3.Connection):
        def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
            if "RETURNING" in sql:
                raise sqlite3.OperationalError('near "RETURNING": syntax error')
            return super().execute(sql, *values)

    def earlier(path: str, **more: Any) -> sqlite3.Connection:
        return connect(path, factory=Earlier, **more)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite_file.sqlite3, "connect", earlier)
    ledger = Ledger(SqliteStore(":memory:"))
    one = change("c1", at=NOW)
    assert await ledger.begin(one) is StartResult.STARTED
    assert [await claimed(ledger, "c1"), await claimed(ledger, "c1")] == [True, False]
    assert [await counted(ledger, BudgetLimit("b", "p", 1)), await counted(ledger, BudgetLimit("b", "p", 1))] == [
        True,
        False,
    ]
    assert [await ledger.use_nonce("n", NOW + 9, NOW), await ledger.use_nonce("n", NOW + 9, NOW)] == [True, False]
    assert [await rated(ledger, "r", 1, 60.0), await rated(ledger, "r", 1, 60.0)] == [True, False]
    assert not await ledger.revoke_temporary("s1")
    await ledger.aclose()


async def test_second_ledger_of_a_process_keeps_the_locks_of_the_first(ledger: Ledger, path: Path) -> None:
    """SQLite, "How to corrupt a database", 2.2: closing any descriptor of the file drops the locks on it."""
    second = Ledger(SqliteStore(str(path)))
    await ledger.open(grant())
    await second.open(grant("g2"))
    # Whoever closes last takes away the write-ahead log; while we hold our locks, another process is not the last.
    look = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.execute('SELECT key FROM documents'); d.close()"
    await anyio.run_process([sys.executable, "-c", look, str(path)])
    assert path.with_name("ledger.sqlite-wal").exists()
    await second.aclose()


@pytest.mark.parametrize(
    "other",
    [
        "ALTER TABLE documents ADD COLUMN zone TEXT",
        "DROP TABLE revision; CREATE TABLE revision (number TEXT NOT NULL)",
        "DROP TABLE indexed",
        "CREATE TABLE stops (id TEXT NOT NULL PRIMARY KEY, at REAL NOT NULL)",
        (
            "DROP TABLE documents; DROP TABLE indexed; DROP TABLE revision;"
            " CREATE TABLE stops (id TEXT NOT NULL PRIMARY KEY, at REAL NOT NULL); INSERT INTO stops VALUES ('s1', 1.0)"
        ),
    ],
)
async def test_file_with_tables_of_another_version_is_refused(ledger: Ledger, path: Path, other: str) -> None:
    """Stops hold there, and a budget or an approval that cannot be read never counts as unused."""
    await ledger.open(grant())
    await ledger.aclose()
    with closing(sqlite3.connect(path)) as database:
        database.executescript(other)
        before = list(database.execute("SELECT name, sql FROM sqlite_master"))
    for _ in range(2):
        with pytest.raises(LedgerUnusable) as unusable:
            await ledger.find("g1")
        assert (
            unusable.value.what == f"The ledger {path} cannot be used: it was written by another version of fastn-mcp."
        )
        assert unusable.value.next_step == (
            "Reading still works. To fix it: run that version, or stop fastn-mcp and move the file away."
            " That loses approvals, stops, the counts of budgets and plans, and the changes that undo_change knows."
            " The audit log stays."
        )
    with closing(sqlite3.connect(path)) as database:
        assert list(database.execute("SELECT name, sql FROM sqlite_master")) == before


async def _a_month(ledger: Ledger, size: int) -> None:
    """So much of everything that is kept, decided and over, but not old enough to go."""
    for number in range(size):
        await ledger.begin(change(f"kept {number}", at=NOW - number))
        await ledger.open(grant(f"kept {number}", created=NOW - 2_000 - number, expires=NOW - 1_000 - number))
        await moved(ledger, f"kept {number}", [RequestState.OPEN], RequestState.USED, NOW - 1_500 - number)
        await ledger.begin(
            replace(change(f"of {number}", at=NOW - number), list_id=f"kept {number}", call_id="call 1", number=1)
        )
        await ledger.use_nonce(f"kept {number}", NOW + 600, NOW)
        await add_temporary(ledger, replace(temporary_approval(f"temporary {number}"), principal=f"of kept {number}"))


STATEMENTS: dict[str, Callable[[Ledger], Awaitable[object]]] = {
    "a change is noted": lambda ledger: ledger.begin(change("new", at=NOW + 1)),
    "a change is settled": lambda ledger: ledger.settle(replace(change("kept 1"), outcome="done")),
    "twenty changes are listed": lambda ledger: ledger.changes("default at live.fastn.ai", 20, NOW + 2),
    "a grant is opened": lambda ledger: ledger.open(grant("new")),
    "a grant is looked for": lambda ledger: ledger.latest("call of kept 1", NOW),
    "a grant is burnt": lambda ledger: moved(ledger, "new", [RequestState.OPEN], RequestState.USED, NOW),
    "the waiting are listed": lambda ledger: ledger.waiting(NOW),
    "twenty decisions are listed": lambda ledger: ledger.decided(20),
    "a nonce is used": lambda ledger: ledger.use_nonce("new", NOW + 600, NOW),
    "temporary approvals are looked for": lambda ledger: ledger.permits_of("of kept 1", NOW),
    "a call of a batch is begun": lambda ledger: ledger.begin(
        replace(change("of"), list_id="kept 1", call_id="call 2", number=2)
    ),
    "a batch is looked for": lambda ledger: ledger.changes_of("kept 1"),
}


@pytest.mark.long
async def test_cost_of_a_step_does_not_grow_with_the_history(tmp_path: Path) -> None:
    """Counted in instructions of SQLite's virtual machine."""
    cost: dict[int, dict[str, int]] = {}
    for size in (40, 400):
        ledger = Ledger(SqliteStore(str(tmp_path / f"{size}.sqlite")))
        await _a_month(ledger, size)
        cost[size] = dict.fromkeys(STATEMENTS, 0)
        for what, statement in STATEMENTS.items():

            def count(what: str = what, counts: dict[str, int] = cost[size]) -> int:
                counts[what] += 1
                return 0

            database_of(ledger).set_progress_handler(count, 1)
            await statement(ledger)
        await ledger.aclose()
    assert {what: cost[400][what] for what in STATEMENTS if cost[400][what] > 1.2 * cost[40][what]} == {}
