"""Steps of a process: each thing that a call does outside of itself, before or after which something can happen."""

import inspect
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, TypeVar

import anyio
from typing_extensions import override

from fastn_mcp.audit.log import AuditFile, LogEntry, Unwritten
from fastn_mcp.client.exchange import NotSentError, ResponseLost
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.ledger.store import Commit, Document, LedgerLost, LedgerUnusable, Store, Write
from fastn_mcp.runtime import System
from support.decisions import Killed
from support.guard_machine.deployment import Deployment
from support.guard_machine.records import CURRENT_CALL, AgentCall, Failure, Interruption, Kind, Moment

Result = TypeVar("Result")

HISTORY_READ = "recent_changes"

TOLERATED = frozenset({"settle", "release", "wait_for_change", "still_open", "holding", HISTORY_READ})
"""Steps of the ledger after whose failure the call may be sent.

`settle` and `release` come after the request. `wait_for_change`, `still_open` and `holding` only say when a waiting
call looks again: it is then judged anew, and `stops` is read before it is sent. `recent_changes` is the history of a
record that people read ("recent changes by this server"). Neither the policy nor the binding looks at it, so that
no failure of it can decide in favour of a call. That people are told it is missing is an invariant of its own
(`Invariants.unread_history_is_told`).
"""

_CURRENT_STEP: ContextVar[str] = ContextVar("current step of the ledger", default="")


class ProcessSteps:
    """Takes the steps of one process, with what interrupts them. Nothing more happens in a process that was killed."""

    def __init__(self, deployment: Deployment, store: Store) -> None:
        self.is_dead = False
        self._deployment = deployment
        self._is_file = isinstance(store, SqliteStore)

    async def take(self, kind: Kind, what: str, act: Callable[[], Awaitable[Result]]) -> Result:
        """Take a step. `what` names it: the method of the ledger, or the path of a request."""
        if self.is_dead:
            raise Killed
        call = CURRENT_CALL.get()
        if call is None:
            return await act()
        is_of_store = kind in ("store", "commit")
        self._count(call, kind, what if is_of_store else "")
        await self._interrupt(call, kind, what, "before")
        if is_of_store and call.is_store_down:
            raise self._failed(call, kind, what, "before")
        if kind == "store":
            call.stops_read_at = self._deployment.next_number()
        if is_of_store and what == "begin":
            call.begun_at = self._deployment.next_number()
        result = await act()
        if kind == "store" and what == "open":
            approval_id = str(result)
            call.opened.append(approval_id)
            self._deployment.on_opened(call, approval_id)
        await self._interrupt(call, kind, what, "after")
        return result

    def record(self, record: Callable[[LogEntry], str], entry: LogEntry) -> str:
        """Take a step of the audit log. Only failures interrupt it, since it does not wait."""
        if self.is_dead:
            raise Killed
        call = CURRENT_CALL.get()
        if call is None:
            return record(entry)
        name = entry.event.value
        self._count(call, "audit", name)
        self._fail_if_due(call, "audit", name, "before")
        number = record(entry)
        if name == "intent":
            call.stops_read_at = self._deployment.next_number()
        self._fail_if_due(call, "audit", name, "after")
        return number

    def _count(self, call: AgentCall, kind: Kind, name: str) -> None:
        call.step_counts[kind, ""] += 1
        if name:
            call.step_counts[kind, name] += 1

    async def _interrupt(self, call: AgentCall, kind: Kind, what: str, moment: Moment) -> None:
        interruption = self._due(call, kind, what, moment)
        if interruption is None:
            return
        act = interruption.act
        if not callable(act):
            self._strike(call, act, kind, what, moment)
            return
        with anyio.CancelScope(shield=True):
            await act()

    def _fail_if_due(self, call: AgentCall, kind: Kind, what: str, moment: Moment) -> None:
        interruption = self._due(call, kind, what, moment)
        act = None if interruption is None else interruption.act
        if act is not None and not callable(act):
            self._strike(call, act, kind, what, moment)

    def _due(self, call: AgentCall, kind: Kind, what: str, moment: Moment) -> Interruption | None:
        """Return what interrupts the step that was counted last; None if nothing does."""
        due = call.interruption
        if due is None or due.is_done or due.moment != moment:
            return None
        step = due.step
        if step.kind != kind or step.name not in ("", what):
            return None
        if call.step_counts[kind, step.name] != step.number + 1:
            return None
        due.is_done = True
        return due

    def _strike(self, call: AgentCall, act: Failure, kind: Kind, what: str, moment: Moment) -> None:
        match act:
            case "kill":
                self.is_dead = True
                raise Killed
            case "cancel":
                call.cancelled_at = self._deployment.next_number()
                call.scope.cancel()
            case "fail":
                raise self._failed(call, kind, what, moment)
            case "outage":
                call.is_store_down = True
                if kind in ("store", "commit"):
                    raise self._failed(call, kind, what, moment)

    def _failed(self, call: AgentCall, kind: Kind, what: str, moment: Moment) -> Exception:
        """Return the error of a step that failed (`before`), or whose answer was lost (`after`)."""
        match kind:
            case "change":
                return NotSentError("ConnectError") if moment == "before" else ResponseLost("ReadError")
            case "read":
                return ResponseLost("ReadError")
            case "audit":
                return Unwritten("The audit log cannot be written.", "A person has to fix it.")
            case "store" | "commit":
                if what == HISTORY_READ:
                    call.is_history_unread = True
                elif what not in TOLERATED and call.failed_at is None:
                    call.failed_step = what
                    call.failed_at = self._deployment.next_number()
                if self._is_file:
                    return LedgerUnusable("ledger.sqlite", "the disk is full", "free space on its disk.")
                return LedgerLost("a test")


