"""Billing, usage, quotas and the audit log, all read-only. Usage is computed from the rows of the account."""

from collections import Counter
from datetime import datetime, timedelta
from typing import NamedTuple

from fastn_mcp.extensions.sandbox.auth import OWNERS_ONLY
from fastn_mcp.extensions.sandbox.resource import One, Resource, RouteContext, endpoint
from fastn_mcp.extensions.sandbox.state import Row, SandboxState, parse_stamp, record, stamp
from fastn_mcp.records.rows import inside
from fastn_mcp.tools.access import QueryAuditLog
from fastn_mcp.tools.billing import GetBilling, GetQuotas, GetUsage
from fastn_mcp.tools.workflows import ListExecutions

_ROWS = 60
_DAYS = 14


class AuditRow(NamedTuple):
    when: str
    actor: str
    action: str
    kind: str
    key: str | int | None = None
    outcome: str = "Success"
    customer: str | None = None


def add_audit_log(state: SandboxState, now: datetime) -> None:
    events = [*_of_people(state, now), *_of_rows(state)]
    since = stamp(now - timedelta(days=_DAYS))
    events = [event for event in events if since <= event.when <= stamp(now)]
    runs = [row for row in state.all("executions") if row["createdAt"] >= since]
    for run in runs:
        if run["triggeredBy"] == "manual":
            events += _of_run(run)
    ended = [row for row in runs if row["completedAt"] and row["triggeredBy"] != "manual"]
    count = (_ROWS - len(events)) // 2
    step = len(ended) // count
    for run in ended[step - 1 :: step][:count]:
        events += _of_run(run)
    append_events(state, events)


def append_events(state: SandboxState, events: list[AuditRow]) -> None:
    """Record events in order of time."""
    for event in sorted(events, key=lambda event: event.when):
        resource = (event.kind, event.key)
        record(
            state,
            parse_stamp(event.when),
            event.actor,
            action=event.action,
            resource=resource,
            outcome=event.outcome,
            customer=event.customer,
        )


def last_refresh(connection: Row) -> AuditRow:
    """Return the event of a connection's last credential refresh."""
    when = connection["lastRefreshedAt"]
    key = connection["id"]
    return AuditRow(
        when, "system", "credential.token_refresh", kind="connection", key=key, customer=connection["endOrgId"]
    )


def last_change(workflow: Row) -> AuditRow:
    """Return the event of a workflow's last change; its publication if it is published."""
    by = workflow["updatedBy"]
    actor = by if "@" in by else "agent"
    action = "workflow.publish" if workflow["publishedVersion"] else "workflow.update"
    return AuditRow(workflow["updatedAt"], actor, action, kind="workflow", key=workflow["id"])


def _of_people(state: SandboxState, now: datetime) -> list[AuditRow]:
    key = state.all("apiKeys")[0]["id"]
    seen = [row for row in state.all("users") if row["lastActive"]]
    logins = [AuditRow(row["lastActive"], row["email"], "auth.login", "session") for row in seen]
    read = [now - timedelta(days=days, hours=3) for days in (2, 6, 11)]
    outcomes = ("Denied", "Success", "Success")
    return logins + [
        AuditRow(stamp(when), "tomas@fastn.example", "api_key.read", kind="api_key", key=key, outcome=outcome)
        for when, outcome in zip(read, outcomes, strict=True)
    ]


def _of_rows(state: SandboxState) -> list[AuditRow]:
    created = [
        AuditRow(row["createdAt"], row["createdBy"], "customer.create", kind="customer", key=row["id"])
        for row in state.all("customers")
    ]
    failed = [
        AuditRow(
            row["expiresAt"],
            "system",
            "connection.update",
            kind="connection",
            key=row["id"],
            outcome="Failure",
            customer=row["endOrgId"],
        )
        for row in state.all("connections")
        if row["status"] == "FAILED"
    ]
    workflows = [last_change(row) for row in state.all("workflows")]
    return (
        created
        + failed
        + workflows
        + [last_refresh(row) for row in state.all("connections") if row["status"] == "ACTIVE"]
    )


def _of_run(run: Row) -> list[AuditRow]:
    """Return the events of a run: its start, and its end if it has ended. The first API key starts manual runs."""
    kind = "workflow_executions"
    key = run["id"]
    customer = run["endOrgId"]
    actor = "apikey:1" if run["triggeredBy"] == "manual" else "system"
    begun = AuditRow(run["createdAt"], actor, "workflow.execute", kind=kind, key=key, customer=customer)
    if run["completedAt"] is None:
        return [begun]
    outcome = "Success" if run["status"] == "completed" else "Failure"
    ended = run["completedAt"]
    return [
        begun,
        AuditRow(ended, "system", "workflow.execute.completed", kind=kind, key=key, outcome=outcome, customer=customer),
    ]


