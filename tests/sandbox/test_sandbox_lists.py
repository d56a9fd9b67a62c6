"""Tests of lists, envelopes and error shapes."""

from typing import Any

import pytest
from support.behaviour import Behaviour, Envelope, Filtering, Paging
from support.direct_sandbox import Clock, Fastn
from support.faulty_sandbox import ErrorShape, FaultySandbox

from fastn_mcp.tools.access import ListUsers, QueryAuditLog
from fastn_mcp.tools.connectors import ListConnections, ListConnectors
from fastn_mcp.tools.operation import GET, POST, unwrap
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import GetWorkflow, ListExecutions, ListWorkflows, UpdateWorkflow

SLACK = "wf_b5880b29eb25"
EXECUTIONS = "/api/v1/executions"


def ids(answer: Any) -> list[Any]:
    return [row["id"] for row in answer.data]


def stored_count(fastn: Fastn) -> int:
    return len(fastn.sandbox.state.all("executions"))


def test_limit_and_offset_select_a_page(fastn: Fastn) -> None:
    """Third parties tried limit and offset. Nothing is documented."""
    whole = ids(fastn.ask("GET", EXECUTIONS, {"limit": "30"}))
    second = fastn.ask("GET", EXECUTIONS, {"limit": "10", "offset": "10"})

    assert ids(second) == whole[10:20]
    assert (second.value["limit"], second.value["offset"], second.value["total"]) == (10, 10, stored_count(fastn))


def test_cursors_return_every_row_once_and_newest_first(fastn: Fastn) -> None:
    """A cursor is a position after a row, so new rows do not shift it."""
    seen: list[str] = []
    there = stored_count(fastn)
    query = {"limit": "100"}
    while True:
        page = fastn.ask("GET", EXECUTIONS, query)
        seen += ids(page)
        if page.value["nextCursor"] is None:
            break
        fastn.ask("POST", f"/api/v1/workflows/{SLACK}/run", body={})
        query = {"limit": "100", "cursor": page.value["nextCursor"]}

    assert len(seen) == len(set(seen)) == there
    times = [fastn.sandbox.state.rows["executions"][key]["createdAt"] for key in seen]
    assert times == sorted(times, key=str, reverse=True)


@pytest.mark.parametrize(
    "query", [{"offset": "-1"}, {"offset": "x"}, {"limit": "0"}, {"limit": "1000"}, {"limit": "x"}]
)
def test_invalid_page_is_refused(fastn: Fastn, query: dict[str, str]) -> None:
    """Fastn's reference: 422 for a validation error, 400 for an unknown cursor."""
    assert fastn.ask("GET", EXECUTIONS, query).field == next(iter(query))
    assert fastn.ask("GET", EXECUTIONS, {"cursor": "x"}).status == 400


@pytest.mark.parametrize(
    ("paging", "around"),
    [
        (Paging.TOTAL_AND_CURSOR, {"total", "limit", "offset", "nextCursor"}),
        (Paging.TOTAL, {"total", "limit", "offset"}),
        (Paging.CURSOR, {"nextCursor"}),
        (Paging.SILENT, set[str]()),
    ],
)
def test_pagination_fields_are_configurable(fastn: Fastn, paging: Paging, around: set[str]) -> None:
    """Fastn's pagination is unknown, so a client has to support all of these."""
    fastn.sandbox.behaviour = Behaviour(paging=paging)

    answer = fastn(ListExecutions(limit=5))

    assert len(answer.data) == 5
    assert answer.value.keys() - {"data"} == around


def test_paging_and_filters_can_be_ignored(fastn: Fastn) -> None:
    fastn.sandbox.behaviour = Behaviour(paging=Paging.IGNORED, filtering=Filtering.IGNORED)

    assert len(fastn(ListExecutions(limit=5, status="failed")).data) == stored_count(fastn)


def test_filters_select_matching_rows(fastn: Fastn) -> None:
    katana, shopify = fastn.id_of("customers", "katana-customer"), fastn.id_of("connectors", "shopify")

    def found(call: Any, field: str) -> set[str]:
        return {row[field] for row in fastn(call).data}

    assert found(ListConnections(customer_id=katana), "status") == {"EXPIRED", "FAILED"}
    assert len(fastn(ListConnections(connector_id=shopify)).data) == 2
    assert found(ListConnections(status="active"), "status") == {"ACTIVE"}
    assert found(ListConnectors(search="TIKTOK"), "slug") == {"tiktokShop"}
    assert found(ListConnectors(category="crm", visibility="public"), "slug") == {"hubspot", "salesforce"}
    assert found(ListUsers(search="dana@"), "name") == {"Dana Reyes"}
    assert found(ListTriggers(type="app_event", status="active"), "subscriptionStatus") == {"ACTIVE", "FAILED"}
    assert found(ListExecutions(customer_id=katana, status="FAILED"), "workflowSlug") == {
        "sync-tiktok-orders-to-cin7-core"
    }
    assert found(QueryAuditLog(actor="agent"), "action") == {"workflow.publish"}
    assert found(ListWorkflows(search=SLACK), "id") == {SLACK}


