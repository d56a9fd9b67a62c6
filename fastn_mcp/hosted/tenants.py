"""Open accounts: made on demand, kept apart, closed when idle; concurrency limits and fair shares.

What is open of an account (connections, rate limits, ledger, audit, names) is its own, and goes with it.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import anyio

from fastn_mcp.errors import NotSent
from fastn_mcp.hosted.team_config import TeamLimits, Tenant
from fastn_mcp.runtime import System
from fastn_mcp.tools.tool import Effect


class Busy(NotSent):
    """As many calls are made as can be, and as many wait as may."""


class ConcurrencyLimit:
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
            f"{self._calls} calls of this account are in progress, and {why}.",
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


log = logging.getLogger(__name__)

KEYS_EACH = 4
"""Accounts that one caller can have open by keys of their own."""


class TenantAccount(Protocol):
    """What serves a tenant."""

    def effect_of(self, tool: str, arguments: Mapping[str, Any]) -> Effect | None:
        """What a call does, as far as it says itself; None where it is none that the tenant has."""
        ...

    async def aclose(self) -> None:
        """Close it. Nobody is served by it."""
        ...


T = TypeVar("T", bound=TenantAccount)


@dataclass(frozen=True, slots=True)
class CallerAccount:
    """A caller who brings a key of their own, and is then a tenant alone."""

    principal: str
    key: str

    @property
    def folder(self) -> str:
        """Names the caller, where they cannot choose how."""
        return hashlib.sha256(self.principal.encode()).hexdigest()[:32]

    @property
    def account(self) -> str:
        """Tells accounts of this caller apart, and says nothing of the key."""
        return hashlib.sha256(f"{self.principal}\0{self.key}".encode()).hexdigest()[:12]


@dataclass(slots=True)
class Opened(Generic[T]):
    """An open account."""

    served: T
    room: ConcurrencyLimit
    owner: str | None
    used: float
    guests: int = 0


_Key = tuple[str, str | None]


class Tenants(Generic[T]):
    """`open_` makes what serves a tenant. Raises `SettingsError`."""

    def __init__(self, open_: Callable[[Tenant, CallerAccount | None], T], bounds: TeamLimits, system: System) -> None:
        self._open = open_
        self._bounds = bounds
        self._system = system
        self._opened: dict[_Key, Opened[T]] = {}

    def __len__(self) -> int:
        return len(self._opened)

    @asynccontextmanager
    async def lease(self, tenant: Tenant, own: CallerAccount | None = None) -> AsyncGenerator[Opened[T]]:
        """An account, open for as long as it is needed. Raises `Busy`, `SettingsError`."""
        key = (tenant.name, own.account if own else None)
        if (found := self._opened.get(key)) is None:
            # Nothing is awaited between looking and keeping: two requests at once get one and the same.
            leaving = self._leaving(own)
            found = self._opened[key] = Opened(
                self._open(tenant, own),
                ConcurrencyLimit(self._bounds.calls, self._bounds.queue, self._bounds.patience),
                own.principal if own else None,
                self._system.monotonic(),
            )
            found.guests += 1
            await self._close(leaving)
        else:
            found.guests += 1
        try:
            yield found
        finally:
            found.guests -= 1
            found.used = self._system.monotonic()

    async def sweep(self) -> None:
        """Close what nobody has needed for a while."""
        now = self._system.monotonic()
        await self._close([key for key, one in self._unused() if now - one.used >= self._bounds.idle])

    async def stay(self) -> None:
        """Sweep, for ever."""
        while True:
            await self._system.sleep(max(1.0, self._bounds.idle / 4))
            await self.sweep()

    async def aclose(self) -> None:
        """Close all, since nobody is served any more."""
        await self._close(list(self._opened))

    def _unused(self) -> list[tuple[_Key, Opened[T]]]:
        """Those without guests, the longest unused first."""
        unused = [(key, one) for key, one in self._opened.items() if not one.guests]
        return sorted(unused, key=lambda pair: pair[1].used)

    def _leaving(self, own: CallerAccount | None) -> list[_Key]:
        """Who makes room for one more. Raises `Busy` where nobody can."""
        if own is not None and sum(one.owner == own.principal for one in self._opened.values()) >= KEYS_EACH:
            mine = [key for key, one in self._unused() if one.owner == own.principal]
            if not mine:
                raise Busy(f"{KEYS_EACH} accounts by keys of yours are in use.", "Wait for their calls to end.")
            return mine[:1]
        if len(self._opened) < self._bounds.tenants:
            return []
        unused = self._unused()
        if not unused:
            raise Busy("The limit of accounts in use is reached.", "Call again in a moment.")
        return [unused[0][0]]

    async def _close(self, keys: list[_Key]) -> None:
        gone = [self._opened.pop(key) for key in keys]
        with anyio.CancelScope(shield=True):
            for one in gone:
                try:
                    await one.served.aclose()
                except Exception:
                    log.exception("an idle account could not be closed")
