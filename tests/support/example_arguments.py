"""Arguments for each operation that a sensible caller would give, from the account's own lists."""

from typing import Any

from mcp import Client

from fastn_mcp.tools.catalog import CATALOG
from support.server_process import body

_EXAMPLES: dict[str, dict[str, Any]] = {
    "create_customer": {"name": "Initech"},
    "update_customer": {"plan": "Growth"},
    "create_connector": {"name": "Initech API", "slug": "initechApi"},
    "update_connector": {"description": "Decks"},
    "create_connection": {"credentials": {"apiKey": "k-1"}, "name": "default"},
    "create_workflow": {"name": "nightly"},
    "update_workflow": {"description": "Orders"},
    "run_workflow": {"input": {"orderId": "1"}},
    "create_trigger": {"name": "Nightly", "type": "scheduler", "schedule": "0 3 * * *", "timezone": "Europe/Berlin"},
    "update_trigger": {"description": "Shop"},
    "invite_user": {"email": "sam@example.com", "role": "Operator"},
    "create_role": {"name": "Reader", "parent": "Viewer", "permissions": ["workflows:read"]},
    "create_api_key": {"name": "BI"},
    "create_secret": {"name": "BI_TOKEN", "value": "hunter2"},
    "ai_chat": {"message": "status?"},
    "ai_build": {"type": "connector", "prompt": "the Gamma API"},
}
_NAMES = {
    "connector": "Gamma",
    "workflow": "process-new-orders",
    "trigger": "Shop events",
    "api_key": "BI export",
}
"""Of the records to use; of other kinds it is the first."""


class ExampleArguments:
    """Reads each list of the account once."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ids: dict[str, str] = {}

    async def of(self, tool: str) -> dict[str, Any]:
        arguments = dict(_EXAMPLES.get(tool, {}))
        operation = next(operation for operation in CATALOG if operation.tool_name() == tool)
        for name in [*operation.route.parameters, *(["connector_id"] if tool == "create_connection" else [])]:
            arguments[name] = await self._id(name.removesuffix("_id"))
        if tool == "create_trigger":
            route = {"routeId": await self._id("workflow"), "routeType": "API", "environment": "live"}
            arguments["routes"] = [route]
        return arguments

    async def _id(self, kind: str) -> str:
        if kind not in self._ids:
            listed = await self._client.call_tool(f"list_{kind}s", {"limit": 100, "detail": "full"})
            name = _NAMES.get(kind)
            rows = body(listed)["data"]
            self._ids[kind] = next(row["id"] for row in rows if name is None or row["name"] == name)
        return self._ids[kind]
