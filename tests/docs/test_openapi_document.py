"""The OpenAPI document: the operations as other tools read them."""

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from openapi_document import WORDS, document

from fastn_mcp.tools.catalog import CATALOG, OPERATIONS
from fastn_mcp.tools.paging import APPLIED_HERE
from fastn_mcp.tools.workflows import RUN_HEADERS

DOCUMENT = document("https://fastn.example")


def described(name: str) -> dict[str, Any]:
    route = OPERATIONS[name].route
    return DOCUMENT["paths"][route.path][route.method.lower()]


def body(name: str) -> dict[str, Any]:
    return described(name)["requestBody"]["content"]["application/json"]["schema"]


def parameters(name: str, place: str) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in described(name).get("parameters", []) if one["in"] == place}


def test_document_has_exactly_the_operations_of_the_catalog() -> None:
    there = {
        (method.upper(), path, one["operationId"])
        for path, methods in DOCUMENT["paths"].items()
        for method, one in methods.items()
    }
    assert there == {(o.route.method, o.route.path, o.tool_name()) for o in CATALOG}
    assert DOCUMENT["openapi"] == "3.1.0"
    assert DOCUMENT["servers"] == [{"url": "https://fastn.example"}]


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation_has_its_description_effect_and_evidence(name: str) -> None:
    """An inferred shape is not passed off as a documented one, and no word of ours as one of Fastn's reference."""
    operation, one = OPERATIONS[name], described(name)
    assert one["description"] == WORDS[name]
    assert re.findall(r'"(?:description|summary|title)": "(.*?)"', json.dumps(one)) == [
        WORDS[name],
        *(response["description"] for response in one["responses"].values()),
    ]
    assert one["x-fastn-effect"] == operation.effect.value
    assert one["x-fastn-evidence"] == {"kind": operation.evidence.kind, "source": operation.evidence.source}
    assert {tag["name"] for tag in DOCUMENT["tags"]} >= set(one["tags"])
    assert set(one["responses"]) - {"204"} == {"2XX", "4XX", "5XX"}


@pytest.mark.parametrize("name", OPERATIONS)
def test_arguments_have_fastns_names_without_those_that_stay_here(name: str) -> None:
    operation = OPERATIONS[name]
    route = operation.route
    assert tuple(parameters(name, "path")) == route.parameters
    assert all(one["required"] for one in parameters(name, "path").values())
    here = {field for field, info in operation.model_fields.items() if APPLIED_HERE in info.metadata}
    fields = operation.model_fields.keys() - {*route.parameters, "extra", "value_from_env", *operation.ours(), *here}
    sent = {*parameters(name, "query"), *(RUN_HEADERS if parameters(name, "header") else ())} - {"offset"}
    if "requestBody" in described(name):
        schema = body(name)
        Draft202012Validator.check_schema(schema)
        sent |= schema["properties"].keys()
        assert (schema["additionalProperties"] is not False) == ("extra" in operation.model_fields)
    assert sent == {operation.wire(field) for field in fields}


def test_required_fields_are_required_and_others_may_be_null() -> None:
    check: Any = Draft202012Validator(body("create_trigger"))
    hook: dict[str, Any] = {"name": "Hook", "type": "webhook", "routes": []}
    assert check.is_valid(hook)
    assert check.is_valid({**hook, "schedule": None, "endOrgId": "1"})
    assert not check.is_valid({"name": "Hook", "type": "webhook"})
    assert not check.is_valid({**hook, "name": None})
    assert body("create_secret")["required"] == ["name", "value"]
    assert described("update_trigger")["requestBody"]["required"] is False


def test_run_names_customer_and_environment_in_headers() -> None:
    """Fastn's documentation: X-End-Org-Id, X-Fastn-Env and Idempotency-Key."""
    assert set(parameters("run_workflow", "header")) == set(RUN_HEADERS.values())
    assert set(body("run_workflow")["properties"]) == {"input"}


def test_list_continues_by_fastns_own_cursor() -> None:
    """The tools' cursor wraps it, and would be refused."""
    query = parameters("list_executions", "query")
    assert {"limit", "offset", "cursor", "endOrgId", "workflowId"} <= set(query)


def test_key_is_sent_in_either_header() -> None:
    """Fastn's reference: x-fastn-api-key, or Authorization: Bearer."""
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert [*schemes] == [name for one in DOCUMENT["security"] for name in one]
    assert schemes["header"]["name"] == "x-fastn-api-key"
    assert schemes["bearer"] == {"type": "http", "scheme": "bearer"}
