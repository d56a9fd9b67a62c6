"""Calls that are approved together, and how far they have come. Pure: the ledger keeps it, the guard agrees to it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fastn_mcp.offer import Offer, Record
from fastn_mcp.procedures.journal import PERHAPS_MADE, Change
from fastn_mcp.procedures.target import Call

MADE = ("done", "applied_unreadable")
FINAL = (*MADE, *PERHAPS_MADE)
"""Outcomes after which a call of a batch is never made again."""


@dataclass(frozen=True, slots=True)
class Step:
    """What is known of one call of a batch; its number counts from 1."""

    number: int
    outcome: str | None = None
    """`BEGUN` from before it is sent; None where it was never begun."""
    grant: str | None = None
    """By what it was approved together with the others, where it was."""
    change: str | None = None
    """The change in the journal that it made."""
    at: float = 0.0
    """When that was, in Unix seconds."""


class Steps(Protocol):
    """Keeps what became of the calls of batches, for whoever goes on with one."""

    async def steps(self, batch: str) -> list[Step]:
        """What is known of a batch, by number. Of a call without a step nothing is."""
        ...

    async def hold_steps(self, batch: str, grants: Mapping[int, str], at: float) -> None:
        """Note by which grants calls were approved, instead of those of before."""
        ...

    async def begin_step(self, batch: str, number: int, at: float) -> bool:
        """Note that a call is about to be made, atomically; False where its outcome is one of `FINAL`."""
        ...

    async def end_step(self, batch: str, number: int, outcome: str, change: str | None, at: float) -> None:
        """Note what became of a call."""
        ...


@dataclass(frozen=True, slots=True)
class Made:
    """A call that was made: what came back, and the change that it made."""

    result: Record
    change: Change | None


class Batch(Protocol):
    """Calls that are approved together."""

    @property
    def id(self) -> str:
        """The same for the same calls of the same caller, in whatever process."""
        ...

    async def earlier(self) -> Mapping[int, Step]:
        """What became of its calls before."""
        ...

    async def agree(self, numbers: Sequence[int]) -> None:
        """Have these of its calls agreed to, by one question where one is needed: it may end the procedure."""
        ...

    async def make(self, number: int) -> Made:
        """Make one that was agreed to, once. Raises a `FastnError`."""
        ...


Batching = Callable[[Offer[Any], Sequence[Call], str | None], Batch]
"""The batch of these calls, which `Offer` makes; a name tells it from the same calls made before."""
