"""How far answers reach and who did what, by a real client over both transports."""

from support.server_process import Connect, Upstream, body, each_transport_and_era


@each_transport_and_era
async def test_answers_say_how_far_they_reach_and_who_it_was(
    transport: str, era: str, connect: Connect, upstream: Upstream
) -> None:
    async with connect(transport, era) as client:
        old = body(await client.call_tool("list_executions", {"since": "2020-01-01T00:00:00Z", "limit": 1}))
        assert " ago)" in old["history_begins"]
        several = body(await client.call_tool("list_connections", {"status": ["FAILED", "EXPIRED"]}))
        assert {row["status"] for row in several["data"]} == {"FAILED", "EXPIRED"}
        log = body(await client.call_tool("query_audit_log", {"changes_only": True, "limit": 1}))
        assert " ago)" in log["log_begins"]
        assert log["log_lacks"] == "most reads and some changes"
        keys = body(await client.call_tool("list_api_keys", {}))
        assert keys["own_key"] == "5"
        assert keys["actions_of"]
        runs = body(await client.call_tool("list_executions", {"started_by": "agent-service", "limit": 1}))
        run = body(await client.call_tool("get_execution", {"execution_id": runs["data"][0]["id"]}))
        assert run["data"]["startedBy"] == "Fastn's AI"
    assert not upstream.changes()
