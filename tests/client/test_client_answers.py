"""What is made of an answer: envelopes, strict JSON, errors in every shape, merged updates, hidden keys."""

from typing import Any

import pytest
from fake_fastn import KEY, Fastn, client, says
from pydantic_core import to_json

from fastn_mcp.client.client import secrets_of
from fastn_mcp.client.http import Answer, unwrap
from fastn_mcp.errors import FastnError
from fastn_mcp.redaction import Redactor
from fastn_mcp.tools.account import CreateSecret
from fastn_mcp.tools.connectors import CreateConnection, DeleteConnection, ListConnections
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, GetCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.operation import POST, Operation, Request
from fastn_mcp.tools.triggers import UpdateTrigger
from fastn_mcp.tools.workflows import GetExecution, RunWorkflow, UpdateWorkflow

pytestmark = pytest.mark.anyio

READ = GetCustomer(customer_id="acme")
ACME: dict[str, Any] = {"id": "acme", "name": "Acme", "later": {"data": [1]}}
ROWS = [{"id": "a"}, {"id": "b"}]


@pytest.mark.parametrize(
    "body",
    [
        ACME,
        {"data": ACME},
        {"data": {"data": ACME}},
        {"data": {"data": {"data": ACME}}},
        {"result": ACME, "success": True},
        {"results": ACME},
        {"item": ACME},
        {"success": True, "data": {"item": ACME}, "requestId": "r"},
    ],
)
async def test_a_resource_is_found_inside_its_envelopes(body: dict[str, Any]) -> None:
    """Ours (DESIGN 4): third parties saw one, two and no envelopes."""
    assert (await client(Fastn(says(200, body))).send(READ)).model_dump() == ACME


@pytest.mark.parametrize("body", [{"id": 1, "data": {"a": 1}}, {"data": [1]}, {"name": "x"}, [{"data": {}}], "x", 7])
def test_what_is_no_envelope_stays(body: Any) -> None:
    """Ours: a resource with an id may have a field called data."""
    assert unwrap(body) == body


@pytest.mark.parametrize(
    "body",
    [
        ROWS,
        {"data": ROWS},
        {"items": ROWS},
        {"results": ROWS},
        {"customers": ROWS},
        {"data": {"items": ROWS}},
        {"data": {"data": ROWS}},
        {"success": True, "data": {"customers": ROWS, "tags": ["x"]}},
    ],
)
async def test_rows_are_found_in_every_shape_of_a_list(body: Any) -> None:
    """Ours (DESIGN 4): {data}, {items}, {results}, their nesting and bare arrays."""
    page = await client(Fastn(says(200, body))).send(ListCustomers())
    assert [row.id for row in page.items] == ["a", "b"]


@pytest.mark.parametrize("body", [None, b"  \n", {}, [], {"data": []}, {"items": []}])
async def test_nothing_is_an_empty_page(body: Any) -> None:
    """Ours: an empty body is no error."""
    page = await client(Fastn(says(200, body))).send(ListCustomers())
    assert (page.items, page.next_cursor, page.total) == ([], None, None)


@pytest.mark.parametrize("answer", [says(200), says(204), says(202, b"\n"), says(200, "null"), says(200, b"null")])
async def test_a_delete_that_answers_with_nothing_says_what_it_deleted(answer: Answer) -> None:
    """Ours: Fastn's answer to a delete is undocumented."""
    result = await client(Fastn(answer)).send(DeleteCustomer(customer_id="acme"))
    assert result.model_dump() == {"id": "acme", "deleted": True}


async def test_a_delete_that_answers_with_something_is_told() -> None:
    """Ours: what Fastn says is kept."""
    result = await client(Fastn(says(200, {"data": {"id": "x", "status": "Trash"}}))).send(
        DeleteConnection(connection_id="x")
    )
    assert result.model_dump() == {"id": "x", "status": "Trash"}


BAD_JSON = {
    "NaN": b'{"id": "a", "cost": NaN}',
    "infinity": b'{"id": "a", "cost": -Infinity}',
    "a lone surrogate": b'{"id": "a", "name": "\\ud800"}',
    "no UTF-8": b'{"id": "a", "name": "\xff"}',
    "201 levels": b'{"a":' * 201 + b"1" + b"}" * 201,
    "endless nesting": b"[" * 100_000,
    "half of it": b'{"id": "a", "name"',
    "a page": b"<!doctype html><p>sign in",
    "two values": b'{"id": "a"} {"id": "b"}',
    "too many digits": b'{"id": "a", "count": ' + b"9" * 5_000 + b"}",
}


