"""Progress and log messages during a wait, with the real client and a slow or failing Fastn."""

import re
from contextlib import suppress
from typing import Any

import anyio
import pytest
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
from support.server_process import Connect, Person, Upstream, approving, each_transport_and_era

pytestmark = each_transport_and_era

Told = tuple[float, float | None, str | None]


class Listener:
    def __init__(self) -> None:
        self.progress: list[Told] = []
        self.logged: list[LoggingMessageNotificationParams] = []
        self.told = anyio.Event()

    async def progresses(self, progress: float, total: float | None, message: str | None) -> None:
        self.progress.append((progress, total, message))
        self.told.set()

    async def logs(self, params: LoggingMessageNotificationParams) -> None:
        self.logged.append(params)


async def choose(client: Client, level: Any) -> None:
    """Set the log level as legacy clients do."""
    with pytest.warns(MCPDeprecationWarning):
        await client.set_logging_level(level)  # pyright: ignore[reportDeprecated]


async def test_slow_call_reports_progress(upstream: Upstream, client: Client) -> None:
    """MCP: progress goes to requests with a token, and only grows. A slow Fastn does not look like a hang."""
    listener = Listener()
    upstream.fault(kind="delay", seconds=1.6, times=1)
    result = await client.call_tool("get_quotas", {}, progress_callback=listener.progresses)
    assert not result.is_error
    waited = [re.fullmatch(r"Waiting for Fastn, (\d+) s", message or "") for *_, message in listener.progress]
    seconds = [int(match[1]) for match in waited if match]
    assert seconds
    assert len(seconds) == len(waited)
    assert seconds == sorted(set(seconds))


async def test_slow_resource_reports_progress(upstream: Upstream, client: Client) -> None:
    """MCP: any request may carry a progress token."""
    listener = Listener()
    upstream.fault(kind="status", status=503, times=1)
    request = ReadResourceRequest(params=ReadResourceRequestParams(uri="fastn://billing"))
    await client.session.send_request(request, ReadResourceResult, progress_callback=listener.progresses)
    assert "Fastn answered 503." in (listener.progress[0][2] or "")


@pytest.mark.parametrize(("level", "allowed"), [("info", True), ("warning", False), (None, False)])
async def test_wait_is_logged_at_the_requested_level(
    level: Any, allowed: bool, era: str, transport: str, connect: Connect, upstream: Upstream
) -> None:
    """MCP 2026-07-28: at the level of the request; before, at the level that was set. Otherwise nothing.

    Stateless HTTP does not store the level, so legacy clients get nothing there.
    """
    listener = Listener()
    modern = era == "2026-07-28"
    async with connect(transport, era, logging_callback=listener.logs, log_level=level if modern else None) as client:
        if level is not None and not modern:
            await choose(client, level)
        upstream.fault(kind="status", status=429, retry_after=0, times=1)
        result = await client.call_tool("get_quotas", {})
        assert not result.is_error
    messages = [(message.level, message.logger, str(message.data)[:37]) for message in listener.logged]
    heard_of_it = allowed and (modern or transport == "stdio")
    assert messages == ([("info", "fastn_mcp.client", "Fastn's rate limit is reached (429). ")] if heard_of_it else [])


async def test_wait_for_a_person_is_reported(era: str, transport: str, connect: Connect) -> None:
    """It does not blame Fastn. Since 2026-07-28 no call waits for a person."""
    listener = Listener()
    waits_within = era == "2025-11-25" and transport == "stdio"

    async def person(context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:
        """Answer once the client has been told about the wait, if it will be."""
        with anyio.move_on_after(20 if waits_within else 1.3):
            await listener.told.wait()
        return await Person(approving)(context, params)

    async with connect(transport, era, person) as client:
        rows: Any = (await client.call_tool("list_secrets", {})).structured_content
        with suppress(KeyError):
            await client.call_tool(
                "delete_secret", {"secret_id": rows["data"][0]["id"]}, progress_callback=listener.progresses
            )
    waited = [message for *_, message in listener.progress if message and "person" in message]
    assert bool(waited) == waits_within
