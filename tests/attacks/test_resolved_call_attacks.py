"""Calls that say less than they do. `tests/guard/test_resolved_*.py` have those of every tool."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.command_line import run_command
from support.scripted_client import LATEST, session
from support.world import World

from fastn_mcp.errors import Declined, NotSent, TargetChanged
from fastn_mcp.guard.approval_form import Decline, PendingApproval, form_text
from fastn_mcp.guard.result import Done
from fastn_mcp.tools.connectors import CreateConnection, CreateConnector, UpdateConnector
from fastn_mcp.tools.customers import DeleteCustomer, UpdateCustomer
from fastn_mcp.tools.workflows import RunWorkflow

CANARY = "canary-4711-typed"
ADDRESS = "api.ledgerly.example"
LEDGERLY = CreateConnector(
    name="Ledgerly",
    slug="ledgerly",
    domain=ADDRESS,
    auth_methods=[{"type": "API_KEY", "title": "API key", "isDefault": True}],
)


async def shown(world: World) -> str:
    return "\n".join((await world.open_request()).question.lines())


@pytest.mark.parametrize("by_this_server", [True, False])
async def test_typed_credentials_need_the_same_address(world: World, by_this_server: bool) -> None:
    """This server changes the connector of an open request with an approval only."""
    await world.expect(Done, LEDGERLY)
    connector = world.id_of("connectors", "Ledgerly")
    connection, change = CreateConnection(connector_id=connector), UpdateConnector(connector_id=connector, domain="x.y")
    await world.expect(PendingApproval, connection)
    request = await world.open_request()
    assert f'Connect "Ledgerly" at "{ADDRESS}"' in request.question.title
    assert 'connector "Ledgerly" by this server just now' in await shown(world)
    if by_this_server:
        await world.expect(Declined, change, world.form(Decline()))
        await world.expect(Done, change, world.form())
    else:
        world.sandbox.state.named("connectors", "ledgerly")["domain"] = "x.y"
    sent = len(world.changes)
    await world.approve_typed(request, {"apiKey": CANARY})
    await world.expect(TargetChanged, connection)
    assert len(world.changes) == sent
    assert await world.ledger.sealed(request.id, "page", world.timestamp) is None
    await world.expect(PendingApproval, connection)
    assert 'Connect "Ledgerly" at "x.y"' in await shown(world)
    assert (f'Address changed: just now, it was "{ADDRESS}"' in await shown(world)) is by_this_server


def test_argument_that_contradicts_a_setting_is_refused(tmp_path: Path) -> None:
    settings = {"FASTN_ENV": "live", "FASTN_END_ORG_ID": "c1", "FASTN_CONFIG": os.devnull}
    env = os.environ | settings | dict.fromkeys(("FASTN_CONFIG_DIR", "FASTN_STATE_DIR"), str(tmp_path))
    for command, words in (
        (
            ["create_secret", "--name", "NEW", "--environment", "test"],
            ("environment", '"test"', '"live"', "(setting env)"),
        ),
        (
            ["create_secret", "--name", "NEW", "--customer-id", "c2"],
            ("customer_id", '"c2"', '"c1"', "(setting end_org_id)"),
        ),
        (["create_connection", "--connector-id", "k", "--customer-id", "c2"], ("customer_id", '"c2"', '"c1"')),
    ):
        done = run_command(["--sandbox", "call", *command], env)
        assert done.returncode != 0
        assert [word for word in (*words, "Nothing was sent.") if word not in done.stdout + done.stderr] == []


async def test_dependents_are_those_of_the_record_that_fastn_shows(world: World) -> None:
    """Fastn may take a slug for an id in a path, and in no filter of a list."""
    rows = world.sandbox.state.rows["customers"]
    acme = rows[world.id_of("customers", "Acme Corp")]
    rows[acme["slug"]] = acme
    previews = [(await world.judged(DeleteCustomer(customer_id=acme[field])))[1] for field in ("id", "slug")]
    assert previews[0].lost.startswith("Its connections ")
    assert previews[1].says() == previews[0].says()


async def test_deletion_shows_the_previous_name(world: World) -> None:
    customer, person = world.id_of("customers", "Globex Exports"), world.form()
    await world.expect(Done, UpdateCustomer(customer_id=customer, name="Scratch"), person)
    await world.expect(Done, DeleteCustomer(customer_id=customer), person)
    assert 'Renamed: just now, it was called "Globex Exports"' in form_text(person.asked[-1])


@dataclass(frozen=True)
class Pair:
    """Two copies of a record with one name, and what the request to delete either says of it."""

    kind: str
    name: str
    first: dict[str, Any] = field(default_factory=dict[str, Any])
    second: dict[str, Any] = field(default_factory=dict[str, Any])
    says: tuple[str, str] = ("", "")


PAIRS = [
    Pair("customer", "Acme Corp", {}, {"slug": "acme-2"}, ("\nStatus: active", 'Slug: "acme-2". Status: active')),
    Pair("connector", "Gamma", {}, {"slug": "gamma-2"}, ("Delete", 'Slug: "gamma-2"')),
    Pair(
        "workflow",
        "process-new-orders",
        {},
        {"slug": "orders-2", "status": "draft"},
        ("Status: active", 'Slug: "orders-2". Status: draft'),
    ),
    Pair("trigger", "Shop events", {}, {"status": "Disabled"}, ("Status: active", "Status: disabled")),
    Pair(
        "secret",
        "GOOGLE_SA",
        {"environment": "test"},
        {"environment": None},
        ("Environment: test.", "Environment: test and live."),
    ),
    Pair("secret", "GOOGLE_SA", {"customerId": None}, {"customerId": "c1"}, ("Customer: none", 'Customer: "c1"')),
    Pair(
        "connection",
        "default",
        {"id": "u:o:live:k:a:c"},
        {"id": "u:o:test:k:a:c"},
        ("Environment: live", "Environment: test"),
    ),
    Pair("api_key", "BI export", {"last4": "1111"}, {"last4": "2222"}, ('Ends in: "1111"', 'Ends in: "2222"')),
]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.kind)
async def test_deletion_request_distinguishes_records_of_one_name(pair: Pair, tmp_path: Path) -> None:
    world = World(tmp_path)
    state, is_key = world.sandbox.state, pair.kind == "api_key"
    collection, tool = ("apiKeys", "revoke_api_key") if is_key else (f"{pair.kind}s", f"delete_{pair.kind}")
    row = state.named(collection, pair.name, by="name")
    ids = [
        str(state.put(collection, {**row, "id": f"copy-{n}", **new})["id"])
        for n, new in enumerate((pair.first, pair.second))
    ]
    async with session(world, LATEST) as call:
        for id_ in ids:
            assert (await call(tool, **{f"{pair.kind}_id": id_}))["outcome"] == "declined"
        for message, says, other in zip(call.messages, pair.says, reversed(pair.says), strict=True):
            assert says in message
            assert other == "Delete" or other not in message
    assert world.changes == []


async def test_undocumented_fields_do_not_change_the_shown_connector(world: World) -> None:
    forged: Any = {"connectorName": "Stripe", "customerName": "Acme"}
    gamma, person = world.id_of("connectors", "Gamma"), world.form()
    await world.call(CreateConnection(connector_id=gamma, credentials={"apiKey": "x"}, extra=forged), person)
    assert [heard.tool for heard in world.changes] == ["create_connection"]
    own = 'Connect "Gamma" at "gamma.app" for your own account (no customer) and set "connectorName"'
    assert person.asked[0].question.title.startswith(own)
    assert {entry.get("name") for entry in world.audited("intent")} == {"Gamma of your own account"}


async def test_unreadable_record_is_reported_and_not_sent(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, '[[protect]]\nconnector = "Stripe"\n')
    gamma = world.id_of("connectors", "Gamma")
    world.refuse(f"/api/v1/connectors/{gamma}", "/api/v1/workflows/*", status=400)
    unread = await world.expect(NotSent, RunWorkflow(workflow_id="wf_0d93ee5b1f62"))
    assert unread.what.startswith("Its target could not be read first. ")
    refused = str(await world.call(CreateConnection(connector_id=gamma)))
    assert f'connector "{gamma}" could not be read' in refused
    assert world.changes == []


async def test_request_shows_that_a_connector_has_no_domain(world: World) -> None:
    await world.expect(Done, CreateConnector(name="Ledgerly", slug="ledgerly", auth_methods=LEDGERLY.auth_methods))
    await world.expect(PendingApproval, CreateConnection(connector_id=world.id_of("connectors", "Ledgerly")))
    assert "Connector: private; sends to an unknown address." in await shown(world)


@pytest.mark.parametrize("address", ["https://evil.example/t", "https:\\\\evil.example", "http:/evil.example:8443/"])
async def test_request_for_credentials_names_every_host_that_gets_them(tmp_path: Path, address: str) -> None:
    """A connector that nobody uses is changed without an approval, also where one signs in there."""
    world = World(tmp_path)
    config: dict[str, Any] = {"tokenUrl": address, "scopes": ["https://scopes.example/x"], "api": "//api.crm.example"}
    methods: list[dict[str, Any]] = [{"type": "INPUT", "isDefault": True, "config": config}]
    made = await world.ask(CreateConnector(name="CRM Two", slug="crm-2", domain="crm.example", auth_methods=methods))
    form = world.form(Decline())
    await world.expect(Declined, CreateConnection(connector_id=made["id"], credentials={"token": "abcd"}), form)
    assert 'Signs in at: "evil.example".' in form_text(form.asked[0])
    changed: list[dict[str, Any]] = [{"type": "BEARER", "isDefault": True}]
    await world.ask(UpdateConnector(connector_id=made["id"], auth_methods=changed))
    world.clock.pass_(1000)
    await world.expect(Declined, CreateConnection(connector_id=made["id"], credentials={"token": "abcd"}), form)
    assert "Sign-in changed" in form_text(form.asked[1])
    assert "Signs in at" not in form_text(form.asked[1])
