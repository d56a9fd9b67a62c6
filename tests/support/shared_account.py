"""A second process on the account of a world, and the answers of a world without what tells their age."""

from pathlib import Path
from typing import Any

from fastn_mcp.client.exchange import headers
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import FastnError
from fastn_mcp.extensions.sandbox.auth import KEY
from fastn_mcp.extensions.sandbox.server import InProcess
from fastn_mcp.guard.result import Done
from fastn_mcp.tools.tool import Tool
from support.world import World


def neighbour(world: World, folder: Path, **options: Any) -> World:
    """Return a world with the sandbox, the clock and the ledger of another one, and a snapshot of its own."""
    account = Settings(base_url="http://localhost", api_key=KEY)

    def exchange(_: InProcess) -> InProcess:
        return InProcess(world.sandbox, headers(account))

    return World(folder, clock=world.clock, ledger=world.ledger, exchange=exchange, tokens="n", **options)


async def answer(world: World, call: Tool[Any]) -> dict[str, Any]:
    """Return the answer to a call without its age and the names of its pages; for an error, its words."""
    outcome = await world.call(call)
    if isinstance(outcome, FastnError):
        return {"error": outcome.what}
    assert isinstance(outcome, Done), outcome
    data = outcome.result.model_dump()
    return {name: value for name, value in data.items() if name not in ("as_of", "next_cursor")}


def requests_since(world: World, before: int) -> list[tuple[str | None, str, dict[str, str]]]:
    """Return the requests after the first so many: tool, path and query."""
    return [(request.tool, request.path, dict(request.query)) for request in world.sandbox.requests[before:]]
