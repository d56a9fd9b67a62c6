"""Tests of the sandbox over all operations."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.clock import Clock
from support.direct_sandbox import Fastn
from support.faulty_sandbox import FaultySandbox
from support.sensible_calls import SLACK, sensible

from fastn_mcp.extensions.sandbox.resource import ENDPOINTS, endpoint
from fastn_mcp.tools.catalog import CATALOG, OPERATIONS
from fastn_mcp.tools.triggers import ListTriggers


@pytest.mark.long
def test_document_is_valid_openapi() -> None:
    """The OpenAPI specification's own schema of 3.1."""
    from test_schemathesis import API

    API.validate()


@pytest.mark.long
def test_every_operation_gets_its_documented_answer() -> None:
    from test_schemathesis import API, CALLS, answered

    assert CALLS.keys() == OPERATIONS.keys()
    for name, call in CALLS.items():
        request = call.request()
        case = API[call.route.path][call.route.method].Case(
            path_parameters={parameter: getattr(call, parameter) for parameter in call.route.parameters},
            query=request.query,
            headers=request.headers,
            media_type="application/json",
            **({} if request.body is None else {"body": request.body}),
        )
        assert answered(case) in (200, 201, 202, 204), name


def test_every_answer_is_parsed_and_every_change_is_in_the_audit_log(fastn: Fastn) -> None:
    """Fastn's documentation: the audit log has the actor, a key as `apikey:5`."""
    for call in sensible(fastn):
        before = len(fastn.sandbox.state.all("audit"))
        answer = fastn(call)
        assert fastn.sandbox.requests[-1].tool == call.tool_name()
        if answer.status != 204:
            call.result(answer.data)
        if call.route.method != "GET":
            added = fastn.sandbox.state.all("audit")[before:]
            assert [row for row in added if row["actor"] == "apikey:5" and row["outcome"] == "Success"], call
            fastn.sandbox.reset()


def test_every_operation_has_an_endpoint() -> None:
    assert set(ENDPOINTS) == set(CATALOG)


def test_endpoint_with_an_unknown_permission_is_rejected() -> None:
    with pytest.raises(ValueError, match="list_triggers: unknown permission 'event:read'"):
        endpoint(ListTriggers, "event:read")


def test_every_operation_needs_a_key(fastn: Fastn) -> None:
    """Fastn's reference: 401 for a missing or invalid API key."""
    fastn.headers.clear()
    before = fastn.sandbox.state.serial
    for call in sensible(fastn):
        answer = fastn(call)
        assert (answer.status, answer.error["code"]) == (401, "AUTH_INVALID"), call
    assert fastn.sandbox.state.serial == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=30)
@given(data=st.data())
def test_any_body_gets_an_answer(data: st.DataObject) -> None:
    fastn = Fastn(FaultySandbox(Clock().now))
    call = data.draw(st.sampled_from([call for call in sensible(fastn) if call.route.method in ("POST", "PUT")]))
    request = call.request()
    output = fastn.ask("GET", request.path).value if request.method == "PUT" else None
    body: dict[str, Any] = {**(output["data"] if output else {}), **(request.body or {})}
    known = sorted(body) + sorted({type(call).wire(name) for name in type(call).model_fields} | {"matrix", "events"})
    changes = data.draw(st.dictionaries(st.sampled_from(known), JSON, max_size=3))

    answer = fastn.ask(request.method, request.path, body=body | changes)

    assert answer.status < 500
    assert json.loads(answer.reply.body)
    fastn.ask(
        "POST",
        f"/api/v1/workflows/{SLACK}/run",
        body={},
        headers={"x-end-org-id": fastn.id_of("customers", "acme-corp")},
    )


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(content=st.binary(max_size=40), path=st.text(max_size=30), method=st.sampled_from(["GET", "POST", "PUT"]))
def test_any_bytes_get_an_answer(fastn: Fastn, content: bytes, path: str, method: str) -> None:
    assert fastn.ask(method, f"/api/v1/{path}", body=content).status < 500
