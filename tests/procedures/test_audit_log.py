"""Tests of query_audit_log: empty answers, names in place of ids, and names beside them."""

import itertools
from datetime import timedelta
from typing import Any

import pytest
from pydantic_core import to_json
from support.behaviour import Filtering, Paging
from support.table_rows import rows_of
from support.world import World

from fastn_mcp.errors import Forbidden
from fastn_mcp.procedures.audit_log import entries
from fastn_mcp.procedures.query.query import Query
from fastn_mcp.records.formats import stamp
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.access import QueryAuditLog
from fastn_mcp.tools.operation import Operation

_WORKFLOW = "wf_b5880b29eb25"
_NAME = "Slack Messages to Supabase Hourly Sync"


async def answer(world: World, **arguments: Any) -> dict[str, Any]:
    return await world.rendered(QueryAuditLog(**arguments))


async def test_empty_answer_says_how_far_back_the_log_reaches(large_world: World) -> None:
    """One call tells "nobody did" from "the log does not reach so far"."""
    begun = min(str(row["timestamp"]) for row in large_world.sandbox.state.all("audit"))
    for filters in (
        {"since": "2020-01-01T00:00:00Z", "until": "2020-02-01T00:00:00Z"},
        {"action": "workflow.delete"},
        {"resource_id": "wf_000000000000"},
    ):
        large_world.sandbox.requests.clear()
        page = await answer(large_world, **filters)
        assert page["data"] == [], filters
        assert page["log_begins"].startswith(begun[:19])
        assert " days ago)" in page["log_begins"]
        assert "list_changes" in page["see"]
        assert len(large_world.sandbox.requests) <= 8


async def test_answer_with_entries_says_how_far_the_log_reaches_and_what_it_lacks(large_world: World) -> None:
    """By at most two requests, which further answers share."""
    begun = min(str(row["timestamp"]) for row in large_world.sandbox.state.all("audit"))
    found = await answer(large_world, actor="apikey:1", limit=3, detail="full")
    assert found["log_begins"].startswith(begun[:19])
    assert found["log_lacks"] == "most reads and some changes"
    assert len(large_world.sandbox.requests) == 3
    later = await answer(large_world, actor="apikey:1", limit=3, detail="full", cursor=found["next_cursor"])
    assert "log_begins" not in later


@pytest.mark.parametrize("filtering", Filtering)
async def test_oldest_entry_does_not_depend_on_paging_and_filtering(world: World, filtering: Filtering) -> None:
    """Nothing is known about Fastn's pagination and filters."""
    begun = min(str(row["timestamp"]) for row in world.sandbox.state.all("audit"))
    for paging in Paging:
        world.behave(paging=paging, filtering=filtering)
        assert (await answer(world, action="nothing.like_it"))["log_begins"].startswith(begun[:19]), paging


async def test_long_log_begins_earlier_than_what_was_reached(large_world: World) -> None:
    state = large_world.sandbox.state
    newest = max(state.all("audit"), key=lambda row: str(row["timestamp"]))
    for number in range(1_100):
        state.put("audit", newest | {"id": 10_000 + number})
    large_world.behave(filtering=Filtering.IGNORED, paging=Paging.CURSOR)
    assert (await answer(large_world, action="nothing.like_it"))["log_begins"].endswith("or earlier")


async def test_empty_log_and_unreadable_log(world: World) -> None:
    world.sandbox.state.rows["audit"].clear()
    assert (await answer(world))["log_begins"] == "it has no entry that this key may see"
    calls = itertools.count()

    async def read(call: Operation[Any]) -> FastnObject:
        if next(calls):
            raise Forbidden("no")
        return await world.client.send(call)

    assert (await entries(QueryAuditLog(), world.context(read))).model_dump()["log_begins"] == "not known (forbidden)"


@pytest.mark.parametrize("named", ["slack-messages-to-supabase-hourly-sync", _NAME, _NAME.lower()])
async def test_name_or_slug_stands_for_the_id(world: World, named: str) -> None:
    found = await answer(world, resource_id=named)
    assert found["resource"] == f"workflow {_WORKFLOW} ({_NAME})"
    assert found["data"] == (await answer(world, resource_id=_WORKFLOW))["data"] != []


async def test_unknown_name_finds_nothing_and_says_why(world: World) -> None:
    """Ids are wanted. A name of several things is none of them."""
    found = await answer(world, resource_id="no such thing")
    assert (found["data"], found["unknown"]) == (
        [],
        ["resource_id: nothing has this name; find its id with find"],
    )
    customers = list(world.sandbox.state.all("customers"))
    for row in customers:
        world.sandbox.state.put("customers", {**row, "name": "Twin"})
    world.clock.pass_(61)
    (doubt,) = (await answer(world, resource_id="twin"))["unknown"]
    assert "5 customers of this name; give the id" in doubt
    assert "see find" not in doubt
    world.sandbox.state.put("customers", {**customers[0], "id": "twin-6", "name": "Twin"})
    world.clock.pass_(61)
    (doubt,) = (await answer(world, resource_id="twin"))["unknown"]
    assert doubt.startswith("resource_id: 6 customers of this name")
    assert doubt.endswith(" or another, see find")
    assert (await answer(world, actor="dana"))["unknown"] == ["actor: an email address, apikey:N, agent or system"]
    assert "unknown" not in await answer(world, resource_id="wf_000000000000", actor="dana@fastn.example")


