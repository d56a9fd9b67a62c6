"""The connections: who is connected to what, and which of them no longer work."""

from datetime import datetime, timedelta
from typing import cast

from fastn_mcp.sandbox.state import ORGANISATION, Row, State, stamp

_CONNECTIONS = (
    # customer, connector, status, days since it was made, days since it was used
    ("acme-corp", "shopify", "ACTIVE", 200, 0),
    ("acme-corp", "slack", "ACTIVE", 199, 0),
    ("acme-corp", "xero", "ACTIVE", 180, 1),
    ("widget-inc", "hubspot", "ACTIVE", 150, 2),
    ("katana-customer", "cin7Core", "EXPIRED", 110, 9),
    ("katana-customer", "tiktokShop", "FAILED", 110, 9),
    (None, "slack", "ACTIVE", 220, 0),
    ("globex-exports", "shopify", "INACTIVE", 70, 15),
)

_WRONG = {
    "EXPIRED": "The credentials expired and could not be refreshed.",
    "FAILED": "The authorisation was revoked at the app.",
}


def add(state: State, now: datetime) -> None:
    for slug, app, status, made, used in _CONNECTIONS:
        customer = state.named("customers", slug) if slug else None
        last = now - timedelta(days=used)
        expires = now + timedelta(days=30) if status == "ACTIVE" else last
        row = connection(state.named("connectors", app), customer, status, now - timedelta(days=made), last, expires)
        state.put("connections", row)


def connection(
    connector: Row, customer: Row | None, status: str, made: datetime, used: datetime, expires: datetime
) -> Row:
    """One row, by the connector's first auth method. It was last used shortly before `used`."""
    method = cast("list[Row]", connector["authMethods"])[0]
    last = stamp(used - timedelta(minutes=11))
    return {
        "id": connection_id(connector, method, customer),
        "name": "default",
        "connectorId": connector["id"],
        "connector": {name: connector[name] for name in ("slug", "name", "domain")},
        "authMethodId": method["id"],
        "authType": method["type"],
        "endOrgId": customer["id"] if customer else None,
        "scope": "org",
        "status": status,
        "verifyStatus": "VERIFIED" if status == "ACTIVE" else None,
        "statusReason": _WRONG.get(status),
        "userEmail": customer["adminEmail"] if customer else "dana@fastn.example",
        "expiresAt": stamp(expires),
        "lastRefreshedAt": stamp(used - timedelta(minutes=31)),
        "lastUsedAt": last,
        "createdAt": stamp(made),
        "updatedAt": last,
    }


def connection_id(connector: Row, method: Row, customer: Row | None, name: str = "default") -> str:
    """`ucl:org_<org>:<env>:<connectorId>:<authId>:<tenant>`; a second one of the same kind carries its name."""
    parts = ["ucl", ORGANISATION, "live", connector["id"], method["id"], customer["id"] if customer else "default"]
    return ":".join(str(part) for part in (parts if name == "default" else [*parts, name]))
