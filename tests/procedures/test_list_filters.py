"""Lists by what people ask: several statuses, expiry, what is under way, problems of triggers, unused keys."""

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from large_account import large_account
from pydantic import JsonValue
from pydantic_core import to_json
from support.behaviour import Filtering
from support.table_rows import rows_of
from support.world import World

from fastn_mcp.account.answer_reads import RESERVE
from fastn_mcp.account.short_ids import reference_to
from fastn_mcp.client.cost import counted_requests
from fastn_mcp.errors import InvalidArgument
from fastn_mcp.extensions.sandbox.state import Row
from fastn_mcp.procedures.list_rows import MAX_FURTHER_PAGES
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.records.formats import stamp
from fastn_mcp.records.rows import row_of
from fastn_mcp.records.states import CONNECTION_STATUSES
from fastn_mcp.tools.billing import GetUsage

each_filtering = pytest.mark.parametrize("filtering", Filtering)


async def pages(world: World, tool: str, **arguments: Any) -> list[dict[str, Any]]:
    """All rows of a list, page by page."""
    return [row for answer in await world.pages(tool, **arguments) for row in rows_of(answer["data"])]


def ids(rows: list[dict[str, Any]]) -> list[str]:
    return [str(row["id"]) for row in rows]


def as_shown(id_: str) -> str:
    return reference_to(id_) if len(id_) > 60 else id_


def ids_where(world: World, kind: str, fits: Callable[[Row], bool]) -> set[str]:
    found = {as_shown(str(row["id"])) for row in world.sandbox.state.all(kind) if fits(row)}
    assert 0 < len(found) < len(world.sandbox.state.all(kind))
    return found


def requests_for(world: World, path: str) -> int:
    return sum(request.path == f"/api/v1/{path}" for request in world.sandbox.requests)


def ago(world: World, **time: float) -> str:
    return stamp(world.clock.now() - timedelta(**time))


@each_filtering
@pytest.mark.parametrize(
    ("wanted", "statuses"),
    [
        ("EXPIRED,FAILED", {"EXPIRED", "FAILED"}),
        (" failed , expired", {"EXPIRED", "FAILED"}),
        ("!ACTIVE", {"EXPIRED", "FAILED", "INACTIVE"}),
        ("!ACTIVE, INACTIVE", {"EXPIRED", "FAILED"}),
    ],
)
async def test_list_takes_several_statuses(world: World, wanted: str, statuses: set[str], filtering: Filtering) -> None:
    world.behave(filtering=filtering)
    answer = await world.rendered_tool("list_connections", status=wanted)
    expected = ids_where(world, "connections", lambda row: row["status"] in statuses)
    assert set(ids(answer["data"])) == expected
    assert answer["total"] == len(expected)
    assert requests_for(world, "connections") == 1


async def test_status_that_fastn_has_not_documented_is_not_lost(world: World) -> None:
    row = world.sandbox.state.all("connections")[0]
    row["status"] = "NOT_DOCUMENTED"
    assert as_shown(row["id"]) in ids((await world.rendered_tool("list_connections", status="!ACTIVE"))["data"])


async def test_unknown_one_of_several_statuses_is_named(world: World) -> None:
    answer = await world.rendered_tool("list_workflows", status="paused,stopped")
    assert [text.partition(";")[0] for text in answer["unknown"]] == [
        "status: unknown value 'paused'",
        "status: unknown value 'stopped'",
    ]


@each_filtering
async def test_large_list_is_read_by_status_where_fastn_filters(tmp_path: Path, filtering: Filtering) -> None:
    world = World(tmp_path, begin=large_account)
    world.behave(filtering=filtering)
    for number in range(1_000):
        row = world.sandbox.state.all("connections")[0]
        world.sandbox.state.put("connections", {**row, "id": f"ucl:more:{number}", "status": "ACTIVE"})
    expected = ids_where(world, "connections", lambda row: row["status"] != "ACTIVE")
    answer = await world.rendered_tool("list_connections", status="!ACTIVE", limit=100)
    if filtering is Filtering.HEEDED:
        assert requests_for(world, "connections") <= 5
        *others, last = [status for status in CONNECTION_STATUSES if status != "ACTIVE"]
        assert answer["left_out"].startswith(f"Read by status: {', '.join(others)} or {last}.")
        assert answer["total"] == len(expected) > 50
        assert set(ids(await pages(world, "list_connections", status="!ACTIVE", limit=100))) == expected
    else:
        assert requests_for(world, "connections") <= MAX_FURTHER_PAGES + 3
        assert answer["left_out"].startswith("Only 1,100 rows were read, others may match")
        assert answer["looked_at"] == 1_100
        assert "total" not in answer
    world.close()


