"""Base class and context of procedures: guarded calls, clock, journal and progress."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic

from pydantic import JsonValue
from typing_extensions import override

from fastn_mcp.account.directory import Directory
from fastn_mcp.account.targets import Call, Send
from fastn_mcp.guard.approval.request import PendingApproval, PendingForm
from fastn_mcp.guard.changes import Batch, BatchResult, Done, Journal
from fastn_mcp.guard.evaluation import Evaluation
from fastn_mcp.runtime import Report, System
from fastn_mcp.tools.tool import Effect, Result, Tool

Pending = PendingForm | PendingApproval | Evaluation
"""Outcome without a result: a pending approval request, or the evaluation of a preview."""


@dataclass(frozen=True, slots=True)
class ProcedureContext:
    """Dependencies of a procedure. `read` sends one read and raises a `FastnError` if it has no result."""

    read: Send
    system: System
    report: Report
    account: str
    journal: Journal
    directory: Directory
    execute: Callable[[Batch], Awaitable[BatchResult | Pending]]
    """Send changes through the guard, including its approval request: `Guard.execute` or `Guard.preview`."""
    allowance: Callable[[], Awaitable[dict[str, JsonValue]]]
    """Read what the guard still allows: the mode, and the rest of budgets and of a plan."""

    async def change(self, call: Call, undoes: str = "") -> Done | Pending:
        """Send one change. A procedure returns a `Pending` outcome as its own. Raises a `FastnError`."""
        outcome = await self.execute(Batch(call, (call,), undoes=undoes))
        return outcome.single() if isinstance(outcome, BatchResult) else outcome


class Procedure(Tool[Result], Generic[Result]):
    """Tool that combines several calls. Subclasses define `run`, and `effect`: the strongest effect of its calls.

    After an approval, `run` starts again from the beginning: it may only read before its one change.
    """

    async def run(self, context: ProcedureContext) -> Result | Done | Pending:
        """Return the result, or the approval request or evaluation that stopped it. Raises a `FastnError`."""
        raise NotImplementedError

    @classmethod
    @override
    def toolset(cls) -> str:
        return "procedures"

    @classmethod
    @override
    def idempotent(cls) -> bool:
        return True

    @classmethod
    @override
    def destructive(cls) -> bool:
        return cls.effect is not Effect.READ
