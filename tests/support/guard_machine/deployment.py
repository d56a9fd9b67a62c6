"""What the processes of one server share: a store, an audit log, a Fastn and the right time."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fastn_mcp.audit.files import verify
from fastn_mcp.audit.log import AuditFile
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.change import FINAL_OUTCOMES, Change
from fastn_mcp.ledger.documents import Unreadable
from fastn_mcp.ledger.identity import bound_account
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.store import Store
from support.audit_entries import entries
from support.clock import Clock
from support.faulty_sandbox import FaultySandbox
from support.guard_machine.records import AgentCall, ApprovalRecord, ChangeRecord, SentChange
from support.guard_machine.vocabulary import NamedRecord
from support.memory_store import forget_memory_store
from support.stores import opened

ACCOUNT_NAME = "test"
ACCOUNT = bound_account(ACCOUNT_NAME, "")

_ALL = 1_000
"""More records than one run of the machine makes."""


class SkewedClock(Clock):
    """Clock of a machine that differs from the right one by so many seconds."""

    def __init__(self, right: Clock, seconds: float) -> None:
        self._right = right
        self._skew = timedelta(seconds=seconds)
        self.waits: list[float] = []

    @property
    def at(self) -> datetime:  # pyright: ignore[reportIncompatibleVariableOverride] - it follows another clock
        return self._right.at + self._skew

    def pass_(self, seconds: float = 0, **time: float) -> None:
        self._right.pass_(seconds, **time)


class Deployment:
    """One store, one audit log, one Fastn and the right time, for all processes of a server."""

    def __init__(self, folder: Path, store_address: str) -> None:
        self.folder = folder
        self.clock = Clock()
        self.sandbox = FaultySandbox(self.clock.now)
        self.sandbox.behaviour = self.sandbox.behaviour.model_copy(update={"rate_limit": 1_000_000})
        self.fastn_faults: list[str] = []
        """What Fastn does with the next changes: `FastnFault` in `wire`."""
        self.sent: list[SentChange] = []
        """Changes that reached Fastn."""
        self.on_opened: Callable[[AgentCall, str], None] = lambda call, approval_id: None  # noqa: ARG005
        """Gets each approval request that a call opens."""
        self.on_form_answered: Callable[[AgentCall], None] = lambda call: None  # noqa: ARG005
        """Gets each call whose form is answered within it."""
        self._store_address = store_address
        self._number = 0
        self.ledger = Ledger(self.open_store())
        self.audit_path = folder / "audit.jsonl"
        self.audit = AuditFile(self.audit_path, self.clock.system("p"))

    def open_store(self) -> Store:
        """Return another way into the store, as another process has it."""
        return opened(self._store_address, self.clock.system()).store

    def next_number(self) -> int:
        """Return the next number in the order of everything that happens. No clock tells it."""
        self._number += 1
        return self._number

    @property
    def now(self) -> float:
        """Unix seconds, by the right clock."""
        return self.clock.at.timestamp()

    # --- what is stored, read past every process -------------------------------------------------------------------

    async def requests(self) -> list[ApprovalRequest]:
        """Return all approval requests that can be read, oldest first."""
        requests = [*await self.ledger.open_requests(ACCOUNT, 0.0), *await self.ledger.decided(_ALL)]
        return sorted(requests, key=lambda request: (request.created, request.id))

    async def approvals(self) -> dict[str, ApprovalRecord]:
        """Return all approval requests by id."""
        return {request.id: approval_record(request) for request in await self.requests()}

    async def approval(self, approval_id: str) -> ApprovalRecord | None:
        """Return an approval request; None if there is none that can be read."""
        try:
            found = await self.ledger.find(approval_id)
        except Unreadable:
            return None
        return None if found is None else approval_record(found)

    async def stored_changes(self) -> list[Change]:
        """Return all changes that can be read, newest first."""
        return await self.ledger.changes(ACCOUNT, _ALL, float("inf"))

    async def changes(self) -> list[ChangeRecord]:
        return [change_record(change) for change in await self.stored_changes()]

    async def change(self, change_id: str) -> ChangeRecord | None:
        found = await self.ledger.change(ACCOUNT, change_id)
        return None if found is None else change_record(found)

    def audit_entries(self) -> list[dict[str, Any]]:
        """Return the entries of the audit log as they are on the disk."""
        return [dict(entry) for entry in entries(self.audit_path)] if self.audit_path.exists() else []

    def audit_problem(self) -> str | None:
        """Return what is wrong with the chain of the audit log; None if nothing is."""
        if not self.audit_path.exists():
            return None
        report = verify(self.audit_path)
        if report.broken is not None:
            return f"line {report.broken.line}: {report.broken.problem}"
        return f"entries {report.shortened} say that the log was shortened" if report.shortened else None

    # --- the dashboard of Fastn ------------------------------------------------------------------------------------

    def rename(self, record: NamedRecord, name: str) -> bool:
        """Rename a record in the dashboard. False if it was deleted."""
        row = self.sandbox.state.get(record.collection, record.id)
        if row is None:
            return False
        row["name"] = name
        return True

    async def aclose(self) -> None:
        self.audit.close()
        await self.ledger.aclose()
        forget_memory_store(self._store_address)


def approval_record(request: ApprovalRequest) -> ApprovalRecord:
    return ApprovalRecord(
        id=request.id,
        principal=request.principal,
        text=tuple(request.question.lines()),
        state=request.state.value,
        used=request.used,
        required=request.required,
        expected=request.expected,
        is_form=not request.out_of_band,
        expires=request.expires,
    )


def change_record(change: Change) -> ChangeRecord:
    return ChangeRecord(
        id=change.id,
        tool=change.tool,
        outcome=change.outcome,
        approval_id=change.approval,
        call_id=change.call_id,
        list_id=change.batch,
        number=change.number,
        is_final=change.outcome in FINAL_OUTCOMES,
        unsettled_until=change.unsettled_until,
    )
