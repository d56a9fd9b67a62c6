"""Tests of creations and updates: replaced fields, and refusals."""

from typing import Any

import pytest
from support.direct_sandbox import Fastn

from fastn_mcp.tools.access import CreateApiKey, CreateRole, CreateSecret, InviteUser, ListApiKeys, ListSecrets
from fastn_mcp.tools.connectors import CreateConnection, CreateConnector, ListConnections, UpdateConnector
from fastn_mcp.tools.customers import CreateCustomer, GetCustomer, UpdateCustomer
from fastn_mcp.tools.operation import Operation, Update
from fastn_mcp.tools.triggers import CreateTrigger, UpdateTrigger
from fastn_mcp.tools.workflows import CreateWorkflow, UpdateWorkflow

ORDERS, DRAFT = "wf_0d93ee5b1f62", "wf_e5047fb2a8c3"
TO_ORDERS: list[dict[str, Any]] = [{"routeId": ORDERS, "environment": "test"}]


def resources(fastn: Fastn) -> dict[str, str]:
    """Return the path of a row of each kind that can be updated."""
    return {
        "customers": f"/api/v1/customers/{fastn.id_of('customers', 'acme-corp')}",
        "connectors": f"/api/v1/connectors/{fastn.id_of('connectors', 'gamma')}",
        "workflows": f"/api/v1/workflows/{ORDERS}",
        "triggers": f"/api/v1/triggers/{fastn.id_of('triggers', 'Daily TikTok sync', by='name')}",
    }


KINDS = ("customers", "connectors", "workflows", "triggers")


@pytest.mark.parametrize("kind", KINDS)
def test_put_clears_omitted_fields(fastn: Fastn, kind: str) -> None:
    """Whether Fastn's PUT replaces is unknown, and the sandbox assumes the worse."""
    path = resources(fastn)[kind]
    before = fastn.ask("GET", path).data

    after = fastn.ask("PUT", path, body={"name": "Only a name"}).data

    assert after["name"] == "Only a name"
    lost = [name for name, value in before.items() if value is not None and after[name] is None]
    assert lost
    assert {name: after[name] for name in ("id", "createdAt", "createdBy")} == {
        name: before[name] for name in ("id", "createdAt", "createdBy")
    }
    assert after == fastn.ask("GET", path).data


@pytest.mark.parametrize("kind", KINDS)
def test_put_accepts_the_fields_of_a_get(fastn: Fastn, kind: str) -> None:
    path = resources(fastn)[kind]
    before = fastn.ask("GET", path).data

    answer = fastn.ask("PUT", path, body=Update.merged(before, {"description": "New"} if kind != "customers" else {}))

    assert answer.status == 200, answer.value
    kept_by_fastn = {"version", "updatedAt", "updatedBy", "description", "stage"}
    changed = {name for name in before if before[name] != answer.data[name]}
    assert changed <= kept_by_fastn
    assert answer.data["version"] == before["version"] + 1


@pytest.mark.parametrize("kind", KINDS)
def test_stale_version_is_a_conflict(fastn: Fastn, kind: str) -> None:
    """Fastn's reference: 409 on a version mismatch. That it contains the current one is ours."""
    path = resources(fastn)[kind]
    version = fastn.ask("GET", path).data["version"]
    fastn.ask("PUT", path, body={"name": "First", "version": version})

    stale = fastn.ask("PUT", path, body={"name": "Second", "version": version})

    assert (stale.status, stale.error["code"]) == (409, "CONFLICT")
    assert stale.error["details"]["currentVersion"] == version + 1
    assert fastn.ask("GET", path).data["name"] == "First"


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_field_of_an_update_is_refused(fastn: Fastn, kind: str) -> None:
    """Fastn's reference: 422 for a validation error. That unknown fields are one is ours."""
    path = resources(fastn)[kind]
    before = fastn.ask("GET", path).data

    assert fastn.ask("PUT", path, body={"name": "New", "colour": "red"}).field == "colour"
    assert fastn.ask("PUT", path, body={"name": "New", "createdBy": "somebody else"}).field == "createdBy"
    assert fastn.ask("PUT", path, body={"name": {"first": "New"}}).field == "name"
    assert fastn.ask("GET", path).data == before


@pytest.mark.parametrize("kind", KINDS)
def test_update_of_a_missing_resource_is_not_found(fastn: Fastn, kind: str) -> None:
    """Fastn's reference: 404, resource not found."""
    assert fastn.ask("PUT", f"/api/v1/{kind}/nothing", body={"name": "New"}).status == 404


