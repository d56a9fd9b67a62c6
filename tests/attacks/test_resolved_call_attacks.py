"""Calls that say less than they do: a real client, the real server, and a served sandbox that logs what was sent."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mcp.types import ElicitRequestFormParams, ElicitResult
from support.local_page import CANARY, env_state
from support.scripted_client import LATEST, session
from support.server_process import Person, Upstream, approving
from support.watched_agent import agent, fails, id_of
from support.world import World

from fastn_mcp.errors import Declined
from fastn_mcp.guard.approval_form import Decline
from fastn_mcp.tools.connectors import CreateConnection, CreateConnector, UpdateConnector

pytestmark = pytest.mark.anyio

each_server = pytest.mark.parametrize(
    ("transport", "version"),
    [
        ("stdio", LATEST),
        pytest.param("stdio", "2025-11-25", marks=pytest.mark.long),
        pytest.param("http", LATEST, marks=pytest.mark.long),
    ],
)
WORKFLOW = "wf_0d93ee5b1f62"
ADDRESS = "api.ledgerly.example"
LEDGERLY = {
    "name": "Ledgerly",
    "slug": "ledgerly",
    "domain": ADDRESS,
    "auth_methods": [{"type": "API_KEY", "title": "API key", "isDefault": True}],
}


def declining(_: ElicitRequestFormParams) -> ElicitResult:
    return ElicitResult(action="accept", content={"decision": "decline"})


@each_server
async def test_typed_credentials_need_the_same_address(
    transport: str, version: str, upstream: Upstream, tmp_path: Path
) -> None:
    async with agent(upstream, tmp_path, version, transport) as call:
        connector = (await call("create_connector", **LEDGERLY))["data"]["id"]
        assert (await call("create_connection", connector_id=connector))["status"] == "approval_required"
        row = upstream.ask("GET", f"connectors/{connector}")
        whole = {name: row[name] for name in ("name", "protocol", "visibility", "authMethods")}
        upstream.ask("PUT", f"connectors/{connector}", **whole, domain="evil.example")
        seen = await call.type_secret()
        assert f'Connect "Ledgerly" at "{ADDRESS}"' in seen
        assert 'connector "Ledgerly", by this server just now' in seen
        assert "references" not in seen
        assert (await call("create_connection", connector_id=connector))["outcome"] == "target_changed"
        assert call.sent == ["POST /api/v1/connectors"]
        assert call.stored("SELECT * FROM typed_secrets") == []
        assert CANARY not in "".join(map(str, upstream.requests()))
        assert (await call("create_connection", connector_id=connector))["status"] == "approval_required"
        assert 'Connect "Ledgerly" at "evil.example"' in call.shown


async def test_connector_of_an_open_request_needs_approval(upstream: Upstream, tmp_path: Path) -> None:
    person = Person(declining)
    async with agent(upstream, tmp_path, LATEST, person=person) as call:
        connector = (await call("create_connector", **LEDGERLY))["data"]["id"]
        assert (await call("create_connection", connector_id=connector))["status"] == "approval_required"
        change = {"connector_id": connector, "domain": "evil.example"}
        assert (await call("update_connector", **change))["outcome"] == "declined"
        assert call.sent == ["POST /api/v1/connectors"]
        person.answer = approving
        assert (await call("update_connector", **change))["done"] == "update_connector"
        assert len(person.asked) == 2
        await call.type_secret()
        assert (await call("create_connection", connector_id=connector))["outcome"] == "target_changed"
        assert call.sent == ["POST /api/v1/connectors", f"PUT /api/v1/connectors/{connector}"]
        assert (await call("create_connection", connector_id=connector))["status"] == "approval_required"
        assert f'Address changed: just now, it was "{ADDRESS}"' in call.shown


async def test_argument_that_contradicts_a_setting_is_refused(upstream: Upstream, tmp_path: Path) -> None:
    globex, acme = (id_of(upstream, "customers", name) for name in ("globex-exports", "acme-corp"))
    gamma = id_of(upstream, "connectors", "gamma")
    async with agent(upstream, tmp_path, LATEST, FASTN_ENV="live", FASTN_END_ORG_ID=globex) as call:
        for tool, arguments, words in (
            ("create_secret", {"name": "NEW", "environment": "test"}, ("environment", '"test"', '"live"', "env.")),
            ("create_secret", {"name": "NEW", "customer_id": acme}, ("customer_id", acme, globex, "end_org_id.")),
            ("create_connection", {"connector_id": gamma, "customer_id": acme}, ("customer_id", acme, globex)),
        ):
            answer = await call(tool, **arguments)
            assert answer["outcome"] == "not_sent", tool
            assert all(word in answer["message"] for word in words), answer["message"]
        assert call.sent == []


def touching(upstream: Upstream, customer: str) -> list[tuple[str, dict[str, Any]]]:
    """Return a call of each kind that touches what is a customer's."""
    gamma = id_of(upstream, "connectors", "gamma")
    secret = upstream.ask("POST", "secrets", name="OF_THEIRS", value="x", customerId=customer)["id"]
    own = upstream.ask(
        "POST", "connectors", name="Own app", slug="own-app", authMethods=[{"type": "API_KEY", "title": "k"}]
    )["id"]
    theirs = {"connectorId": own, "endOrgId": customer, "credentials": {"apiKey": "x"}}
    connection = upstream.ask("POST", "connections", **theirs)["id"]
    routes = [{"routeId": WORKFLOW, "environment": "test"}]
    hook = {"name": "Their hook", "type": "webhook", "routes": routes, "status": "Disabled", "endOrgId": customer}
    trigger = upstream.ask("POST", "triggers", **hook)["id"]
    return [
        ("delete_connection", {"connection_id": connection}),
        ("delete_secret", {"secret_id": secret}),
        ("delete_trigger", {"trigger_id": trigger}),
        ("update_trigger", {"trigger_id": trigger, "status": "Active"}),
        ("run_workflow", {"workflow_id": WORKFLOW, "customer_id": customer, "environment": "test"}),
        ("create_api_key", {"name": "Theirs", "customers": [customer]}),
        ("create_secret", {"name": "NEW", "customer_id": customer}),
        ("create_trigger", {"name": "New", "type": "webhook", "routes": routes, "customer_id": customer}),
        ("create_connection", {"connector_id": gamma, "customer_id": customer}),
        ("delete_connector", {"connector_id": own}),
    ]


