"""Arguments for each operation that a sensible caller would give, from the account's own lists."""

from typing import Any

from mcp import Client

from fastn_mcp.tools.catalog import CATALOG
from support.server_process import body


async def _first(client: Client, lister: str, **matching: Any) -> dict[str, Any]:
    rows = body(await client.call_tool(lister, {"limit": 100, "detail": "full"}))["data"]
    return next(row for row in rows if all(row.get(name) == value for name, value in matching.items()))


async def arguments_of(client: Client, tool: str) -> dict[str, Any]:
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
