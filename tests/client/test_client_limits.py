"""Limits of a client: a rate limit that processes share, retries in an outage, waiting calls, and requests counted."""

import anyio
import anyio.lowlevel
import pytest
from support.clock import NOW, Clock
from support.fake_fastn import KEY, Fastn, Step, client, error_of, reply

from fastn_mcp.client.client import MAX_CONCURRENT_REQUESTS, MAX_QUEUED_CALLS, FastnClient
from fastn_mcp.client.cost import Spent, counted_requests, spent
from fastn_mcp.client.exchange import Answer, NotSentError, ResponseLost
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import NotSent, RateLimited
from fastn_mcp.tools.customers import CreateCustomer, GetCustomer, UpdateCustomer
from fastn_mcp.tools.operation import Request

READ = GetCustomer(customer_id="acme")
OK = reply(200, {"id": "acme"})


class FakeLimitStore:
    """A store shared by processes, which counts reads and writes."""

    def __init__(self) -> None:
        self.until: dict[str, float] = {}
        self.reads = 0
        self.writes = 0
        self.error: Exception | None = None
        self.silent = False

    async def mark(self, name: str, until: float, now: float) -> None:
        assert until > now
        self.writes += 1
        await self._fail()
        self.until[name] = max(until, self.until.get(name, 0.0))

    async def marked(self, name: str) -> float:
        self.reads += 1
        await self._fail()
        return self.until.get(name, 0.0)

    async def _fail(self) -> None:
        if self.error is not None:
            raise self.error
        if self.silent:
            await anyio.sleep_forever()


def process(store: FakeLimitStore, clock: Clock, *steps: Step, key: str = KEY) -> tuple[FastnClient, Fastn]:
    fastn = Fastn(*steps)
    return FastnClient(
        Settings(base_url="https://fastn.example", api_key=key, update="partial"), fastn, clock.system(), store
    ), fastn


def used_up(seconds: int) -> Step:
    reset = str(int(NOW.timestamp()) + seconds)
    return reply(200, {"id": "acme"}, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset})


def throttled(seconds: int) -> Step:
    return reply(429, headers={"Retry-After": str(seconds)})


async def test_used_up_limit_makes_other_processes_wait() -> None:
    store, clock = FakeLimitStore(), Clock()
    first, _ = process(store, clock, used_up(9))
    second, other = process(store, clock, OK)
    await first.send(READ)
    await second.send(READ)
    assert clock.waits == [9.0]
    assert len(other.requests) == 1


async def test_retry_after_of_one_process_is_shared() -> None:
    store, clock = FakeLimitStore(), Clock()
    first, _ = process(store, clock, throttled(60))
    second, other = process(store, clock, OK)
    with pytest.raises(RateLimited):
        await first.send(READ)
    with pytest.raises(RateLimited) as caught:
        await second.send(CreateCustomer(name="Initech"))
    assert caught.value.facts["retry_after_seconds"] == 60.0
    assert "Nothing was sent." in str(caught.value)
    assert other.requests == []
    clock.pass_(61)
    await second.send(READ)


async def test_open_limit_is_read_once_a_second_and_never_written() -> None:
    store, clock = FakeLimitStore(), Clock()
    first, fastn = process(store, clock, OK)
    for _ in range(100):
        await first.send(READ)
    assert (len(fastn.requests), store.reads, store.writes) == (100, 1, 0)
    clock.pass_(1.0)
    await first.send(READ)
    assert store.reads == 2


async def test_concurrent_refusals_are_shared_once() -> None:
    """A used-up limit must not flood the ledger."""
    store, clock = FakeLimitStore(), Clock()
    first, _ = process(store, clock, throttled(60))

    async def refused() -> None:
        with pytest.raises(RateLimited):
            await first.send(READ)

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(refused)
    assert (store.reads, store.writes) == (1, 1)


async def test_limits_are_per_key_and_host_and_store_no_key() -> None:
    store, clock = FakeLimitStore(), Clock()
    first, _ = process(store, clock, used_up(60))
    second, _ = process(store, clock, OK, key="fsk_live_another")
    await first.send(READ)
    await second.send(READ)
    assert clock.waits == []
    assert KEY not in str(store.until)


@pytest.mark.parametrize("how", ["it fails", "it is silent"])
async def test_failing_store_is_not_used_for_a_while(how: str) -> None:
    """Reads work without the ledger, and wait for it at most once in ten seconds."""
    store, clock = FakeLimitStore(), Clock()
    store.error = OSError("unavailable") if how == "it fails" else None
    store.silent = how == "it is silent"
    first, fastn = process(store, clock, used_up(0), OK, reply(429, headers={"Retry-After": "1"}), OK)
    for _ in range(5):
        await first.send(READ)
    assert (len(fastn.requests), store.reads) == (6, 1)
    clock.pass_(10.0)
    await first.send(READ)
    assert store.reads == 2


async def test_implausible_shared_time_is_ignored() -> None:
    store, clock = FakeLimitStore(), Clock()
    first, _ = process(store, clock, used_up(9), OK)
    await first.send(READ)
    ((key, _),) = store.until.items()
    store.until[key] = NOW.timestamp() + 90_000
    second, other = process(store, clock, OK)
    await second.send(READ)
    assert (clock.waits, len(other.requests)) == ([], 1)


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
    calling = client(fastn)
    outcomes: list[str] = []

    async def call() -> None:
        try:
            await calling.send(READ)
            outcomes.append("done")
        except NotSent as error:
            outcomes.append(error.outcome)

    async with anyio.create_task_group() as tasks:
        for _ in range(MAX_CONCURRENT_REQUESTS + MAX_QUEUED_CALLS + 5):
            tasks.start_soon(call)
        while outcomes.count("not_sent") < 5:
            await anyio.lowlevel.checkpoint()
        release.set()
    assert most == MAX_CONCURRENT_REQUESTS
    assert outcomes.count("not_sent") == 5
    assert outcomes.count("done") == MAX_CONCURRENT_REQUESTS + MAX_QUEUED_CALLS


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
