"""The operations of the Fastn API as an OpenAPI 3.1 document, for other tools: `openapi_document.py [BASE_URL]`.

Paths and arguments come from `CATALOG`, and each operation says how it is known. Arguments that Fastn never receives
(`dry_run`, `value_from_env`, filters that are applied here) are left out. Descriptions are those of Fastn's API
reference,
word for word, which describes no arguments. `make openapi` writes the document to `dist/`.
"""

import json
import sys
from collections.abc import Mapping
from typing import Any, cast

from fastn_mcp import __version__
from fastn_mcp.config.model import DEFAULT_BASE_URL
from fastn_mcp.tools.access import CreateSecret
from fastn_mcp.tools.catalog import CATALOG, AnyOperation
from fastn_mcp.tools.paging import APPLIED_HERE, List
from fastn_mcp.tools.tool import DRY_RUN
from fastn_mcp.tools.workflows import RUN_HEADERS, RunWorkflow

Json = dict[str, Any]

WORDS: Mapping[str, str] = {
    "list_customers": "List all customers",
    "create_customer": "Create a customer",
    "get_customer": "Get customer details",
    "update_customer": "Update a customer",
    "delete_customer": "Delete a customer",
    "list_connectors": "List connectors",
    "create_connector": "Create a connector",
    "get_connector": "Get connector details",
    "update_connector": "Update a connector",
    "delete_connector": "Delete a connector",
    "list_connections": "List connections",
    "create_connection": "Create a connection",
    "delete_connection": "Delete a connection",
    "list_workflows": "List workflows",
    "create_workflow": "Create a workflow",
    "get_workflow": "Get workflow details",
    "update_workflow": "Update a workflow",
    "delete_workflow": "Delete a workflow",
    "run_workflow": "Run a workflow",
    "list_triggers": "List triggers",
    "create_trigger": "Create a trigger",
    "get_trigger": "Get trigger details",
    "update_trigger": "Update a trigger",
    "delete_trigger": "Delete a trigger",
    "list_executions": "List executions",
    "get_execution": "Get execution details",
    "list_users": "List users",
    "invite_user": "Invite a user",
    "list_roles": "List roles",
    "create_role": "Create custom role",
    "list_api_keys": "List API keys",
    "create_api_key": "Create API key",
    "revoke_api_key": "Revoke API key",
    "list_secrets": "List secrets",
    "create_secret": "Create secret",
    "delete_secret": "Delete secret",
    "get_billing": "Get billing info",
    "get_usage": "Get usage data",
    "get_quotas": "Get quota limits",
    "query_audit_log": "Query audit log",
    "ai_chat": "Send message to AI agent",
    "ai_build": "Trigger AI build (connector or workflow)",
}
"""Descriptions of the operations in Fastn's API reference, by the name of their tool."""

_DESCRIPTION = """\
Fastn's administration API as fastn-mcp knows it. Fastn publishes no such document: `x-fastn-evidence` says for each \
operation whether it is documented, observed or inferred, and `x-fastn-effect` what it does to the world. A test key \
wants the header `X-fastn-Test-Mode: true`, and a live key must come without it.\
"""

_FASTNS_OWN: Json = {
    "offset": {"type": "integer", "minimum": 0},
    "cursor": {"type": "string"},
}
"""Where a page begins. The tools' `cursor` is ours, and wraps these."""

_STAYS = {(CreateSecret, "value_from_env"): "value"}
"""Arguments that are resolved here, and what is sent in their place."""

_COMPONENTS: Json = {
    "securitySchemes": {
        "header": {"type": "apiKey", "in": "header", "name": "x-fastn-api-key"},
        "bearer": {"type": "http", "scheme": "bearer"},
    },
    "schemas": {
        "Error": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "object",
                    "required": ["code", "message"],
                    "properties": {
                        "code": {"type": "string"},
                        "message": {"type": "string"},
                        "details": {},
                        "retryAfter": {"type": "number"},
                    },
                }
            },
        }
    },
}


