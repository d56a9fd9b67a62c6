"""The ledger in SQLite, for one person's processes. Opened when it is first needed."""

import sqlite3
from functools import cached_property

from fastn_mcp.guard.ledger import Grant, State

_TABLES = """
CREATE TABLE IF NOT EXISTS grants (
    id TEXT PRIMARY KEY, binding TEXT NOT NULL, expires REAL NOT NULL, state TEXT NOT NULL
);
"""


class SqliteLedger:
    """Grants in a file, or in memory for the life of the process (`:memory:`)."""

    def __init__(self, path: str) -> None:
        self._path = path

    @cached_property
    def _database(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, isolation_level=None, timeout=5.0)
        database.executescript(_TABLES)
        return database

    async def open(self, grant: Grant) -> None:
        row = (grant.id, grant.binding, grant.expires, State.OPEN.value)
        self._database.execute("INSERT INTO grants VALUES (?, ?, ?, ?)", row)

    async def find(self, grant: str) -> Grant | None:
        row = self._database.execute("SELECT id, binding, expires FROM grants WHERE id = ?", (grant,)).fetchone()
        return None if row is None else Grant(*row)

    async def close(self, grant: str, state: State, now: float) -> bool:
        changed = self._database.execute(
            "UPDATE grants SET state = ? WHERE id = ? AND state = ? AND expires > ?",
            (state.value, grant, State.OPEN.value, now),
        )
        return changed.rowcount == 1
