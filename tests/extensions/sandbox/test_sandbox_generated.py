"""Accounts that approved changes, undos and hours have passed over in any order stay coherent, as their API shows."""

import tempfile
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from support.direct_sandbox import Fastn
from support.world import FormNow, World, yes

from fastn_mcp.guard.result import Done
from fastn_mcp.procedures.undo_change import UndoChange
from fastn_mcp.tools.access import QueryAuditLog
from fastn_mcp.tools.ai import AiBuild
from fastn_mcp.tools.billing import GetQuotas, GetUsage
from fastn_mcp.tools.connectors import CreateConnection, DeleteConnection, DeleteConnector, ListConnections
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


class Account(Fastn):
    """An account that tool calls change, all of them approved, and that is asked without a guard."""

    def __init__(self, world: World) -> None:
        super().__init__(world.sandbox)
        self.world = world
        self.changes: list[str] = []
        self.deleted: set[str] = set()

    def change(self, call: Any) -> None:
        """Make a call. A refusal of Fastn changes nothing."""

        async def make() -> Any:
            return await self.world.call(call, FormNow(yes, self.world.clock))

        outcome = anyio.run(make)
        if not isinstance(outcome, Done):
            return
        if outcome.change is not None:
            self.changes.append(outcome.change.id)
        # The id of a connection follows from what it connects: another one of the same has the same id.
        if isinstance(call, DeleteCustomer | DeleteConnector | DeleteWorkflow):
            self.deleted |= {str(value) for value in call.model_dump(exclude_none=True).values()}


Event = Callable[[Account, int], object]


def _one(account: Account, collection: str, number: int) -> Any:
    """Return one of the rows, or an id that does not exist."""
    rows = account.sandbox.state.all(collection)
    return rows[number % len(rows)]["id"] if rows else "nothing"


def _gamma(account: Account) -> str:
    """Return the connector with an API key, or an id that no longer exists."""
    row = account.sandbox.state.first("connectors", "slug", "gamma")
    return "nothing" if row is None else str(row["id"])


def _apps(number: int) -> list[Any]:
    return [{"slug": "slack"}, {"slug": "salesforce" if number % 2 else "nothing"}]


def _activate(account: Account, key: str) -> None:
    row = account.sandbox.state.get("workflows", key)
    if row is not None:
        kept: dict[str, Any] = {"name": row["name"], "code": row["code"], "timeout_ms": row["timeoutMs"]}
        account.change(
            UpdateWorkflow(workflow_id=key, status="active", extra={"connectors": row["connectors"]}, **kept)
        )


def _limit(account: Account, key: str, events: int) -> None:
    row = account.sandbox.state.get("customers", key)
    if row is not None:
        quota: dict[str, Any] = {"quotaOverrides": {"events.day": events}}
        account.change(UpdateCustomer(customer_id=key, name=row["name"], admin_email=row["adminEmail"], extra=quota))


