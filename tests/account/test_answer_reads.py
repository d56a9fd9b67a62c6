"""Tests of the reads of an answer: how many it sends under a rate limit, how long it waits, and who may read."""

from dataclasses import dataclass, field, replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from support.clock import Clock

from fastn_mcp.account.answer_reads import (
    MAX_REQUESTS,
    MAX_WAIT,
    MIN_REQUESTS,
    REQUESTS_WITHOUT_LIMIT,
    RESERVE,
    AnswerReads,
    SharedReads,
)
from fastn_mcp.account.snapshot import AccountSnapshot
from fastn_mcp.client.cost import counted_requests
from fastn_mcp.errors import Failed, Forbidden, RateLimited
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.customers import GetCustomer
from fastn_mcp.tools.operation import Operation


@dataclass
class Fastn:
    """Fastn with a limit of requests a minute, as its client knows it."""

    clock: Clock
    per_minute: int | None = None
    """None: it names none."""
    used: int = 0
    resets_at: float = 60.0
    """Seconds after the start."""
    may_be_stated: bool = True
    sent: list[str] = field(default_factory=list[str])
    under_way: int = 0
    most_under_way: int = 0
    takes_turns: bool = False
    """Whether a request is answered once the other tasks wait too."""
    known: bool = False

    @property
    def requests_left(self) -> int | None:
        left = None if self.per_minute is None else max(self.per_minute - self.used - self.under_way, 0)
        return left if self.known and self.seconds > 0 else None

    @property
    def resets_in(self) -> float | None:
        return self.seconds if self.known else None

    @property
    def seconds(self) -> float:
        return self.resets_at - (self.clock.at - Clock().at).total_seconds()

    async def send(self, call: Operation[Any]) -> FastnObject:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        if self.takes_turns:
            await anyio.wait_all_tasks_blocked()
        self.under_way -= 1
        assert call.target is not None
        self.sent.append(call.target)
        if self.seconds <= 0:
            self.resets_at, self.used = self.resets_at + 60, 0
        self.used += 1
        self.known = self.per_minute is not None
        self.may_be_stated = self.known
        assert self.per_minute is None or self.used <= self.per_minute, "429"
        return call.result({"data": {"id": call.target}})


@dataclass
class Account:
    """One account, and the answers about it."""

    clock: Clock = field(default_factory=Clock)
    most: int | None = None

    def __post_init__(self) -> None:
        self.fastn = Fastn(self.clock)
        system = self.clock.system()
        client: Any = SimpleNamespace(limit=self.fastn)
        self.shared = SharedReads(client, AccountSnapshot(system, 90), system, self.most)

    def limited(self, limit: int, used: int = 0, resets_at: float = 60.0) -> None:
        """Let a response have named a limit."""
        self.fastn.per_minute, self.fastn.used, self.fastn.resets_at, self.fastn.known = limit, used, resets_at, True

    def look(self) -> AnswerReads:
        return AnswerReads(self.shared, self.fastn.send, lambda _: None)

    async def read(self, look: AnswerReads, number: int, of: str = "c") -> int:
        """Read so many customers at once. Return the number of those that the plan leaves out."""
        left_out = 0

        async def one(key: str) -> None:
            nonlocal left_out
            try:
                await look(GetCustomer(customer_id=key))
            except RateLimited:
                left_out += 1

        async with anyio.create_task_group() as group:
            for n in range(number):
                group.start_soon(one, f"{of}{n}")
        return left_out


@pytest.fixture
def account() -> Account:
    return Account()


@pytest.mark.parametrize(
    ("limit", "used", "share"),
    [(600, 0, MAX_REQUESTS), (80, 0, 40), (80, 50, 15), (26, 0, 13), (20, 0, MIN_REQUESTS), (20, 2, MIN_REQUESTS)],
)
async def test_answer_sends_half_of_what_is_left(account: Account, limit: int, used: int, share: int) -> None:
    account.limited(limit, used)
    assert await account.read(account.look(), 100) == 100 - share
    assert len(account.fastn.sent) == share


@pytest.mark.parametrize(("limit", "used"), [(20, 10), (20, 16), (5, 0)])
async def test_reserve_is_left_to_the_guard(account: Account, limit: int, used: int) -> None:
    account.limited(limit, used)
    await account.read(account.look(), 30)
    assert account.fastn.requests_left == RESERVE


async def test_share_counts_the_request_whose_response_names_the_limit(account: Account) -> None:
    account.fastn.per_minute = 80
    assert await account.read(account.look(), 100) == 60


async def test_share_is_fixed_once_the_limit_is_known(account: Account) -> None:
    """What other answers use meanwhile does not make it smaller, as long as it is left."""
    account.limited(80)
    look = account.look()
    assert look.affordable == 40
    assert await account.read(look, 10) == 0
    account.fastn.used += 20
    assert look.affordable == 30
    account.fastn.used += 30
    assert look.affordable == 80 - 60 - RESERVE


async def test_number_is_bounded_while_no_limit_is_named(account: Account) -> None:
    account.fastn.may_be_stated = False
    assert await account.read(account.look(), 40) == 40 - REQUESTS_WITHOUT_LIMIT
    assert await account.read(account.look(), 40) == 0, "the same call again continues"
    assert len(account.fastn.sent) == 40


async def test_first_request_alone_tells_the_limit(account: Account) -> None:
    """Else more would be under way than the limit allows before a response names it."""
    account.fastn.per_minute, account.fastn.used, account.fastn.takes_turns = 20, 10, True
    left_out = await account.read(account.look(), 30)
    assert account.fastn.requests_left == RESERVE
    assert account.fastn.most_under_way == 9 - RESERVE, "the others are sent at once"
    assert left_out == 30 - 7


