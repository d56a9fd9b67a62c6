"""The requests that a call sends are counted."""

import anyio
from support.clock import Clock
from support.fake_fastn import Fastn, client, error_of, reply

from fastn_mcp.client.exchange import NotSentError, ResponseLost, Spent, counted_requests, spent
from fastn_mcp.tools.customers import CreateCustomer, GetCustomer, UpdateCustomer

READ = GetCustomer(customer_id="acme")
OK = reply(200, {"id": "acme"})


async def test_each_attempt_is_one_request() -> None:
    fastn = client(Fastn(reply(503), ResponseLost("it broke"), OK))
    with counted_requests() as cost:
        await fastn.send(READ)
    assert (cost.requests, fastn.requests_sent) == (3, 3)


async def test_attempt_that_was_not_sent_is_no_request() -> None:
    fastn = client(Fastn(NotSentError("refused")))
    with counted_requests() as cost:
        await error_of(fastn, CreateCustomer(name="Initech"))
    assert (cost.requests, fastn.requests_sent) == (0, 0)


async def test_read_before_a_merged_update_is_a_request() -> None:
    fastn = client(Fastn(reply(200, {"id": "acme", "name": "Acme"}), OK), update="merge")
    with counted_requests() as cost:
        await fastn.send(UpdateCustomer(customer_id="acme", plan="Growth"))
    assert cost.requests == 2


async def test_concurrent_calls_are_counted_apart() -> None:
    fastn, costs = client(Fastn(OK), Clock()), list[Spent]()

    async def call(times: int) -> None:
        with counted_requests() as cost:
            for _ in range(times):
                await fastn.send(READ)
                await anyio.lowlevel.checkpoint()
        costs.append(cost)

    async with anyio.create_task_group() as group:
        for times in (1, 2, 3):
            group.start_soon(call, times)
    assert sorted(cost.requests for cost in costs) == [1, 2, 3]
    await fastn.send(READ)
    assert (sum(cost.requests for cost in costs), fastn.requests_sent) == (6, 7)


async def test_inner_block_counts_for_the_outer_one() -> None:
    fastn = client(Fastn(OK))
    with counted_requests() as outer:
        await fastn.send(READ)
        with counted_requests() as inner:
            await fastn.send(READ)
        await fastn.send(READ)
    assert inner is outer
    assert outer.requests == 3
    assert spent.get() is None


def test_each_request_is_recorded_once() -> None:
    cost = Spent(requests=3)
    assert [cost.unrecorded(), cost.unrecorded()] == [3, 0]
    cost.requests += 2
    assert cost.unrecorded() == 2
