"""Ledger in SQLite, for the processes of one person.

Each change is on disk when its method returns, so that an approval stays used after a power loss.
"""

from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from typing import Any

from fastn_mcp.ledger.approval_request import (
    ApprovalRequest,
    RequestState,
    SealedSecret,
    Transition,
    declines_after,
)
from fastn_mcp.ledger.change import BEGUN, FINAL_OUTCOMES, KEPT_DAYS, OUTCOME_FIELDS, Change, Journal
from fastn_mcp.ledger.ledger import (
    MAX_WAITING,
    SAME_REQUEST,
    ApprovalRequests,
    BudgetLimit,
    BudgetUses,
    Ledger,
    Marks,
    Stop,
    StopOrders,
    TooManyWaiting,
    rate_free_at,
)
from fastn_mcp.ledger.serialization import StoredValue, columns, load, store
from fastn_mcp.ledger.sqlite_file import SqliteFile, named
from fastn_mcp.ledger.storage_limits import (
    MAX_JOURNAL_BYTES,
    MAX_OPEN_BYTES,
    MAX_REQUEST_BYTES,
    JournalFull,
    RequestsFull,
    StoredItem,
    is_past,
    is_settled,
    items_to_drop,
    stored_size,
    without_state,
)

FILE = "ledger.sqlite"
"""File name in the state folder."""

_TABLES = {
    "requests": f"{columns(ApprovalRequest)}, size INTEGER NOT NULL",
    "typed_secrets": (
        "request TEXT, approver TEXT, sealed TEXT NOT NULL, until REAL NOT NULL, PRIMARY KEY (request, approver)"
    ),
    "declines": "principal TEXT PRIMARY KEY, count INTEGER NOT NULL, last REAL NOT NULL",
    "marks": "name TEXT PRIMARY KEY, until REAL NOT NULL",
    "budgets": "budget TEXT, period TEXT, used INTEGER NOT NULL, PRIMARY KEY (budget, period)",
    "rates": "budget TEXT NOT NULL, at REAL NOT NULL",
    "audit_marks": "log TEXT PRIMARY KEY, n INTEGER NOT NULL, head TEXT NOT NULL",
    "changes": f"{columns(Change)}, size INTEGER NOT NULL",
    "stops": columns(Stop),
}
"""Columns by table. A file with other columns is refused."""

_INDEXES = {
    "requests_by_call": "requests (call, created)",
    "requests_by_state": "requests (state, principal)",
    "requests_by_caller": "requests (principal, account, created, state, expires, temporary_until, size)",
    "requests_by_end": "requests (expires)",
    "requests_by_decision": "requests (coalesce(decided, created))",
    "marks_by_end": "marks (until)",
    "requests_by_similar": "requests (similar, temporary_until)",
    "requests_by_temporary": "requests (temporary_until)",
    "rates_by_time": "rates (budget, at)",
    "changes_by_time": "changes (account, at)",
    "changes_by_caller": (
        "changes (principal, account, at, outcome, unsettled_until, undone_at, is_state_dropped, size)"
    ),
    "changes_by_age": "changes (at)",
    "changes_by_batch": "changes (batch, number)",
    "changes_by_approval": "changes (approval) WHERE approval != ''",
    "changes_by_call": "changes (call, unsettled_until) WHERE unsettled_until > 0",
}

_SAME_REQUEST = (
    f"SELECT id FROM requests WHERE {' AND '.join(f'{name} = :{name}' for name in SAME_REQUEST)} AND id != :id"  # noqa: S608
    " AND out_of_band = 1 AND state = 'open' AND expires > :created ORDER BY created LIMIT 1"
)
"""Selects the open out-of-band request that is the same as a new one."""

_OUTCOME = ", ".join(f"{name} = coalesce(:{name}, {name})" for name in OUTCOME_FIELDS)

_FINAL_OUTCOMES = f"({', '.join(repr(outcome) for outcome in FINAL_OUTCOMES)})"

_HISTORY_SECONDS = KEPT_DAYS * 86_400.0
"""Seconds for which requests (after they expire), changes and lifted stops are kept."""

_MARK_SECONDS = 86_400.0
"""Seconds for which marks are kept after they expire, since clocks differ."""

_POLL = 0.25
"""Seconds between two looks for changes by other processes."""


class _SqlitePart:
    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    def _size(self, table: str, caller: tuple[str, str]) -> int:
        """Return the bytes of a caller's records. An index alone answers that, also for thousands."""
        total = f"SELECT coalesce(sum(size), 0) FROM {table} WHERE principal = ? AND account = ?"  # noqa: S608
        return int(self._file.first(total, caller)[0])


def _row(record: ApprovalRequest | Change) -> dict[str, StoredValue]:
    """Return the columns of a record: its fields and, last, its size."""
    return store(record) | {"size": stored_size(record)}


