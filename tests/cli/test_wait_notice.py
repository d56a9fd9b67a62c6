"""A call at the command line says why it waits for Fastn, once that has taken two seconds."""

from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from fastn_mcp.cli.call_output import WaitNotice
from fastn_mcp.client.retry import announce_wait
from fastn_mcp.runtime import System

REFUSED = "Fastn at fastn.example cannot be reached: it refuses the connection."
LINE = f"fastn-mcp: Waiting for Fastn. {REFUSED}\n"


async def said(work: Callable[[anyio.Event], Awaitable[None]], capsys: pytest.CaptureFixture[str]) -> str:
    """Return what is said on stderr during the work, which is given an event that lets two seconds pass."""
    passed, slept = anyio.Event(), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await passed.wait()

    await WaitNotice(System(sleep=sleep)).during(lambda: work(passed))
    assert set(slept) <= {2.0}
    return capsys.readouterr().err


async def let_pass(passed: anyio.Event) -> None:
    await anyio.lowlevel.checkpoint()
    passed.set()
    await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize("is_heard_before", [True, False])
async def test_reason_is_said_once_after_two_seconds(is_heard_before: bool, capsys: pytest.CaptureFixture[str]) -> None:
    async def work(passed: anyio.Event) -> None:
        if is_heard_before:
            await announce_wait(f"{REFUSED} Trying again in 0.3 s (attempt 2 of 3).")
            assert capsys.readouterr().err == ""
        await let_pass(passed)
        await announce_wait(f"{REFUSED} Trying again in 0.9 s (attempt 3 of 3).")
        await announce_wait(f"{REFUSED} Trying again in 0.8 s (attempt 3 of 3).")

    assert await said(work, capsys) == LINE


async def test_other_reason_is_said_too(capsys: pytest.CaptureFixture[str]) -> None:
    async def work(passed: anyio.Event) -> None:
        await announce_wait(f"{REFUSED} Trying again in 0.3 s (attempt 2 of 3).")
        await let_pass(passed)
        await announce_wait("Fastn's rate limit is used up. It opens again in 4.0 s.")

    limit = "fastn-mcp: Waiting for Fastn. Fastn's rate limit is used up. It opens again in 4.0 s.\n"
    assert await said(work, capsys) == LINE + limit


async def test_short_wait_is_not_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    async def work(_: anyio.Event) -> None:
        await announce_wait(f"{REFUSED} Trying again in 0.3 s (attempt 2 of 3).")

    assert await said(work, capsys) == ""


async def test_slow_answer_alone_is_not_mentioned(capsys: pytest.CaptureFixture[str]) -> None:
    assert await said(let_pass, capsys) == ""
