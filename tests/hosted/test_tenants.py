"""Accounts are opened when they are needed, kept apart, bounded in number, and closed. THREATS T10, T17."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from world import Clock

from fastn_mcp.errors import SettingsError
from fastn_mcp.hosted.team_config import TeamLimits, Tenant
from fastn_mcp.hosted.tenants import KEYS_EACH, Busy, CallerAccount, ConcurrencyLimit, TenantAccount, Tenants

pytestmark = pytest.mark.anyio


def tenant(name: str) -> Tenant:
    return Tenant(name=name, subjects=[name])


@dataclass
class Account:
    name: str
    closed: int = 0
    fails: bool = False

    async def aclose(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.closed += 1
        if self.fails:
            raise OSError


@dataclass
class House:
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
        self.made.append(Account(wanted.name + (f" of {own.principal} by {own.key}" if own else "")))
        nothing: Any = None
        return TenantAccount(
            nothing, nothing, nothing, wanted.name, ConcurrencyLimit(1, 0, 0), self.made[-1].aclose, None,
            own and own.principal,
        )  # fmt: skip

    def open_ones(self) -> list[str]:
        return [account.name for account in self.made if not account.closed]


async def test_calls_at_once_share_one_account_of_a_tenant_and_no_other() -> None:
    """THREATS T10."""
    house = House()
    seen: list[TenantAccount] = []

    async def visit(name: str) -> None:
        async with house.tenants.lease(tenant(name)) as found:
            await anyio.lowlevel.checkpoint()
            seen.append(found)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(visit, "ab"[number % 2])
    assert len({id(found) for found in seen}) == 2
    assert [account.name for account in house.made] == ["a", "b"]
    assert seen[0].limit is not seen[1].limit


async def test_what_nobody_needs_for_a_while_is_closed_and_opened_again() -> None:
    """Ours: pools, files and names go with it; who is being served keeps theirs."""
    house = House()
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


async def test_the_sweeper_goes_round_by_itself() -> None:
    """Ours."""
    swept = anyio.Event()

    async def sleep(seconds: float) -> None:
        house.clock.pass_(seconds)
        if house.open_ones() == []:
            swept.set()
        await anyio.lowlevel.checkpoint()

    house = House(sleep=sleep)
    async with house.tenants.lease(tenant("a")):
        pass
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(house.tenants.sweep_forever)
        with anyio.fail_after(5):
            await swept.wait()
        tasks.cancel_scope.cancel()


async def test_there_are_never_more_open_than_may_be() -> None:
    """THREATS T17: the longest unused makes room; where all are in use, one more is refused, and told so."""
    house = House(TeamLimits(tenants=2))
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


async def test_a_caller_with_many_keys_crowds_out_themselves_alone() -> None:
    """THREATS T17: invented keys cost nobody else their account."""
    house = House()
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
        with pytest.raises(Busy, match="by keys of yours"):
            await stack.enter_async_context(house.tenants.lease(own, CallerAccount("olga", "one more")))
        await stack.enter_async_context(house.tenants.lease(own, CallerAccount("otto", "his")))


def test_a_callers_folder_and_account_tell_nothing_of_the_key() -> None:
    """THREATS T4: and two callers with one key are two."""
    anna, otto = CallerAccount("iss|anna", "fsk_live_secret"), CallerAccount("iss|otto", "fsk_live_secret")
    assert anna.account != otto.account
    assert anna.folder != otto.folder
    assert CallerAccount("iss|anna", "another").folder == anna.folder
    assert "secret" not in anna.account + anna.folder


async def test_what_cannot_be_opened_is_not_kept_and_what_cannot_be_closed_is_gone() -> None:
    """Ours: one that fails does not keep the others from being closed."""
    house = House()
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


async def test_a_room_has_its_places_and_a_queue_that_ends() -> None:
    """THREATS T17: refused at once where no more may wait, after a while where nobody leaves."""
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


async def test_who_stops_waiting_for_a_place_gives_up_their_turn() -> None:
    """Ours: a cancelled call takes no place."""
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
