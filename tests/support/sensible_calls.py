"""A call of each operation that works on the sandbox's account as it begins."""

from datetime import UTC, datetime
from typing import Any

from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.operation import Operation
from support.direct_sandbox import Fastn
from support.faulty_sandbox import FaultySandbox

SLACK, ORDERS = "wf_b5880b29eb25", "wf_0d93ee5b1f62"


def sensible_arguments() -> dict[str, dict[str, Any]]:
    """Return the arguments by tool, for a sandbox of today in whatever process."""
    calls = sensible(Fastn(FaultySandbox(lambda: datetime.now(UTC))))
    return {call.tool_name(): call.arguments() for call in calls}


def sensible(fastn: Fastn) -> list[Operation[Any]]:
    """One call of each operation that should work on the account as it begins."""
    acme, gamma = fastn.id_of("customers", "acme-corp"), fastn.id_of("connectors", "gamma")
    hourly = fastn.id_of("triggers", "Hourly Slack sync", by="name")
    routes = [{"routeId": ORDERS, "environment": "test"}]
    arguments: dict[str, dict[str, Any]] = {
        "get_customer": {"customer_id": acme},
        "create_customer": {"name": "Initech", "admin_email": "bill@initech.example"},
        "update_customer": {"customer_id": acme, "name": "Acme Corporation"},
        "delete_customer": {"customer_id": fastn.id_of("customers", "widget-inc")},
        "get_connector": {"connector_id": gamma},
        "create_connector": {"name": "Initech", "slug": "initech"},
        "update_connector": {"connector_id": gamma, "description": "Decks."},
        "delete_connector": {"connector_id": fastn.id_of("connectors", "openHolidays")},
        "create_connection": {"connector_id": gamma, "credentials": {"apiKey": "s3cret"}},
        "delete_connection": {"connection_id": fastn.connection("acme-corp", "xero")},
        "get_workflow": {"workflow_id": SLACK},
        "create_workflow": {"name": "New one"},
        "update_workflow": {"workflow_id": SLACK, "description": "Every hour."},
        "delete_workflow": {"workflow_id": "wf_e5047fb2a8c3"},
        "run_workflow": {"workflow_id": SLACK, "customer_id": acme, "idempotency_key": "once", "input": {"a": 1}},
        "get_trigger": {"trigger_id": hourly},
        "create_trigger": {"name": "Hook", "type": "webhook", "routes": routes, "status": "Disabled"},
        "update_trigger": {"trigger_id": hourly, "schedule": "*/15 * * * *"},
        "delete_trigger": {"trigger_id": fastn.id_of("triggers", "Shop events", by="name")},
        "get_execution": {"execution_id": str(fastn.sandbox.state.all("executions")[-1]["id"])},
        "invite_user": {"email": "kim@fastn.example", "role": "Operator"},
        "create_role": {"name": "Looks", "permissions": ["workflows:read"]},
        "create_api_key": {"name": "BI", "expires": "30d"},
        "revoke_api_key": {"api_key_id": "4"},
        "create_secret": {"name": "NEW_ONE", "value": "s3cret"},
        "delete_secret": {"secret_id": fastn.id_of("secrets", "GOOGLE_SA", by="name")},
        "ai_chat": {"message": "How are my workflows?"},
        "ai_build": {"type": "workflow", "prompt": "Sync orders to Xero", "connectors": ["shopify", "xero"]},
    }
    return [operation(**arguments.get(name, {})) for name, operation in OPERATIONS.items()]
