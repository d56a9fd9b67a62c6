"""Accounts that generated changes and hours have passed over stay coherent, as their API shows them."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.direct_sandbox import MORNING, Clock, Fastn
from support.faulty_sandbox import FaultySandbox

from fastn_mcp.tools.access import QueryAuditLog
from fastn_mcp.tools.ai import AiBuild
from fastn_mcp.tools.billing import GetQuotas, GetUsage
from fastn_mcp.tools.connectors import DeleteConnection, DeleteConnector
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.triggers import CreateTrigger, UpdateTrigger
from fastn_mcp.tools.workflows import (
    CreateWorkflow,
    DeleteWorkflow,
    ListExecutions,
    ListWorkflows,
    RunWorkflow,
    UpdateWorkflow,
)

Event = Callable[["Fastn", Clock, int], object]


def _one(account: Fastn, collection: str, number: int) -> Any:
    """Return one of the rows, or an id that does not exist."""
    rows = account.sandbox.state.all(collection)
    return rows[number % len(rows)]["id"] if rows else "nothing"


def _apps(number: int) -> list[Any]:
    return [{"slug": "slack"}, {"slug": "salesforce" if number % 2 else "nothing"}]


def _activate(account: Fastn, key: str) -> None:
    row = account.sandbox.state.get("workflows", key)
    if row is not None:
        kept: dict[str, Any] = {"name": row["name"], "code": row["code"], "timeout_ms": row["timeoutMs"]}
        account(UpdateWorkflow(workflow_id=key, status="active", extra={"connectors": row["connectors"]}, **kept))


def _limit(account: Fastn, key: str, events: int) -> None:
    row = account.sandbox.state.get("customers", key)
    if row is not None:
        quota: dict[str, Any] = {"quotaOverrides": {"events.day": events}}
        account(UpdateCustomer(customer_id=key, name=row["name"], admin_email=row["adminEmail"], extra=quota))


EVENTS: dict[str, Event] = {
    "time": lambda _, clock, n: clock.pass_(minutes=7 * n),
    "customer": lambda account, _, n: account(CreateCustomer(name=f"Customer {n}", plan="Growth")),
    "quota": lambda account, _, n: _limit(account, _one(account, "customers", n), 500 + n),
    "no customer": lambda account, _, n: account(DeleteCustomer(customer_id=_one(account, "customers", n))),
    "no connector": lambda account, _, n: account(DeleteConnector(connector_id=_one(account, "connectors", n))),
    "no connection": lambda account, _, n: account(DeleteConnection(connection_id=_one(account, "connections", n))),
    "workflow": lambda account, _, n: account(CreateWorkflow(name=f"Workflow {n}", extra={"connectors": _apps(n)})),
    "no workflow": lambda account, _, n: account(DeleteWorkflow(workflow_id=_one(account, "workflows", n))),
    "active": lambda account, _, n: _activate(account, _one(account, "workflows", n)),
    "run": lambda account, _, n: account(
        RunWorkflow(workflow_id=_one(account, "workflows", n), customer_id=_one(account, "customers", n // 3))
    ),
    "schedule": lambda account, _, n: account(
        CreateTrigger(
            name=f"Every {n}", type="scheduler", schedule=f"{n % 60} * * * *", timezone="UTC", status="Active",
            routes=[{"routeId": _one(account, "workflows", n), "routeType": "API", "environment": "live"}],
        )
    ),
    "stop": lambda account, _, n: account(UpdateTrigger(trigger_id=_one(account, "triggers", n), status="Disabled")),
    "build": lambda account, _, n: account(
        AiBuild(type="workflow", prompt=f"Build {n}", connectors=["xero"], approval_mode="auto")
    ),
}  # fmt: skip

happenings = st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.integers(0, 90)), max_size=14)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(happenings, st.integers(0, 13))
def test_account_stays_coherent_after_random_changes(happened: list[tuple[str, int]], hours: int) -> None:
    clock = Clock(MORNING + timedelta(hours=hours))
    account = Fastn(FaultySandbox(clock))
    for name, number in happened:
        EVENTS[name](account, clock, number)
    runs = _all(account, ListExecutions(limit=100))
    first = clock.at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    month = [run for run in runs if _at(run, "createdAt") >= first]
    usage: Any = account(GetUsage()).data
    assert usage["executions"]["month"] == len(month)
    by_customer = {row["customerId"]: row["executions"] for row in usage["byCustomer"]}
    assert by_customer == {key: sum(run["endOrgId"] == key for run in month) for key in by_customer}
    assert len(month) - sum(by_customer.values()) == sum(run["endOrgId"] is None for run in month)
    _check_quotas(account, [run for run in month if _at(run, "createdAt").date() == clock.at.date()])
    _check_runs(account, runs, clock.at)
    _check_workflows(account)


_INSTANT = timedelta(seconds=1)
"""What the answer to the start of an INSTANT run is ahead of a clock that stands still."""


def _check_quotas(account: Fastn, today: list[Any]) -> None:
    used = {row["name"]: row["used"] for row in account(GetQuotas()).data["quotas"] if row["scope"] == "per day"}
    events = [run for run in today if run["triggeredBy"] == "webhook"]
    assert used.pop("Events") == len(events)
    names = {f"Events ({row['name']})": row["id"] for row in account(ListCustomers(limit=100)).data}
    of_customers = {name: count for name, count in used.items() if name in names}
    assert of_customers == {name: sum(run["endOrgId"] == names[name] for run in events) for name in of_customers}


def _check_runs(account: Fastn, runs: list[Any], now: datetime) -> None:
    limits = {row["id"]: row["timeoutMs"] for row in account.sandbox.state.all("workflows")}
    by_id = {run["id"]: run for run in runs}
    for run in runs:
        assert _at(run, "createdAt") <= now
        if run["completedAt"] is not None:
            assert _at(run, "createdAt") <= _at(run, "startedAt") <= _at(run, "completedAt") <= now + _INSTANT
            assert run["durationMs"] <= limits.get(run["workflowId"], run["durationMs"])
    for entry in account(QueryAuditLog(limit=100)).data:
        assert _at(entry, "timestamp") <= now
        run = by_id.get(entry["resource"]["id"])
        if run is not None:
            field = "completedAt" if entry["action"].endswith("completed") else "createdAt"
            assert entry["timestamp"] == run[field], entry


def _check_workflows(account: Fastn) -> None:
    slugs = {row["slug"] for row in account.sandbox.state.all("connectors")}
    for workflow in _all(account, ListWorkflows(limit=100)):
        if workflow["status"] == "active":
            assert {app["slug"] for app in workflow["connectors"]} <= slugs, workflow


def _all(account: Fastn, call: Any) -> list[Any]:
    rows: list[Any] = []
    while True:
        request = call.request()
        query = {name: str(value) for name, value in request.query.items()} | {"offset": str(len(rows))}
        page = account.ask("GET", request.path, query).data
        rows += page
        if len(page) < call.limit:
            return rows


def _at(row: Any, name: str) -> datetime:
    return datetime.fromisoformat(row[name])
