"""Outlook on a call: the defaults that will be used, and the state that matters."""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest
from support.world import World

from fastn_mcp.account.outlook import Outlook, outlook_of
from fastn_mcp.account.resolved_call import Surroundings
from fastn_mcp.extensions.sandbox.state import stamp
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.policy.asker import Asker
from fastn_mcp.records.states import State
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.operation import Create
from fastn_mcp.tools.workflows import NO_ENVIRONMENT, UNNAMED_ENVIRONMENT, RunWorkflow

ORDERS = "process-new-orders"


def key(world: World, collection: str, slug: str, by: str = "slug") -> str:
    return str(world.sandbox.state.named(collection, slug, by)["id"])


async def preview(world: World, tool: str, **arguments: Any) -> dict[str, Any]:
    previewed = await world.preview(OPERATIONS[tool].model_validate(arguments))
    data = previewed.data_for_agent()
    assert all(note in "\n".join(previewed.lines()) for note in cast("list[str]", data.get("notes", [])))
    return data


async def of_run(world: World, slug: str = ORDERS, **arguments: Any) -> dict[str, Any]:
    return await preview(world, "run_workflow", workflow_id=key(world, "workflows", slug), **arguments)


async def test_run_names_its_environment(world: World) -> None:
    """Which one Fastn chooses is not documented; a setting of this server is known."""
    data = await of_run(world)
    assert data["defaults"] == {"environment": UNNAMED_ENVIRONMENT}
    assert data["notes"][0] == NO_ENVIRONMENT
    assert "defaults" not in await of_run(world, environment="live")
    world.surround(Surroundings("staging"))
    assert (await of_run(world))["defaults"] == {"environment": '"staging", by this server\'s settings'}


@pytest.mark.parametrize(
    ("slug", "note"),
    [
        ("sync_tiktok_settlements_cin7", "It was never published: Fastn refuses to run it."),
        ("orders-backfill", f"It is {State.OFF.value}: its triggers do not start it, but this call may."),
    ],
)
async def test_run_of_a_draft_or_an_inactive_workflow_says_so(world: World, slug: str, note: str) -> None:
    assert note in (await of_run(world, slug))["notes"]
    assert note not in (await of_run(world))["notes"]


async def test_run_of_a_workflow_of_unknown_state_says_so(world: World) -> None:
    world.sandbox.state.named("workflows", ORDERS)["status"] = "in review"
    assert "Whether it is published is unknown." in (await of_run(world))["notes"]


async def test_run_says_what_its_input_lacks(world: World) -> None:
    flow = world.sandbox.state.named("workflows", ORDERS)
    flow["inputSchema"] = None
    assert "Its input is empty." in (await of_run(world))["notes"]
    assert "Its input is empty." not in (await of_run(world, input={"orderId": "1"}))["notes"]
    flow["inputSchema"] = {"required": ["orderId", "shop"]}
    lacks = 'Its input lacks what its schema requires: "shop".'
    assert lacks in (await of_run(world, input={"orderId": "1"}))["notes"]
    flow["inputSchema"] = {"required": "orderId"}
    assert "Its input is empty." in (await of_run(world))["notes"]


async def test_run_says_which_fields_of_the_input_its_code_reads(world: World) -> None:
    reads = 'Its code reads of the input: "sku", "quantity".'
    empty = await of_run(world, "update-inventory")
    assert {reads, "Its input is empty."} <= {*empty["notes"]}
    right = await of_run(world, "update-inventory", input={"sku": "A", "quantity": 1})
    assert reads in right["notes"]
    wrong = await of_run(world, "update-inventory", input={"sku": "A", "qty": 1})
    assert f'{reads} It does not read "qty". The input lacks "quantity".' in wrong["notes"]


async def test_run_of_code_that_passes_its_input_on_names_no_field_that_is_not_read(world: World) -> None:
    flow = world.sandbox.state.named("workflows", ORDERS)
    flow["code"] = "export default async (ctx) => save(ctx.input, ctx.input.id);"
    assert 'Its code reads of the input: "id".' in (await of_run(world, input={"id": 1, "other": 2}))["notes"]
    flow["code"] = "export default async (ctx) => save(ctx.input);"
    assert not any("Its code reads" in note for note in (await of_run(world, input={"other": 2}))["notes"])
    flow["code"] = "export default async () => 1;"
    assert 'Its code reads no input. It does not read "a".' not in (await of_run(world, input={"a": 1}))["notes"]
    flow["code"] = "export default async (ctx) => ctx.headers;"
    assert 'Its code reads no input. It does not read "a".' in (await of_run(world, input={"a": 1}))["notes"]


