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
from fastn_mcp.procedures.catalog import OFFERS
from fastn_mcp.procedures.dispatch import Dispatcher
from fastn_mcp.server.completion import Proposing
from fastn_mcp.server.prompts import Prompting
from fastn_mcp.server.resources import Reading
from fastn_mcp.tools.tool import AnyOffer, Effect

Context = ServerRequestContext[Any]


class Served:
    """What one account is served with: these operations, by this dispatch."""

    def __init__(self, dispatch: Dispatcher, offered: Sequence[AnyOffer], account: dict[str, JsonValue]) -> None:
        self.dispatch = dispatch
        self.account = account
        self.by_name = {offer.tool_name(): offer for offer in offered}
        self.listed = _listed(tuple(offered), attended=dispatch.asks)
        self.reading = Reading(dispatch, offered, account)
        self.prompting = Prompting(offered)
        self.proposing = Proposing(dispatch, offered)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request: which account serves it, and who makes it."""

    served: Served
    caller: Caller
    room: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    """A place among the calls that are made at the same time. Raises `NotSent` where there is none."""


def alone(served: Served) -> Callable[[Context], Visit]:
    """Everybody who can reach this process is served by the one account that it has."""
    visit = Visit(served, Caller("local", None))
    return lambda _: visit


@cache
def _listed(offered: tuple[AnyOffer, ...], *, attended: bool) -> ListToolsResult:
    return ListToolsResult(tools=[tool(offer, attended=attended) for offer in offered])


_OFFERS = {offer.tool_name(): offer for offer in OFFERS}


def input_schema(name: str) -> dict[str, Any] | None:
    """The schema of a tool, whoever may call it."""
    return None if (offer := _OFFERS.get(name)) is None else _schema(offer)


@cache
def _schema(offer: AnyOffer) -> dict[str, Any]:
    return offer.input_schema()


def tool(offer: AnyOffer, *, attended: bool = True) -> Tool:
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
