"""Account and caller of an MCP request."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

from mcp.types import ListToolsResult
from pydantic import JsonValue

from fastn_mcp.channels.elicitation import Context
from fastn_mcp.errors import ApprovalRequired
from fastn_mcp.guard.approval_form import PendingApproval, PendingForm
from fastn_mcp.guard.batch import Done
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.preview import Shown
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.dispatch import Dispatcher
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.server.progress import ProgressReporter
from fastn_mcp.server.prompts import PromptCatalog
from fastn_mcp.server.resources import IdCompletion, ResourceReader
from fastn_mcp.server.tool_list import list_tools
from fastn_mcp.tools.tool import AnyTool, Tool


class AccountContext:
    """Tools, resources, prompts and completion of one account."""

    def __init__(self, dispatch: Dispatcher, tools: Sequence[AnyTool], label: dict[str, JsonValue]) -> None:
        self.dispatch = dispatch
        self.label = label
        self.by_name = {operation.tool_name(): operation for operation in tools}
        self._tools = tuple(tools)
        self.resources = ResourceReader(dispatch, tools, label)
        self.prompts = PromptCatalog(tools)
        self.completion = IdCompletion(tools)

    def listed(self, *, shows_apps: bool) -> ListToolsResult:
        """Return the tools, with the app of approval requests if the client shows apps."""
        return list_tools(self._tools, needs_prompt=self.dispatch.guard.needs_client_prompt, shows_apps=shows_apps)


@dataclass(frozen=True, slots=True)
class RequestContext:
    account: AccountContext
    caller: Caller
    slot: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """Concurrency slot for a call. Raises `NotSent` if none is free."""
    reports: ProgressReporter | None = None
    """Reports on its call to the client, if it wants that."""

    async def run(self, call: Tool[Any], *, is_preview: bool = False) -> Done | PendingForm | PendingApproval | Shown:
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


def single_account(account: AccountContext) -> Callable[[Context], RequestContext]:
    """Serve every request from this process's only account."""
    request = RequestContext(account, Caller(Asker(), None))
    return lambda _: request
