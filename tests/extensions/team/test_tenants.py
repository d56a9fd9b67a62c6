"""Open accounts: created on demand, isolated, limited in number, and closed."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from support.clock import Clock

from fastn_mcp.errors import SettingsError
from fastn_mcp.extensions.team.team_config import TeamLimits, Tenant
from fastn_mcp.extensions.team.tenants import KEYS_EACH, Busy, CallerAccount, ConcurrencyLimit, TenantAccount, Tenants


def tenant(name: str) -> Tenant:
    return Tenant(name=name, subjects=[name])


@dataclass
class Account:
    name: str
    closed: int = 0
    fails: bool = False
    is_outdated: bool = False

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.closed += 1
        if self.fails:
            raise OSError


@dataclass
class World:
    bounds: TeamLimits = field(default_factory=TeamLimits)
    clock: Clock = field(default_factory=Clock)
    sleep: Callable[[float], Awaitable[None]] | None = None
    made: list[Account] = field(default_factory=list[Account])

    def __post_init__(self) -> None:
        system = self.clock.system()
        self.tenants = Tenants(self.open, self.bounds, replace(system, sleep=self.sleep or system.sleep))

    def open(self, wanted: Tenant, own: CallerAccount | None) -> TenantAccount:
        if wanted.name == "broken":
            raise SettingsError("It cannot be.")
        made = Account(wanted.name + (f" of {own.principal} by {own.key}" if own else ""))
        self.made.append(made)
        nothing: Any = None
        return TenantAccount(
            nothing, nothing, nothing, ConcurrencyLimit(1, 0, 0), self.made[-1].aclose, None, own,
            lambda: made.is_outdated,
        )  # fmt: skip

    def open_ones(self) -> list[str]:
        return [account.name for account in self.made if not account.closed]


async def test_concurrent_calls_share_the_account_of_their_tenant() -> None:
    house = World()
    seen: list[TenantAccount] = []

    async def visit(name: str) -> None:
        async with house.tenants.lease(tenant(name)) as account:
            await anyio.lowlevel.checkpoint()
            seen.append(account)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(visit, "ab"[number % 2])
    assert len({id(account) for account in seen}) == 2
    assert [account.name for account in house.made] == ["a", "b"]
    assert seen[0].limit is not seen[1].limit


async def test_account_whose_key_was_replaced_is_reopened_at_once() -> None:
    """Calls under way end on the old one, which the last of them closes."""
    house = World()
    async with house.tenants.lease(tenant("a")) as slow:
        async with house.tenants.lease(tenant("a")) as quick:
            assert quick is slow
            house.made[0].is_outdated = True
        assert house.open_ones() == ["a"]
        async with house.tenants.lease(tenant("a")) as anew:
            assert anew is not slow
        assert house.open_ones() == ["a", "a"]
    assert [account.closed for account in house.made] == [1, 0]
    await house.tenants.aclose()
    assert [account.closed for account in house.made] == [1, 1]


async def test_idle_account_is_closed_and_reopened() -> None:
    house = World()
    async with house.tenants.lease(tenant("a")):
        async with house.tenants.lease(tenant("b")):
            pass
        house.clock.pass_(house.bounds.idle_seconds)
        await house.tenants.sweep()
        assert house.open_ones() == ["a"]
    await house.tenants.sweep()
    assert house.open_ones() == ["a"]
    house.clock.pass_(house.bounds.idle_seconds)
    await house.tenants.sweep()
    assert (house.open_ones(), len(house.tenants)) == ([], 0)
    async with house.tenants.lease(tenant("a")):
        assert len(house.made) == 3


async def test_sweeper_runs_periodically() -> None:
    swept = anyio.Event()

    async def sleep(seconds: float) -> None:
        house.clock.pass_(seconds)
        if house.open_ones() == []:
            swept.set()
        await anyio.lowlevel.checkpoint()

    house = World(sleep=sleep)
    async with house.tenants.lease(tenant("a")):
        pass
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(house.tenants.sweep_forever)
        with anyio.fail_after(5):
            await swept.wait()
        tasks.cancel_scope.cancel()


async def test_open_accounts_are_limited() -> None:
    house = World(TeamLimits(tenants=2))
    for name in "abc":
        house.clock.pass_(1)
        async with house.tenants.lease(tenant(name)):
            pass
    assert house.open_ones() == ["b", "c"]
    async with house.tenants.lease(tenant("b")), house.tenants.lease(tenant("c")):
        with pytest.raises(Busy, match="The limit of accounts in use is reached"):
            async with house.tenants.lease(tenant("d")):
                raise AssertionError
        async with house.tenants.lease(tenant("b")):
            pass
    assert len(house.made) == 3


async def test_caller_with_many_keys_evicts_only_their_own() -> None:
    house = World()
    own = tenant("own")
    async with house.tenants.lease(own, CallerAccount("otto", "his")):
        pass
    for number in range(KEYS_EACH + 3):
        house.clock.pass_(1)
        async with house.tenants.lease(own, CallerAccount("olga", f"key {number}")):
            pass
    assert len([name for name in house.open_ones() if "olga" in name]) == KEYS_EACH
    assert "own of otto by his" in house.open_ones()
    async with AsyncExitStack() as stack:
        for number in range(KEYS_EACH):
            await stack.enter_async_context(house.tenants.lease(own, CallerAccount("olga", f"new {number}")))
        with pytest.raises(Busy, match="your own keys"):
            await stack.enter_async_context(house.tenants.lease(own, CallerAccount("olga", "one more")))
        await stack.enter_async_context(house.tenants.lease(own, CallerAccount("otto", "his")))


def test_folder_and_account_do_not_reveal_the_key() -> None:
    anna, otto = CallerAccount("iss|anna", "fsk_live_secret"), CallerAccount("iss|otto", "fsk_live_secret")
    assert anna.digest != otto.digest
    assert anna.folder != otto.folder
    assert CallerAccount("iss|anna", "another").folder == anna.folder
    assert "secret" not in anna.digest + anna.folder + repr(anna)


class SameShortDigest(CallerAccount):
    """Callers whose shortened digests collide, as 48 bits let an attacker arrange."""

    @property
    def short_digest(self) -> str:
        return "c0111de5"


class SameDigest(CallerAccount):
    @property
    def digest(self) -> str:
        return "c0111de5"


async def test_callers_whose_short_digests_collide_have_separate_accounts() -> None:
    house = World()
    for caller in (SameShortDigest("anna", "hers"), SameShortDigest("otto", "his")):
        async with house.tenants.lease(tenant("own"), caller):
            assert house.made[-1].name == f"own of {caller.principal} by {caller.key}"


async def test_open_account_is_handed_to_its_owner_only() -> None:
    house = World()
    async with house.tenants.lease(tenant("own"), SameDigest("anna", "hers")):
        for other in (SameDigest("otto", "his"), SameDigest("anna", "another")):
            with pytest.raises(RuntimeError, match="another caller"):
                async with house.tenants.lease(tenant("own"), other):
                    raise AssertionError


async def test_failing_accounts_are_dropped() -> None:
    house = World()
    with pytest.raises(SettingsError):
        async with house.tenants.lease(tenant("broken")):
            raise AssertionError
    for name in "ab":
        async with house.tenants.lease(tenant(name)):
            pass
    house.made[0].fails = True
    await house.tenants.aclose()
    assert [account.closed for account in house.made] == [1, 1]
    assert len(house.tenants) == 0


async def test_concurrency_limit_has_a_bounded_queue() -> None:
    room = ConcurrencyLimit(2, 1, 0.01)
    async with room(), room():
        with pytest.raises(Busy, match=r"none ended within 0\.01 seconds"):
            async with room():
                raise AssertionError
    patient = ConcurrencyLimit(1, 1, 60)
    order: list[str] = []

    async def waits() -> None:
        async with patient():
            order.append("waited")

    async with anyio.create_task_group() as tasks, patient():
        tasks.start_soon(waits)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(Busy, match="no more may wait") as refused:
            async with patient():
                raise AssertionError
        assert refused.value.data()["outcome"] == "not_sent"
        order.append("left")
    assert order == ["left", "waited"]


async def test_cancelled_call_leaves_the_queue() -> None:
    room = ConcurrencyLimit(1, 1, 60)

    async def waits() -> None:
        async with room():
            raise AssertionError

    async with room(), anyio.create_task_group() as tasks:
        tasks.start_soon(waits)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    async with room():
        pass
