"""Exceptions of single operations. Their effects are in `test_effects_of_fields.py`."""

from typing import Any

import pytest
from pydantic import JsonValue

from fastn_mcp.tools.connectors import CreateConnection, ListConnections
from fastn_mcp.tools.customers import CreateCustomer, UpdateCustomer
from fastn_mcp.tools.operation import Operation, RefusedValue
from fastn_mcp.tools.workflows import RunWorkflow


def test_run_sends_its_input_in_the_body_and_the_rest_in_headers() -> None:
    """Fastn's documentation of runs: customer, environment and idempotency key are headers."""
    call = RunWorkflow(
        workflow_id="wf", input={"a": 1}, customer_id="acme", environment="live", idempotency_key="night-7"
    )
    request = call.request()
    assert (request.method, request.path, request.query) == ("POST", "/api/v1/workflows/wf/run", {})
    assert request.body == {"input": {"a": 1}}
    assert request.headers == {"x-end-org-id": "acme", "x-fastn-env": "live", "Idempotency-Key": "night-7"}
    installed = RunWorkflow(workflow_id="wf", customer_ref="crm-1", installation_id="inst_1")
    assert installed.request().headers == {"x-end-org-ref": "crm-1", "x-installation-id": "inst_1"}
    assert RunWorkflow(workflow_id="wf", wait_seconds=5).arguments() == {"workflow_id": "wf"}  # what is approved


def test_run_names_its_customer_once() -> None:
    with pytest.raises(ValueError, match="give one of them"):
        RunWorkflow(workflow_id="wf", customer_id="acme", customer_ref="crm-1")


RETURNED = {"status": "failed", "id": 7}


@pytest.mark.parametrize(
    ("headers", "body", "read"),
    [
        ({"x-execution-id": "e1"}, RETURNED, {"executionId": "e1", "status": "completed", "output": RETURNED}),
        (
            {"x-execution-id": "e1", "x-execution-status": "failed"},
            [1],
            {"executionId": "e1", "status": "failed", "output": [1]},
        ),
        (
            {"x-execution-id": "e1"},
            {"executionId": "e1", "status": "queued"},
            {"executionId": "e1", "status": "queued"},
        ),
        ({}, RETURNED, RETURNED),
    ],
)
def test_output_of_an_instant_workflow_is_not_taken_for_the_run(
    headers: dict[str, str], body: JsonValue, read: JsonValue
) -> None:
    """Third parties: an instant run answers {data: <return>}, and names the run in X-Execution headers."""
    assert RunWorkflow(workflow_id="wf").read(body, headers) == read


@pytest.mark.parametrize("name", ["customer_id", "customer_ref", "installation_id", "environment", "idempotency_key"])
def test_header_argument_cannot_start_another_header(name: str) -> None:
    for text in ("a\nX-Evil: 1", "a b", "ä", "a\r", "a\x00", "", "a\n", "x" * 257):
        with pytest.raises(ValueError, match=name):
            RunWorkflow.model_validate({"workflow_id": "wf", name: text}).request()


def test_connections_name_their_customer_as_fastn_does() -> None:
    """Fastn's: third parties saw `endOrgId`."""
    assert ListConnections(customer_id="acme").request().query == {"limit": 20, "endOrgId": "acme"}
    body = CreateConnection(connector_id="hubspot", customer_id="acme").request().body
    assert body == {"connectorId": "hubspot", "endOrgId": "acme"}


@pytest.mark.parametrize("taken", ["name", "adminEmail", "externalRef", "customerId", "extra"])
def test_extra_cannot_override_a_named_argument(taken: str) -> None:
    """The argument that a person was shown is the one that is sent."""
    with pytest.raises(RefusedValue, match=f"^extra: {taken} has an argument of its own"):
        UpdateCustomer(customer_id="c", name="Acme", extra={taken: "Evil"}).request()


@pytest.mark.parametrize(
    ("call", "body"),
    [
        (CreateCustomer(name="Acme", extra={"tier": {"level": 3}}), {"name": "Acme", "tier": {"level": 3}}),
        (UpdateCustomer(customer_id="c", extra={"plan": None}), {"plan": None}),
        (UpdateCustomer(customer_id="c", plan="Free", extra={"plan": None}), {"plan": "Free"}),
        (UpdateCustomer(customer_id="c", name="Acme", plan=None), {"name": "Acme"}),
    ],
    ids=["merged", "null clears", "named argument wins", "null argument is omitted"],
)
def test_extra_is_merged_into_the_body(call: Operation[Any], body: JsonValue) -> None:
    """Models send null for arguments that they omit, so only `extra` can express that a field is to be cleared."""
    assert call.request().body == body
