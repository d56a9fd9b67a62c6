"""Waits of a call: their causes and lengths. Time is simulated; nothing sleeps."""

from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.clock import NOW, Clock
from support.fake_fastn import SILENT, Fastn, Step, client, error_of, reply

from fastn_mcp.client import client as client_module
from fastn_mcp.client.exchange import Answer, NotSentError, ResponseLost
from fastn_mcp.client.retry import exhausted_for, pause, retry_after
from fastn_mcp.records.rows import row_of
from fastn_mcp.runtime import System
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, GetCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.operation import Operation

READ = GetCustomer(customer_id="acme")
OK = reply(200, {"id": "acme"})
RESET = int(NOW.timestamp())


@pytest.mark.parametrize(
    ("share", "waits"), [(0.0, [0.1, 0.2]), (0.1, [0.1, 0.2]), (0.5, [0.25, 0.5]), (1.0, [0.5, 1.0])]
)
async def test_pause_grows_with_jitter(share: float, waits: list[float]) -> None:
    """Full jitter, never less than a fifth, doubling from half a second."""
    clock = Clock()
    await client(Fastn(reply(503), reply(503), OK), clock, share=share).send(READ)
    assert clock.waits == pytest.approx(waits)


THEIRS = NOW + timedelta(hours=3)
DATED = {
    "Retry-After": format_datetime(THEIRS + timedelta(seconds=9), usegmt=True),
    "Date": format_datetime(THEIRS, usegmt=True),
}


@pytest.mark.parametrize(
    ("status", "headers", "wait"),
    [(429, {"Retry-After": "7"}, 7.0), (503, {"Retry-After": "7"}, 7.0), (429, DATED, 9.0)],
)
async def test_retry_after_is_waited_for_by_the_servers_clock(
    status: int, headers: dict[str, str], wait: float
) -> None:
    """RFC 9110: seconds or an HTTP date. Clocks differ, so a date is compared with the response's own Date."""
    clock = Clock()
    await client(Fastn(reply(status, headers=headers), OK), clock).send(READ)
    assert clock.waits == [wait]


@pytest.mark.parametrize("wait", ["16", "900", format_datetime(NOW + timedelta(minutes=5), usegmt=True)])
async def test_retry_after_over_the_cap_returns_at_once(wait: str) -> None:
    clock = Clock()
    error = await error_of(client(Fastn(reply(429, headers={"Retry-After": wait})), clock), READ)
    assert clock.waits == []
    seconds = 300.0 if "," in wait else float(wait)
    assert error.facts["retry_after_seconds"] == seconds
    assert error.next_step == f"Call again in {seconds:.0f} seconds."


async def test_throttling_without_retry_after_gives_vague_advice() -> None:
    error = await error_of(client(Fastn(reply(429))), READ)
    assert error.next_step == "Call again in some minutes."
    assert "retry_after_seconds" not in error.facts


@pytest.mark.parametrize(
    "value",
    ["-1", "1.5", "1e3", "nan", "inf", "", " ", "[3]", "99999999999", "soon", "Mon, 01 Jan 99999999999 00:00:00 GMT",
     "Thu, 01 Jan 2026 00:00:00 +99999999999999", "Thu, 01 Jan 2026 99:00:00 GMT", "Wed, 01 Jul 2026 11:59:59 GMT",
     "Wed, 01 Jul 2026 12:00:05 -0000"],
)  # fmt: skip
def test_invalid_retry_after_is_ignored(value: str) -> None:
    assert retry_after({"retry-after": value}, NOW) is None


@given(value=st.text(max_size=60), date=st.text(max_size=60), remaining=st.sampled_from(["0", "1", ""]))
def test_any_header_is_parsed_without_an_error(value: str, date: str, remaining: str) -> None:
    headers = {"retry-after": value, "date": date, "x-ratelimit-remaining": remaining, "x-ratelimit-reset": value}
    for seconds in (retry_after(headers, NOW), exhausted_for(headers, NOW)):
        assert seconds is None or seconds >= 0


@given(attempt=st.integers(1, 40), requested=st.none() | st.floats(0, 1e6), share=st.floats(0, 1))
def test_pause_is_bounded_and_at_least_retry_after(attempt: int, requested: float | None, share: float) -> None:
    seconds = pause(attempt, requested, share)
    assert seconds >= (requested or 0.1)
    assert seconds <= max(requested or 0.0, 5.0)


def _used_up(reset: object, **more: str) -> Answer:
    headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset), **more}
    return reply(200, {"id": "acme"}, headers)


LATER = {"Date": format_datetime(NOW + timedelta(hours=1), usegmt=True)}


