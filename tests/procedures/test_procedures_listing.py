"""Tests of lists for agents: enough matching rows, few requests, concise columns."""

import re
from collections.abc import Callable
from typing import Any, cast

import anyio
import pytest
from pydantic import JsonValue
from pydantic_core import to_json
from support.behaviour import Filtering, Paging
from support.faulty_sandbox import Status
from support.table_rows import rows_of
from support.world import World

from fastn_mcp.account.short_ids import reference_to
from fastn_mcp.errors import FastnError, Forbidden, NotFound, NotSent
from fastn_mcp.extensions.sandbox.state import Row
from fastn_mcp.procedures.catalog import parse
from fastn_mcp.procedures.list_results import MAX_DETAILS, listed
from fastn_mcp.procedures.list_rows import MAX_FURTHER_PAGES
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.server.rendering import MAX_PAGE
from fastn_mcp.tools.access import ListApiKeys, ListRoles, ListUsers, QueryAuditLog
from fastn_mcp.tools.catalog import CATALOG, OPERATIONS
from fastn_mcp.tools.connectors import ListConnections, ListConnectors
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.fields import Known
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import ListExecutions, ListWorkflows, UpdateWorkflow

LISTS: list[type[List[Any]]] = [operation for operation in CATALOG if issubclass(operation, List)]


def failed(world: World) -> list[str]:
    rows = [row for row in world.sandbox.state.all("executions") if row["status"] == "failed"]
    return [str(row["id"]) for row in sorted(rows, key=lambda row: str(row["createdAt"]), reverse=True)]


async def test_rows_are_concise(world: World) -> None:
    rows = (await world.rendered(ListExecutions(status="failed", limit=9)))["data"]
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
    answer = await world.rendered(ListExecutions(status="failed", workflow_id="wf_96d1b3072c5a", limit=9))
    assert [*answer["ids"]["customer"].values()] == ["Katana"]
    assert answer["ids"]["workflow"] == {"wf_96d1b3072c5a": "Sync TikTok Orders to Cin7 Core"}


async def test_id_that_occurs_once_is_beside_its_name(world: World) -> None:
    rows = (await world.rendered(ListTriggers()))["data"]
    by_name = {row["name"]: row for row in rows}
    assert by_name["Paid Shopify orders"]["starts"] == "wf_0d93ee5b1f62 (process-new-orders)"


async def test_audit_log_names_resources_and_filters_by_them(world: World) -> None:
    for description in ("Counts the stock", "Counts the stock of each shop"):
        await world.client.send(UpdateWorkflow(workflow_id="wf_c27aa8f04e19", description=description))
    answer = await world.rendered(QueryAuditLog(resource_id="wf_c27aa8f04e19", limit=5))
    assert len(answer["data"]) == 2
    assert {row["resource"] for row in answer["data"]} == {"workflow update-inventory"}
    assert answer["ids"]["workflow"] == {"wf_c27aa8f04e19": "update-inventory"}
    assert "not_checked" not in answer
    (once,) = (await world.rendered(QueryAuditLog(resource_id="wf_c27aa8f04e19", limit=1)))["data"]
    assert once["resource"] == "workflow wf_c27aa8f04e19 (update-inventory)"


async def test_customers_with_the_same_name_keep_their_ids(world: World) -> None:
    for row in world.sandbox.state.all("customers"):
        world.sandbox.state.put("customers", {**row, "name": "Acme"})
    answer = await world.rendered(ListConnections())
    assert all("customer_id" in row for row in answer["data"] if row.get("customer"))
    assert "customer" not in answer.get("ids", {})


@pytest.mark.parametrize("operation", LISTS, ids=lambda operation: operation.tool_name())
async def test_full_rows_are_unchanged_and_cost_more(world: World, operation: type[List[Any]]) -> None:
    full, concise = [(await world.rendered(operation(detail=detail)))["data"] for detail in ("full", None)]
    sent = (await world.client.send(operation())).rows[0]
    assert {name: full[0][name] for name in sent} == sent
    assert len(str(concise)) < len(str(full))
    assert "id" in str(concise) or operation is QueryAuditLog


