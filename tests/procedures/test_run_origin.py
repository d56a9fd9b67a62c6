"""A run says who or what started it: `manual` was told a person as "by hand", and it was an API key."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from support.table_rows import rows_of
from support.world import World

from fastn_mcp.extensions.sandbox.state import Row
from fastn_mcp.procedures.query.query import Query


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    world = World(tmp_path, snapshot_seconds=90)
    yield world
    world.close()


def run_by(world: World, by: str, slug: str = "") -> Row:
    rows = [row for row in world.sandbox.state.all("executions") if row["triggeredBy"] == by]
    return max((row for row in rows if not slug or row["workflowSlug"] == slug), key=lambda row: str(row["createdAt"]))


async def origin(world: World, run: Row) -> str:
    world.sandbox.requests.clear()
    data: dict[str, Any] = (await world.rendered_tool("get_execution", execution_id=run["id"]))["data"]
    assert data["triggeredBy"] == run["triggeredBy"]
    return str(data["startedBy"])


async def test_manual_run_names_the_key_or_the_person_by_one_further_request(world: World) -> None:
    run = run_by(world, "manual")
    assert await origin(world, run) == "API key 1"
    assert [request.path for request in world.sandbox.requests][1:] == ["/api/v1/audit"]
    (entry,) = [
        row
        for row in world.sandbox.state.all("audit")
        if row["resource"]["id"] == run["id"] and row["action"] == "workflow.execute"
    ]
    for actor, words in (("dana@fastn.example", "dana@fastn.example"), ("agent", "Fastn's AI")):
        entry["actor"] = actor
        world.clock.pass_(120)
        assert await origin(world, run) == words
    world.clock.pass_(120)
    await world.ask(Query(sql="select id from api_keys"))
    entry["actor"] = "apikey:1"
    assert await origin(world, run) == "API key 1 (Workflow)"


async def test_run_whose_start_is_not_in_the_log_is_not_known(world: World) -> None:
    run = run_by(world, "manual")
    for row in world.sandbox.state.all("audit"):
        if row["resource"]["id"] == run["id"]:
            row["actor"] = "system"
    assert await origin(world, run) == "not known: the audit log has no entry of its start"
    world.clock.pass_(120)
    world.refuse("/api/v1/audit")
    assert (await origin(world, run)).startswith("not known: ")


async def test_run_of_a_trigger_names_it_where_only_one_can_have_started_it(world: World) -> None:
    run = run_by(world, "scheduler", "slack-messages-to-supabase-hourly-sync")
    trigger = world.sandbox.state.named("triggers", "Hourly Slack sync", by="name")
    assert await origin(world, run) == (
        f"trigger {trigger['id']} (Hourly Slack sync), the only scheduler that starts the workflow now"
    )
    assert len(world.sandbox.requests) == 2
    world.sandbox.state.put("triggers", {**trigger, "id": "twin", "name": "Twin"})
    world.clock.pass_(120)
    assert (await origin(world, run)).startswith("one of 2 triggers that start the workflow now: ")
    for row in world.sandbox.state.all("triggers"):
        row["type"] = "webhook"
    world.clock.pass_(120)
    assert await origin(world, run) == "not known: no scheduler starts the workflow now"


async def test_run_that_names_its_trigger_or_the_ai_takes_no_further_request(world: World) -> None:
    assert await origin(world, run_by(world, "agent-service")) == "Fastn's AI"
    assert len(world.sandbox.requests) == 1
    run = run_by(world, "webhook")
    run["triggerId"] = "trg-1"
    run["triggerName"] = "Shop"
    assert await origin(world, run) == "trigger trg-1 (Shop)"
    assert len(world.sandbox.requests) == 1


async def test_list_says_who_started_runs_only_if_the_log_was_read(world: World) -> None:
    unread = await world.rendered_tool("list_executions", started_by="manual", limit=3)
    assert all("startedBy" not in row for row in unread["data"])
    assert not [request for request in world.sandbox.requests if request.path == "/api/v1/audit"]
    await world.rendered_tool("query_audit_log", limit=1)
    world.sandbox.requests.clear()
    read = await world.rendered_tool("list_executions", started_by="manual", limit=3)
    assert {row.get("startedBy") for row in rows_of(read["data"])} >= {"API key 1"}
    assert not [request for request in world.sandbox.requests if request.path == "/api/v1/audit"]
    world.disabled["query_audit_log"] = "exclude_tools"
    hidden = await world.rendered_tool("list_executions", started_by="manual", limit=3)
    assert all("startedBy" not in row for row in hidden["data"])