@pytest.mark.parametrize("body", BAD_JSON.values(), ids=BAD_JSON)
async def test_a_body_that_is_no_strict_json_fails_a_read_and_leaves_a_write_applied(body: bytes) -> None:
    """Ours (THREATS R12): strict JSON; a write that was done and not understood is not to be repeated."""
    fastn = Fastn(says(200, body))
    with pytest.raises(FastnError) as caught:
        await client(fastn).send(READ)
    assert (caught.value.outcome, caught.value.known) == ("failed", "Nothing was changed.")
    with pytest.raises(FastnError) as caught:
        await client(fastn).send(CreateCustomer(name="Acme"))
    assert (caught.value.outcome, caught.value.known) == ("applied_unreadable", "It was done. Do not repeat it.")
    assert caught.value.facts == {"settle": {"tool": "list_customers", "arguments": {}}}
    assert len(fastn.requests) == 2


async def test_fields_of_another_shape_are_taken_as_they_are() -> None:
    """Ours (DESIGN 1): nothing breaks where Fastn's answers differ; one odd row spoils no page."""
    fastn = Fastn(says(200, b'{"id": ["no", "id"], "name": 5}'))
    assert (await client(fastn).send(READ)).model_dump(exclude_unset=True) == {"id": ["no", "id"], "name": 5}


async def test_integers_stay_exact_and_unknown_fields_stay() -> None:
    """Ours (THREATS R12): an id of twenty digits is another id after a float."""
    body = b'{"id": 12345678901234567890, "big": 123456789012345678901234567890, "f": 0.1, "new": [null, {"x": true}]}'
    result = await client(Fastn(says(200, body))).send(READ)
    assert to_json(result.model_dump(exclude_unset=True)) == body.replace(b": ", b":").replace(b", ", b",")


SHAPES: dict[str, tuple[Any, dict[str, Any]]] = {
    "flat": ({"code": "VAL-1", "message": "no"}, {"code": "VAL-1", "message": "no"}),
    "in error": (
        {"success": False, "error": {"code": "VAL-1", "message": "no", "details": [{"field": "name"}]}},
        {"code": "VAL-1", "message": "no", "details": [{"field": "name"}]},
    ),
    "text": ({"error": "no"}, {"message": "no"}),
    "bare text": ("no", {"message": "no"}),
    "a number as code": ({"code": 4001}, {"code": "4001"}),
    "with an id": ({"message": "no", "requestId": "req_1"}, {"message": "no", "request_id": "req_1"}),
    "with a debug": (
        {"error": {"message": "no", "datasourceDebug": {"status": 401}}},
        {"message": "no", "details": {"status": 401}},
    ),
    "a list": ([1], {}),
    "nothing": (None, {}),
    "a page": (b"<html>", {}),
    "long": ({"message": "m" * 5_000}, {"message": "m" * 500}),
    "null": ({"error": None, "message": None}, {}),
    "huge details": ({"details": ["x" * 90] * 5_000}, {"details": to_json(["x" * 90] * 5_000).decode()[:2_000]}),
}


@pytest.mark.parametrize(("body", "said"), SHAPES.values(), ids=SHAPES)
async def test_what_fastn_says_of_an_error_is_kept_as_data(body: Any, said: dict[str, Any]) -> None:
    """Ours (THREATS T1): its text stands in the facts, whatever their shape, and never in our sentences."""
    with pytest.raises(FastnError) as caught:
        await client(Fastn(says(422, body))).send(CreateCustomer(name="Acme"))
    assert caught.value.facts == {"fastn": {"status": 422, **said}}
    assert str(caught.value) == (
        "Fastn does not accept the values (422). Nothing was changed. See fastn.details, correct, and call again."
    )


async def test_the_id_of_a_request_comes_from_its_header() -> None:
    """Ours: it is what Fastn's support asks for."""
    with pytest.raises(FastnError) as caught:
        await client(Fastn(says(500, headers={"X-Request-Id": "req_9" * 100}))).send(CreateCustomer(name="Acme"))
    assert caught.value.facts["fastn"] == {"status": 500, "request_id": ("req_9" * 100)[:100]}