async def test_requested_fields_are_the_columns(world: World) -> None:
    answer = await world.rendered(ListCustomers(fields=["plan", "region", "plann"], limit=2))
    assert [list(row) for row in answer["data"]] == [["plan", "region"]] * 2
    unknown, known = answer["absent"]
    assert unknown == "plann (did you mean 'plan'?)"
    assert known.startswith("rows have: id, name, slug, status, plan, connections_count, created_at, external_ref,")


@pytest.mark.parametrize("detail", ["concise", "full"])
@pytest.mark.parametrize("limit", [20, 100])
async def test_fields_are_called_like_arguments_too(world: World, detail: str, limit: int) -> None:
    """As in `query`, and by Fastn's own names."""
    stored = world.sandbox.state.all("connections")
    call = ListConnections(fields=["id", "customer_id", "connector_id", "endOrgId"], limit=limit, detail=detail)
    answer = await world.rendered(call)
    assert "absent" not in answer
    rows = rows_of(answer["data"])
    assert {row["customer_id"] for row in rows} == {row["endOrgId"] for row in stored}
    assert all(row["endOrgId"] == row["customer_id"] for row in rows)
    assert {row["connector_id"] for row in rows} == {row["connectorId"] for row in stored}


async def test_column_that_is_empty_is_no_unknown_field(world: World) -> None:
    """It is named alone: the rows may have it elsewhere."""
    for row in world.sandbox.state.all("customers"):
        del row["plan"]
    answer = await world.rendered(ListCustomers(fields=["name", "plan"], limit=2))
    assert answer["absent"] == ["plan"]


@pytest.mark.parametrize("operation", LISTS, ids=lambda operation: operation.tool_name())
async def test_fields_take_every_column_of_the_concise_form(world: World, operation: type[List[Any]]) -> None:
    for limit in (20, 100):
        for _ in range(3):  # until all names are cached
            await world.rendered(operation(limit=limit))
        concise = rows_of((await world.rendered(operation(limit=limit)))["data"])
        columns = list(dict.fromkeys(name for row in concise for name in row))
        answer = await world.rendered(operation(limit=limit, fields=columns))
        assert "absent" not in answer
        for row, seen in zip(rows_of(answer["data"]), concise, strict=True):
            assert {name: row[name] for name in seen} == seen


async def test_fields_in_full_are_unchanged(world: World) -> None:
    (run,) = (await world.rendered(ListExecutions(status="failed", limit=1, fields=["error", "customer"])))["data"]
    assert run["error"] == "The tiktokShop connection cannot be used"
    call = ListExecutions(status="failed", limit=1, fields=["error", "customer"], detail="full")
    (run,) = (await world.rendered(call))["data"]
    assert run["error"]["failedAt"].startswith("connector.tiktokShop.")
    assert run["customer"] == "Katana"


async def test_field_with_an_unknown_name_shows_the_id(world: World) -> None:
    world.refuse("/api/v1/customers/*")
    (run,) = (await world.rendered(ListExecutions(status="failed", limit=1, fields=["id", "customer"])))["data"]
    state = world.sandbox.state.get("executions", run["id"])
    assert state is not None
    assert run["customer"] == state["endOrgId"]


async def test_every_started_workflow_is_named_by_their_list(large_world: World) -> None:
    answer = await large_world.rendered(ListTriggers(limit=20))
    started = [row["starts"] for row in rows_of(answer["data"]) if "starts" in row]
    assert len(started) > 5
    names = {str(row["name"]) for row in large_world.sandbox.state.all("workflows")}
    assert all(any(name in each for name in names) for each in started)
    assert [request.path for request in large_world.sandbox.requests].count("/api/v1/workflows") <= 2
    assert not any(request.path.startswith("/api/v1/workflows/") for request in large_world.sandbox.requests)