EVENTS: dict[str, Event] = {
    "time": lambda account, n: account.world.clock.pass_(7 * 60 * n),
    "customer": lambda account, n: account.change(CreateCustomer(name=f"Customer {n}", plan="Growth")),
    "quota": lambda account, n: _limit(account, _one(account, "customers", n), 500 + n),
    "no customer": lambda account, n: account.change(DeleteCustomer(customer_id=_one(account, "customers", n))),
    "no connector": lambda account, n: account.change(DeleteConnector(connector_id=_one(account, "connectors", n))),
    "connection": lambda account, n: account.change(
        CreateConnection(
            connector_id=_gamma(account),
            customer_id=_one(account, "customers", n),
            credentials={"apiKey": "k-1"},
        )
    ),
    "no connection": lambda account, n: account.change(DeleteConnection(connection_id=_one(account, "connections", n))),
    "workflow": lambda account, n: account.change(CreateWorkflow(name=f"Workflow {n}", extra={"connectors": _apps(n)})),
    "no workflow": lambda account, n: account.change(DeleteWorkflow(workflow_id=_one(account, "workflows", n))),
    "active": lambda account, n: _activate(account, _one(account, "workflows", n)),
    "run": lambda account, n: account.change(
        RunWorkflow(
            workflow_id=_one(account, "workflows", n),
            customer_id=_one(account, "customers", n // 3) if n % 2 else None,
        )
    ),
    "schedule": lambda account, n: account.change(
        CreateTrigger(
            name=f"Every {n}", type="scheduler", schedule=f"{n % 60} * * * *", timezone="UTC", status="Active",
            routes=[{"routeId": _one(account, "workflows", n), "routeType": "API", "environment": "live"}],
        )
    ),
    "stop": lambda account, n: account(UpdateTrigger(trigger_id=_one(account, "triggers", n), status="Disabled")),
    "build": lambda account, n: account.change(
        AiBuild(type="workflow", prompt=f"Build {n}", connectors=["xero"], approval_mode="auto")
    ),
    "undo": lambda account, n: (
        account.change(UndoChange(change_id=account.changes[n % len(account.changes)])) if account.changes else None
    ),
}  # fmt: skip

happenings = st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.integers(0, 90)), max_size=14)
EVERYTHING = [(name, number) for number in range(6) for name in EVENTS]


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(happenings, st.integers(0, 13))
@example(EVERYTHING, 5)
def test_account_stays_coherent_after_random_changes(happened: list[tuple[str, int]], hours: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        world.clock.pass_(hours * 3600)
        account = Account(world)
        for name, number in happened:
            EVENTS[name](account, number)
            _check_rows(account)
        _check_usage(account, world.clock.at)
        _check_workflows(account)
        world.close()


def _check_rows(account: Account) -> None:
    state = account.sandbox.state
    listed = {
        "customers": _all(account, ListCustomers(limit=100)),
        "workflows": _all(account, ListWorkflows(limit=100)),
        "connections": _all(account, ListConnections(limit=100)),
    }
    ids = {collection: {row["id"] for row in rows} for collection, rows in listed.items()}
    assert ids == {collection: {row["id"] for row in state.all(collection)} for collection in listed}
    assert not (ids["customers"] | ids["workflows"]) & account.deleted, "an id that was deleted comes back"
    connected = Counter(row["endOrgId"] for row in state.all("connections"))
    assert {row["id"]: row["connectionsCount"] for row in listed["customers"]} == {
        key: connected[key] for key in ids["customers"]
    }
    assert connected.keys() <= ids["customers"] | {None}
    assert {row["connectorId"] for row in state.all("connections")} <= {row["id"] for row in state.all("connectors")}


def _check_usage(account: Account, now: datetime) -> None:
    runs = _all(account, ListExecutions(limit=100))
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    month = [run for run in runs if _at(run, "createdAt") >= first]
    usage: Any = account(GetUsage()).data
    assert usage["executions"]["month"] == len(month)
    by_customer = {row["customerId"]: row["executions"] for row in usage["byCustomer"]}
    assert by_customer == {key: sum(run["endOrgId"] == key for run in month) for key in by_customer}
    assert len(month) - sum(by_customer.values()) == sum(run["endOrgId"] is None for run in month)
    _check_quotas(account, [run for run in month if _at(run, "createdAt").date() == now.date()])
    _check_runs(account, runs, now)


_INSTANT = timedelta(seconds=1)
"""What the answer to the start of an INSTANT run is ahead of a clock that stands still."""


def _check_quotas(account: Fastn, today: list[Any]) -> None:
    quotas = account(GetQuotas()).data["quotas"]
    (connected,) = (row["used"] for row in quotas if (row["name"], row["scope"]) == ("Connected accounts", "total"))
    assert connected == len(account.sandbox.state.all("connections"))
    used = {row["name"]: row["used"] for row in quotas if row["scope"] == "per day"}
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
        assert (run["status"] in ("queued", "running")) == (run["completedAt"] is None), run
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
