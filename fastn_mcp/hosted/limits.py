"""How much at once: the places of a tenant's calls, with a queue that ends; and its share of the connections."""

from collections import Counter
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager

import anyio

from fastn_mcp.errors import NotSent


class Busy(NotSent):
    """As many calls are made as can be, and as many wait as may."""


class Room:
    """`calls` places, and `queue` calls that wait for one, for at most `patience` seconds."""

    def __init__(self, calls: int, queue: int, patience: float) -> None:
        self._places = anyio.Semaphore(calls)
        self._calls = calls
        self._queue = queue
        self._patience = patience
        self._waiting = 0

    @asynccontextmanager
    async def __call__(self) -> AsyncGenerator[None]:
        """A place, for as long as it is needed. Raises `Busy`."""
        await self._take()
        try:
            yield
        finally:
            self._places.release()

    async def _take(self) -> None:
        try:
            return self._places.acquire_nowait()
        except anyio.WouldBlock:
            if self._waiting >= self._queue:
                raise self._busy("no more may wait") from None
        self._waiting += 1
        try:
            with anyio.fail_after(self._patience):
                await self._places.acquire()
        except TimeoutError:
            raise self._busy(f"none ended within {self._patience:g} seconds") from None
        finally:
            self._waiting -= 1

    def _busy(self, why: str) -> Busy:
        return Busy(
            f"{self._calls} calls of this account are being made, and {why}.",
            "Wait for the others, then call again.",
            facts={"limit": self._calls},
        )


class Shares:
    """`most` requests of each at the same time: who sends slowly or asks for much leaves connections to the others."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = Counter[str]()

    @contextmanager
    def __call__(self, whose: str) -> Generator[None]:
        """One of theirs, for as long as it takes. Raises `Busy`."""
        if self._held[whose] >= self._most:
            raise Busy(f"{self._most} requests of this account are being answered.", "Wait for some of them to end.")
        self._held[whose] += 1
        try:
            yield
        finally:
            self._held[whose] -= 1
            if not self._held[whose]:
                del self._held[whose]
