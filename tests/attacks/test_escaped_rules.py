"""Calls that a policy or an approval would not cover, disguised as calls that it does."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from pydantic_core import from_json, to_json
from support.faulty_sandbox import Status
from support.policy_files import ALLOWING, ALLOWS, rules_of
from support.world import World

from fastn_mcp.account.resolve import by_arguments
from fastn_mcp.errors import InvalidArgument, Refused
from fastn_mcp.guard.approval_form import Approve, PendingApproval, form_text
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.permission import Permissions
from fastn_mcp.guard.result import Done
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.conditions import Choice, Glob
from fastn_mcp.policy.decision import Decision
from fastn_mcp.policy.permit import Permit
from fastn_mcp.policy.policy import Policy
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.access import CreateApiKey, CreateRole, CreateSecret, InviteUser, ListRoles
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.connectors import CreateConnection, CreateConnector, UpdateConnector
from fastn_mcp.tools.customers import CreateCustomer, UpdateCustomer
from fastn_mcp.tools.operation import Operation, RefusedValue
from fastn_mcp.tools.triggers import CreateTrigger, DeleteTrigger, UpdateTrigger
from fastn_mcp.tools.workflows import CreateWorkflow, DeleteWorkflow, RunWorkflow, UpdateWorkflow

ALLOW, CONFIRM, DENY = Decision.ALLOW, Decision.CONFIRM, Decision.DENY
ACME, ORDERS = "c009d6af-1950-4428-ad06-a70af567801a", "wf_0d93ee5b1f62"


def under(folder: Path, text: str) -> World:
    return World(folder, Policy(rules=rules_of(folder, text)))


async def test_role_named_by_the_id_of_a_protected_one_is_unknown(tmp_path: Path) -> None:
    world = under(tmp_path, '[[protect]]\nrole = "Owner"\n')
    owner = str(next(role.id for role in await world.rows(ListRoles()) if role.name == "Owner"))
    invitation = InviteUser(email="eve@example.com", role=owner)
    narrowing = CreateRole(name="Helper", parent=owner, permissions=["workflows:read"])
    assert [await world.decision(call) for call in (invitation, narrowing)] == [Decision.DENY] * 2
    await world.expect(Done, CreateRole(name=owner, parent="Viewer", permissions=["workflows:read"]), world.form())
    assert [await world.decision(call) for call in (invitation, narrowing)] == [Decision.DENY] * 2


async def test_role_whose_name_reads_like_another_is_unknown(tmp_path: Path) -> None:
    world = under(tmp_path, '[[protect]]\nrole = "Owner"\n')
    likeness = CreateRole(name="\uff36iewer", parent="Admin", permissions=["workflows:read"])
    await world.expect(Done, likeness, world.form())
    assert await world.decision(InviteUser(email="eve@example.com", role="Viewer")) is Decision.DENY


async def test_role_that_is_given_by_its_id_is_shown_by_its_name(tmp_path: Path) -> None:
    world = World(tmp_path)
    owner = str(next(role.id for role in await world.rows(ListRoles()) if role.name == "Owner"))
    invitation = InviteUser(email="eve@example.com", role=owner)
    _, shown = await world.judged(invitation)
    assert shown.lines()[0] == 'Invite "eve@example.com" as "Owner".'
    _, shown = await world.judged(CreateRole(name="Helper", parent=owner, permissions=["workflows:read"]))
    assert shown.facts == (("Has fewer permissions than", '"Owner"'),)
    await world.expect(Done, CreateRole(name=owner, parent="Viewer", permissions=["workflows:read"]), world.form())
    for call in (invitation, CreateRole(name="Helper", parent=owner, permissions=["workflows:read"])):
        _, shown = await world.judged(call)
        assert f'The permissions of role "{owner}" were not checked.' in "\n".join(shown.lines())


@pytest.mark.parametrize("protected", ["Globex Exports", "globex-*", "crm-globex"])
async def test_reference_of_a_protected_customer_cannot_be_taken(tmp_path: Path, protected: str) -> None:
    """Runs find a customer by its reference."""
    world = under(tmp_path, f'[[protect]]\ncustomer = "{protected}"\n')
    globex, acme = (world.id_of("customers", name) for name in ("Globex Exports", "Acme Corp"))
    world.sandbox.state.rows["customers"][globex]["externalRef"] = "CRM-Globex"
    slug = world.sandbox.state.rows["customers"][acme]["slug"]
    taking = [
        UpdateCustomer(customer_id=acme, external_ref=" crm-globex"),
        CreateCustomer(name="New", external_ref="CRM-Globex"),
        CreateCustomer(name="Acme Corp", slug=slug, external_ref="CRM-Globex"),
    ]
    assert [await world.decision(call) for call in taking] == [Decision.DENY] * 3
    for harmless in ("crm-acme", ""):
        assert await world.decision(UpdateCustomer(customer_id=acme, external_ref=harmless)) is Decision.CONFIRM


async def test_reference_is_protected_where_not_all_customers_can_be_read(tmp_path: Path) -> None:
    world = under(tmp_path, '[[protect]]\ncustomer = "Globex Exports"\n')
    acme = world.id_of("customers", "Acme Corp")
    world.sandbox.faults.add(Status(method="GET", path="/api/v1/customers", status=400))
    verdict, _ = await world.judged(UpdateCustomer(customer_id=acme, external_ref="crm-1"))
    assert verdict.decision is Decision.DENY
    assert 'customer "crm-1" could not be read' in verdict.why


async def test_key_or_secret_for_all_customers_is_also_for_a_protected_one(tmp_path: Path) -> None:
    world = under(tmp_path, '[[protect]]\ncustomer = "Globex Exports"\n')
    acme = world.id_of("customers", "Acme Corp")
    for_all = [
        CreateApiKey(name="k"),
        CreateApiKey(name="k", customers=[]),
        CreateApiKey(name="k", customers=[acme, "*"]),
        CreateSecret(name="A_B", value="hunter2"),
    ]
    verdicts = [(await world.judged(call))[0] for call in for_all]
    assert [verdict.decision for verdict in verdicts] == [Decision.DENY] * 4
    assert "this call applies to all customers: name them in customers" in verdicts[0].why
    for call in (CreateApiKey(name="k", customers=[acme]), CreateSecret(name="A_B", value="hunter2", customer_id=acme)):
        assert await world.decision(call) is Decision.CONFIRM


def renamed(world: World, text: str) -> UpdateWorkflow:
    """A write whose effect is raised, since the workflow is live."""
    return UpdateWorkflow(workflow_id=world.id_of("workflows", "process-new-orders"), description=text)


@pytest.mark.parametrize("defaults", ["", ALLOWS])
async def test_raised_effect_counts_in_the_budget_of_the_lower_one(tmp_path: Path, defaults: str) -> None:
    world = under(tmp_path, f"[budget]\nwrite = 2\n{defaults}")
    for text in ("one", "two"):
        await world.expect(Done, renamed(world, text), world.form())
    refused = await world.expect(Refused, renamed(world, "three"), world.form())
    assert "The budget is used up: 0 of 2 write calls left" in refused.what
    assert len(world.changes) == 2


@pytest.mark.parametrize(
    "asker", [Asker(), Asker("https://ci.example|main", machine="nightly")], ids=["person", "machine"]
)
async def test_list_of_raised_effects_is_refused_before_its_first_call(tmp_path: Path, asker: Asker) -> None:
    world = under(
        tmp_path, '[budget]\nwrite = 1\n[[rule]]\ntool = "*"\nwho = { machine = "nightly" }\nthen = "allow"\n' + ALLOWS
    )
    changes: list[dict[str, Any]] = [
        {"tool": "update_workflow", "arguments": {"workflow_id": row["id"], "description": "new"}}
        for row in world.sandbox.state.all("workflows")[:2]
    ]
    with pytest.raises(
        Refused, match=r"Call 2, update_workflow: .*The list needs more than the 1 of 1 write calls left"
    ):
        await world.dispatch(ApplyChanges(changes=changes), Caller(asker, None))
    assert world.changes == []


@pytest.mark.parametrize(
    "meanwhile",
    [{"schedule": "* * * * *"}, {"timezone": "Asia/Tokyo"}, {"routes": [{"payload": {"amount": 10_000}}]}, {}],
)
async def test_temporary_approval_switches_on_only_the_trigger_that_was_shown(
    tmp_path: Path, meanwhile: dict[str, Any]
) -> None:
    """While a trigger is off, it can be changed without an approval."""
    world = World(tmp_path)
    row = next(row for row in world.sandbox.state.all("triggers") if row["name"] == "Nightly contact sync")
    switching_on = UpdateTrigger(trigger_id=row["id"], status="Active")
    await world.expect(Done, switching_on, world.form(Approve(is_temporary=True)))
    await world.expect(Done, UpdateTrigger(trigger_id=row["id"], status="Disabled"))
    if meanwhile:
        routes = [row["routes"][0] | each for each in meanwhile.get("routes", [])]
        change = {"trigger_id": row["id"]} | meanwhile | ({"routes": routes} if routes else {})
        await world.expect(Done, UpdateTrigger.model_validate(change))
    person = world.form()
    await world.expect(Done, switching_on, person)
    assert len(person.asked) == bool(meanwhile)


async def test_temporary_approval_that_is_revoked_before_its_use_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path)
    await world.expect(Done, world.run(), world.form(Approve(is_temporary=True)))
    begin = Permissions.begin

    async def revoke_first(permissions: Permissions, *arguments: Any) -> bool:
        for temporary in await world.temporary_approvals():
            await world.ledger.revoke_temporary(temporary.id)
        return await begin(permissions, *arguments)

    monkeypatch.setattr(Permissions, "begin", revoke_first)
    await world.expect(PendingApproval, world.run())  # judged again, and asked about
    assert len(world.changes) == 1


@pytest.mark.parametrize("name", ["Permissions", "PERMISSIONS", "per-missions", "Mode", "rate_limit_per_minute"])
@pytest.mark.parametrize("value", ["Full access", None])
def test_undocumented_field_that_reads_like_an_argument_is_refused(name: str, value: str | None) -> None:
    """A server may ignore the case of a field's name, and a rule compares the argument."""
    call = CreateApiKey(name="BI", permissions="Viewer", extra={name: value})
    with pytest.raises(RefusedValue, match=f"{name} has an argument of its own"):
        call.request()


