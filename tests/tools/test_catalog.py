"""Promises about all tools: one loop over the catalog for each promise."""

import re
from collections.abc import Iterator
from typing import Any, cast

from mcp.types import ToolAnnotations
from pydantic_core import to_json
from support.tokens import tokens

from fastn_mcp.procedures.catalog import ALL_TOOLS, PROCEDURES
from fastn_mcp.procedures.query.query import Query
from fastn_mcp.server.tool_list import ALWAYS_LOADED, tool
from fastn_mcp.tools.catalog import CATALOG, OPERATIONS, AnyOperation
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect

# Transcribed from the API reference; parameters such as `:cid` have our names.
REFERENCE = """
list_customers      GET    /api/v1/customers
get_customer        GET    /api/v1/customers/{customer_id}
create_customer     POST   /api/v1/customers
update_customer     PUT    /api/v1/customers/{customer_id}
delete_customer     DELETE /api/v1/customers/{customer_id}
list_connectors     GET    /api/v1/connectors
get_connector       GET    /api/v1/connectors/{connector_id}
create_connector    POST   /api/v1/connectors
update_connector    PUT    /api/v1/connectors/{connector_id}
delete_connector    DELETE /api/v1/connectors/{connector_id}
list_connections    GET    /api/v1/connections
create_connection   POST   /api/v1/connections
delete_connection   DELETE /api/v1/connections/{connection_id}
list_workflows      GET    /api/v1/workflows
get_workflow        GET    /api/v1/workflows/{workflow_id}
create_workflow     POST   /api/v1/workflows
update_workflow     PUT    /api/v1/workflows/{workflow_id}
delete_workflow     DELETE /api/v1/workflows/{workflow_id}
run_workflow        POST   /api/v1/workflows/{workflow_id}/run
list_triggers       GET    /api/v1/triggers
get_trigger         GET    /api/v1/triggers/{trigger_id}
create_trigger      POST   /api/v1/triggers
update_trigger      PUT    /api/v1/triggers/{trigger_id}
delete_trigger      DELETE /api/v1/triggers/{trigger_id}
list_executions     GET    /api/v1/executions
get_execution       GET    /api/v1/executions/{execution_id}
list_users          GET    /api/v1/users
invite_user         POST   /api/v1/users/invite
list_roles          GET    /api/v1/roles
create_role         POST   /api/v1/roles
list_api_keys       GET    /api/v1/api-keys
create_api_key      POST   /api/v1/api-keys
revoke_api_key      DELETE /api/v1/api-keys/{api_key_id}
list_secrets        GET    /api/v1/secrets
create_secret       POST   /api/v1/secrets
delete_secret       DELETE /api/v1/secrets/{secret_id}
get_billing         GET    /api/v1/billing
get_usage           GET    /api/v1/billing/usage
get_quotas          GET    /api/v1/billing/quotas
query_audit_log     GET    /api/v1/audit
ai_chat             POST   /api/v1/ai/chat
ai_build            POST   /api/v1/ai/build
"""

EFFECTS = {
    Effect.WRITE: "create_customer update_customer create_connector update_connector create_workflow update_workflow "
    "create_trigger update_trigger",
    Effect.EXTERNAL: "create_connection run_workflow",
    Effect.SPEND: "ai_chat ai_build",
    Effect.ACCESS: "invite_user create_role create_api_key create_secret",
    Effect.TRASH: "delete_workflow",
    Effect.DESTROY: "delete_customer delete_connector delete_connection delete_trigger revoke_api_key delete_secret",
}


def test_catalog_is_the_reference_in_the_agreed_order() -> None:
    """Fastn's reference: each of its operations, by method and path."""
    ours = [[op.tool_name(), op.route.method, op.route.path] for op in CATALOG]
    assert ours == [line.split() for line in REFERENCE.strip().splitlines()]


def test_catalog_holds_every_operation_class() -> None:

    def below(kind: AnyOperation) -> Iterator[AnyOperation]:
        for sub in kind.__subclasses__():
            yield sub
            yield from below(sub)

    declared = {
        kind for kind in below(Operation) if kind.__module__.startswith("fastn_mcp.tools.") and "route" in vars(kind)
    }
    assert declared == set(CATALOG)
    assert list(OPERATIONS.values()) == list(CATALOG)


def test_effects_are_those_of_the_table() -> None:
    named = {name: effect for effect, names in EFFECTS.items() for name in names.split()}
    assert {op.tool_name(): op.effect for op in CATALOG} == {
        op.tool_name(): named.get(op.tool_name(), Effect.READ) for op in CATALOG
    }


def test_tool_name_and_description_are_bounded() -> None:
    for offer in ALL_TOOLS:
        shown = tool(offer)
        assert re.fullmatch(r"[a-z]+(_[a-z]+)+|find|query|diagnose", shown.name)
        assert len(shown.name) <= 30
        assert shown.title
        assert shown.title[0].isupper()
        assert "_" not in shown.title
        assert shown.description
        assert len(shown.description) <= (2_000 if offer is Query else 600)  # with the columns of its tables
        assert shown.description == shown.description.strip()
        assert shown.description.endswith((".", "?"))


INFERRED = """
get_customer update_customer get_connector create_connector update_connector get_trigger create_trigger update_trigger
create_role get_billing get_usage get_quotas ai_chat ai_build
"""


def test_undocumented_operations_are_marked_inferred() -> None:
    """docs/contributing/evidence.md: none was observed by us; what only we describe is inferred."""
    inferred = set(INFERRED.split())
    kinds = {o.tool_name(): o.evidence.kind for o in CATALOG}
    assert kinds == {name: "inferred" if name in inferred else "documented" for name in kinds}
    assert all(operation.evidence.source for operation in CATALOG)


