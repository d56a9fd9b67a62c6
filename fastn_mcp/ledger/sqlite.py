"""Ledger in SQLite, for the processes of one person.

Each change is on disk when its method returns, so that an approval stays used after a power loss.
"""

import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from typing import Any

from fastn_mcp.config.paths import make_private_folder
from fastn_mcp.guard.changes import FINAL, Change
from fastn_mcp.ledger.ledger import (
    MOST_WAITING,
    ApprovalRequest,
    BudgetLimit,
    Ledger,
    LedgerUnusable,
    SealedSecret,
    TemporaryApproval,
    TooManyWaiting,
    Transition,
    declines_after,
    rate_free_at,
    read_change,
    read_request,
    stored_change,
    stored_request,
)

log = logging.getLogger(__name__)

FILE = "ledger.sqlite"
"""File name in the state folder."""

_TABLES = """
CREATE TABLE IF NOT EXISTS requests (
    id TEXT PRIMARY KEY, principal TEXT NOT NULL, account TEXT NOT NULL, tool TEXT NOT NULL, target TEXT,
    call TEXT NOT NULL, calls TEXT NOT NULL, required TEXT NOT NULL, expected TEXT,
    allows_temporary INTEGER NOT NULL, out_of_band INTEGER NOT NULL, preview TEXT NOT NULL, text TEXT NOT NULL,
    created REAL NOT NULL, expires REAL NOT NULL, state TEXT NOT NULL, by TEXT, note TEXT, decided REAL, trace TEXT,
    similar TEXT, extent TEXT NOT NULL, votes TEXT NOT NULL, used TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS requests_by_call ON requests (call, created);
CREATE INDEX IF NOT EXISTS requests_by_state ON requests (state, principal);
CREATE INDEX IF NOT EXISTS requests_by_end ON requests (expires);
CREATE INDEX IF NOT EXISTS requests_by_decision ON requests (coalesce(decided, created));
CREATE TABLE IF NOT EXISTS nonces (nonce TEXT PRIMARY KEY, until REAL NOT NULL);
CREATE INDEX IF NOT EXISTS nonces_by_end ON nonces (until);
CREATE TABLE IF NOT EXISTS typed_secrets (
    request TEXT, approver TEXT, sealed TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (request, approver)
);
CREATE TABLE IF NOT EXISTS temporary_approvals (
    id TEXT PRIMARY KEY, principal TEXT NOT NULL, account TEXT NOT NULL, tool TEXT NOT NULL, target TEXT NOT NULL,
    created REAL NOT NULL, expires REAL NOT NULL, by TEXT NOT NULL, similar TEXT NOT NULL, extent TEXT NOT NULL,
    person TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS temporary_by_call ON temporary_approvals (principal, account, tool, target);
CREATE TABLE IF NOT EXISTS budgets (
    budget TEXT, period TEXT, used INTEGER NOT NULL, PRIMARY KEY (budget, period)
);
CREATE TABLE IF NOT EXISTS rates (budget TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS rates_by_time ON rates (budget, at);
CREATE TABLE IF NOT EXISTS declines (principal TEXT PRIMARY KEY, count INTEGER NOT NULL, last REAL NOT NULL);
CREATE TABLE IF NOT EXISTS limits (key TEXT PRIMARY KEY, until REAL NOT NULL);
CREATE TABLE IF NOT EXISTS audit_marks (log TEXT PRIMARY KEY, n INTEGER NOT NULL, head TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS distrust (
    principal TEXT, channel TEXT, until REAL NOT NULL, PRIMARY KEY (principal, channel)
);
CREATE TABLE IF NOT EXISTS changes (
    id TEXT PRIMARY KEY, principal TEXT NOT NULL, account TEXT NOT NULL, tool TEXT NOT NULL, arguments TEXT NOT NULL,
    target TEXT, name TEXT, before TEXT NOT NULL, sent TEXT NOT NULL, at REAL NOT NULL, outcome TEXT NOT NULL,
    undone INTEGER NOT NULL, call TEXT NOT NULL DEFAULT '', approved_by TEXT NOT NULL DEFAULT '',
    unsettled_until REAL NOT NULL DEFAULT 0, batch TEXT NOT NULL DEFAULT '', number INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS changes_by_time ON changes (account, at);
CREATE INDEX IF NOT EXISTS changes_by_age ON changes (at);
"""
_ADDED = {
    "changes": {
        "call": "TEXT NOT NULL DEFAULT ''",
        "unsettled_until": "REAL NOT NULL DEFAULT 0",
        "approved_by": "TEXT NOT NULL DEFAULT ''",
        "batch": "TEXT NOT NULL DEFAULT ''",
        "number": "INTEGER NOT NULL DEFAULT 0",
    },
    "temporary_approvals": {"person": "TEXT NOT NULL DEFAULT ''"},
}
"""Columns that a ledger of an earlier version lacks, by table."""

