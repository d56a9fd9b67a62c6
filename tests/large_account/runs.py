"""200,000 runs of a month in a large account, why some fail, and the audit log.

They are only described here: the account keeps their past, from which they follow. It reaches to the end of the day,
and each run is seen once it is over.

What went wrong is told as it was then, whatever becomes of the connection.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast

from fastn_mcp.extensions.sandbox.account import AuditRow, append_events, last_change, last_refresh
from fastn_mcp.extensions.sandbox.executions import broken_connection, no_connection, out_of_memory, timed_out
from fastn_mcp.extensions.sandbox.state import Row, SandboxState, parse_stamp, stamp
from large_account.run_history import RunSeries, Series, Trouble, milliseconds
from large_account.workflows import tenant_apps

Connected = Mapping[str, Mapping[str, Row]]
"""The customers' connections by the slug of the app and the id of the customer."""

_AT_ONCE = 1_900
"""Milliseconds of a run that fails where it begins."""

_SLOW, _GREEDY = 3, 2
"""So many workflows wait too long, and so many take too much memory."""


def connected_since(when: datetime, connections: list[Row]) -> Connected:
    """Those that were there already."""
    found: dict[str, dict[str, Row]] = {}
    for row in connections:
        if parse_stamp(str(row["createdAt"])) <= when:
            found.setdefault(str(cast(Row, row["connector"])["slug"]), {})[str(row["endOrgId"])] = row
    return found


class Troubles:
    """What goes wrong in an account at `now`."""

    def __init__(
        self, state: SandboxState, now: datetime, randomness: random.Random, workflows: list[Row], connected: Connected
    ) -> None:
        self._state = state
        self._now = now
        self._connected = connected
        self._own = self._slow(randomness, workflows) | self._greedy(workflows)

    def of(self, workflow: Row, customer: str) -> Trouble | None:
        """What goes wrong when this workflow runs for this customer."""
        for app in tenant_apps(workflow):
            connection = self._connected.get(app, {}).get(customer)
            if connection is None:
                since = milliseconds(self._now - timedelta(days=12))
                return Trouble(status="failed", error=no_connection(app, customer), duration=_AT_ONCE, since=since)
            if connection["status"] != "ACTIVE":
                actions = cast("list[Row]", self._state.named("connectors", app)["actions"])
                error = broken_connection(app, str(actions[0]["slug"]), str(connection["id"]))
                since = milliseconds(parse_stamp(str(connection["expiresAt"])))
                return Trouble(status="failed", error=error, duration=_AT_ONCE, since=since)
        return self._own.get(str(workflow["id"]))

    def _slow(self, randomness: random.Random, workflows: list[Row]) -> dict[str, Trouble]:
        """An app answers slowly since a week ago, and some runs do not end in time."""
        standard = [row for row in workflows if row["executionTier"] == "STANDARD" and row["status"] == "active"]
        since = milliseconds(self._now - timedelta(days=8))
        return {
            str(row["id"]): Trouble(status="timeout", error=timed_out(limit), duration=limit, since=since, share=0.2)
            for row in randomness.sample(standard, _SLOW)
            if isinstance(limit := row["timeoutMs"], int)
        }

    def _greedy(self, workflows: list[Row]) -> dict[str, Trouble]:
        """The largest orders do not fit into memory. The other backfills are sometimes called off."""
        long = [row for row in workflows if row["executionTier"] == "LONG"]
        memory = Trouble(status="failed", error=out_of_memory(), duration=540_000, share=0.3)
        called_off = Trouble(status="cancelled", error=None, duration=41_000, share=0.05)
        return {str(row["id"]): memory if place < _GREEDY else called_off for place, row in enumerate(long)}


_RUN_DAYS = 30
_TOTAL = 6_690 * (_RUN_DAYS + 1)
"""The rest of the day included."""
_DURATIONS = {"INSTANT": 300, "STANDARD": 24_000, "LONG": 320_000}
_BUSIEST = 40.0
_HOURLY, _NIGHTLY, _OTHER, _MANUAL = 4, 22, 24, 8
"""For how many customers a workflow runs, besides those for whom it fails."""

_WITHOUT = 20
"""One in so many workflows is also started for customers who are no longer connected."""


def add_executions(
    state: SandboxState,
    now: datetime,
    randomness: random.Random,
    workflows: list[Row],
    triggers: list[Row],
    connections: list[Row],
) -> None:
    since = now - timedelta(days=_RUN_DAYS)
    connected = connected_since(since, connections)
    troubles = Troubles(state, now, randomness, workflows, connected)
    series = [*_started(randomness, workflows, triggers, connected), *_by_hand(randomness, workflows, connected)]
    shown = ("id", "name", "slug", "publishedVersion", "executionTier", "connectors", "updatedAt")
    RunSeries(
        seed=state.hex(32),
        count=_TOTAL - len(state.all("executions")),
        since=milliseconds(since),
        until=milliseconds(now + timedelta(days=1)),
        triggers=tuple(str(trigger["id"]) for trigger in triggers),
        workflows=tuple({name: workflow[name] for name in shown} for workflow in workflows),
        series=tuple(replace(one, trouble=troubles.of(workflows[one.workflow], one.customer)) for one in series),
    ).store(state)


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


_ROWS = 300
_AUDIT_DAYS = 14


def add_audit_log(
    state: SandboxState, now: datetime, randomness: random.Random, workflows: list[Row], connections: list[Row]
) -> None:
    since = now - timedelta(days=_AUDIT_DAYS)
    people = [row for row in state.all("users") if str(row["lastActive"] or "") >= stamp(since)]
    events = [last_change(row) for row in workflows if str(row["updatedAt"]) >= stamp(since)]
    events += [AuditRow(str(row["lastActive"]), str(row["email"]), "auth.login", "session") for row in people[-40:]]
    working = [row for row in connections if row["status"] == "ACTIVE"]
    events += [last_refresh(row) for row in randomness.sample(working, 150)]
    while len(events) < _ROWS:
        person = randomness.choice(people)
        when = stamp(now - timedelta(minutes=randomness.randrange(10, _AUDIT_DAYS * 1440)))
        if str(person["createdAt"]) <= when:
            outcome = "Success" if len(events) % 8 else randomness.choice(("Denied", "Failure"))
            key = randomness.choice(state.all("apiKeys"))["id"]
            events.append(AuditRow(when, str(person["email"]), "api_key.read", "api_key", key, outcome))
    append_events(state, events)
