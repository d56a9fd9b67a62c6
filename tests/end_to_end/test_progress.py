"""What a client is told while it waits: progress and log messages. By the real client, with a slow or failing Fastn."""

import re
import time
from contextlib import suppress
from typing import Any

import anyio
import httpx2
import pytest
from driving import Connect, Person, Upstream, approving, each_transport_and_era
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.types import (
    ElicitRequestParams,
    ElicitResult,
    LoggingMessageNotificationParams,
    ReadResourceRequest,
    ReadResourceRequestParams,
    ReadResourceResult,
)

pytestmark = [
    pytest.mark.anyio,
    each_transport_and_era,
]

Told = tuple[float, float | None, str | None]


class Listener:
    """What a client hears during one call."""

    def __init__(self) -> None:
        self.progress: list[Told] = []
        self.logged: list[LoggingMessageNotificationParams] = []
        self.told = anyio.Event()

    async def progresses(self, progress: float, total: float | None, message: str | None) -> None:
        self.progress.append((progress, total, message))
        self.told.set()

    async def logs(self, params: LoggingMessageNotificationParams) -> None:
        self.logged.append(params)


def fault(upstream: Upstream, **how: Any) -> None:
    httpx2.post(f"{upstream.url}/__sandbox/faults", json=how).raise_for_status()


async def choose(client: Client, level: Any) -> None:
    """How a client of the old era says what it wants to hear."""
    with pytest.warns(MCPDeprecationWarning):
        await client.set_logging_level(level)  # pyright: ignore[reportDeprecated]


async def test_a_call_that_takes_longer_than_a_second_tells_of_itself(
    era: str, transport: str, connect: Connect, upstream: Upstream
) -> None:
    """MCP: progress goes to who gave a token, and only grows. Ours: a slow Fastn is told from a server that hangs."""
    heard = Listener()
    async with connect(transport, era) as client:
        fault(upstream, kind="delay", seconds=1.6, times=1)
        result = await client.call_tool("get_quotas", {}, progress_callback=heard.progresses)
        assert not result.is_error
    waited = [re.fullmatch(r"Waiting for Fastn, (\d+) s", message or "") for *_, message in heard.progress]
    seconds = [int(found[1]) for found in waited if found]
    assert seconds
    assert len(seconds) == len(waited)
    assert seconds == sorted(set(seconds))


async def test_reading_a_resource_tells_of_itself_too(
    era: str, transport: str, connect: Connect, upstream: Upstream
) -> None:
    """MCP: any request may carry a token."""
    heard = Listener()
    async with connect(transport, era) as client:
        fault(upstream, kind="status", status=503, times=1)
        request = ReadResourceRequest(params=ReadResourceRequestParams(uri="fastn://billing"))
        await client.session.send_request(request, ReadResourceResult, progress_callback=heard.progresses)
    assert "Fastn answered 503." in (heard.progress[0][2] or "")


async def test_a_quick_call_tells_nothing(era: str, transport: str, connect: Connect) -> None:
    """Ours: no noise."""
    heard = Listener()
    async with connect(transport, era) as client:
        for _ in range(20):  # the first loads modules; and who was kept waiting by this machine is told so
            heard.progress.clear()
            began = time.monotonic()
            await client.call_tool("get_quotas", {}, progress_callback=heard.progresses)
            if time.monotonic() - began < 1:
                break
    assert heard.progress == []


async def test_a_retry_is_told_as_progress(era: str, transport: str, connect: Connect, upstream: Upstream) -> None:
    """Ours: who waits knows why, with numbers that grow."""
    heard = Listener()
    async with connect(transport, era) as client:
        fault(upstream, kind="status", status=503, times=2)
        result = await client.call_tool("get_quotas", {}, progress_callback=heard.progresses)
        assert not result.is_error
    said = [message or "" for *_, message in heard.progress if "Waiting" not in (message or "")]
    assert [text.partition(" Trying")[0] for text in said] == ["Fastn answered 503."] * 2
    assert said[1].endswith("(attempt 3 of 3).")
    reached = [done for done, *_ in heard.progress]
    assert reached == sorted(set(reached))


@pytest.mark.parametrize(("level", "allowed"), [("debug", True), ("info", True), ("warning", False), (None, False)])
async def test_a_wait_is_logged_to_who_wants_to_hear_it(
    level: Any, allowed: bool, era: str, transport: str, connect: Connect, upstream: Upstream
) -> None:
    """MCP 2026-07-28: only from the level that the request names. Before: from the one that was set. Ours: else none.

    Over stateless HTTP nobody remembers what was set, and so nothing is sent.
    """
    heard = Listener()
    modern = era == "2026-07-28"
    async with connect(transport, era, logging_callback=heard.logs, log_level=level if modern else None) as client:
        if level is not None and not modern:
            await choose(client, level)
        fault(upstream, kind="status", status=429, retry_after=0, times=1)
        result = await client.call_tool("get_quotas", {})
        assert not result.is_error
    said = [(message.level, message.logger, str(message.data)[:37]) for message in heard.logged]
    heard_of_it = allowed and (modern or transport == "stdio")
    assert said == ([("info", "fastn_mcp.client", "Fastn's rate limit is reached (429). ")] if heard_of_it else [])


async def test_a_call_that_waits_for_its_person_says_so(era: str, transport: str, connect: Connect) -> None:
    """Ours: what waits for an answer does not blame Fastn. Since 2026-07-28 no call waits for one."""
    heard = Listener()
    waits_within = era == "2025-11-25" and transport == "stdio"

    async def person(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        """Reads until the client is told, where it will be."""
        with anyio.move_on_after(20 if waits_within else 1.3):
            await heard.told.wait()
        return await Person(approving)(context, params)

    async with connect(transport, era, person) as client:
        rows: Any = (await client.call_tool("list_secrets", {})).structured_content
        with suppress(KeyError):
            await client.call_tool(
                "delete_secret", {"secret_id": rows["data"][0]["id"]}, progress_callback=heard.progresses
            )
    waited = [message for *_, message in heard.progress if message and "person" in message]
    assert bool(waited) == waits_within
