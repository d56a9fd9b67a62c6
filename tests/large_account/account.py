"""What a large account has beside the small one, and an example of its own: an expired HubSpot connection.

By size alone it is what tests of search, paging and summaries need. The examples of the small account are in it as they
were; its own is made by `add_example`.
"""

import random
from datetime import UTC, datetime, timedelta

from fastn_mcp.extensions.sandbox.connectors import connection
from fastn_mcp.extensions.sandbox.executions import broken_connection, execution
from fastn_mcp.extensions.sandbox.server import dataset
from fastn_mcp.extensions.sandbox.state import Row, SandboxState, stamp
from fastn_mcp.extensions.sandbox.triggers import add_trigger, route, scheduled
from fastn_mcp.extensions.sandbox.workflows import workflow
from fastn_mcp.records.cron import next_run
from large_account import catalogue, people, runs, workflows

_SCHEDULE = "0 1-5 * * *"
_NIGHTS = 28
_LONGEST = timedelta(seconds=90)


def add_example(state: SandboxState, now: datetime, randomness: random.Random) -> None:
    acme = state.named("customers", "acme-corp")
    fired = [when for when in _fired(now - timedelta(days=_NIGHTS), now) if when + _LONGEST <= now]
    failing = [when for when in fired if when > now - timedelta(days=1)]
    expired = failing[0] - timedelta(minutes=20)
    hubspot = connection(
        state.named("connectors", "hubspot"), acme, "EXPIRED", now - timedelta(days=190), expired, expired
    )
    state.put("connections", hubspot)
    scopes = {"hubspot": "MULTI_TENANT", "snowflake": "SAAS"}
    changed = now - timedelta(days=45)
    sync = workflow(state, state.short_id("wf"), "Acme HubSpot sync", "acme-hubspot-sync", "STANDARD", scopes, changed)
    state.put("workflows", sync | {"version": 4, "publishedVersion": "v4"})
    trigger = scheduled(now, "Acme HubSpot sync, at night", _SCHEDULE, route(sync))
    trigger |= {"endOrgId": acme["id"], "lastRun": stamp(fired[-1]), "consecutiveFailures": len(failing)}
    add_trigger(state, trigger, now - timedelta(days=45))
    error = broken_connection("hubspot", "listContacts", str(hubspot["id"]))
    for when in fired:
        state.put("executions", _run(state, randomness, sync, acme, when, error if when in failing else None))


def _run(
    state: SandboxState, randomness: random.Random, sync: Row, acme: Row, when: datetime, error: Row | None
) -> Row:
    status = "failed" if error else "completed"
    duration = randomness.randrange(1_500, 3_000) if error else randomness.randrange(40_000, 70_000)
    key = state.short_id("exec")
    return execution(key, sync, status, when, duration, "scheduler", endOrgId=acme["id"], error=error)


def _fired(since: datetime, now: datetime) -> list[datetime]:
    """When the schedule fired, in order."""
    found = [next_run(_SCHEDULE, "UTC", since)]
    while (coming := next_run(_SCHEDULE, "UTC", found[-1])) <= now:
        found.append(coming)
    return found


def large_account(now: datetime, randomness: random.Random) -> SandboxState:
    """The sandbox's own account, and much more, as of midnight UTC of the day of `now`."""
    state = dataset(now, randomness)
    _add(state, now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0))
    return state


def _add(state: SandboxState, now: datetime) -> None:
    state.named("billing", "billing", "id")["plan"] = "Enterprise"
    randomness = random.Random(state.hex(32))  # noqa: S311 it is to be repeatable
    catalogue.add_connectors(state, now, randomness)
    whom = people.add_customers(state, now, randomness)
    what = workflows.add_workflows(state, now, randomness)
    how = people.add_connections(state, now, randomness, whom, what)
    when = workflows.add_triggers(state, now, randomness, what, how)
    add_example(state, now, randomness)
    runs.add_executions(state, now, randomness, what, when, how)
    people.add_people(state, now, randomness, whom)
    runs.add_audit_log(state, now, randomness, what, how)
