"""Operations whose answers are completed: what stops or still starts a workflow, actions of connectors, facts."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue
from support.behaviour import Filtering
from support.faulty_sandbox import Status
from support.policy_files import ALLOWING
from support.runs import add_run
from support.world import World

from fastn_mcp.extensions.sandbox.state import stamp
from fastn_mcp.guard.approval_form import form_text
from fastn_mcp.guard.result import Done
from fastn_mcp.policy.policy import Policy
from fastn_mcp.policy.rules import NO_RULES, FileRules
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.procedures.find import Find
from fastn_mcp.procedures.undo_change import ListChanges
from fastn_mcp.records.platform import (
    NO_CUSTOMER,
    PEOPLE,
    PERMISSIONS,
    PUBLISHING,
    RUNS,
    WEBHOOK_KEY,
    WEBHOOK_PUBLIC,
)
from fastn_mcp.records.quotas import quotas_of, unlimited, with_resets
from fastn_mcp.tools.access import ListRoles, ListUsers
from fastn_mcp.tools.billing import GetQuotas
from fastn_mcp.tools.connectors import DeleteConnector, GetConnector, UpdateConnector
from fastn_mcp.tools.customers import DeleteCustomer
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.triggers import CreateTrigger, DeleteTrigger, GetTrigger, UpdateTrigger
from fastn_mcp.tools.workflows import DeleteWorkflow, GetExecution, GetWorkflow


async def receipt(world: World, call: Operation[Any]) -> dict[str, Any]:
    shown = (await world.rendered(call, world.form()))["receipt"]
    assert None not in shown.values()
    return shown


def trigger(world: World, name: str) -> str:
    return world.id_of("triggers", name)


def named(world: World, *names: str) -> list[str]:
    return [f"{name} ({trigger(world, name)})" for name in names]


@pytest.mark.parametrize(
    ("call", "collection", "name", "stopped"),
    [
        (DeleteWorkflow, "workflows", "process-new-orders", ["Paid Shopify orders"]),
        (DeleteWorkflow, "workflows", "update-inventory", []),
        (DeleteConnector, "connectors", "HubSpot", ["New HubSpot contact"]),
        (DeleteCustomer, "customers", "Katana", ["Daily TikTok sync"]),
        (DeleteCustomer, "customers", "Acme Corp", []),
    ],
)
async def test_receipt_of_a_deletion_names_the_triggers_that_stop(
    world: World, call: type[Operation[Any]], collection: str, name: str, stopped: list[str]
) -> None:
    expected = sorted(named(world, *stopped))
    key = world.id_of(collection, name)
    receipt_data = await receipt(world, call.model_validate({call.route.parameters[-1]: key}))
    assert sorted(receipt_data.get("stopped_triggers", [])) == expected
    (change,) = (await world.ask(ListChanges()))["changes"]
    assert sorted(change.get("stopped_triggers", [])) == expected
    off = [row["name"] for row in world.sandbox.state.all("triggers") if row["status"] == "Disabled"]
    assert {*stopped} <= {*off}


async def test_stopped_triggers_are_named_by_a_batch_and_without_a_request(tmp_path: Path, world: World) -> None:
    key = world.id_of("workflows", "process-new-orders")
    expected = named(world, "Paid Shopify orders")
    changes: list[Any] = [{"tool": "delete_workflow", "arguments": {"workflow_id": key}}]
    done = await world.expect(Done, ApplyChanges(changes=changes), world.form())
    (row,) = done.result.model_dump()["calls"]
    assert row["stopped_triggers"] == expected
    other = World(tmp_path / "other", Policy(rules=ALLOWING))
    key = other.id_of("workflows", "process-new-orders")
    allowed = await receipt(other, DeleteWorkflow(workflow_id=key))
    assert allowed["stopped_triggers"] == named(other, "Paid Shopify orders")
    other.close()


async def test_trigger_that_is_off_already_is_not_called_stopped(world: World) -> None:
    world.sandbox.state.named("triggers", "Paid Shopify orders", "name")["status"] = "Disabled"
    key = world.id_of("workflows", "process-new-orders")
    assert "stopped_triggers" not in await receipt(world, DeleteWorkflow(workflow_id=key))


async def test_trigger_that_starts_another_workflow_too_goes_on(world: World) -> None:
    form = world.form()
    await world.call(DeleteWorkflow(workflow_id=world.id_of("workflows", "process-new-orders")), form)
    (asked,) = form.asked
    assert 'Its trigger "Paid Shopify orders" stops. Its trigger "Shop events" stays on while' in form_text(asked)
    row = world.sandbox.state.named("triggers", "Shop events", "name")
    assert row["status"] == "Active"
    row["status"] = "Disabled"
    await world.call(DeleteWorkflow(workflow_id=world.id_of("workflows", "update-inventory")), form)
    assert "Shop events" not in form_text(form.asked[-1])


@pytest.mark.parametrize("rules", [NO_RULES, ALLOWING], ids=["guarded", "allowing"])
@pytest.mark.parametrize("is_resumed", [False, True])
async def test_list_that_deletes_all_workflows_of_a_trigger_names_it_once(
    tmp_path: Path, rules: FileRules, is_resumed: bool
) -> None:
    world = World(tmp_path, Policy(rules=rules))
    keys = [world.id_of("workflows", name) for name in ("process-new-orders", "update-inventory")]
    changes: list[Any] = [{"tool": "delete_workflow", "arguments": {"workflow_id": key}} for key in keys]
    if is_resumed:
        world.sandbox.faults.add(Status(method="DELETE", path=f"/api/v1/workflows/{keys[1]}", status=409))
        await world.call(ApplyChanges(changes=changes), world.form())
    done = await world.expect(Done, ApplyChanges(changes=changes), world.form())
    stopped = [row.get("stopped_triggers", []) for row in done.result.model_dump()["calls"]]
    assert stopped == [named(world, "Paid Shopify orders"), named(world, "Shop events")]
    assert world.sandbox.state.named("triggers", "Shop events", "name")["status"] == "Disabled"


async def test_receipt_of_a_disabled_trigger_says_what_still_starts_its_workflows(world: World) -> None:
    orders, stock = world.id_of("workflows", "process-new-orders"), world.id_of("workflows", "update-inventory")
    off = UpdateTrigger(trigger_id=trigger(world, "Shop events"), status="Disabled")
    receipt_data = await receipt(world, off)
    assert receipt_data["still_started_by"] == {orders: named(world, "Paid Shopify orders"), stock: "no other trigger"}
    world.refuse("/api/v1/triggers")
    deleted = await receipt(world, DeleteTrigger(trigger_id=trigger(world, "Paid Shopify orders")))
    assert deleted["still_started_by"][orders].startswith("not checked: ")
    renamed = await receipt(world, UpdateTrigger(trigger_id=trigger(world, "Daily TikTok sync"), name="Daily"))
    assert "still_started_by" not in renamed


async def test_deleted_schedule_loses_no_address(world: World) -> None:
    schedule = await receipt(world, DeleteTrigger(trigger_id=trigger(world, "Hourly Slack sync")))
    assert "lost" not in schedule
    webhook = await receipt(world, DeleteTrigger(trigger_id=trigger(world, "Shop events")))
    assert webhook["lost"] == "Its webhook gets a new URL."
    assert schedule["undo"] == webhook["undo"] == "undo_change"
    assert "for good" not in (DeleteTrigger.__doc__ or "")


@pytest.mark.parametrize(
    ("query", "fact"),
    [
        ("cancel run", "Runs can be cancelled or replayed only in the dashboard"),
        ("publish the order sync", "Workflows can be published, deployed or rolled back only in the dashboard"),
        ("change role of user", "A person's role can be changed, and their access removed, only in the dashboard"),
        ("remove Lee from the team", "A person's role can be changed, and their access removed, only in the dashboard"),
        ("update the Microsoft Teams sync", None),
        ("permission for billing", "No permission that Fastn documents"),
        (
            "restore a workflow from trash",
            "A workflow can be restored, with its slug and history, only in the dashboard",
        ),
        ("acme corp", None),
        ("tiktok sync", None),
    ],
)
async def test_find_says_what_cannot_be_done_here(world: World, query: str, fact: str | None) -> None:
    facts = (await world.ask(Find(query=query))).get("not_done_here", [])
    assert any(text.startswith(fact) for text in facts) if fact else facts == []


async def test_tools_say_what_cannot_be_done_where_one_looks(world: World) -> None:
    async def note(call: Operation[Any]) -> str:
        return (await world.rendered(call)).get("note", "")

    runs = {status: run["id"] for run in world.sandbox.state.all("executions") if (status := run["status"])}
    drafts = {flow["status"]: flow["id"] for flow in world.sandbox.state.all("workflows")}
    assert await note(ListUsers()) == PEOPLE
    assert await note(ListRoles()) == PERMISSIONS
    assert await note(GetExecution(execution_id=str(runs["running"]))) == RUNS
    assert await note(GetExecution(execution_id=str(runs["failed"]))) == ""
    assert await note(GetWorkflow(workflow_id=world.id_of("workflows", "process-new-orders"))) == ""
    assert await note(GetWorkflow(workflow_id=str(drafts["draft"]))) == PUBLISHING


async def actions_of(world: World, key: str) -> dict[str, Any]:
    return await world.ask(GetConnector(connector_id=key))


async def test_actions_are_listed_with_their_inputs(world: World) -> None:
    shopify = world.sandbox.state.named("connectors", "shopify")
    found = await actions_of(world, shopify["id"])
    assert found["actions"][1] == {
        "slug": "updateInventory",
        "method": "POST",
        "input": {"sku": "string*", "quantity": "integer*"},
    }
    assert found["actions_note"] == "input: type of each field, * if it is required."
    assert found["events"] == shopify["events"]


@pytest.mark.parametrize(
    ("action", "shown"),
    [
        ({"slug": "a", "input_schema": {"properties": {"x": {"type": "array", "items": {"type": "string"}}}}},
         {"slug": "a", "input": {"x": "array of string"}}),
        ({"slug": "a", "parameters": {"properties": {"x": {"type": "object", "properties": {"id": {}, "no": {}}}}}},
         {"slug": "a", "input": {"x": "object {id, no}"}}),
        ({"slug": "a", "inputSchema": {"properties": {"x": {"enum": ["on", 1]}, "y": True, "z": {}}, "required": "x"}},
         {"slug": "a", "input": {"x": "on | 1", "y": "any", "z": "any"}}),
        ({"slug": "a", "inputSchema": {"type": "object"}, "description": "Do it."},
         {"slug": "a", "description": "Do it.", "input": {"type": "object"}}),
        ({"slug": "a", "inputSchema": "text"}, {"slug": "a"}),
        ({"other": 1}, {"other": 1}),
    ],
)  # fmt: skip
async def test_unexpected_schemas_are_tolerated(world: World, action: JsonValue, shown: JsonValue) -> None:
    row = world.sandbox.state.named("connectors", "gamma")
    world.sandbox.state.put("connectors", {**row, "actions": [action]})
    assert (await actions_of(world, row["id"]))["actions"] == [shown]


async def test_update_keeps_whole_actions(world: World) -> None:
    """The short form is only shown. An update sends back what Fastn sent."""
    row = world.sandbox.state.named("connectors", "gamma")
    await world.expect(Done, UpdateConnector(connector_id=row["id"], description="Decks"), world.form())
    assert world.sandbox.state.named("connectors", "gamma")["actions"] == row["actions"]


async def test_workflow_names_the_fields_of_input_that_its_code_reads(world: World) -> None:
    answer = await world.ask(GetWorkflow(workflow_id=world.id_of("workflows", "update-inventory")))
    assert answer["input_fields"] == ["sku", "quantity"]
    assert "input_note" not in answer
    flow = world.id_of("workflows", "slack-messages-to-supabase-hourly-sync")
    passed_on = await world.ask(GetWorkflow(workflow_id=flow))
    assert passed_on["input_fields"] == []
    assert "passes the input on whole" in passed_on["input_note"]
    world.sandbox.state.named("workflows", "update-inventory")["code"] = None
    without = await world.ask(GetWorkflow(workflow_id=world.id_of("workflows", "update-inventory")))
    assert "input_fields" not in without


async def test_rename_of_a_trigger_says_nothing_of_runs(world: World) -> None:
    call = UpdateTrigger(trigger_id=trigger(world, "Hourly Slack sync"), name="Slack, hourly", description="New")
    preview = (await world.preview(call)).data_for_agent()
    assert "run" not in f"{preview['undo']} {preview['then']}"
    assert "fires" not in preview["then"]
    assert "lost" not in await receipt(world, call)
    paused = UpdateTrigger(trigger_id=trigger(world, "Slack, hourly"), name="Slack", schedule="0 * * * 1")
    assert "already started are not undone" in (await receipt(world, paused))["lost"]


def drop_runs(world: World) -> None:
    for collection in ("executions", "_runs"):
        world.sandbox.state.rows[collection].clear()


async def fires(world: World, name: str) -> dict[str, Any]:
    return (await world.ask(GetTrigger(trigger_id=trigger(world, name))))["fires"]


async def test_trigger_says_how_often_and_for_how_many_customers_it_fires(world: World) -> None:
    """Its schedule alone tells neither: it starts a run for each customer."""
    flow = world.id_of("workflows", "slack-messages-to-supabase-hourly-sync")
    drop_runs(world)
    for customer in ("acme-corp", "widget-inc", "katana-customer"):
        for hours in (1, 2):
            add_run(world, flow, hours, "completed", "scheduler", endOrgId=world.id_of("customers", customer))
    add_run(world, flow, 3, "completed", "manual", endOrgId=world.id_of("customers", "globex-exports"))
    add_run(world, flow, 30, "completed", "scheduler", endOrgId=world.id_of("customers", "globex-exports"))
    answer = await fires(world, "Hourly Slack sync")
    assert answer.pop("counted") == (
        "runs of its workflows with triggeredBy scheduler; other triggers may start some of them"
    )
    assert answer == {"times_a_day": 24, "runs_in_24_hours": 6, "runs_a_month_at_this_pace": 180, "customers": 3}


async def test_pace_of_a_new_trigger_is_that_since_its_creation(world: World) -> None:
    flow = world.id_of("workflows", "slack-messages-to-supabase-hourly-sync")
    drop_runs(world)
    row = world.sandbox.state.named("triggers", "Hourly Slack sync", by="name")
    row["createdAt"] = stamp(world.clock.at - timedelta(hours=2))
    add_run(world, flow, 1, "completed", "scheduler")
    answer = await fires(world, "Hourly Slack sync")
    assert (answer["runs_in_24_hours"], answer["runs_a_month_at_this_pace"]) == (1, 360)
    assert (answer["customers"], answer["also"]) == (0, "runs for no customer")


@pytest.mark.parametrize("filtering", Filtering)
async def test_runs_of_other_workflows_are_not_counted_whatever_fastn_filters(
    world: World, filtering: Filtering
) -> None:
    world.behave(filtering=filtering)
    answer = await fires(world, "Daily TikTok sync")
    assert answer["runs_in_24_hours"] in (1, "at least 1")


async def test_more_than_a_page_of_runs_is_counted_by_fastn(world: World) -> None:
    flow = world.id_of("workflows", "slack-messages-to-supabase-hourly-sync")
    drop_runs(world)
    for number in range(130):
        add_run(world, flow, 0.1 + number / 10, "completed", "scheduler", endOrgId=f"c{number % 3}")
    answer = await fires(world, "Hourly Slack sync")
    assert (answer["runs_in_24_hours"], answer["customers"]) == (130, "at least 3")


async def test_trigger_that_does_not_fire_has_no_pace(world: World) -> None:
    for name in ("Nightly contact sync", "Paid Shopify orders"):
        answer = await world.ask(GetTrigger(trigger_id=trigger(world, name)))
        assert "fires" not in answer, name
        assert answer["routes"][0]["workflow"]


async def test_trigger_names_its_workflows_in_few_requests(world: World) -> None:
    """The runs that are counted name them."""
    answer = await world.ask(GetTrigger(trigger_id=trigger(world, "Shop events")))
    assert [route["workflow"] for route in answer["routes"]] == ["process-new-orders", "update-inventory"]
    assert [request.tool for request in world.sandbox.requests] == ["get_trigger", "list_executions", "list_executions"]
    world.sandbox.requests.clear()
    await world.ask(GetTrigger(trigger_id=trigger(world, "Nightly contact sync")))
    assert [request.tool for request in world.sandbox.requests] == ["get_trigger", "get_workflow"]


async def test_trigger_is_shown_if_its_runs_and_workflows_cannot_be_read(world: World) -> None:
    flow = world.id_of("workflows", "slack-messages-to-supabase-hourly-sync")
    world.refuse("/api/v1/executions", "/api/v1/workflows", f"/api/v1/workflows/{flow}")
    answer = await world.ask(GetTrigger(trigger_id=trigger(world, "Hourly Slack sync")))
    assert answer["fires"]["times_a_day"] == 24
    assert "runs_in_24_hours" not in answer["fires"]
    assert answer["fires"]["not_counted"]
    assert "workflow" not in answer["routes"][0]


@pytest.mark.parametrize(
    ("authentication", "callers"),
    [
        ("API_KEY", WEBHOOK_KEY),
        ({"type": "NONE"}, WEBHOOK_PUBLIC),
        ("Public", WEBHOOK_PUBLIC),
        ("HMAC", "Who may call it is not known: authentication HMAC."),
        (None, "Who may call it is not known: authentication is not named."),
    ],
)
async def test_webhook_says_who_may_call_it(world: World, authentication: JsonValue, callers: str) -> None:
    world.sandbox.state.named("triggers", "Shop events", by="name")["authentication"] = authentication
    assert (await world.ask(GetTrigger(trigger_id=trigger(world, "Shop events"))))["callers"] == callers
    assert "callers" not in await world.ask(GetTrigger(trigger_id=trigger(world, "Hourly Slack sync")))


@pytest.mark.parametrize(("authentication", "callers"), [(None, WEBHOOK_KEY), ("NONE", WEBHOOK_PUBLIC)])
async def test_preview_and_receipt_of_a_webhook_say_who_may_call_it(
    world: World, authentication: str | None, callers: str
) -> None:
    flow = world.id_of("workflows", "update-inventory")
    call = CreateTrigger(name="Hook", type="webhook", routes=[{"routeId": flow}], authentication=authentication)
    then = (await world.preview(call)).data_for_agent()["then"]
    assert callers in then
    assert NO_CUSTOMER in then
    shown = await receipt(world, call)
    assert (shown["callers"], shown["customers"]) == (callers, NO_CUSTOMER)
    owner = world.id_of("customers", "Acme Corp")
    of_acme = call.model_copy(update={"name": "Hook of Acme", "customer_id": owner})
    assert NO_CUSTOMER not in (await world.preview(of_acme)).data_for_agent()["then"]
    assert "customers" not in await receipt(world, of_acme)


async def test_receipt_of_a_webhook_made_public_says_so(world: World) -> None:
    call = UpdateTrigger(trigger_id=trigger(world, "Shop events"), authentication="NONE")
    assert WEBHOOK_PUBLIC in (await world.preview(call)).data_for_agent()["then"]
    assert (await receipt(world, call))["callers"] == WEBHOOK_PUBLIC


async def test_quotas_say_when_each_resets_and_that_runs_are_not_limited(world: World) -> None:
    answer = await world.ask(GetQuotas())
    resets = {(row["name"], row["scope"]): row["resets"] for row in answer["quotas"]}
    assert resets["API calls", "per minute"] == "each minute"
    assert resets["API calls", "per day"].startswith("each day; Fastn does not say")
    assert resets["Connected accounts", "total"].startswith("no period is named")
    assert "No quota named here limits how many runs" in answer["what_counts"]
    assert len(world.sandbox.requests) == 1


def test_quota_with_a_time_resets_then_and_a_limit_on_runs_is_one() -> None:
    now = datetime(2026, 11, 25, tzinfo=UTC)
    rows: Any = {"quotas": [{"name": "Executions", "limit": 10, "used": 1, "resetsAt": "2026-12-01"}], "plan": "Free"}
    assert with_resets(rows, now)["quotas"] == [{**rows["quotas"][0], "resets": "2026-12-01T00:00:00Z (in 6 days)"}]
    assert "limits how many runs" not in unlimited(quotas_of(rows))
    assert with_resets({"quotas": ["odd", {"name": "no numbers"}]}, now) == {"quotas": ["odd", {"name": "no numbers"}]}
