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
    ("globex-exports", "shopify", "INACTIVE", 70, 40),
)

_WRONG = {
    "EXPIRED": "The credentials expired and could not be refreshed.",
    "FAILED": "The authorisation was revoked at the app.",
}


def add(state: State, now: datetime) -> None:
    for slug, app, status, made, used in _CONNECTIONS:
        customer = state.named("customers", slug) if slug else None
        connector = state.named("connectors", app)
        method = cast("list[Row]", connector["authMethods"])[0]
        row: Row = {
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
            "expiresAt": stamp(now + timedelta(hours=1)) if status == "ACTIVE" else stamp(now - timedelta(days=used)),
            "lastRefreshedAt": stamp(now - timedelta(days=used, minutes=31)),
            "lastUsedAt": stamp(now - timedelta(days=used, minutes=11)),
            "createdAt": stamp(now - timedelta(days=made)),
            "updatedAt": stamp(now - timedelta(days=used, minutes=11)),
        }
        state.put("connections", row)


def connection_id(connector: Row, method: Row, customer: Row | None, name: str = "default") -> str:
    """`ucl:org_<org>:<env>:<connectorId>:<authId>:<tenant>`; a second one of the same kind carries its name."""
    parts = ["ucl", ORGANISATION, "live", connector["id"], method["id"], customer["id"] if customer else "default"]
    return ":".join(str(part) for part in (parts if name == "default" else [*parts, name]))
