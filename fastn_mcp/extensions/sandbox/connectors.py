"""Connectors and connections of the dataset, their rows, and the handlers of their operations."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from fastn_mcp.extensions.sandbox.replies import check_choice, conflict, forbidden, invalid
from fastn_mcp.extensions.sandbox.resource import (
    One,
    Resource,
    RouteContext,
    deactivate,
    disable,
    disconnect,
    endpoint,
    fields,
)
from fastn_mcp.extensions.sandbox.state import ORGANISATION, Row, SandboxState, provenance, slug_of, stamp
from fastn_mcp.records.rows import objects
from fastn_mcp.tools import connectors

_CONNECTORS = (
    # slug, name, category, domain, auth, protocol, origin, actions, events
    ("hubspot", "HubSpot", "CRM", "hubspot.com", "OAUTH_2", "REST", "managed",
     ("listContacts", "createContact", "getDeal"), ("contact.creation", "deal.propertyChange")),
    ("salesforce", "Salesforce", "CRM", "salesforce.com", "OAUTH_2", "REST", "managed", ("query", "upsertRecord"), ()),
    ("shopify", "Shopify", "E-commerce", "shopify.com", "OAUTH_2", "REST", "managed",
     ("listOrders", "updateInventory", "createFulfillment"), ("orders/paid", "orders/create")),
    ("slack", "Slack", "Communication", "slack.com", "OAUTH_2", "REST", "managed",
     ("postMessage", "listMessages"), ("message.channels",)),
    ("googleSheets", "Google Sheets", "Productivity", "google.com", "OAUTH_2", "REST", "managed", ("appendRow",), ()),
    ("xero", "Xero", "Accounting", "xero.com", "OAUTH_2", "REST", "managed", ("createInvoice", "listContacts"), ()),
    ("quickbooks", "QuickBooks", "Accounting", "intuit.com", "OAUTH_2", "REST", "managed", ("createInvoice",), ()),
    ("notion", "Notion", "Productivity", "notion.so", "OAUTH_2", "REST", "managed", ("createPage",), ()),
    ("zendesk", "Zendesk", "Support", "zendesk.com", "OAUTH_2", "REST", "managed", ("createTicket",), ()),
    ("tiktokShop", "TikTok Shop", "E-commerce", "tiktok.com", "OAUTH_2", "REST", "managed",
     ("getAuthorizedShops", "listOrders", "listSettlements"), ()),
    ("cin7Core", "Cin7 Core", "ERP", "cin7.com", "API_KEY", "REST", "managed",
     ("listCustomers", "createCustomer", "createSale"), ("Sale/Created",)),
    ("supabase", "Supabase", "Database", "supabase.com", "API_KEY", "REST", "managed", ("insertRows",), ()),
    ("gamma", "Gamma", "Productivity", "gamma.app", "API_KEY", "REST", "custom", ("createDeck",), ()),
    ("fathomMcp", "Fathom (MCP)", "Productivity", "fathom.video", "BEARER", "MCP", "custom", ("listMeetings",), ()),
    ("openHolidays", "Open Holidays", "Reference", "openholidaysapi.org", "NO_AUTH", "REST", "custom",
     ("listHolidays",), ()),
)  # fmt: skip # a table: a row on as few lines as it needs

_TITLES = {"OAUTH_2": "OAuth 2.0", "API_KEY": "API key", "BEARER": "Bearer token", "NO_AUTH": "No auth"}


def add_connectors(state: SandboxState, now: datetime) -> None:
    for number, (slug, name, category, domain, auth, protocol, origin, actions, events) in enumerate(_CONNECTORS):
        row = connector(
            state,
            slug,
            name,
            domain=domain,
            auth=auth,
            actions=actions,
            events=events,
            when=now - timedelta(days=400 - 9 * number),
        )
        row |= {"category": category, "protocol": protocol} | (OWN if origin == "custom" else {})
        state.put("connectors", row)


def connector(
    state: SandboxState,
    slug: str,
    name: str,
    domain: str,
    auth: str,
    actions: Iterable[str],
    events: Iterable[str],
    when: datetime,
) -> Row:
    """Return the row of a managed REST connector. A parameter for each column of the tables of examples."""
    row = new_connector(state, name, slug, description=f"{name} for workflows.", auth=auth)
    (method,) = row["authMethods"]
    method["config"] = None
    if auth == "OAUTH_2":
        method["config"] = {
            "authorizationUrl": f"https://auth.{domain}/oauth/authorize",
            "tokenUrl": f"https://auth.{domain}/oauth/token",
            "grantType": "authorization_code",
            "scopes": ["read", "write"],
        }
    return row | {
        "domain": domain,
        "iconUrl": f"https://icons.fastn.example/{slug}.svg",
        "visibility": "Public",
        "origin": "managed",
        "stage": "live",
        "actions": [_action(state.uuid(), action) for action in actions],
        "events": [{"name": event, "status": "Not Subscribed"} for event in events],
        **provenance(stamp(when), "fastn"),
    }


_INPUTS = {
    "insertRows": {"rows*": "array", "table": "string"},
    "listMessages": {"channel": "string", "limit": "integer"},
    "listOrders": {"id": "string", "since": "string", "limit": "integer"},
    "postMessage": {"channel*": "string", "text*": "string"},
    "updateInventory": {"sku*": "string", "quantity*": "integer"},
}
"""Inputs of the actions that the code of workflows calls. A star marks what is required."""

_INPUTS_BY_VERB = {
    "list": {"since": "string", "limit": "integer"},
    "create": {"data*": "object"},
    "update": {"id*": "string", "data*": "object"},
}
"""Inputs of other actions, by the first word of their name."""


def _action(key: str, slug: str) -> Row:
    verb = slug[: next((place for place, letter in enumerate(slug) if letter.isupper()), len(slug))]
    inputs = _INPUTS.get(slug) or _INPUTS_BY_VERB.get(verb, {"id*": "string"})
    schema: Row = {
        "type": "object",
        "properties": {name.rstrip("*"): {"type": type_} for name, type_ in inputs.items()},
        "required": [name.rstrip("*") for name in inputs if name.endswith("*")],
    }
    return {"id": key, "slug": slug, "method": "POST" if slug[0] in "cui" else "GET", "inputSchema": schema}


def new_connector(state: SandboxState, name: str, slug: str, description: str | None, auth: str = "OAUTH_2") -> Row:
    return {
        "id": state.uuid(),
        "name": name,
        "slug": slug,
        "description": description,
        "domain": None,
        "iconUrl": None,
        "protocol": "REST",
        "visibility": "Private",
        "origin": "custom",
        "category": None,
        "stage": "test",
        "authMethods": [{"id": state.uuid(), "type": auth, "title": _TITLES[auth], "isDefault": True}],
        "actions": [],
        "events": [],
    }


OWN: Row = {
    "visibility": "Private",
    "origin": "custom",
    "createdBy": "lee@fastn.example",
    "updatedBy": "lee@fastn.example",
}
"""Fields that differ in a connector of your own account."""


_CONNECTIONS = (
    # customer, connector, status, days since its creation, days since its last use
    ("acme-corp", "shopify", "ACTIVE", 200, 0),
    ("acme-corp", "slack", "ACTIVE", 199, 0),
    ("acme-corp", "xero", "ACTIVE", 180, 1),
    ("widget-inc", "hubspot", "ACTIVE", 150, 2),
    ("katana-customer", "cin7Core", "EXPIRED", 110, 9),
    ("katana-customer", "tiktokShop", "FAILED", 110, 9),
    (None, "slack", "ACTIVE", 220, 0),
    ("globex-exports", "shopify", "INACTIVE", 70, 15),
)

_STATUS_REASONS = {
    "EXPIRED": "The credentials expired and could not be refreshed.",
    "FAILED": "The authorisation was revoked at the app.",
}


def add_connections(state: SandboxState, now: datetime) -> None:
    for slug, app, status, created, used in _CONNECTIONS:
        customer = state.named("customers", slug) if slug else None
        last = now - timedelta(days=used)
        expires = now + timedelta(days=30) if status == "ACTIVE" else last
        row = connection(
            state.named("connectors", app),
            customer,
            status,
            created=now - timedelta(days=created),
            used=last,
            expires=expires,
        )
        state.put("connections", row)


def connection(
    connector: Row, customer: Row | None, status: str, created: datetime, used: datetime, expires: datetime
) -> Row:
    """Return the row of a connection with the connector's first auth method, last used shortly before `used`."""
    method = connector["authMethods"][0]
    last = stamp(used - timedelta(minutes=11))
    return _connection(
        connection_id(connector, method, customer),
        "default",
        connector,
        method=method,
        customer=customer,
        status=status,
    ) | {
        "verifyStatus": "VERIFIED" if status == "ACTIVE" else None,
        "statusReason": _STATUS_REASONS.get(status),
        "userEmail": customer["adminEmail"] if customer else "dana@fastn.example",
        "expiresAt": stamp(expires),
        "lastRefreshedAt": stamp(used - timedelta(minutes=31)),
        "lastUsedAt": last,
        "createdAt": stamp(created),
        "updatedAt": last,
    }


