"""What uses a resource: for agents as for the guard, by the same looks."""

from typing import Any

import pytest
from faulty_sandbox import Status
from world import World

from fastn_mcp.errors import Forbidden, NotFound, NotSent
from fastn_mcp.guard.approval.flow import Caller
from fastn_mcp.guard.changes import Done
from fastn_mcp.procedures.catalog import BY_NAME, parse
from fastn_mcp.procedures.diagnosis.diagnose_workflow import DiagnoseWorkflow
from fastn_mcp.procedures.find_dependents import DETAILS, EXAMPLES, FindDependents, Kind
from fastn_mcp.sandbox.behaviour import Behaviour, Envelope, Filtering, Paging
from fastn_mcp.tools.connectors import DeleteConnector, GetConnector, ListConnections
from fastn_mcp.tools.customers import DeleteCustomer
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import DeleteWorkflow, GetWorkflow, ListWorkflows, Workflow

pytestmark = pytest.mark.anyio

Answer = dict[str, Any]


async def dependents(world: World, kind: Kind, key: str) -> Answer:
    done = await world.call(FindDependents(kind=kind, id=key))
    assert isinstance(done, Done), done
    return done.result.model_dump()


def key(world: World, collection: str, value: str, by: str = "slug") -> str:
    return str(world.sandbox.state.named(collection, value, by)["id"])


def counts(rows: list[Answer]) -> dict[str, int]:
    return {row["kind"]: row["count"] for row in rows}


def names(rows: list[Answer], kind: str) -> list[str]:
    (row,) = [row for row in rows if row["kind"] == kind]
    return sorted(example["name"] for example in row["examples"])


async def test_a_customer_is_used_by_its_connections_secrets_runs_and_triggers(world: World) -> None:
    """Ours (issue 6)."""
    answer = await dependents(world, "customer", key(world, "customers", "globex-exports"))
    assert answer["of"]["name"] == "Globex Exports"
    assert counts(answer["used_by"]) == {"connections": 1, "secrets": 1, "executions": 1}
    assert names(answer["used_by"], "connections") == ["Shopify of Globex Exports"]
    assert names(answer["used_by"], "secrets") == ["PARTNER_TOKEN"]
    assert names(answer["may_be_used_by"], "triggers") == ["Paid Shopify orders"]
    assert answer["not_checked"] == []


async def test_a_connector_is_used_by_connections_workflows_and_triggers(world: World) -> None:
    """Ours: workflows name it by its slug, triggers by its id."""
    answer = await dependents(world, "connector", key(world, "connectors", "hubspot"))
    assert counts(answer["used_by"]) == {"connections": 1, "workflows": 2, "triggers": 1}
    assert names(answer["used_by"], "triggers") == ["New HubSpot contact"]
    assert answer["not_checked"] == []


async def test_a_connection_is_used_by_triggers_and_perhaps_by_its_connectors_workflows(world: World) -> None:
    """Ours: a workflow names connectors, so that more cannot be said."""
    connector = key(world, "connectors", "hubspot")
    connection = key(world, "connections", connector, by="connectorId")
    answer = await dependents(world, "connection", connection)
    assert names(answer["used_by"], "triggers") == ["New HubSpot contact"]
    assert counts(answer["may_be_used_by"]) == {"workflows": 2}
    assert [gap["what"] for gap in answer["not_checked"]] == ["workflows"]


async def test_a_workflow_is_used_by_the_triggers_that_start_it(world: World) -> None:
    """Ours."""
    answer = await dependents(world, "workflow", key(world, "workflows", "process-new-orders"))
    assert names(answer["used_by"], "triggers") == ["Paid Shopify orders", "Shop events"]
    assert [gap["what"] for gap in answer["not_checked"]] == ["other callers"]


async def test_triggers_that_only_mention_a_workflow_do_not_depend_on_it(world: World) -> None:
    """Ours: only the id of a route counts, in find_dependents as in diagnose_workflow."""
    flow, other = key(world, "workflows", "process-new-orders"), key(world, "workflows", "update-inventory")
    for row in world.sandbox.state.all("triggers"):
        row["routes"] = [{"routeId": other, "filter": {"field": "source", "value": flow}}]
    assert (await dependents(world, "workflow", flow))["used_by"] == []
    diagnosis = await world.call(DiagnoseWorkflow(workflow_id=flow))
    assert isinstance(diagnosis, Done)
    assert diagnosis.result.model_dump()["triggers"] == []


async def test_triggers_with_unreadable_routes_are_not_checked(world: World) -> None:
    """Ours: routes in an unknown shape are no all-clear."""
    rows = world.sandbox.state.all("triggers")
    for row in rows:
        row["routes"] = [{"target": {"ref": "flows/1"}}]
    answer = await dependents(world, "workflow", key(world, "workflows", "process-new-orders"))
    assert [gap["what"] for gap in answer["not_checked"]] == [f"{len(rows)} triggers", "other callers"]