def test_since_and_until_are_times(fastn: Fastn) -> None:
    rows = fastn(ListExecutions(since="2026-10-05T15:00:00+00:00", until="2026-10-05T17:00:00+02:00")).data
    assert rows == []

    rows = fastn(ListExecutions(since="2026-10-05T15:00:00", until="2026-10-05T15:00:01Z")).data
    assert {row["status"] for row in rows} == {"failed", "completed"}

    assert fastn(ListExecutions(since="yesterday")).field == "since"


def test_list_rows_omit_long_fields(fastn: Fastn) -> None:
    assert "code" not in fastn(ListWorkflows()).data[0]
    assert "output" not in fastn(ListExecutions()).data[0]
    assert "code" in fastn(GetWorkflow(workflow_id=SLACK)).data


@pytest.mark.parametrize("envelope", Envelope)
def test_every_envelope_can_be_unwrapped(clock: Clock, envelope: Envelope) -> None:
    """Third parties saw {data}, {data: {data}} and bare answers."""
    fastn = Fastn(FaultySandbox(clock, behaviour=Behaviour(envelope=envelope)))

    one = unwrap(fastn(GetWorkflow(workflow_id=SLACK)).value)
    listing = ListWorkflows(limit=2)
    page = listing.result(unwrap(fastn(listing).value))

    assert isinstance(one, dict)
    assert one["id"] == SLACK
    assert len(page.items) == 2
    assert page.total == (None if envelope is Envelope.BARE else 9)


def test_envelopes_look_as_they_were_seen(fastn: Fastn) -> None:
    """Third parties and Fastn's reference."""
    seen: dict[Envelope, Any] = {}
    for envelope in Envelope:
        fastn.sandbox.behaviour = Behaviour(envelope=envelope, paging=Paging.SILENT)
        seen[envelope] = (
            first_key(fastn(ListWorkflows()).value),
            first_key(fastn(GetWorkflow(workflow_id=SLACK)).value),
        )

    assert seen == {
        Envelope.DATA: ("data", "data"),
        Envelope.DATA_DATA: ("data", "data"),
        Envelope.ITEMS: ("items", "item"),
        Envelope.RESULTS: ("results", "result"),
        Envelope.BARE: (0, "id"),
    }


def first_key(value: Any) -> Any:
    return 0 if isinstance(value, list) else next(iter(value))


def test_errors_in_every_known_shape(fastn: Fastn) -> None:
    """Fastn's documentation: {error: {code, message, details}}. The others were seen, or come from a proxy."""
    seen: dict[ErrorShape, Any] = {}
    for shape in ErrorShape:
        fastn.sandbox.error_shape = shape
        answer = fastn(GetWorkflow(workflow_id="nothing"))
        assert answer.status == 404
        seen[shape] = answer.value if answer.value is not None else answer.reply.body

    message = "The resource does not exist, or you do not have access."
    assert seen[ErrorShape.CODED] == {"error": {"code": "NOT_FOUND", "message": message}}
    assert seen[ErrorShape.TEXT] == {"error": message}
    assert seen[ErrorShape.MESSAGE] == {"message": message}
    assert seen[ErrorShape.CLASSIC]["datasourceDebug"]["jsonObject"]["message"] == message
    assert seen[ErrorShape.CLASSIC]["statusCode"] == 404
    assert seen[ErrorShape.HTML].startswith(b"<html>")
    assert seen[ErrorShape.EMPTY] == b""


def test_empty_update_is_refused(fastn: Fastn) -> None:
    """Fastn's reference: 422. A rule about the whole call names the body."""
    path = UpdateWorkflow(workflow_id=SLACK, name="x").request().path

    assert fastn.ask("PUT", path, body={}).field == "body"


def test_routes_are_configurable(clock: Clock) -> None:
    """The specification says that its paths are inferred, so they are settings."""
    run = POST("/api/v1/workflows/{workflow_id}/execute")
    tenant = GET("/api/v1/{workflow_id}/workflow")
    fastn = Fastn(FaultySandbox(clock, routes={"run_workflow": run, "get_workflow": tenant}))

    assert fastn.ask("POST", f"/api/v1/workflows/{SLACK}/execute", body={}).status == 202
    assert fastn.ask("GET", f"/api/v1/{SLACK}/workflow").data["id"] == SLACK
    assert fastn.ask("POST", f"/api/v1/workflows/{SLACK}/run", body={}).status == 404
    assert fastn.ask("GET", f"/api/v1/workflows/{SLACK}").status == 405


def test_log_contains_requests_without_the_key(fastn: Fastn) -> None:
    fastn(ListWorkflows(limit=3, search="slack"))
    fastn.ask("POST", "/api/v1/nothing", body={"a": 1}, headers={"authorization": "Bearer fsk_live_sandbox"})

    first, second = fastn.sandbox.requests
    assert (first.tool, first.method, first.path) == ("list_workflows", "GET", "/api/v1/workflows")
    assert (dict(first.query), first.body) == ({"limit": "3", "search": "slack"}, None)
    assert (second.tool, second.body) == (None, {"a": 1})
    assert second.headers["x-fastn-test-mode"] == "true"
    assert "fsk_" not in str(fastn.sandbox.requests)


def test_log_is_bounded(fastn: Fastn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("support.faulty_sandbox.MAX_LOG", 10)
    for number in range(11):
        fastn.ask("GET", f"/{number}")

    assert 5 <= len(fastn.sandbox.requests) <= 10
    assert fastn.sandbox.requests[-1].path == "/10"