def _connection(key: str, name: str, connector: Row, method: Row, customer: Row | None, status: str) -> Row:
    return {
        "id": key,
        "name": name,
        "connectorId": connector["id"],
        "connector": {field: connector[field] for field in ("slug", "name", "domain")},
        "authMethodId": method["id"],
        "authType": method["type"],
        "endOrgId": customer["id"] if customer else None,
        "scope": "org",
        "status": status,
        **dict.fromkeys(("verifyStatus", "statusReason", "userEmail", "expiresAt", "lastRefreshedAt", "lastUsedAt")),
    }


def connection_id(connector: Row, method: Row, customer: Row | None, name: str = "default") -> str:
    """Return `ucl:org_<org>:<env>:<connectorId>:<authId>:<tenant>`, with the name appended unless it is "default"."""
    parts = ["ucl", ORGANISATION, "live", connector["id"], method["id"], customer["id"] if customer else "default"]
    return ":".join(str(part) for part in (parts if name == "default" else [*parts, name]))


def connection_of(state: SandboxState, app: str, customer: str | None, status: str | None = None) -> Row | None:
    """Return the customer's connection to an app, with this status if one is given."""
    connector = state.first("connectors", "slug", app)
    if connector is None:
        return None
    rows = [row for row in state.all("connections") if row["connectorId"] == connector["id"]]
    return next((row for row in rows if row["endOrgId"] == customer and status in (None, row["status"])), None)


