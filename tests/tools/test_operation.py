"""Operations: an incomplete type and an invalid value are impossible."""

from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.access import CreateSecret
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.connectors import CreateConnection
from fastn_mcp.tools.customers import GetCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.operation import (
    DELETE,
    DOCUMENTED,
    GET,
    INFERRED,
    OBSERVED,
    POST,
    Operation,
    RefusedValue,
    Request,
    Route,
    ShapeEvidence,
)
from fastn_mcp.tools.tool import Effect
from fastn_mcp.tools.workflows import RunWorkflow

CANARY = "canary-3f9a\n-hunter2"


@pytest.mark.parametrize("missing", ["route", "effect", "evidence"])
def test_operation_without_a_required_attribute_cannot_be_defined(missing: str) -> None:
    facts: dict[str, object] = {"route": GET("/x"), "effect": Effect.READ, "evidence": INFERRED("a test")}
    annotations = {"route": ClassVar[Route], "effect": ClassVar[Effect], "evidence": ClassVar[ShapeEvidence]}
    body = {name: value for name, value in facts.items() if name != missing}
    with pytest.raises(TypeError, match=f"^Half does not say its {missing}$"):
        type("Half", (Operation[FastnObject],), {**body, "__module__": __name__, "__annotations__": annotations})


def test_path_parameter_must_be_an_argument() -> None:
    with pytest.raises(TypeError, match=r"^Misnamed: its path names \['nobody'\], which are not fields$"):

        class Misnamed(Operation[FastnObject]):  # pyright: ignore[reportUnusedClass]
            route = GET("/x/{thing}/{nobody}")
            effect = Effect.READ
            evidence = INFERRED("a test")

            thing: str


def test_names_come_from_the_class_and_its_route() -> None:
    class ReadApiKeyOfHer(Operation[FastnObject]):
        route = DELETE("/x")
        effect = Effect.DESTROY
        evidence = INFERRED("a test")

    assert ReadApiKeyOfHer.tool_name() == "read_api_key_of_her"
    assert ReadApiKeyOfHer.title() == "Read API key of her"
    assert RunWorkflow.toolset() == "workflows"
    assert ReadApiKeyOfHer().target is None
    assert str(ReadApiKeyOfHer.route) == "DELETE /x"


def test_evidence_has_a_kind_and_a_source() -> None:
    assert str(INFERRED("x")) == "inferred"
    assert DOCUMENTED("a page") == ShapeEvidence("documented", "a page")
    assert OBSERVED("2026-07-01", "live.fastn.ai").source == "2026-07-01 live.fastn.ai"


def test_effects_are_ordered_by_severity() -> None:
    assert [effect.name for effect in sorted(Effect, key=lambda effect: effect.rank)] == [
        "READ", "WRITE", "EXTERNAL", "SPEND", "ACCESS", "TRASH", "DESTROY",
    ]  # fmt: skip


def test_call_is_immutable() -> None:
    call = GetCustomer(customer_id="c1")
    with pytest.raises(ValidationError, match="frozen"):
        call.customer_id = "c2"


def test_shown_arguments_have_redacted_secrets() -> None:
    secret = CreateSecret(name="TOKEN", value=CANARY)
    credentials = CreateConnection(connector_id="hubspot", credentials={"token": CANARY})
    assert secret.shown() == {"name": "TOKEN", "value": "[hidden-by-fastn-mcp]"}
    assert credentials.shown() == {"connector_id": "hubspot", "credentials": "[hidden-by-fastn-mcp]"}
    for call in (secret, credentials):
        assert "canary" not in repr(call) + str(call)
    assert secret.arguments()["value"] == CANARY
    assert secret.request().body == {"name": "TOKEN", "value": CANARY}


