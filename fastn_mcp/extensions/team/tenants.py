"""Open accounts, created on demand, isolated and closed when idle, with concurrency and request limits.

Each open account has its own connections, rate limits, ledger, audit log and name cache, which close with it.
"""

import hashlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import anyio
from starlette.types import ASGIApp

from fastn_mcp.audit.log import AuditFile
from fastn_mcp.channels.external import Handle
from fastn_mcp.channels.page.inbox import InboxAccount
from fastn_mcp.errors import NotSent
from fastn_mcp.extensions.team.team_config import TeamLimits, Tenant
from fastn_mcp.runtime import System
from fastn_mcp.server.context import AccountContext

log = logging.getLogger(__name__)

KEYS_EACH = 4
"""Open accounts per caller who brings keys of their own."""


class Busy(NotSent):
    """A concurrency, request or account limit is reached."""


class ConcurrencyLimit:
    """Limit of `calls` concurrent calls. At most `queue` more wait for a slot, for `patience` seconds each."""

    def __init__(self, calls: int, queue: int, patience: float) -> None:
        self._slots = anyio.Semaphore(calls, fast_acquire=True)
        self._calls = calls
        self._queue = queue
        self._patience = patience

    @asynccontextmanager
    async def __call__(self) -> AsyncGenerator[None]:
        """Hold a slot. Raises `Busy` if the queue is full or no slot became free in time."""
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

    @asynccontextmanager
    async def released(self) -> AsyncGenerator[None]:
        """Release the slot of a call, and wait for a free one at the end, however long that takes."""
        self._slots.release()
        try:
            yield
        finally:
            with anyio.CancelScope(shield=True):  # `__call__` releases it, also after a cancellation
                await self._slots.acquire()

    def _busy(self, why: str) -> Busy:
        return Busy(
            f"{self._calls} calls of this account are in progress, and {why}.",
            "Wait for the others, then call again.",
            facts={"limit": self._calls},
        )


class RequestLimit:
    """Limit of `most` concurrent requests per owner, so that none of them can use up all connections."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = Counter[str]()

    @contextmanager
    def __call__(self, owner: str) -> Generator[None]:
        """Count a request of the owner while it runs. Raises `Busy` at the limit."""
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
    """Account of a caller who brings their own API key, separate from the accounts of other callers."""

    principal: str
    key: str = field(repr=False)

    @property
    def folder(self) -> str:
        """Folder name of the caller: a digest, so that they cannot choose it."""
        return hashlib.sha256(self.principal.encode()).hexdigest()[:32]

    @property
    def digest(self) -> str:
        """Identifier of the account, which does not reveal the key."""
        return hashlib.sha256(f"{self.principal}\0{self.key}".encode()).hexdigest()

    @property
    def short_digest(self) -> str:
        """The digest shortened for display. It is too short to tell callers apart."""
        return self.digest[:12]


@dataclass(slots=True)
class TenantAccount:
    """An open account, with the number of requests that use it."""

    context: AccountContext
    inbox: InboxAccount
    audit: AuditFile
    limit: ConcurrencyLimit
    close: Callable[[], Awaitable[None]]
    answers: ASGIApp | None = None
    """Receives the answers of approvers, if there is a webhook."""
    owner: CallerAccount | None = None
    """The caller who brought the key, if any."""
    is_outdated: Callable[[], bool] = lambda: False
    """Whether it has to be opened anew, since its key was replaced or the plan of its machine was changed."""
    decisions: Mapping[str, Handle | None] = field(default_factory=dict[str, Handle | None])
    """Handles what people answer by the services of approval channels, by their extension."""
    used: float = field(default=0.0, init=False)
    users: int = field(default=0, init=False)


_Key = tuple[str, str | None]
"""Tenant, and digest of the caller's account or name of the machine."""


class Tenants:
    """Pool of open accounts. `open_` opens one, and raises `SettingsError` if its settings are invalid."""

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
        """Lease an account, opening it if needed. Raises `Busy` if no more can be opened, or `SettingsError`."""
        key = (tenant.name, own.digest if own else tenant.machine and tenant.machine.name)
        await self._retire(key)
        to_close: list[_Key] = []
        leased = self._opened.get(key)
        if leased is None:
            # No await between the lookup and the insertion, so that concurrent requests share one account.
            to_close = self._to_close(own)
            leased = self._opened[key] = self._open(tenant, own)
        if leased.owner != own:
            raise RuntimeError("the open account belongs to another caller")
        leased.users += 1
        try:
            await self._close(to_close)
            yield leased
        finally:
            leased.users -= 1
            leased.used = self._system.monotonic()
            if leased.is_outdated() and self._opened.get(key) is leased:
                del self._opened[key]  # the next request opens it with the new key
            if not leased.users and self._opened.get(key) is not leased:
                await _end(leased)

    async def sweep(self) -> None:
        """Close the accounts that were unused for the idle time."""
        now = self._system.monotonic()
        idle = [
            key for key, each in self._opened.items() if not each.users and now - each.used >= self._limits.idle_seconds
        ]
        await self._close(idle)

    async def sweep_forever(self) -> None:
        """Sweep four times per idle time, at most once a second."""
        while True:
            await self._system.sleep(max(1.0, self._limits.idle_seconds / 4))
            await self.sweep()

    async def aclose(self) -> None:
        """Close all accounts."""
        await self._close(list(self._opened))

    def _to_close(self, own: CallerAccount | None) -> list[_Key]:
        """Return the account to close to make room for one more. Raises `Busy` if all are in use."""
        opened = list(self._opened.items())
        principal = own and own.principal
        theirs = [(key, each) for key, each in opened if own and each.owner and each.owner.principal == principal]
        if len(theirs) >= KEYS_EACH:
            opened = theirs
            busy = Busy(f"{KEYS_EACH} accounts that your own keys opened are in use.", "Wait for their calls to end.")
        elif len(opened) >= self._limits.tenants:
            busy = Busy("The limit of accounts in use is reached.", "Call again in a moment.")
        else:
            return []
        unused = {key: each.used for key, each in opened if not each.users}
        if not unused:
            raise busy
        return [min(unused, key=unused.__getitem__)]  # the longest unused

    async def _retire(self, key: _Key) -> None:
        """Forget an account that has to be opened anew. Its last user closes it."""
        account = self._opened.get(key)
        if account is not None and account.is_outdated():
            del self._opened[key]
            if not account.users:
                await _end(account)

    async def _close(self, keys: list[_Key]) -> None:
        for account in [self._opened.pop(key) for key in keys]:
            await _end(account)


async def _end(account: TenantAccount) -> None:
    try:
        await account.close()  # also while the task is cancelled
    except Exception:
        log.exception("an idle account could not be closed")
