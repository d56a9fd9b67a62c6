"""The account and the caller of one MCP request."""

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
    """What one account is served with: these operations, by this dispatch."""

    def __init__(self, dispatch: Dispatcher, offered: Sequence[AnyTool], account: dict[str, JsonValue]) -> None:
        self.dispatch = dispatch
        self.account = account
        self.by_name = {offer.tool_name(): offer for offer in offered}
        self.listed = _listed(tuple(offered), attended=dispatch.asks)
        self.reading = ResourceReader(dispatch, offered, account)
        self.prompting = PromptCatalog(offered)
        self.proposing = IdCompletion(dispatch, offered)


@dataclass(frozen=True, slots=True)
class RequestContext:
    """One request: which account serves it, and who makes it."""

    served: AccountContext
    caller: Caller
    room: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """A place among the calls that are made at the same time. Raises `NotSent` where there is none."""


def alone(served: AccountContext) -> Callable[[Context], RequestContext]:
    """Everybody who can reach this process is served by the one account that it has."""
    visit = RequestContext(served, Caller("local", None))
    return lambda _: visit


@cache
def _listed(offered: tuple[AnyTool, ...], *, attended: bool) -> ListToolsResult:
    return ListToolsResult(tools=[tool(offer, attended=attended) for offer in offered])


def input_schema(name: str) -> dict[str, Any] | None:
    """The schema of a tool, whoever may call it."""
    return None if (offer := BY_NAME.get(name)) is None else _schema(offer)


_LIMITS = frozenset({"default", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern"})
"""What is not listed of an argument: its description says it, and it is checked here."""


@cache
def _schema(offer: AnyTool) -> dict[str, Any]:
    schema = offer.input_schema()
    return schema | {"properties": {name: _listed_argument(facts) for name, facts in schema["properties"].items()}}


def _listed_argument(facts: dict[str, Any]) -> dict[str, Any]:
    # In this order its JSON takes the fewest tokens.
    return {key: facts[key] for key in ("description", "type", *facts) if key in facts and key not in _LIMITS}


def tool(offer: AnyTool, *, attended: bool = True) -> Tool:
    """What is offered, as MCP lists it. Where nobody attends, clients are not told to ask, which hides tools there."""
    reads = offer.effect is Effect.READ
    asks = attended and offer.effect.rank >= Effect.ACCESS.rank
    return Tool(
        name=offer.tool_name(),
        title=offer.title(),
        description=offer.__doc__,
        input_schema=_schema(offer),
        annotations=ToolAnnotations(
            title=offer.title(),
            read_only_hint=reads,
            destructive_hint=offer.destructive(),
            idempotent_hint=offer.idempotent(),
            open_world_hint=True,
        ),
        _meta={"anthropic/requiresUserInteraction": True} if asks else None,
    )
