"""A page of a list as an agent gets it: enough matching rows, few requests, shown as a table would have it."""

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
    """What the model reads."""
    done = await world.call(call)
    assert isinstance(done, Done), done
    return cast("dict[str, Any]", render(call, done.result, {}))


def failed(world: World) -> list[str]:
    """Every failed run that there is, the newest first."""
    rows = [row for row in world.sandbox.state.all("executions") if row["status"] == "failed"]
    return [str(row["id"]) for row in sorted(rows, key=lambda row: str(row["createdAt"]), reverse=True)]


async def test_rows_are_what_a_person_would_want_in_a_table(world: World) -> None:
    """Ours (issue 5): few fields, times with their age in words, ids with names."""
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


async def test_what_rows_call_by_name_has_its_id_once(world: World) -> None:
    """Ours (issue 5): an id that is repeated in each row is paid for in each row."""
    shown = await answer(world, ListExecutions(status="failed", workflow_id="wf_96d1b3072c5a", limit=9))
    assert shown["ids"]["customer"].keys() == {"Katana"}
    assert shown["ids"]["workflow"] == {"Sync TikTok Orders to Cin7 Core": "wf_96d1b3072c5a"}


async def test_an_id_that_comes_once_stands_beside_its_name(world: World) -> None:
    """Ours (issue 5): ids come with names."""
    rows = (await answer(world, ListTriggers()))["data"]
    by_name = {row["name"]: row for row in rows}
    assert by_name["Paid Shopify orders"]["starts"] == "wf_0d93ee5b1f62 (process-new-orders)"


async def test_the_audit_log_names_what_was_acted_on_and_filters_by_it(world: World) -> None:
    """Ours (issue 5): ids come with names, and a filter that rows can confirm is not called unchecked."""
    for description in ("Counts the stock", "Counts the stock of each shop"):
        await world.client.send(UpdateWorkflow(workflow_id="wf_c27aa8f04e19", description=description))
    shown = await answer(world, QueryAuditLog(resource_id="wf_c27aa8f04e19", limit=5))
    assert len(shown["data"]) == 2
    assert {row["resource"] for row in shown["data"]} == {"workflow update-inventory"}
    assert shown["ids"]["workflow"] == {"update-inventory": "wf_c27aa8f04e19"}
    assert "not_checked" not in shown
    (once,) = (await answer(world, QueryAuditLog(resource_id="wf_c27aa8f04e19", limit=1)))["data"]
    assert once["resource"] == "workflow wf_c27aa8f04e19 (update-inventory)"


async def test_two_customers_of_one_name_are_told_apart_by_id(world: World) -> None:
    """Ours: a name that is of two ids stands for neither."""
    for row in world.sandbox.state.all("customers"):
        world.sandbox.state.put("customers", {**row, "name": "Acme"})
    shown = await answer(world, ListConnections())
    assert all("endOrgId" in row for row in shown["data"] if row.get("customer"))
    assert "customer" not in shown.get("ids", {})


async def test_names_are_looked_up_a_few_at_a_time_and_then_known(world: World) -> None:
    """Ours (issue 5): bounded requests."""
    await answer(world, ListConnections())
    before = len(world.sandbox.requests)
    assert before <= 1 + 5
    await answer(world, ListConnections())
    assert len(world.sandbox.requests) == before + 1


@pytest.mark.parametrize("operation", LISTS, ids=lambda operation: operation.tool_name())
async def test_full_rows_are_as_fastn_has_them(world: World, operation: type[List[Any]]) -> None:
    """Ours (DESIGN 6): everything is within reach."""
    (row, *_) = (await answer(world, operation(detail="full", limit=2)))["data"]
    sent = await world.client.send(operation(limit=2))
    assert row == sent.items[0].model_dump(exclude_unset=True)


@pytest.mark.parametrize("operation", LISTS, ids=lambda operation: operation.tool_name())
async def test_concise_rows_cost_less_than_full_ones(world: World, operation: type[List[Any]]) -> None:
    """Ours (issue 5): a table, not a dump."""
    concise = str((await answer(world, operation()))["data"])
    full = str((await answer(world, operation(detail="full")))["data"])
    assert len(concise) < len(full)
    assert "id" in concise or operation is QueryAuditLog


