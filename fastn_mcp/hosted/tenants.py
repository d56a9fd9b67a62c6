"""Open accounts: made on demand, kept apart, closed when idle; concurrency limits and fair shares.

What is open of an account (connections, rate limits, ledger, audit, names) is its own, and goes with it.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import anyio
from starlette.types import ASGIApp

from fastn_mcp.errors import NotSent
from fastn_mcp.guard.audit.log import AuditFile
from fastn_mcp.guard.ledger.ledger import Ledger
from fastn_mcp.hosted.team_config import TeamLimits, Tenant
from fastn_mcp.runtime import System
from fastn_mcp.server.context import AccountContext

log = logging.getLogger(__name__)

KEYS_EACH = 4
"""Accounts that one caller can have open by keys of their own."""


class Busy(NotSent):
    """As many calls are made as can be, and as many wait as may."""


class ConcurrencyLimit:
    """`calls` slots, and `queue` calls that wait for one, for at most `patience` seconds."""

    def __init__(self, calls: int, queue: int, patience: float) -> None:
        self._slots = anyio.Semaphore(calls, fast_acquire=True)
        self._calls = calls
        self._queue = queue
        self._patience = patience

    @asynccontextmanager
    async def __call__(self) -> AsyncGenerator[None]:
        """A slot, for as long as it is needed. Raises `Busy`."""
        if self._slots.value == 0 and self._slots.statistics().tasks_waiting >= self._queue:
            raise self._busy("no more may wait")
        try:
            with anyio.fail_after(self._patience):
                await self._slots.acquire()
        except TimeoutError:
            raise self._busy(f"none ended within {self._patience:g} seconds") from None
        try:
            yield
        finally:
            self._slots.release()

    def _busy(self, why: str) -> Busy:
        return Busy(
            f"{self._calls} calls of this account are in progress, and {why}.",
            "Wait for the others, then call again.",
            facts={"limit": self._calls},
        )


class RequestLimit:
    """`most` requests of each at the same time: who sends slowly or asks for much leaves connections to the others."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = Counter[str]()

    @contextmanager
    def __call__(self, owner: str) -> Generator[None]:
        """One of the owner's, for as long as it takes. Raises `Busy`."""
        if self._held[owner] >= self._most:
            raise Busy(f"{self._most} requests of this account are being answered.", "Wait for some of them to end.")
        self._held[owner] += 1
        try:
            yield
        finally:
            self._held[owner] -= 1
            if not self._held[owner]:
                del self._held[owner]


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
class TenantAccount:
    """An open account, and who uses it."""

    context: AccountContext
    ledger: Ledger
    audit: AuditFile
    account: str
    """As its approval requests name it: several accounts can share a ledger."""
    limit: ConcurrencyLimit
    close: Callable[[], Awaitable[None]]
    answers: ASGIApp | None = None
    """Takes answers of approvers, where there is a webhook."""
    owner: str | None = None
    """The caller whose key it is, where a caller brought it."""
    used: float = field(default=0.0, init=False)
    users: int = field(default=0, init=False)


_Key = tuple[str, str | None]


class Tenants:
    """The accounts that are open. `open_` opens one, and raises `SettingsError`."""

    def __init__(
        self, open_: Callable[[Tenant, CallerAccount | None], TenantAccount], limits: TeamLimits, system: System
    ) -> None:
        self._open = open_
        self._limits = limits
        self._system = system
        self._opened: dict[_Key, TenantAccount] = {}

    def __len__(self) -> int:
        return len(self._opened)

    @asynccontextmanager
    async def lease(self, tenant: Tenant, own: CallerAccount | None = None) -> AsyncGenerator[TenantAccount]:
        """An account, open for as long as it is needed. Raises `Busy`, `SettingsError`."""
        key = (tenant.name, own.account if own else None)
        leaving: list[_Key] = []
        if (found := self._opened.get(key)) is None:
            # Nothing is awaited between looking and keeping: two requests at once get one and the same.
            leaving = self._leaving(own)
            found = self._opened[key] = self._open(tenant, own)
        found.users += 1
        try:
            await self._close(leaving)
            yield found
        finally:
            found.users -= 1
            found.used = self._system.monotonic()

    async def sweep(self) -> None:
        """Close what nobody has needed for a while."""
        now = self._system.monotonic()
        await self._close([key for key, one in self._unused() if now - one.used >= self._limits.idle_seconds])

    async def sweep_forever(self) -> None:
        """Sweep four times in each idle time."""
        while True:
            await self._system.sleep(max(1.0, self._limits.idle_seconds / 4))
            await self.sweep()

    async def aclose(self) -> None:
        """Close all, since nobody is served any more."""
        await self._close(list(self._opened))

    def _unused(self) -> list[tuple[_Key, TenantAccount]]:
        """Those without users, the longest unused first."""
        unused = [(key, one) for key, one in self._opened.items() if not one.users]
        return sorted(unused, key=lambda pair: pair[1].used)

    def _leaving(self, own: CallerAccount | None) -> list[_Key]:
        """Which account makes room for one more. Raises `Busy` where none can."""
        if own is not None and sum(one.owner == own.principal for one in self._opened.values()) >= KEYS_EACH:
            mine = [key for key, one in self._unused() if one.owner == own.principal]
            if not mine:
                raise Busy(f"{KEYS_EACH} accounts by keys of yours are in use.", "Wait for their calls to end.")
            return mine[:1]
        if len(self._opened) < self._limits.tenants:
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
                    await one.close()
                except Exception:
                    log.exception("an idle account could not be closed")