async def test_unreadable_kinds_do_not_stop_the_search_by_name(world: World) -> None:
    world.refuse("/api/v1/workflows")
    assert (await answer(world, resource_id="Widget Inc"))["resource"].endswith("(Widget Inc)")


async def test_entries_name_what_was_acted_on(large_world: World) -> None:
    """The workflow of a run, a key, the app and customer of a connection; more workflows than are looked up."""
    runs = await answer(large_world, action="workflow.execute", limit=6)
    assert all(row["resource"].endswith(")") and row["customer"] for row in runs["data"])
    changes = await answer(large_world, actor="lee@fastn.example", action="workflow.publish")
    assert len({row["resource"] for row in changes["data"]}) > 5
    assert all("(" in row["resource"] or not row["resource"].startswith("workflow wf_") for row in changes["data"])
    keys = await answer(large_world, action="api_key.read", limit=8)
    assert all(row["resource"].endswith(")") for row in keys["data"])
    (failed,) = (await answer(large_world, action="connection.update"))["data"]
    assert failed["resource"].endswith("(TikTok Shop of Katana)")
    assert b"hidden" not in to_json([runs, changes, keys, failed])


async def test_names_that_cannot_be_read_are_left_out(world: World) -> None:
    world.refuse("/api/v1/executions/*", "/api/v1/workflows", "/api/v1/workflows/*", "/api/v1/api-keys")
    found = await answer(world, limit=20)
    assert found["data"]
    assert any(row["resource"].startswith("workflow_executions exec_") for row in found["data"])


async def test_changes_are_not_lost_among_logins_and_runs(large_world: World) -> None:
    """ "What changed this week" was 11 pages, nearly all of them logins."""
    since = stamp(large_world.clock.at - timedelta(days=7))
    log = [row for row in large_world.sandbox.state.all("audit") if str(row["timestamp"]) >= since]
    routine = ("auth.login", "credential.token_refresh", "workflow.execute", "workflow.execute.completed")
    changes = [row["action"] for row in log if row["action"] not in (*routine, "api_key.read")]
    assert 0 < len(changes) < len(log) / 2
    shown = await answer(large_world, since=since, changes_only=True, limit=100)
    assert sorted(row["action"] for row in rows_of(shown["data"])) == sorted(changes)
    assert shown["total"] == len(changes)


async def test_what_filters_left_out_is_counted_by_kind(world: World) -> None:
    """A `total` of 0 was not believed, and the whole log was read beside it."""
    log = world.sandbox.state.all("audit")
    since = stamp(world.clock.at - timedelta(hours=23))
    runs = [row for row in log if row["timestamp"] >= since and row["action"].startswith("workflow.execute")]
    by_keys = sum(row["actor"].startswith("apikey:") for row in runs)
    shown = await answer(world, changes_only=True, since=since)
    assert (shown["total"], shown["now"]) == (0, stamp(world.clock.at))
    assert f"{len(runs) - by_keys} runs by the system" in shown["filtered_out"]
    assert f"{by_keys} runs by API keys" in shown["filtered_out"]
    counts = [int(part.split()[0]) for part in shown["filtered_out"].split("; ")]
    assert sum(counts) == sum(row["timestamp"] >= since for row in log)
    change = max(
        (row for row in log if row["timestamp"] < since and row["action"] in ("workflow.publish", "workflow.update")),
        key=lambda row: str(row["timestamp"]),
    )
    assert shown["last_before"].startswith(str(change["timestamp"])[:19])
    assert shown["last_before"].endswith(
        f"{change['action']} of workflow {change['resource']['id']} by {change['actor']}"
    )


async def test_what_fastn_filtered_itself_is_counted_by_the_newest_entries(large_world: World) -> None:
    """Where those do not cover the period, the statement that counts it is named."""
    since = stamp(large_world.clock.at - timedelta(hours=12))
    log = [row for row in large_world.sandbox.state.all("audit") if row["timestamp"] >= since]
    shown = await answer(large_world, actor="nobody@fastn.example", since=since)
    counts = [int(part.split()[0]) for part in shown["filtered_out"].split("; ")]
    assert sum(counts) == len(log)
    assert shown["last_before"] == "none"
    shown = await answer(large_world, actor="apikey:1")
    statement = shown["filtered_out"].removeprefix("not counted; query: ")
    counted = await large_world.ask(Query(sql=statement))
    assert sum(row[2] for row in counted["rows"]) == len(large_world.sandbox.state.all("audit"))


async def test_beginning_and_counts_that_cannot_be_read_leave_the_entries(world: World) -> None:
    calls = itertools.count()

    async def read(call: Operation[Any]) -> FastnObject:
        if next(calls):
            raise Forbidden("no")
        return await world.client.send(call)

    shown = (await entries(QueryAuditLog(actor="apikey:1"), world.context(read))).model_dump()
    assert shown["items"]
    assert shown["log_begins"] == "not known (forbidden)"