async def test_run_names_its_customer(world: World) -> None:
    flow = world.sandbox.state.named("workflows", ORDERS)
    flow["connectors"] = [{"slug": "shopify", "scope": "MULTI_TENANT"}, {"slug": "slack", "scope": "SAAS"}]
    alone = 'No customer is named, but it uses customers\' connections: "shopify".'
    assert alone in (await of_run(world))["notes"]
    assert alone not in (await of_run(world, customer_ref="crm-1"))["notes"]
    named = await of_run(world, customer_id=key(world, "customers", "acme-corp"))
    assert 'for customer "Acme Corp"' in named["does"]
    pending = await of_run(world, customer_id=key(world, "customers", "acme-customer"))
    assert 'Customer "John-Acme" is pending: its integrations do not run.' in pending["notes"]
    world.refuse("/api/v1/customers/*")
    unread = await of_run(world, customer_id=key(world, "customers", "acme-corp"))
    assert "Its customer could not be read." in unread["notes"]
    flow["connectors"] = [{"slug": "slack", "scope": "SAAS"}]
    assert not any("customers" in note for note in (await of_run(world))["notes"])


async def test_change_of_a_managed_connector_is_said_to_be_refused(world: World) -> None:
    arguments = {"connector_id": key(world, "connectors", "shopify"), "description": "x"}
    managed = await preview(world, "update_connector", **arguments)
    note = "Fastn manages it, and managed connectors are read-only: the change will be refused."
    assert managed["notes"] == [note]
    world.sandbox.state.named("connectors", "shopify")["origin"] = "custom"
    assert "notes" not in await preview(world, "update_connector", **arguments)


async def test_run_says_how_the_last_ones_ended(world: World) -> None:
    state, now = world.sandbox.state, world.clock.now()
    flow = state.named("workflows", ORDERS)
    for run in state.all("executions"):
        if run["workflowId"] == flow["id"]:
            state.drop("executions", run["id"])
    assert "It has no earlier run." in (await of_run(world))["notes"]
    row = next(run for run in state.all("executions") if run["status"] == "failed")
    acme = key(world, "customers", "acme-corp")
    for hours, status, customer in ((3, "failed", None), (4, "completed", acme), (5, "failed", acme)):
        at = stamp(now - timedelta(hours=hours))
        error = {"headline": "No \u202estock"} if status == "failed" else None
        run = {"id": f"exec_{hours}", "workflowId": flow["id"], "status": status, "endOrgId": customer, "error": error}
        state.put("executions", row | run | {"createdAt": at, "startedAt": at})
    (last_run,) = [note for note in (await of_run(world))["notes"] if note.startswith("Last run")]
    assert last_run.startswith("Last run: failed 2026-11-25T06:00:00Z (3 hours ago): ")
    assert r"\u{202e}stock" in last_run
    assert last_run.endswith(" 2 of the last 3 failed.")
    (last_run,) = [note for note in (await of_run(world, customer_id=acme))["notes"] if note.startswith("Last run")]
    assert (
        last_run == "Last run for this customer: completed 2026-11-25T05:00:00Z (4 hours ago). 1 of the last 2 failed."
    )
    world.refuse("/api/v1/executions")
    assert "Its earlier runs could not be read." in (await of_run(world))["notes"]


async def test_new_key_names_defaults_expiry_and_destination(world: World) -> None:
    data = await preview(world, "create_api_key", name="BI")
    assert data["defaults"] == {
        "mode": "Test",
        "permissions": "Viewer (read-only)",
        "expires": "90d",
        "customers": "all",
    }
    assert data["notes"] == [
        "Requests with a Test key must send the X-fastn-Test-Mode header.",
        "It expires on 2027-02-23 (in 90 days).",
        'The key is written to a file in "keys" on this server\'s machine and is not returned.',
    ]
    acme = key(world, "customers", "acme-corp")
    given: dict[str, Any] = {"mode": "live", "permissions": "viewer", "expires": "1y", "customers": [acme]}
    world.surround(Surroundings())
    data = await preview(world, "create_api_key", name="BI", **given)
    assert "defaults" not in data
    assert data["notes"] == [
        "It expires on 2027-11-25 (in 1 year).",
        "The key is returned once, in the result, and stays in the conversation.",
    ]