def creations(fastn: Fastn) -> dict[str, Operation[Any]]:
    gamma = fastn.id_of("connectors", "gamma")
    return {
        "customer": CreateCustomer(name="Initech"),
        "connector": CreateConnector(name="Initech", slug="initech"),
        "connection": CreateConnection(connector_id=gamma, credentials={"apiKey": "1"}),
        "workflow": CreateWorkflow(name="Initech"),
        "trigger": CreateTrigger(name="Initech", type="webhook", routes=TO_ORDERS),
        "role": CreateRole(name="Initech", permissions=["workflows:read"]),
        "user": InviteUser(email="bill@initech.example", role="viewer"),
        "key": CreateApiKey(name="Initech"),
    }


@pytest.mark.parametrize("kind", ["customer", "connector", "connection", "workflow", "trigger", "role", "user", "key"])
def test_creation_with_an_unknown_field_or_a_taken_name_is_refused(fastn: Fastn, kind: str) -> None:
    """Fastn's reference: 422 for a validation error, 409 on a resource conflict."""
    call = creations(fastn)[kind]

    assert fastn(call.model_copy(update={"extra": {"colour": "red"}})).field == "colour"
    assert [fastn(call).status, fastn(call).status] == [201, 409]


def test_rename_to_a_taken_name_is_a_conflict(fastn: Fastn) -> None:
    """Fastn's reference: 409 on a resource conflict."""
    path = resources(fastn)["customers"]
    body = Update.merged(fastn.ask("GET", path).data, {"name": "katana"})

    refused = fastn.ask("PUT", path, body=body)

    assert (refused.status, refused.error["details"]["field"]) == (409, "name")


def test_new_customer_is_pending_and_has_a_slug(fastn: Fastn) -> None:
    """Fastn's documentation: a customer is Pending Admin Activation until its admin accepts."""
    row = fastn(CreateCustomer(name="Init & Tech Ltd", admin_email="bill@initech.example")).data

    assert (row["slug"], row["status"], row["plan"]) == ("init-tech-ltd", "Pending Admin Activation", "Free")
    assert row["customerAdmin"] == {"email": "bill@initech.example", "inviteStatus": "Invite Pending"}
    assert row["connectionsCount"] == 0
    assert fastn(CreateCustomer(name="日本")).field == "slug"
    assert fastn(CreateCustomer(name="日本", slug="nihon")).status == 201


def test_customer_is_not_found_by_its_slug(fastn: Fastn) -> None:
    """Fastn's documentation: slug and external id answer 404."""
    assert fastn(GetCustomer(customer_id="acme-corp")).status == 404
    assert fastn(GetCustomer(customer_id="crm-1001")).status == 404


def test_new_admin_address_is_invited(fastn: Fastn) -> None:
    path = resources(fastn)["customers"]
    body = Update.merged(fastn.ask("GET", path).data, {"adminEmail": "new@acme.example"})

    assert fastn.ask("PUT", path, body=body).data["customerAdmin"] == {
        "email": "new@acme.example",
        "inviteStatus": "Invite Pending",
    }
    assert fastn(UpdateCustomer(customer_id=path.rpartition("/")[2], name="Acme")).data["customerAdmin"] is None


def test_managed_connectors_are_read_only(fastn: Fastn) -> None:
    """Fastn's documentation: managed connectors are read-only."""
    call = UpdateConnector(connector_id=fastn.id_of("connectors", "slack"), name="Slacker")

    assert (fastn(call).status, fastn(call).error["code"]) == (403, "FORBIDDEN")


def test_connector_is_private_with_a_known_protocol(fastn: Fastn) -> None:
    """Fastn's documentation: REST, MCP, FTP, Database or REDIS; only Fastn publishes connectors."""
    reply = fastn(CreateConnector(name="A", slug="a", auth_methods=[{"type": "API_KEY", "title": "Key"}])).data

    assert (reply["protocol"], reply["visibility"], reply["origin"]) == ("REST", "Private", "custom")
    assert reply["authMethods"][0]["id"]
    assert fastn(CreateConnector(name="B", slug="b", protocol="GOPHER")).field == "protocol"
    assert fastn(CreateConnector(name="B", slug="b", auth_methods=[{"type": "MAGIC"}])).field == "authMethods[0].type"
    assert fastn(CreateConnector(name="B", slug="b", extra={"visibility": "Public"})).status == 403


