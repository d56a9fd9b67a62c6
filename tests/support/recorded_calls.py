"""Calls whose handling by the guard is recorded: of every tool, with variants, and of lists."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from fastn_mcp.tools.catalog import OPERATIONS
from support.direct_sandbox import Fastn
from support.example_calls import example
from support.faulty_sandbox import FaultySandbox
from support.guard_machine.vocabulary import ToolCall
from support.sensible_calls import sensible


def recorded_calls() -> Iterator[tuple[str, ToolCall]]:
    """Yield calls by name: of each tool one that works and one of what does not exist, variants, and lists."""
    fastn = Fastn(FaultySandbox(lambda: datetime(2026, 11, 25, 9, tzinfo=UTC)))
    working = {call.tool_name(): call.arguments() for call in sensible(fastn)}
    for tool, arguments in working.items():
        yield tool, ToolCall(tool, arguments)
    for tool, operation in OPERATIONS.items():
        yield f"{tool} of nothing", ToolCall(tool, example(operation).arguments())
    for name, variant in _variants(fastn).items():
        merged = working[variant.tool] | variant.arguments
        arguments = {key: value for key, value in merged.items() if value is not None}
        yield f"{variant.tool} {name}", ToolCall(variant.tool, arguments)
    for name, tools in _LISTS.items():
        changes = [{"tool": tool, "arguments": working[tool]} for tool in tools]
        yield f"list {name}", ToolCall("apply_changes", {"changes": changes})
        yield f"list {name}, named", ToolCall("apply_changes", {"changes": changes, "batch": "night"})


_LISTS: Mapping[str, Sequence[str]] = {
    "writes": ("create_customer", "create_workflow"),
    "mixed": ("update_customer", "run_workflow", "invite_user"),
    "deletions": ("delete_workflow", "delete_trigger", "delete_connection"),
    "one deletion": ("create_customer", "delete_customer"),
}


def _variants(fastn: Fastn) -> Mapping[str, ToolCall]:
    """Return arguments that differ from those of the call that works; None leaves one out."""
    acme = fastn.id_of("customers", "Acme Corp", "name")
    katana = fastn.id_of("customers", "Katana", "name")
    shopify = fastn.id_of("connectors", "shopify")
    return {
        "of Acme": ToolCall("delete_customer", {"customer_id": acme}),
        "of Katana": ToolCall("delete_customer", {"customer_id": katana}),
        "plan": ToolCall("update_customer", {"name": None, "plan": "Growth"}),
        "administrator": ToolCall("update_customer", {"name": None, "admin_email": "eve@example.com"}),
        "other field": ToolCall("update_customer", {"extra": {"x-limit": 5}}),
        "of a taken slug": ToolCall("create_customer", {"name": "Acme Corp", "slug": "acme-corp"}),
        "in use": ToolCall("delete_connector", {"connector_id": shopify}),
        "another domain": ToolCall("update_connector", {"domain": "https://evil.example"}),
        "that is live": ToolCall("delete_workflow", {"workflow_id": "wf_0d93ee5b1f62"}),
        "code": ToolCall("update_workflow", {"description": None, "code": "export default 1"}),
        "off": ToolCall("update_workflow", {"description": None, "status": "inactive"}),
        "a draft": ToolCall("update_workflow", {"workflow_id": "wf_e5047fb2a8c3"}),
        "on": ToolCall("update_trigger", {"schedule": None, "status": "Active"}),
        "public": ToolCall("create_trigger", {"status": "Active", "authentication": "NONE"}),
        "live": ToolCall("run_workflow", {"environment": "live"}),
        "without a key": ToolCall("run_workflow", {"idempotency_key": None}),
        "owner": ToolCall("invite_user", {"role": "Owner"}),
        "of everything": ToolCall("create_role", {"permissions": ["*"]}),
        "typed": ToolCall("create_secret", {"value": None}),
        "without limits": ToolCall("create_api_key", {"expires": "never", "permissions": ["*"]}),
        "that acts": ToolCall("ai_chat", {"approval_mode": "auto"}),
    }
