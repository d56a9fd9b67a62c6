"""Two weeks of the audit log of a large account, beside those of the small one."""

import random
from datetime import datetime, timedelta

from fastn_mcp.sandbox.dataset.audit import Event, append, changed, refreshed
from fastn_mcp.sandbox.state import Row, State, stamp

_ROWS = 300
_DAYS = 14


def add(state: State, now: datetime, randomness: random.Random, workflows: list[Row], connections: list[Row]) -> None:
    since = now - timedelta(days=_DAYS)
    people = [row for row in state.all("users") if str(row["lastActive"] or "") >= stamp(since)]
    events = [changed(row) for row in workflows if str(row["updatedAt"]) >= stamp(since)]
    events += [Event(str(row["lastActive"]), str(row["email"]), "auth.login", "session") for row in people[-40:]]
    working = [row for row in connections if row["status"] == "ACTIVE"]
    events += [refreshed(row) for row in randomness.sample(working, 150)]
    while len(events) < _ROWS:
        person = randomness.choice(people)
        when = stamp(now - timedelta(minutes=randomness.randrange(10, _DAYS * 1440)))
        if str(person["createdAt"]) <= when:
            outcome = "Success" if len(events) % 8 else randomness.choice(("Denied", "Failure"))
            key = randomness.choice(state.all("apiKeys"))["id"]
            events.append(Event(when, str(person["email"]), "api_key.read", "api_key", key, outcome))
    append(state, events)