def _schemas(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for inner in cast("dict[str, dict[str, Any]]", schema.get("properties", {})).values():
        yield from _schemas(inner)
    if "items" in schema:
        yield from _schemas(schema["items"])


def test_schemas_use_the_portable_subset() -> None:
    for offer in ALL_TOOLS:
        whole = offer.input_schema()
        assert whole["type"] == "object"
        assert whole["additionalProperties"] is False
        assert set(whole) <= {"type", "properties", "required", "additionalProperties"}
        assert set(whole.get("required", [])) <= whole["properties"].keys()
        for schema in _schemas(whole):
            assert schema.keys().isdisjoint({"$ref", "$defs", "anyOf", "oneOf", "allOf", "title", "nullable", "const"})
            assert isinstance(schema["type"], str)
            assert schema["type"] != "array" or schema["items"]["type"] in ("string", "object")
        names = [field for field in offer.model_fields if offer.model_fields[field].is_required()]
        assert sorted(whole.get("required", [])) == sorted(names)


def test_argument_descriptions_state_limits_and_defaults() -> None:
    for offer in ALL_TOOLS:
        for name, schema in offer.input_schema()["properties"].items():
            assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name)
            description = schema["description"]
            assert description.endswith("."), name
            for limit in ("minimum", "maximum", "maxLength", "maxItems", "exclusiveMinimum"):
                if limit in schema:
                    assert re.search(rf"(?<!\d){schema[limit]}(?!\d)", description), f"{name} does not say its {limit}"
            if "default" in schema:
                assert re.search(rf"{schema['default']} \(default\)|default {schema['default']}\b", description), name


def test_no_argument_lets_a_model_approve_itself() -> None:
    for offer in ALL_TOOLS:
        names = offer.input_schema()["properties"].keys()
        assert names.isdisjoint({"confirm", "confirmed", "force", "approved", "approve", "yes", "token", "grant"})
        assert names.isdisjoint({"api_key", "base_url", "tenant", "tenant_id", "profile", "headers", "url"})


def test_ids_are_named_after_their_resource() -> None:
    for operation in CATALOG:
        resources = {
            f"{found[0].replace('-', '_')}_id" for found in re.findall(r"/([a-z-]+)s/(\{)", operation.route.path)
        }
        assert set(operation.route.parameters) == resources


def test_procedures_are_listed_first_and_names_are_unique() -> None:
    """They answer most questions, and a model reads from the top."""
    assert (*PROCEDURES, *CATALOG) == ALL_TOOLS
    assert len({offer.tool_name() for offer in ALL_TOOLS}) == len(ALL_TOOLS)


def test_all_four_hints_agree_with_the_operation() -> None:
    """MCP: the four hints; that they agree is ours."""
    for operation in CATALOG:
        hints = tool(operation).annotations
        assert isinstance(hints, ToolAnnotations)
        four = (hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint)
        assert all(isinstance(hint, bool) for hint in four)
        assert hints.read_only_hint == (operation.effect is Effect.READ)
        assert not (hints.read_only_hint and hints.destructive_hint)
        assert hints.idempotent_hint == (operation.route.method in ("GET", "PUT", "DELETE"))
        assert hints.open_world_hint is True
        if operation.effect in (Effect.EXTERNAL, Effect.SPEND, Effect.ACCESS, Effect.TRASH, Effect.DESTROY):
            assert hints.destructive_hint
        assert hints.title == operation.title()


def test_clients_prompt_only_if_nothing_else_reaches_a_person() -> None:
    for offer in ALL_TOOLS:
        hint = "anthropic/requiresUserInteraction"
        asks = offer.effect in (Effect.ACCESS, Effect.TRASH, Effect.DESTROY)
        assert ((tool(offer, needs_prompt=True).meta or {}).get(hint) is True) == asks
        assert hint not in (tool(offer).meta or {})


def test_tools_that_begin_work_are_always_loaded() -> None:
    """A client that loads tools on demand knows these from the start."""
    loaded = {offer.tool_name() for offer in ALL_TOOLS if "anthropic/alwaysLoad" in (tool(offer).meta or {})}
    assert loaded == ALWAYS_LOADED


def test_tool_list_costs_at_most_6200_tokens() -> None:
    """Every conversation pays for the JSON of names, descriptions and schemas."""
    read = {"name", "description", "input_schema"}
    listed = [tool(offer).model_dump(by_alias=True, include=read) for offer in ALL_TOOLS]
    costs = {shown["name"]: tokens(to_json(shown).decode()) for shown in listed}
    excess = sum(costs.values()) - 6_200
    dearest = ", ".join(f"{name} {cost}" for name, cost in sorted(costs.items(), key=lambda item: -item[1]))
    assert excess <= 0, f"{excess} tokens too many: {dearest}"


def test_listed_schema_omits_only_described_limits() -> None:
    """An omitted limit or default of a listed argument is still checked."""
    for offer in ALL_TOOLS:
        whole, listed = offer.input_schema(), tool(offer).input_schema
        limits = {"default", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "pattern"}
        assert whole | {"properties": None} == listed | {"properties": None}
        assert whole["properties"].keys() - listed["properties"].keys() == offer.unlisted()
        for name in listed["properties"]:
            facts = whole["properties"][name]
            assert listed["properties"][name] == {key: fact for key, fact in facts.items() if key not in limits}