def test_administrator_has_one_address() -> None:
    """A rule that allows `*@example.com` would allow the other, too."""
    with pytest.raises(ValidationError, match="must be one e-mail address"):
        CreateCustomer(name="Initech", admin_email="eve@evil.example,kim@example.com")


async def test_approval_of_a_trigger_says_that_its_routes_were_changed(tmp_path: Path) -> None:
    """While a trigger is off, what it sends to its workflows can be changed without an approval."""
    world = World(tmp_path)
    row = next(row for row in world.sandbox.state.all("triggers") if row["name"] == "Nightly contact sync")
    routes = [row["routes"][0] | {"payload": {"amount": 10_000}}]
    await world.expect(Done, UpdateTrigger(trigger_id=row["id"], routes=routes))
    person = world.form()
    await world.expect(Done, UpdateTrigger(trigger_id=row["id"], status="Active"), person)
    assert "Routes changed: " in form_text(person.asked[0])


def test_plan_for_patterns_of_creates_does_not_cover_overwriting() -> None:
    call = CreateWorkflow(name="report-1")
    entry = Permit(
        name="line 1",
        budget="b",
        tool=call.tool_name(),
        targets=(),
        conditions={"name": Choice((Glob("report-*"),))},
        count=1,
        signers=1,
    )
    assert entry.covers(by_arguments(call))
    assert not entry.covers(by_arguments(call, target=FastnObject.model_validate({"id": "wf_1"})))


