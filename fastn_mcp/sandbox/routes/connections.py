"""Connections. Credentials go in and never come out; OAuth needs a person at a browser."""

from typing import cast

from fastn_mcp.sandbox.dataset.connections import connection_id
from fastn_mcp.sandbox.desk import Desk
from fastn_mcp.sandbox.reply import Nothing, One, Outcome, conflict, invalid
from fastn_mcp.sandbox.routes.fields import OBJECT, TEXT
from fastn_mcp.sandbox.routes.resource import Resource
from fastn_mcp.sandbox.routes.stopping import disconnect
from fastn_mcp.sandbox.slugs import slug_of
from fastn_mcp.sandbox.state import Row
from fastn_mcp.tools.connections import CreateConnection, DeleteConnection

CONNECTIONS = Resource(
    "connections",
    "connection",
    settable={"connectorId": TEXT, "authMethodId": TEXT, "name": TEXT, "endOrgId": TEXT, "credentials": OBJECT},
    unique=(),
)


def create(desk: Desk, call: CreateConnection) -> Outcome:
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


def delete(desk: Desk, call: DeleteConnection) -> Outcome:
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