def test_oauth_connection_needs_a_browser(fastn: Fastn) -> None:
    """Third parties: an OAuth connection cannot be created by one POST; the answer has an authorizationUrl."""
    slack = fastn.id_of("connectors", "slack")
    acme = fastn.id_of("customers", "katana-customer")

    reply = fastn(CreateConnection(connector_id=slack, customer_id=acme))

    assert (reply.status, reply.data["status"]) == (201, "pending")
    assert reply.data["authorizationUrl"].startswith("https://connect.fastn.dev/")
    rows = {row["id"]: row["status"] for row in fastn(ListConnections(limit=100)).data}
    assert rows[reply.data["id"]] == "PENDING"
    assert fastn(CreateConnection(connector_id=slack, name="two", credentials={"token": "1"})).field == "credentials"


def test_credentials_are_never_returned(fastn: Fastn) -> None:
    """Fastn's documentation: credentials are encrypted and never displayed."""
    gamma = fastn.id_of("connectors", "gamma")

    created = fastn(CreateConnection(connector_id=gamma, name="My key", credentials={"apiKey": "s3cret-value"}))

    assert (created.data["status"], created.data["id"].endswith(":my-key")) == ("ACTIVE", True)
    assert b"s3cret-value" not in created.reply.body
    assert "s3cret-value" not in str(fastn.sandbox.state.dump())


def test_invalid_connection_names_the_field(fastn: Fastn) -> None:
    gamma, holidays = fastn.id_of("connectors", "gamma"), fastn.id_of("connectors", "openHolidays")

    assert fastn(CreateConnection(connector_id="nothing")).field == "connectorId"
    assert fastn(CreateConnection(connector_id=gamma, auth_method_id="nothing")).field == "authMethodId"
    assert fastn(CreateConnection(connector_id=gamma)).field == "credentials"
    assert fastn(CreateConnection(connector_id=gamma, customer_id="nobody")).field == "endOrgId"
    (method,) = fastn.sandbox.state.named("connectors", "openHolidays")["authMethods"]
    assert fastn(CreateConnection(connector_id=holidays, auth_method_id=method["id"])).status == 201


def test_new_workflow_is_a_draft(fastn: Fastn) -> None:
    """Third parties: creation returns a draft. Fastn's documentation: the timeout depends on the tier."""
    row = fastn(CreateWorkflow(name="New one", execution_tier="long", extra={"labels": ["x"]})).data

    assert (row["status"], row["publishedVersion"], row["slug"]) == ("draft", None, "new-one")
    assert (row["executionTier"], row["timeoutMs"], row["labels"]) == ("LONG", 900_000, ["x"])
    assert fastn(CreateWorkflow(name="日本")).field == "slug"
    assert fastn(CreateWorkflow(name="B", execution_tier="FAST")).field == "executionTier"
    assert fastn(CreateWorkflow(name="B", extra={"status": "active"})).field == "status"


def test_draft_cannot_be_activated(fastn: Fastn) -> None:
    """Fastn's documentation: WORKFLOW_NOT_PUBLISHED."""
    refused = fastn(UpdateWorkflow(workflow_id=DRAFT, status="active"))

    assert (refused.status, refused.error["code"]) == (409, "WORKFLOW_NOT_PUBLISHED")
    assert all(fastn(UpdateWorkflow(workflow_id=ORDERS, status=status)).field == "status" for status in ("asleep", ""))
    assert fastn(UpdateWorkflow(workflow_id=ORDERS, execution_tier="FAST")).field == "executionTier"
    assert fastn(UpdateWorkflow(workflow_id=ORDERS, status="inactive", execution_tier="INSTANT")).status == 200


def test_slug_cannot_be_changed(fastn: Fastn) -> None:
    """Fastn's documentation: the slug cannot be changed after creation."""
    assert fastn.ask("PUT", f"/api/v1/workflows/{ORDERS}", body={"name": "x", "slug": "other"}).field == "slug"


def test_trigger_is_validated_on_creation(fastn: Fastn) -> None:
    """Fastn's documentation: a schedule needs cron and a time zone, an app event an active connection."""
    hubspot, shopify = fastn.id_of("connectors", "hubspot"), fastn.id_of("connectors", "shopify")
    broken = fastn.connection("globex-exports", "shopify")

    def refused(**arguments: Any) -> str:
        return fastn(CreateTrigger.model_validate({"name": "T", "routes": TO_ORDERS, **arguments})).field

    assert refused(type="manual") == "type"
    assert refused(type="webhook", routes=[]) == "routes"
    assert refused(type="webhook", routes=[{"routeId": "wf_000000000000"}]) == "routes[0].routeId"
    assert refused(type="webhook", authentication="MAGIC") == "authentication"
    assert refused(type="webhook", status="Sleeping") == "status"
    assert refused(type="scheduler", timezone="UTC") == "schedule"
    assert refused(type="scheduler", schedule="0 * * * *") == "timezone"
    assert refused(type="scheduler", schedule="0 * * *", timezone="UTC") == "schedule"
    assert refused(type="scheduler", schedule="0 * * * *", timezone="Mars/Base") == "timezone"
    assert refused(type="app_event", connector_id=hubspot, events=["contact.creation"]) == "connectionId"
    app_event = {"type": "app_event", "connector_id": shopify, "events": ["orders/paid"]}
    assert refused(**app_event, connection_id="nothing") == "connectionId"
    assert refused(**app_event, connection_id=broken) == "connectionId"
    assert refused(**{**app_event, "events": []}, connection_id=broken) == "events"


