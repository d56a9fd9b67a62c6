"""A call is judged by what it will do: what the server fills in, what it names, and who owns what it touches."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.behaviour import Filtering
from support.decisions import moved
from support.faulty_sandbox import Status
from support.policy_files import ALLOWING, CONFIRMING
from support.sensible_calls import ORDERS, SLACK
from support.world import FormLater, World, batch_of

from fastn_mcp.account.resolved_call import Surroundings
from fastn_mcp.errors import NotFound, NotSent
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import Decision
from fastn_mcp.policy.policy import Policy
from fastn_mcp.tools.access import CreateApiKey, CreateSecret, DeleteSecret, InviteUser
from fastn_mcp.tools.ai import AiBuild
from fastn_mcp.tools.connectors import (
    CreateConnection,
    CreateConnector,
    DeleteConnection,
    DeleteConnector,
    UpdateConnector,
)
from fastn_mcp.tools.customers import UpdateCustomer
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect
from fastn_mcp.tools.triggers import CreateTrigger, DeleteTrigger, UpdateTrigger
from fastn_mcp.tools.workflows import RunWorkflow, UpdateWorkflow

Call = Operation[Any]


RUN_IN_LIVE = '[[rule]]\ntool = "run_workflow"\nwhen = { environment = "live" }\nthen = "deny"\n'


@pytest.mark.parametrize(("own", "denied"), [("live", True), ("test", False), (None, True)])
async def test_rule_sees_the_environment_that_the_server_fills_in(
    tmp_path: Path, own: str | None, denied: bool
) -> None:
    """Without an argument and a setting Fastn chooses, which is not known."""
    world = World.with_rules(tmp_path, RUN_IN_LIVE)
    world.surround(Surroundings(own))
    call = RunWorkflow(workflow_id=world.id_of("workflows", "process-new-orders"))
    assert (await world.decision(call) is Decision.DENY) is denied


def _environment(around: Surroundings) -> Callable[[World], None]:
    return lambda world: world.surround(around)


@pytest.mark.parametrize("around", [Surroundings("live"), Surroundings(customer="another")])
async def test_approval_is_void_once_a_setting_fills_in_another_value(world: World, around: Surroundings) -> None:
    call = RunWorkflow(workflow_id=world.id_of("workflows", "process-new-orders"))
    before = await world.judge.judge_call(call, Asker())
    _environment(around)(world)
    assert (await world.judge.judge_call(call, Asker())).binding != before.binding


async def test_customer_that_cannot_be_read_counts_as_protected(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, '[[protect]]\ncustomer = "Globex*"\n')
    world.refuse("/api/v1/customers/*", status=500)
    call = CreateSecret(name="A", customer_id=world.id_of("customers", "Katana"))
    evaluation = await world.judge.judge_call(call, Asker())
    assert evaluation.verdict.decision is Decision.DENY
    assert "could not be read" in evaluation.verdict.why


async def test_call_for_a_customer_that_does_not_exist_is_refused_before_anybody_is_asked(world: World) -> None:
    """A name in place of the id would read as the name of a customer: `for customer "Nobody"`."""
    form = world.form()
    await world.expect(NotFound, CreateSecret(name="A", value="v", customer_id="Nobody"), form)
    await world.expect(NotFound, RunWorkflow(workflow_id=ORDERS, customer_id="Nobody"), form)
    customers = [world.id_of("customers", "Katana"), "Nobody"]
    refused = await world.expect(NotFound, CreateApiKey(name="A", permissions="Viewer", customers=customers), form)
    assert refused.what == 'No customer has the id "Nobody", or the server\'s API key has no access to it.'
    assert not form.asked
    assert not world.changes


IN_LIVE = '[[rule]]\nwhen = { environment = "live" }\nthen = "deny"\n'
IN_TEST: list[Any] = [{"routeId": ORDERS, "environment": "test"}]


def a_connection(world: World) -> str:
    return str(world.sandbox.state.all("connections")[0]["id"])


def in_live(world: World) -> dict[str, Call]:
    """Calls that act in live, though neither an argument nor a field `environment` of their record says so."""
    hourly = world.id_of("triggers", "Hourly Slack sync")
    gamma = world.id_of("connectors", "Gamma")
    return {
        "connection id": DeleteConnection(connection_id=a_connection(world)),
        "secret": DeleteSecret(secret_id=world.id_of("secrets", "PARTNER_TOKEN")),
        "lost route": UpdateTrigger(trigger_id=hourly, routes=IN_TEST),
        "extra": CreateConnection(connector_id=gamma, extra={"environment": "live"}),
    }


@pytest.mark.parametrize("way", ["connection id", "secret", "lost route", "extra"])
async def test_rule_sees_the_environment_of_what_is_touched(tmp_path: Path, way: str) -> None:
    world = World.with_rules(tmp_path, IN_LIVE)
    assert await world.decision(in_live(world)[way]) is Decision.DENY


async def test_rule_on_another_environment_meets_a_secret_for_all(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, IN_LIVE.replace("live", "staging"))
    for call in (CreateSecret(name="A"), DeleteSecret(secret_id=world.id_of("secrets", "PARTNER_TOKEN"))):
        assert await world.decision(call) is Decision.DENY


def nested(world: World) -> dict[str, Call]:
    """New triggers that refer to what is Globex's below an argument, or through a record that an argument names."""
    key = world.id_of("customers", "Globex Exports")
    connection = next(row for row in world.sandbox.state.all("connections") if row["endOrgId"] == key)
    connection["id"] = "conn_17"
    named_row = world.sandbox.state.named("workflows", "process-new-orders", by="name")
    named_row["endOrgId"] = key
    route: dict[str, Any] = {"routeId": SLACK, "environment": "test"}
    more: dict[str, dict[str, Any]] = {
        "extra": {"extra": {"config": {"customerId": key}}},
        "route": {"routes": [{**route, "endOrgId": key}]},
        "workflow of another field": {"routes": [{**route, "workflow": str(named_row["id"])}]},
        "connection without parts in its id": {"connection_id": "conn_17"},
    }
    return {
        way: CreateTrigger.model_validate({"name": "Hook", "type": "webhook", "routes": [route], **given})
        for way, given in more.items()
    }


