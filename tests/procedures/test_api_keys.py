"""list_api_keys says what each key did lately, by one read of the audit log, and which key is this server's own."""

from datetime import timedelta
from typing import Any

from support.world import World

from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.procedures.query.query import Query
from fastn_mcp.records.formats import stamp


def of_log(world: World) -> list[str]:
    return [request.path for request in world.sandbox.requests if request.path == "/api/v1/audit"]


async def keys(world: World, **arguments: Any) -> dict[str, Any]:
    return await world.rendered_tool("list_api_keys", **arguments)


async def test_key_has_its_last_action_and_how_many(world: World) -> None:
    log = [row for row in world.sandbox.state.all("audit") if row["actor"] == "apikey:1"]
    last = max(log, key=lambda row: str(row["timestamp"]))
    answer = await keys(world)
    (acted,) = [row for row in answer["data"] if row["actions"]]
    assert (acted["id"], acted["actions"]) == (1, len(log))
    assert acted["lastAction"].startswith(f"{last['action']}, {last['timestamp'][:19]}")
    assert all(row["actions"] == 0 and "lastAction" not in row for row in answer["data"] if row["id"] != 1)
    begun = min(str(row["timestamp"]) for row in world.sandbox.state.all("audit"))[:19]
    expected = f"30 days, by the audit log, which begins at {begun}Z; it lacks most reads and some changes"
    assert answer["actions_of"] == expected
    assert len(of_log(world)) == 1


async def test_action_of_more_than_30_days_ago_does_not_count(world: World) -> None:
    (old, *_) = [row for row in world.sandbox.state.all("audit") if row["actor"] == "apikey:1"]
    old["timestamp"] = stamp(world.clock.now() - timedelta(days=31))
    log = [row for row in world.sandbox.state.all("audit") if row["actor"] == "apikey:1"]
    answer = await keys(world)
    assert sum(row["actions"] for row in answer["data"]) == len(log) - 1
    assert answer["actions_of"].startswith("30 days, by the audit log; it lacks")


async def test_log_that_is_longer_than_one_read_names_its_window_and_the_statement(large_world: World) -> None:
    answer = await keys(large_world, limit=100)
    assert len(of_log(large_world)) == 1
    newest = sorted((str(row["timestamp"]) for row in large_world.sandbox.state.all("audit")), reverse=True)[:100]
    window, _, statement = answer["actions_of"].partition(". For more, query: ")
    assert window.startswith(f"the newest 100 entries of the audit log, back to {newest[-1][:19]}Z")
    rows = (await large_world.ask(Query(sql=statement)))["rows"]
    log = large_world.sandbox.state.all("audit")
    assert [row[1] for row in rows if row[0] == "apikey:1"] == [sum(row["actor"] == "apikey:1" for row in log)]


async def test_log_that_may_not_be_read_leaves_the_keys(world: World) -> None:
    world.disabled["query_audit_log"] = "exclude_tools"
    answer = await keys(world)
    assert answer["actions_of"].startswith("not known. ")
    assert "query_audit_log" in answer["actions_of"]
    assert len(answer["data"]) == 5
    assert "actions" not in answer["data"][0]
    assert not of_log(world)


async def test_log_is_read_only_for_what_shows_it(world: World) -> None:
    for arguments in ({"fields": ["name"]}, {"detail": "full"}):
        assert "actions_of" not in await keys(world, **arguments)
    assert not of_log(world)
    named = await keys(world, fields=["id", "actions"])
    assert [*named["data"][0]] == ["id", "actions"]
    assert len(of_log(world)) == 1


async def test_own_key_is_named_by_its_id(world: World) -> None:
    """Two keys end in the same letters."""
    rows = world.sandbox.state.all("apiKeys")
    own = next(row for row in rows if row["name"] == "Sandbox")
    assert sum(row["last4"] == own["last4"] for row in rows) == 2
    assert (await keys(world))["own_key"] == str(own["id"])
    assert (await world.ask(GetOverview(about="access")))["account"]["key_id"] == str(own["id"])
    next(row for row in rows if row["name"] == "MCP").update(keyPrefix=own["keyPrefix"], mode=own["mode"])
    world.clock.pass_(120)
    assert "own_key" not in await keys(world), "either may be it"
    assert "key_id" not in (await world.ask(GetOverview(about="access")))["account"]
