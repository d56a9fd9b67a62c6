"""Context of an MCP request: its account, its caller, and whether the client received its response.

The changes of a call are settled once its response was received, and not before.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from mcp.types import ListToolsResult
from pydantic import JsonValue

from fastn_mcp.channels.elicitation import Context
from fastn_mcp.errors import ApprovalRequired
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.journal import Delivery
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.question import Question
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.dispatch import Dispatcher
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.server.progress import ProgressReporter
from fastn_mcp.server.resources import ResourceReader
from fastn_mcp.server.tool_list import list_tools
from fastn_mcp.tools.tool import AnyTool, Tool


class AccountContext:
    """Tools and resources of one account."""

    def __init__(self, dispatch: Dispatcher, tools: Sequence[AnyTool], label: dict[str, JsonValue]) -> None:
        self.dispatch = dispatch
        self.label = label
        self.by_name = {operation.tool_name(): operation for operation in tools}
        self.tools = tuple(tools)
        self.resources = ResourceReader(dispatch, tools, label)

    def listed(self, *, shows_apps: bool) -> ListToolsResult:
        """Return the tools, with the app of approval requests if the client shows apps."""
        return list_tools(self.tools, needs_prompt=self.dispatch.guard.needs_client_prompt, shows_apps=shows_apps)


@dataclass(frozen=True, slots=True)
class RequestContext:
    account: AccountContext
    caller: Caller
    slot: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """Concurrency slot for a call. Raises `NotSent` if none is free."""
    reports: ProgressReporter | None = None
    """Reports on its call to the client, if it wants that."""

    async def run(self, call: Tool[Any], *, is_preview: bool = False) -> Done | PendingApproval | Question:
        """Make a call, or preview it, in a slot."""
        dispatch = self.account.dispatch
        work = partial(dispatch.preview if is_preview else dispatch, call, self.caller)
        async with self.slot():
            return await (work() if self.reports is None else self.reports.during(work))

    async def read(self, call: Tool[Any]) -> FastnObject:
        """Return the result of a read. Raises `ApprovalRequired` if a person has to approve it."""
        outcome = await self.run(call)
        if not isinstance(outcome, Done):
            raise ApprovalRequired("A person has to approve this.", "Call the tool, which can ask.")
        return outcome.result


def single_account(account: AccountContext, export_folder: Path | None) -> Callable[[Context], RequestContext]:
    """Serve every request from this process's only account."""
    request = RequestContext(account, Caller(Asker(), None, export_folder=export_folder))
    return lambda _: request


DELIVERY = "fastn_mcp.delivery"
"""Scope key of the delivery of an HTTP request. Over stdio the lifespan context holds them, by id of the request."""

DELIVERY_GRACE = 0.25
"""Seconds after which a written response counts as received if no disconnect was noticed."""


class ResponseDelivery:
    """Delivery of one response. The transport reports that it was written, or sets `lost`."""

    def __init__(self, lost: asyncio.Event | None = None) -> None:
        self.lost = lost or asyncio.Event()
        """Set by the transport when it finds that the client did not receive the response."""
        self._decided = asyncio.Event()
        self._settle: list[Callable[[], Awaitable[None]]] = []

    def on_received(self, settle: Callable[[], Awaitable[None]]) -> None:
        self._settle.append(settle)

    async def decided(self) -> None:
        await self._decided.wait()

    async def written(self, is_unread: Callable[[], bool] = lambda: False, ended: asyncio.Event | None = None) -> None:
        """Settle the changes unless the response turns out to be lost or is left unread.

        `is_unread` tests whether part of the response is still unread by the client. `ended` is set when nothing
        more will come from the client.
        """
        if not self._settle:
            return
        ended = ended or asyncio.Event()
        try:
            while not self.lost.is_set():
                with anyio.move_on_after(DELIVERY_GRACE):
                    await _either(self.lost, ended)
                if not is_unread() or ended.is_set():
                    break
        finally:
            if not self.lost.is_set() and not is_unread():
                with anyio.CancelScope(shield=True):
                    for settle in self._settle:
                        await settle()
            self._decided.set()


async def _either(one: asyncio.Event, other: asyncio.Event) -> None:
    async def wait(event: asyncio.Event) -> None:
        await event.wait()
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait, one)
        tasks.start_soon(wait, other)


def delivery_of(ctx: Context) -> Delivery | None:
    """Return the delivery of the response to a tool call; None if the transport cannot tell."""
    if ctx.request is not None:
        return ctx.request.scope.get(DELIVERY)
    return ctx.lifespan_context.get(ctx.request_id)
