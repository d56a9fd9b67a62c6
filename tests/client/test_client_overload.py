"""An outage causes no storm of retries, and the queue of waiting calls is bounded."""

import anyio
import anyio.lowlevel
from support.clock import Clock
from support.fake_fastn import Fastn, client, error_of, reply

from fastn_mcp.client.client import MAX_QUEUED_CALLS
from fastn_mcp.client.exchange import Answer
from fastn_mcp.errors import NotSent
from fastn_mcp.tools.customers import GetCustomer
from fastn_mcp.tools.operation import Request

READ = GetCustomer(customer_id="a")


async def test_retries_during_an_outage_are_bounded() -> None:
    fastn = Fastn(reply(503))
    calling = client(fastn)
    for _ in range(50):
        await error_of(calling, READ)
    assert 50 <= len(fastn.requests) <= 100


async def test_answers_refill_the_retry_budget() -> None:
    outage, fine = reply(503), reply(200, {"id": "a"})
    fastn = Fastn(*[outage] * 90, *[fine] * 20, outage)
    clock = Clock()
    calling = client(fastn, clock)
    while len(fastn.requests) < 90:
        await error_of(calling, READ)
    slept = len(clock.waits)
    for _ in range(20):
        await calling.send(READ)
    await error_of(calling, READ)
    assert len(clock.waits) > slept


async def test_calls_beyond_the_queue_are_not_sent() -> None:
    release = anyio.Event()
    under_way = 0
    most = 0

    class Slow(Fastn):
        async def __call__(self, request: Request) -> Answer:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await release.wait()
            under_way -= 1
            return await super().__call__(request)

    fastn = Slow(reply(200, {"id": "a"}))
    calling = client(fastn, concurrency=8)
    outcomes: list[str] = []

    async def call() -> None:
        try:
            await calling.send(READ)
            outcomes.append("done")
        except NotSent as error:
            outcomes.append(error.outcome)

    async with anyio.create_task_group() as tasks:
        for _ in range(8 + MAX_QUEUED_CALLS + 5):
            tasks.start_soon(call)
        while outcomes.count("not_sent") < 5:
            await anyio.lowlevel.checkpoint()
        release.set()
    assert most == 8
    assert outcomes.count("not_sent") == 5
    assert outcomes.count("done") == 8 + MAX_QUEUED_CALLS
