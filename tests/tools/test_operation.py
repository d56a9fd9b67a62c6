"""What an operation is: a type that cannot be incomplete, and a value that cannot be wrong."""

from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fastn_mcp.tools.account import CreateSecret
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.connectors import CreateConnection
from fastn_mcp.tools.customers import Customer, GetCustomer, ListCustomers, UpdateCustomer
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
from fastn_mcp.tools.paging import Listed
from fastn_mcp.tools.tool import Effect, FastnObject, Tool
from fastn_mcp.tools.workflows import RunWorkflow

CANARY = "canary-3f9a\n-hunter2"


@pytest.mark.parametrize("missing", ["route", "effect", "evidence"])
def test_an_operation_that_leaves_one_of_its_facts_unsaid_cannot_be_created(missing: str) -> None:
    """Ours (DESIGN 3.1): an operation without an effect cannot exist, nor one without a route or evidence."""
    facts: dict[str, object] = {"route": GET("/x"), "effect": Effect.READ, "evidence": INFERRED("a test")}
    annotations = {"route": ClassVar[Route], "effect": ClassVar[Effect], "evidence": ClassVar[ShapeEvidence]}
    body = {name: value for name, value in facts.items() if name != missing}
    with pytest.raises(TypeError, match=f"^Half does not say its {missing}$"):
        type("Half", (Operation[FastnObject],), {**body, "__module__": __name__, "__annotations__": annotations})


def test_a_path_cannot_name_what_is_no_argument() -> None:
    """Ours: a slip in a template ends the import, not a call."""
    with pytest.raises(TypeError, match=r"^Misnamed: its path names \['nobody'\], which are not fields$"):

        class Misnamed(Operation[FastnObject]):  # pyright: ignore[reportUnusedClass]
            route = GET("/x/{thing}/{nobody}")
            effect = Effect.READ
            evidence = INFERRED("a test")

            thing: str


def test_an_operation_has_exactly_these_class_attributes() -> None:
    """Ours (DESIGN 3.1): no flag creeps in. To add one is a design decision, made in the open."""
    own = {name for name in vars(Operation).keys() | vars(Tool).keys() if not name.startswith("_")}
    assert own - {"model_config", "model_fields", "model_computed_fields"} == {
        "raises_to", "extra_effect", "clears", "effect_on", "needs_person",
        "tool_name", "title", "input_schema", "previews", "secrets", "effective", "target", "toolset", "idempotent",
        "destructive", "arguments", "made_of", "ours", "read", "shown", "unresolved", "request",
        "wire", "received", "result",
    }  # fmt: skip
    assert set(Operation.__class_vars__) == {
        "route", "effect", "evidence", "returns", "raises_to", "extra_effect", "clears",
        "_declares", "_control_characters",
    }  # fmt: skip
    assert Operation.model_fields == {}


def test_what_comes_back_is_known_from_the_declaration() -> None:
    """Ours (DESIGN 3.1): `await client.send(call)` is typed by the class."""
    assert GetCustomer.returns is Customer
    assert UpdateCustomer.returns is Customer
    assert ListCustomers.returns is Listed[Customer]
    assert issubclass(ListCustomers.returns, Listed)


def test_names_come_from_the_class() -> None:
    """Ours: the tool, its title for people and its toolset follow from where the class is and what it is called."""

    class ReadApiKeyOfHer(Operation[FastnObject]):
        route = DELETE("/x")
        effect = Effect.DESTROY
        evidence = INFERRED("a test")

    assert ReadApiKeyOfHer.tool_name() == "read_api_key_of_her"
    assert ReadApiKeyOfHer.title() == "Read API key of her"
    assert RunWorkflow.toolset() == "workflows"
    assert ReadApiKeyOfHer().target is None
    assert str(ReadApiKeyOfHer.route) == "DELETE /x"


def test_evidence_says_its_kind_and_its_source() -> None:
    """Ours (DESIGN 2): inferred, documented, or observed on a day at a host."""
    assert str(INFERRED("x")) == "inferred"
    assert DOCUMENTED("a page") == ShapeEvidence("documented", "a page")
    assert OBSERVED("2026-07-01", "live.fastn.ai").source == "2026-07-01 live.fastn.ai"


