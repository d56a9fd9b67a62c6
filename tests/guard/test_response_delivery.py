"""The changes of a request are settled once the client has the response, and not before."""

import asyncio
from pathlib import Path

import anyio
import pytest
from support.policy_files import ALLOWING
from support.world import World, batch_of

from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.result import Done
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.policy import Policy
from fastn_mcp.server import context
from fastn_mcp.server.context import ResponseDelivery
from fastn_mcp.tools.customers import CreateCustomer
from fastn_mcp.tools.operation import Call

NEVER = 3600.0


@pytest.fixture(autouse=True)
def received(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response counts as received at once."""
    monkeypatch.setattr(context, "DELIVERY_GRACE", 0.01)


@pytest.fixture
def response() -> ResponseDelivery:
    """Delivery of the calls of the test."""
    return ResponseDelivery()


async def unsettled(world: World, call: Call) -> int:
    return len(await world.ledger.unsettled(world.judge.call_id(call, Asker()), world.timestamp))


async def made(world: World, response: ResponseDelivery, name: str = "Initech") -> CreateCustomer:
    call = CreateCustomer(name=name)
    assert isinstance(await world.call(call, delivery=response), Done)
    assert await unsettled(world, call) == 1
    return call


async def test_received(world: World, response: ResponseDelivery) -> None:
    calls = [await made(world, response, name) for name in ("Initech", "Hooli")]
    await response.written()
    assert [await unsettled(world, call) for call in calls] == [0, 0]


async def test_list_may_make_one_run_with_several_idempotency_keys(tmp_path: Path, response: ResponseDelivery) -> None:
    """Its calls are approved together, and the response to all of them is on its way."""
    world = World(tmp_path, Policy(rules=ALLOWING))
    runs = [world.run().model_copy(update={"idempotency_key": key}) for key in ("one", "two")]
    assert isinstance(await world.call(batch_of(*runs), delivery=response), Done)
    assert len(world.changes) == 2
    await world.expect(PendingApproval, runs[0].model_copy(update={"idempotency_key": "three"}))


async def test_without_a_transport_that_can_tell(world: World) -> None:
    call = CreateCustomer(name="Initech")
    await world.expect(Done, call)
    assert await unsettled(world, call) == 0


@pytest.mark.parametrize("event", [None, asyncio.Event], ids=["its own event", "an event of the transport"])
async def test_lost_before_it_was_written(world: World, event: type[asyncio.Event] | None) -> None:
    lost = event and event()
    response = ResponseDelivery(lost)
    call = await made(world, response)
    (lost or response.lost).set()
    await response.written()
    assert await unsettled(world, call) == 1


@pytest.mark.parametrize("ended", [None, asyncio.Event], ids=["whose client may go on", "whose client may end"])
async def test_lost_after_it_was_written(
    world: World, response: ResponseDelivery, monkeypatch: pytest.MonkeyPatch, ended: type[asyncio.Event] | None
) -> None:
    monkeypatch.setattr(context, "DELIVERY_GRACE", NEVER)
    call = await made(world, response)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(response.written, lambda: False, ended and ended())
            await anyio.wait_all_tasks_blocked()
            response.lost.set()
    assert await unsettled(world, call) == 1


async def test_left_unread_until_nothing_more_comes(world: World, response: ResponseDelivery) -> None:
    call, ended, again, looks = await made(world, response), asyncio.Event(), asyncio.Event(), list[bool]()

    def is_unread() -> bool:
        looks.append(True)
        if len(looks) == 3:
            again.set()
        return True

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(response.written, is_unread, ended)
            await again.wait()
            ended.set()
    assert await unsettled(world, call) == 1


@pytest.mark.parametrize("ends", [True, False])
async def test_read_late(world: World, response: ResponseDelivery, ends: bool) -> None:
    call, looks = await made(world, response), [True, True, False]
    ended = asyncio.Event() if ends else None
    with anyio.fail_after(30):
        await response.written(lambda: len(looks) > 1 and looks.pop(0), ended)
    assert looks == [False]
    assert await unsettled(world, call) == 0


async def test_read_by_a_client_that_ends(
    world: World, response: ResponseDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "DELIVERY_GRACE", NEVER)
    call, ended = await made(world, response), asyncio.Event()
    ended.set()
    with anyio.fail_after(30):
        await response.written(lambda: False, ended)
    assert await unsettled(world, call) == 0


async def test_cancelled_after_it_was_written(
    world: World, response: ResponseDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "DELIVERY_GRACE", NEVER)
    call = await made(world, response)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(response.written)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert await unsettled(world, call) == 0


async def test_without_a_change_there_is_nothing_to_wait_for(
    response: ResponseDelivery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "DELIVERY_GRACE", NEVER)
    with anyio.fail_after(30):
        await response.written()


@pytest.mark.parametrize("arrives", [True, False])
async def test_repeated_call_waits_until_it_is_known(world: World, response: ResponseDelivery, arrives: bool) -> None:
    """However late a busy process looks: only a response that was lost makes the call need an approval."""
    call = await made(world, response)
    world.clock.pass_(5)
    if not arrives:
        response.lost.set()
    outcomes: list[object] = []

    async def again() -> None:
        outcomes.append(await world.call(call, delivery=response))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(again)
            await anyio.wait_all_tasks_blocked()
            assert outcomes == []
            await response.written()
    assert len(world.changes) == (2 if arrives else 1), outcomes