async def test_a_key_that_is_not_accepted_says_what_to_look_at() -> None:
    """Ours: the setting, the host, and the other style of sending the key."""
    for auth, other in (("header", "bearer"), ("bearer", "header")):
        with pytest.raises(FastnError) as caught:
            await client(Fastn(says(401)), auth=auth).send(READ)
        assert "FASTN_API_KEY" in caught.value.next_step
        assert "fastn.example" in caught.value.next_step
        assert f"FASTN_AUTH={other}" in caught.value.next_step


async def test_a_401_of_a_connection_is_not_about_the_key() -> None:
    """Ours (DESIGN 4)."""
    with pytest.raises(FastnError, match="the API key is fine") as caught:
        await client(Fastn(says(401, {"error": {"code": "CONN-007"}}))).send(RunWorkflow(workflow_id="wf"))
    assert "list_connections" in caught.value.next_step


@pytest.mark.parametrize(
    ("status", "message", "what", "then"),
    [
        (
            403,
            'Installation "inst_1" does not serve the requesting tenant',
            "installation does not belong",
            "customer_id",
        ),
        (403, "Requested org is outside your tenant scope", "may not act for this customer", "every customer"),
        (404, 'No active connection for connector "slack" and end-org x', "no active connection", "installation_id"),
        (403, "no", "API key is not allowed", "permission"),
    ],
)
async def test_a_run_that_is_refused_for_its_customer_says_what_is_missing(
    status: int, message: str, what: str, then: str
) -> None:
    """Third parties saw these texts; the sentences are ours, and Fastn's text stays in the facts."""
    call = RunWorkflow(workflow_id="wf", customer_id="c")
    with pytest.raises(FastnError, match=what) as caught:
        await client(Fastn(says(status, {"error": {"message": message}}))).send(call)
    assert then in caught.value.next_step
    assert caught.value.facts["fastn"] == {"status": status, "message": message}


async def test_a_customers_reference_is_not_sent_beside_the_customer_of_the_account() -> None:
    """Ours: of two customers the wrong one might count."""
    fastn = Fastn(says(200, {"executionId": "e1"}))
    sender = client(fastn, end_org_id="globex")
    with pytest.raises(FastnError, match="Nothing was sent") as caught:
        await sender.send(RunWorkflow(workflow_id="wf", customer_ref="crm-1"))
    assert "customer_id" in caught.value.next_step
    assert fastn.requests == []
    await sender.send(RunWorkflow(workflow_id="wf", customer_id="acme", installation_id="inst_1"))
    assert len(fastn.requests) == 1


async def test_code_that_throws_may_have_done_something_before() -> None:
    """Third parties: 422 where a workflow's own code throws. That nothing was changed is then not known."""
    with pytest.raises(FastnError) as caught:
        await client(Fastn(says(422, {"error": {"message": "UserCodeError: boom"}}))).send(
            RunWorkflow(workflow_id="wf")
        )
    said = caught.value.data()
    assert said["outcome"] == "failed"
    assert said["message"] == (
        "The workflow's code failed, or its input was refused (422). What it did before that stays done."
    )
    assert said["settle"] == {"tool": "list_executions", "arguments": {"workflow_id": "wf"}}
    with pytest.raises(FastnError, match="Nothing was changed"):
        await client(Fastn(says(422))).send(UpdateCustomer(customer_id="c", name="n"))


ECHOES: dict[str, Any] = {
    "a message": {"message": f"bad key {KEY}!"},
    "a code": {"code": KEY},
    "details": {"error": {"details": [{"headers": {"x-fastn-api-key": KEY, KEY: 1}}]}},
    "huge details": {"details": [KEY + " " * 80] * 100},
    "a text": KEY,
    "a request id": {"requestId": KEY},
    "an escaped text": b'{"message": "' + "".join(f"\\u{ord(letter):04x}" for letter in KEY).encode() + b'"}',
}


@pytest.mark.parametrize("status", [200, 400, 401, 402, 403, 404, 409, 422, 429, 500, 503, 302, 418])
@pytest.mark.parametrize("body", ECHOES.values(), ids=ECHOES)
async def test_the_key_is_in_no_error_and_no_result_even_where_fastn_echoes_it(status: int, body: Any) -> None:
    """Ours (DESIGN 4, THREATS T4): not in the text, not in the data."""
    answer = says(status, body, {"X-Request-Id": KEY, "Retry-After": "60"})
    update_of_it = UpdateCustomer(customer_id="acme", name="A")
    calls: list[Operation[Any]] = [READ, CreateCustomer(name="Acme"), update_of_it, ListCustomers()]
    for call in calls:
        for update in ("partial", "merge"):
            try:
                shown = repr(await client(Fastn(answer), update=update).send(call))
            except FastnError as error:
                shown = f"{error} {error!r} {error.data()} {error.args}"
            assert KEY not in shown


