"""A real client whose person declines every form after five seconds on the server's clock."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from mcp import Client
from mcp.client import ClientRequestContext
from mcp.types import ElicitRequestFormParams, ElicitRequestParams, ElicitResult

from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.server.handlers import build
from support.world import World

VERSIONS = {"2025-11-25": "legacy", "2026-07-28": "2026-07-28"}
LATEST = "2026-07-28"
each_version = pytest.mark.parametrize("version", VERSIONS)


@dataclass
class Decliner:
    """A person who declines. With `approves`, one who approves every form without typing."""

    world: World
    approves: bool = False
    messages: list[str] = field(default_factory=list[str])

    async def __call__(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult:  # noqa: ARG002
        assert isinstance(params, ElicitRequestFormParams)
        self.messages.append(params.message)
        self.world.clock.pass_(5.0)
        return ElicitResult(action="accept", content={"decision": "approve" if self.approves else "decline"})


@dataclass
class Session:
    """Calls of an agent, and the forms that the person was shown."""

    client: Client
    person: Decliner

    async def __call__(self, tool: str, **arguments: Any) -> dict[str, Any]:
        result = await self.client.call_tool(tool, arguments)
        return cast("dict[str, Any]", result.structured_content)

    @property
    def messages(self) -> list[str]:
        return self.person.messages


@asynccontextmanager
async def session(world: World, version: str, *, approves: bool = False) -> AsyncGenerator[Session]:
    person = Decliner(world, approves)
    async with Client(
        build(world.dispatch, ALL_TOOLS, {}), mode=VERSIONS[version], elicitation_callback=person
    ) as client:
        yield Session(client, person)