@pytest.mark.parametrize(
    ("expires", "note"),
    [
        ("30d", "It expires on 2026-12-25 (in 30 days)."),
        ("never", "It never expires."),
        ("2026-12-01", "It expires on 2026-12-01 (in 6 days)."),
        ("soon", "Its expiry is not documented."),
    ],
)
async def test_new_key_says_when_it_expires(world: World, expires: str, note: str) -> None:
    assert note in (await preview(world, "create_api_key", name="BI", expires=expires))["notes"]


async def test_schedule_says_when_it_fires_next(world: World) -> None:
    trigger = world.sandbox.state.named("triggers", "Hourly Slack sync", "name")
    given: dict[str, Any] = {"trigger_id": str(trigger["id"]), "schedule": "30 9 * * *"}
    assert (await preview(world, "update_trigger", **given, timezone="UTC"))["notes"] == [
        "It fires next at 2026-11-25T09:30:00Z (in 30 minutes)."
    ]
    hook = world.id_of("triggers", "Shop events")
    assert "notes" not in await preview(world, "update_trigger", trigger_id=hook, schedule="30 9 * * *")
    assert (await preview(world, "update_trigger", **given, timezone="Mars"))["notes"] == [
        "Its next firing time is unknown: the time zone is not an IANA zone. Fastn may refuse it."
    ]
    assert "notes" not in await preview(world, "update_trigger", **given, status="Disabled")
    assert "notes" not in await preview(world, "update_trigger", trigger_id=str(trigger["id"]), name="Hourly")


async def test_switching_off_a_workflow_names_what_it_blocks(world: World) -> None:
    flow = key(world, "workflows", ORDERS)
    off = await preview(world, "update_workflow", workflow_id=flow, status="inactive")
    assert off["notes"] == ["Its triggers no longer start it; it can still be run by hand."]
    assert "notes" not in await preview(world, "update_workflow", workflow_id=flow, status="active")


def test_call_without_an_outlook_adds_nothing() -> None:
    assert Outlook().data() == {}


def connect(world: World, customer: str, app: str, **fields: Any) -> None:
    """Give a customer one connection to an app, and no other."""
    state, owner = world.sandbox.state, key(world, "customers", customer)
    row = next(each for each in state.all("connections") if each["connector"]["slug"] == "shopify")
    for each in state.all("connections"):
        if each["endOrgId"] == owner and each["connector"]["slug"] == app:
            state.drop("connections", each["id"])
    connector = state.named("connectors", app)
    refers = {"connectorId": connector["id"], "connector": {name: connector[name] for name in ("slug", "name")}}
    state.put("connections", {**row, "id": f"own-{app}", "name": "default", "endOrgId": owner, **refers, **fields})


@pytest.fixture
def contacts(world: World) -> dict[str, Any]:
    """A workflow that uses HubSpot of its customer, and Slack of the account; its customer is Acme."""
    flow = world.sandbox.state.named("workflows", ORDERS)
    flow["connectors"] = [{"slug": "hubspot", "scope": "MULTI_TENANT"}, {"slug": "slack", "scope": "SAAS"}]
    return {"customer_id": key(world, "customers", "acme-corp")}


FAILS = ': the run will fail where it calls "hubspot".'
NOT_SLACK = 'Connections to "slack" were not checked.'
NOT_CHECKED = 'Connections to "hubspot", "slack" were not checked.'


