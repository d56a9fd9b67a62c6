"""A real client of the real server, in this process, with a program that answers the elicitation form."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.types import ElicitRequestFormParams, ElicitRequestParams, ElicitResult

from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.server.handlers import build
from fastn_mcp.tools.tool import Effect
from support.direct_sandbox import Fastn
from support.sensible_calls import sensible
from support.server_process import ERAS, body
from support.world import World

LATEST = "2026-07-28"
each_version = pytest.mark.parametrize("version", ERAS)

Content = dict[str, Any]
Fields = dict[str, Any]


@dataclass
class Program:
    """A form handler that answers with `content` after `seconds` on the server's clock."""

    world: World
    content: Callable[[Fields], Content | None]
    seconds: float = 5.0
    action: str = "accept"
    messages: list[str] = field(default_factory=list[str])

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:  # noqa: ARG002
        assert isinstance(params, ElicitRequestFormParams)
        fields = params.requested_schema["properties"]
        assert fields, "a form without a field is approved by closing it"
        self.messages.append(params.message)
        self.world.clock.pass_(self.seconds)
        return ElicitResult(action=cast(Any, self.action), content=self.content(fields))


def connected(world: World, version: str, program: Program | None = None) -> Client:
    """Return a real client of the real server in this process, so that its clock can be moved."""
    return Client(build(world.dispatch, ALL_TOOLS, {}), mode=ERAS[version], elicitation_callback=program)


@dataclass
class Session:
    """Calls of an agent, and the forms that its person was shown."""

    client: Client
    messages: list[str]

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        return body(await self.client.call_tool(tool, arguments))


@asynccontextmanager
async def session(world: World, version: str, *, approves: bool = False) -> AsyncGenerator[Session]:
    """Connect a client whose person declines every form, or approves it without typing anything."""
    person = Program(world, lambda _: {"decision": "approve" if approves else "decline"})
    async with connected(world, version, person) as client:
        yield Session(client, person.messages)


one_in_four = pytest.mark.parametrize(
    "step", [pytest.param(4, id="one in four"), pytest.param(1, id="each", marks=pytest.mark.long)]
)
"""Each attack is tried with one tool in four, another quarter each time; in the long tests with each tool."""


def changing(world: World) -> Sequence[tuple[str, dict[str, Any]]]:
    """Return a call of each tool that needs approval in manual mode, which is every change."""
    calls = sensible(Fastn(world.sandbox))
    return [(call.tool_name(), call.arguments()) for call in calls if call.effect is not Effect.READ]