async def test_page_of_100_rows_is_one_answer(large_world: World) -> None:
    for operation in LISTS:
        sent = await large_world.client.send(operation(limit=100))
        answer = await large_world.rendered(operation(limit=100))
        assert len(rows_of(answer["data"])) == len(sent.rows) >= 7
        assert "left_out" not in answer
        assert answer.get("now") == ("2026-11-25T09:00:00Z" if len(sent.rows) > 20 else None)


async def test_names_of_many_customers_take_five_requests(large_world: World) -> None:
    await large_world.rendered(ListExecutions(limit=100))
    sent = [str(request.tool) for request in large_world.sandbox.requests]
    assert sorted(sent) == ["get_customer"] * 4 + ["list_customers", "list_executions"]


def without_ages(row: Row) -> dict[str, str]:
    return {name: re.sub(r"(?<=Z) \(.+\)$", "", str(value)) for name, value in row.items()}


async def test_table_says_what_objects_say(world: World) -> None:
    """A form changes no row. Of many rows, the age of a time is left to `now`."""
    for operation in LISTS:
        objects = (await world.rendered(operation(limit=20)))["data"]
        table = rows_of((await world.rendered(operation(limit=21)))["data"])
        for row, in_table in zip(objects, table, strict=False):
            named, cells = map(without_ages, (row, in_table))
            assert set(named) <= set(cells) | {"endOrgId", "workflowId", "connectorId"}
            for name in ("id", "name", "status", "createdAt", "timestamp", "action"):
                assert str(cells.get(name)) == str(named.get(name))


async def test_permissions_of_a_role_are_readable(world: World) -> None:
    """A count of permissions does not say whether a role may delete."""
    roles = {row["name"]: row for row in (await world.rendered(ListRoles()))["data"]}
    assert roles["Viewer"]["permissions"].startswith("connections:read; connectors:read; events:read;")
    assert "workflows:create,delete,deploy_prod," in roles["Owner"]["permissions"]


async def test_key_that_does_not_expire_says_never(world: World) -> None:
    """A field that is left out would not say it."""
    keys = {row["name"]: row for row in (await world.rendered(ListApiKeys()))["data"]}
    unlimited = {str(row["name"]) for row in world.sandbox.state.all("apiKeys") if row["expiresAt"] is None}
    assert unlimited
    assert {name for name, row in keys.items() if row["expiresAt"] == "never"} == unlimited


async def test_full_runs_have_their_input_and_output(world: World) -> None:
    answer = await world.rendered(ListExecutions(limit=20, detail="full"))
    assert len(answer["data"]) == 20
    for row in answer["data"]:
        run = world.sandbox.state.get("executions", row["id"])
        assert run is not None
        assert (row["input"], row["output"]) == (run["input"], run["output"])
    assert "left_out" not in answer
    assert len(world.sandbox.requests) == 1 + MAX_DETAILS
    (row, *_) = (await world.rendered(ListExecutions(limit=3, fields=["output"])))["data"]
    assert row.keys() == {"output"}


async def test_runs_that_list_rows_tell_are_not_read_again(world: World) -> None:
    rows = [{"id": f"exec_{n}", "status": "completed", "input": {}, "output": {"n": n}} for n in range(3)]
    asked: list[Call] = []

    async def send(call: Call) -> FastnObject:
        asked.append(call)
        return call.result(cast(JsonValue, {"data": rows}))

    context = world.context(send)
    assert (await listed(ListExecutions(detail="full"), context)).items == rows
    assert len(asked) == 1


async def test_runs_are_read_a_few_at_once(world: World) -> None:
    """Fastn limits requests, and other calls need their turn."""
    now = most = 0

    async def send(call: Call) -> FastnObject:
        nonlocal now, most
        now, most = now + 1, max(most, now + 1)
        await anyio.lowlevel.checkpoint()
        found = await world.client.send(call)
        now -= 1
        return found

    context = world.context(send)
    await listed(ListExecutions(limit=20, detail="full"), context)
    assert 1 < most <= 5