@pytest.mark.parametrize(
    "call",
    [
        CreateSecret(name="TOKEN", value="hunter2-secret"),
        CreateConnection(connector_id="c", credentials={"auth": [{"token": "hunter2-secret"}], "n": 1}),
    ],
)
@pytest.mark.parametrize("status", [200, 422, 500])
async def test_a_secret_of_the_call_is_in_no_answer(call: Operation[Any], status: int) -> None:
    """Ours (THREATS T4): a refusal that echoes what was sent is masked; what was sent is not."""
    fastn = Fastn(says(status, {"id": "s", "message": "no: hunter2-secret", "details": {"body": ["hunter2-secret"]}}))
    try:
        shown = repr(await client(fastn).send(call))
    except FastnError as error:
        shown = f"{error} {error.data()}"
    assert "[hidden-by-fastn-mcp]" in shown
    assert "hunter2-secret" not in shown
    assert b"hunter2-secret" in to_json(fastn.requests[0].body)


def test_redactor_hides_the_longer_of_two_first_and_spares_what_is_too_short() -> None:
    """Ours: a secret may hold another, and one of three letters stands in too many texts."""
    redactor = Redactor(["abcd", "abcdef", "xyz"])
    assert redactor({"abcdef": ["abcdefabcd xyz", 7, None]}) == {
        "[hidden-by-fastn-mcp]": ["[hidden-by-fastn-mcp][hidden-by-fastn-mcp] xyz", 7, None]
    }
    assert secrets_of(CreateSecret(name="N", value="v")) == ["v"]
    assert secrets_of(CreateConnection(connector_id="c", credentials={"a": ["b", 1, {"c": "d"}]})) == ["b", "d"]
    assert secrets_of(CreateConnection(connector_id="c")) == []


# Merged updates


STORED: dict[str, Any] = {
    "id": "acme",
    "name": "Acme",
    "plan": "Free",
    "adminEmail": None,
    "unknown": {"kept": [1, 2]},
    "createdAt": "2026-01-01",
    "createdBy": "ana",
    "updatedAt": "2026-02-01",
    "updatedBy": "ana",
}


async def test_a_merged_update_sends_the_whole_with_the_change() -> None:
    """Ours (DESIGN 4): whether PUT replaces is unknown, so nothing that was not named may change."""
    fastn = Fastn(says(200, {"data": STORED}), says(200, STORED))
    await client(fastn, update="merge").send(UpdateCustomer(customer_id="acme", name="New", extra={"plan": None}))
    read, written = fastn.requests
    assert read == READ.request()
    assert (written.method, written.path, written.query) == ("PUT", "/api/v1/customers/acme", {})
    assert written.body == {"name": "New", "plan": None, "adminEmail": None, "unknown": {"kept": [1, 2]}}


async def test_a_partial_update_sends_only_what_was_given() -> None:
    """Ours (DESIGN 4): where Fastn's PUT is known to merge."""
    fastn = Fastn(says(200, STORED))
    await client(fastn, update="partial").send(UpdateCustomer(customer_id="acme", name="New"))
    assert [request.body for request in fastn.requests] == [{"name": "New"}]


async def test_what_is_sent_back_is_what_was_there_secrets_included() -> None:
    """Ours: hiding is for readers. A key that stands in a workflow's code must not be redacted there."""
    code = f"const key = '{KEY}'; // \u202e \\"
    fastn = Fastn(says(200, {"id": "wf", "name": "W", "code": code}), says(200, {"id": "wf", "code": code}))
    result = await client(fastn, update="merge").send(UpdateWorkflow(workflow_id="wf", name="New"))
    assert fastn.requests[1].body == {"name": "New", "code": code}
    assert KEY not in repr(result)


