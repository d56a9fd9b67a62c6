"""A real client calls each of the 42 tools, on both transports and in both protocol versions."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from mcp import Client
from mcp.types import TextContent
from server_process import Connect, Person, Upstream, approving, body, each_transport_and_era

from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.tool import Effect

pytestmark = pytest.mark.anyio

Arguments = Callable[[Client], Awaitable[dict[str, Any]]]


async def _first(client: Client, lister: str, **matching: Any) -> dict[str, Any]:
    rows = body(await client.call_tool(lister, {"limit": 100, "detail": "full"}))["data"]
    return next(row for row in rows if all(row.get(name) == value for name, value in matching.items()))


async def _arguments(client: Client, tool: str) -> dict[str, Any]:
    """Return arguments that a sensible caller would give."""
    ids: dict[str, tuple[str, dict[str, Any]]] = {
        "customer_id": ("list_customers", {}),
        "connector_id": ("list_connectors", {"name": "Gamma"}),
        "connection_id": ("list_connections", {}),
        "workflow_id": ("list_workflows", {"name": "process-new-orders"}),
        "trigger_id": ("list_triggers", {}),
        "execution_id": ("list_executions", {}),
        "api_key_id": ("list_api_keys", {"name": "BI export"}),
        "secret_id": ("list_secrets", {}),
    }
    given: dict[str, dict[str, Any]] = {
        "create_customer": {"name": "Initech"},
        "update_customer": {"plan": "Growth"},
        "create_connector": {"name": "Initech API", "slug": "initechApi"},
        "update_connector": {"description": "Decks"},
        "create_connection": {"credentials": {"apiKey": "k-1"}, "name": "default"},
        "create_workflow": {"name": "nightly"},
        "update_workflow": {"description": "Orders"},
        "run_workflow": {"input": {"orderId": "1"}},
        "create_trigger": {
            "name": "Nightly",
            "type": "scheduler",
            "schedule": "0 3 * * *",
            "timezone": "Europe/Berlin",
        },
        "update_trigger": {"description": "Shop"},
        "invite_user": {"email": "sam@example.com", "role": "Operator"},
        "create_role": {"name": "Reader", "parent": "Viewer", "permissions": ["workflows:read"]},
        "create_api_key": {"name": "BI"},
        "create_secret": {"name": "BI_TOKEN", "value": "hunter2"},
        "ai_chat": {"message": "status?"},
        "ai_build": {"type": "connector", "prompt": "the Gamma API"},
    }
    arguments = dict(given.get(tool, {}))
    operation = next(operation for operation in CATALOG if operation.tool_name() == tool)
    needed = [*operation.route.parameters, *(["connector_id"] if tool == "create_connection" else [])]
    for name in needed:
        lister, matching = ids[name]
        arguments[name] = (await _first(client, lister, **matching))["id"]
    if tool == "create_trigger":
        workflow = await _first(client, "list_workflows", name="process-new-orders")
        arguments["routes"] = [{"routeId": workflow["id"], "routeType": "API", "environment": "live"}]
    return arguments


@each_transport_and_era
async def test_each_of_the_42_tools_can_be_called(
    transport: str, era: str, connect: Connect, upstream: Upstream
) -> None:
    """Ours: with an approving person, every tool reaches Fastn. A client without forms is told so."""
    person = Person(approving)
    async with connect(transport, era, person) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == [o.tool_name() for o in ALL_TOOLS]
        # Stateless HTTP cannot send a form to a legacy client during a call.
        can_ask = not (transport == "http" and era == "2025-11-25")
        for operation in CATALOG:  # procedures have their own tests
            name = operation.tool_name()
            arguments = await _arguments(client, name)
            before = len(upstream.changes())
            result = await client.call_tool(name, arguments)
            answer = body(result)
            text = result.content[0]
            assert isinstance(text, TextContent)
            assert json.loads(text.text) == answer, name
            changes = len(upstream.changes()) - before
            call = operation.model_validate(arguments)
            # A live target raises an update's effect, so legacy clients over HTTP cannot make it either.
            raised = operation.route.method == "PUT" and operation.toolset() in ("workflows", "connectors", "triggers")
            if can_ask or (call.effective in (Effect.READ, Effect.WRITE) and not raised):
                assert not result.is_error, (name, answer)
                assert changes == (call.effective is not Effect.READ), name
                upstream.reset() if name.startswith(("delete", "revoke")) else None
            elif not raised or changes == 0:
                assert answer["outcome"] in ("refused", "approval_required"), (name, answer)
                assert "Nothing was sent." in answer["message"]
                assert changes == 0, name