_COLUMNS = ", ".join(ApprovalRequest.__dataclass_fields__)
_MARKS = ", ".join(f":{name}" for name in ApprovalRequest.__dataclass_fields__)
_OF_A_CHANGE = ", ".join(Change.__dataclass_fields__)
_SAME = (
    "WHERE call = :call AND calls = :calls AND required = :required AND principal = :principal"
    " AND account = :account AND id != :id"
    " AND out_of_band = 1 AND state = 'open' AND expires > :created ORDER BY created LIMIT 1"
)
"""Selects the open out-of-band request that is the same as a new one."""

_FINAL = f"({', '.join(repr(outcome) for outcome in FINAL)})"

_KEPT = 30 * 86_400.0
"""Seconds for which requests (after they expire) and changes are kept, for the history."""

_MARK_KEPT = 86_400.0
"""Seconds for which nonces and rate limits are kept after they expire, since clocks differ."""

_PATIENCE = 5.0
"""Seconds to wait for a lock of another process."""

_POLL = 0.25
"""Seconds between two looks for changes by other processes."""

_OPENING = threading.Lock()


_DAMAGED = (
    "file is not a database, or is damaged",
    "stop fastn-mcp and move the file away. Open requests, budgets and the journal are then gone.",
)
_FULL = ("the disk is full", "free space on its disk.")
_READ_ONLY = ("it is read-only", "make the file and its folder writable for this user, or set FASTN_STATE_DIR.")
_LOCKED = ("another process keeps it locked", "end that process, then call again.")
_CAUSES = {
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_FULL: _FULL,
    sqlite3.SQLITE_READONLY: _READ_ONLY,
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
}
"""Cause, and what a person has to do, by SQLite's primary result code."""


def _unusable(path: str, error: OSError | sqlite3.Error) -> LedgerUnusable:
    other = (
        getattr(error, "strerror", None) or str(error),
        "look at the file, its folder and its disk, or set FASTN_STATE_DIR.",
    )
    code = getattr(error, "sqlite_errorcode", None)
    why, cure = other if code is None else _CAUSES.get(code & 0xFF, other)
    log.error("the ledger %s cannot be used: %s", path, error)
    return LedgerUnusable(path, why, cure)


def _create(path: Path) -> None:
    """Create the file if it does not exist, readable by its owner only from the start.

    An existing file is not opened, and no other ledger of this process opens the file meanwhile: closing any descriptor
    of a file drops the locks that SQLite holds on it in the same process, and two writers then corrupt the file.
    """
    make_private_folder(path.parent)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _prepare(database: sqlite3.Connection) -> None:
    """Create or migrate the tables. Retries, since SQLite does not wait for another process that does the same."""
    database.execute("PRAGMA synchronous = FULL")
    database.execute("PRAGMA fullfsync = ON")  # on macOS, fsync alone does not reach the disk
    database.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            database.executescript(_TABLES)
            _bring_up_to_date(database)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                database.close()
                raise
            time.sleep(0.01)
        else:
            return


def _bring_up_to_date(database: sqlite3.Connection) -> None:
    """Add the columns and indexes that a ledger of an earlier version lacks."""
    if not all(_lacks(database, table) == {} for table in _ADDED):
        database.execute("BEGIN IMMEDIATE")
        try:
            for table in _ADDED:  # another process may have added some meanwhile
                for name, kind in _lacks(database, table).items():
                    database.execute(f"ALTER TABLE {table} ADD COLUMN {name} {kind}")
        finally:
            database.execute("COMMIT")
    database.execute("CREATE INDEX IF NOT EXISTS changes_by_batch ON changes (batch, number)")
    database.execute(
        "CREATE INDEX IF NOT EXISTS changes_by_call ON changes (call, unsettled_until) WHERE unsettled_until > 0"
    )


def _lacks(database: sqlite3.Connection, table: str) -> dict[str, str]:
    there = {name for _, name, *_ in database.execute(f"PRAGMA table_info({table})")}
    return {name: kind for name, kind in _ADDED[table].items() if name not in there}


