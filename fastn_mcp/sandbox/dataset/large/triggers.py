"""Two hundred triggers in all: what starts the workflows of a large account."""

import random
from datetime import datetime, timedelta
from typing import cast

from fastn_mcp.sandbox.dataset.large.workflows import tenant_apps
from fastn_mcp.sandbox.dataset.triggers import app_event, put, route, scheduled, webhook
from fastn_mcp.sandbox.state import Row, State, stamp

_TOTAL = 199
"""And the one of `acme.py`."""


def add(
    state: State, now: datetime, randomness: random.Random, workflows: list[Row], connections: list[Row]
) -> list[Row]:
    """Keep them, and say which they are."""
    at_work = [row for row in workflows if row["status"] == "active" and row["executionTier"] != "LONG"]
    rows = [_for_all(state, now, randomness, workflow) for workflow in at_work]
    count = _TOTAL - len(state.all("triggers"))
    rows += _of_one(randomness, state, at_work, connections, count - len(rows))
    when = [now - timedelta(days=randomness.randrange(35, 300)) for _ in rows]
    return [put(state, row, made) for row, made in zip(rows[:count], when, strict=False)]


def _for_all(state: State, now: datetime, randomness: random.Random, workflow: Row) -> Row:
    """For every customer who has connected what the workflow needs."""
    name, to = str(workflow["name"]), route(workflow)
    minute = randomness.randrange(0, 60, 5)
    match randomness.randrange(10):
        case 0:
            row = scheduled(now, f"Hourly: {name}", f"{minute} * * * *", to)
        case 1 | 2 | 3 | 4:
            row = scheduled(now, f"Nightly: {name}", f"{minute} {randomness.randrange(6)} * * *", to)
        case _:
            row = webhook(state, f"Webhook: {name}", to)
    if randomness.randrange(16) == 0:
        since = stamp(now - timedelta(days=randomness.randrange(31, 90)))
        entry: Row = {"status": "Disabled", "at": since, "by": "lee@fastn.example"}
        row |= {"status": "Disabled", "statusHistory": [entry]}
        if "nextRun" in row:
            row |= {"nextRun": None, "lastRun": since}
    return row


def _of_one(
    randomness: random.Random, state: State, workflows: list[Row], connections: list[Row], count: int
) -> list[Row]:
    """For an event of the app of one customer."""
    by_app = {app: row for row in workflows for app in tenant_apps(row) if len(tenant_apps(row)) == 1}
    made: list[Row] = []
    for connection in randomness.sample(connections, len(connections)):
        connector = cast(Row, state.get("connectors", connection["connectorId"]))
        events = [str(event["name"]) for event in cast("list[Row]", connector["events"])]
        workflow = by_app.get(str(connector["slug"]))
        if len(made) < count and events and workflow is not None and connection["status"] != "INACTIVE":
            event = randomness.choice(events)
            customer = cast(Row, state.get("customers", connection["endOrgId"]))
            row = app_event(f"{connector['name']} {event}: {customer['name']}", connection, event)
            row["routes"] = [route(workflow)]
            made.append(row)
    return made