async def test_a_secret_is_looked_for_in_the_code_of_workflows(world: World) -> None:
    """Ours: the list shows no code, so each workflow is read; a name that code puts together is never seen."""
    flow = world.sandbox.state.named("workflows", "update-inventory")
    flow["code"] = 'export default async (ctx) => fastn.secrets.get("SHOPIFY_API_TOKEN");'
    answer = await dependents(world, "secret", key(world, "secrets", "SHOPIFY_API_TOKEN", by="name"))
    assert names(answer["may_be_used_by"], "workflows") == ["update-inventory"]
    assert [gap["what"] for gap in answer["not_checked"]] == ["workflows that read it"]
    assert len(world.sandbox.requests) == 2 + len(world.sandbox.state.all("workflows"))


async def test_of_many_workflows_only_so_many_are_read_and_the_rest_is_said(world: World) -> None:
    """Ours: bounded, and honest about it."""
    flow = world.sandbox.state.named("workflows", "update-inventory")
    for number in range(90):
        world.sandbox.state.put("workflows", flow | {"id": f"wf_{number}", "slug": f"copy-{number}"})
    answer = await dependents(world, "secret", key(world, "secrets", "GOOGLE_SA", by="name"))
    reads = [heard for heard in world.sandbox.requests if heard.tool == GetWorkflow.tool_name()]
    assert len(reads) == DETAILS
    assert f"{99 - DETAILS} workflows" in [gap["what"] for gap in answer["not_checked"]]


async def test_nothing_in_fastn_uses_a_trigger_and_that_is_no_all_clear(world: World) -> None:
    """Ours."""
    answer = await dependents(world, "trigger", key(world, "triggers", "Shop events", by="name"))
    assert answer["used_by"] == []
    assert [gap["what"] for gap in answer["not_checked"]] == ["whatever uses it"]


KINDS: list[tuple[Kind, str]] = [
    ("customer", "customers"),
    ("connector", "connectors"),
    ("connection", "connections"),
    ("workflow", "workflows"),
    ("secret", "secrets"),
    ("trigger", "triggers"),
]


@pytest.mark.parametrize(("kind", "collection"), KINDS)
async def test_it_goes_on_with_a_real_call_that_shows_the_deletion_and_changes_nothing(
    world: World, kind: Kind, collection: str
) -> None:
    """Ours: `next` can be made as it is."""
    row = world.sandbox.state.all(collection)[0]
    answer = await dependents(world, kind, str(row["id"]))
    wanted = parse(BY_NAME, answer["next"]["tool"], answer["next"]["arguments"])
    assert wanted.dry_run
    assert wanted.call.target == str(row["id"])
    shown = (await world.dispatch.preview(wanted.call, Caller("local", None))).data()
    assert counts(shown.get("used_by", [])) == counts(answer["used_by"])  # pyright: ignore[reportArgumentType]
    assert world.changes == []


@pytest.mark.parametrize(("kind", "collection"), KINDS)
async def test_what_is_not_there_is_said_to_be_not_there(world: World, kind: Kind, collection: str) -> None:
    """Ours: no all-clear for a mistyped id."""
    failed = await world.call(FindDependents(kind=kind, id=f"no-{collection}"))
    assert isinstance(failed, NotFound)


def test_another_kind_is_refused() -> None:
    """Ours."""
    with pytest.raises(NotSent, match="kind"):
        parse(BY_NAME, "find_dependents", {"kind": "user", "id": "u1"})


@pytest.mark.parametrize(("kind", "collection"), KINDS)
@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(envelope=Envelope.DATA_DATA, paging=Paging.TOTAL),
        Behaviour(envelope=Envelope.ITEMS, paging=Paging.CURSOR),
        Behaviour(envelope=Envelope.BARE, paging=Paging.IGNORED, filtering=Filtering.IGNORED),
    ],
    ids=str,
)
async def test_the_same_is_found_whatever_envelopes_pages_and_filters_are(
    world: World, kind: Kind, collection: str, behaviour: Behaviour
) -> None:
    """Ours: but for the runs, of which an unfiltered list shows only the newest."""
    row = world.sandbox.state.all(collection)[-1]
    usual = await dependents(world, kind, str(row["id"]))
    world.sandbox.behaviour = behaviour
    answer = await dependents(world, kind, str(row["id"]))
    for part in ("used_by", "may_be_used_by"):
        assert counts(answer.get(part, [])) == counts(usual.get(part, []))


async def test_a_kind_that_cannot_be_read_is_named_and_the_rest_is_told(world: World) -> None:
    """Ours: a 403 on one list, and on the resource itself, sinks nothing."""
    for operation in (ListConnections, GetConnector):
        world.sandbox.faults.add(
            Status(status=403, path=operation.route.path.replace("{connector_id}", "*"), times=None)
        )
    answer = await dependents(world, "connector", key(world, "connectors", "hubspot"))
    assert [gap["what"] for gap in answer["not_checked"]] == ["the resource itself", "connections"]
    assert all("(403)" in gap["why"] for gap in answer["not_checked"])
    assert names(answer["used_by"], "triggers") == ["New HubSpot contact"]