@pytest.mark.parametrize("id_", ["", "conn_{}", "ucl:o:{}:c:default"])
async def test_rule_that_allows_one_customer_does_not_allow_a_connection_of_another(tmp_path: Path, id_: str) -> None:
    """Also where the id of a connection does not tell its customer, or the connection cannot be read."""
    world = World(tmp_path)
    acme = world.id_of("customers", "Acme Corp")
    rule = f'[[rule]]\ntool = "create_trigger"\nwhen = {{ customer_id = "{acme}" }}\nthen = "allow"\n'
    world = under(tmp_path, rule)
    connections = dict[str, str]()
    for number, row in enumerate(world.sandbox.state.all("connections")):
        row["id"] = id_.format(number) or row["id"]
        connections[row["endOrgId"]] = row["id"]
    routes: list[Any] = [{"routeId": world.id_of("workflows", "process-new-orders"), "environment": "live"}]
    own, foreign = (
        CreateTrigger(name="T", type="app_event", routes=routes, customer_id=acme, connection_id=connections[owner])
        for owner in (acme, world.id_of("customers", "Globex Exports"))
    )
    assert [await world.decision(call) for call in (own, foreign)] == [ALLOW, CONFIRM]
    world.refuse("/api/v1/connections")
    assert await world.decision(own) is CONFIRM


async def test_rule_that_allows_runs_for_one_customer_does_not_allow_data_of_another(tmp_path: Path) -> None:
    rule = f'[[rule]]\ntool = "run_workflow"\nwhen = {{ customer_id = "{ACME}" }}\nthen = "allow"\n'
    world = under(tmp_path, rule)
    for named, decision in ((ACME, ALLOW), ("7", ALLOW), (world.id_of("customers", "Globex Exports"), CONFIRM)):
        data: Any = {"orders": [{"customerId": named}]}
        run = RunWorkflow(workflow_id=ORDERS, customer_id=ACME, environment="live", input=data)
        assert await world.decision(run) is decision


async def test_rule_that_allows_one_customer_costs_other_calls_no_request(tmp_path: Path) -> None:
    requests = list[int]()
    for then in ("allow", "confirm"):
        rule = f'[[rule]]\ntool = "run_workflow"\nwhen = {{ customer_id = "{ACME}" }}\nthen = "{then}"\n'
        world = under(tmp_path, rule)
        await world.decision(DeleteWorkflow(workflow_id=ORDERS))
        requests.append(len(world.sandbox.requests))
    assert requests[0] < requests[1], "a rule that asks compares the names of all customers concerned"


@pytest.mark.parametrize("header", ["x-end-org-ref", "x-installation-id", "accept"])
async def test_rule_that_allows_one_customer_does_not_allow_a_reference_to_another(tmp_path: Path, header: str) -> None:
    rule = f'[[rule]]\ntool = "create_trigger"\nwhen = {{ customer_id = "{ACME}" }}\nthen = "allow"\n'
    routes: list[Any] = [{"routeId": ORDERS, "environment": "test", "headers": {header: "ref-9"}}]
    call = CreateTrigger(name="T", type="webhook", routes=routes, customer_id=ACME)
    assert await under(tmp_path, rule).decision(call) is (ALLOW if header == "accept" else CONFIRM)