async def test_first_requests_are_sent_together_where_no_limit_is_named(account: Account) -> None:
    account.fastn.may_be_stated, account.fastn.takes_turns = False, True
    await account.read(account.look(), 5)
    assert account.fastn.most_under_way == 5


async def test_first_request_that_fails_lets_the_next_try(account: Account) -> None:
    async def send(call: Operation[Any]) -> FastnObject:
        if not failed:
            failed.append(call)
            raise Failed("Fastn answered 500.")
        return await account.fastn.send(call)

    failed: list[Any] = []
    look = AnswerReads(account.shared, send, lambda _: None)
    with pytest.raises(Failed):
        await look(GetCustomer(customer_id="a"))
    assert await account.read(look, 3) == 0


async def test_answer_waits_for_a_reset_that_is_near(account: Account) -> None:
    account.limited(20, 17, resets_at=MAX_WAIT)
    look = account.look()
    assert await account.read(look, 1) == 0
    assert account.clock.at - Clock().at == timedelta(seconds=MAX_WAIT)


async def test_reads_at_once_wait_for_the_same_reset(account: Account) -> None:
    """Five waits of 4 s are one of 4 s if they begin together."""
    account.limited(20, 17, resets_at=4)
    clock = account.clock

    async def sleep(seconds: float) -> None:
        until = clock.at + timedelta(seconds=seconds)
        await anyio.wait_all_tasks_blocked()
        clock.at = max(clock.at, until)

    account.shared = replace(account.shared, system=replace(account.shared.system, sleep=sleep))
    assert await account.read(account.look(), 8) == 0
    assert clock.at - Clock().at == timedelta(seconds=4)


async def test_reset_that_is_too_late_is_not_waited_for(account: Account) -> None:
    account.limited(20, 17, resets_at=MAX_WAIT + 1)
    with pytest.raises(RateLimited) as caught:
        await account.look()(GetCustomer(customer_id="a"))
    assert (account.fastn.sent, account.clock.at) == ([], Clock().at)
    assert caught.value.what == "Left out to stay within Fastn's rate limit. Call again in 11 s to continue."


async def test_answer_waits_no_longer_in_all(account: Account) -> None:
    account.limited(4, 1, resets_at=6)
    look = account.look()
    assert await account.read(look, 1) == 0
    account.fastn.resets_at = (account.clock.at - Clock().at).total_seconds() + 6
    account.fastn.used = 1
    assert await account.read(look, 1, "d") == 1
    assert account.clock.at - Clock().at == timedelta(seconds=6)
    assert await account.read(account.look(), 1, "d") == 0, "another answer may wait anew"


async def test_answer_that_has_sent_its_share_does_not_wait(account: Account) -> None:
    account.limited(30, 0, resets_at=5)
    look = account.look()
    assert await account.read(look, 15) == 0
    with pytest.raises(RateLimited) as caught:
        await look(GetCustomer(customer_id="more"))
    assert caught.value.what == "Left out to stay within Fastn's rate limit. Call again to continue."
    assert account.clock.at == Clock().at


async def test_answers_at_once_share_what_is_left(account: Account) -> None:
    account.limited(40)
    account.fastn.takes_turns = True
    left_out = list[int]()

    async def answer(name: str) -> None:
        left_out.append(await account.read(account.look(), 30, name))

    async with anyio.create_task_group() as group:
        for name in "abc":
            group.start_soon(answer, name)
    assert len(account.fastn.sent) == 40 - RESERVE
    assert sum(left_out) == 90 - len(account.fastn.sent)


async def test_what_another_answer_reads_costs_nothing(account: Account) -> None:
    account.limited(26)
    account.fastn.takes_turns = True
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(account.read, account.look(), 10)
    assert len(account.fastn.sent) == 10
    assert await account.read(account.look(), 10) == 0
    assert len(account.fastn.sent) == 10


@pytest.mark.parametrize(
    ("limit", "most", "sent"), [(None, 7, 7), (None, 100, 90), (600, 90, 90), (20, 90, 17), (600, 1, 1)]
)
async def test_requests_per_answer_replace_the_share(limit: int | None, most: int, sent: int) -> None:
    account = Account(most=most)
    if limit is not None:
        account.limited(limit)
    await account.read(account.look(), 90)
    assert len(account.fastn.sent) == sent


async def test_stored_answer_is_only_for_those_who_may_read_it(account: Account) -> None:
    await account.read(account.look(), 1)

    def refuse(call: Operation[Any]) -> None:
        raise Forbidden(f"{call.tool_name()} is not permitted.")

    with pytest.raises(Forbidden):
        await AnswerReads(account.shared, account.fastn.send, refuse)(GetCustomer(customer_id="c0"))
    assert await account.read(account.look(), 1) == 0
    assert account.fastn.sent == ["c0"]


async def test_answer_says_as_of_when_it_is(account: Account) -> None:
    begun, clock = account.clock.at, account.clock
    with counted_requests() as cost:
        look = account.look()
        await account.read(look, 1)
        assert (look.as_of, look.age()) == (begun, {})
        clock.pass_(20)
        look = account.look()
        assert look.as_of == clock.at
        await account.read(look, 2)
        assert look.as_of == begun
        assert look.age() == {"as_of": "2026-11-25T09:00:00Z"}
        assert cost.oldest == begun.timestamp()


async def test_as_of_is_right_though_the_clock_jumps(account: Account) -> None:
    await account.read(account.look(), 1)
    account.clock.pass_(20)
    system = account.shared.system
    jumped = replace(system, now=lambda: system.now() + timedelta(days=300))
    look = AnswerReads(replace(account.shared, system=jumped), account.fastn.send, lambda _: None)
    await account.read(look, 1)
    assert look.as_of == jumped.now() - timedelta(seconds=20)
