"""Store of a ledger: versioned JSON documents with scored indexes.

All that a backend has to do. What is stored, and what may become what, is in `documents` and `ledger`, once.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from fastn_mcp.errors import Refused


class LedgerLost(Refused):
    """The store failed, or its reply was lost. What may have been written counts as written."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The shared ledger cannot be used ({why}).",
            "Reading still works. Call again later; an approval in use may have to be given again.",
        )


class LedgerUnusable(Refused):
    """The ledger's file cannot be used. `cure` tells a person what to do."""

    def __init__(self, file: str, why: str, cure: str) -> None:
        super().__init__(f"The ledger {file} cannot be used: {why}.", f"Reading still works. To fix it: {cure}")


@dataclass(frozen=True, slots=True)
class Document:
    """A document as it was read."""

    key: str
    value: str
    version: int
    """Number that no other document and no other text of this one has had, and never 0."""


@dataclass(frozen=True, slots=True)
class Write:
    """A document to write, under these indexes and no others, or to delete if it has no value."""

    key: str
    value: str | None
    indexes: Mapping[str, float] = field(default_factory=dict[str, float])
    """Score by index."""
    until: float | None = None
    """Unix seconds from which `Store.forget` deletes it; None if it never does."""
    lifetime: float | None = None
    """Seconds after which a store with a clock of its own deletes it; None if it never does."""
    is_secret: bool = False
    """Whether nothing of it may be left in a file once it was deleted."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What became of a commit."""

    version: int = 0
    """Version of the documents that were written; 0 if nothing was written."""
    found: Mapping[str, Document] = field(default_factory=dict[str, Document])
    """The documents that were expected to be others, as they are, if nothing was written."""


class Store(Protocol):
    """Each method raises a `Refused` if the store cannot be used, and sends nothing twice.

    If `commit` raises, the writes may have been made.
    """

    async def read(self, keys: Collection[str]) -> dict[str, Document]:
        """Return the documents that exist, all as of one moment."""
        ...

    async def scan(
        self,
        indexes: Collection[str],
        low: float = -inf,
        high: float = inf,
        *,
        newest: bool = False,
        limit: int | None = None,
    ) -> list[Document]:
        """Return the documents whose score in an index is above `low` and not above `high`.

        Those of one index are in order of their scores, the greatest first if `newest`. `limit` holds for each index.
        """
        ...

    async def commit(self, expected: Mapping[str, int], writes: Sequence[Write], *, is_news: bool = False) -> Commit:
        """Write all of it, durably, if each document has the expected version (0: it does not exist), or nothing.

        `expected` names each key that is written. `is_news`: calls that wait for a decision have to look (`wait`).
        """
        ...

    async def forget(self, now: float) -> None:
        """Delete what is not kept any longer at this time, unless the store does so by itself."""
        ...

    async def revision(self) -> int:
        """Return a number that changes with each commit by any process."""
        ...

    async def wait(self, seen: str, seconds: float, sleep: Callable[[float], Awaitable[None]]) -> str:
        """Wait until there may be news, by any process, since an earlier call returned `seen`.

        Return what to pass next: at once where `seen` is empty, and after `seconds` at the latest.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections. The next use opens them again."""
        ...