CONNECTORS = Resource(
    "connectors",
    "connector",
    settable=fields(
        text="name description domain iconUrl protocol category visibility", objects="authMethods actions events"
    ),
    fixed=fields(text="slug"),
    unique=("name", "slug"),
    long=frozenset({"actions", "events", "authMethods"}),
)

_PROTOCOLS = ("REST", "MCP", "FTP", "Database", "REDIS")
_AUTH_TYPES = ("NO_AUTH", "BASIC", "DIGEST", "BEARER", "API_KEY", "OAUTH_2", "INPUT")


endpoint(connectors.ListConnectors, "connectors:read")(CONNECTORS.list)
endpoint(connectors.GetConnector, "connectors:read")(CONNECTORS.get)


@endpoint(connectors.CreateConnector, "connectors:create")
def create_connector(context: RouteContext, call: connectors.CreateConnector) -> One:
    CONNECTORS.check(context.body)
    protocol = call.protocol or "REST"
    check_choice("protocol", protocol, _PROTOCOLS)
    row = new_connector(context.state, call.name, call.slug, call.description)
    row |= {
        "domain": call.domain,
        "protocol": protocol,
        "category": context.body.get("category"),
        "visibility": _visibility(context.body.get("visibility", "Private")),
        "authMethods": _auth_methods(context.state, context.body.get("authMethods")) or row["authMethods"],
    }
    return One(CONNECTORS.create(context, row), 201)