async def test_big_numbers_survive_a_merge() -> None:
    """Ours: nothing that was not named may change, not even in the last digit."""
    stored = b'{"id": "t", "quota": 123456789012345678901, "ratio": 0.1}'
    fastn = Fastn(says(200, stored), says(200, {"id": "t"}))
    await client(fastn, update="merge").send(UpdateTrigger(trigger_id="t", name="New"))
    assert to_json(fastn.requests[1].body) == b'{"quota":123456789012345678901,"ratio":0.1,"name":"New"}'


async def test_an_update_of_what_is_not_there_changes_nothing() -> None:
    """Ours: a first 404 is not_found, and nothing is written."""
    fastn = Fastn(says(404))
    with pytest.raises(FastnError, match="No customer with this id") as caught:
        await client(fastn, update="merge").send(UpdateCustomer(customer_id="nobody", name="New"))
    assert (caught.value.outcome, len(fastn.requests)) == ("not_found", 1)


@pytest.mark.parametrize("body", [None, {}, "fine", [1], 7, {"data": {}}])
async def test_an_update_that_cannot_see_what_is_there_is_not_sent(body: Any) -> None:
    """Ours (DESIGN 4): a whole made of the change alone would empty every other field."""
    fastn = Fastn(says(200, body))
    with pytest.raises(FastnError, match="could lose the rest") as caught:
        await client(fastn, update="merge").send(UpdateCustomer(customer_id="acme", name="New"))
    assert (caught.value.outcome, len(fastn.requests)) == ("not_sent", 1)


@pytest.mark.parametrize("status", [401, 403, 500, 429])
async def test_a_failure_of_the_read_before_an_update_changes_nothing(status: int) -> None:
    """Ours: the write was never sent, so its outcome is not unknown."""
    fastn = Fastn(says(status))
    with pytest.raises(FastnError) as caught:
        await client(fastn, update="merge").send(UpdateCustomer(customer_id="acme", name="New"))
    assert caught.value.known == "Nothing was changed."
    assert {request.method for request in fastn.requests} == {"GET"}


# What never leaves


async def test_a_hostile_id_sends_nothing() -> None:
    """Ours (THREATS T6): refused by the name of the argument, before a request exists."""
    fastn = Fastn(says(200, ACME))
    with pytest.raises(FastnError) as caught:
        await client(fastn).send(DeleteCustomer(customer_id="../api-keys/k1"))
    assert (caught.value.outcome, caught.value.known, fastn.requests) == ("not_sent", "Nothing was sent.", [])
    assert "customer_id" in str(caught.value)
    assert "api-keys" not in str(caught.value.data())


async def test_a_route_of_the_account_is_used_for_its_tool_only() -> None:
    """Ours (DESIGN 4): paths are unverified, so they can be set."""
    routes = {"run_workflow": POST("/api/v1/workflows/{workflow_id}/execute")}
    fastn = Fastn(says(200, {"id": "x"}))
    sender = client(fastn, routes=routes)
    await sender.send(RunWorkflow(workflow_id="wf"))
    await sender.send(READ)
    assert [request.path for request in fastn.requests] == ["/api/v1/workflows/wf/execute", "/api/v1/customers/acme"]


async def test_a_delete_that_is_a_post_here_is_not_repeated() -> None:
    """Ours: retries go by the method that is sent."""
    fastn = Fastn(says(500))
    with pytest.raises(FastnError, match="may or may not"):
        await client(fastn, routes={"delete_customer": POST("/c/{customer_id}/delete")}).send(
            DeleteCustomer(customer_id="acme")
        )
    assert fastn.requests == [Request("POST", "/c/acme/delete", body={})]


@pytest.mark.parametrize(
    ("call", "message", "next_step"),
    [
        (GetCustomer(customer_id="acme"), "No customer with this id", "find or list_customers"),
        (GetExecution(execution_id="exec_1"), "No execution with this id", "Find it with list_executions"),
        (ListCustomers(), "Fastn at https://fastn.example has no path /api/v1/customers", "fastn-mcp doctor"),
        (ListConnections(customer_id="acme"), "nothing with one of these ids, or no path", "Check the ids"),
    ],
)
async def test_404_names_the_id_or_else_the_path(call: Operation[Any], message: str, next_step: str) -> None:
    """Ours: without an id in the call, it is the base URL or the path that is wrong, and no id to look for."""
    with pytest.raises(FastnError) as caught:
        await client(Fastn(says(404))).send(call)
    assert message in caught.value.what
    assert next_step in caught.value.next_step
    assert caught.value.outcome == "not_found"
