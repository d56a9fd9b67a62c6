"""Where grants live: behind one protocol, so that one process and a fleet keep the same promises."""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol


class State(Enum):
    """What became of a grant. Only a grant that is OPEN can be spent, and only once."""

    OPEN = "open"
    BURNT = "burnt"
    DECLINED = "declined"
    UNANSWERED = "unanswered"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Grant:
    """The right to make one exact call once.

    `binding` is a digest of all that it is bound to; `expires` is in Unix seconds.
    """

    id: str
    binding: str
    expires: float


class Ledger(Protocol):
    """Keeps grants. An exception from any method is a refusal."""

    async def open(self, grant: Grant) -> None:
        """Record a grant about which a person is asked."""
        ...

    async def find(self, grant: str) -> Grant | None:
        """The grant of this id, whatever became of it."""
        ...

    async def close(self, grant: str, state: State, now: float) -> bool:
        """Move a grant from OPEN to `state`, atomically; False if it was not open, or has expired by `now`."""
        ...