async def test_runs_that_were_not_read_are_named(world: World) -> None:
    answer = await world.rendered(ListExecutions(limit=30, detail="full"))
    assert "10 rows without input and output: they are read for 20 rows of a page." in answer["left_out"]
    (first, second) = (row["id"] for row in answer["data"][:2])
    world.sandbox.faults.add(Status(status=404, path="/api/v1/executions/{execution_id}", times=1))
    answer = await world.rendered(ListExecutions(limit=2, detail="full"))
    assert answer["left_out"].startswith("The input and output of exec_")
    assert "could not be read" in answer["left_out"]
    assert sum("output" in row for row in answer["data"]) == 1
    assert {row["id"] for row in answer["data"]} == {first, second}


def _routes(row: Row, wanted: str) -> bool:
    return any(route["routeId"] == wanted for route in row["routes"])


def _apps(row: Row, wanted: str) -> bool:
    return any(app["slug"] == wanted for app in row["connectors"])


FILTERS: list[tuple[type[List[Any]], str, str, str, Callable[[Row, str], bool]]] = [
    (ListTriggers, "triggers", "subscription_status", "FAILED", lambda row, to: row.get("subscriptionStatus") == to),
    (ListTriggers, "triggers", "authentication", "NONE", lambda row, to: row.get("authentication") == to),
    (ListTriggers, "triggers", "workflow_id", "wf_96d1b3072c5a", _routes),
    (ListTriggers, "triggers", "customer_id", "globex-exports", lambda row, to: row["endOrgId"] == to),
    (ListWorkflows, "workflows", "connector_id", "cin7Core", _apps),
    (ListConnections, "connections", "authentication", "OAUTH_2", lambda row, to: row["authType"] == to),
    (ListExecutions, "executions", "started_by", "webhook", lambda row, to: row["triggeredBy"] == to),
    (ListUsers, "users", "role", "ADMIN", lambda row, _: row["role"] == "Admin"),
    (ListApiKeys, "apiKeys", "permissions", "full access", lambda row, _: row["permissions"] == "Full access"),
]


@pytest.mark.parametrize("filtering", Filtering)
@pytest.mark.parametrize(
    ("operation", "kind", "name", "value", "fits"), FILTERS, ids=[f"{made[1]}-{made[2]}" for made in FILTERS]
)
async def test_filter_holds_whether_fastn_honours_it_or_not(
    world: World, operation: type[List[Any]], kind: str, name: str, value: str,
    fits: Callable[[Row, str], bool], filtering: Filtering,
) -> None:  # fmt: skip
    """The rows are those that match, and the answer does not claim a total that it does not know."""
    world.behave(filtering=filtering)
    if name == "customer_id":
        value = str(world.sandbox.state.named("customers", value)["id"])
    wanted = {str(row["id"]) for row in world.sandbox.state.all(kind) if fits(row, value)}
    if kind == "connections":
        wanted = {*map(reference_to, wanted)}
    assert 0 < len(wanted) < len(world.sandbox.state.all(kind))
    found: list[str] = []
    for answer in await world.pages(operation.tool_name(), **{name: value, "limit": 100}):
        assert answer.get("total") in (None, len(wanted))
        assert "not_checked" not in answer
        found += [str(row["id"]) for row in rows_of(answer["data"])]
    assert set(found) == wanted
    assert len(found) == len(wanted)


async def test_workflows_of_a_connector_by_its_id(world: World) -> None:
    """Find gives ids, and workflows name connectors by slug."""
    connector = world.sandbox.state.named("connectors", "cin7Core")
    by_slug = await world.rendered(ListWorkflows(connector_id="cin7Core"))
    assert (await world.rendered(ListWorkflows(connector_id=connector["id"])))["data"] == by_slug["data"]
    assert isinstance(await world.call(ListWorkflows(connector_id="00000000-0000-4000-8000-000000000000")), NotFound)


async def test_filter_that_rows_cannot_confirm_has_no_total(world: World) -> None:
    """A total of rows that may not match would be read as theirs."""
    world.behave(paging=Paging.TOTAL)
    answer = await world.rendered(ListConnectors(authentication="API_KEY"))
    assert answer["not_checked"] == ["authentication"]
    assert "total" not in answer


FILTERED = [
    (operation, name)
    for operation in LISTS
    for name, field in operation.model_fields.items()
    if any(isinstance(mark, Known) for mark in field.metadata)
]