def _fields(row: Any) -> dict[str, Any]:
    """Return the fields of the record in a row."""
    return {name: value for name, value in dict(row).items() if name != "size"}


class SqliteApprovalRequests(_SqlitePart, ApprovalRequests):
    async def open(self, request: ApprovalRequest) -> str:
        values = _row(request)
        with self._file.transaction():
            if request.out_of_band and (same := self._file.first(_SAME_REQUEST, values)):
                return str(same[0])
            ((waiting, size),) = self._file.execute(
                "SELECT count(*), coalesce(sum(size), 0) FROM requests"
                " WHERE principal = :principal AND account = :account AND state = 'open' AND expires > :created",
                values,
            )
            if waiting >= MAX_WAITING:
                raise TooManyWaiting
            if size + stored_size(request) > MAX_OPEN_BYTES:
                raise RequestsFull(waiting=True)
            self._make_room(request)
            self._file.write("INSERT INTO requests", values)
            self._file.execute("DELETE FROM requests WHERE expires < ?", (request.created - _HISTORY_SECONDS,))
        self._forget_typed(request.created)
        return request.id

    def _make_room(self, request: ApprovalRequest) -> None:
        """Delete past decisions of a caller that a new request leaves no room for. Raises `RequestsFull`."""
        caller = (request.principal, request.account)
        excess = self._size("requests", caller) + stored_size(request) - MAX_REQUEST_BYTES
        if excess <= 0:
            return
        rows = self._file.execute(
            "SELECT id, size, state, expires, temporary_until FROM requests"
            " WHERE principal = ? AND account = ? ORDER BY created",
            caller,
        )
        now = request.created
        items = [
            StoredItem(
                row["id"],
                row["size"],
                is_past(RequestState(row["state"]), row["expires"], row["temporary_until"], now),
            )
            for row in rows
        ]
        dropped = items_to_drop(items, excess)
        if not dropped:
            raise RequestsFull(waiting=False)
        for item in dropped:
            self._file.execute("DELETE FROM requests WHERE id = ?", (item.id,))

    async def find(self, request: str) -> ApprovalRequest | None:
        return next(self._requests("WHERE id = ?", request), None)

    async def still_open(self, requests: Collection[str]) -> set[str]:
        rows = self._file.execute("SELECT id FROM requests WHERE state = 'open'")
        return {id_ for (id_,) in rows}.intersection(requests)

    async def latest(self, call: str, now: float) -> ApprovalRequest | None:
        of_call = self._requests("WHERE call = ? AND expires > ? ORDER BY created DESC", call, now)
        return next((request for request in of_call if request.is_found(now)), None)

    async def change_request(
        self, request: str, transition: Transition, secret: SealedSecret | None = None
    ) -> ApprovalRequest | None:
        forgotten = 0
        with self._file.transaction():
            before = next(self._requests("WHERE id = ?", request), None)
            after = None if before is None else transition(before)
            if after is None or before is None:
                return None
            if after.is_over:
                forgotten = self._file.change("DELETE FROM typed_secrets WHERE request = ?", (request,))
            elif secret is not None:
                values = (request, secret.approver, secret.text, after.expires)
                self._file.execute("INSERT OR REPLACE INTO typed_secrets VALUES (?, ?, ?, ?)", values)
            self._file.write("REPLACE INTO requests", _row(after))
            self._count_declines(before, after)
        if forgotten:
            self._file.empty_log()
        return after

    def _count_declines(self, before: ApprovalRequest, after: ApprovalRequest) -> None:
        match declines_after(before, after):
            case 1:
                self._file.execute(
                    "INSERT INTO declines VALUES (?, 1, ?)"
                    " ON CONFLICT (principal) DO UPDATE SET count = count + 1, last = excluded.last",
                    (after.holder, after.decided),
                )
            case 0:
                self._file.execute("DELETE FROM declines WHERE principal = ?", (after.holder,))
            case _:
                pass

    def _forget_typed(self, now: float) -> None:
        """Delete what was typed and has expired, if there is any: most calls have none, and write nothing."""
        if self._file.execute("SELECT 1 FROM typed_secrets WHERE until <= ? LIMIT 1", (now,)):
            self._file.execute("DELETE FROM typed_secrets WHERE until <= ?", (now,))
            self._file.empty_log()

    async def sealed(self, request: str, approver: str, now: float) -> str | None:
        typed = "SELECT sealed FROM typed_secrets WHERE request = ? AND approver = ? AND until > ?"
        row = self._file.first(typed, (request, approver, now))
        return str(row[0]) if row else None

    async def expiring(self, account: str, now: float) -> list[str]:
        self._forget_typed(now)
        over = "SELECT id FROM requests WHERE state = 'open' AND account = ? AND expires <= ?"
        return [id_ for (id_,) in self._file.execute(over, (account, now))]

    async def open_requests(self, account: str, now: float) -> list[ApprovalRequest]:
        return list(self._requests("WHERE account = ? AND state = 'open' AND expires > ?", account, now))

    async def waiting(self, now: float) -> list[ApprovalRequest]:
        return list(self._requests("WHERE out_of_band = 1 AND state = 'open' AND expires > ? ORDER BY created", now))

    async def decided(self, limit: int) -> list[ApprovalRequest]:
        return list(self._requests("WHERE state != 'open' ORDER BY coalesce(decided, created) DESC LIMIT ?", limit))

    async def find_temporary(self, similar: str, now: float) -> ApprovalRequest | None:
        return next(self._requests("WHERE similar = ? AND temporary_until > ?", similar, now), None)

    async def temporary_approvals(self, now: float) -> list[ApprovalRequest]:
        return list(self._requests("WHERE temporary_until > ? ORDER BY temporary_until", now))

    def _requests(self, where: str, *values: object) -> Iterator[ApprovalRequest]:
        for row in self._file.execute(f"SELECT * FROM requests {where}", values):  # noqa: S608
            yield load(ApprovalRequest, _fields(row))

    async def declines(self, principal: str) -> tuple[int, float]:
        row = self._file.first("SELECT count, last FROM declines WHERE principal = ?", (principal,))
        return (row[0], row[1]) if row else (0, 0.0)

    async def wait_for_change(self, seen: str, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> str:
        while (current := str(self._file.revision())) == seen and seconds > 0:
            await sleep(min(_POLL, seconds))
            seconds -= _POLL
        return current


class SqliteBudgetUses(_SqlitePart, BudgetUses):
    async def spent(self, budget: str, period: str) -> int:
        return self._spent(budget, period)

    def _spent(self, budget: str, period: str) -> int:
        """Return the uses. Not a coroutine: if a transaction awaited, another task could write within it."""
        row = self._file.first("SELECT used FROM budgets WHERE budget = ? AND period = ?", (budget, period))
        return int(row[0]) if row else 0

    async def spend_all(self, limits: Sequence[BudgetLimit]) -> bool:
        with self._file.transaction():
            for each in limits:
                if self._spent(each.budget, each.period) >= each.limit:
                    return False
            for each in limits:
                self._file.execute(
                    "INSERT INTO budgets VALUES (?, ?, 1) ON CONFLICT (budget, period) DO UPDATE SET used = used + 1",
                    (each.budget, each.period),
                )
        return True

    async def spend_rate(self, budget: str, most: int, seconds: float, now: float) -> float:
        spent = self._file.change(
            "INSERT INTO rates SELECT ?, ? WHERE (SELECT count(*) FROM rates WHERE budget = ? AND at > ?) < ?",
            (budget, now, budget, now - seconds, most),
        )
        if not spent:
            return rate_free_at(await self.rate_uses(budget, seconds, now), most, seconds) or now
        self._file.execute("DELETE FROM rates WHERE budget = ? AND at <= ?", (budget, now - seconds))
        return 0.0

    async def rate_uses(self, budget: str, seconds: float, now: float) -> list[float]:
        rows = self._file.execute(
            "SELECT at FROM rates WHERE budget = ? AND at > ? ORDER BY at", (budget, now - seconds)
        )
        return [float(at) for (at,) in rows]


class SqliteMarks(_SqlitePart, Marks):
    async def set_mark(self, name: str, until: float, now: float, *, unless: float) -> bool:
        self._file.execute("DELETE FROM marks WHERE until < ?", (now - _MARK_SECONDS,))
        marked = self._file.change(
            "INSERT INTO marks VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET until = excluded.until WHERE until < ?",
            (name, until, unless),
        )
        return marked == 1

    async def marked(self, name: str) -> float:
        row = self._file.first("SELECT until FROM marks WHERE name = ?", (name,))
        return float(row[0]) if row else 0.0


class SqliteJournal(_SqlitePart, Journal):
    async def begin(self, change: Change) -> bool:
        values = _row(change)
        with self._file.transaction():
            self._file.execute("DELETE FROM changes WHERE at < ?", (change.at - _HISTORY_SECONDS,))
            begun = self._file.change(
                f"INSERT INTO changes SELECT {named(values)} WHERE NOT EXISTS (SELECT 1 FROM changes"  # noqa: S608
                f" WHERE :batch != '' AND batch = :batch AND number = :number AND outcome IN {_FINAL_OUTCOMES})",
                values,
            )
            if begun:
                while self._drop_states(change):
                    pass
        return begun == 1

    def _drop_states(self, change: Change) -> bool:
        """Drop what the caller's journal has no room for, beside a new change. False if it has room.

        Raises `JournalFull`.
        """
        caller = (change.principal, change.account)
        excess = self._size("changes", caller) - MAX_JOURNAL_BYTES
        if excess <= 0:
            return False
        rows = self._file.execute(
            "SELECT id, size, outcome, unsettled_until, undone_at, is_state_dropped FROM changes"
            " WHERE principal = ? AND account = ? ORDER BY at",
            caller,
        )
        items = [
            StoredItem(
                row["id"],
                row["size"],
                row["id"] != change.id
                and is_settled(row["outcome"], row["unsettled_until"], row["undone_at"], change.at),
                has_state=not row["is_state_dropped"],
            )
            for row in rows
        ]
        dropped = items_to_drop(items, excess)
        if not dropped:
            raise JournalFull
        for item in dropped:
            if item.has_state:
                kept = without_state(next(self._changes("WHERE id = ?", item.id)))
                self._file.write("REPLACE INTO changes", _row(kept))
            else:
                self._file.execute("DELETE FROM changes WHERE id = ?", (item.id,))
        return True

    async def changes_of(self, batch: str) -> list[Change]:
        return list(
            self._changes(f"WHERE batch = ? AND batch != '' AND outcome IN {_FINAL_OUTCOMES} ORDER BY number", batch)
        )

    async def settle(self, change: Change) -> None:
        self._file.execute(f"UPDATE changes SET {_OUTCOME}, size = :size WHERE id = :id", _row(change))  # noqa: S608

    async def unsettled(self, call: str, now: float) -> dict[str, float]:
        rows = self._file.execute(
            "SELECT id, unsettled_until FROM changes WHERE call = ? AND unsettled_until > ? AND unsettled_until > 0",
            (call, now),
        )
        return dict(rows)

    async def change(self, account: str, change: str) -> Change | None:
        return next(self._changes("WHERE account = ? AND id = ?", account, change), None)

    async def changes(self, account: str, limit: int, before: float) -> list[Change]:
        return list(self._changes("WHERE account = ? AND at < ? ORDER BY at DESC LIMIT ?", account, before, limit))

    async def under_way(self, since: float) -> list[Change]:
        return list(self._changes("WHERE at > ? AND outcome = ? ORDER BY at", since, BEGUN))

    async def changes_by(self, approvals: Collection[str]) -> list[Change]:
        places = ", ".join("?" * len(approvals))
        return list(self._changes(f"WHERE approval != '' AND approval IN ({places}) ORDER BY at", *approvals))

    def _changes(self, where: str, *values: object) -> Iterator[Change]:
        for row in self._file.execute(f"SELECT * FROM changes {where}", values):  # noqa: S608
            yield load(Change, _fields(row))

    async def claim(self, change: str, now: float) -> bool:
        claim = "UPDATE changes SET undone_at = ? WHERE id = ? AND undone_at = 0"
        return self._file.change(claim, (now, change)) == 1

    async def release(self, change: str) -> None:
        self._file.execute("UPDATE changes SET undone_at = 0 WHERE id = ?", (change,))


class SqliteStops(_SqlitePart, StopOrders):
    async def add_stop(self, stop: Stop) -> None:
        self._file.write("INSERT INTO stops", store(stop))
        self._file.execute("DELETE FROM stops WHERE lifted < ?", (stop.at - _HISTORY_SECONDS,))

    async def lift_stop(self, stop: Stop) -> bool:
        lift = "UPDATE stops SET lifted = :lifted, lifted_by = :lifted_by WHERE id = :id AND lifted IS NULL"
        return self._file.change(lift, store(stop)) == 1

    async def stops(self) -> list[Stop]:
        return [load(Stop, dict(row)) for row in self._file.execute("SELECT * FROM stops ORDER BY at")]


class SqliteLedger(
    SqliteApprovalRequests, SqliteBudgetUses, SqliteMarks, SqliteJournal, SqliteStops,
    Ledger,
):  # fmt: skip
    """Ledger in a file, or in memory for the life of the process (`:memory:`)."""

    def __init__(self, path: str) -> None:
        super().__init__(SqliteFile(path, _TABLES, _INDEXES))

    async def mark_audit(self, log: str, n: int, head: str) -> None:
        self._file.execute(
            "INSERT INTO audit_marks VALUES (?, ?, ?)"
            " ON CONFLICT (log) DO UPDATE SET n = excluded.n, head = excluded.head WHERE n < excluded.n",
            (log, n, head),
        )

    async def audit_mark(self, log: str) -> tuple[int, str] | None:
        row = self._file.first("SELECT n, head FROM audit_marks WHERE log = ?", (log,))
        return (row[0], row[1]) if row else None

    async def revision(self) -> int:
        return self._file.revision()

    async def check(self) -> None:
        """Check the whole file (used by `doctor`). Raises `LedgerUnusable` if it is damaged."""
        self._file.check()

    def close(self) -> None:
        self._file.close()

    async def aclose(self) -> None:
        self.close()