NESTED = ["extra", "route", "workflow of another field", "connection without parts in its id"]


@pytest.mark.parametrize("way", NESTED)
async def test_protection_reaches_what_nested_values_and_named_records_refer_to(tmp_path: Path, way: str) -> None:
    world = World.with_rules(tmp_path, '[[protect]]\ncustomer = "Globex*"\n')
    calls = nested(world)
    assert calls.keys() == set(NESTED)
    assert await world.decision(calls[way]) is Decision.DENY


@pytest.mark.parametrize("embedded", [{"name": "Harmless", "slug": "harmless"}, {"name": "", "slug": ""}])
async def test_name_of_a_customer_inside_another_record_is_not_trusted(
    tmp_path: Path, embedded: dict[str, str]
) -> None:
    world = World.with_rules(tmp_path, '[[protect]]\ncustomer = "Globex*"\n')
    row = world.sandbox.state.named("triggers", "Hourly Slack sync", by="name")
    acme, globex_ = (world.id_of("customers", name) for name in ("Acme Corp", "Globex Exports"))
    row |= {"endOrg": {"id": globex_, **embedded}, "customer": {"id": acme, "name": "Acme", "slug": "acme"}}
    assert await world.decision(DeleteTrigger(trigger_id=str(row["id"]))) is Decision.DENY


@pytest.mark.parametrize("status", [403, 404, 500])
@pytest.mark.parametrize(
    ("protected", "path", "call"),
    [
        ('workflow = "process*"', "/api/v1/workflows/*", CreateTrigger(name="A", type="webhook", routes=IN_TEST)),
        ('role = "Oper*"', "/api/v1/roles*", InviteUser(email="a@b.example", role="r1")),
        ('secret = "sec_*"', "/api/v1/secrets*", CreateSecret(name="GOOGLE_SA")),
    ],
    ids=["workflow", "role", "secret that is overwritten"],
)
async def test_record_that_cannot_be_read_counts_as_protected(
    tmp_path: Path, protected: str, path: str, call: Call, status: int
) -> None:
    world = World.with_rules(tmp_path, f"[[protect]]\n{protected}\n")
    world.sandbox.faults.add(Status(status=status, method="GET", path=path, times=None))
    assert await world.decision(call) is Decision.DENY


