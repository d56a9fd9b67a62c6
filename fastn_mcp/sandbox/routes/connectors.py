"""Routes of connectors and connections."""

from typing import cast

from pydantic import JsonValue

from fastn_mcp.sandbox.dataset.connectors import connection_id
from fastn_mcp.sandbox.reply import Nothing, One, Outcome, conflict, forbidden, invalid
from fastn_mcp.sandbox.request_context import RouteContext
from fastn_mcp.sandbox.routes.resource import OBJECT, OBJECTS, TEXT, Resource, deactivate, disable, disconnect
from fastn_mcp.sandbox.state import Row, SandboxState, slug_of
from fastn_mcp.tools.connectors import (
    CreateConnection,
    CreateConnector,
    DeleteConnection,
    DeleteConnector,
    GetConnector,
    UpdateConnector,
)

CONNECTORS = Resource(
    "connectors",
    "connector",
    settable={
        "name": TEXT,
        "description": TEXT,
        "domain": TEXT,
        "iconUrl": TEXT,
        "protocol": TEXT,
        "category": TEXT,
        "visibility": TEXT,
        "authMethods": OBJECTS,
        "actions": OBJECTS,
        "events": OBJECTS,
    },
    fixed={"slug": TEXT},
    unique=("name", "slug"),
    long=frozenset({"actions", "events", "authMethods"}),
)

_PROTOCOLS = ("REST", "MCP", "FTP", "Database", "REDIS")
_AUTH_TYPES = ("NO_AUTH", "BASIC", "DIGEST", "BEARER", "API_KEY", "OAUTH_2", "INPUT")


def get(desk: RouteContext, call: GetConnector) -> Outcome:
    return One(CONNECTORS.find(desk, call.connector_id))


def create_connector(desk: RouteContext, call: CreateConnector) -> Outcome:
    CONNECTORS.check(desk.body)
    protocol = call.protocol or "REST"
    if protocol not in _PROTOCOLS:
        raise invalid("protocol", f"one of {', '.join(_PROTOCOLS)}")
    row = new_connector(desk.state, call.name, call.slug, call.description)
    row |= {
        "domain": call.domain,
        "protocol": protocol,
        "category": desk.body.get("category"),
        "visibility": _visibility(desk.body.get("visibility", "Private")),
        "authMethods": _auth_methods(desk.state, desk.body.get("authMethods")) or row["authMethods"],
    }
    return One(CONNECTORS.make(desk, row), 201)


def update(desk: RouteContext, call: UpdateConnector) -> Outcome:
    row = CONNECTORS.find(desk, call.connector_id)
    if row["origin"] == "managed":
        raise forbidden("Managed connectors are read-only")
    changed = CONNECTORS.replaced(desk, row, row)
    changed |= {
        "stage": "test",
        "visibility": _visibility(changed["visibility"]),
        "authMethods": _auth_methods(desk.state, changed["authMethods"]),
    }
    return One(CONNECTORS.keep(desk, changed))


def delete_connector(desk: RouteContext, call: DeleteConnector) -> Outcome:
    row = CONNECTORS.find(desk, call.connector_id)
    disconnect(desk, [c for c in desk.state.all("connections") if c["connectorId"] == row["id"]])
    for trigger in desk.state.all("triggers"):
        if trigger.get("connectorId") == row["id"]:
            disable(desk, trigger, f"its connector {row['slug']} was deleted")
    for workflow in desk.state.all("workflows"):
        if row["slug"] in _apps_of(workflow) and workflow["status"] == "active":
            deactivate(desk, workflow)
    desk.state.put("_trash", {**row, "id": f"connector {row['id']}"})
    return CONNECTORS.remove(desk, row)


def new_connector(state: SandboxState, name: str, slug: str, description: str | None) -> Row:
    """A private connector with nothing in it yet."""
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
        "authMethods": [{"id": state.uuid(), "type": "OAUTH_2", "title": "OAuth 2.0", "isDefault": True}],
        "actions": [],
        "events": [],
    }


def _visibility(value: JsonValue) -> JsonValue:
    if value == "Public":
        raise forbidden("Only Fastn publishes connectors")
    return value


def _auth_methods(state: SandboxState, given: JsonValue) -> JsonValue:
    """The methods as they are kept: each with an id."""
    if not isinstance(given, list):
        return given
    kept: list[JsonValue] = []
    for number, method in enumerate(given):
        if not isinstance(method, dict) or method.get("type") not in _AUTH_TYPES:
            raise invalid(f"authMethods[{number}].type", f"one of {', '.join(_AUTH_TYPES)}")
        kept.append({"id": state.uuid(), "isDefault": number == 0, **method})
    return kept


def _apps_of(workflow: Row) -> list[str]:
    manifest = workflow.get("connectors")
    rows = manifest if isinstance(manifest, list) else []
    return [str(row.get("slug")) for row in rows if isinstance(row, dict)]


CONNECTIONS = Resource(
    "connections",
    "connection",
    settable={"connectorId": TEXT, "authMethodId": TEXT, "name": TEXT, "endOrgId": TEXT, "credentials": OBJECT},
    unique=(),
)


def create_connection(desk: RouteContext, call: CreateConnection) -> Outcome:
    CONNECTIONS.check(desk.body)
    connector = desk.state.get("connectors", call.connector_id)
    if connector is None:
        raise invalid("connectorId", "there is no such connector")
    method = _method(connector, call.auth_method_id)
    customer = None if call.customer_id is None else desk.state.get("customers", call.customer_id)
    if call.customer_id is not None and customer is None:
        raise invalid("endOrgId", "there is no such customer")
    by_browser = method["type"] == "OAUTH_2"
    if not by_browser and method["type"] != "NO_AUTH" and not call.credentials:
        raise invalid("credentials", f"needed for {method['type']}")
    if by_browser and call.credentials:
        raise invalid("credentials", "OAuth takes none; a person authorises at authorizationUrl")
    name = call.name or "default"
    key = connection_id(connector, method, customer, slug_of(name) or "default")
    if desk.state.get("connections", key) is not None:
        raise conflict("There is such a connection already", {"field": "name", "by": key})
    row: Row = {
        "id": key,
        "name": name,
        "connectorId": connector["id"],
        "connector": {field: connector[field] for field in ("slug", "name", "domain")},
        "authMethodId": method["id"],
        "authType": method["type"],
        "endOrgId": customer["id"] if customer else None,
        "scope": "org",
        "status": "PENDING" if by_browser else "ACTIVE",
        "verifyStatus": None if by_browser else "VERIFIED",
        "statusReason": None,
        "userEmail": None,
        "expiresAt": None,
        "lastRefreshedAt": None,
        "lastUsedAt": None,
        "createdAt": desk.time,
        "updatedAt": desk.time,
    }
    desk.state.put("connections", row)
    desk.audit("connection.create", "connection", key, row["endOrgId"])
    if by_browser:
        url = f"https://connect.fastn.dev/oauth/authorize?state={desk.state.hex(32)}"
        return One({**row, "status": "pending", "authorizationUrl": url}, 201)
    return One(row, 201)


def delete_connection(desk: RouteContext, call: DeleteConnection) -> Outcome:
    disconnect(desk, [CONNECTIONS.find(desk, call.connection_id)])
    return Nothing()


def _method(connector: Row, wanted: str | None) -> Row:
    methods = cast("list[Row]", connector["authMethods"] or [])
    if wanted is None:
        found = next((m for m in methods if m.get("isDefault")), methods[0] if methods else None)
    else:
        found = next((m for m in methods if m["id"] == wanted), None)
    if found is None:
        raise invalid("authMethodId", "the connector has no such auth method")
    return found
