"""What the client knows of Fastn's rate limits: the requests that are left, and when they reset."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime

import anyio
import pytest
from support.clock import NOW, Clock
from support.fake_fastn import KEY, SILENT, Fastn, Step, client, error_of, reply

from fastn_mcp.client.client import FastnClient
from fastn_mcp.client.exchange import Answer
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import FastnError
from fastn_mcp.tools.customers import GetCustomer

READ = GetCustomer(customer_id="acme")
PLAIN = reply(200, {"id": "acme"})
HOUR = 3_600
QUOTA = {"code": "QUOTA_EXCEEDED", "message": "API calls per day: 1000 of 1000 are used"}


def stated(remaining: object, reset: object = 40, limit: int | None = None, status: int = 200) -> Answer:
    """Return a response with rate limit headers. A number as `reset` is in seconds from `NOW`."""
    unix = int(NOW.timestamp()) + reset if isinstance(reset, int) else reset
    headers = {"X-RateLimit-Remaining": str(remaining), "X-RateLimit-Reset": str(unix)}
    return reply(status, {"id": "acme"}, headers | ({} if limit is None else {"X-RateLimit-Limit": str(limit)}))


async def after(*answers: Step, clock: Clock | None = None) -> FastnClient:
    """Return a client that has received these answers, one for each call, whatever the call made of them."""
    fastn = client(Fastn(*answers), clock)
    for _ in answers:
        with suppress(FastnError):
            await fastn.send(READ)
    return fastn


def known(fastn: FastnClient) -> tuple[int | None, float | None]:
    return fastn.limit.requests_left, fastn.limit.resets_in


async def test_nothing_is_known_before_fastn_states_a_limit() -> None:
    assert known(client(Fastn(PLAIN))) == (None, None)
    assert known(await after(PLAIN)) == (None, None)


async def test_last_response_states_what_is_left_until_it_resets() -> None:
    clock = Clock()
    fastn = await after(stated(19), stated(18), clock=clock)
    assert known(fastn) == (18, 40.0)
    clock.pass_(39)
    assert known(fastn) == (18, 1.0)
    clock.pass_(1)
    assert known(fastn) == (None, None)


@pytest.mark.parametrize(
    ("remaining", "reset"),
    [
        ("", 40),
        ("many", 40),
        ("-1", 40),
        ("1.5", 40),
        ("٣", 40),
        ("1" * 10, 40),
        (5, ""),
        (5, "soon"),
        (5, 0),
        (5, -1),
        (5, "9" * 5_000),
        (5, 86_401),
    ],
)
async def test_implausible_headers_are_ignored(remaining: object, reset: object) -> None:
    assert known(await after(stated(remaining, reset))) == (None, None)
    assert known(await after(stated(9), stated(remaining, reset))) == (8, 40.0)


async def test_one_header_alone_is_ignored() -> None:
    reset = str(int(NOW.timestamp()) + 40)
    for headers in ({"X-RateLimit-Remaining": "5"}, {"X-RateLimit-Reset": reset}):
        assert known(await after(reply(200, {"id": "acme"}, headers))) == (None, None)


async def test_late_response_does_not_raise_what_is_left() -> None:
    """Concurrent responses arrive in any order. A new window has a reset of its own."""
    assert known(await after(stated(3), stated(7))) == (3, 40.0)
    assert known(await after(stated(3), stated(19, 100))) == (19, 100.0)


async def test_requests_under_way_are_not_left() -> None:
    fastn = client(Fastn(stated(1), SILENT))
    await fastn.send(READ)
    assert fastn.limit.requests_left == 1
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(fastn.send, READ)
            await anyio.wait_all_tasks_blocked()
            assert fastn.limit.requests_left == 0  # never less
        group.cancel_scope.cancel()
    assert fastn.limit.requests_left == 1


async def test_monotonic_clock_ends_a_window_whatever_the_wall_clock_does() -> None:
    clock = Clock()
    jumped = timedelta()
    system = replace(clock.system(), now=lambda: NOW + jumped)
    fastn = FastnClient(Settings(base_url="https://fastn.example", api_key=KEY), Fastn(stated(5)), system)
    await fastn.send(READ)
    for jumped in (timedelta(days=-3), timedelta(days=3)):  # noqa: B007
        assert known(fastn) == (5, 40.0)
    clock.pass_(40)
    assert known(fastn) == (None, None)


async def test_reset_is_compared_with_the_clock_of_the_response() -> None:
    theirs = NOW + timedelta(hours=3)
    answer = stated(5, 3 * HOUR + 40)
    dated = replace(answer, headers={**answer.headers, "date": format_datetime(theirs, usegmt=True)})
    assert known(await after(dated)) == (5, 40.0)


async def test_daily_limit_is_kept_beside_the_short_one() -> None:
    clock = Clock()
    fastn = await after(stated(12, 5 * HOUR, 1000), stated(19, 40, 20), clock=clock)
    assert known(fastn) == (11, 5.0 * HOUR)  # one response did not mention the day
    fastn = await after(stated(12, 5 * HOUR, 1000), stated(3, 40, 20), clock=clock)
    assert known(fastn) == (3, 40.0)
    clock.pass_(40)
    assert known(fastn) == (11, 5.0 * HOUR - 40)
    clock.pass_(5 * HOUR)
    assert known(fastn) == (None, None)


async def test_each_response_counts_one_off_a_daily_limit() -> None:
    assert known(await after(stated(3, 5 * HOUR), *[PLAIN] * 2)) == (1, 5.0 * HOUR)
    assert known(await after(stated(3, 5 * HOUR), PLAIN, stated(900, 6 * HOUR))) == (900, 6.0 * HOUR)


async def test_daily_limit_that_serves_more_than_it_stated_is_forgotten() -> None:
    assert known(await after(stated(1, 5 * HOUR), PLAIN)) == (0, 5.0 * HOUR)
    assert known(await after(stated(1, 5 * HOUR), PLAIN, PLAIN)) == (None, None)


async def test_last_hour_of_a_daily_limit_is_one_window() -> None:
    """The limit's size tells that it is the same; counted twice, it would end twice as early."""
    assert known(await after(stated(12, HOUR + 1, 1000), stated(500, HOUR, 1000))) == (500, float(HOUR))