async def test_the_fields_that_are_asked_for_come_with_the_id(world: World) -> None:
    """Ours (DESIGN 6): and what no row has is named."""
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
async def test_nothing_found_by_a_value_that_nobody_knows_says_so(
    world: World, operation: type[List[Any]], name: str
) -> None:
    """Ours: status "error" finds no run, and that is no proof that none failed."""
    shown = await answer(world, operation.model_validate({name: "no such"}))
    assert shown["data"] == []
    (said,) = shown["unknown"]
    assert said.startswith(f"{name}: 'no such' is not known; known are ")
    (known,) = (mark for mark in operation.model_fields[name].metadata if isinstance(mark, Known))
    for value in known.values:
        assert "unknown" not in await answer(world, operation.model_validate({name: value.swapcase()}))


async def test_rows_come_as_csv_on_request(world: World) -> None:
    """Ours (issue 5): a line of names, then a line for each row, with times as they are."""
    shown = await answer(world, ListExecutions(status="failed", limit=9, detail="csv"))
    rows = list(csv.DictReader(io.StringIO(shown["data"])))
    assert [row["id"] for row in rows] == failed(world)[:9]
    assert rows[0]["createdAt"] == "2026-11-24T15:00:00.000Z"


@pytest.mark.parametrize("detail", [None, "full", "csv"])
@pytest.mark.parametrize("paging", [Paging.TOTAL, Paging.CURSOR, Paging.SILENT])
async def test_the_cursor_goes_on_with_exactly_the_rows_that_did_not_fit(
    world: World, detail: str | None, paging: Paging
) -> None:
    """Ours (DESIGN 6): a budget with a continuation that says how to go on."""
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


async def test_a_server_that_does_not_filter_is_read_on_until_the_page_is_full(world: World) -> None:
    """Ours (issue 5): filters are applied here whatever Fastn honours, by bounded reads."""
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


async def test_nothing_is_read_on_where_no_filter_was_given(world: World) -> None:
    """Ours: one page is one request."""
    await answer(world, ListExecutions(limit=20, detail="full"))
    assert len(world.sandbox.requests) == 1


async def test_reading_on_ends_at_its_bound_and_says_how_far_it_looked(world: World) -> None:
    """Ours (issue 5): a needle in a haystack costs a bounded number of requests, and the cursor goes on behind them."""
    behaving(world, filtering=Filtering.IGNORED)
    (one, *_) = world.sandbox.state.all("executions")
    for number in range(2_000):
        world.sandbox.state.put(
            "executions", {**one, "id": f"exec_{number:012x}", "createdAt": "2026-11-24T10:00:00.000Z"}
        )
    shown = await answer(world, ListExecutions(status="no such status", limit=5))
    assert shown["data"] == []
    assert shown["looked_at"] == 5 + FURTHER * 100
    assert len(world.sandbox.requests) == 1 + FURTHER
    assert shown["next_cursor"]


async def test_what_was_found_before_an_error_is_kept(world: World) -> None:
    """Ours: rows that are there are worth more than an error, and the cursor repeats the read that failed."""
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


async def test_an_error_at_the_first_row_is_an_error(world: World) -> None:
    """Ours: nothing was found, so nothing is claimed."""
    world.sandbox.faults.add(Status(status=403, path=ListExecutions.route.path))
    assert isinstance(await world.call(ListExecutions(status="failed")), FastnError)


async def test_rows_of_another_make_show_their_plain_fields(world: World) -> None:
    """Ours: nobody knows Fastn's names for sure, so none of them is needed."""
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


def test_a_detail_that_there_is_not_is_refused_by_name() -> None:
    """Ours (DESIGN 3.1)."""
    with pytest.raises(NotSent, match=r"detail: must be concise, full or csv\. Nothing was sent\."):
        parse(BY_NAME, "list_customers", {"detail": "everything"})