class SteppedLedger:
    """Ledger of a process, each use of which is a step of it. It passes for a `Ledger`."""

    def __init__(self, inner: Ledger, steps: ProcessSteps) -> None:
        self._inner = inner
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if name == "wait_for_change":
            method = self._pass_time
        if not inspect.iscoroutinefunction(method):
            return method

        async def stepped(*args: Any, **named: Any) -> Any:
            token = _CURRENT_STEP.set(name)
            try:
                return await self._steps.take("store", name, partial(method, *args, **named))
            finally:
                _CURRENT_STEP.reset(token)

        return stepped

    async def _pass_time(self, seen: str, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> str:
        """Take the place of `Ledger.wait_for_change`, which waits for other processes by the real clock."""
        await sleep(seconds)
        return f"{seen}."


class SteppedStore(Store):
    """Store of a process, each commit to which is a step of it: others may write between a read and a commit."""

    def __init__(self, inner: Store, steps: ProcessSteps) -> None:
        self._inner = inner
        self._steps = steps

    @override
    async def read(self, keys: Collection[str]) -> dict[str, Document]:
        return await self._inner.read(keys)

    @override
    async def scan(
        self,
        indexes: Collection[str],
        low: float = -inf,
        high: float = inf,
        *,
        newest: bool = False,
        limit: int | None = None,
    ) -> list[Document]:
        return await self._inner.scan(indexes, low, high, newest=newest, limit=limit)

    @override
    async def commit(self, expected: Mapping[str, int], writes: Sequence[Write], *, is_news: bool = False) -> Commit:
        act = partial(self._inner.commit, expected, writes, is_news=is_news)
        return await self._steps.take("commit", _CURRENT_STEP.get(), act)

    @override
    async def forget(self, now: float) -> None:
        await self._inner.forget(now)

    @override
    async def revision(self) -> int:
        return await self._inner.revision()

    @override
    async def wait(self, seen: str, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> str:
        return await self._inner.wait(seen, seconds, sleep)

    @override
    async def aclose(self) -> None:
        await self._inner.aclose()


class SteppedAuditFile(AuditFile):
    """Audit log of a process, each entry of which is a step of it."""

    def __init__(self, path: Path, system: System, steps: ProcessSteps) -> None:
        super().__init__(path, system)
        self._steps = steps

    @override
    def record(self, entry: LogEntry) -> str:
        return self._steps.record(super().record, entry)
