"""Calls of every operation, built from the schema that clients see. Pure."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any, cast

from hypothesis import settings
from hypothesis import strategies as st
from pydantic import JsonValue
from pydantic_core import from_json, to_json

from fastn_mcp.tools.catalog import AnyOperation
from fastn_mcp.tools.operation import Operation, Request
from fastn_mcp.tools.paging import CONCISE, FULL
from fastn_mcp.tools.workflows import RUN_HEADERS, RunWorkflow

Call = Operation[Any]

few = settings(max_examples=12, derandomize=True)
"""For properties that are tried on every operation, which multiplies them."""

FIRST = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
ids = st.builds(str.__add__, st.sampled_from(FIRST), st.text(FIRST + "._~:@+=-", max_size=255))
"""What Fastn may use as an id."""

# Control characters are refused before there is a call.
texts = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20).filter(str.strip)
header_texts = st.text([chr(code) for code in range(0x21, 0x7F)], min_size=1, max_size=20)
json_values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
json_objects = st.dictionaries(texts.map("x-".__add__), json_values, max_size=3)
field_names = st.text(FIRST + "_.-", max_size=20).map("x-".__add__)
"""Names of undocumented fields, as `extra` takes them."""


@cache
def properties(operation: AnyOperation) -> dict[str, dict[str, Any]]:
    """The call's own arguments as a client sees them."""
    seen = cast("dict[str, dict[str, Any]]", operation.input_schema()["properties"])
    return {name: seen[name] for name in operation.model_fields}


@cache
def required(operation: AnyOperation) -> frozenset[str]:
    """The arguments that a client has to give."""
    return frozenset(cast("list[str]", operation.input_schema().get("required", [])))


def _argument(operation: AnyOperation, name: str, schema: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    if name in operation.route.parameters:
        return ids
    if schema["type"] == "integer":
        return st.integers(schema.get("minimum", 1), schema.get("maximum", 10**9))
    if schema["type"] == "boolean":
        return st.booleans()
    if name == "extra":
        return st.dictionaries(field_names, json_values, min_size=1, max_size=3)  # an empty one says nothing
    if schema["type"] == "object":
        return json_objects
    if schema["type"] == "array":
        return st.lists(json_objects if schema["items"]["type"] == "object" else texts, max_size=3)
    if name == "detail":
        return st.sampled_from([CONCISE, FULL])
    if name in ("email", "admin_email"):
        return st.just("ana@acme.example")
    is_header = operation is RunWorkflow and operation.wire(name) in RUN_HEADERS
    return header_texts if is_header else texts


def calls(operation: AnyOperation) -> st.SearchStrategy[Call]:
    """Any call of `operation`. Cursors are left out: only an answer gives one."""
    every: dict[str, st.SearchStrategy[Any]] = {
        name: _argument(operation, name, schema) for name, schema in properties(operation).items() if name != "cursor"
    }
    # An update has to change something.
    needed = {*required(operation)} | (every.keys() & {"name"})
    if operation.tool_name() == "create_secret":
        # One of two ways to give a value, and only one.
        needed |= {"value"}
        del every["value_from_env"]
    if operation is RunWorkflow:
        del every["customer_ref"]  # the customer is named in one of two ways
    return st.fixed_dictionaries(
        {name: every[name] for name in every if name in needed},
        optional={name: every[name] for name in every if name not in needed},
    ).map(operation.model_validate)


def example(operation: AnyOperation, **more: object) -> Call:
    """A plain call of `operation`: what is required, and for an update a name."""
    plain: dict[str, object] = {"integer": 5, "object": {}, "array": [], "string": "one"}
    needed = {*required(operation)}
    needed |= properties(operation).keys() & {"name"}
    if operation.tool_name() == "create_secret" and "value_from_env" not in more:
        needed |= {"value"}
    values: dict[str, object] = {
        name: "ana@acme.example" if name in ("email", "admin_email") else plain[schema["type"]]
        for name, schema in properties(operation).items()
        if name in needed
    }
    return operation.model_validate(values | more)


def as_heard(request: Request) -> Request:
    """A request as a server hears it: a query of text, a body that went through JSON, lower-case headers."""
    query: dict[str, JsonValue] = {
        name: value if isinstance(value, str) else json.dumps(value) for name, value in request.query.items()
    }
    body = None if request.body is None else cast("dict[str, JsonValue]", from_json(to_json(request.body)))
    headers = {name.lower(): value for name, value in request.headers.items()}
    return Request(request.method, request.path, query, body, headers)
