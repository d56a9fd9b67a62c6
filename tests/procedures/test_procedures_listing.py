"""Tests of lists for agents: enough matching rows, few requests, concise columns."""

import csv
import io
from typing import Any, cast

import pytest
from faulty_sandbox import Status
from world import World

from fastn_mcp.errors import FastnError, Forbidden, NotSent
from fastn_mcp.fastn.directory import Directory
from fastn_mcp.fastn.targets import Call
from fastn_mcp.guard.changes import Done
from fastn_mcp.procedures.catalog import parse
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.tables import FURTHER, listed
from fastn_mcp.runtime import no_progress
from fastn_mcp.sandbox.behaviour import Filtering, Paging
from fastn_mcp.sandbox.state import Row
from fastn_mcp.server.rendering import BUDGET, render
from fastn_mcp.tools.account import QueryAuditLog
from fastn_mcp.tools.catalog import BY_NAME, CATALOG
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.fields import Known
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.tool import FastnObject
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import ListExecutions, UpdateWorkflow

pytestmark = pytest.mark.anyio

LISTS: list[type[List[Any]]] = [operation for operation in CATALOG if issubclass(operation, List)]


def behaving(world: World, **behaviour: object) -> None:
    world.sandbox.behaviour = world.sandbox.behaviour.model_copy(update=behaviour)


async def answer(world: World, call: List[Any]) -> dict[str, Any]:
    """Return the answer as the model reads it."""
    done = await world.call(call)
    assert isinstance(done, Done), done
    return cast("dict[str, Any]", render(call, done.result, {}))


def failed(world: World) -> list[str]:
    """Return the ids of all failed runs, newest first."""
    rows = [row for row in world.sandbox.state.all("executions") if row["status"] == "failed"]
    return [str(row["id"]) for row in sorted(rows, key=lambda row: str(row["createdAt"]), reverse=True)]


async def test_rows_are_concise(world: World) -> None:
    """Ours: few fields, times with their age in words, ids with names."""
    rows = (await answer(world, ListExecutions(status="failed", limit=9)))["data"]
    assert rows[0] == {
        "id": failed(world)[0],
        "status": "failed",
        "workflow": "Sync TikTok Orders to Cin7 Core",
        "customer": "Katana",
        "createdAt": "2026-11-24T15:00:00Z (18 hours ago)",
        "durationMs": rows[0]["durationMs"],
        "triggeredBy": "scheduler",
        "error": "The tiktokShop connection cannot be used",
        "errorCategory": "Configuration",
        "fixSuggestion": "Let the customer connect tiktokShop again in the widget, then run the workflow once.",
    }


async def test_ids_of_repeated_names_are_listed_once(world: World) -> None:
    """Ours: an id repeated in each row costs tokens in each row."""
    shown = await answer(world, ListExecutions(status="failed", workflow_id="wf_96d1b3072c5a", limit=9))
    assert shown["ids"]["customer"].keys() == {"Katana"}
    assert shown["ids"]["workflow"] == {"Sync TikTok Orders to Cin7 Core": "wf_96d1b3072c5a"}


async def test_id_that_occurs_once_is_beside_its_name(world: World) -> None:
    """Ours: ids come with names."""
    rows = (await answer(world, ListTriggers()))["data"]
    by_name = {row["name"]: row for row in rows}
    assert by_name["Paid Shopify orders"]["starts"] == "wf_0d93ee5b1f62 (process-new-orders)"


async def test_audit_log_names_resources_and_filters_by_them(world: World) -> None:
    """Ours: ids come with names, and a filter confirmed by the rows is not reported as unchecked."""
    for description in ("Counts the stock", "Counts the stock of each shop"):
        await world.client.send(UpdateWorkflow(workflow_id="wf_c27aa8f04e19", description=description))
    shown = await answer(world, QueryAuditLog(resource_id="wf_c27aa8f04e19", limit=5))
    assert len(shown["data"]) == 2
    assert {row["resource"] for row in shown["data"]} == {"workflow update-inventory"}
    assert shown["ids"]["workflow"] == {"update-inventory": "wf_c27aa8f04e19"}
    assert "not_checked" not in shown
    (once,) = (await answer(world, QueryAuditLog(resource_id="wf_c27aa8f04e19", limit=1)))["data"]
    assert once["resource"] == "workflow wf_c27aa8f04e19 (update-inventory)"


