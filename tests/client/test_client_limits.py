"""What one process finds out about a rate limit, others with the same key honour; room costs nothing. Ours."""

from typing import Any

import anyio
import pytest
from fake_fastn import KEY, NOW, Clock, Fastn, Step, says

from fastn_mcp.client.account import Account
from fastn_mcp.client.client import FastnClient
from fastn_mcp.errors import RateLimited
from fastn_mcp.tools.customers import CreateCustomer, GetCustomer

pytestmark = pytest.mark.anyio

READ = GetCustomer(customer_id="acme")
OK = says(200, {"id": "acme"})


class Board:
    """Where processes tell each other; every look and every note is counted."""

    def __init__(self) -> None:
        self.until: dict[str, float] = {}
        self.looks = 0
        self.notes = 0
        self.away: Exception | None = None
        self.silent = False

    async def note_limit(self, key: str, until: float, now: float) -> None:
        assert until > now
        self.notes += 1
        await self._reached()
        self.until[key] = max(until, self.until.get(key, 0.0))

    async def limited(self, key: str) -> float:
        self.looks += 1
        await self._reached()
        return self.until.get(key, 0.0)

    async def _reached(self) -> None:
        if self.away is not None:
            raise self.away
        if self.silent:
            await anyio.sleep_forever()


def process(board: Board, clock: Clock, *steps: Step, key: str = KEY) -> tuple[FastnClient, Fastn]:
    fastn = Fastn(*steps)
    return FastnClient(Account("https://fastn.example", key, update="partial"), fastn, clock.system(), board), fastn


def used_up(seconds: int) -> Step:
    reset = str(int(NOW.timestamp()) + seconds)
    return says(200, {"id": "acme"}, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": reset})


def throttled(seconds: int) -> Step:
    return says(429, headers={"Retry-After": str(seconds)})


async def test_a_limit_that_one_process_used_up_makes_the_others_wait() -> None:
    """Issue 8: rate-limit knowledge is shared."""
    board, clock = Board(), Clock()
    one, _ = process(board, clock, used_up(9))
    two, other = process(board, clock, OK)
    await one.send(READ)
    await two.send(READ)
    assert clock.waits == [9.0]
    assert len(other.requests) == 1


async def test_a_wait_that_one_process_was_told_to_keep_is_told_to_the_others() -> None:
    """Issue 8: over the cap the call returns with the wait, and nothing is sent."""
    board, clock = Board(), Clock()
    one, _ = process(board, clock, throttled(60))
    two, other = process(board, clock, OK)
    with pytest.raises(RateLimited):
        await one.send(READ)
    with pytest.raises(RateLimited) as caught:
        await two.send(CreateCustomer(name="Initech"))
    assert caught.value.facts["retry_after_seconds"] == 60.0
    assert "Nothing was sent." in str(caught.value)
    assert other.requests == []
    clock.passed += 61
    await two.send(READ)


async def test_who_finds_room_looks_once_a_second_and_tells_nothing() -> None:
    """Issue 8: the hot path pays no round trip for each request."""
    board, clock = Board(), Clock()
    one, fastn = process(board, clock, OK)
    for _ in range(100):
        await one.send(READ)
    assert (len(fastn.requests), board.looks, board.notes) == (100, 1, 0)
    clock.passed += 1.0
    await one.send(READ)
    assert board.looks == 2


async def test_many_who_are_refused_at_once_tell_it_once() -> None:
    """Ours: a limit that is used up must not become a storm on the ledger."""
    board, clock = Board(), Clock()
    one, _ = process(board, clock, throttled(60))

    async def refused() -> None:
        with pytest.raises(RateLimited):
            await one.send(READ)

    async with anyio.create_task_group() as group:
        for _ in range(50):
            group.start_soon(refused)
    assert (board.looks, board.notes) == (1, 1)


async def test_keys_and_hosts_are_told_apart_and_never_written_down() -> None:
    """THREATS T10: throttling one leaves the other alone. No key is on the board."""
    board, clock = Board(), Clock()
    one, _ = process(board, clock, used_up(60))
    two, _ = process(board, clock, OK, key="fsk_live_another")
    await one.send(READ)
    await two.send(READ)
    assert clock.waits == []
    assert KEY not in str(board.until)


@pytest.mark.parametrize("how", ["it fails", "it is silent"])
async def test_a_board_that_is_away_is_left_alone_for_a_while(how: str) -> None:
    """Issue 8: reads pass without the ledger, and wait for it at most once in ten seconds."""
    board, clock = Board(), Clock()
    board.away = OSError("away") if how == "it fails" else None
    board.silent = how == "it is silent"
    one, fastn = process(board, clock, used_up(0), OK, says(429, headers={"Retry-After": "1"}), OK)
    for _ in range(5):
        await one.send(READ)
    assert (len(fastn.requests), board.looks) == (6, 1)
    clock.passed += 10.0
    await one.send(READ)
    assert board.looks == 2


async def test_a_time_that_cannot_be_is_not_believed() -> None:
    """Ours: a day is the longest, as in an answer of Fastn's own."""
    board, clock = Board(), Clock()
    one, _ = process(board, clock, used_up(9), OK)
    await one.send(READ)
    ((key, _),) = board.until.items()
    board.until[key] = NOW.timestamp() + 90_000
    two, other = process(board, clock, OK)
    await two.send(READ)
    assert (clock.waits, len(other.requests)) == ([], 1)


def test_a_process_alone_asks_nobody() -> None:
    """Ours: without a shared ledger nothing of this is there."""
    clock = Clock()
    fastn = Fastn(OK)
    made: Any = FastnClient(Account("https://fastn.example", KEY), fastn, clock.system())
    anyio.run(made.send, READ)
    assert len(fastn.requests) == 1