AUDIT = Resource("audit", "audit", settable={}, unique=())

endpoint(QueryAuditLog, OWNERS_ONLY)(AUDIT.list)

_QUOTAS = (
    # name, scope, limit of the plan Free, limit of the plan Enterprise
    ("Events", "per day", 500, 50_000),
    ("Events", "per minute", 10, 1_000),
    ("API calls", "per day", 1_000, 100_000),
    ("API calls", "per minute", 20, 2_000),
    ("Active integrations", "total", 10, 100),
    ("Workflows", "per customer", 10, 250),
    ("Connected accounts", "total", 25, 5_000),
    ("API keys", "per customer", 5, 50),
)


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
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return first, first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)


_OTHER_CALLS = {"per day": 92, "per minute": 20}
"""API calls of the account's other clients, which have no rows, in percent of the limit."""


@endpoint(GetBilling, "settings:read")
def billing(context: RouteContext, call: GetBilling) -> One:  # noqa: ARG001
    return One(_billing(context))


@endpoint(GetUsage, "settings:read")
def usage(context: RouteContext, call: GetUsage) -> One:  # noqa: ARG001
    first, following = month_of(context.now)
    runs = context.runs(ListExecutions(since=stamp(first))).count("endOrgId")
    used = _used(context)
    by_customer: list[Row] = []
    for key, count in runs.most_common():
        customer = context.state.get("customers", key)
        if key:
            by_customer.append({"customerId": key, "name": customer and customer["name"], "executions": count})
    return One(
        {
            "period": {"from": stamp(first), "to": stamp(following)},
            "events": {"day": used["Events", "per day"], "minute": used["Events", "per minute"]},
            "apiCalls": {"day": used["API calls", "per day"], "minute": used["API calls", "per minute"]},
            "executions": {"month": runs.total()},
            "byCustomer": by_customer,
            "aiCredits": _billing(context)["credits"]["used"],
        }
    )


@endpoint(GetQuotas, "settings:read")
def quotas(context: RouteContext, call: GetQuotas) -> One:  # noqa: ARG001
    plan = _billing(context)["plan"]
    used = _used(context)
    rows = [_quota(*name, limit, used[name]) for name, limit in _limits(context).items()]
    today = context.now.replace(hour=0, minute=0, second=0, microsecond=0)
    for customer in context.state.all("customers"):
        limit = inside(customer, "quotaOverrides").get("events.day")
        if isinstance(limit, int) and limit > 0:
            events = _events(context, today, customer["id"])
            rows.append(_quota(f"Events ({customer['name']})", "per day", limit, used=events, source="override"))
    return One({"plan": plan, "quotas": rows})


def _billing(context: RouteContext) -> Row:
    return {field: value for field, value in context.state.rows["billing"]["billing"].items() if field != "id"}


def _limits(context: RouteContext) -> dict[tuple[str, str], int]:
    enterprise = _billing(context)["plan"] == "Enterprise"
    return {(name, scope): large if enterprise else small for name, scope, small, large in _QUOTAS}


def _used(context: RouteContext) -> dict[tuple[str, str], int]:
    state = context.state
    limits = _limits(context)
    today = context.now.replace(hour=0, minute=0, second=0, microsecond=0)
    connections = state.all("connections")
    pinned = Counter(str(customer) for key in state.all("apiKeys") for customer in key.get("customers") or ())
    in_use = bool(state.all("customers"))
    calls = {
        ("API calls", scope): limits["API calls", scope] * percent * in_use // 100
        for scope, percent in _OTHER_CALLS.items()
    }
    return calls | {
        ("Events", "per day"): _events(context, today),
        ("Events", "per minute"): _events(context, context.now - timedelta(minutes=1)),
        ("Active integrations", "total"): len(
            {row["connectorId"] for row in connections if row.get("status") == "ACTIVE"}
        ),
        ("Workflows", "per customer"): len([row for row in state.all("workflows") if row.get("publishedVersion")]),
        ("Connected accounts", "total"): len(connections),
        ("API keys", "per customer"): max(pinned.values(), default=0),
    }


def _events(context: RouteContext, since: datetime, customer: str | None = None) -> int:
    """Count the runs started by webhooks and app events."""
    return len(context.runs(ListExecutions(started_by="webhook", since=stamp(since), customer_id=customer)))


def _quota(name: str, scope: str, limit: int, used: int, source: str = "plan default") -> Row:
    return {
        "name": name,
        "scope": scope,
        "limit": limit,
        "used": used,
        "percent": round(100 * used / limit),
        "enforcement": "Hard Block",
        "source": source,
    }