async def test_protected_customer_is_never_touched(upstream: Upstream, tmp_path: Path) -> None:
    globex = id_of(upstream, "customers", "globex-exports")
    async with agent(upstream, tmp_path, LATEST, policy=f'[[protect]]\ncustomer = "{globex[:13]}*"\n') as call:
        for tool, arguments in touching(upstream, globex):
            refused = await call(tool, **arguments)
            assert refused["outcome"] == "refused", (tool, refused)
            assert "is protected" in refused["message"], tool
        assert call.sent == []


async def test_calls_on_another_customer_are_asked(upstream: Upstream, tmp_path: Path) -> None:
    katana, policy = id_of(upstream, "customers", "katana-customer"), '[[protect]]\ncustomer = "Globex*"\n'
    async with agent(upstream, tmp_path, LATEST, policy=policy) as call:
        for tool, arguments in touching(upstream, katana):
            assert (await call(tool, **arguments))["outcome"] == "approval_required", tool
        globex = id_of(upstream, "customers", "globex-exports")
        assert (await call("create_secret", name="NEW", customer_id=globex))["outcome"] == "refused"
        assert call.sent == []


@each_server
async def test_deletion_shows_the_previous_name(
    transport: str, version: str, upstream: Upstream, tmp_path: Path
) -> None:
    customer, person = id_of(upstream, "customers", "globex-exports"), Person(declining)
    async with agent(upstream, tmp_path, version, transport, person=person) as call:
        rename = {"customer_id": customer, "name": "Scratch"}
        assert (await call("update_customer", **rename))["outcome"] == "declined"
        assert call.sent == []
        person.answer = approving
        assert (await call("update_customer", **rename))["done"] == "update_customer"
        person.answer = declining
        assert (await call("delete_customer", customer_id=customer))["outcome"] == "declined"
        assert 'Renamed: just now, it was called "Globex Exports"' in person.asked[-1]
        assert call.sent == [f"PUT /api/v1/customers/{customer}"]


@dataclass(frozen=True)
class Pair:
    """Two copies of a record with one name, and what the request to delete either says of it."""

    kind: str
    name: str
    first: dict[str, Any] = field(default_factory=dict[str, Any])
    second: dict[str, Any] = field(default_factory=dict[str, Any])
    says: tuple[str, str] = ("", "")


