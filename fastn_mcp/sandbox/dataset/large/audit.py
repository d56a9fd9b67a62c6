"""Two weeks of the audit log of a large account, beside those of the small one."""

import random
from datetime import datetime, timedelta

from fastn_mcp.sandbox.audit_rows import record
from fastn_mcp.sandbox.state import Row, State

_ROWS = 300


def add(state: State, now: datetime, randomness: random.Random, workflows: list[Row], connections: list[Row]) -> None:
    people = [str(row["email"]) for row in state.all("users") if row["status"] == "Active"]
    minutes = sorted((randomness.randrange(10, 14 * 1440) for _ in range(_ROWS)), reverse=True)
    for number, ago in enumerate(minutes):
        when, who = now - timedelta(minutes=ago), randomness.choice(people)
        outcome = "Success" if number % 25 else randomness.choice(("Denied", "Failure"))
        match randomness.randrange(6):
            case 0:
                record(state, when, who, "auth.login", ("session", None), outcome)
            case 1 | 2:
                row = randomness.choice(connections)
                customer, resource = row["endOrgId"], ("connection", row["id"])
                record(state, when, "system", "credential.token_refresh", resource, outcome, customer=customer)
            case 3 | 4:
                row = randomness.choice(workflows)
                action = randomness.choice(("workflow.update", "workflow.publish", "workflow.execute"))
                record(state, when, who, action, ("workflow", row["id"]), outcome)
            case _:
                row = randomness.choice(state.all("apiKeys"))
                record(state, when, who, "api_key.read", ("api_key", row["id"]), outcome)
