"""150 workflows and 200 triggers of a large account."""

import random
from datetime import datetime, timedelta
from typing import cast

from fastn_mcp.extensions.sandbox.state import Row, SandboxState, slug_of, stamp
from fastn_mcp.extensions.sandbox.triggers import add_trigger, app_event, route, scheduled, webhook
from fastn_mcp.extensions.sandbox.workflows import workflow
from fastn_mcp.records.rows import objects
from large_account.catalogue import CATEGORIES, OF_THE_ACCOUNT, POPULAR

_WORKFLOWS = 149
"""And the one of `large.add_example`."""

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


def add_workflows(state: SandboxState, now: datetime, randomness: random.Random) -> list[Row]:
    """Keep them, and say which they are."""
    taken = {str(row["slug"]) for row in state.all("workflows")}
    made: list[Row] = []
    while len(state.all("workflows")) < _WORKFLOWS:
        row = _workflow(state, now, randomness)
        if str(row["slug"]) not in taken:
            taken.add(str(row["slug"]))
            made.append(state.put("workflows", row))
    return made


def tenant_apps(row: Row) -> list[str]:
    """The slugs of the apps that each customer has to connect."""
    return [str(app["slug"]) for app in objects(row, "connectors") if app["scope"] == "MULTI_TENANT"]


def _workflow(state: SandboxState, now: datetime, randomness: random.Random) -> Row:
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


_TRIGGERS = 199
"""And the one of `large.add_example`."""


def add_triggers(
    state: SandboxState, now: datetime, randomness: random.Random, workflows: list[Row], connections: list[Row]
) -> list[Row]:
    """Keep them, and say which they are."""
    at_work = [row for row in workflows if row["status"] == "active" and row["executionTier"] != "LONG"]
    rows = [_for_all(state, now, randomness, workflow) for workflow in at_work]
    count = _TRIGGERS - len(state.all("triggers"))
    rows += _of_one(randomness, state, at_work, connections, count - len(rows))
    when = [now - timedelta(days=randomness.randrange(35, 300)) for _ in rows]
    return [add_trigger(state, row, made) for row, made in zip(rows[:count], when, strict=False)]


def _for_all(state: SandboxState, now: datetime, randomness: random.Random, workflow: Row) -> Row:
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
    randomness: random.Random, state: SandboxState, workflows: list[Row], connections: list[Row], count: int
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
