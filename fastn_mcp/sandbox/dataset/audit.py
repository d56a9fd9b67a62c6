"""Two weeks of the audit log, with one thing refused and one that went wrong."""

from datetime import datetime, timedelta

from fastn_mcp.sandbox.audit_rows import record
from fastn_mcp.sandbox.state import State

_ROWS = 60


def add(state: State, now: datetime) -> None:
    for number in range(_ROWS):
        _row(state, now - timedelta(hours=5 * (_ROWS - number), minutes=7), number)


def _row(state: State, when: datetime, number: int) -> None:
    connections = state.all("connections")
    run = state.all("executions")[-1 - number]
    match number % 7:
        case 0:
            record(state, when, "dana@fastn.example", "auth.login", ("session", None))
        case 1:
            connection = connections[number % len(connections)]
            who = connection["endOrgId"]
            record(state, when, "system", "credential.token_refresh", ("connection", connection["id"]), customer=who)
        case 2:
            record(state, when, "apikey:1", "workflow.execute", ("workflow_executions", run["id"]))
        case 3:
            record(state, when, "apikey:1", "workflow.execute.completed", ("workflow_executions", run["id"]))
        case 4:
            workflow = state.all("workflows")[number % 7]
            action = "workflow.publish" if number % 2 else "workflow.update"
            record(state, when, "lee@fastn.example" if number % 2 else "agent", action, ("workflow", workflow["id"]))
        case 5:
            outcome = "Failure" if number == 54 else "Success"
            who = connections[5]["endOrgId"]
            record(
                state, when, "system", "connection.update", ("connection", connections[5]["id"]), outcome, customer=who
            )
        case _:
            key = state.all("apiKeys")[0]
            outcome = "Denied" if number == 55 else "Success"
            record(state, when, "tomas@fastn.example", "api_key.read", ("api_key", key["id"]), outcome)
