"""Writes with external effects or access changes need approval, whichever field or slug they hide behind."""

from pathlib import Path
from typing import Any

import pytest
from support.faulty_sandbox import FaultMoment, Reset
from support.policy_files import ALLOWING, rules_of
from support.scripted_client import LATEST, connected, each_version, session
from support.server_process import body
from support.slack import served_slack
from support.slack_world import slack_world
from support.world import FormNow, World

from fastn_mcp.errors import Declined, NotSent, UnknownOutcome
from fastn_mcp.guard.approval_form import Decline, PendingApproval
from fastn_mcp.guard.result import Done
from fastn_mcp.policy.decision import Decision
from fastn_mcp.policy.policy import Policy
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.customers import UpdateCustomer

ORDERS = "wf_0d93ee5b1f62"
ROUTE = {"routeId": ORDERS, "environment": "live"}


def unused(world: World) -> dict[str, dict[str, str]]:
    """Return ids of unused resources: a draft, a connector without connections, a disabled and an active trigger."""
    state = world.sandbox.state
    customer = state.all("customers")[0]
    connector = state.put("connectors", {**state.all("connectors")[0], "id": "unused", "slug": "own", "name": "Own"})
    draft = next(row for row in state.all("workflows") if row["status"] == "draft")
    scheduler = next(row for row in state.all("triggers") if row["type"] == "scheduler")
    state.put("triggers", {**scheduler, "status": "Active", "schedule": "0 2 * * 1", "timezone": "UTC"})
    return {
        "customers": {"customer_id": str(customer["id"])},
        "connectors": {"connector_id": str(connector["id"])},
        "workflows": {"workflow_id": str(draft["id"])},
        "triggers": {"trigger_id": str(scheduler["id"])},
    }


ATTACKS: list[tuple[str, dict[str, Any]]] = [
    ("create_customer", {"name": "Initech", "admin_email": "eve@evil.example"}),
    ("update_customer", {"admin_email": "eve@evil.example"}),
    ("update_customer", {"extra": {"customerAdmin": {"email": "eve@evil.example"}}}),
    ("create_customer", {"name": "Initech", "extra": {"permissions": ["*"], "owner": "eve"}}),
    ("create_workflow", {"name": "n", "extra": {"status": "active", "enabled": True, "triggers": []}}),
    ("create_workflow", {"name": "n", "slug": "process-new-orders", "code": "evil()"}),
    ("create_workflow", {"name": "n", "slug": "Process_New-Orders", "code": "evil()"}),
    ("create_workflow", {"name": "process-new-orders", "code": "evil()"}),
    ("create_connector", {"name": "Initech", "slug": "initech", "extra": {"visibility": "Public"}}),
    ("create_connector", {"name": "Initech", "slug": "hubspot"}),
    ("update_connector", {"extra": {"visibility": "Public"}}),
    ("create_trigger", {"name": "n", "type": "webhook", "status": "Inactive", "routes": [ROUTE]}),
    *[
        ("create_trigger", {"name": "n", "type": "webhook", "status": "Disabled", "routes": [ROUTE | flags]})
        for flags in ({"status": "Active", "enabled": True}, {"status": "Active"}, {"enabled": True})
    ],
    ("update_trigger", {"schedule": "0 2 1-30 * 1"}),
    ("update_trigger", {"schedule": "0 2 */2 * 1"}),
    *[("update_workflow", {"status": word}) for word in ("running", "production", "on", "active ", "live2", "")],
    ("update_workflow", {"code": "evil()"}),
    ("update_workflow", {"extra": {"code": None}}),
    ("create_workflow", {"name": "n", "slug": "sync_tiktok_settlements_cin7", "code": "evil()"}),
]  # fmt: skip


def toolset(tool: str) -> str:
    return next(operation.toolset() for operation in CATALOG if operation.tool_name() == tool)


