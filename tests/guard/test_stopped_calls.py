"""Calls while changes are stopped, and what does not come back afterwards."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.direct_sandbox import Fastn
from support.faulty_sandbox import Status
from support.sensible_calls import sensible
from support.world import FormLater, World, batch_of

from fastn_mcp.errors import Incomplete, RateLimited, Refused, Stopped
from fastn_mcp.guard.approval_form import Approve, PendingApproval
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.result import Done
from fastn_mcp.guard.stops import void_approvals
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.ledger.store import LedgerLost
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.policy import Policy
from fastn_mcp.tools.customers import CreateCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.tool import Effect


async def stop(world: World, **whom: str) -> Stop:
    order = replace(Stop(world.system.token(), world.timestamp, "Dana", "agent went wrong"), **whom)
    await world.ledger.add_stop(order)
    return order


async def lift(world: World, order: Stop) -> None:
    world.clock.pass_(1)
    assert await world.ledger.lift_stop(order.lift("Dana", world.timestamp))
    world.clock.pass_(1)


async def test_stopped_call_and_overview_say_since_when_by_whom_and_why(world: World) -> None:
    """Reads and previews work on."""
    await stop(world)
    world.clock.pass_(840)
    facts = {
        "since": "2026-11-25T09:00:00Z (14 minutes ago)", "by": "Dana", "covers": "everybody",
        "reason": "agent went wrong",
    }  # fmt: skip
    error = await world.expect(Stopped, CreateCustomer(name="Initech"))
    assert isinstance(error, Stopped)
    assert error.data() == {
        "outcome": "stopped",
        "message": (
            'Dana stopped all changes at 09:00 UTC (14 minutes ago). Reason: "agent went wrong". Nothing was sent.'
        ),
        "next": (
            "Reading still works. Only a person can allow changes again: report this, and do not repeat the call."
        ),
        "stop": facts,
    }
    assert (await world.guard.allowance(Asker()))["stopped"] == facts
    assert [entry["outcome"] for entry in world.audited("refused")] == ["stopped"]
    assert await world.rows(ListCustomers())
    for call in (CreateCustomer(name="A"), batch_of(CreateCustomer(name="A"), world.deletion())):
        preview = (await world.preview(call)).data_for_agent()
        assert preview["approval"] == "none is possible now: a person has stopped changes"


async def test_every_changing_operation_is_refused_and_no_reading_one(world: World) -> None:
    """Whatever the policy would allow."""
    await stop(world)
    for call in sensible(Fastn(world.sandbox)):
        outcome = await world.call(call)
        assert isinstance(outcome, Stopped) is (call.effect is not Effect.READ), (call, outcome)
    assert world.changes == []


ANA = Asker("https://id.example|ana", "Ana <ana@x.example>", ("ana", "ana@x.example"))


@pytest.mark.parametrize(
    ("whom", "asker", "holds"),
    [
        ({"person": "ana"}, ANA, True),
        ({"person": "ANA@x.example"}, ANA, True),
        ({"person": "ben"}, ANA, False),
        ({"person": "ben"}, Asker("https://id.example|ana"), True),
        ({"person": "ben"}, Asker(), False),
        ({"tenant": "acme"}, Asker(), False),
    ],
)
async def test_stop_holds_for_whom_it_names(world: World, whom: dict[str, str], asker: Asker, holds: bool) -> None:
    """A sign-in without names may be of the person who is named."""
    await stop(world, **whom)
    caller = Caller(asker, None)
    if holds:
        with pytest.raises(Stopped, match="the changes of the"):
            await world.dispatch(CreateCustomer(name="Initech"), caller)
    else:
        assert isinstance(await world.dispatch(CreateCustomer(name="Initech"), caller), Done)


async def test_waiting_call_ends_at_once(tmp_path: Path) -> None:
    world = World(tmp_path, Policy(approval_wait=45.0))
    ended = list[Any]()

    async def waits() -> None:
        ended.append(await world.call(world.deletion()))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waits)
        with anyio.fail_after(20):
            while not await world.ledger.waiting(world.timestamp):  # noqa: ASYNC110 - the call opens it
                await anyio.sleep(0.001)
        await stop(world)
    assert isinstance(ended[0], Stopped)


async def test_neither_approval_nor_request_comes_back(world: World) -> None:
    await world.approve_outside(world.deletion())
    await world.expect(PendingApproval, world.run())
    order = await stop(world)
    ended = await void_approvals(world.ledger, order, world.timestamp, world.recorder.decided)
    assert ended == {"waiting call": 1, "unused approval": 1}
    states = {request.state for request in await world.ledger.decided(5)}
    assert states == {RequestState.STOPPED}
    await world.expect(Stopped, world.deletion())
    await lift(world, order)
    await world.expect(PendingApproval, world.deletion())
    await world.expect(PendingApproval, world.run())


@pytest.mark.parametrize("moment", ["before the stop", "during the stop"])
async def test_approval_is_void_though_nobody_ended_it(world: World, moment: str) -> None:
    """The process that stops can be killed before it reaches each request, and a page can be open meanwhile."""
    await world.expect(PendingApproval, world.deletion())
    if moment == "before the stop":
        await world.approve_open_request()
    order = await stop(world)
    if moment == "during the stop":
        await world.approve_open_request()
    await lift(world, order)
    (voided,) = await world.ledger.decided(5) or await world.ledger.waiting(world.timestamp)
    await world.expect(PendingApproval, world.deletion())
    assert (await world.open_request()).id != voided.id
    assert world.changes == []


@pytest.mark.parametrize("behind", [-1, 3600], ids=["after it", "by a process whose clock is behind"])
async def test_form_that_was_open_at_a_stop_is_void_once_it_is_lifted(world: World, behind: float) -> None:
    pending = await world.first_round(world.run())
    order = await stop(world)
    await world.expect(Stopped, world.run(), world.form())
    assert await world.ledger.lift_stop(order.lift("Dana", world.timestamp - behind))
    world.clock.pass_(2)
    error = await world.expect(Refused, world.run(), FormLater(submitted=(pending.id, Approve())))
    assert "Its approval is void" in str(error)
    assert world.changes == []


async def test_temporary_approval_ends(world: World) -> None:
    await world.expect(Done, world.run(), world.form(Approve(is_temporary=True)))
    assert await world.temporary_approvals()
    order = await stop(world)
    await lift(world, order)
    await world.expect(PendingApproval, world.run())


async def test_stop_between_the_approval_and_the_send(world: World) -> None:
    """Nothing leaves, and the approval is used up."""
    with world.act_before_changes(lambda _: stop(world)):
        await world.expect(Stopped, CreateCustomer(name="Initech"))
    assert world.changes == []
    (change,) = await world.ledger.changes("test", 5, 1e12)
    assert change.outcome == "stopped"
    assert await world.ledger.under_way(0.0) == []


async def test_stop_between_two_attempts(world: World) -> None:
    """The outcome is that of the attempt that was made."""
    customer = (await world.rows(ListCustomers()))[0].id
    world.sandbox.faults.add(Status(method="PUT", path="*", status=429))
    sleep, naps = world.system.sleep, list[float]()

    async def stopping(seconds: float) -> None:
        naps.append(seconds)
        await stop(world)
        await sleep(seconds)

    object.__setattr__(world.system, "sleep", stopping)
    await world.expect(RateLimited, UpdateCustomer(customer_id=customer, plan="Growth"))
    assert len(naps) == 1


async def test_stop_that_was_lifted_between_two_attempts(world: World) -> None:
    """A call whose approval was used before the stop does not go on after it."""
    customer = (await world.rows(ListCustomers()))[0].id
    world.sandbox.faults.add(Status(method="PUT", path="*", status=429))
    sleep = world.system.sleep

    async def stopping(seconds: float) -> None:
        await lift(world, await stop(world))
        await sleep(seconds)

    object.__setattr__(world.system, "sleep", stopping)
    await world.expect(RateLimited, UpdateCustomer(customer_id=customer, plan="Growth"))
    assert len(world.changes) == 1


async def test_batch_stops_in_the_middle(world: World) -> None:
    batch = batch_of(*(CreateCustomer(name=f"Made {n}") for n in (1, 2, 3)))
    send, sent = world.client.send, list[str]()

    async def stopping(call: Any, *checks: Any) -> Any:
        result = await send(call, *checks)
        if call.route.method != "GET":
            sent.append(call.tool_name())
            await stop(world)
        return result

    world.client.send = stopping  # pyright: ignore[reportAttributeAccessIssue]
    error = await world.expect(Incomplete, batch)
    rows: Any = error.facts["calls"]
    assert [row["outcome"] for row in rows] == ["done", "stopped", "left"]
    assert error.next_step.startswith("Reading still works. Only a person")
    assert len(sent) == 1


async def test_ledger_that_cannot_be_read_sends_nothing(world: World) -> None:
    async def lost() -> list[Stop]:
        raise LedgerLost("test")

    world.ledger.stops = lost
    await world.expect(LedgerLost, CreateCustomer(name="Initech"))
    assert world.changes == []
