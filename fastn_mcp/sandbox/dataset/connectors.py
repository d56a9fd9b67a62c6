"""The connectors: Fastn's managed ones, and three of the account's own."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from pydantic import JsonValue

from fastn_mcp.sandbox.state import Row, State, stamp

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


def add(state: State, now: datetime) -> None:
    for number, (slug, name, category, domain, auth, protocol, origin, actions, events) in enumerate(_CONNECTORS):
        row = connector(state, slug, name, domain, auth, actions, events, now - timedelta(days=400 - 9 * number))
        row |= {"category": category, "protocol": protocol}
        if origin == "custom":
            row |= OWN
        state.put("connectors", row)


def connector(
    state: State,
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