def test_lists_by_status_know_their_values() -> None:
    assert {operation for operation in LISTS if "status" in operation.model_fields} <= {o for o, _ in FILTERED}


@pytest.mark.parametrize(("operation", "name"), FILTERED, ids=lambda value: getattr(value, "__name__", value))
async def test_no_rows_for_an_unknown_value_says_so(world: World, operation: type[List[Any]], name: str) -> None:
    """No run has the status "error", which does not prove that none failed."""
    answer = await world.rendered(operation.model_validate({name: "no such"}))
    assert answer["data"] == []
    (message,) = answer["unknown"]
    assert message.startswith(f"{name}: unknown value 'no such'; use one of ")
    (known,) = (mark for mark in operation.model_fields[name].metadata if isinstance(mark, Known))
    for value in known.values:
        assert "unknown" not in await world.rendered(operation.model_validate({name: value.swapcase()}))


@pytest.mark.parametrize("detail", [None, "full"])
@pytest.mark.parametrize("paging", [Paging.TOTAL, Paging.CURSOR, Paging.SILENT])
async def test_cursor_continues_with_the_rows_that_did_not_fit(
    world: World, detail: str | None, paging: Paging
) -> None:
    world.behave(paging=paging)
    answers = await world.pages("list_executions", limit=100, detail=detail)
    assert all(len(to_json(answer)) <= MAX_PAGE for answer in answers)
    seen = [row["id"] for answer in answers for row in rows_of(answer["data"])]
    every = sorted(world.sandbox.state.all("executions"), key=lambda row: str(row["createdAt"]), reverse=True)
    assert len(seen) == len(set(seen)) == len(every)


async def test_unfiltered_lists_are_read_until_the_page_is_full(world: World) -> None:
    world.behave(filtering=Filtering.IGNORED)
    answer = await world.rendered(ListExecutions(status="failed", limit=5))
    assert [row["id"] for row in answer["data"]] == failed(world)[:5]
    requests = [request for request in world.sandbox.requests if request.path.endswith("/executions")]
    assert len(requests) <= 1 + MAX_FURTHER_PAGES
    seen: list[str] = []
    while (cursor := answer.get("next_cursor")) is not None and len(seen) < 100:
        answer = await world.rendered(ListExecutions(status="failed", limit=50, cursor=cursor))
        seen += [row["id"] for row in rows_of(answer["data"])]
        assert "total" not in answer
    assert seen == failed(world)[5:]


async def test_rows_found_before_an_error_are_kept(world: World) -> None:
    world.behave(filtering=Filtering.IGNORED)
    asked: list[Call] = []

    async def send(call: Call) -> FastnObject:
        asked.append(call)
        if len(asked) == 3:
            raise Forbidden("Fastn answered 403.")
        return await world.client.send(call)

    context = world.context(send)
    page = await listed(ListExecutions(status="failed", limit=9, fields=["id"]), context)
    assert 0 < len(page.items) < 9
    rest = await listed(ListExecutions(status="failed", limit=9, fields=["id"], cursor=page.next_cursor), context)
    found = [row["id"] for row in [*page.items, *rest.items]]
    assert found == failed(world)[: len(found)]


async def test_error_without_any_rows_is_raised(world: World) -> None:
    """An empty page would claim that there are none."""
    world.sandbox.faults.add(Status(status=403, path=ListExecutions.route.path))
    assert isinstance(await world.call(ListExecutions(status="failed")), FastnError)


async def test_rows_with_unknown_fields_show_their_plain_fields(world: World) -> None:
    """Fastn's field names are not certain, so none is required."""
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
    (row, *_) = (await world.rendered(ListCustomers(limit=1)))["data"]
    assert row.keys() >= {"id", "title", "tier"}
    assert "deep" not in row


def test_unknown_detail_is_refused() -> None:
    with pytest.raises(NotSent, match=r"detail: must be concise or full\. Nothing was sent\."):
        parse(OPERATIONS, "list_customers", {"detail": "everything"})
