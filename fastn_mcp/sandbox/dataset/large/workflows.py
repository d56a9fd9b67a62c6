"""A hundred and fifty workflows in all: from an app of the customers to one of the account, or to another of theirs."""

import random
from datetime import datetime, timedelta

from fastn_mcp.sandbox.dataset.large.catalogue import CATEGORIES, OF_THE_ACCOUNT, POPULAR
from fastn_mcp.sandbox.dataset.workflows import workflow
from fastn_mcp.sandbox.slugs import slug_of
from fastn_mcp.sandbox.state import Row, State

_TOTAL = 149
"""And the one of `acme.py`."""

_NAMES = (
    "Sync {a} {objects} to {b}",
    "Sync {a} {objects} to {b}",
    "{a} {objects} to {b}",
    "Copy new {a} {objects} to {b}",
    "{slug_a}-{objects}-to-{slug_b}",
    "sync_{slug_a}_{objects}_{slug_b}",
    "Daily {a} {objects} report in {b}",
    "Reconcile {a} {objects} with {b}",
    "{a} {objects} backfill to {b}",
)

_BETWEEN_CUSTOMERS_APPS = 0.3


def add(state: State, now: datetime, randomness: random.Random) -> list[Row]:
    """Keep them, and say which they are."""
    taken = {str(row["slug"]) for row in state.all("workflows")}
    made: list[Row] = []
    while len(state.all("workflows")) < _TOTAL:
        row = _workflow(state, now, randomness)
        if str(row["slug"]) not in taken:
            taken.add(str(row["slug"]))
            made.append(state.put("workflows", row))
    return made


def tenant_apps(row: Row) -> list[str]:
    """The slugs of the apps that each customer has to connect."""
    apps = row["connectors"] if isinstance(row["connectors"], list) else []
    return [str(app["slug"]) for app in apps if isinstance(app, dict) and app["scope"] == "MULTI_TENANT"]


def _workflow(state: State, now: datetime, randomness: random.Random) -> Row:
    first = randomness.choice([*POPULAR])
    between = randomness.random() < _BETWEEN_CUSTOMERS_APPS
    second = randomness.choice([app for app in (POPULAR if between else OF_THE_ACCOUNT) if app != first])
    a, b = (state.named("connectors", slug) for slug in (first, second))
    template = randomness.choice(_NAMES)
    name = template.format(
        a=a["name"],
        b=b["name"],
        slug_a=slug_of(str(a["name"])),
        slug_b=slug_of(str(b["name"])),
        objects=randomness.choice(CATEGORIES[str(a["category"])].objects),
    )
    tier = "LONG" if "backfill" in name else "INSTANT" if "new" in name else "STANDARD"
    changed = now - timedelta(days=randomness.randrange(1, 300), minutes=randomness.randrange(1440))
    scopes = {first: "MULTI_TENANT", second: "MULTI_TENANT" if between else "SAAS"}
    row = workflow(state, state.short_id("wf"), name, slug_of(name), tier, scopes, changed)
    version = randomness.randrange(1, 12)
    row |= {"publishedVersion": f"v{version}", "version": version}
    match randomness.randrange(16):
        case 0:
            row["status"] = "inactive"
        case 1:
            row |= {"status": "draft", "publishedVersion": None, "version": 1}
        case _:
            pass
    return row