async def test_workflows_that_do_not_say_what_they_use_are_read_one_by_one(world: World) -> None:
    """Ours: a list that shows less than the workflow is no all-clear."""
    send = world.client.send

    async def less(call: Any) -> Any:
        answer: Any = await send(call)
        if isinstance(call, ListWorkflows):
            rows = [row.model_dump(exclude={"connectors"}) for row in answer.items]
            return answer.model_copy(update={"items": [Workflow.model_validate(row) for row in rows]})
        return answer

    world.client.send = less
    connector = key(world, "connectors", "hubspot")
    answer = await dependents(world, "connector", connector)
    assert counts(answer["used_by"])["workflows"] == 2
    world.sandbox.faults.add(Status(status=404, path="/api/v1/workflows/*", times=None))
    answer = await dependents(world, "connector", connector)
    assert [gap["what"] for gap in answer["not_checked"]] == ["9 workflows"]


async def test_the_guard_is_told_too_that_workflows_do_not_say_what_they_use(world: World) -> None:
    """Ours (DESIGN 5.3): and counts the dependents as unknown."""
    for flow in world.sandbox.state.all("workflows"):
        flow["connectors"] = None
    call = DeleteConnector(connector_id=key(world, "connectors", "gamma"))
    shown = (await world.dispatch.preview(call, Caller("local", None))).data()
    assert shown["not_checked"] == ["workflows"]


async def test_of_many_runs_there_are_three_examples_by_name_and_the_count_says_at_least(world: World) -> None:
    """Ours: three pages of a hundred are read; where Fastn gives no total, there may be more."""
    state = world.sandbox.state
    widget = key(world, "customers", "widget-inc")
    row = state.all("executions")[0] | {"endOrgId": widget}
    for number in range(400):
        state.put("executions", row | {"id": f"exec_x{number}"})
    count = len([row for row in state.all("executions") if row["endOrgId"] == widget])
    exact = await dependents(world, "customer", widget)
    (runs,) = [used for used in exact["used_by"] if used["kind"] == "executions"]
    assert (runs["count"], "at_least" in runs, len(runs["examples"])) == (count, False, EXAMPLES["executions"])
    assert runs["more"] == {"tool": "list_executions", "arguments": {"customer_id": widget}}
    assert all(example["name"] for example in runs["examples"])
    world.sandbox.behaviour = Behaviour(paging=Paging.CURSOR)
    (runs,) = [
        used for used in (await dependents(world, "customer", widget))["used_by"] if used["kind"] == "executions"
    ]
    assert (runs["count"], runs["at_least"]) == (300, True)


async def test_a_total_of_everything_is_not_taken_for_the_customers_own(world: World) -> None:
    """Ours: a Fastn that ignores the filter counts all of its rows."""
    state = world.sandbox.state
    row = state.all("executions")[0] | {"endOrgId": None}
    for number in range(400):
        state.put("executions", row | {"id": f"exec_x{number}"})
    world.sandbox.behaviour = Behaviour(filtering=Filtering.IGNORED)
    answer = await dependents(world, "customer", key(world, "customers", "widget-inc"))
    (runs,) = [used for used in answer["used_by"] if used["kind"] == "executions"] or [None]
    assert runs is None or (runs["count"] < 100 and runs["at_least"])


async def test_more_than_is_read_without_a_hit_is_not_an_all_clear(world: World) -> None:
    """Ours: to the agent and to the guard."""
    state = world.sandbox.state
    hook: dict[str, Any] = {**state.named("triggers", "Shop events", by="name"), "routes": []}
    for number in range(400):
        state.put("triggers", hook | {"id": f"t{number}", "createdAt": "2026-11-24T00:00:00.000Z"})
    flow = key(world, "workflows", "process-new-orders")
    answer = await dependents(world, "workflow", flow)
    assert [gap["what"] for gap in answer["not_checked"]] == ["triggers", "other callers"]
    shown = (await world.dispatch.preview(DeleteWorkflow(workflow_id=flow), Caller("local", None))).data()
    assert shown["not_checked"] == ["other callers", "triggers"]


async def test_the_guards_preview_of_a_customer_reads_no_more_than_it_did(world: World) -> None:
    """Ours: what is only perhaps a dependent does not decide how a person is asked."""
    john = key(world, "customers", "acme-customer")
    await world.dispatch.preview(DeleteCustomer(customer_id=john), Caller("local", None))
    assert [heard.tool for heard in world.sandbox.requests] == [
        "get_customer", "list_connections", "list_secrets", "list_executions"
    ]  # fmt: skip


async def test_what_a_policy_forbids_to_read_is_not_a_reason_to_fail(world: World) -> None:
    """Ours: each look fails for itself."""
    send = world.client.send

    async def forbidding(call: Any) -> Any:
        if isinstance(call, ListTriggers):
            raise Forbidden("No triggers here.")
        return await send(call)

    world.client.send = forbidding
    answer = await dependents(world, "connector", key(world, "connectors", "shopify"))
    assert {"what": "triggers", "why": "No triggers here."} in answer["not_checked"]
