"""No destructive call reaches Fastn without an accepted form, as the MCP specification on elicitation expects."""

from typing import Any

import pytest
from mcp import Client
from support.server_process import (
    ERAS,
    Connect,
    Person,
    Upstream,
    approving,
    body,
    each_transport_and_era,
)

pytestmark = pytest.mark.anyio


async def customer(client: Client, name: str = "Globex Exports") -> dict[str, Any]:
    return body(await client.call_tool("list_customers", {"search": name}))["data"][0]


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