async def test_customers_with_the_same_name_keep_their_ids(world: World) -> None:
    """Ours: a name of two ids replaces neither."""
    for row in world.sandbox.state.all("customers"):
        world.sandbox.state.put("customers", {**row, "name": "Acme"})
    shown = await answer(world, ListConnections())
    assert all("endOrgId" in row for row in shown["data"] if row.get("customer"))
    assert "customer" not in shown.get("ids", {})


async def test_names_are_looked_up_in_bounded_numbers_and_cached(world: World) -> None:
    """Ours: bounded requests."""
    await answer(world, ListConnections())
    before = len(world.sandbox.requests)
    assert before <= 1 + 5
    await answer(world, ListConnections())
    assert len(world.sandbox.requests) == before + 1


@pytest.mark.parametrize("operation", LISTS, ids=lambda operation: operation.tool_name())
async def test_full_rows_are_unchanged(world: World, operation: type[List[Any]]) -> None:
    """Ours: detail=full shows every field."""
    (row, *_) = (await answer(world, operation(detail="full", limit=2)))["data"]
    sent = await world.client.send(operation(limit=2))
    assert row == sent.items[0].model_dump(exclude_unset=True)


@pytest.mark.parametrize("operation", LISTS, ids=lambda operation: operation.tool_name())
async def test_concise_rows_cost_less_than_full_ones(world: World, operation: type[List[Any]]) -> None:
    """Ours: concise rows are a table, not a dump."""
    concise = str((await answer(world, operation()))["data"])
    full = str((await answer(world, operation(detail="full")))["data"])
    assert len(concise) < len(full)
    assert "id" in concise or operation is QueryAuditLog


async def test_requested_fields_come_with_the_id(world: World) -> None:
    """Ours: fields that no row has are named."""
    shown = await answer(world, ListCustomers(fields=["plan", "region", "plann"], limit=2))
    assert [list(row) for row in shown["data"]] == [["id", "plan", "region"]] * 2
    assert shown["absent"] == ["plann"]


FILTERED = [
    (operation, name)
    for operation in LISTS
    for name, field in operation.model_fields.items()
    if any(isinstance(mark, Known) for mark in field.metadata)
]


def test_the_lists_by_status_are_among_those() -> None:
    assert {operation for operation in LISTS if "status" in operation.model_fields} <= {o for o, _ in FILTERED}


@pytest.mark.parametrize(("operation", "name"), FILTERED, ids=lambda value: getattr(value, "__name__", value))
async def test_no_rows_for_an_unknown_value_says_so(world: World, operation: type[List[Any]], name: str) -> None:
    """Ours: no run has the status "error", which does not prove that none failed."""
    shown = await answer(world, operation.model_validate({name: "no such"}))
    assert shown["data"] == []
    (message,) = shown["unknown"]
    assert message.startswith(f"{name}: 'no such' is not known; known are ")
    (known,) = (mark for mark in operation.model_fields[name].metadata if isinstance(mark, Known))
    for value in known.values:
        assert "unknown" not in await answer(world, operation.model_validate({name: value.swapcase()}))


async def test_csv_rows(world: World) -> None:
    """Ours: a line of names, then a line for each row, with times unchanged."""
    shown = await answer(world, ListExecutions(status="failed", limit=9, detail="csv"))
    rows = list(csv.DictReader(io.StringIO(shown["data"])))
    assert [row["id"] for row in rows] == failed(world)[:9]
    assert rows[0]["createdAt"] == "2026-11-24T15:00:00.000Z"


@pytest.mark.parametrize("detail", [None, "full", "csv"])
@pytest.mark.parametrize("paging", [Paging.TOTAL, Paging.CURSOR, Paging.SILENT])
async def test_cursor_continues_with_the_rows_that_did_not_fit(
    world: World, detail: str | None, paging: Paging
) -> None:
    """Ours: a result cut to its size has a cursor for the rest."""
    behaving(world, paging=paging)
    seen: list[str] = []
    cursor: str | None = None
    for _ in range(60):
        shown = await answer(world, ListExecutions(limit=100, detail=detail, cursor=cursor))
        assert len(str(shown)) < BUDGET * 1.1
        rows = csv.DictReader(io.StringIO(shown["data"])) if detail == "csv" else shown["data"]
        seen += [row["id"] for row in rows]
        if (cursor := shown.get("next_cursor")) is None:
            break
    every = sorted(world.sandbox.state.all("executions"), key=lambda row: str(row["createdAt"]), reverse=True)
    assert len(seen) == len(set(seen)) == len(every)