def many_declines(folder: Path) -> World:
    """Return an account whose person may decline as often as they want."""
    return World(folder, Policy(rules=rules_of(folder, "[breaker]\ndeclined = 100000")))


async def test_disguised_write_needs_approval(tmp_path: Path) -> None:
    world = many_declines(tmp_path)
    ids = unused(world)
    async with session(world, LATEST) as call:
        for number, (tool, arguments) in enumerate(ATTACKS, 1):
            reply = await call(tool, **(ids[toolset(tool)] if tool.startswith("update_") else {}), **arguments)
            assert world.changes == [], (tool, arguments)
            assert reply["outcome"] == "declined", (tool, arguments)
            assert len(call.messages) == number, (tool, arguments)
            question = call.messages[-1]
            if "orders" in str(arguments.get("slug", arguments.get("name"))).casefold():
                assert "process-new-orders" in question
                assert ORDERS in question
                assert "Overwrite the existing" in question
            if tool == "update_workflow":
                is_switch = str(arguments.get("status")).casefold().strip() == "active"
                sentence = (
                    "Switch on workflow" if is_switch else "Fastn may or may not publish the new code, within minutes"
                )
                assert sentence in question


async def test_disguised_write_is_shown_in_slack(tmp_path: Path) -> None:
    of_each_tool = dict(reversed(ATTACKS))
    with served_slack() as slack:
        async with slack_world(tmp_path, slack) as world, connected(world, LATEST) as client:
            ids = unused(world)
            for number, (tool, fields) in enumerate(of_each_tool.items(), 1):
                arguments = (ids[toolset(tool)] if tool.startswith("update_") else {}) | fields
                reply = body(await client.call_tool(tool, arguments))
                assert reply["status"] == "approval_required", tool
                assert (len(slack.messages), world.changes) == (number, []), tool
                assert slack.messages[-1].buttons.keys() == {"approve", "decline"}, tool


HARMLESS: list[tuple[str, dict[str, Any]]] = [
    ("create_customer", {"name": "Initech", "plan": "Free", "extra": {"tags": ["eu"]}}),
    ("create_workflow", {"name": "Something new", "slug": "something-new"}),
    ("create_connector", {"name": "Initech", "slug": "initech"}),
    ("create_trigger", {"name": "n", "type": "webhook", "status": "Disabled", "routes": [ROUTE]}),
    ("update_trigger", {"schedule": "0 2 * 1-6 1"}),
    ("update_trigger", {"status": "Disabled"}),
    ("update_workflow", {"description": "d", "status": "inactive"}),
]


async def test_plain_write_needs_no_approval(world: World) -> None:
    """People who are asked about everything stop reading."""
    ids = unused(world)
    async with session(world, LATEST) as call:
        for number, (tool, arguments) in enumerate(HARMLESS, 1):
            await call(tool, **(ids[toolset(tool)] if tool.startswith("update_") else {}), **arguments)
            assert (call.messages, len(world.changes)) == ([], number), (tool, arguments)


async def test_workflow_of_unknown_status_counts_as_live(tmp_path: Path) -> None:
    world = many_declines(tmp_path)
    ids = unused(world)["workflows"]
    row = world.sandbox.state.get("workflows", ids["workflow_id"])
    assert row is not None
    async with session(world, LATEST) as call:
        for number, status in enumerate(("running", "production", "on", "active ", "Deployed", None), 1):
            world.sandbox.state.put("workflows", {**row, "status": status})
            await call("update_workflow", **ids, description="evil")
            assert (len(call.messages), world.changes) == (number, []), status


@pytest.mark.parametrize("status", ["Pending Payment", "pending", "Suspended", None])
async def test_customer_of_unknown_status_counts_as_active(tmp_path: Path, status: str | None) -> None:
    world = World(tmp_path)
    row = world.sandbox.state.all("customers")[0]
    world.sandbox.state.put("customers", {**row, "status": status})
    assert await world.decision(UpdateCustomer(customer_id=str(row["id"]), name="Acme")) is Decision.CONFIRM


