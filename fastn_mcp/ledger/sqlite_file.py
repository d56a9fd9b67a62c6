"""A ledger's file: how it is created, opened and checked, and how statements are executed in it."""

import logging
import os
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from fastn_mcp.config.paths import make_private_folder
from fastn_mcp.ledger.store import LedgerUnusable

log = logging.getLogger(__name__)

_LOCK_TIMEOUT = 5.0
"""Seconds to wait for a lock of another process."""

_MIN_FREE_BYTES = 1 << 20
"""Free bytes without which SQLite may not be able to write."""

_OPEN_LOCK = threading.Lock()

_MOVE_AWAY = (
    "stop fastn-mcp and move the file away. That loses approvals, stops, the counts of budgets and plans, and the"
    " changes that undo_change knows. The audit log stays."
)
_DAMAGED = ("file is not a database, or is damaged", f"restore a copy (docs/operations.md), or {_MOVE_AWAY}")
_OTHER_VERSION = ("it was written by another version of fastn-mcp", f"run that version, or {_MOVE_AWAY}")
_DISK_FULL = ("the disk is full", "free space on its disk.")
_READ_ONLY = ("it is read-only", "make the file and its folder writable for this user, or set FASTN_STATE_DIR.")
_EXPOSED = (
    "users other than its owner can change it, and so forge approvals",
    "stop fastn-mcp, and run chmod 600 on the file and on each file beside it whose name begins with its name.",
)
_LOCKED = ("another process has locked it", "end that process, then call again.")
_CAUSES = {
    sqlite3.SQLITE_NOTADB: _DAMAGED,
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_FULL: _DISK_FULL,
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
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    with suppress(OSError):
        if code == sqlite3.SQLITE_IOERR and shutil.disk_usage(Path(path).parent).free < _MIN_FREE_BYTES:
            code = sqlite3.SQLITE_FULL  # its shared memory file could not grow
    why, cure = _CAUSES.get(code, other)
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
    # Not by their group, which owns a mounted volume in a cluster.
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        if os.name == "posix" and file.exists() and file.stat().st_mode & stat.S_IWOTH:
            log.error("the ledger %s can be changed by other users", file)
            raise LedgerUnusable(str(file), *_EXPOSED)


class SqliteFile:
    """A file, or memory for the life of the process (`:memory:`), opened on first use.

    `tables` has the definition of each table by its name, `indexes` what each indexes. A file with other or
    more tables is refused and stays as it is. Raises `LedgerUnusable` wherever it is used.
    """

    def __init__(
        self, path: str, tables: Mapping[str, str], indexes: Mapping[str, str], rows: Mapping[str, str]
    ) -> None:
        """`rows` has the values of the first row of a table."""
        self._path = path
        self._tables = tables
        self._indexes = indexes
        self._rows = rows

    @cached_property
    def database(self) -> sqlite3.Connection:
        try:
            with _OPEN_LOCK:
                if self._path != ":memory:":
                    _create(Path(self._path))
                database = sqlite3.connect(
                    self._path, isolation_level=None, timeout=_LOCK_TIMEOUT, check_same_thread=False
                )
            try:
                self._prepare(database)
            except BaseException:
                database.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise _unusable(self._path, error) from error
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        """Create the tables. Retries, since SQLite does not wait for another process that does the same."""
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA synchronous = FULL")
        database.execute("PRAGMA fullfsync = ON")  # on macOS, fsync alone does not reach the disk
        database.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
        until = time.monotonic() + _LOCK_TIMEOUT
        while True:
            try:
                database.execute("PRAGMA journal_mode = WAL")
                with database:
                    self._create_tables(database)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(0.01)
            else:
                return

    def _create_tables(self, database: sqlite3.Connection) -> None:
        database.execute("BEGIN")  # one write for all of them
        wanted = {name: f"CREATE TABLE {name} {definition}" for name, definition in self._tables.items()}
        tables = "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
        stored = dict(database.execute(tables).fetchall())
        if stored and stored != wanted:
            log.error("the ledger %s has tables of another version", self._path)
            raise LedgerUnusable(self._path, *_OTHER_VERSION)
        if not stored:
            for statement in wanted.values():
                database.execute(statement)
            for name, columns in self._indexes.items():
                database.execute(f"CREATE INDEX {name} ON {columns}")
            for name, values in self._rows.items():
                database.execute(f"INSERT INTO {name} VALUES ({values})")  # noqa: S608

    def execute(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        """Execute a statement to its end, and return its rows."""
        database = self.database
        try:
            return database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise _unusable(self._path, error) from error

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Run a transaction that takes the write lock at once, so that no other process writes meanwhile."""
        self.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.execute("COMMIT")
        except BaseException:
            if self.database.in_transaction:  # SQLite rolls it back by itself if the disk is full
                self.execute("ROLLBACK")
            raise

    def empty_log(self) -> None:
        """Empty the write-ahead log, which still has what was deleted, unless another process is reading from it."""
        with suppress(LedgerUnusable):  # the change itself is made
            self.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def check(self) -> None:
        problems = [str(row[0]) for row in self.execute("PRAGMA quick_check(1)")]
        if problems != ["ok"]:
            log.error("the ledger %s is damaged: %s", self._path, problems)
            raise LedgerUnusable(self._path, *_DAMAGED)

    def close(self) -> None:
        """Close the file, if it is open. The next use opens it again."""
        if "database" in self.__dict__:
            self.database.close()
            del self.__dict__["database"]
