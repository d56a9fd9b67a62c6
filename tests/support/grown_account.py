"""Accounts of any number of customers: the sandbox's own rows as they were, and newer ones in proportion."""

import random
from datetime import datetime
from typing import Any

from fastn_mcp.extensions.sandbox.server import Dataset, dataset
from fastn_mcp.extensions.sandbox.state import Row, SandboxState, stamp

SHARES = {"connections": 1.5, "triggers": 0.1, "workflows": 0.075, "connectors": 0.2, "secrets": 0.03, "apiKeys": 0.02}
"""Rows for each customer by collection, as in the large account of the tests."""

MOST = {"connectors": 400, "workflows": 500}
"""Maximum number of rows of the collections that customers share."""


def grown(customers: int) -> Dataset:
    """Return what a sandbox with so many customers begins with."""

    def begin(now: datetime, randomness: random.Random) -> SandboxState:
        state = dataset(now, randomness)
        for collection, share in {"customers": 1.0, **SHARES}.items():
            count = min(round(customers * share), MOST.get(collection, 2 * customers))
            add_rows(state, collection, count - len(state.all(collection)), stamp(now))
        return state

    return begin


def add_rows(state: SandboxState, collection: str, count: int, made: str) -> None:
    """Add so many newer rows that refer to none of the account's own."""
    template = state.all(collection)[0]
    for number in range(count):
        state.put(collection, {**template, "createdAt": made, "updatedAt": made, **_fields(collection, number)})


def _fields(collection: str, number: int) -> Row:
    """Return what distinguishes a row from the others of its collection."""
    key = f"row-{number:05}"
    name = f"Alder {number:05} Foods"
    named: dict[str, Any] = {"id": key, "name": name}
    slug = f"alder-{number:05}-foods"
    match collection:
        case "customers":
            return named | {"slug": slug, "externalRef": f"crm-{number}x", "domain": None, "adminEmail": None}
        case "connections":
            parts = {"connectorId": f"c-{number}-x", "endOrgId": f"k-{number}-x", "connector": {"slug": slug}}
            return parts | {"id": f"ucl:org:live:c-{number}-x:a:k-{number}-x", "name": "default"}
        case "connectors":
            return named | {"slug": slug, "domain": None}
        case "workflows":
            return named | {"slug": slug, "connectors": [{"slug": f"app-{number}", "scope": "SAAS"}]}
        case "triggers":
            return named | {"endOrgId": None, "routes": [{"routeId": f"wf_{number:012x}", "environment": "test"}]}
        case "secrets":
            return named | {"name": f"ALDER_{number:05}_TOKEN", "customerId": None}
        case _:
            return named | {"id": 1000 + number}
