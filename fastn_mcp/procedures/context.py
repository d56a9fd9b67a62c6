"""What a procedure works with: guarded calls, the clock, the journal and progress."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic

from pydantic import JsonValue
from typing_extensions import override

from fastn_mcp.errors import NotSent
from fastn_mcp.fastn.directory import Directory
from fastn_mcp.fastn.targets import Call, Send
from fastn_mcp.guard.approval.request import PendingApproval, PendingForm
from fastn_mcp.guard.changes import Batch, BatchResult, Done, Journal
from fastn_mcp.guard.evaluation import Evaluation
from fastn_mcp.runtime import Report, System
from fastn_mcp.tools.tool import Effect, Result, Tool

Pending = PendingForm | PendingApproval | Evaluation
"""What comes instead of a result: a person is asked, or what would be changed is evaluated and not sent."""

Allowance = Callable[[], Awaitable[dict[str, JsonValue]]]
"""What the guard still allows: the mode, and what is left of budgets and of a plan."""


async def unlimited() -> dict[str, JsonValue]:
    """No limits are known."""
    return {}


async def no_changes(batch: Batch) -> BatchResult | Pending:
    """Nothing can be changed."""
    raise NotSent(f"{batch.tool.tool_name()}: nothing can be changed here.")


@dataclass(frozen=True, slots=True)
class ProcedureContext:
    """What a procedure works with. `read` makes one read and raises what is answered instead of a result."""

    read: Send
    system: System
    report: Report
    account: str
    journal: Journal
    directory: Directory
    execute: Callable[[Batch], Awaitable[BatchResult | Pending]] = no_changes
    """Send calls that change something, the guard's question included; `Guard.execute`, or its preview."""
    allowance: Allowance = unlimited

    async def change(self, call: Call) -> Done | Pending:
        """Send one call that changes something. A procedure returns what it cannot go on from. Raises."""
        outcome = await self.execute(Batch(call, (call,)))
        return outcome.single() if isinstance(outcome, BatchResult) else outcome


class Procedure(Tool[Result], Generic[Result]):
    """Subclasses give their `effect`, the most that their calls do, and `run`.

    `run` is begun anew where a person had to be asked first: up to its one change, it only reads.
    """

    async def run(self, context: ProcedureContext) -> Result | Done | Pending:
        """Do it, or return the approval request or the evaluation that it ended with. Raises a `FastnError`."""
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