async def test_statuses_of_a_whole_list_are_counted(large_world: World) -> None:
    answer = await large_world.rendered_tool("list_users", limit=100, fields=["name"])
    counts = Counter(str(row["status"]) for row in large_world.sandbox.state.all("users"))
    assert answer["by_status"] == counts
    assert "by_status" not in await large_world.rendered_tool("list_users", limit=2)


async def test_connections_that_stopped_since(world: World) -> None:
    long_ago = ago(world, days=40)
    used, expired, renamed, old = world.sandbox.state.all("connections")[:4]
    for row in world.sandbox.state.all("connections"):
        row |= {"status": "FAILED", **dict.fromkeys(("createdAt", "updatedAt", "lastUsedAt", "expiresAt"), long_ago)}
    used["lastUsedAt"] = ago(world, days=2)
    expired.update(status="EXPIRED", expiresAt=ago(world, days=1))
    renamed["updatedAt"] = ago(world, hours=1)
    old["expiresAt"] = ago(world, days=-20)  # is to expire, and did not stop by that
    answer = await world.rendered_tool("list_connections", status="!ACTIVE", since=ago(world, days=3))
    assert set(ids(answer["data"])) == {as_shown(row["id"]) for row in (used, expired, renamed)}


@each_filtering
async def test_what_expires_is_listed_soonest_first_on_every_page(world: World, filtering: Filtering) -> None:
    world.behave(filtering=filtering)
    rows = world.sandbox.state.all("connections")
    for number, row in enumerate(rows):
        row["expiresAt"] = ago(world, days=-((number * 5) % 13) - 1)
    rows[0]["expiresAt"] = None
    bound = world.clock.now() + timedelta(days=10)
    due = {str(row["id"]): datetime.fromisoformat(str(row["expiresAt"])) for row in rows[1:]}
    expected = sorted((key for key, at in due.items() if at < bound), key=due.__getitem__)
    arguments = {"expires_before": stamp(bound), "limit": 2}
    assert ids(await pages(world, "list_connections", **arguments)) == [*map(as_shown, expected)]
    first = await world.rendered_tool("list_connections", **arguments)
    assert (first["order"], first["total"]) == ("soonest first", len(expected))
    world.sandbox.state.drop("connections", expected[0])
    second = await world.rendered_tool("list_connections", **arguments, cursor=first["next_cursor"])
    assert ids(second["data"]) == [*map(as_shown, expected[2:4])]


@pytest.mark.parametrize(
    ("tool", "filters", "unknown"),
    [
        (
            "list_executions",
            {"status": "failed,timed out"},
            "status: unknown value 'timed out' (did you mean 'timeout'?)",
        ),
        ("list_connections", {"status": "!ACTIV"}, "status: unknown value 'ACTIV' (did you mean 'ACTIVE'?)"),
        ("list_triggers", {"type": "webhook,cron"}, "type: unknown value 'cron'"),
        ("list_triggers", {"problem": "broken,fail"}, "problem: unknown value 'fail' (did you mean 'failing'?)"),
    ],
)
async def test_unknown_value_among_others_is_said(
    world: World, tool: str, filters: dict[str, str], unknown: str
) -> None:
    """Although other values of the filter match."""
    answer = await world.rendered_tool(tool, **filters)
    assert answer["data"]
    assert [text.partition(";")[0] for text in answer["unknown"]] == [unknown]


@each_filtering
async def test_total_of_all_rows_is_not_that_of_a_filter(tmp_path: Path, filtering: Filtering) -> None:
    """Fastn may ignore the filters. What was read before tells how many rows there are without them."""
    world = World(tmp_path, snapshot_seconds=90)
    world.behave(filtering=filtering)
    await world.call(GetOverview())
    with counted_requests() as cost:
        users = await world.rendered_tool("list_users", status="Active", limit=3)
    assert cost.oldest is None, "its rows were read for it"
    answers = [await world.rendered_tool("list_executions", since="2026-11-24T09:00:00Z", limit=3), users]
    expected = [35, 5] if filtering is Filtering.HEEDED else [None, None]
    assert [answer.get("total") for answer in answers] == expected
    assert (await world.rendered_tool("list_executions", limit=3))["total"] == 342


async def test_unknown_value_of_rows_is_taken(world: World) -> None:
    world.sandbox.state.all("users")[0]["status"] = "On Leave"
    answer = await world.rendered_tool("list_users", status="on leave,Invited")
    assert ({row["status"] for row in answer["data"]}, answer.get("unknown")) == ({"On Leave", "Invited"}, None)


async def test_excluded_values_may_each_have_their_mark(world: World) -> None:
    answers = [
        await world.rendered_tool("list_connections", status=status)
        for status in ("!ACTIVE,!FAILED", "!ACTIVE,FAILED", " ! active , !Failed ")
    ]
    assert [{row["status"] for row in answer["data"]} for answer in answers] == [{"INACTIVE", "EXPIRED"}] * 3


