"""Two thousand customers in all, some of them hard to tell apart."""

import random
from datetime import datetime, timedelta

from fastn_mcp.sandbox.dataset.customers import customer, waiting
from fastn_mcp.sandbox.dataset.large.words import companies, people
from fastn_mcp.sandbox.slugs import slug_of
from fastn_mcp.sandbox.state import Row, State

_TOTAL = 2_000
_PLANS = {"Free": 4, "Starter": 6, "Growth": 7, "Enterprise": 3}
_REGIONS = {"US": 5, "EU": 4, "APAC": 1}
_WAITING = 0.05
_REFERRED = 0.8


def add(state: State, now: datetime, randomness: random.Random) -> list[Row]:
    """Keep them, and say which they are."""
    made: list[Row] = []
    admins = people(200, randomness)
    for number, name in enumerate(companies(_TOTAL - len(state.all("customers")), randomness), 2_000):
        slug = slug_of(name)
        person = slug_of(randomness.choice(admins).split()[0])
        admin = f"{person}@{slug}.example"
        when = now - timedelta(minutes=randomness.randrange(600, 900 * 24 * 60))
        row = customer(state.uuid(), name, slug, admin, when)
        row["plan"] = randomness.choices([*_PLANS], [*_PLANS.values()])[0]
        row["region"] = randomness.choices([*_REGIONS], [*_REGIONS.values()])[0]
        if randomness.random() < _REFERRED:
            row["externalRef"] = f"crm-{number}"
        if randomness.random() < _WAITING:
            row |= waiting(admin)
        made.append(state.put("customers", row))
    return made
