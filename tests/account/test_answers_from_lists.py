"""Lists and counts that the snapshot derives from stored lists: never less than a request would tell."""

from datetime import timedelta
from typing import Any

import pytest
from support.world import World

from fastn_mcp.account.answer_reads import AnswerReads
from fastn_mcp.extensions.sandbox.state import stamp
from fastn_mcp.procedures.reads import read_back
from fastn_mcp.tools.workflows import ListExecutions


@pytest.fixture
def look(world: World) -> AnswerReads:
    """Reads of one answer on an account of 250 runs for one customer and 250 without one, in turn, newest first."""
    state = world.sandbox.state
    run = next(row for row in state.all("executions") if row["status"] == "completed")
    state.rows["executions"].clear()
    state.rows.pop("_runs", None)
    for number in range(500):
        at = stamp(world.clock.at - timedelta(minutes=number + (number // 100) ** 4))
        owner = "customer" if number % 2 else None
        state.put("executions", run | {"id": f"exec_{number}", "createdAt": at, "endOrgId": owner})
    world.sandbox.requests.clear()
    return AnswerReads(world.shared, world.client.send, lambda _: None)


def _runs(**arguments: Any) -> ListExecutions:
    return ListExecutions.model_validate({"limit": 1} | arguments)


async def _total(look: AnswerReads, call: ListExecutions) -> int | None:
    page: Any = await look(call)
    return page.total


async def test_list_that_gives_the_total_is_preferred(look: AnswerReads, world: World) -> None:
    await look(ListExecutions(limit=100))  # shows the newest run of the customer, and not how many there are
    await look(ListExecutions(limit=100, customer_id="customer"))
    world.sandbox.requests.clear()
    assert await _total(look, _runs(customer_id="customer")) == 250
    assert world.sandbox.requests == []


async def test_older_runs_are_not_counted_by_a_list_without_their_number(look: AnswerReads, world: World) -> None:
    await look(ListExecutions(limit=100))
    until = stamp(world.clock.at - timedelta(minutes=50))
    older = _runs(customer_id="customer", until=until)
    assert not look.snapshot.holds(older)
    assert await _total(look, older) == sum(
        row["endOrgId"] == "customer" and row["createdAt"] < until for row in world.sandbox.state.all("executions")
    )


async def test_short_list_is_read_back_however_its_rows_are_spread(look: AnswerReads, world: World) -> None:
    """The newest hundred runs are of less than two hours, and the rest of a day."""
    everything, begin = ListExecutions(limit=100), world.clock.at - timedelta(days=2)
    await read_back(everything, look, begin, most=5)
    assert len(world.sandbox.requests) == 5
    assert await _total(look, _runs(since=begin.isoformat())) == 500
    assert len(world.sandbox.requests) == 5


async def test_long_list_is_not_read_back_if_its_newest_rows_tell_that_it_takes_more(
    look: AnswerReads, world: World
) -> None:
    await read_back(ListExecutions(limit=100), look, world.clock.at - timedelta(days=2), most=4)
    assert len(world.sandbox.requests) == 1
