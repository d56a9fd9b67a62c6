"""Whatever happens, as many changes reach Fastn as there are consents that were spent."""

import json
import multiprocessing
import os
import signal
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from support.decisions import moved
from support.world import FormLater, FormNow, World

from fastn_mcp.guard.approval_form import Approve, Decline, NoAnswer, PendingApproval
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.tools.access import InviteUser
from fastn_mcp.tools.connectors import DeleteConnection, ListConnections
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.workflows import DeleteWorkflow, ListWorkflows, RunWorkflow

Call = Operation[Any]

SUBJECTS = ["run", "delete_customer", "delete_connection", "delete_workflow", "invite", "create"]
ANSWERS = {
    "approve": Approve("Globex Exports"),
    "approve for a while": Approve(is_temporary=True),
    "wrong name": Approve("Acme"),
    "decline": Decline("no"),
    "cancel": NoAnswer("closed"),
}
ACTIONS = st.one_of(
    st.tuples(
        st.just("form"), st.sampled_from(SUBJECTS), st.sampled_from(list(ANSWERS)), st.sampled_from([0.01, 5, 700])
    ),
    st.tuples(st.just("round trip"), st.sampled_from(SUBJECTS), st.sampled_from(list(ANSWERS)), st.integers(1, 4)),
    st.tuples(st.just("swapped"), st.sampled_from(SUBJECTS), st.sampled_from(SUBJECTS), st.just(0)),
    st.tuples(
        st.just("desk"), st.sampled_from(SUBJECTS), st.sampled_from(["approved", "declined", "open"]), st.integers(1, 3)
    ),
    st.tuples(st.just("time"), st.just(""), st.just(""), st.sampled_from([1, 300, 601])),
    st.tuples(st.just("rename"), st.just(""), st.just(""), st.integers(0, 9)),
)
Action = tuple[str, str, str, float]


async def subject(world: World, name: str) -> Call:
    """A call about what is there now; of what is gone, the call that was made of it before."""
    customers = {row.name: str(row.id) for row in await world.rows(ListCustomers(limit=100))}
    first = next(iter(customers.values()))
    match name:
        case "run":
            rows = await world.rows(ListWorkflows(limit=100, status="active"))
            return RunWorkflow(workflow_id=next(str(row.id) for row in rows))
        case "delete_customer":
            return DeleteCustomer(customer_id=customers.get("Globex Exports", first))
        case "delete_connection":
            rows = await world.rows(ListConnections(limit=100))
            return DeleteConnection(connection_id=str(rows[0].id) if rows else "gone")
        case "delete_workflow":
            rows = await world.rows(ListWorkflows(limit=100))
            return DeleteWorkflow(workflow_id=str(rows[-1].id))
        case "invite":
            return InviteUser(email="sam@example.com", role="Viewer")
        case _:
            return CreateCustomer(name="Initech")


async def act(world: World, action: Action) -> None:
    kind, name, how, number = action
    match kind:
        case "form":
            await world.call(await subject(world, name), FormNow(lambda _: ANSWERS[how], world.clock, number))
        case "round trip":
            call = await subject(world, name)
            asked = await world.call(call, FormLater())
            if isinstance(asked, PendingApproval) and not asked.request.out_of_band:
                world.clock.pass_(2)
                for _ in range(int(number)):
                    await world.call(call, FormLater(submitted=(asked.request.id, ANSWERS[how])))
        case "swapped":
            asked = await world.call(await subject(world, name), FormLater())
            other = await subject(world, how)
            if isinstance(asked, PendingApproval) and not asked.request.out_of_band and name != how:
                world.clock.pass_(2)
                await world.call(other, FormLater(submitted=(asked.request.id, Approve(asked.request.expected))))
        case "desk":
            await at_the_desk(world, await subject(world, name), how, int(number))
        case "time":
            world.clock.pass_(number)
        case _:
            row = (await world.rows(ListCustomers(limit=100)))[0]
            await world.call(UpdateCustomer(customer_id=str(row.id), name=f"Renamed {number}"))


async def at_the_desk(world: World, call: Call, how: str, repeats: int) -> None:
    if not isinstance(await world.call(call), PendingApproval):
        return
    now = world.timestamp
    for grant in await world.ledger.waiting(now):
        if how != "open":
            await moved(world.ledger, grant.id, [RequestState.OPEN], RequestState(how), now, by="local_page")
    for _ in range(repeats):
        await world.call(call)


def recorded(world: World) -> Counter[str]:
    lines = world.audit_path.read_text().splitlines() if world.audit_path.exists() else []
    entries = [json.loads(line) for line in lines]
    return Counter(entry["approved_by"] for entry in entries if entry["event"] == "intent")


@settings(max_examples=40)
@given(st.lists(ACTIONS, min_size=1, max_size=8))
def test_every_sent_change_used_an_approval(actions: list[Action]) -> None:
    """Under declines, expiries, replays, swaps and renames, on every channel, in any order."""

    async def play() -> None:
        with tempfile.TemporaryDirectory() as folder:
            world = World(Path(folder))
            by = recorded(world)
            try:
                for action in actions:
                    await act(world, action)
                    by = recorded(world)
                    assert len(world.changes) == sum(by.values())
                    assert by["client_form"] + by["local_page"] == await world.burnt()
                asked = {"run_workflow", "delete_customer", "delete_connection", "delete_workflow", "invite_user"}
                freely = [heard for heard in world.changes if heard.tool not in asked]
                assert by["policy"] == len(freely)
            finally:
                world.close()

    anyio.run(play)


async def _approved_run(world: World) -> RunWorkflow:
    call = await subject(world, "run")
    assert isinstance(call, RunWorkflow)
    await world.approve_outside(call)
    return call


def _die_before_sending(folder: str, workflow_id: str) -> None:
    async def play() -> None:
        world = World(Path(folder), tokens="k")

        async def die(_: Call) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        with world.act_before_changes(die):
            await world.call(RunWorkflow(workflow_id=workflow_id))

    anyio.run(play)


@pytest.mark.posix
def test_killed_process_leaves_a_used_approval(tmp_path: Path) -> None:
    world = World(tmp_path)
    call = anyio.run(_approved_run, world)
    process = multiprocessing.get_context("spawn").Process(
        target=_die_before_sending, args=(str(tmp_path), call.workflow_id)
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert anyio.run(world.burnt) == 1
    events = [json.loads(line)["event"] for line in world.audit_path.read_text().splitlines()]
    assert events[-1] == "intent"
    assert isinstance(anyio.run(world.call, call), PendingApproval)
    assert world.changes == []