@pytest.mark.parametrize(
    ("fields", "note"),
    [
        (
            {"status": "INACTIVE", "expiresAt": None, "lastUsedAt": "2026-11-20T08:00:00Z"},
            f'"HubSpot of Acme Corp" is INACTIVE, last used 2026-11-20 (5 days ago){FAILS}',
        ),
        (
            {"status": "expired", "expiresAt": "2026-11-23T09:00:00Z"},
            f'"HubSpot of Acme Corp" is EXPIRED since 2026-11-23 (2 days ago){FAILS}',
        ),
        ({"status": "ACTIVE"}, NOT_SLACK),
        ({"status": "migrating"}, NOT_CHECKED),
        ({"status": None}, NOT_CHECKED),
    ],
)
async def test_run_says_which_connections_it_cannot_use(
    world: World, contacts: dict[str, Any], fields: dict[str, Any], note: str
) -> None:
    connect(world, "acme-corp", "hubspot", **fields)
    notes = (await of_run(world, **contacts))["notes"]
    about = [each for each in notes if "onnection" in each or "HubSpot" in each]
    assert about == ([note] if note in (NOT_SLACK, NOT_CHECKED) else [note, NOT_SLACK])
    pending = await world.expect(PendingApproval, RunWorkflow(workflow_id=key(world, "workflows", ORDERS), **contacts))
    assert pending.question.data_for_agent()["notes"] == notes
    asked = "\n".join((await world.open_request()).question.lines())
    assert all(each in asked for each in notes)


async def test_run_of_a_customer_without_the_app_will_fail(world: World, contacts: dict[str, Any]) -> None:
    missing = 'The customer has no connection to "hubspot": the run will fail where it calls it.'
    connect(world, "widget-inc", "hubspot", status="ACTIVE")
    assert missing in (await of_run(world, **contacts))["notes"]
    world.sandbox.state.named("workflows", ORDERS)["connectors"] = ["hubspot"]  # without a scope
    assert 'Connections to "hubspot" were not checked.' in (await of_run(world, **contacts))["notes"]
    world.sandbox.state.named("workflows", ORDERS)["connectors"] = None
    assert "Which connections it uses was not checked." in (await of_run(world, **contacts))["notes"]
    world.sandbox.state.named("workflows", ORDERS)["connectors"] = []
    assert not any("onnection" in note for note in (await of_run(world, **contacts))["notes"])


async def test_rows_that_do_not_tell_their_app_or_owner_are_not_checked(world: World, contacts: dict[str, Any]) -> None:
    connect(world, "acme-corp", "hubspot", status="FAILED")
    read, unchecked = world.judge._read, NOT_CHECKED  # pyright: ignore[reportPrivateUsage]

    async def without_owner(call: Any) -> Any:
        page = await read(call)
        return page.model_copy(update={"not_checked": ["customer_id"]}) if isinstance(call, ListConnections) else page

    world.judge._read = without_owner  # pyright: ignore[reportPrivateUsage]
    assert [each for each in (await of_run(world, **contacts))["notes"] if "hubspot" in each] == [unchecked]
    world.judge._read = read  # pyright: ignore[reportPrivateUsage]
    for row in world.sandbox.state.all("connections"):
        world.sandbox.state.put("connections", {name: value for name, value in row.items() if name != "connector"})
    assert [each for each in (await of_run(world, **contacts))["notes"] if "hubspot" in each] == [unchecked]


async def test_connections_of_a_run_take_one_request(world: World, contacts: dict[str, Any]) -> None:
    flow = world.sandbox.state.named("workflows", ORDERS)
    flow["connectors"] = [{"slug": app, "scope": "MULTI_TENANT"} for app in ("hubspot", "shopify", "slack", "xero")]
    await of_run(world, **contacts)
    paths = [request.path for request in world.sandbox.requests]
    assert paths.count("/api/v1/connections") == 1
    world.refuse("/api/v1/connections")
    unread = 'Connections to "hubspot", "shopify", "slack", "xero" were not checked.'
    assert unread in (await of_run(world, **contacts))["notes"]


