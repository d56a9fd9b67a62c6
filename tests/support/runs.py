"""Runs that a test adds to the sandbox of a world, or takes from it."""

from datetime import timedelta

from pydantic import JsonValue

from fastn_mcp.extensions.sandbox.executions import execution
from fastn_mcp.extensions.sandbox.state import Row
from support.world import World


def add_run(
    world: World,
    workflow: str,
    hours_ago: float,
    status: str = "failed",
    started_by: str = "manual",
    **fields: JsonValue,
) -> Row:
    """Add a run that began so many hours ago. It took 900 ms if it has ended."""
    state = world.sandbox.state
    row = state.get("workflows", workflow)
    assert row is not None
    begun = world.clock.at - timedelta(hours=hours_ago)
    duration = None if status in ("running", "queued", "pending") else 900
    return state.put(
        "executions", execution(state.short_id("exec"), row, status, begun, duration, started_by, **fields)
    )


def drop_runs_under_way(world: World) -> None:
    for run in world.sandbox.state.all("executions"):
        if run["status"] in ("running", "queued"):
            world.sandbox.state.drop("executions", run["id"])
            world.sandbox.state.drop("_runs", run["id"])