@pytest.mark.parametrize("kind", ["connections", "triggers"])
async def test_owners_count_as_protected_where_not_all_dependents_are_read(tmp_path: Path, kind: str) -> None:
    """Of 400 rows, 300 are read: connections that Fastn counts, or triggers, none of which depends, by no filter."""
    world = World.with_rules(tmp_path, '[[protect]]\ncustomer = "Katana"\n')
    gamma, state = world.id_of("connectors", "Gamma"), world.sandbox.state
    row = {**state.all(kind)[0], "endOrgId": None} | ({"connectorId": gamma} if kind == "connections" else {})
    for number in range(400):
        state.put(kind, {**row, "id": f"c{number}"})
    world.behave(filtering=Filtering.HEEDED if kind == "connections" else Filtering.IGNORED)
    assert await world.decision(DeleteConnector(connector_id=gamma)) is Decision.DENY


async def test_owners_count_as_protected_where_an_empty_filter_is_not_proven(tmp_path: Path) -> None:
    """Of a change that deletes nothing, few reads are made: what they leave open is not checked."""
    world = World.with_rules(tmp_path, '[[protect]]\ncustomer = "Katana"\n')
    gamma = world.id_of("connectors", "Gamma")
    state = world.sandbox.state
    for trigger in [each for each in state.all("triggers") if each["type"] == "app_event"]:
        state.drop("triggers", trigger["id"])
    for kind in ("triggers", "workflows"):
        row = {**state.all(kind)[0], "endOrgId": None}
        for number in range(400):
            state.put(kind, {**row, "id": f"{kind}{number}"})
    change = UpdateConnector(connector_id=gamma, description="Decks")
    preview = await world.preview(change)
    assert "triggers" in [gap["what"] for gap in preview.data_for_agent()["not_checked"]]
    assert await world.decision(change) is Decision.DENY


@pytest.mark.parametrize("rules", ['[defaults]\nwrite = "deny"', '[[rule]]\neffects = "write"\nthen = "deny"'])
async def test_raised_effect_does_not_escape_a_rule_on_the_effect_of_the_call(tmp_path: Path, rules: str) -> None:
    """Renaming a customer in use is external; the file refuses every write."""
    world = World.with_rules(tmp_path, rules)
    call = UpdateCustomer(customer_id=world.id_of("customers", "Globex Exports"), name="Harmless")
    evaluation = await world.judge.judge_call(call, Asker())
    assert (evaluation.effect, evaluation.verdict.decision) == (Effect.EXTERNAL, Decision.DENY)


@pytest.mark.parametrize(("lists", "denied"), [(403, False), (None, True)])
async def test_only_a_key_that_may_read_no_customers_is_excused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lists: int | None, denied: bool
) -> None:
    world = World.with_rules(tmp_path, '[[protect]]\ncustomer = "Globex*"\n')
    key = world.id_of("customers", "Acme Corp")
    world.refuse("/api/v1/customers/*")
    if lists is not None:
        world.sandbox.faults.add(Status(status=lists, path="/api/v1/customers", times=99))
    for _ in range(2):
        assert (await world.decision(CreateSecret(name="A", customer_id=key)) is Decision.DENY) is denied
    assert caplog.text.count("may not read customers") == (0 if denied else 1)


async def test_new_connection_is_in_an_environment_that_fastn_chooses(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, '[[rule]]\nwhen = { environment = "live" }\nthen = "deny"\n')
    call = CreateConnection(connector_id=world.id_of("connectors", "Gamma"))
    evaluation = await world.judge.judge_call(call, Asker())
    assert evaluation.verdict.decision is Decision.DENY
    assert evaluation.verdict.why == "Its environment is not known, since the call names none, and Fastn chooses it."


async def test_switching_off_what_a_protected_customer_uses_is_held(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, '[[protect]]\ncustomer = "Globex*"\n')
    trigger = world.sandbox.state.named("triggers", "Hourly Slack sync", by="name")
    call = UpdateWorkflow(workflow_id=str(trigger["routes"][0]["routeId"]), status="inactive")
    assert await world.decision(call) is not Decision.DENY
    trigger["endOrgId"] = world.id_of("customers", "Globex Exports")
    assert await world.decision(call) is Decision.DENY