async def test_time_that_cannot_be_read_is_said(world: World) -> None:
    answer = await world.rendered_tool("list_connections", expires_before="soon")
    assert answer["not_checked"] == ["expires_before"]
    assert answer["unknown"] == ["expires_before: 'soon' is not a time in ISO 8601, such as 2026-11-28T06:00:00Z"]
    answer = await world.rendered_tool("list_executions", since="2026-11-25", until="2026-11-24")
    assert (answer["data"], answer["unknown"]) == ([], ["since: it is not before 2026-11-24, so nothing can match"])
    answer = await world.rendered_tool("list_executions", since="2026-11-25T08:30:00Z", under_way_minutes=60)
    assert answer["unknown"] == ["since: it is not before 2026-11-25T08:00:00Z, so nothing can match"]


async def test_fields_keep_the_ages_of_times(world: World) -> None:
    for limit in (20, 100):
        answer = await world.rendered_tool("list_api_keys", fields=["name", "expiresAt", "createdAt"], limit=limit)
        rows = {row["name"]: row for row in rows_of(answer["data"])}
        assert rows["BI export"]["expiresAt"].endswith("(in 5 days)")
        assert all(row["createdAt"].endswith(" ago)") for row in rows.values())


async def test_people_are_listed_by_a_role_that_is_an_object(world: World) -> None:
    for row in world.sandbox.state.all("users"):
        world.sandbox.state.put("users", {**row, "role": {"id": "r1", "name": row["role"]}})
    assert (await world.rendered_tool("list_users", role="admin"))["total"] == 2


async def test_usage_of_many_customers_is_read_page_by_page(tmp_path: Path) -> None:
    """A customer that is cut off would look as if it had used nothing."""
    world = World(tmp_path, begin=large_account)
    answers = await world.pages("get_usage")
    for answer in answers:
        assert "left_out" not in answer
        assert answer["data"]["executions"]["month"] > 0
    customers = [row["customerId"] for answer in answers for row in answer["data"]["byCustomer"]]
    assert len(customers) == len({*customers}) > 100
    assert {*customers} <= {row["id"] for row in world.sandbox.state.all("customers")}


def test_page_of_usage_has_as_many_customers_as_an_answer_has_room_for() -> None:
    usage: JsonValue = [{"customerId": f"c{number}", "name": "x" * 200} for number in range(120)]
    rows: list[Any] = []
    cursor: object = None
    while len(rows) < 120:
        page = row_of(GetUsage.model_validate({"cursor": cursor}).result({"byCustomer": usage}))
        assert len(to_json(page)) < 7_000
        rows += cast("list[Any]", page["byCustomer"])
        cursor = page.get("next_cursor")
    assert (rows, cursor) == (usage, None)


@each_filtering
async def test_keys_are_listed_by_their_expiry_and_use(world: World, filtering: Filtering) -> None:
    world.behave(filtering=filtering)
    soon = await world.rendered_tool("list_api_keys", expires_before=ago(world, days=-14))
    assert ids(soon["data"]) == [world.id_of("apiKeys", "BI export")]
    for never_used in (True, False):
        keys = await world.rendered_tool("list_api_keys", never_used=never_used)
        wanted = ids_where(world, "apiKeys", lambda row, unused=never_used: (row["lastUsed"] is None) is unused)
        assert set(ids(keys["data"])) == wanted


@pytest.mark.parametrize(
    ("problem", "names"),
    [
        ("failing", ["Daily TikTok sync"]),
        ("stopped", ["Nightly contact sync"]),
        ("broken", ["Paid Shopify orders"]),
        ("never_ran", ["Hourly Slack sync"]),
        ("odd", []),
    ],
)
async def test_triggers_are_listed_by_problem(world: World, problem: str, names: list[str]) -> None:
    for row in world.sandbox.state.all("triggers"):
        if row["name"] == "Hourly Slack sync":
            row["lastRun"] = None
        if row["name"] == "Paid Shopify orders":
            row["subscriptionStatus"] = "FAILED"
    answer = await world.rendered_tool("list_triggers", problem=problem)
    assert [row["name"] for row in answer["data"]] == names
    assert answer["total"] == len(names)
    assert "not_checked" not in answer
    assert ("unknown" in answer) == (problem == "odd")


