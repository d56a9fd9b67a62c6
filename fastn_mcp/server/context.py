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
        self.listed = _list_tools(tuple(tools), attended=dispatch.asks)
        self.resources = ResourceReader(dispatch, tools, label)
        self.prompts = PromptCatalog(tools)
        self.completion = IdCompletion(dispatch, tools)


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
def _list_tools(tools: tuple[AnyTool, ...], *, attended: bool) -> ListToolsResult:
    return ListToolsResult(tools=[tool(operation, attended=attended) for operation in tools])


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


def tool(operation: AnyTool, *, attended: bool = True) -> Tool:
    """Return a tool as MCP lists it. Unless `attended`, clients are not told to ask a person, which would hide it."""
    reads = operation.effect is Effect.READ
    asks = attended and operation.effect.rank >= Effect.ACCESS.rank
    return Tool(
        name=operation.tool_name(),
        title=operation.title(),
        description=operation.__doc__,
        input_schema=_schema(operation),
        annotations=ToolAnnotations(
            title=operation.title(),
            read_only_hint=reads,
            destructive_hint=operation.destructive(),
            idempotent_hint=operation.idempotent(),
            open_world_hint=True,
        ),
        _meta={"anthropic/requiresUserInteraction": True} if asks else None,
    )
