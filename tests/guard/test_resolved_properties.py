"""What holds for every tool that changes something: it is judged, and approved, by what it will do."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.direct_sandbox import Fastn
from support.policy_files import CONFIRMING
from support.sensible_calls import ORDERS, sensible
from support.world import FormNow, World, yes

from fastn_mcp.account.resolve import by_arguments
from fastn_mcp.account.resolved_call import KINDS, Surroundings
from fastn_mcp.errors import TargetChanged
from fastn_mcp.guard.approval_form import Approve
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.policy.decision import Decision
from fastn_mcp.policy.policy import Policy
from fastn_mcp.tools.catalog import CATALOG
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect

Call = Operation[Any]

CHANGING = [operation.tool_name() for operation in CATALOG if operation.effect is not Effect.READ]
OWNER_FIELDS = {"connections": "endOrgId", "triggers": "endOrgId", "secrets": "customerId"}


def calls_of(world: World) -> dict[str, Call]:
    """Return a call of each tool that changes something, of nothing that is Globex's or in an environment."""
    return {call.tool_name(): call for call in sensible(Fastn(world.sandbox)) if call.effect is not Effect.READ}


def with_arguments(call: Call, **given: Any) -> Call:
    return type(call)(**{**call.arguments(), **given})


def row_of_target(world: World, call: Call) -> dict[str, Any]:
    return next(row for row in world.sandbox.state.all(call.toolset()) if str(row["id"]) == call.target)


def customer_ways(world: World, call: Call, customer: str) -> Iterator[tuple[str, Call, Surroundings]]:
    """Yield each way in which a call can act for a customer; the sandbox's records are changed for the last one."""
    none = Surroundings()
    taken = {"customer_id": customer, "customers": [customer]}
    if given := {name: value for name, value in taken.items() if name in type(call).model_fields}:
        yield "argument", with_arguments(call, **given), none
    yield (
        "setting",
        with_arguments(call, customer_id=None) if call.tool_name() == "run_workflow" else call,
        (Surroundings(customer=customer)),
    )
    if call.target is not None and call.toolset() in OWNER_FIELDS:
        row_of_target(world, call)[OWNER_FIELDS[call.toolset()]] = customer
        yield "record", call, none


@pytest.mark.parametrize("tool", CHANGING)
@pytest.mark.parametrize(
    "rule",
    ['[[protect]]\ncustomer = "Globex Exp*"\n', '[[rule]]\nwhen = { customer_id = "Globex*" }\nthen = "deny"\n'],
    ids=["protected", "rule"],
)
async def test_customer_is_recognised_wherever_a_call_takes_it_from(tmp_path: Path, tool: str, rule: str) -> None:
    world = World.with_rules(tmp_path, rule)
    call = calls_of(world)[tool]
    world.surround(Surroundings())
    acme = world.id_of("customers", "Acme Corp")
    of_another = {"create_api_key": {"customers": [acme]}, "create_secret": {"customer_id": acme}}  # else of all
    assert await world.decision(with_arguments(call, **of_another.get(tool, {}))) is not Decision.DENY
    for way, acting, surroundings in customer_ways(world, call, world.id_of("customers", "Globex Exports")):
        world.surround(surroundings)
        assert await world.decision(acting) is Decision.DENY, way


def environment_ways(world: World, call: Call) -> Iterator[tuple[str, Call, Surroundings]]:
    """Yield each way in which a call can act in the environment `live`."""
    none, routes = Surroundings("test"), [{"routeId": ORDERS, "environment": "live"}]
    if "environment" in type(call).model_fields:
        yield "argument", with_arguments(call, environment="live"), Surroundings()
    if call.tool_name() == "create_trigger":
        yield "argument", with_arguments(call, routes=routes), none
    yield "setting", call, Surroundings("live")
    if call.toolset() == "triggers" and call.target is not None:
        row_of_target(world, call)["routes"] = routes
        yield "record", call, none
    elif call.toolset() in ("connections", "secrets") and call.target is not None:
        row_of_target(world, call)["environment"] = "live"
        yield "record", call, none


@pytest.mark.parametrize("tool", CHANGING)
async def test_environment_is_recognised_wherever_a_call_takes_it_from(tmp_path: Path, tool: str) -> None:
    world = World.with_rules(tmp_path, '[[rule]]\nwhen = { environment = "live" }\nthen = "deny"\n')
    for way, acting, surroundings in environment_ways(world, calls_of(world)[tool]):
        world.surround(surroundings)
        assert await world.decision(acting) is Decision.DENY, way


def naming(world: World) -> dict[str, Call]:
    """Return calls that name every kind of record that they can."""
    calls, acme = calls_of(world), world.id_of("customers", "Acme Corp")
    gamma, connection = world.id_of("connectors", "Gamma"), str(world.sandbox.state.all("connections")[0]["id"])
    more: dict[str, dict[str, Any]] = {
        "create_connection": {"customer_id": acme},
        "create_trigger": {"connector_id": gamma, "connection_id": connection, "type": "app_event", "events": ["e"]},
        "create_api_key": {"customers": [acme]},
        "create_secret": {"customer_id": acme},
        "create_role": {"parent": "Viewer"},
    }
    return {name: with_arguments(call, **more.get(name, {})) for name, call in calls.items()}


CHANGED = {
    "customer": ("status", "Suspended"),
    "connector": ("domain", "evil.example"),
    "connection": ("status", "FAILED"),
    "workflow": ("description", "It does something else."),
    "trigger": ("description", "It does something else."),
    "api_key": ("mode", "Other"),
    "secret": ("environment", "staging"),
    "role": ("permissions", ["*"]),
}
"""A field by kind that says nothing about who a record is."""


def references_of(call: Call) -> list[tuple[str, str]]:
    return [(kind, key) for kind, key in by_arguments(call).references]


def change_and_approve(world: World, kind: str, key: str, form: ApprovalRequest) -> Approve:
    rows = world.sandbox.state.all("apiKeys" if kind == "api_key" else KINDS[kind].toolset)
    row = next(row for row in rows if key in (str(row["id"]), row.get("slug"), row.get("name")))
    field, value = CHANGED[kind]
    assert row.get(field) != value
    row[field] = value
    return yes(form)


@pytest.mark.parametrize("tool", CHANGING)
async def test_named_record_that_changes_after_the_approval_voids_it(tmp_path: Path, tool: str) -> None:
    """In the mode `manual`, which asks about every change."""
    begin = World(tmp_path)
    for kind, key in references_of(naming(begin)[tool]):
        world = World(tmp_path, Policy(rules=CONFIRMING), ledger=Ledger(SqliteStore(":memory:")))
        call = naming(world)[tool]
        outcome = await world.call(call, FormNow(partial(change_and_approve, world, kind, key), world.clock))
        assert isinstance(outcome, TargetChanged), (kind, outcome)
        assert world.changes == []


def test_every_kind_that_an_argument_can_name_is_tested(tmp_path: Path) -> None:
    world = World(tmp_path)
    kinds = {kind for call in naming(world).values() for kind, _ in references_of(call)}
    assert kinds == KINDS.keys()