async def test_connectors_of_fastns_ai_are_compared_and_not_read(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, '[[protect]]\nconnector = "shopify"\n')
    for connectors, denied in ((["shopify"], True), (["xero"], False)):
        before = len(world.sandbox.requests)
        call = AiBuild(type="workflow", prompt="Sync", connectors=connectors)
        assert (await world.decision(call) is Decision.DENY) is denied
        assert len(world.sandbox.requests) == before


@pytest.mark.parametrize("form", [FormLater(), None], ids=["in a form", "on the page"])
async def test_record_that_an_open_request_names_is_changed_with_an_approval_only(
    world: World, form: FormLater | None
) -> None:
    connector = await world.expect(Done, CreateConnector(name="Initech", slug="initech", domain="api.initech.example"))
    key = str(connector.result.id)  # type: ignore[attr-defined]
    change = UpdateConnector(connector_id=key, domain="evil.example")
    assert (await world.judge.judge_call(change, Asker())).effect is Effect.WRITE
    await world.call(CreateConnection(connector_id=key, credentials={"token": "s3cret"}), form)
    overwriting = CreateConnector(name="Initech", slug="initech", domain="evil.example")
    for call in (change, overwriting):
        evaluation = await world.judge.judge_call(call, Asker())
        assert (evaluation.effect, evaluation.verdict.decision) == (Effect.EXTERNAL, Decision.CONFIRM)
    other = UpdateConnector(connector_id=world.id_of("connectors", "Gamma"), description="d")
    assert not (await world.judge.judge_call(other, Asker())).resolved.is_awaited


@pytest.mark.parametrize("other_ends", [False, True], ids=["the first", "the second"])
async def test_approval_is_not_void_by_another_request_about_the_same_record(tmp_path: Path, other_ends: bool) -> None:
    """Of two requests, the first was opened while none named the record, and the second while one did."""
    world = World(tmp_path, Policy(rules=CONFIRMING))
    first, second = (
        UpdateCustomer(customer_id=world.id_of("customers", "Acme Corp"), plan=plan) for plan in ("Free", "Scale")
    )
    requests = [(await world.expect(PendingApproval, call)).request.id for call in (first, second)]
    if other_ends:
        assert await world.ledger.void(requests[0], RequestState.STALE, world.timestamp)
    approved = RequestState.APPROVED
    await moved(world.ledger, requests[other_ends], [RequestState.OPEN], approved, world.timestamp, by="local_page")
    await world.expect(Done, second if other_ends else first)


async def test_approval_holds_when_nothing_uses_the_connector_any_more(tmp_path: Path) -> None:
    world = World(tmp_path, Policy(rules=CONFIRMING))
    state, key = world.sandbox.state, world.id_of("connectors", "Gamma")
    for workflow in state.all("workflows"):
        workflow["connectors"] = []
    row = state.put("connections", {**state.all("connections")[0], "id": "conn_gamma", "connectorId": key})
    call = UpdateConnector(connector_id=key, description="Decks")
    await world.approve_outside(call)
    del state.rows["connections"][row["id"]]
    await world.expect(Done, call)


@pytest.mark.parametrize("is_list", [False, True], ids=["a call", "a list"])
async def test_repeated_call_is_sent_by_the_approval_of_its_open_request(tmp_path: Path, is_list: bool) -> None:
    world = World(tmp_path, Policy(rules=CONFIRMING))
    update = UpdateCustomer(customer_id=world.id_of("customers", "Acme Corp"), plan="Free")
    call = batch_of(update) if is_list else update
    first = await world.expect(PendingApproval, call)
    again = await world.expect(PendingApproval, call)
    assert (again.request, again.question.data_for_agent()) == (first.request, first.question.data_for_agent())
    await world.approve_open_request()
    await world.expect(Done, call)


async def test_setting_that_contradicts_an_argument_is_refused_where_nothing_is_read(tmp_path: Path) -> None:
    """In the mode `auto`, which sends a connection without reads."""
    world = World(tmp_path, Policy(rules=ALLOWING), surroundings=Surroundings(customer="another"))
    key, gamma = world.id_of("customers", "Acme Corp"), world.id_of("connectors", "Gamma")
    outcome = await world.expect(
        NotSent, CreateConnection(connector_id=gamma, customer_id=key, credentials={"apiKey": "k"})
    )
    assert "(setting end_org_id)" in outcome.what
    assert world.changes == []
