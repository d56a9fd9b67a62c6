"""Tests of lists, envelopes and error shapes."""

from typing import Any

import pytest
from support.behaviour import Behaviour, Envelope, Filtering, Paging
from support.direct_sandbox import Fastn
from support.faulty_sandbox import ErrorShape

from fastn_mcp.tools.access import ListUsers, QueryAuditLog
from fastn_mcp.tools.connectors import ListConnections, ListConnectors
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


def test_envelopes_and_pages_look_as_they_were_seen(fastn: Fastn) -> None:
    """Third parties and Fastn's reference. A client has to support all of these."""

    def first_key(call: Any) -> Any:
        value = fastn(call).value
        return 0 if isinstance(value, list) else next(iter(value))

    seen: dict[Envelope, Any] = {}
    for envelope in Envelope:
        fastn.sandbox.behaviour = Behaviour(envelope=envelope, paging=Paging.SILENT)
        seen[envelope] = (first_key(ListWorkflows()), first_key(GetWorkflow(workflow_id=SLACK)))
    assert seen == {
        Envelope.DATA: ("data", "data"),
        Envelope.DATA_DATA: ("data", "data"),
        Envelope.ITEMS: ("items", "item"),
        Envelope.RESULTS: ("results", "result"),
        Envelope.BARE: (0, "id"),
    }
    for paging in Paging:
        fastn.sandbox.behaviour = Behaviour(paging=paging, filtering=Filtering.IGNORED)
        answer = fastn(ListExecutions(limit=5, status="failed"))
        assert answer.value.keys() - {"data"} == {*paging.fields}
        assert len(answer.data) == (stored_count(fastn) if paging is Paging.IGNORED else 5)
        assert len({row["status"] for row in fastn(ListExecutions(limit=100, status="failed")).data}) > 1


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
