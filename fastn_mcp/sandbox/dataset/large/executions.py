"""Two hundred thousand runs in a month: who runs what, and how often.

They are only described here: the account keeps their past, from which they follow. It reaches to the end of the day,
and each run is seen once it is over.
"""

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast

from fastn_mcp.sandbox.dataset.large.troubles import Connected, Troubles, connected_since
from fastn_mcp.sandbox.dataset.large.workflows import tenant_apps
from fastn_mcp.sandbox.past import Past, Series, milliseconds
from fastn_mcp.sandbox.state import Row, State

_DAYS = 30
_TOTAL = 6_690 * (_DAYS + 1)
"""The rest of the day included."""
_DURATIONS = {"INSTANT": 300, "STANDARD": 24_000, "LONG": 320_000}
_BUSIEST = 40.0
_HOURLY, _NIGHTLY, _OTHER, _MANUAL = 4, 22, 24, 8
"""For how many customers a workflow runs, besides those for whom it fails."""

_WITHOUT = 20
"""One in so many workflows is also started for customers who are no longer connected."""


def add(
    state: State,
    now: datetime,
    randomness: random.Random,
    workflows: list[Row],
    triggers: list[Row],
    connections: list[Row],
) -> None:
    since = now - timedelta(days=_DAYS)
    connected = connected_since(since, connections)
    troubles = Troubles(state, now, randomness, workflows, connected)
    series = [*_started(randomness, workflows, triggers, connected), *_by_hand(randomness, workflows, connected)]
    shown = ("id", "name", "slug", "publishedVersion", "executionTier", "connectors", "updatedAt")
    Past(
        seed=state.hex(32),
        count=_TOTAL - len(state.all("executions")),
        since=milliseconds(since),
        until=milliseconds(now + timedelta(days=1)),
        triggers=tuple(str(trigger["id"]) for trigger in triggers),
        workflows=tuple({name: workflow[name] for name in shown} for workflow in workflows),
        series=tuple(replace(one, trouble=troubles.of(workflows[one.workflow], one.customer)) for one in series),
    ).keep(state)


def _started(
    randomness: random.Random, workflows: list[Row], triggers: list[Row], connected: Connected
) -> Iterator[Series]:
    """What triggers start."""
    places = {str(row["id"]): place for place, row in enumerate(workflows)}
    for trigger in triggers:
        place = places[str(cast("list[Row]", trigger["routes"])[0]["routeId"])]
        workflow = workflows[place]
        usual = _DURATIONS[str(workflow["executionTier"])]
        match trigger["status"], trigger["type"]:
            case "Active", "scheduler":
                minute, hour = str(trigger["schedule"]).split()[:2]
                often = hour == "*"
                every, offset = (60, int(minute)) if often else (1440, int(hour) * 60 + int(minute))
                for customer in _customers(randomness, workflow, connected, _HOURLY if often else _NIGHTLY):
                    yield Series(place, customer, "scheduler", usual, every=every, minute=offset)
            case "Active", "webhook":
                for customer in _customers(randomness, workflow, connected, _OTHER):
                    yield Series(place, customer, "webhook", usual, weight=_weight(randomness))
            case "Active", _:
                (app,), one = tenant_apps(workflow), str(trigger["endOrgId"])
                if one in connected.get(app, {}):
                    yield Series(place, one, "webhook", usual, weight=_weight(randomness))
            case _:
                pass


def _by_hand(randomness: random.Random, workflows: list[Row], connected: Connected) -> Iterator[Series]:
    """What people start: the backfills, and seldom."""
    for place, workflow in enumerate(workflows):
        if workflow["executionTier"] == "LONG" and workflow["status"] == "active":
            for customer in _customers(randomness, workflow, connected, _MANUAL):
                yield Series(place, customer, "manual", _DURATIONS["LONG"], weight=_weight(randomness) / 4)


def _customers(randomness: random.Random, workflow: Row, connected: Connected, count: int) -> list[str]:
    """So many for whom it works, and all for whom it fails because a connection broke."""
    needed = [connected.get(app, {}) for app in tenant_apps(workflow)]
    with_all = [customer for customer in needed[0] if all(customer in rows for rows in needed)]
    statuses = {customer: {str(rows[customer]["status"]) for rows in needed} for customer in with_all}
    working = [customer for customer in with_all if statuses[customer] == {"ACTIVE"}]
    broken = [customer for customer in with_all if statuses[customer] & {"EXPIRED", "FAILED"}]
    chosen = randomness.sample(working, min(count, len(working))) + broken
    if randomness.randrange(_WITHOUT) == 0:
        others = {customer for rows in connected.values() for customer in rows if customer not in needed[0]}
        chosen += randomness.sample(sorted(others), 5)
    return chosen


def _weight(randomness: random.Random) -> float:
    """Most customers have little to do, and some very much."""
    return min(randomness.paretovariate(1.2), _BUSIEST)