@endpoint(connectors.UpdateConnector, "connectors:update")
def update(context: RouteContext, call: connectors.UpdateConnector) -> One:
    row = CONNECTORS.target(context, call)
    if row["origin"] == "managed":
        raise forbidden("Managed connectors are read-only")
    changed = CONNECTORS.replaced(context, row, row)
    changed |= {
        "stage": "test",
        "visibility": _visibility(changed["visibility"]),
        "authMethods": _auth_methods(context.state, changed["authMethods"]),
    }
    return One(CONNECTORS.update(context, changed))


@endpoint(connectors.DeleteConnector, "connectors:delete")
def delete_connector(context: RouteContext, call: connectors.DeleteConnector) -> One:
    row = CONNECTORS.target(context, call)
    disconnect(context, [c for c in context.state.all("connections") if c["connectorId"] == row["id"]])
    for trigger in context.state.all("triggers"):
        if trigger.get("connectorId") == row["id"]:
            disable(context, trigger, f"its connector {row['slug']} was deleted")
    for workflow in context.state.all("workflows"):
        apps = [app.get("slug") for app in objects(workflow, "connectors")]
        if row["slug"] in apps and workflow["status"] == "active":
            deactivate(context, workflow)
    return CONNECTORS.remove(context, row)


def _visibility(value: str | None) -> str | None:
    if value == "Public":
        raise forbidden("Only Fastn publishes connectors")
    return value


def _auth_methods(state: SandboxState, methods: list[Row] | None) -> list[Row] | None:
    """Return the auth methods as stored, each with an id. Raises `SandboxRefusal` for an unknown type."""
    if methods is None:
        return None
    for number, method in enumerate(methods):
        check_choice(f"authMethods[{number}].type", method.get("type"), _AUTH_TYPES)
    return [{"id": state.uuid(), "isDefault": number == 0, **method} for number, method in enumerate(methods)]


CONNECTIONS = Resource(
    "connections",
    "connection",
    settable=fields(text="connectorId authMethodId name endOrgId", object="credentials"),
    unique=(),
)

endpoint(connectors.ListConnections, "connections:read")(CONNECTIONS.list)


@endpoint(connectors.CreateConnection, "connections:create")
def create_connection(context: RouteContext, call: connectors.CreateConnection) -> One:
    CONNECTIONS.check(context.body)
    connector = context.existing("connectors", call.connector_id, "connectorId", "connector")
    method = _method(connector, call.auth_method_id)
    customer = None
    if call.customer_id is not None:
        customer = context.existing("customers", call.customer_id, "endOrgId", "customer")
    by_browser = method["type"] == "OAUTH_2"
    if not by_browser and method["type"] != "NO_AUTH" and not call.credentials:
        raise invalid("credentials", f"needed for {method['type']}")
    if by_browser and call.credentials:
        raise invalid("credentials", "OAuth takes none; a person authorises at authorizationUrl")
    name = call.name or "default"
    key = connection_id(connector, method, customer, slug_of(name) or "default")
    if context.state.get("connections", key) is not None:
        raise conflict("There is such a connection already", {"field": "name", "by": key})
    row = _connection(
        key, name, connector, method=method, customer=customer, status="PENDING" if by_browser else "ACTIVE"
    )
    row |= {"createdAt": context.time, "updatedAt": context.time}
    context.state.put("connections", row)
    context.audit("connection.create", "connection", key, row["endOrgId"])
    if not by_browser:
        row["verifyStatus"] = "VERIFIED"
        return One(row, 201)
    url = f"https://connect.fastn.dev/oauth/authorize?state={context.state.hex(32)}"
    return One({**row, "status": "pending", "authorizationUrl": url}, 201)


@endpoint(connectors.DeleteConnection, "connections:delete")
def delete_connection(context: RouteContext, call: connectors.DeleteConnection) -> None:
    disconnect(context, [CONNECTIONS.target(context, call)])


def _method(connector: Row, wanted: str | None) -> Row:
    methods: list[Row] = connector["authMethods"] or []
    matching = [m for m in methods if (m.get("isDefault") if wanted is None else m["id"] == wanted)]
    if not (matching or (methods and wanted is None)):
        raise invalid("authMethodId", "the connector has no such auth method")
    return (matching or methods)[0]
