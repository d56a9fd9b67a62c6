"""Audit log, plan and credits of the sandbox's account."""

from datetime import datetime, timedelta
from typing import NamedTuple

from pydantic import JsonValue

from fastn_mcp.sandbox.state import Row, SandboxState, moment, record, stamp

_ROWS = 60
_DAYS = 14


class AuditRow(NamedTuple):
    """What somebody did, and when."""

    when: str
    actor: str
    action: str
    kind: str
    key: JsonValue = None
    outcome: str = "Success"
    customer: JsonValue = None


def add_audit_log(state: SandboxState, now: datetime) -> None:
    events = [*_of_people(state, now), *_of_rows(state)]
    since = stamp(now - timedelta(days=_DAYS))
    events = [event for event in events if since <= event.when <= stamp(now)]
    runs = [row for row in state.all("executions") if str(row["createdAt"]) >= since]
    for run in runs:
        if run["triggeredBy"] == "manual":
            events += _of_run(run)
    ended = [row for row in runs if row["completedAt"] and row["triggeredBy"] != "manual"]
    count = (_ROWS - len(events)) // 2
    step = len(ended) // count
    for run in ended[step - 1 :: step][:count]:
        events += _of_run(run)
    append(state, events)


def append(state: SandboxState, events: list[AuditRow]) -> None:
    """Record events in the order in which they happened."""
    for event in sorted(events, key=lambda event: event.when):
        record(
            state,
            moment(event.when),
            event.actor,
            event.action,
            (event.kind, event.key),
            event.outcome,
            customer=event.customer,
        )


def refreshed(connection: Row) -> AuditRow:
    """The last refresh of a connection's credentials."""
    when, key = str(connection["lastRefreshedAt"]), connection["id"]
    return AuditRow(when, "system", "credential.token_refresh", "connection", key, customer=connection["endOrgId"])


def changed(workflow: Row) -> AuditRow:
    """The last change of a workflow: if it has been published, that."""
    by = str(workflow["updatedBy"])
    actor = by if "@" in by else "agent"
    action = "workflow.publish" if workflow["publishedVersion"] else "workflow.update"
    return AuditRow(str(workflow["updatedAt"]), actor, action, "workflow", workflow["id"])


def _of_people(state: SandboxState, now: datetime) -> list[AuditRow]:
    key = state.all("apiKeys")[0]["id"]
    seen = [row for row in state.all("users") if row["lastActive"]]
    logins = [AuditRow(str(row["lastActive"]), str(row["email"]), "auth.login", "session") for row in seen]
    read = [now - timedelta(days=days, hours=3) for days in (2, 6, 11)]
    outcomes = ("Denied", "Success", "Success")
    return logins + [
        AuditRow(stamp(when), "tomas@fastn.example", "api_key.read", "api_key", key, outcome)
        for when, outcome in zip(read, outcomes, strict=True)
    ]


def _of_rows(state: SandboxState) -> list[AuditRow]:
    made = [
        AuditRow(str(row["createdAt"]), str(row["createdBy"]), "customer.create", "customer", row["id"])
        for row in state.all("customers")
    ]
    broke = [
        AuditRow(
            str(row["expiresAt"]), "system", "connection.update", "connection", row["id"], "Failure", row["endOrgId"]
        )
        for row in state.all("connections")
        if row["status"] == "FAILED"
    ]
    workflows = [changed(row) for row in state.all("workflows")]
    return made + broke + workflows + [refreshed(row) for row in state.all("connections") if row["status"] == "ACTIVE"]


def _of_run(run: Row) -> list[AuditRow]:
    """The start of a run, and its end if it has ended. Manual runs are started with the first API key."""
    kind, key, customer = "workflow_executions", run["id"], run["endOrgId"]
    actor = "apikey:1" if run["triggeredBy"] == "manual" else "system"
    begun = AuditRow(str(run["createdAt"]), actor, "workflow.execute", kind, key, customer=customer)
    if run["completedAt"] is None:
        return [begun]
    outcome = "Success" if run["status"] == "completed" else "Failure"
    ended = str(run["completedAt"])
    return [begun, AuditRow(ended, "system", "workflow.execute.completed", kind, key, outcome, customer)]


LIMITS = {
    "Free": {
        ("Events", "per day"): 500,
        ("Events", "per minute"): 10,
        ("API calls", "per day"): 1_000,
        ("API calls", "per minute"): 20,
        ("Active integrations", "total"): 10,
        ("Workflows", "per customer"): 10,
        ("Connected accounts", "total"): 25,
        ("API keys", "per customer"): 5,
    },
    "Enterprise": {
        ("Events", "per day"): 50_000,
        ("Events", "per minute"): 1_000,
        ("API calls", "per day"): 100_000,
        ("API calls", "per minute"): 2_000,
        ("Active integrations", "total"): 100,
        ("Workflows", "per customer"): 250,
        ("Connected accounts", "total"): 5_000,
        ("API keys", "per customer"): 50,
    },
}


def add_billing(state: SandboxState, now: datetime) -> None:
    _, following = month_of(now)
    state.put(
        "billing",
        {
            "id": "billing",
            "plan": "Free",
            "price": {"amount": 0, "currency": "USD", "interval": "month"},
            "credits": {"used": 38, "included": 50, "resetsAt": stamp(following)},
            "byAgent": {"Orchestrator": 21, "Docs Agent": 9, "Error Diagnosis": 8},
            "invoices": [],
        },
    )


def month_of(now: datetime) -> tuple[datetime, datetime]:
    """The first moment of the month, and of the following one."""
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return first, first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
