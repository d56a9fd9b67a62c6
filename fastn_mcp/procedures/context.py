"""What a procedure works with: guarded calls, the clock, the journal and progress."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

from pydantic import JsonValue
from typing_extensions import override

from fastn_mcp.errors import NotSent
from fastn_mcp.fastn.directory import Directory
from fastn_mcp.fastn.targets import Call, Send
from fastn_mcp.guard.changes import Batch, Batching, Journal
from fastn_mcp.runtime import System
from fastn_mcp.tools.tool import Effect, Result, Tool

Report = Callable[[str, float, float | None], Awaitable[None]]
"""Tells whoever waits what is being done, how far it is, and how far it goes, where that is known."""


async def unheard(message: str, done: float, total: float | None) -> None:
    """A report to nobody."""


Allowance = Callable[[], Awaitable[dict[str, JsonValue]]]
"""What the guard still allows: the mode, and what is left of budgets and of a plan."""


async def unlimited() -> dict[str, JsonValue]:
    """No limits are known."""
    return {}


def apart(_: Tool[Any], __: Sequence[Call], ___: str | None) -> Batch:
    """No calls can be approved together."""
    raise NotSent("Nobody can agree to several calls at once here.")


@dataclass(frozen=True, slots=True)
class ProcedureContext:
    """What a procedure works with. `send` makes one call, the guard's question included: it may end the procedure.

    `batch` makes several, with one question.
    """

    send: Send
    system: System
    report: Report
    account: str
    journal: Journal
    directory: Directory
    batch: Batching = apart
    allowance: Allowance = unlimited


class Procedure(Tool[Result], Generic[Result]):
    """Subclasses give their `effect`, the most that their calls do, and `run`.

    `run` is begun anew where a person had to be asked first: up to its one change, it only reads.
    """

    async def run(self, means: ProcedureContext) -> Result:
        """Do it. Raises a `FastnError`."""
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