def test_computed_fields_of_a_trigger(fastn: Fastn) -> None:
    """Fastn's documentation: webhooks have an address, schedules a next run, app events a subscription."""
    acme, shopify = fastn.connection("acme-corp", "shopify"), fastn.id_of("connectors", "shopify")
    common: dict[str, Any] = {"routes": TO_ORDERS}
    hook = CreateTrigger(name="Hook", type="webhook", **common)
    nightly = CreateTrigger(name="Nightly", type="scheduler", schedule="0 2 * * *", timezone="UTC", **common)
    paid: dict[str, Any] = {"connector_id": shopify, "connection_id": acme, "events": ["orders/paid"]}
    listening = CreateTrigger(name="Paid", type="app_event", **paid, **common)

    assert fastn(hook).data["url"].startswith("https://webhooks.fastn.dev/")
    assert fastn(hook.model_copy(update={"name": "Open", "authentication": "NONE"})).data["authentication"] == "NONE"
    assert fastn(nightly).data["nextRun"] == "2026-10-07T02:00:00.000Z"
    assert fastn(nightly.model_copy(update={"name": "Off", "status": "disabled"})).data["nextRun"] is None
    assert fastn(listening).data["subscriptionStatus"] == "ACTIVE"
    broken = {"name": "Off too", "status": "Disabled", "connection_id": fastn.connection("globex-exports", "shopify")}
    assert fastn(listening.model_copy(update=broken)).data["subscriptionStatus"] == "FAILED"


def test_pausing_and_resuming_a_schedule(fastn: Fastn) -> None:
    """Fastn's documentation: disable, do not delete; a status history; enabling resets the failures."""
    path = resources(fastn)["triggers"]

    def put(**changes: Any) -> Any:
        return fastn.ask("PUT", path, body=Update.merged(fastn.ask("GET", path).data, changes)).data

    paused = put(status="Disabled")
    assert (paused["nextRun"], paused["statusHistory"][-1]["by"]) == (None, "apikey:5")
    resumed = put(status="Active", schedule="*/15 * * * *")
    assert resumed["nextRun"] == "2026-10-06T09:45:00.000Z"
    assert resumed["consecutiveFailures"] == 0
    assert [entry["status"] for entry in resumed["statusHistory"]] == ["Disabled", "Active"]


def test_partial_put_stops_a_trigger(fastn: Fastn) -> None:
    schedule = fastn.id_of("triggers", "Daily TikTok sync", by="name")
    listening = fastn.id_of("triggers", "New HubSpot contact", by="name")

    stopped = fastn(UpdateTrigger(trigger_id=schedule, status="Active")).data
    deaf = fastn(UpdateTrigger(trigger_id=listening, status="Active")).data

    assert (stopped["nextRun"], stopped["routes"], stopped["name"]) == (None, None, None)
    assert (deaf["subscriptionStatus"], deaf["connectionId"]) == ("FAILED", None)


def test_connector_of_a_trigger_cannot_be_changed(fastn: Fastn) -> None:
    """Fastn's documentation: the connector of an app event cannot be changed."""
    path = resources(fastn)["triggers"]

    assert fastn.ask("PUT", path, body={"name": "x", "type": "webhook"}).field == "type"
    assert fastn.ask("PUT", path, body={"name": "x", "connectorId": "other"}).field == "connectorId"