async def test_rule_that_allows_arguments_does_not_allow_undocumented_fields_inside_them(tmp_path: Path) -> None:
    rule = '[[rule]]\ntool = "{}"\nwhen = {{ {} = "*" }}\nthen = "allow"\n'
    world = under(tmp_path, rule.format("create_trigger", "status") + rule.format("create_connector", "name"))
    for more, decision in (({}, ALLOW), ({"status": "Active"}, CONFIRM)):
        routes: list[Any] = [{"routeId": ORDERS, "environment": "test", **more}]
        call = CreateTrigger(name="t", type="webhook", status="Disabled", routes=routes)
        assert await world.decision(call) is decision
        methods: list[Any] = [{"type": "BASIC", **more}]
        assert await world.decision(CreateConnector(name="Own", slug="own", auth_methods=methods)) is decision


async def test_create_that_gives_an_existing_customer_a_reference_is_asked_about(tmp_path: Path) -> None:
    """As an update of that customer is, also while it is pending: runs find a customer by its reference."""
    world = World(tmp_path)
    pending = world.sandbox.state.rows["customers"][world.id_of("customers", "John-Acme")]
    for reference, decision in ((None, ALLOW), ("crm-1", CONFIRM)):
        call = CreateCustomer(name=pending["name"], slug=pending["slug"], external_ref=reference)
        assert await world.decision(call) is decision


@pytest.mark.parametrize(
    "email", ["eve@evil.example,x", "eve@evil.example;x", "eve@evil.example.", "<eve@evil.example>"]
)
def test_invitation_has_one_address_in_its_plain_form(email: str) -> None:
    with pytest.raises(ValidationError, match="must be one e-mail address"):
        InviteUser(email=email, role="Viewer")


async def test_every_call_of_a_list_says_what_was_done_to_its_target(tmp_path: Path) -> None:
    """Further facts are read for the first ten calls only."""
    world = World(tmp_path)
    off = next(row for row in world.sandbox.state.all("triggers") if row["name"] == "Nightly contact sync")
    routes = [off["routes"][0] | {"payload": {"amount": 10_000}}]
    await world.expect(Done, UpdateTrigger(trigger_id=off["id"], routes=routes))
    workflow = world.id_of("workflows", "process-new-orders")
    changes: list[dict[str, Any]] = [
        {"tool": "run_workflow", "arguments": {"workflow_id": workflow, "input": {"number": number}}}
        for number in range(10)
    ]
    changes.append({"tool": "update_trigger", "arguments": {"trigger_id": off["id"], "status": "Active"}})
    person = world.form()
    await world.call(ApplyChanges(changes=changes), person)
    assert "Routes changed: " in form_text(person.asked[0])