@pytest.mark.parametrize(
    ("answer", "waits"),
    [
        (_used_up(RESET + 8), [8.0]),
        (_used_up(RESET + 3_605, **LATER), [5.0]),
        (reply(200, {"id": "acme"}, {"X-RateLimit-Remaining": "1", "X-RateLimit-Reset": str(RESET + 9)}), []),
        *(
            (_used_up(implausible), [])
            for implausible in (RESET - 1, RESET, RESET + 86_401, RESET * 1000, "soon", "", "-5", "1e9", "9" * 13)
        ),
        (_used_up(RESET + 0.5), []),
    ],
)
async def test_used_up_limit_delays_the_next_call_until_its_reset(answer: Answer, waits: list[float]) -> None:
    """Fastn's reference: X-RateLimit-Reset is a Unix timestamp. It is read by the server's clock."""
    clock = Clock()
    sender = client(Fastn(answer, OK), clock)
    await sender.send(READ)
    assert clock.waits == []
    await sender.send(ListCustomers())
    await sender.send(READ)
    assert clock.waits == waits


async def test_distant_reset_returns_the_next_call_at_once() -> None:
    clock = Clock()
    fastn = Fastn(_used_up(RESET + 40))
    sender = client(fastn, clock)
    await sender.send(READ)
    error = await error_of(sender, CreateCustomer(name="Acme"))
    assert (error.outcome, error.known) == ("rate_limited", "Nothing was sent.")
    assert error.facts == {"retry_after_seconds": 40.0}
    assert (len(fastn.requests), clock.waits) == (1, [])


@pytest.mark.parametrize(
    ("call", "outcome", "known"),
    [
        (READ, "timeout", "Nothing was changed."),
        (ListCustomers(), "timeout", "Nothing was changed."),
        (CreateCustomer(name="A"), "unknown_outcome", "The change may or may not have been made."),
        (UpdateCustomer(customer_id="acme", name="A"), "unknown_outcome", "The change may or may not have been made."),
        (DeleteCustomer(customer_id="acme"), "unknown_outcome", "The change may or may not have been made."),
    ],
)
async def test_silent_server_ends_at_the_deadline_with_an_unknown_write(
    call: Operation[Any], outcome: str, known: str
) -> None:
    fastn = Fastn(SILENT)
    error = await error_of(client(fastn, deadline=0.02), call)
    assert error.outcome == outcome
    assert error.known.startswith(known)
    assert (len(fastn.requests), fastn.cancelled) == (1, 1)


async def test_ai_calls_have_at_least_their_own_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    assert client(Fastn(), deadline=60.0).deadline(AiChat(message="hi")) == 300
    assert client(Fastn(), deadline=600.0).deadline(AiChat(message="hi")) == 600
    monkeypatch.setattr(client_module, "AI_SECONDS", 0.02)
    error = await error_of(client(Fastn(SILENT), deadline=0.01), AiChat(message="hi"))
    assert error.outcome == "unknown_outcome"
    assert "did not answer in time" in str(error)


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "MAX_CONCURRENT_REQUESTS", 1)


@pytest.mark.usefixtures("one_at_a_time")
async def test_call_queued_until_the_deadline_was_not_sent() -> None:
    fastn = Fastn(SILENT)
    sender = client(fastn, deadline=0.05)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_swallow, sender.send(AiChat(message="the first")))
        await fastn.reached.wait()
        error = await error_of(sender, CreateCustomer(name="A"))
        assert (error.outcome, error.known) == ("not_sent", "Nothing was sent.")
        tasks.cancel_scope.cancel()
    assert len(fastn.requests) == 1


async def _swallow(awaited: Awaitable[object]) -> None:
    await awaited


class Stuck(Clock):
    """A pause that never ends."""

    async def sleep(self, seconds: float) -> None:
        await super().sleep(seconds)
        await anyio.Event().wait()


@pytest.mark.parametrize(
    ("first", "outcome"),
    [
        (reply(503), "unknown_outcome"),
        (ResponseLost("ReadError"), "unknown_outcome"),
        (reply(429), "rate_limited"),
        (NotSentError("ConnectError"), "not_sent"),
    ],
)
async def test_deadline_between_attempts_reports_the_first_outcome(first: Step, outcome: str) -> None:
    error = await error_of(client(Fastn(first), Stuck(), deadline=0.2), DeleteCustomer(customer_id="acme"))
    assert error.outcome == outcome
    assert len(error.next_step) > 5


@pytest.mark.usefixtures("one_at_a_time")
async def test_cancelled_call_cancels_its_request_and_frees_its_slot() -> None:
    fastn = Fastn(SILENT, OK)
    sender = client(fastn)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sender.send, CreateCustomer(name="A"))
        await fastn.reached.wait()
        tasks.cancel_scope.cancel()
    assert (len(fastn.requests), fastn.cancelled) == (1, 1)
    assert row_of(await sender.send(READ))["id"] == "acme"


async def test_closing_the_client_closes_its_connections() -> None:
    fastn = Fastn(OK)
    await client(fastn).aclose()
    assert fastn.closed


def test_default_system_uses_real_clocks_and_randomness() -> None:
    system = System()
    assert abs((system.now() - datetime.now(UTC)).total_seconds()) < 60
    assert 0 <= system.share() < 1
    assert len({system.token() for _ in range(8)}) == 8
    assert len(system.token()) >= 32