def test_secret_is_write_only(fastn: Fastn) -> None:
    """Fastn's documentation: values are write-only; the same name and scope overwrites, without undo."""
    acme = fastn.id_of("customers", "acme-corp")
    first = fastn(CreateSecret(name="STRIPE_SECRET_KEY", value="s3cret-1"))
    scoped = fastn(CreateSecret(name="STRIPE_SECRET_KEY", value="s3cret-2", customer_id=acme))
    rows = [row for row in fastn(ListSecrets()).data if row["name"] == "STRIPE_SECRET_KEY"]

    assert [first.status, scoped.status] == [200, 201]
    assert first.data["createdAt"] < first.data["updatedAt"]
    assert {row["id"] for row in rows} == {first.data["id"], scoped.data["id"]}
    assert "s3cret" not in str(fastn.sandbox.state.dump()) + str(scoped.value)
    assert [row["id"] for row in fastn(ListSecrets(customer_id=acme)).data] == [scoped.data["id"]]


def test_invalid_secret_names_the_field(fastn: Fastn) -> None:
    """Fastn's documentation: UPPER_SNAKE_CASE, Text or (validated) JSON, test or live."""
    assert fastn(CreateSecret(name="lower", value="1")).field == "name"
    assert fastn(CreateSecret(name="A", value="1", type="XML")).field == "type"
    assert fastn(CreateSecret(name="A", value="{", type="json")).field == "value"
    assert fastn(CreateSecret(name="A", value="1", environment="mars")).field == "environment"
    assert fastn(CreateSecret(name="A", value="1", customer_id="nobody")).field == "customerId"
    assert fastn(CreateSecret(name="A", value="{}", type="json", environment="live")).data["type"] == "JSON"


def test_key_is_shown_once(fastn: Fastn) -> None:
    """Fastn's documentation: only the answer of the creation contains the key and the signing secret."""
    reply = fastn(CreateApiKey(name="BI", mode="live", extra={"verifyCallerIdentity": True})).data
    listed = fastn(ListApiKeys())

    assert reply["key"].startswith("fsk_live_")
    assert reply["signingSecret"]
    assert (reply["permissions"], reply["expiresAt"]) == ("Viewer", "2027-01-04T09:30:00.000Z")
    row = next(row for row in listed.data if row["id"] == reply["id"])
    assert (row["keyPrefix"], row["last4"]) == ("fsk_live_", reply["key"][-4:])
    assert reply["key"] not in listed.reply.body.decode() + str(fastn.sandbox.state.dump())


def test_invalid_key_names_the_field(fastn: Fastn) -> None:
    """Fastn's documentation: Test or Live, five presets or Custom, a period or a date."""
    acme = fastn.id_of("customers", "acme-corp")

    assert fastn(CreateApiKey(name="A", mode="Fast")).field == "mode"
    assert fastn(CreateApiKey(name="A", permissions="Boss")).field == "permissions"
    assert fastn(CreateApiKey(name="A", permissions="Custom")).field == "matrix"
    assert fastn(CreateApiKey(name="A", permissions="Custom", extra={"matrix": ["x:y"]})).field == "matrix"
    assert fastn(CreateApiKey(name="A", customers=["nobody"])).field == "customers"
    assert fastn(CreateApiKey(name="A", expires="soon")).field == "expires"
    assert fastn(CreateApiKey(name="A", expires="2020-01-01")).field == "expires"
    assert fastn(CreateApiKey(name="A", expires="never", customers=[acme])).data["expiresAt"] is None
    assert fastn(CreateApiKey(name="B", expires="2027-01-01")).data["expiresAt"] == "2027-01-01T00:00:00.000Z"
    assert fastn(CreateApiKey(name="C", expires="2027-01-01T01:00:00+01:00")).data["expiresAt"][:13] == "2027-01-01T00"


def test_role_cannot_exceed_its_parent(fastn: Fastn) -> None:
    """Fastn's documentation: a custom role cannot add permissions."""
    assert fastn(CreateRole(name="A", permissions=["workflows:delete"])).field == "permissions"
    assert fastn(CreateRole(name="A", permissions=["workflows:fly"], parent="Owner")).field == "permissions"
    assert fastn(CreateRole(name="A", permissions=[], parent="King")).field == "parent"
    reply = fastn(CreateRole(name="A", permissions=["workflows:read", "workflows:delete"], parent="developer")).data
    assert (reply["parent"], reply["permissionCount"], reply["builtIn"]) == ("Developer", 2, False)


def test_there_is_only_one_owner(fastn: Fastn) -> None:
    """Fastn's documentation: exactly one Owner; users are invited by email with a role."""
    assert fastn(InviteUser(email="a@b.example", role="owner")).status == 403
    assert fastn(InviteUser(email="a@b.example", role="King")).field == "role"
    by_id = fastn(InviteUser(email="a@b.example", role=fastn.id_of("roles", "Operator", by="name"))).data
    assert (by_id["role"], by_id["status"]) == ("Operator", "Invited")