def document(base_url: str) -> Json:
    """The API at `base_url`."""
    paths: Json = {}
    for operation in CATALOG:
        # In a path, a field stands by our own name.
        paths.setdefault(operation.route.path, {})[operation.route.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Fastn", "version": __version__, "description": _DESCRIPTION},
        "servers": [{"url": base_url}],
        "security": [{"header": []}, {"bearer": []}],
        "tags": [{"name": name} for name in dict.fromkeys(operation.toolset() for operation in CATALOG)],
        "paths": paths,
        "components": _COMPONENTS,
    }


def _described(operation: AnyOperation) -> Json:
    in_path = operation.route.parameters
    schema = cast(Json, _undescribed(operation.input_schema()))
    here = {name for name, field in operation.model_fields.items() if APPLIED_HERE in field.metadata}
    not_sent = {DRY_RUN, *in_path, *operation.ours(), *here}
    shapes: Json = {name: shape for name, shape in schema["properties"].items() if name not in not_sent}
    extra = shapes.pop("extra", None)
    required: set[str] = {operation.wire(name) for name in schema.get("required", []) if name in shapes}
    for (owner, name), sent in _STAYS.items():
        if operation is owner:
            del shapes[name]
            required.add(sent)
    others: Json = {operation.wire(name): shape for name, shape in shapes.items()}
    described: Json = {
        "operationId": operation.tool_name(),
        "description": WORDS[operation.tool_name()],
        "tags": [operation.toolset()],
        "x-fastn-effect": operation.effect.value,
        "x-fastn-evidence": {"kind": operation.evidence.kind, "source": operation.evidence.source},
    }
    parameters = [_parameter("path", name, schema["properties"][name], required=True) for name in in_path]
    if operation is RunWorkflow:
        parameters += [_parameter("header", name, others.pop(wire)) for wire, name in RUN_HEADERS.items()]
    if operation.route.method in ("GET", "DELETE"):
        if issubclass(operation, List):
            others |= _FASTNS_OWN
        parameters += [_parameter("query", name, shape, required=name in required) for name, shape in others.items()]
    else:
        fields = {name: shape if name in required else _clearable(shape) for name, shape in others.items()}
        body: Json = {"type": "object", "properties": fields, "additionalProperties": extra is not None}
        if required:
            body["required"] = sorted(required)
        described["requestBody"] = {"required": bool(required), **_json(body)}
    if parameters:
        described["parameters"] = parameters
    return described | {"responses": _responses(operation.route.method)}


def _undescribed(schema: object) -> object:
    """Return a JSON Schema without descriptions: Fastn documents none."""
    match schema:
        case dict():
            items = cast(Json, schema).items()
            return {
                name: _undescribed(item) for name, item in items if name != "description" or not isinstance(item, str)
            }
        case list():
            return [_undescribed(item) for item in cast("list[object]", schema)]
        case _:
            return schema


def _parameter(place: str, name: str, schema: Json, *, required: bool = False) -> Json:
    return {"name": name, "in": place, "required": required, "schema": schema}


def _clearable(shape: Json) -> Json:
    """What has a default of its own is left out to keep it; all else can be null."""
    return shape if "default" in shape else {**shape, "type": [shape["type"], "null"]}


def _responses(method: str) -> Json:
    error = _json({"$ref": "#/components/schemas/Error"})
    responses: Json = {"2XX": {"description": "OK", **_json({})}}
    if method == "DELETE":
        responses["204"] = {"description": "No Content"}
    return responses | {"4XX": {"description": "Error", **error}, "5XX": {"description": "Error", **error}}


def _json(schema: Json) -> Json:
    return {"content": {"application/json": {"schema": schema}}}


if __name__ == "__main__":
    base_url = sys.argv[1] if len(sys.argv) > 1 else DEFAULT_BASE_URL
    sys.stdout.write(json.dumps(document(base_url), indent=2, ensure_ascii=False) + "\n")