@pytest.mark.parametrize(
    ("operation", "arguments"),
    [
        (CreateSecret, {"value": CANARY}),
        (CreateSecret, {"name": "A", "value": {"text": CANARY}}),
        (CreateSecret, {"name": CANARY * 20, "value": CANARY}),
        (CreateSecret, {"name": "A", "value": "x", "extra": CANARY}),
        (CreateSecret, {"name": "A", "value": "x", "nobody": CANARY}),
        (CreateConnection, {"connector_id": "c", "credentials": CANARY}),
        (CreateConnection, {"connector_id": "c", "credentials": [CANARY]}),
        (CreateConnection, {"connector_id": "c", "credentials": {"token": [CANARY, float("nan")]}}),
        (ListCustomers, {"cursor": CANARY}),
        (RunWorkflow, {"workflow_id": "w", "idempotency_key": CANARY}),
    ],
)
def test_validation_error_omits_the_value(operation: type[Operation[Any]], arguments: dict[str, Any]) -> None:
    """Pydantic's own errors would print a secret into the transcript."""
    with pytest.raises(ValidationError) as caught:
        operation.model_validate(arguments)
    shown = str(caught.value) + repr(caught.value.errors(include_input=False, include_url=False, include_context=False))
    assert "canary" not in shown
    assert "hunter2" not in shown


def test_account_route_replaces_the_operations_own() -> None:
    other = Route("POST", "/api/v1/workflows/{workflow_id}/execute")
    call = RunWorkflow(workflow_id="wf:1", input={"a": 1})
    request = call.request(other)
    assert (request.method, request.path) == ("POST", "/api/v1/workflows/wf%3A1/execute")
    assert RunWorkflow.received(request, other) == call
    assert RunWorkflow.received(request) is None


def test_account_route_can_move_arguments_to_the_query() -> None:
    call = UpdateCustomer(customer_id="c", name="Acme")
    assert call.request(GET("/c/{customer_id}")) == Request("GET", "/c/c", query={"name": "Acme"})
    assert call.request(POST("/c")) == Request("POST", "/c", body={"customerId": "c", "name": "Acme"})


def test_account_route_with_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(
        RefusedValue, match=r"^nobody: takes an id, and this value cannot be one; find returns the id of a name$"
    ):
        GetCustomer(customer_id="c").request(GET("/c/{nobody}"))


def test_filled_path_that_does_not_match_its_template_is_refused() -> None:
    with pytest.raises(RefusedValue, match="the filled path does not match its template"):
        _Stricter("GET", "/c/{a}").fill({"a": "x"})


class _Stricter(Route):
    """A route whose own filled path does not match."""

    def match(self, path: str) -> dict[str, str] | None:
        return super().match(path + "/more")


@given(path=st.text("/abc{}?#%.", max_size=20))
def test_path_matches_with_one_segment_per_parameter(path: str) -> None:
    found = Route("GET", "/a/{b}/c").match(path)
    assert (found is not None) == (
        path.startswith("/a/") and path.endswith("/c") and len(path) > 5 and not set(path[3:-2]) & set("/?#")
    )


def test_received_invalid_request_is_an_error() -> None:
    """The sandbox rejects a request that our client would not send."""
    with pytest.raises(ValidationError, match="nobody"):
        ListCustomers.received(Request("GET", "/api/v1/customers", query={"nobody": "1"}))
    with pytest.raises(ValidationError, match="no field to change"):
        UpdateCustomer.received(Request("PUT", "/api/v1/customers/c", body={}))


def test_null_in_a_request_is_a_value() -> None:
    """From a client, a null stands for an omitted argument, and the default is sent instead."""
    call = AiChat.model_validate({"message": "hello there", "approval_mode": None})
    assert call.request().body == {"message": "hello there", "approvalMode": "manual"}
    with pytest.raises(ValidationError, match="approval_mode"):
        AiChat.received(Request("POST", "/api/v1/ai/chat", body={"message": "hello there", "approvalMode": None}))


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"id": 7, "name": "Acme", "unknown": [1]}, {"id": 7, "name": "Acme", "unknown": [1]}),
        (None, {}),
        ("text", {"value": "text"}),
        ([1, 2], {"value": [1, 2]}),
        (10**30, {"value": 10**30}),
    ],
)
def test_result_keeps_unknown_fields(body: Any, fields: dict[str, object]) -> None:
    """The documentation has no schemas, so nothing is dropped."""
    assert GetCustomer(customer_id="c").result(body).model_dump(exclude_unset=True) == fields