def test_effects_are_ordered_by_how_careful_we_are() -> None:
    """Ours (DESIGN 5.1): the order of the table."""
    assert [effect.name for effect in sorted(Effect, key=lambda effect: effect.rank)] == [
        "READ", "WRITE", "EXTERNAL", "SPEND", "ACCESS", "TRASH", "DESTROY",
    ]  # fmt: skip


def test_a_call_cannot_be_changed_once_it_is_validated() -> None:
    """Ours: what was approved is what is sent."""
    call = GetCustomer(customer_id="c1")
    with pytest.raises(ValidationError, match="frozen"):
        call.customer_id = "c2"


def test_the_target_is_the_id_that_the_path_names() -> None:
    """Ours: what a call acts on; a call that creates has none."""
    assert GetCustomer(customer_id="c1").target == "c1"
    assert CreateSecret(name="A", value="b").target is None


def test_secrets_are_hidden_where_a_call_is_shown() -> None:
    """Ours (THREATS T4): a secret stands in no question, log or trace."""
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
def test_a_validation_error_never_shows_the_value(operation: type[Operation[Any]], arguments: dict[str, Any]) -> None:
    """Ours (THREATS, fact 6): stock errors would print a secret into the transcript."""
    with pytest.raises(ValidationError) as caught:
        operation.model_validate(arguments)
    told = str(caught.value) + repr(caught.value.errors(include_input=False, include_url=False, include_context=False))
    assert "canary" not in told
    assert "hunter2" not in told


def test_a_route_of_the_account_replaces_the_operations_own() -> None:
    """Ours (DESIGN 4): paths are unverified, so they can be set."""
    other = Route("POST", "/api/v1/workflows/{workflow_id}/execute")
    call = RunWorkflow(workflow_id="wf:1", input={"a": 1})
    request = call.request(other)
    assert (request.method, request.path) == ("POST", "/api/v1/workflows/wf%3A1/execute")
    assert RunWorkflow.received(request, other) == call
    assert RunWorkflow.received(request) is None


def test_a_route_of_the_account_can_move_arguments_to_the_query() -> None:
    """Ours: the method decides whether arguments are a query or a body."""
    call = UpdateCustomer(customer_id="c", name="Acme")
    assert call.request(GET("/c/{customer_id}")) == Request("GET", "/c/c", query={"name": "Acme"})
    assert call.request(POST("/c")) == Request("POST", "/c", body={"customerId": "c", "name": "Acme"})


def test_a_route_of_the_account_cannot_name_what_the_call_does_not_have() -> None:
    """Ours: a slip in the settings sends nothing."""
    with pytest.raises(RefusedValue, match=r"^nobody: not an id"):
        GetCustomer(customer_id="c").request(GET("/c/{nobody}"))


def test_a_template_that_its_own_values_do_not_fit_is_refused() -> None:
    """Ours (DESIGN 3.1): the final path is asserted against the template."""
    with pytest.raises(RefusedValue, match="the filled path does not match its template"):
        _Stricter("GET", "/c/{a}").fill({"a": "x"})


class _Stricter(Route):
    """A route that `fill` does not satisfy."""

    def match(self, path: str) -> dict[str, str] | None:
        return super().match(path + "/more")


@given(path=st.text("/abc{}?#%.", max_size=20))
def test_a_path_matches_only_with_one_segment_for_each_parameter(path: str) -> None:
    """Ours: nothing but the value of the one segment can vary."""
    found = Route("GET", "/a/{b}/c").match(path)
    assert (found is not None) == (
        path.startswith("/a/") and path.endswith("/c") and len(path) > 5 and not set(path[3:-2]) & set("/?#")
    )


def test_a_request_that_is_of_the_route_but_no_valid_call_is_told() -> None:
    """Ours: the sandbox refuses what no client of ours would send."""
    with pytest.raises(ValidationError, match="nobody"):
        ListCustomers.received(Request("GET", "/api/v1/customers", query={"nobody": "1"}))
    with pytest.raises(ValidationError, match="nothing to change"):
        UpdateCustomer.received(Request("PUT", "/api/v1/customers/c", body={}))


def test_a_null_in_a_request_is_not_an_argument_left_out() -> None:
    """Ours: a client may give null for any optional argument, and the default is sent in its place."""
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
def test_a_result_keeps_whatever_comes_back(body: Any, fields: dict[str, object]) -> None:
    """Ours (DESIGN 4): the documentation gives no schemas, so nothing is thrown away."""
    assert GetCustomer(customer_id="c").result(body).model_dump(exclude_unset=True) == fields