@pytest.mark.parametrize(
    ("tool", "arguments", "label"),
    [
        ("create_api_key", {"name": "BI Export"}, '"BI export (…1bf6, live, operator)"'),
        ("create_role", {"name": "Viewer", "permissions": ["workflows:read"]}, '"Viewer"'),
        ("invite_user", {"email": "MEI@fastn.example", "role": "Viewer"}, "Operator, Active"),
    ],
)
async def test_what_exists_already_is_noted_before_a_person_approves_it_again(
    world: World, tool: str, arguments: dict[str, Any], label: str
) -> None:
    notes = "\n".join((await preview(world, tool, **arguments))["notes"])
    assert re.search(rf"It already exists: .*{re.escape(label)}.*\. Fastn may refuse another one\.", notes), notes
    new = {name: f"x.{value}" for name, value in arguments.items() if name in ("name", "email")}
    assert "exists already" not in str(await preview(world, tool, **arguments | new))
    world.refuse("/api/v1/*")
    assert "already exists was not checked" in str((await preview(world, tool, **arguments))["notes"])


EXISTING: dict[str, tuple[dict[str, Any], str, str]] = {
    "create_api_key": ({}, "name", "BI export"),
    "create_role": ({"permissions": ["workflows:read"]}, "name", "Viewer"),
    "invite_user": ({"role": "Viewer"}, "email", "mei@fastn.example"),
    "create_secret": ({"value": "v", "environment": "live"}, "name", "GOOGLE_SA"),
    "create_customer": ({}, "name", "Globex Exports"),
    "create_connector": ({"slug": "an-app"}, "name", "Shopify"),
    "create_workflow": ({}, "name", "Process new orders"),
}
"""Arguments, and the one that names what exists, by tool."""

SPELLINGS: dict[str, Callable[[str], str]] = {
    "case": str.swapcase,
    "an invisible character": lambda name: f"{name[:2]}\u200b{name[2:]}",
    "compatible letters": lambda name: "".join(chr(ord(each) + 0xFEE0) if each.isalnum() else each for each in name),
}


@pytest.mark.parametrize("tool", EXISTING)
@pytest.mark.parametrize("spelled", SPELLINGS.values(), ids=SPELLINGS)
async def test_name_that_reads_like_an_existing_one_is_not_said_to_be_new(
    world: World, tool: str, spelled: Callable[[str], str]
) -> None:
    """A person who approves a second "Viewer" would take it for the first."""
    arguments, name, existing = EXISTING[tool]
    call = OPERATIONS[tool].model_validate({**arguments, name: spelled(existing)})
    resolved = (await world.judge.judge_call(call, Asker())).resolved
    if issubclass(OPERATIONS[tool], Create):
        assert resolved.target is not None
    else:
        notes = (await outlook_of(resolved, world.client.send, world.clock.now(), Surroundings())).notes
        assert any(note.startswith("It already exists: ") for note in notes), notes


async def test_what_exists_already_is_looked_for_in_one_page(world: World) -> None:
    role = world.sandbox.state.named("roles", "Viewer", "name")
    for number in range(120):
        world.sandbox.state.put("roles", role | {"id": f"r{number}", "name": f"Role {number}"})
    world.sandbox.requests.clear()
    notes = (await preview(world, "create_role", name="Auditor", permissions=["workflows:read"]))["notes"]
    assert 'Whether "Auditor" already exists was not checked beyond the first 100.' in notes
    assert [request.path for request in world.sandbox.requests] == ["/api/v1/roles"]


async def test_preview_names_a_workflow_and_a_connector_that_do_not_exist(world: World) -> None:
    refused = "or the server's API key has no access to it. Fastn may refuse the call."
    routes = [{"routeId": "wf_none", "environment": "live"}]
    trigger = await preview(world, "create_trigger", name="x", type="webhook", routes=routes)
    assert trigger["notes"] == [f'No workflow has the id "wf_none", {refused}']
    connection = await preview(world, "create_connection", connector_id="none")
    assert f'No connector has the id "none", {refused}' in connection["notes"]


async def test_preview_of_a_connection_lists_the_auth_methods_instead_of_an_unknown_one(world: World) -> None:
    connector = world.sandbox.state.named("connectors", "hubspot")
    (method,) = connector["authMethods"]
    arguments = {"connector_id": connector["id"], "auth_method_id": "none"}
    notes = (await preview(world, "create_connection", **arguments))["notes"]
    assert f'"HubSpot" has no auth method "none"; it has "{method["id"]}" ("{method["type"]}").' in notes
    arguments["auth_method_id"] = method["id"]
    assert "notes" not in await preview(world, "create_connection", **arguments)