PAIRS = [
    Pair("customer", "Acme Corp", {}, {"slug": "acme-2"}, ('"active"', '"slug acme-2, active"')),
    Pair("connector", "Gamma", {}, {"slug": "gamma-2"}, ("Delete", '"slug gamma-2"')),
    Pair("workflow", "process-new-orders", {}, {"slug": "orders-2", "status": "draft"}, ("active", "orders-2, draft")),
    Pair("trigger", "Shop events", {}, {"status": "Disabled"}, ("in live, active", "in live, disabled")),
    Pair("secret", "GOOGLE_SA", {"environment": "test"}, {"environment": None}, ('in test"', "in test and live")),
    Pair("secret", "GOOGLE_SA", {"customerId": None}, {"customerId": "c1"}, ("the account itself", "c1")),
    Pair("connection", "default", {"id": "u:o:live:k:a:c"}, {"id": "u:o:test:k:a:c"}, ("in live", "in test")),
    Pair("api_key", "BI export", {"last4": "1111"}, {"last4": "2222"}, ("…1111", "…2222")),
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


async def test_undocumented_fields_do_not_change_the_shown_connector(upstream: Upstream, tmp_path: Path) -> None:
    gamma = id_of(upstream, "connectors", "gamma")
    async with agent(upstream, tmp_path, LATEST, person=Person(approving)) as call:
        forged = {"connectorName": "Stripe", "customerName": "Acme"}
        await call("create_connection", connector_id=gamma, credentials={"apiKey": "x"}, extra=forged)
        assert call.sent == ["POST /api/v1/connections"]
        assert call.shown.startswith('Connect "Gamma" at "gamma.app" for the account itself and set "connectorName"')
        audit = [json.loads(line) for line in env_state(call.env).splitlines()]
        assert {entry["name"] for entry in audit if "name" in entry} == {"Gamma of the account itself"}


async def test_unreadable_record_is_reported_and_not_sent(upstream: Upstream, tmp_path: Path) -> None:
    gamma, policy = id_of(upstream, "connectors", "gamma"), '[[protect]]\nconnector = "Stripe"\n'
    fails(upstream, f"/api/v1/connectors/{gamma}")
    fails(upstream, f"/api/v1/workflows/{WORKFLOW}")
    async with agent(upstream, tmp_path, LATEST) as call:
        answer = await call("run_workflow", workflow_id=WORKFLOW)
        assert answer["outcome"] == "not_sent"
        assert answer["message"].startswith("Its target could not be read first. ")
        assert (await call("create_connection", connector_id=gamma))["status"] == "approval_required"
        assert "Connector: could not be read, sends to an address that is not known." in call.shown
        assert call.sent == []
    async with agent(upstream, tmp_path, LATEST, policy=policy) as call:
        refused = await call("create_connection", connector_id=gamma)
        assert refused["outcome"] == "refused"
        assert f'connector "{gamma}" could not be read' in refused["message"]
        assert call.sent == []


async def test_request_shows_that_a_connector_has_no_domain(upstream: Upstream, tmp_path: Path) -> None:
    async with agent(upstream, tmp_path, LATEST) as call:
        connector = (await call("create_connector", **{**LEDGERLY, "domain": None}))["data"]["id"]
        assert (await call("create_connection", connector_id=connector))["status"] == "approval_required"
        assert 'Connector: "Private", sends to an address that is not known.' in call.shown
        assert call.sent == ["POST /api/v1/connectors"]


@pytest.mark.parametrize("address", ["https://evil.example/t", "https:\\\\evil.example", "http:/evil.example:8443/"])
async def test_request_for_credentials_names_every_host_that_gets_them(tmp_path: Path, address: str) -> None:
    """A connector that nobody uses is changed without an approval, also where one signs in there."""
    world = World(tmp_path)
    config: dict[str, Any] = {"tokenUrl": address, "scopes": ["https://scopes.example/x"], "api": "//api.crm.example"}
    methods: list[dict[str, Any]] = [{"type": "INPUT", "isDefault": True, "config": config}]
    made = await world.ask(CreateConnector(name="CRM Two", slug="crm-2", domain="crm.example", auth_methods=methods))
    form = world.form(Decline())
    await world.expect(Declined, CreateConnection(connector_id=made["id"], credentials={"token": "abcd"}), form)
    assert 'Signs in at: "evil.example".' in form.asked[0].text
    changed: list[dict[str, Any]] = [{"type": "BEARER", "isDefault": True}]
    await world.ask(UpdateConnector(connector_id=made["id"], auth_methods=changed))
    world.clock.pass_(1000)
    await world.expect(Declined, CreateConnection(connector_id=made["id"], credentials={"token": "abcd"}), form)
    assert "Sign-in changed" in form.asked[1].text
    assert "Signs in at" not in form.asked[1].text
