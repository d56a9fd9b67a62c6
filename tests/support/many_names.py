"""A large account of names, the same in every run, and a sender that lists it."""

import random

from fastn_mcp.account.entries import LISTS
from fastn_mcp.errors import FastnError
from support.row_source import Row, RowSource

_FIRST = (
    "Nor",
    "Bel",
    "Cas",
    "Dor",
    "Fen",
    "Gal",
    "Hal",
    "Jun",
    "Kel",
    "Lor",
    "Mar",
    "Nim",
    "Oak",
    "Pel",
    "Quin",
    "Ros",
)
_LAST = ("dale", "ford", "mont", "field", "ridge", "wick", "stone", "brook", "gate", "haven", "port", "shire", "wood")
_FORMS = ("Inc", "GmbH", "Ltd", "Corp", "Group", "Labs", "Foods", "Logistics", "Retail", "Health")
_APPS = ("Mail", "Desk", "Pay", "Ship", "Books", "CRM", "Forms", "Chat", "Ads", "Tax", "Stock", "Docs", "Meet", "Sign")
_THINGS = ("orders", "invoices", "contacts", "inventory", "payments", "tickets", "shipments", "refunds")

KNOWN_CONNECTORS = ("HubSpot", "Google Sheets", "Slack", "Shopify", "Xero", "Cin7 Core", "TikTok Shop", "QuickBooks")
KNOWN_CUSTOMERS = ("Acme Corp", "Katana", "Globex Exports", "Widget Inc", "Müller & Söhne", "Initech")


def uuid(kind: int, number: int) -> str:
    """Return an id in the format that Fastn gives most resources."""
    return f"{number:08x}-{kind:04x}-4000-8000-{number * 7919:012x}"


def large(
    connectors: int = 400, customers: int = 2_000, workflows: int = 150, connections: int = 3_000
) -> dict[str, list[Row]]:
    """Return the rows of a large account by kind."""
    draw = random.Random(7)  # noqa: S311 it is to be the same each time
    places = [first + last for first in _FIRST for last in _LAST]
    names = [*KNOWN_CUSTOMERS, *(f"{places[n % len(places)]} {_FORMS[n // len(places)]}" for n in range(customers))]
    apps = [*KNOWN_CONNECTORS, *(f"{places[-1 - n % len(places)]}{_APPS[n % len(_APPS)]}" for n in range(connectors))]
    rows: dict[str, list[Row]] = {kind: [] for kind in LISTS}
    for number, name in enumerate(names[:customers]):
        slug = name.lower().replace(" ", "-")
        rows["customer"].append({"id": uuid(1, number), "name": name, "slug": slug, "status": "Active"})
    for number, name in enumerate(apps[:connectors]):
        slug = name[0].lower() + name[1:].replace(" ", "")
        rows["connector"].append({"id": uuid(2, number), "name": name, "slug": slug})
    flows = ["Acme HubSpot sync", "sync_tiktok_settlements_cin7", "process-new-orders", "Order sync 2", "Order sync 3"]
    flows += [f"Sync {draw.choice(apps)} {_THINGS[n % len(_THINGS)]} to {draw.choice(apps)}" for n in range(workflows)]
    for number, name in enumerate(flows[:workflows]):
        rows["workflow"].append({"id": f"wf_{number:012x}", "name": name, "slug": name.lower(), "status": "active"})
    for number in range(connections):
        customer, connector = rows["customer"][number % customers], rows["connector"][number * 7 % connectors]
        name = f"ucl:org_1:live:{connector['id']}:{uuid(3, number)}:{customer['id']}"
        rows["connection"].append(
            {
                "id": name,
                "name": "default",
                "status": "ACTIVE",
                "endOrgId": customer["id"],
                "connectorId": connector["id"],
            }
        )
    rows["user"] = [{"id": uuid(4, 1), "name": "Dana Reyes", "email": "dana@fastn.example", "status": "Active"}]
    rows["secret"] = [{"id": "sec_00000000000a", "name": "STRIPE_SECRET_KEY"}]
    rows["api_key"] = [{"id": 7, "name": "BI export"}]
    return rows


def listing(rows: dict[str, list[Row]], failing: dict[str, FastnError] | None = None) -> RowSource:
    """Return a source of the rows by kind. Lists of `failing` kinds raise their error."""
    failures = {LISTS[kind]: error for kind, error in (failing or {}).items()}
    return RowSource({LISTS[kind]: listed for kind, listed in rows.items()}, failing=failures)
