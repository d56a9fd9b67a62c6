"""Every argument that names a record takes its id, its slug and its name, in every tool."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.behaviour import Filtering
from support.grown_account import grown
from support.sensible_calls import sensible_arguments
from support.world import FormLater, World, batch_of, called_with

from fastn_mcp.account.short_ids import short_id
from fastn_mcp.errors import Disabled, FastnError, InvalidArgument, NotFound, NotSent
from fastn_mcp.extensions.sandbox.state import Row
from fastn_mcp.guard.approval_form import Approve, PendingApproval
from fastn_mcp.guard.result import Done
from fastn_mcp.procedures.catalog import ALL_TOOLS, TOOLS, parse
from fastn_mcp.procedures.lookup import KINDS_BY_ARGUMENT
from fastn_mcp.tools.access import CreateApiKey, RevokeApiKey
from fastn_mcp.tools.ai import AiBuild, AiChat
from fastn_mcp.tools.connectors import CreateConnection
from fastn_mcp.tools.customers import DeleteCustomer, UpdateCustomer
from fastn_mcp.tools.tool import AnyTool, Effect
from fastn_mcp.tools.triggers import CreateTrigger
from fastn_mcp.tools.workflows import RunWorkflow, UpdateWorkflow

NOT_NAMED = {"execution_id", "session_id", "change_id", "auth_method_id", "installation_id", "resource_id"}
"""Ids of what has no name; the audit log looks up the names of `resource_id` itself."""

COLLECTIONS = {"api_key": "apiKeys"}


class Argument(NamedTuple):
    """An argument that names a record, and what the tool needs besides."""

    tool: AnyTool
    name: str
    others: dict[str, Any]

    @property
    def kind(self) -> str:
        return KINDS_BY_ARGUMENT[self.name]

    def call(self, value: str) -> Any:
        return parse(TOOLS, self.tool.tool_name(), {**self.others, self.name: value}).call


def named_arguments() -> list[Argument]:
    others: dict[str, Any] = sensible_arguments() | {"query": {"sql": "select count(*) from runs"}}
    return [
        Argument(tool, name, others.get(tool.tool_name(), {}))
        for tool in ALL_TOOLS
        for name in tool.model_fields
        if name in KINDS_BY_ARGUMENT
    ]


def record_of(world: World, argument: Argument) -> Row:
    """Return the record that a sensible call names, or else the first of its kind, with a name of its own."""
    rows = world.sandbox.state.all(COLLECTIONS.get(argument.kind, f"{argument.kind}s"))
    usual = str(argument.others.get(argument.name))
    row = next((row for row in rows if str(row["id"]) == usual), rows[0])
    if argument.kind == "connection":
        row["name"] = f"Books {rows.index(row)}"  # the name of most is "default"
    return row


async def outcome(world: World, argument: Argument, value: str) -> object:
    """Return the answer to a read, or the call that the guard judges, with ids."""
    call = argument.call(value)
    if argument.tool.effect is not Effect.READ:
        return (await world.dispatch.evaluate(call, called_with(None))).call
    answer = await world.ask(call)
    answer.pop("named", None)
    return answer


async def test_every_argument_that_names_a_record_takes_its_id_slug_and_name(world: World) -> None:
    arguments = named_arguments()
    wrong: list[str] = []
    for argument in arguments:
        row = record_of(world, argument)
        by_id = await outcome(world, argument, str(row["id"]))
        names = {str(row["name"]), str(row["name"]).upper(), str(row.get("slug") or row["name"])}
        values = names | {short_id(str(row["id"]))}
        for value in sorted(values):
            try:
                if await outcome(world, argument, value) == by_id:
                    continue
                wrong.append(f"{argument.tool.tool_name()} {argument.name}={value!r}: another answer")
            except FastnError as error:
                wrong.append(f"{argument.tool.tool_name()} {argument.name}={value!r}: {error}")
    assert wrong == []
    assert world.changes == []
    assert {argument.kind for argument in arguments} >= {"customer", "connection", "trigger", "api_key", "secret"}


def test_every_id_argument_is_looked_up_or_has_no_name() -> None:
    for tool in ALL_TOOLS:
        ids = {name for name in tool.model_fields if name.endswith("_id")}
        assert ids - KINDS_BY_ARGUMENT.keys() <= NOT_NAMED, tool.tool_name()


async def test_records_in_lists_and_objects_are_named_too(world: World) -> None:
    acme = world.id_of("customers", "acme-corp")
    orders = world.id_of("workflows", "process-new-orders")
    gamma = world.id_of("connectors", "gamma")
    routes: list[Any] = [{"routeId": "process-new-orders", "environment": "test"}]
    trigger = CreateTrigger(name="Hook", type="webhook", routes=routes, status="Disabled")
    cases: list[tuple[Any, str, object]] = [
        (trigger, "routes", [{"routeId": orders, "environment": "test"}]),
        (CreateApiKey(name="BI", customers=["Acme Corp", acme]), "customers", [acme]),
        (AiChat(message="Hi", context={"customerId": "acme-corp"}), "context", {"customerId": acme}),
        (AiBuild(type="workflow", prompt="Go", connectors=[gamma, "xero"]), "connectors", ["gamma", "xero"]),
    ]
    for call, name, expected in cases:
        judged = (await world.dispatch.evaluate(call, called_with(None))).call
        assert getattr(judged, name) == expected


@pytest.mark.parametrize("name", ["Twin Foods", "twin foods"])
async def test_change_by_a_name_of_two_records_is_refused_with_both(world: World, name: str) -> None:
    """Also if one of them has it exactly as it was given."""
    rows = world.sandbox.state.all("customers")[:2]
    rows[0]["name"] = "Twin Foods"
    rows[1]["name"] = "TWIN FOODS"
    error = await world.expect(InvalidArgument, DeleteCustomer(customer_id=name))
    assert "2 customers have this name or slug. Nothing was sent." in error.message
    assert all(str(row["id"]) in error.next_step for row in rows)
    assert world.changes == []


async def test_name_takes_one_search(world: World) -> None:
    await world.preview(UpdateCustomer(customer_id="Globex Exports", plan="Free"))
    assert [request.tool for request in world.sandbox.requests] == ["list_customers", "get_customer"]
    world.sandbox.requests.clear()
    await world.preview(UpdateCustomer(customer_id="globex-exports", plan="Free"))  # which may be an id
    assert [request.tool for request in world.sandbox.requests] == ["get_customer", "list_customers", "get_customer"]
    world.sandbox.requests.clear()
    await world.preview(UpdateCustomer(customer_id=world.id_of("customers", "globex-exports"), plan="Free"))
    assert [request.tool for request in world.sandbox.requests] == ["get_customer"]


@pytest.mark.parametrize("customers", [20, 2_000, pytest.param(20_000, marks=pytest.mark.long)])
async def test_name_takes_one_search_on_an_account_of_any_size(tmp_path: Path, customers: int) -> None:
    world = World(tmp_path, begin=grown(customers))
    for value in ("Globex Exports", "globex-exports"):
        world.sandbox.requests.clear()
        await world.preview(UpdateCustomer(customer_id=value, plan="Free"))
        assert [request.tool for request in world.sandbox.requests].count("list_customers") == 1
    world.sandbox.requests.clear()
    await world.expect(NotFound, UpdateCustomer(customer_id="No such customer", plan="Free"))
    assert [request.tool for request in world.sandbox.requests] == ["list_customers"]


async def test_id_of_a_record_is_never_taken_for_the_name_of_another(world: World) -> None:
    """Ids of other forms than those that were seen may exist."""
    row, other = world.sandbox.state.all("customers")[:2]
    world.sandbox.state.put("customers", {**row, "id": "cust-7", "slug": "seven", "name": "Seven"})
    other["name"] = other["slug"] = "cust-7"
    judged = await world.dispatch.evaluate(UpdateCustomer(customer_id="cust-7", plan="Free"), called_with(None))
    assert judged.call.target == "cust-7"


async def test_approval_by_name_holds_for_the_record_that_was_shown(world: World) -> None:
    rows = world.sandbox.state.rows["customers"]
    first, second = (world.id_of("customers", slug) for slug in ("Globex Exports", "Katana"))
    call = RunWorkflow(workflow_id="process-new-orders", customer_id="Globex Exports")
    request = await world.first_round(call)
    assert first in str(request.question)
    rows[first]["name"], rows[second]["name"] = "Elsewhere", "Globex Exports"
    later = FormLater((request.id, Approve()))
    assert not isinstance(await world.call(call, later), Done)
    assert world.changes == []


async def test_approved_change_by_name_is_sent_by_id(world: World) -> None:
    id_ = world.id_of("customers", "globex-exports")
    done = await world.expect(Done, DeleteCustomer(customer_id="Globex Exports"), world.form())
    assert done.change is not None
    assert done.change.target == id_
    assert [(request.method, request.path) for request in world.changes] == [("DELETE", f"/api/v1/customers/{id_}")]


async def test_list_of_changes_takes_names_and_names_the_call_that_fails(world: World) -> None:
    id_ = world.id_of("customers", "globex-exports")
    calls = batch_of(
        UpdateCustomer(customer_id="Globex Exports", plan="Free"),
        UpdateWorkflow(workflow_id="process-new-orders", description="Daily."),
    )
    await world.expect(Done, calls, world.form())
    assert world.changes[0].path == f"/api/v1/customers/{id_}"
    missing = batch_of(UpdateCustomer(customer_id=id_, plan="Free"), DeleteCustomer(customer_id="../x y"))
    error = await world.expect(NotFound, missing)
    assert error.what.startswith("Call 2, delete_customer: No customer has this id, slug or name")
    twice = batch_of(
        UpdateCustomer(customer_id="Globex Exports", plan="Free"),
        DeleteCustomer(customer_id="globex-exports"),
    )
    assert "has the same target as call 1" in str(await world.expect(InvalidArgument, twice))
    assert len(world.changes) == 2


async def test_short_list_is_looked_through_where_fastn_ignores_filters(world: World) -> None:
    world.behave(filtering=Filtering.IGNORED)
    await world.preview(UpdateCustomer(customer_id="Globex Exports", plan="Free"))


async def test_long_list_that_fastn_does_not_filter_needs_the_id(tmp_path: Path) -> None:
    world = World(tmp_path, begin=grown(2_000))
    world.behave(filtering=Filtering.IGNORED)
    error = await world.call(UpdateCustomer(customer_id="Globex Exports", plan="Free"))
    assert isinstance(error, FastnError)
    assert "Not all customers were looked through" in error.what
    assert "Nothing was sent." in error.message
    assert len(world.sandbox.requests) <= 4
    assert world.changes == []


async def test_name_needs_the_tool_that_lists_its_kind(world: World) -> None:
    id_ = world.id_of("customers", "globex-exports")
    world.disabled |= {"list_customers": "tools", "get_customer": "tools"}
    error = await world.expect(Disabled, UpdateCustomer(customer_id="Globex Exports", plan="Free"))
    assert str(error).startswith("Names of customers are not looked up. Disabled here by the setting tools.")
    await world.preview(UpdateCustomer(customer_id=id_, plan="Free"))


async def test_number_of_an_api_key_is_its_id(world: World) -> None:
    world.sandbox.state.all("apiKeys")[0]["name"] = "4"
    judged = await world.dispatch.evaluate(RevokeApiKey(api_key_id="4"), called_with(None))
    assert judged.call.target == "4"
    assert [request.tool for request in world.sandbox.requests] == ["list_api_keys"]


async def test_customer_that_no_record_has_is_refused(world: World) -> None:
    """A text with blanks is no id: Fastn would store the connection for whatever it takes it for."""
    gamma = world.id_of("connectors", "gamma")
    call = CreateConnection(connector_id=gamma, customer_id="No such one", credentials={"apiKey": "s3cret"})
    error = await world.expect(NotFound, call)
    assert "Nothing was sent." in error.message
    assert not isinstance(await world.call(call), PendingApproval)
    assert isinstance(error, NotFound | NotSent)
