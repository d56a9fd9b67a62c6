"""A real client calls each tool, on both transports and in both protocol versions, or one that is disabled."""

import json

import pytest
from mcp.types import TextContent
from support.sensible_calls import sensible_arguments
from support.server_process import (
    Connect,
    Person,
    Upstream,
    approving,
    body,
    each_transport_and_era,
    environment,
    served,
)

from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.tool import Effect


@each_transport_and_era
async def test_every_tool_can_be_called(transport: str, era: str, connect: Connect, upstream: Upstream) -> None:
    person = Person(approving)
    async with connect(transport, era, person) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == [o.tool_name() for o in ALL_TOOLS]
        # Stateless HTTP cannot send a form to a legacy client during a call.
        can_ask = not (transport == "http" and era == "2025-11-25")
        examples = sensible_arguments()
        for operation in CATALOG:  # procedures have their own tests
            name = operation.tool_name()
            arguments = examples[name]
            before = len(upstream.changes())
            result = await client.call_tool(name, arguments)
            answer = body(result)
            text = result.content[0]
            assert isinstance(text, TextContent)
            assert json.loads(text.text) == answer, name
            changes = len(upstream.changes()) - before
            call = operation.model_validate(arguments)
            # A live target raises an update's effect, so legacy clients over HTTP cannot make it either.
            raised = operation.route.method == "PUT"
            if can_ask or (call.effective in (Effect.READ, Effect.WRITE) and not raised):
                assert not result.is_error, (name, answer)
                assert changes == (call.effective is not Effect.READ), name
                upstream.reset() if name.startswith(("delete", "revoke")) else None
            elif not raised or changes == 0:
                assert answer["outcome"] in ("refused", "approval_required"), (name, answer)
                assert "Nothing was sent." in answer["message"]
                assert changes == 0, name


async def test_toolsets_and_read_only_also_refuse_at_call_time(connect: Connect, upstream: Upstream) -> None:
    flags = ("--mode", "read-only", "--tools", "ai,*_customer*")
    async with connect("stdio", "2026-07-28", None, flags) as client:
        listed = await client.list_tools()
        assert [tool.name for tool in listed.tools] == ["list_customers", "get_customer"]
        assert (listed.ttl_ms, listed.cache_scope) == (3_600_000, "private")
        for name, arguments in (("create_customer", {"name": "x"}), ("list_workflows", {})):
            answer = body(await client.call_tool(name, arguments))
            assert answer["outcome"] == "not_sent"
            assert "is disabled here" in answer["message"]
    assert upstream.requests() == []


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_procedures_leave_out_disabled_kinds(transport: str, upstream: Upstream) -> None:
    env = environment(upstream) | {"FASTN_TOOLS": "find,get_overview,diagnose,list_customers"}
    async with served(env, transport, "2026-07-28") as client:
        customers = body(await client.call_tool("find", {"query": "acme corp"}))["data"]
        people = body(await client.call_tool("find", {"query": "dana@fastn.example"}))["data"]
        overview = body(await client.call_tool("get_overview", {}))["data"]
    assert customers["found"][0]["name"] == "Acme Corp"
    assert customers["next"] == ["diagnose(customer_id)"]
    assert people["found"] == []
    assert any("user" in gap and gap.endswith("Disabled here by the setting tools.") for gap in people["not_searched"])
    assert overview["counts"] == {"customers": 5}
    assert {request["path"] for request in upstream.requests()} == {"/api/v1/customers"}