async def test_unfiltered_lists_are_read_until_the_page_is_full(world: World) -> None:
    """Ours: filters are also applied here, by bounded reads."""
    behaving(world, filtering=Filtering.IGNORED)
    shown = await answer(world, ListExecutions(status="failed", limit=5))
    assert [row["id"] for row in shown["data"]] == failed(world)[:5]
    requests = [heard for heard in world.sandbox.requests if heard.path.endswith("/executions")]
    assert len(requests) <= 1 + FURTHER
    seen: list[str] = []
    while (cursor := shown.get("next_cursor")) is not None and len(seen) < 100:
        shown = await answer(world, ListExecutions(status="failed", limit=50, cursor=cursor))
        seen += [row["id"] for row in shown["data"]]
        assert "total" not in shown
    assert seen == failed(world)[5:]


async def test_page_without_filters_is_one_request(world: World) -> None:
    """Ours: no further page is read."""
    await answer(world, ListExecutions(limit=20, detail="full"))
    assert len(world.sandbox.requests) == 1


async def test_further_reads_are_bounded_and_reported(world: World) -> None:
    """Ours: a rare match costs a bounded number of requests, and the cursor continues after them."""
    behaving(world, filtering=Filtering.IGNORED)
    (execution, *_) = world.sandbox.state.all("executions")
    for number in range(2_000):
        world.sandbox.state.put(
            "executions", {**execution, "id": f"exec_{number:012x}", "createdAt": "2026-11-24T10:00:00.000Z"}
        )
    shown = await answer(world, ListExecutions(status="no such status", limit=5))
    assert shown["data"] == []
    assert shown["looked_at"] == 5 + FURTHER * 100
    assert len(world.sandbox.requests) == 1 + FURTHER
    assert shown["next_cursor"]


async def test_rows_found_before_an_error_are_kept(world: World) -> None:
    """Ours: the cursor repeats the read that failed."""
    behaving(world, filtering=Filtering.IGNORED)
    asked: list[Call] = []

    async def send(call: Call) -> FastnObject:
        asked.append(call)
        if len(asked) == 3:
            raise Forbidden("Fastn answered 403.")
        return await world.client.send(call)

    context = ProcedureContext(send, world.system, no_progress, "test", world.ledger, Directory(world.system))
    page = await listed(ListExecutions(status="failed", limit=9, detail="full"), context)
    assert 0 < len(page.items) < 9
    rest = await listed(ListExecutions(status="failed", limit=9, detail="full", cursor=page.next_cursor), context)
    found = [getattr(row, "id", None) for row in [*page.items, *rest.items]]
    assert found == failed(world)[: len(found)]


async def test_error_without_any_rows_is_raised(world: World) -> None:
    """Ours: an empty page would claim that there are none."""
    world.sandbox.faults.add(Status(status=403, path=ListExecutions.route.path))
    assert isinstance(await world.call(ListExecutions(status="failed")), FastnError)


async def test_rows_with_unknown_fields_show_their_plain_fields(world: World) -> None:
    """Ours: Fastn's field names are not certain, so none is required."""
    renamed: Row
    for row in world.sandbox.state.all("customers"):
        renamed = {
            "id": row["id"],
            "createdAt": row["createdAt"],
            "title": row["name"],
            "tier": row["plan"],
            "deep": {"a": 1},
        }
        world.sandbox.state.put("customers", renamed)
    (row, *_) = (await answer(world, ListCustomers(limit=1)))["data"]
    assert row.keys() >= {"id", "title", "tier"}
    assert "deep" not in row


def test_unknown_detail_is_refused() -> None:
    """Ours: the error names the argument."""
    with pytest.raises(NotSent, match=r"detail: must be concise, full or csv\. Nothing was sent\."):
        parse(BY_NAME, "list_customers", {"detail": "everything"})