class SqliteLedger(Ledger):
    """Ledger in a file, or in memory for the life of the process (`:memory:`)."""

    def __init__(self, path: str) -> None:
        self._path = path

    @cached_property
    def _database(self) -> sqlite3.Connection:
        try:
            with _OPENING:
                if self._path != ":memory:":
                    _create(Path(self._path))
                database = sqlite3.connect(self._path, isolation_level=None, timeout=_PATIENCE, check_same_thread=False)
            _prepare(database)
        except (OSError, sqlite3.Error) as error:
            raise _unusable(self._path, error) from error
        return database

    def _execute(self, statement: str, values: Sequence[object] | Mapping[str, object] = ()) -> list[Any]:
        """Execute a statement to its end, and return its rows. Raises `LedgerUnusable`."""
        return self._ended(statement, values)[0]

    def _change(self, statement: str, values: Sequence[object] | Mapping[str, object]) -> int:
        """Execute a statement, and return how many rows it wrote. Not by RETURNING, which SQLite has since 3.35."""
        return self._ended(statement, values)[1]

    def _ended(self, statement: str, values: Sequence[object] | Mapping[str, object]) -> tuple[list[Any], int]:
        database = self._database
        try:
            cursor = database.execute(statement, values)
            return cursor.fetchall(), cursor.rowcount
        except sqlite3.Error as error:
            raise _unusable(self._path, error) from error

    async def check(self) -> None:
        """Check the whole file (used by `doctor`). Raises `LedgerUnusable` if it is damaged."""
        found = [str(row[0]) for row in self._execute("PRAGMA quick_check(1)")]
        if found != ["ok"]:
            log.error("the ledger %s is damaged: %s", self._path, found)
            raise LedgerUnusable(self._path, *_DAMAGED)

    def close(self) -> None:
        """Close the file, if it is open."""
        if "_database" in self.__dict__:
            self._database.close()
            del self.__dict__["_database"]

    async def aclose(self) -> None:
        self.close()

    @contextmanager
    def _writing(self) -> Generator[None]:
        """Run a transaction that takes the write lock at once, so that no other process writes meanwhile."""
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._database.in_transaction:  # SQLite rolls it back by itself if the disk is full
                self._execute("ROLLBACK")
            raise
        self._execute("COMMIT")

    async def open(self, request: ApprovalRequest) -> str:
        values = stored_request(request)
        with self._writing():
            same = self._execute(f"SELECT id FROM requests {_SAME}", values)  # noqa: S608
            if same and request.out_of_band:
                return str(same[0][0])
            ((waiting,),) = self._execute(
                "SELECT count(*) FROM requests"
                " WHERE principal = :principal AND account = :account AND state = 'open' AND expires > :created",
                values,
            )
            if waiting >= MOST_WAITING:
                raise TooManyWaiting
            self._execute(f"INSERT INTO requests ({_COLUMNS}) VALUES ({_MARKS})", values)  # noqa: S608
            self._execute("DELETE FROM requests WHERE expires < ?", (request.created - _KEPT,))
        self._forget_typed("until <= ?", request.created)
        return request.id

    async def find(self, request: str) -> ApprovalRequest | None:
        return next(self._requests("WHERE id = ?", request), None)

    async def still_open(self, requests: Collection[str]) -> set[str]:
        return {id_ for (id_,) in self._execute("SELECT id FROM requests WHERE state = 'open'")}.intersection(requests)

    async def latest(self, call: str, now: float) -> ApprovalRequest | None:
        of_call = self._requests("WHERE call = ? AND expires > ? ORDER BY created DESC", call, now)
        return next((request for request in of_call if request.is_found(now)), None)

    async def change_request(
        self, request: str, transition: Transition, secret: SealedSecret | None = None
    ) -> ApprovalRequest | None:
        forgotten = 0
        with self._writing():
            before = next(self._requests("WHERE id = ?", request), None)
            after = None if before is None else transition(before)
            if after is None or before is None:
                return None
            if after.is_over:
                forgotten = self._change("DELETE FROM typed_secrets WHERE request = ?", (request,))
            elif secret is not None:
                values = (request, secret.approver, secret.text, after.expires)
                self._execute("INSERT OR REPLACE INTO typed_secrets VALUES (?, ?, ?, ?)", values)
            self._execute(f"REPLACE INTO requests ({_COLUMNS}) VALUES ({_MARKS})", stored_request(after))  # noqa: S608
            match declines_after(before, after):
                case 1:
                    self._execute(
                        "INSERT INTO declines VALUES (?, 1, ?)"
                        " ON CONFLICT (principal) DO UPDATE SET count = count + 1, last = excluded.last",
                        (after.holder, after.decided),
                    )
                case 0:
                    self._execute("DELETE FROM declines WHERE principal = ?", (after.holder,))
                case _:
                    pass
        if forgotten:
            self._empty_log()
        return after

    def _forget_typed(self, where: str, *values: object) -> None:
        """Delete what was typed, if there is any: most calls have none, and write nothing."""
        if self._execute(f"SELECT 1 FROM typed_secrets WHERE {where} LIMIT 1", values):  # noqa: S608
            self._execute(f"DELETE FROM typed_secrets WHERE {where}", values)  # noqa: S608
            self._empty_log()

    def _empty_log(self) -> None:
        """Empty the write-ahead log, which still has what was deleted, unless another process is reading from it."""
        with suppress(LedgerUnusable):  # the change itself is made
            self._execute("PRAGMA wal_checkpoint(TRUNCATE)")

    async def sealed(self, request: str, approver: str, now: float) -> str | None:
        typed = "SELECT sealed FROM typed_secrets WHERE request = ? AND approver = ? AND until > ?"
        found = self._execute(typed, (request, approver, now))
        return str(found[0][0]) if found else None

    async def expiring(self, account: str, now: float) -> list[str]:
        self._forget_typed("until <= ?", now)
        over = "SELECT id FROM requests WHERE state = 'open' AND account = ? AND expires <= ?"
        return [id_ for (id_,) in self._execute(over, (account, now))]

    async def open_requests(self, account: str, now: float) -> list[ApprovalRequest]:
        return list(self._requests("WHERE account = ? AND state = 'open' AND expires > ?", account, now))

    async def waiting(self, now: float) -> list[ApprovalRequest]:
        return list(self._requests("WHERE out_of_band = 1 AND state = 'open' AND expires > ? ORDER BY created", now))

    async def decided(self, limit: int) -> list[ApprovalRequest]:
        return list(self._requests("WHERE state != 'open' ORDER BY coalesce(decided, created) DESC LIMIT ?", limit))

    def _requests(self, where: str, *values: object) -> Iterator[ApprovalRequest]:
        for row in self._execute(f"SELECT {_COLUMNS} FROM requests {where}", values):  # noqa: S608
            yield read_request(dict(zip(ApprovalRequest.__dataclass_fields__, row, strict=True)))

    async def use_nonce(self, nonce: str, until: float, now: float) -> bool:
        self._execute("DELETE FROM nonces WHERE until < ?", (now - _MARK_KEPT,))
        used = self._change(
            "INSERT INTO nonces VALUES (?, ?) ON CONFLICT (nonce) DO UPDATE SET until = excluded.until WHERE until < ?",
            (nonce, until, now),
        )
        return used == 1

    async def add_temporary(self, approval: TemporaryApproval) -> None:
        self._execute("INSERT INTO temporary_approvals VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", astuple(approval))

    async def find_temporary(
        self, principal: str, account: str, tool: str, target: str, similar: str, now: float
    ) -> TemporaryApproval | None:
        found = self._execute(
            "SELECT * FROM temporary_approvals WHERE principal = ? AND account = ? AND tool = ? AND target = ?"
            " AND similar = ? AND expires > ?",
            (principal, account, tool, target, similar, now),
        )
        return TemporaryApproval(*found[0]) if found else None

    async def temporary_approvals(self, now: float) -> list[TemporaryApproval]:
        rows = self._execute("SELECT * FROM temporary_approvals WHERE expires > ? ORDER BY created", (now,))
        return [TemporaryApproval(*row) for row in rows]

    async def revoke_temporary(self, approval: str) -> bool:
        return self._change("DELETE FROM temporary_approvals WHERE id = ?", (approval,)) == 1

    async def spent(self, budget: str, period: str) -> int:
        return self._uses(budget, period)

    def _uses(self, budget: str, period: str) -> int:
        found = self._execute("SELECT used FROM budgets WHERE budget = ? AND period = ?", (budget, period))
        return int(found[0][0]) if found else 0

    async def spend_all(self, limits: Sequence[BudgetLimit]) -> bool:
        with self._writing():
            for each in limits:
                if self._uses(each.budget, each.period) >= each.limit:
                    return False
            for each in limits:
                self._execute(
                    "INSERT INTO budgets VALUES (?, ?, 1) ON CONFLICT (budget, period) DO UPDATE SET used = used + 1",
                    (each.budget, each.period),
                )
        return True

    async def spend_rate(self, budget: str, most: int, seconds: float, now: float) -> float:
        spent = self._change(
            "INSERT INTO rates SELECT ?, ? WHERE (SELECT count(*) FROM rates WHERE budget = ? AND at > ?) < ?",
            (budget, now, budget, now - seconds, most),
        )
        if not spent:
            return rate_free_at(await self.rate_uses(budget, seconds, now), most, seconds) or now
        self._execute("DELETE FROM rates WHERE budget = ? AND at <= ?", (budget, now - seconds))
        return 0.0

    async def rate_uses(self, budget: str, seconds: float, now: float) -> list[float]:
        rows = self._execute("SELECT at FROM rates WHERE budget = ? AND at > ? ORDER BY at", (budget, now - seconds))
        return [float(at) for (at,) in rows]

    async def declines(self, principal: str) -> tuple[int, float]:
        found = self._execute("SELECT count, last FROM declines WHERE principal = ?", (principal,))
        return (int(found[0][0]), float(found[0][1])) if found else (0, 0.0)

    async def distrust(self, principal: str, channel: str, until: float) -> None:
        self._execute("INSERT OR REPLACE INTO distrust VALUES (?, ?, ?)", (principal, channel, until))

    async def distrusted(self, principal: str, channel: str, now: float) -> bool:
        found = self._execute(
            "SELECT 1 FROM distrust WHERE principal = ? AND channel = ? AND until > ?", (principal, channel, now)
        )
        return bool(found)

    async def note_limit(self, key: str, until: float, now: float) -> None:
        self._execute("DELETE FROM limits WHERE until < ?", (now - _MARK_KEPT,))
        self._execute(
            "INSERT INTO limits VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET until = max(until, excluded.until)",
            (key, until),
        )

    async def limited(self, key: str) -> float:
        found = self._execute("SELECT until FROM limits WHERE key = ?", (key,))
        return float(found[0][0]) if found else 0.0

    async def mark_audit(self, log: str, n: int, head: str) -> None:
        self._execute(
            "INSERT INTO audit_marks VALUES (?, ?, ?)"
            " ON CONFLICT (log) DO UPDATE SET n = excluded.n, head = excluded.head WHERE n < excluded.n",
            (log, n, head),
        )

    async def audit_mark(self, log: str) -> tuple[int, str] | None:
        found = self._execute("SELECT n, head FROM audit_marks WHERE log = ?", (log,))
        return (int(found[0][0]), str(found[0][1])) if found else None

    async def begin(self, change: Change) -> bool:
        names = ", ".join(f":{name}" for name in Change.__dataclass_fields__)
        begun = self._change(
            f"INSERT INTO changes ({_OF_A_CHANGE}) SELECT {names} WHERE NOT EXISTS (SELECT 1 FROM changes"  # noqa: S608
            f" WHERE :batch != '' AND batch = :batch AND number = :number AND outcome IN {_FINAL})",
            stored_change(change),
        )
        self._execute("DELETE FROM changes WHERE at < ?", (change.at - _KEPT,))
        return begun == 1

    async def changes_of(self, batch: str) -> list[Change]:
        return list(self._changes(f"WHERE batch = ? AND batch != '' AND outcome IN {_FINAL} ORDER BY number", batch))

    async def settle(self, change: Change) -> None:
        self._execute(
            "UPDATE changes SET outcome = ?, target = coalesce(?, target), name = coalesce(?, name), sent = ?,"
            " unsettled_until = ? WHERE id = ?",
            (change.outcome, change.target, change.name, json.dumps(change.sent), change.unsettled_until, change.id),
        )

    async def unsettled(self, call: str, now: float) -> dict[str, float]:
        rows = self._execute(
            "SELECT id, unsettled_until FROM changes WHERE call = ? AND unsettled_until > ? AND unsettled_until > 0",
            (call, now),
        )
        return dict(rows)

    async def change(self, account: str, change: str) -> Change | None:
        return next(self._changes("WHERE account = ? AND id = ?", account, change), None)

    async def changes(self, account: str, limit: int, before: float) -> list[Change]:
        return list(self._changes("WHERE account = ? AND at < ? ORDER BY at DESC LIMIT ?", account, before, limit))

    def _changes(self, where: str, *values: object) -> Iterator[Change]:
        for row in self._execute(f"SELECT {_OF_A_CHANGE} FROM changes {where}", values):  # noqa: S608
            yield read_change(dict(zip(Change.__dataclass_fields__, row, strict=True)))

    async def claim(self, change: str) -> bool:
        return self._change("UPDATE changes SET undone = 1 WHERE id = ? AND undone = 0", (change,)) == 1

    async def release(self, change: str) -> None:
        self._execute("UPDATE changes SET undone = 0 WHERE id = ?", (change,))

    async def revision(self) -> int:
        # data_version sees other connections' changes, total_changes our own.
        ((version,),) = self._execute("PRAGMA data_version")
        return int(version) + self._database.total_changes

    async def wait_for_change(self, seen: str, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> str:
        while (current := str(await self.revision())) == seen and seconds > 0:
            await sleep(min(_POLL, seconds))
            seconds -= _POLL
        return current
