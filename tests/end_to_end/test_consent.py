"""No destructive call reaches Fastn without an accepted form, as the MCP specification on elicitation expects."""

from typing import Any

import anyio
import pytest
from mcp import Client, MCPError
from mcp.types import CallToolResult, ElicitResult, InputRequiredResult
from support.server_process import (
    ERAS,
    READING,
    Connect,
    Person,
    Upstream,
    answering,
    approving,
    body,
    each_transport_and_era,
)

from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.tool import Effect

pytestmark = pytest.mark.anyio

ASKED = [o for o in CATALOG if o.effect.rank >= Effect.EXTERNAL.rank]


async def customer(client: Client, name: str = "Globex Exports") -> dict[str, Any]:
    return body(await client.call_tool("list_customers", {"search": name}))["data"][0]


@pytest.mark.parametrize("era", ERAS)
async def test_decline_is_final(era: str, connect: Connect, upstream: Upstream) -> None:
    no = ElicitResult(action="accept", content={"decision": "decline", "note": "not today"})
    async with connect("stdio", era, Person(answering(no))) as client:
        workflow = body(await client.call_tool("list_workflows", {"search": "process-new-orders"}))["data"][0]
        answer = body(await client.call_tool("run_workflow", {"workflow_id": workflow["id"]}))
    assert (answer["outcome"], answer["note"]) == ("declined", "not today")
    assert upstream.changes() == []


@each_transport_and_era
async def test_client_without_forms_is_refused(transport: str, era: str, connect: Connect, upstream: Upstream) -> None:
    async with connect(transport, era) as client:
        target = await customer(client)
        for more in ({}, {"confirm": True}, {"user_approved": "yes"}):
            answer = body(await client.call_tool("delete_customer", {"customer_id": target["id"], **more}))
            assert "Nothing was sent." in answer["message"]
    assert upstream.changes() == []


@pytest.mark.parametrize("era", ERAS)
async def test_approved_deletion_is_sent_once(era: str, connect: Connect, upstream: Upstream) -> None:
    person = Person(approving)
    async with connect("stdio", era, person) as client:
        target = await customer(client)
        answer = body(await client.call_tool("delete_customer", {"customer_id": target["id"]}))
    assert answer["done"] == "delete_customer"
    assert answer["account"]["profile"] == "default"
    assert upstream.changes() == [f"DELETE /api/v1/customers/{target['id']}"]
    (question,) = person.asked
    assert question.splitlines()[0] == 'Delete customer "Globex Exports".'
    assert 'Its connection "Shopify" and its secret "PARTNER_TOKEN" are lost for good.' in question.splitlines()[1]
    assert f'delete_customer customer_id="{target["id"]}"' in question
    assert question.splitlines()[-1].startswith("To approve this one call, type")


async def ask(client: Client, arguments: dict[str, Any]) -> InputRequiredResult:
    asked = await client.session.call_tool("delete_customer", arguments, allow_input_required=True)
    assert isinstance(asked, InputRequiredResult)
    return asked


async def reply(
    client: Client, asked: InputRequiredResult, name: str, arguments: dict[str, Any], tool: str = "delete_customer"
) -> CallToolResult | InputRequiredResult:
    await anyio.sleep(READING)
    return await client.session.call_tool(
        tool,
        arguments,
        input_responses={"approval": ElicitResult(action="accept", content={"name": name})},
        request_state=asked.request_state,
        allow_input_required=True,
    )


@pytest.mark.long
async def test_answer_counts_only_for_its_call(connect: Connect, upstream: Upstream) -> None:
    async with connect("stdio", "2026-07-28", Person(approving)) as client:
        target, other = await customer(client), await customer(client, "Widget Inc")
        deletion = {"customer_id": target["id"]}
        asked = await ask(client, deletion)
        with pytest.raises(MCPError):
            await reply(client, asked, other["name"], {"customer_id": other["id"]})
        with pytest.raises(MCPError):
            await reply(client, asked, target["name"], {"workflow_id": "wf_1"}, tool="delete_workflow")
        forged = asked.model_copy(update={"request_state": "v1.AAAA"})
        with pytest.raises(MCPError):
            await reply(client, forged, target["name"], deletion)
        stateless = asked.model_copy(update={"request_state": None})
        assert isinstance(await reply(client, stateless, target["name"], deletion), InputRequiredResult)
    assert upstream.changes() == []


@pytest.mark.long
@pytest.mark.parametrize("mode", ["manual", "read-only"])
async def test_stricter_modes_ask_or_refuse_more(mode: str, connect: Connect, upstream: Upstream) -> None:
    person = Person(answering(ElicitResult(action="decline")))
    async with connect("stdio", "2026-07-28", person, ("--mode", mode)) as client:
        answer = body(await client.call_tool("create_customer", {"name": "Initech"}))
        assert "Nothing was sent." in answer["message"]
        assert len(person.asked) == (mode == "manual")
    assert upstream.changes() == []


async def test_toolsets_and_read_only_also_refuse_at_call_time(connect: Connect, upstream: Upstream) -> None:
    flags = ("--read-only", "--toolsets", "ai", "--tools", "*_customer*")
    async with connect("stdio", "2026-07-28", None, flags) as client:
        listed = await client.list_tools()
        assert [tool.name for tool in listed.tools] == ["list_customers", "get_customer"]
        assert (listed.ttl_ms, listed.cache_scope) == (3_600_000, "private")
        for name, arguments in (("create_customer", {"name": "x"}), ("list_workflows", {})):
            answer = body(await client.call_tool(name, arguments))
            assert answer["outcome"] == "not_sent"
            assert "is disabled here" in answer["message"]
    assert upstream.requests() == []