@pytest.mark.parametrize("more", [{}, {"admin_email": "eve@example.com"}, {"extra": {"note2": "x"}}])
async def test_rule_on_an_effect_applies_to_a_call_that_was_raised_above_it(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    """An administrator beside the new name makes the call one that changes access, and does not excuse the name."""
    world = under(tmp_path, '[[rule]]\neffects = "external"\nthen = "deny"\n')
    acme = world.id_of("customers", "Acme Corp")
    assert await world.decision(UpdateCustomer(customer_id=acme, name="Acme", **more)) is Decision.DENY


@pytest.mark.parametrize("status", [None, "", "Active"])
async def test_rule_applies_to_the_default_of_a_missing_argument(tmp_path: Path, status: str | None) -> None:
    """A trigger fires unless it is disabled."""
    world = under(tmp_path, '[[rule]]\ntool = "create_trigger"\nwhen = { status = "Active" }\nthen = "deny"\n')
    call = CreateTrigger(name="t", type="webhook", status=status, routes=[{"routeId": world.run().workflow_id}])
    assert await world.decision(call) is Decision.DENY


@pytest.mark.parametrize("customers", [None, []])
async def test_rule_on_customers_applies_to_a_key_for_all(tmp_path: Path, customers: list[str] | None) -> None:
    world = under(tmp_path, '[[rule]]\ntool = "create_api_key"\nwhen = { customers = "globex-*" }\nthen = "deny"\n')
    assert await world.decision(CreateApiKey(name="k", customers=customers)) is Decision.DENY
    acme = world.id_of("customers", "Acme Corp")
    assert await world.decision(CreateApiKey(name="k", customers=[acme])) is Decision.CONFIRM


def test_plan_for_hosts_covers_nothing_after_the_host() -> None:
    hosts = {"domain": Choice((Glob("*.good.example"),))}
    entry = Permit(
        name="line 1", budget="b", tool="update_connector", targets=("c1",), conditions=hosts, count=1, signers=1
    )
    for end in ("", "/", "\\", "#", " "):
        call = UpdateConnector(connector_id="c1", domain=f"evil.example{end}.good.example")
        assert entry.covers(by_arguments(call)) is not bool(end), end


@pytest.mark.parametrize("connection", ["its id", "its row"])
async def test_trigger_on_the_connection_of_a_customer_is_that_customers(tmp_path: Path, connection: str) -> None:
    """Its own row names no customer: what starts it is told by its connection, in the id or in the row."""
    world = under(tmp_path, '[[protect]]\ncustomer = "Globex Exports"\n')
    globex = world.id_of("customers", "Globex Exports")
    trigger = next(row for row in world.sandbox.state.all("triggers") if row["endOrgId"] == globex)
    trigger["endOrgId"] = None
    if connection == "its row":
        row = next(row for row in world.sandbox.state.all("connections") if row["id"] == trigger["connectionId"])
        row["id"] = trigger["connectionId"] = "conn_17"
    for call in (
        DeleteTrigger(trigger_id=trigger["id"]),
        UpdateTrigger(trigger_id=trigger["id"], status="Active"),
        DeleteWorkflow(workflow_id=trigger["routes"][0]["routeId"]),
    ):
        assert await world.decision(call) is Decision.DENY


@pytest.mark.parametrize("connection", ["ucl:o:live:hubspot:a:default", "conn_17"])
async def test_trigger_is_also_in_the_environment_of_its_connection(tmp_path: Path, connection: str) -> None:
    world = under(tmp_path, '[[rule]]\ntool = "*"\nwhen = { environment = "live" }\nthen = "deny"\n')
    trigger = next(row for row in world.sandbox.state.all("triggers") if row["type"] == "app_event")
    trigger |= {"connectionId": connection, "routes": [trigger["routes"][0] | {"environment": "test"}]}
    assert await world.decision(UpdateTrigger(trigger_id=trigger["id"], status="Active")) is Decision.DENY


MENTIONS: list[Any] = [
    {"customerId": "ID"},
    {"customer": {"_id": "ID"}},
    {"customerIds": [["ID"]]},
    {"customer.id": "ID"},
    {"organization": "ID"},
    {"customerSlug": "globex-exports"},
    {"owner": {"reference": "crm-1044"}},
]


@pytest.mark.parametrize("fields", MENTIONS, ids=str)
async def test_protection_holds_for_a_customer_in_any_undocumented_field(
    tmp_path: Path, fields: dict[str, Any]
) -> None:
    """Also by its id where it is protected by its name. Nobody knows which fields Fastn reads."""
    world = under(tmp_path, '[[protect]]\ncustomer = "Globex Exports"\n' + ALLOWS)
    extra = from_json(to_json(fields).decode().replace("ID", world.id_of("customers", "Globex Exports")))
    connector = str(world.sandbox.state.all("connectors")[0]["id"])
    assert await world.decision(CreateConnection(connector_id=connector, extra=extra)) is Decision.DENY
    others: list[Any] = [{"region": "EU"}, {"labels": ["globex-exports"]}]
    for harmless in others:
        assert await world.decision(CreateConnection(connector_id=connector, extra=harmless)) is Decision.ALLOW


async def test_blank_in_data_names_no_customer_without_a_reference(tmp_path: Path) -> None:
    world = under(tmp_path, '[[protect]]\ncustomer = "Katana"\n' + ALLOWS)
    assert world.sandbox.state.named("customers", "Katana", "name")["externalRef"] is None
    for blank in ("", " "):
        run = world.run().model_copy(update={"input": {"customerId": blank}})
        assert await world.decision(run) is Decision.ALLOW


async def test_undocumented_fields_are_compared_with_more_customers_than_are_listed(tmp_path: Path) -> None:
    world = under(tmp_path, '[[protect]]\ncustomer = "Globex Exports"\n' + ALLOWS)
    customers, connector = world.sandbox.state.rows["customers"], str(world.sandbox.state.all("connectors")[0]["id"])
    customers |= {
        (key := f"c{number}"): {**customers[next(iter(customers))], "id": key, "name": key, "slug": key}
        for number in range(400)
    }
    six = {f"f{number}": f"t{number}" for number in range(6)}
    cases: list[tuple[Any, Decision]] = [
        ({"org": world.id_of("customers", "Globex Exports")}, Decision.DENY),
        ({"region": "EU"}, Decision.ALLOW),
        ({"comment": "hello world"}, Decision.ALLOW),
        ({"comment": "a long text " * 50}, Decision.ALLOW),
        (six, Decision.DENY),
    ]
    for extra, decision in cases:
        assert await world.decision(CreateConnection(connector_id=connector, extra=extra)) is decision, extra
    begun, asks = AiChat(message="Sync orders."), {"sessionId": "s", "message": "Shall I create the workflow now?"}
    world.judge.ai_sessions.note(begun, FastnObject.model_validate(asks))
    assert await world.decision(AiChat(message="Yes.", session_id="s")) is Decision.CONFIRM
    (folder := tmp_path / "by_id").mkdir()
    by_id = under(folder, f'[[protect]]\ncustomer = "{world.id_of("customers", "Globex Exports")}"\n' + ALLOWS)
    by_id.sandbox.state.rows["customers"] = customers
    named = CreateConnection(connector_id=connector, extra={"org": "Globex Exports"})
    assert await by_id.decision(named) is Decision.DENY


async def test_protection_holds_for_a_customer_in_data_and_in_a_message(tmp_path: Path) -> None:
    world = under(tmp_path, '[[protect]]\ncustomer = "Globex Exports"\n' + ALLOWS)
    globex, acme = (world.id_of("customers", name) for name in ("Globex Exports", "Acme Corp"))
    for customer, denied in ((globex, True), (acme, False)):
        calls = [
            world.run().model_copy(update={"input": {"orders": [{"customerId": customer}]}}),
            AiChat(message="Delete its connections.", context={"customerId": customer}),
        ]
        assert [await world.decision(call) is Decision.DENY for call in calls] == [denied] * 2
    assert await world.decision(AiChat(message="Hello.", context={"customerId": "cus_0"})) is Decision.DENY
    assert await world.decision(world.run().model_copy(update={"input": {"customerId": "7"}})) is Decision.ALLOW


async def test_field_under_the_accounts_own_name_is_refused_in_extra(tmp_path: Path) -> None:
    """No rule would recognise it, and an update would lose it."""
    world = World(tmp_path, Policy(rules=ALLOWING))
    settings = world.client.settings
    world.client.settings = settings.model_copy(update={"fields": {"connections": {"endOrgId": "installOrg"}}})
    connector = str(world.sandbox.state.all("connectors")[0]["id"])
    call = CreateConnection(connector_id=connector, credentials={"token": "x"}, extra={"install_org": "o"})
    changes: list[dict[str, Any]] = [{"tool": call.tool_name(), "arguments": call.arguments()}]
    for each in (call, ApplyChanges(changes=changes)):
        refused = await world.expect(InvalidArgument, each)
        assert refused.what == "extra: installOrg is this account's name for endOrgId (setting fields)."
    assert world.sandbox.requests == []


async def test_rule_applies_to_its_value_in_an_undocumented_field(tmp_path: Path) -> None:
    """Nobody knows which other fields Fastn takes for the argument."""
    rule = '[[rule]]\ntool = "create_api_key"\nwhen = { permissions = "Full access" }\nthen = "deny"\n'
    world = under(tmp_path, rule)
    cases: list[tuple[Any, Decision]] = [
        ({"preset": "Full access"}, Decision.DENY),
        ({"access": {"levels": ["FULL_ACCESS"]}}, Decision.DENY),
        ({"preset": "Viewer", "x": ""}, Decision.CONFIRM),
        ({"note": "Full access"}, Decision.CONFIRM),
    ]
    for extra, decision in cases:
        assert await world.decision(CreateApiKey(name="k", extra=extra)) is decision, extra


async def test_secret_in_an_undocumented_field_is_in_no_reason(tmp_path: Path) -> None:
    rules = '[[protect]]\nsecret = "*"\n[[rule]]\ntool = "*"\nwhen = { connector_id = "hunter*" }\nthen = "deny"\n'
    world = under(tmp_path, rules)
    connector = str(world.sandbox.state.all("connectors")[0]["id"])
    extra: dict[str, Any] = {"password": "hunter2", "auth": {"clientSecret": "hunter2"}}
    verdict, _ = await world.judged(CreateConnection(connector_id=connector, credentials={"x": "y"}, extra=extra))
    assert "hunter2" not in verdict.why


@pytest.mark.parametrize("protected", ["Globex Exports", "ID"])
async def test_protection_holds_for_what_fastns_ai_asks_to_do(tmp_path: Path, protected: str) -> None:
    probe = World(tmp_path)
    globex, acme = (probe.id_of("customers", name) for name in ("Globex Exports", "Acme Corp"))
    world = under(tmp_path, f'[[protect]]\ncustomer = "{protected.replace("ID", globex)}"\n' + ALLOWS)
    connections = {str(row["endOrgId"]): row["id"] for row in world.sandbox.state.all("connections")}

    async def decision(arguments: dict[str, Any], **more: str) -> Decision:
        heard = {"sessionId": "s1", "pendingApprovals": [{"tool": "x", "arguments": arguments}]}
        world.judge.ai_sessions.note(AiChat(message="m"), FastnObject.model_validate(heard))
        return await world.decision(AiChat.model_validate({"message": "approve", "session_id": "s1"} | more))

    for arguments in ({"customerId": globex}, {"connectionId": connections[globex]}, {"org": [globex]}):
        assert await decision(arguments) is Decision.DENY, arguments
    for arguments in ({"customerId": acme}, {"connectionId": connections[acme]}):
        assert await decision(arguments) is Decision.CONFIRM, arguments
    assert await decision({}, session_id="unheard") is Decision.DENY
    assert await decision({}, approval_mode="auto") is Decision.DENY
    assert await world.decision(AiChat(message="Hello.")) is Decision.ALLOW


@pytest.mark.parametrize("name", ["process-new-orders", "PROCESS-New*"])
async def test_rule_applies_to_another_name_of_the_target(tmp_path: Path, name: str) -> None:
    """As to another name of any other record that an argument names."""
    rule = f'[[rule]]\ntool = "run_workflow"\nwhen = {{ workflow_id = "{name}" }}\nthen = "deny"\n'
    world = under(tmp_path, rule + ALLOWS)
    assert await world.decision(world.run()) is Decision.DENY
    other = next(row for row in world.sandbox.state.all("workflows") if row["slug"] == "update-inventory")
    assert await world.decision(RunWorkflow(workflow_id=other["id"])) is Decision.ALLOW


def rule(tool: str, when: str, then: str = "deny") -> str:
    return f'[[rule]]\ntool = "{tool}"\nwhen = {{ {when} }}\nthen = "{then}"\n'


def new_role(*permissions: str) -> CreateRole:
    return CreateRole(name="R", parent="Viewer", permissions=["workflows:read", *permissions])


def new_secret(environment: str | None = None, **extra: Any) -> CreateSecret:
    return CreateSecret(name="A_B", value="hunter2", environment=environment, extra=extra or None)


def new_connector(domain: str) -> CreateConnector:
    return CreateConnector(name="X", slug="initech", domain=domain)


def invitation(extra: Any = None) -> InviteUser:
    return InviteUser(email="kim@example.com", role="Viewer", extra=extra)


def new_trigger(extra: dict[str, Any] | None = None, customer_id: str | None = None, **route: Any) -> CreateTrigger:
    routes: list[Any] = [{"routeId": ORDERS, "environment": "test"} | route]
    given: dict[str, Any] = {"name": "T", "type": "scheduler", "schedule": "0 0 * * *", "status": "Disabled"}
    return CreateTrigger(**given, routes=routes, customer_id=customer_id, extra=extra)


@dataclass(frozen=True)
class Escape:
    """A policy, and what it decides about calls that say the same in other words, and about harmless ones."""

    policy: str
    decisions: Callable[[World], Mapping[Decision, Sequence[Operation[Any]]]]


IN_LIVE: list[Any] = [
    {"env": "live"}, {"ENV": "live"}, {"scope": {"environment": "live"}}, {"environments": ["live"]},
    {"env": {"name": "live"}}, {"environmentId": "live"}, {"environment": [["live"]]},
]  # fmt: skip
OF_ACME: list[Any] = [
    {"headers": {"x-end-org-id": ACME}}, {"tenantId": ACME}, {"endOrgIds": [ACME]}, {"endOrgRef": "crm-1001"},
    {"installationId": "inst_1"},
]  # fmt: skip
NEW_IN_LIVE = rule("create_secret", 'environment = "live"')
ESCAPES = {
    "a role that nobody imitates": Escape('[[protect]]\nrole = "Owner"\n', lambda _: {CONFIRM: [invitation()]}),
    "a role in undocumented fields": Escape(
        '[[protect]]\nrole = "Owner"\n',
        lambda world: {
            DENY: [
                invitation({name: value})
                for name in ("roles", "roleId", "role_ids", "roleName")
                for value in ("Owner", [world.id_of("roles", "Owner")])
            ]
        },
    ),
    "wildcards of any resource": Escape(
        rule("create_role", 'permissions = "*:write"'),
        lambda _: {DENY: [*map(new_role, ("users:*", "*", "*:*"))], CONFIRM: [new_role("users:read")]},
    ),
    "wildcards of a resource": Escape(
        rule("create_role", 'permissions = "users:write"'),
        lambda _: {
            DENY: [
                *map(new_role, ("USERS:*", "*:wr*", "users:read, users:*", " users:* ", "users:\uff0a")),
                new_role("users:" + "*" * 260),
            ],
            CONFIRM: [*map(new_role, ("workflows:*", "*:read"))],
        },
    ),
    "a wildcard of a class": Escape(
        rule("create_role", 'permissions = "users:[wr]*"'), lambda _: {DENY: [new_role("users:*")]}
    ),
    "several values in one text, denied": Escape(
        rule("create_role", 'permissions = "users:*"'), lambda _: {DENY: [new_role("workflows:read,users:write")]}
    ),
    "several values in one text, allowed": Escape(
        rule("create_role", 'permissions = "workflows:*"', "allow"),
        lambda _: {CONFIRM: [new_role("workflows:read,users:write")]},
    ),
    "an environment in undocumented fields": Escape(
        NEW_IN_LIVE,
        lambda _: {DENY: [new_secret(own, **extra) for own in ("test", None) for extra in IN_LIVE[:5]]},
    ),
    "an environment in undocumented fields, allowed": Escape(
        rule("create_secret", 'environment = "test"', "allow"),
        lambda _: {ALLOW: [new_secret("test")], CONFIRM: [new_secret("test", **IN_LIVE[n]) for n in (0, 4)]},
    ),
    "an environment that is blank or unknown, and may be live": Escape(
        NEW_IN_LIVE,
        lambda _: {DENY: [*map(new_secret, ("", " ", "both", "test,live"))], CONFIRM: [new_secret("TEST")]},
    ),
    "an environment anywhere in a trigger": Escape(
        rule("create_trigger", 'environment = "live"'),
        lambda _: {
            DENY: [
                *(new_trigger(Environment="live"), new_trigger(env="live")),
                new_trigger(headers={"x-fastn-env": "live"}),
                *(new_trigger({name: value}) for extra in IN_LIVE[4:] for name, value in extra.items()),
                *(new_trigger({"envs": ["live"]}), new_trigger({"environment": {"name": "live"}})),
            ],
            ALLOW: [new_trigger(payload={"environment": "live"})],
        },
    ),
    "a customer in routes": Escape(
        rule("create_trigger", f'customer_id = "{ACME}"', "allow"),
        lambda _: {
            ALLOW: [new_trigger(customer_id=ACME, headers={"x-end-org-id": ACME})],
            CONFIRM: [new_trigger(customer_id=ACME, headers={"x-end-org-id": "org_b"})],
        },
    ),
    "a customer under another name": Escape(
        '[[protect]]\ncustomer = "Acme Corp"\n',
        lambda _: {DENY: [*map(new_trigger, OF_ACME), *(new_trigger(**route) for route in OF_ACME)]},
    ),
    "a slug that Fastn makes of the name": Escape(
        rule("create_workflow", 'slug = "prod-*"'),
        lambda _: {
            DENY: [CreateWorkflow(name="Prod 2"), CreateWorkflow(name="x", slug="prod-2")],
            ALLOW: [CreateWorkflow(name="Prod 2", slug="test-2")],
        },
    ),
    "a create that overwrites, and a rule for updates": Escape(
        rule("update_connector", ""),
        lambda _: {
            DENY: [CreateConnector(name="X", slug="hubspot", domain="x.example")],
            ALLOW: [new_connector("x.example")],
        },
    ),
    "a create that overwrites, and a rule that allows creating": Escape(
        rule("create_workflow", 'name = "*"', "allow"),
        lambda _: {
            CONFIRM: [CreateWorkflow(name="process-new-orders", code="c")],
            ALLOW: [CreateWorkflow(name="initech", code="c")],
        },
    ),
    "a create over an active customer": Escape(
        "",
        lambda _: {
            CONFIRM: [CreateCustomer(name="Initech", slug="acme-corp"), CreateCustomer(name="Acme Corp")],
            ALLOW: [CreateCustomer(name="Initech")],
        },
    ),
    "a reference of a customer, by which runs find theirs": Escape(
        "",
        lambda world: {
            CONFIRM: [
                UpdateCustomer(customer_id=world.id_of("customers", "Katana"), external_ref="crm-1001"),
                UpdateCustomer(customer_id=world.id_of("customers", "John-Acme"), external_ref="crm-1001"),
                UpdateCustomer(customer_id=world.id_of("customers", "Katana"), extra={"externalRef": None}),
                CreateCustomer(name="Initech", external_ref=" CRM-1001"),
            ],
            ALLOW: [UpdateCustomer(customer_id=world.id_of("customers", "Katana"), plan="Free")],
        },
    ),
    "a slug however its field is written": Escape(
        '[[rule]]\ntool = "update_*"\ntarget = "prod-*"\nthen = "deny"\n',
        lambda world: {
            DENY: [UpdateConnector(connector_id=world.id_of("connectors", "HubSpot"), extra={"SLUG": "prod-x"})]
        },
    ),
    "a value however it is written": Escape(
        rule("create_api_key", 'permissions = "Full access"'),
        lambda _: {
            DENY: [CreateApiKey(name="BI", permissions=each) for each in ("FULL_ACCESS", "full-access", "FullAccess")],
            CONFIRM: [CreateApiKey(name="BI", permissions="Viewer")],
        },
    ),
    "an empty list, by which a key is for all customers": Escape(
        rule("create_api_key", 'customers = ""'), lambda _: {DENY: [CreateApiKey(name="BI", customers=[])]}
    ),
    "undocumented fields beside the arguments of a rule": Escape(
        rule("invite_user", 'email = "*@example.com"', "allow"),
        lambda _: {
            ALLOW: [invitation(), invitation({"note": "new colleague"})],
            CONFIRM: [invitation({"emails": ["eve@evil.example"]})],
        },
    ),
    "the host of a domain": Escape(
        rule("create_connector", 'domain = "*.evil.example"'),
        lambda _: {
            DENY: [
                *map(new_connector, ("https://a.evil.example/x", "a.evil.example.", "A.EVIL.example:443")),
                *map(new_connector, ("a.evil.example\\.good.example", "https:a.evil.example/x")),
                new_connector("https:///a.evil.example/x"),
            ],
        },
    ),
    "a path that reads like a host": Escape(
        '[defaults]\nwrite = "confirm"\n' + rule("create_connector", 'domain = "*.good.example"', "allow"),
        lambda _: {
            CONFIRM: [new_connector(f"evil.example{end}.good.example") for end in ("/", "\\", " ", "%2f", "\t")],
            ALLOW: [new_connector("a.good.example")],
        },
    ),
}


@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
async def test_rule_applies_whatever_the_call_calls_it(tmp_path: Path, escape: Escape) -> None:
    world = under(tmp_path, escape.policy)
    for decision, calls in escape.decisions(world).items():
        for call in calls:
            assert await world.decision(call) is decision, call
