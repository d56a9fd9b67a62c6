"""Three thousand connections in all. Of some the authorisation is over, and the workflows that need it fail since."""

import random
from datetime import datetime, timedelta

from fastn_mcp.sandbox.dataset.connections import connection
from fastn_mcp.sandbox.dataset.large.catalogue import OF_THE_ACCOUNT, POPULAR
from fastn_mcp.sandbox.dataset.large.workflows import tenant_apps
from fastn_mcp.sandbox.state import Row, State, moment

_TOTAL = 2_999
"""And the one of `acme.py`."""
_BROKEN = 38
_SWITCHED_OFF = 20
_CUSTOMERS_WITH_BOTH = 14
_SETTLED = timedelta(days=60)
"""A connection that broke was there for a while."""


def add(
    state: State, now: datetime, randomness: random.Random, customers: list[Row], workflows: list[Row]
) -> list[Row]:
    """Keep them, and say which of them are customers'."""
    connectors = {str(row["slug"]): row for row in state.all("connectors")}
    for app in OF_THE_ACCOUNT:
        made, used = now - timedelta(days=300), now - timedelta(minutes=randomness.randrange(60))
        row = connection(connectors[app], None, "ACTIVE", made, used, now + timedelta(days=30))
        if state.get("connections", row["id"]) is None:
            state.put("connections", row)
    pairs = _pairs(randomness, customers, workflows, _TOTAL - len(state.all("connections")))
    settled = [pair for pair, customer in pairs.items() if moment(str(customer["createdAt"])) < now - _SETTLED]
    chosen = randomness.sample(settled, _BROKEN + _SWITCHED_OFF)
    statuses = dict.fromkeys(chosen[:_BROKEN:3], "FAILED")
    statuses |= dict.fromkeys(chosen[_BROKEN:], "INACTIVE")
    statuses = dict.fromkeys(chosen, "EXPIRED") | statuses
    return [
        state.put("connections", _row(now, randomness, connectors[app], customer, statuses.get((key, app), "ACTIVE")))
        for (key, app), customer in pairs.items()
    ]


def _pairs(
    randomness: random.Random, customers: list[Row], workflows: list[Row], count: int
) -> dict[tuple[str, str], Row]:
    """Who is connected to which app: by the ids of customers and the slugs of apps. A customer who waits has none."""
    at_work = [row for row in customers if row["status"] == "Active"]
    apps, weights = [*POPULAR], [*POPULAR.values()]
    pairs: dict[tuple[str, str], Row] = {}
    for customer, app in zip(at_work, randomness.choices(apps, weights, k=len(at_work)), strict=True):
        pairs[str(customer["id"]), app] = customer
    for workflow in workflows:
        first, *others = tenant_apps(workflow)
        with_first = [customer for (_, app), customer in pairs.items() if app == first]
        for customer in randomness.sample(with_first, min(len(with_first), _CUSTOMERS_WITH_BOTH)):
            pairs |= {(str(customer["id"]), app): customer for app in others}
    while len(pairs) < count:
        customer = randomness.choice(at_work)
        pairs[str(customer["id"]), randomness.choices(apps, weights)[0]] = customer
    return pairs


def _row(now: datetime, randomness: random.Random, connector: Row, customer: Row, status: str) -> Row:
    made = moment(str(customer["createdAt"]))
    made += max(now - made - _SETTLED, timedelta(0)) * randomness.random()
    if status == "ACTIVE":
        used = now - timedelta(minutes=randomness.randrange(540))
        return connection(connector, customer, status, made, used, now + timedelta(days=randomness.randrange(2, 60)))
    over = now - timedelta(days=randomness.randrange(1, 25), minutes=randomness.randrange(1440))
    return connection(connector, customer, status, made, over, over)
