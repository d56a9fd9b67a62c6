"""Account and caller of an MCP request."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import Any

from mcp.server import ServerRequestContext
from mcp.types import ListToolsResult, Tool, ToolAnnotations
from pydantic import JsonValue

from fastn_mcp.guard.approval.flow import Caller
from fastn_mcp.procedures.catalog import BY_NAME
from fastn_mcp.procedures.dispatch import Dispatcher
from fastn_mcp.server.approval_app import TOOL_META
from fastn_mcp.server.output_schema import output_schema
from fastn_mcp.server.prompts import PromptCatalog
from fastn_mcp.server.resources import IdCompletion, ResourceReader
from fastn_mcp.tools.tool import AnyTool, Effect

Context = ServerRequestContext[Any]


class AccountContext:
    """Tools, resources, prompts and completion of one account."""

    def __init__(self, dispatch: Dispatcher, tools: Sequence[AnyTool], label: dict[str, JsonValue]) -> None:
        self.dispatch = dispatch
        self.label = label
        self.by_name = {operation.tool_name(): operation for operation in tools}
        self._tools = tuple(tools)
        self.resources = ResourceReader(dispatch, tools, label)
        self.prompts = PromptCatalog(tools)
        self.completion = IdCompletion(dispatch, tools)

    def listed(self, *, shows_apps: bool) -> ListToolsResult:
        """Return the tools, with the app of approval requests if the client shows apps."""
        return _list_tools(self._tools, needs_prompt=self.dispatch.needs_client_prompt, shows_apps=shows_apps)


@dataclass(frozen=True, slots=True)
class RequestContext:
    """Account and caller of one request."""

    account: AccountContext
    caller: Caller
    slot: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """Concurrency slot for a call. Raises `NotSent` if none is free."""


def single_account(account: AccountContext) -> Callable[[Context], RequestContext]:
    """Serve every request from this process's only account."""
    request = RequestContext(account, Caller("local", None))
    return lambda _: request


@cache
def _list_tools(tools: tuple[AnyTool, ...], *, needs_prompt: bool, shows_apps: bool) -> ListToolsResult:
    return ListToolsResult(tools=[tool(each, needs_prompt=needs_prompt, shows_apps=shows_apps) for each in tools])


def input_schema(name: str) -> dict[str, Any] | None:
    """Return the listed input schema of a tool, or None if there is no such tool."""
    return None if (operation := BY_NAME.get(name)) is None else _schema(operation)


_LIMITS = frozenset({"default", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern"})
"""Schema keywords that are not listed, since descriptions state them and the server checks them."""


@cache
def _schema(operation: AnyTool) -> dict[str, Any]:
    schema = operation.input_schema()
    return schema | {"properties": {name: _listed_argument(facts) for name, facts in schema["properties"].items()}}


def _listed_argument(facts: dict[str, Any]) -> dict[str, Any]:
    # This order takes the fewest tokens as JSON.
    return {key: facts[key] for key in ("description", "type", *facts) if key in facts and key not in _LIMITS}


ALWAYS_LOADED = frozenset({"find", "get_overview", "diagnose", "preview_change"})
"""Tools with which work begins. Clients that load tools on demand are asked to keep these loaded."""


def tool(operation: AnyTool, *, needs_prompt: bool = False, shows_apps: bool = False) -> Tool:
    """Return a tool as MCP lists it. With `shows_apps`, the client shows its approval requests by our app.

    With `needs_prompt`, clients are told to ask a person before calls that destroy or grant access. Such a client does
    not run them without a person, not even to preview them.
    """
    reads = operation.effect is Effect.READ
    hints = {
        "anthropic/alwaysLoad": operation.tool_name() in ALWAYS_LOADED,
        "anthropic/requiresUserInteraction": needs_prompt and operation.effect.rank >= Effect.ACCESS.rank,
    }
    return Tool(
        name=operation.tool_name(),
        title=operation.title(),
        description=operation.__doc__,
        input_schema=_schema(operation),
        output_schema=output_schema(operation),
        annotations=ToolAnnotations(
            title=operation.title(),
            read_only_hint=reads,
            destructive_hint=operation.destructive(),
            idempotent_hint=operation.idempotent(),
            open_world_hint=True,
        ),
        _meta={name: True for name, wanted in hints.items() if wanted} | (TOOL_META if shows_apps and not reads else {})
        or None,
    )
