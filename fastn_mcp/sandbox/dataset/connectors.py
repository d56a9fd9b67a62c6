"""Connectors and connections of the sandbox's account."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import cast

from pydantic import JsonValue

from fastn_mcp.sandbox.state import ORGANISATION, Row, SandboxState, stamp

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
)  # fmt: skip

_TITLES = {"OAUTH_2": "OAuth 2.0", "API_KEY": "API key", "BEARER": "Bearer token", "NO_AUTH": "No auth"}


def add_connectors(state: SandboxState, now: datetime) -> None:
    for number, (slug, name, category, domain, auth, protocol, origin, actions, events) in enumerate(_CONNECTORS):
        row = connector(state, slug, name, domain, auth, actions, events, now - timedelta(days=400 - 9 * number))
        row |= {"category": category, "protocol": protocol}
        if origin == "custom":
            row |= OWN
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
    """One row: a managed connector that speaks REST."""
    made = stamp(when)
    config: JsonValue = None
    if auth == "OAUTH_2":
        config = {
            "authorizationUrl": f"https://auth.{domain}/oauth/authorize",
            "tokenUrl": f"https://auth.{domain}/oauth/token",
            "grantType": "authorization_code",
            "scopes": ["read", "write"],
        }
    return {
        "id": state.uuid(),
        "name": name,
        "slug": slug,
        "description": f"{name} for workflows.",
        "domain": domain,
        "iconUrl": f"https://icons.fastn.example/{slug}.svg",
        "protocol": "REST",
        "visibility": "Public",
        "origin": "managed",
        "category": None,
        "stage": "live",
        "authMethods": [
            {"id": state.uuid(), "type": auth, "title": _TITLES[auth], "isDefault": True, "config": config}
        ],
        "actions": [
            {"id": state.uuid(), "slug": action, "method": "POST" if action[0] in "cui" else "GET"}
            for action in actions
        ],
        "events": [{"name": event, "status": "Not Subscribed"} for event in events],
        "version": 1,
        "createdAt": made,
        "createdBy": "fastn",
        "updatedAt": made,
        "updatedBy": "fastn",
    }


OWN: Row = {
    "visibility": "Private",
    "origin": "custom",
    "createdBy": "lee@fastn.example",
    "updatedBy": "lee@fastn.example",
}
"""What differs in a connector of the account's own."""


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


def add_connections(state: SandboxState, now: datetime) -> None:
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