@each_filtering
async def test_runs_under_way_for_too_long_are_listed_longest_first(tmp_path: Path, filtering: Filtering) -> None:
    world = World(tmp_path, begin=large_account)
    world.behave(filtering=filtering)
    template = world.sandbox.state.all("executions")[0]
    runs = (("a", "queued", 1_320), ("b", "running", 1_500), ("c", "RUNNING", 20), ("d", "failed", 1_400))
    for key, status, minutes in runs:
        begun = {"createdAt": ago(world, minutes=minutes), "startedAt": None, "completedAt": None}
        world.sandbox.state.put("executions", {**template, **begun, "id": f"exec_{key}", "status": status})
    arguments: dict[str, Any] = {"since": ago(world, days=2), "under_way_minutes": 60}
    answer = await world.rendered_tool("list_executions", **arguments)
    own = [row for row in answer["data"] if row["id"] in ("exec_a", "exec_b", "exec_c", "exec_d")]
    if filtering is Filtering.HEEDED:
        assert requests_for(world, "executions") <= 5
        assert [(row["id"], row["elapsed"]) for row in own] == [("exec_b", "1 day"), ("exec_a", "22 hours")]
    assert all("elapsed" in row for row in answer["data"])
    world.close()


async def test_elapsed_time_is_shown_while_a_run_is_under_way(world: World) -> None:
    for arguments in ({}, {"fields": ["status", "elapsed"]}, {"limit": 100}):
        rows = rows_of((await world.rendered_tool("list_executions", since=ago(world, days=1), **arguments))["data"])
        under_way = [row for row in rows if row["status"] in ("running", "queued", "pending")]
        assert under_way
        assert all(row["elapsed"] for row in under_way)
        assert not any(row.get("elapsed") for row in rows if row not in under_way)


@pytest.mark.parametrize("arguments", [{"started_by": "nobody"}, {"status": "timeout,cancelled"}])
async def test_filtered_list_keeps_within_the_rate_limit(tmp_path: Path, arguments: dict[str, str]) -> None:
    world = World(tmp_path, begin=large_account)
    world.behave(rate_limit=20, filtering=Filtering.IGNORED)
    await world.rendered_tool("list_executions", **arguments)
    again = await world.rendered_tool("list_executions", **arguments)
    assert (world.client.limit.requests_left or 0) >= RESERVE - 1  # the first page of a list is always read
    assert "next_cursor" in again or "others may match" in again["left_out"]
    world.close()


async def test_rows_that_were_not_read_are_said_in_the_full_form_too(tmp_path: Path) -> None:
    world = World(tmp_path, begin=large_account)
    world.behave(rate_limit=20, filtering=Filtering.IGNORED)
    answer = await world.rendered_tool("list_executions", status="timeout,cancelled", detail="full", limit=1)
    assert "others may match" in answer["left_out"]
    world.close()


@pytest.mark.parametrize("wanted", [["EXPIRED", "FAILED"], '["EXPIRED", "FAILED"]', ["!ACTIVE", "INACTIVE"]])
async def test_list_of_values_may_be_a_json_list(world: World, wanted: object) -> None:
    answer = await world.rendered_tool("list_connections", status=wanted)
    expected = ids_where(world, "connections", lambda row: row["status"] in ("EXPIRED", "FAILED"))
    assert set(ids(answer["data"])) == expected


async def test_fields_may_be_a_text_with_commas(world: World) -> None:
    named = await world.rendered_tool("list_customers", fields="name, status", limit=1)
    assert [*named["data"][0]] == ["name", "status"]
    assert named["data"] == (await world.rendered_tool("list_customers", fields=["name", "status"], limit=1))["data"]
    with pytest.raises(InvalidArgument, match="101 values; at most 100 are accepted"):
        await world.rendered_tool("list_customers", fields=",".join(["name"] * 101))


@each_filtering
async def test_empty_value_means_that_the_field_is_empty(world: World, filtering: Filtering) -> None:
    world.behave(filtering=filtering)
    own = await world.rendered_tool("list_connections", customer_id="", limit=100)
    assert set(ids(rows_of(own["data"]))) == ids_where(world, "connections", lambda row: row["endOrgId"] is None)
    public = await world.rendered_tool("list_triggers", subscription_status="", limit=100)
    silent = ids_where(world, "triggers", lambda row: row.get("subscriptionStatus") is None)
    assert set(ids(rows_of(public["data"]))) == silent
    sound = await world.rendered_tool("list_triggers", problem="", limit=100)
    assert not {"Nightly contact sync", "Paid Shopify orders"} & {row["name"] for row in rows_of(sound["data"])}
    assert sound["total"] < len(world.sandbox.state.all("triggers"))
    nobody = await world.rendered_tool("query_audit_log", resource_id="", limit=100)
    assert {row["action"] for row in rows_of(nobody["data"])} == {"auth.login"}


async def test_empty_value_that_no_row_can_tell_is_not_checked(world: World) -> None:
    for row in world.sandbox.state.all("connections"):
        del row["status"]
    answer = await world.rendered_tool("list_connections", status="", limit=100)
    assert answer["not_checked"] == ["status"]


async def test_empty_value_is_not_sent(world: World) -> None:
    await world.rendered_tool("list_connections", customer_id="", status="")
    assert all({"endOrgId", "status"}.isdisjoint(request.query) for request in world.sandbox.requests)