async def test_refused_quota_of_api_calls_closes_the_daily_limit() -> None:
    fastn = client(Fastn(stated(900, 5 * HOUR, 1000), stated(19, 40, 20), reply(429, QUOTA), reply(429, QUOTA), PLAIN))
    await fastn.send(READ)
    await fastn.send(READ)
    assert known(fastn) == (19, 40.0)
    assert (await error_of(fastn, READ)).outcome == "quota_exceeded"
    assert known(fastn) == (0, 5.0 * HOUR)
    await error_of(fastn, READ)
    assert known(fastn) == (0, 5.0 * HOUR)
    await fastn.send(READ)  # it is served again
    assert known(fastn) == (16, 40.0)


@pytest.mark.parametrize(
    ("headers", "seconds"), [({}, 600.0), ({"Retry-After": "7200"}, 7200.0), ({"Retry-After": "999999"}, 86_400.0)]
)
async def test_quota_without_a_daily_limit_is_closed_for_a_while(headers: dict[str, str], seconds: float) -> None:
    clock = Clock()
    fastn = client(Fastn(stated(900, 5 * HOUR), reply(429, {"error": QUOTA}, headers)), clock)
    await fastn.send(READ)
    clock.pass_(5 * HOUR)
    await error_of(fastn, READ)
    assert known(fastn) == (0, seconds)


@pytest.mark.parametrize(
    "body",
    [
        {"code": "QUOTA_EXCEEDED", "message": "API keys per customer"},
        {"code": "QUOTA_EXCEEDED"},
        {"message": "API calls"},
    ],
)
async def test_other_refusals_leave_the_daily_limit_open(body: dict[str, str]) -> None:
    fastn = await after(stated(900, 5 * HOUR), reply(429, body, {"Retry-After": "20"}))
    assert known(fastn) == ((899, 5.0 * HOUR) if "code" in body else (0, 20.0))


@pytest.mark.parametrize(("seconds", "resets_in"), [(20, 20.0), (7_200, 7_200.0), (999_999, 86_400.0)])
async def test_refusal_states_when_requests_are_possible_again(seconds: int, resets_in: float) -> None:
    fastn = await after(stated(5, 10), reply(429, headers={"Retry-After": str(seconds)}))
    assert known(fastn) == (0, resets_in)


async def test_later_reset_counts_where_both_limits_are_used_up() -> None:
    assert known(await after(stated(1, 5 * HOUR, 1000), stated(0, 10, 20))) == (0, 5.0 * HOUR)


async def test_limit_that_another_process_used_up_leaves_nothing() -> None:
    class Store:
        async def mark(self, name: str, until: float, now: float) -> None: ...

        async def marked(self, name: str) -> float:  # noqa: ARG002
            return NOW.timestamp() + 30

    endpoint = Settings(base_url="https://fastn.example", api_key=KEY)
    fastn = FastnClient(endpoint, Fastn(PLAIN), Clock().system(), Store())
    await error_of(fastn, READ)
    assert known(fastn) == (0, 30.0)
