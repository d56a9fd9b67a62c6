"""Base class and context of procedures: guarded calls, clock, journal and progress."""

from dataclasses import dataclass
from typing import Any, Generic, Protocol

from typing_extensions import override

from fastn_mcp.account.answer_reads import AnswerReads
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.evaluation import Evaluation
from fastn_mcp.guard.guard import Guard
from fastn_mcp.guard.journal import ChangeJournal
from fastn_mcp.guard.result import Done, ListResult
from fastn_mcp.ledger.change import Change
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.runtime import Report, System
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.selection import EnabledTools
from fastn_mcp.tools.tool import Effect, Result, Tool

Pending = PendingApproval | Evaluation
"""Outcome without a result: a pending approval request, or the evaluation of a preview."""


class Executor(Protocol):
    """Sends changes through the guard, including their approval request, or only evaluates them."""

    async def execute(
        self, tool: Tool[Any], caller: Caller, report: Report, undoes: Change | None = None
    ) -> Done | ListResult | Pending:
        """Return the result, the open approval request or the evaluation, as `Guard.execute`. Raises a `FastnError`."""
        ...


class PreviewOnly(Executor):
    """Evaluates changes by fresh reads, and sends none."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    @override
    async def execute(
        self, tool: Tool[Any], caller: Caller, report: Report, undoes: Change | None = None
    ) -> Done | ListResult | Pending:
        return await self._guard.preview(tool, caller, undoes)


@dataclass(frozen=True, slots=True)
class ProcedureContext:
    """One call of a tool: the guard of the account, how changes are sent, and the caller."""

    guard: Guard
    executor: Executor
    caller: Caller
    report: Report
    system: System
    changes: ChangeJournal
    look: AnswerReads
    """Reads that may be answered by the snapshot, and that the rate limit may leave out."""
    tools: EnabledTools

    async def read(self, call: Call) -> FastnObject:
        """Send one read for the answer. Raises a `FastnError`: `Disabled` if the settings switch its tool off."""
        self.tools.check(call)
        return await self.guard.read(call, self.caller)

    async def read_for_change(self, call: Call) -> FastnObject:
        """Send one read that only decides whether a change may be made. What it returns is not shown to the agent."""
        return await self.guard.read(call, self.caller)

    async def change(self, call: Call, undoes: Change | None = None) -> Done | Pending:
        """Send one change. A procedure returns a `Pending` outcome as its own. Raises a `FastnError`."""
        outcome = await self.executor.execute(call, self.caller, self.report, undoes)
        if isinstance(outcome, ListResult):
            raise TypeError("a single call has one result")
        return outcome


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