UNDOCUMENTED = (
    "status", "enabled", "active", "isActive", "disabled", "state", "live", "published", "publish", "publishedVersion",
    "deployed", "deploy", "visibility", "public", "shared", "scope", "role2", "roles", "owner", "ownerId", "permission",
    "users", "members", "teams", "admins", "customerAdmin", "invite", "triggers", "workflows", "connections", "secrets",
    "apiKeys", "webhookUrl", "runImmediately", "startsAt", "autoPublish", "overwrite", "upsert", "environments", "set",
)  # fmt: skip
PLAIN: dict[str, dict[str, Any]] = {
    "create_customer": {"name": "Initech"},
    "update_customer": {"name": "Initech"},
    "create_connector": {"name": "Initech", "slug": "initech"},
    "update_connector": {"name": "Initech"},
    "create_connection": {"connector_id": "hubspot", "credentials": {"token": "t"}},
    "create_workflow": {"name": "Something new"},
    "update_workflow": {"name": "Something new"},
    "create_trigger": {"name": "n", "type": "webhook", "status": "Disabled", "routes": [ROUTE]},
    "update_trigger": {"name": "n"},
    "create_role": {"name": "n", "permissions": []},
    "create_api_key": {"name": "n"},
    "create_secret": {"name": "N", "value": "v"},
    "invite_user": {"email": "a@b.example", "role": "Viewer"},
}
WRITING = [o for o in CATALOG if o.tool_name().startswith(("create_", "update_", "invite_"))]


@pytest.mark.parametrize("operation", WRITING, ids=lambda operation: operation.tool_name())
async def test_each_undocumented_field_needs_approval(operation: Any, tmp_path: Path) -> None:
    world = many_declines(tmp_path)
    tool = operation.tool_name()
    ids = unused(world).get(operation.toolset(), {}) if tool.startswith("update_") else {}
    assert len(set(UNDOCUMENTED)) == 40
    for name in UNDOCUMENTED:
        form = FormNow(lambda _: Decline(), world.clock)
        call = operation.model_validate(ids | PLAIN[tool] | {"extra": {name: True}})
        documented = name in map(operation.wire, operation.model_fields)  # has to be given as the argument that it is
        outcome = await world.call(call, form)
        assert isinstance(outcome, (NotSent, Declined) if documented else Declined), name
        assert documented or len(form.asked) == 1
    assert world.changes == []


@each_version
async def test_undocumented_field_of_a_client_needs_approval(version: str, tmp_path: Path) -> None:
    world = many_declines(tmp_path)
    ids = unused(world)
    async with session(world, version) as call:
        for number, tool in enumerate(("create_customer", "update_connector", "create_workflow", "update_trigger"), 1):
            fields = (ids[toolset(tool)] if tool.startswith("update_") else {}) | PLAIN[tool]
            reply = await call(tool, **fields, extra={"visibility": "x"})
            assert (reply["outcome"], len(call.messages), world.changes) == ("declined", number, []), tool
            reply = await call(tool, **fields, extra={"$set": "x"})  # no name of a field
            assert (reply["outcome"], len(call.messages), world.changes) == ("not_sent", number, []), tool


async def test_run_with_an_unknown_outcome_is_asked_about_with_another_idempotency_key(tmp_path: Path) -> None:
    """Agents make a new key for each attempt, and with a new one Fastn starts another run."""
    world = World(tmp_path, Policy(rules=ALLOWING))
    run = world.run()
    world.sandbox.faults.add(Reset(method="POST", moment=FaultMoment.AFTER))
    await world.expect(UnknownOutcome, run.model_copy(update={"idempotency_key": "one"}))
    for key in ("two", None, "one"):
        await world.expect(PendingApproval, run.model_copy(update={"idempotency_key": key}))
    await world.expect(Done, run.model_copy(update={"idempotency_key": "two", "input": {"other": True}}))
    assert len(world.changes) == 2
