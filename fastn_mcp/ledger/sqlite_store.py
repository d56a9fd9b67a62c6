"""Store in a SQLite file, for the processes of one person.

Each commit is on disk when the method returns, so that an approval stays used after a power loss.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from math import inf

from fastn_mcp.ledger.sqlite_file import SqliteFile
from fastn_mcp.ledger.store import Commit, Document, Store, Write

FILE = "ledger.sqlite"
"""File name in the state folder."""

_TABLES = {
    "documents": "(key TEXT PRIMARY KEY, value TEXT NOT NULL, version INTEGER NOT NULL, until REAL,"
    " is_secret INTEGER NOT NULL)",
    "indexed": "(name TEXT, score REAL, key TEXT, PRIMARY KEY (name, score, key)) WITHOUT ROWID",
    "revision": "(number INTEGER NOT NULL)",
}
"""What follows the name of each table. A file with other tables is refused."""

_INDEXES = {"documents_by_end": "documents (until) WHERE until IS NOT NULL", "indexed_by_key": "indexed (key)"}

_POLL = 0.25
"""Seconds between two looks for changes by other processes."""


class SqliteStore(Store):
    """Store in a file, or in memory for the life of the process (`:memory:`)."""

    def __init__(self, path: str) -> None:
        self.file = SqliteFile(path, _TABLES, _INDEXES, {"revision": "0"})

    async def read(self, keys: Collection[str]) -> dict[str, Document]:
        return self._read(keys)

    def _read(self, keys: Collection[str]) -> dict[str, Document]:
        """Return the documents. Not a coroutine: if a transaction awaited, another task could write within it."""
        places = ", ".join("?" * len(keys))
        rows = self.file.execute(f"SELECT key, value, version FROM documents WHERE key IN ({places})", tuple(keys))  # noqa: S608
        return {row["key"]: Document(*row) for row in rows}

    async def scan(
        self,
        indexes: Collection[str],
        low: float = -inf,
        high: float = inf,
        *,
        newest: bool = False,
        limit: int | None = None,
    ) -> list[Document]:
        order = "DESC" if newest else "ASC"
        statement = (
            "SELECT key, value, version FROM indexed JOIN documents USING (key)"  # noqa: S608
            f" WHERE name = ? AND score > ? AND score <= ? ORDER BY score {order} LIMIT ?"
        )
        most = -1 if limit is None else limit
        return [Document(*row) for name in indexes for row in self.file.execute(statement, (name, low, high, most))]

    async def commit(
        self,
        expected: Mapping[str, int],
        writes: Sequence[Write],
        *,
        is_news: bool = False,  # noqa: ARG002 - each commit wakes those who wait
    ) -> Commit:
        with self.file.transaction():
            if any(self._version(key) != version for key, version in expected.items()):
                return Commit(found=self._read(expected.keys()))
            self.file.execute("UPDATE revision SET number = number + 1")
            ((version,),) = self.file.execute("SELECT number FROM revision")
            for write in writes:
                self._write(write, version, is_new=expected[write.key] == 0)
            has_deleted_secrets = any(write.is_secret and write.value is None for write in writes)
        if has_deleted_secrets:
            self.file.empty_log()
        return Commit(version)

    def _version(self, key: str) -> int:
        """Return the version of a document; 0 if it does not exist."""
        rows = self.file.execute("SELECT version FROM documents WHERE key = ?", (key,))
        return int(rows[0]["version"]) if rows else 0

    def _write(self, write: Write, version: int, *, is_new: bool) -> None:
        if not is_new:
            self.file.execute("DELETE FROM indexed WHERE key = ?", (write.key,))
        if write.value is None:
            self.file.execute("DELETE FROM documents WHERE key = ?", (write.key,))
            return
        self.file.execute(
            "REPLACE INTO documents VALUES (?, ?, ?, ?, ?)",
            (write.key, write.value, version, write.until, write.is_secret),
        )
        if write.indexes:
            rows = ", ".join("(?, ?, ?)" for _ in write.indexes)
            values = [value for name, score in write.indexes.items() for value in (name, score, write.key)]
            self.file.execute(f"INSERT INTO indexed VALUES {rows}", values)  # noqa: S608

    async def forget(self, now: float) -> None:
        """Delete what has expired, if there is any: most calls have none, and write nothing."""
        is_over = "FROM documents WHERE until <= ?"
        ((has_secrets,),) = self.file.execute(f"SELECT max(is_secret) {is_over}", (now,))
        if has_secrets is None:
            return
        with self.file.transaction():
            self.file.execute(f"DELETE FROM indexed WHERE key IN (SELECT key {is_over})", (now,))  # noqa: S608
            self.file.execute(f"DELETE {is_over}", (now,))
        if has_secrets:
            self.file.empty_log()

    async def revision(self) -> int:
        return self._revision()

    def _revision(self) -> int:
        ((number,),) = self.file.execute("SELECT number FROM revision")
        return int(number)

    async def wait(self, seen: str, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> str:
        while (current := str(self._revision())) == seen and seconds > 0:
            await sleep(min(_POLL, seconds))
            seconds -= _POLL
        return current

    async def check(self) -> None:
        """Check the whole file (used by `doctor`). Raises `LedgerUnusable` if it is damaged."""
        self.file.check()

    def close(self) -> None:
        self.file.close()

    async def aclose(self) -> None:
        self.close()
