"""Tests of the large account: its data, runs, lists and memory. Its speed is not tested here."""

import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from large_account import large_account
from large_account.run_history import History, RunSeries, milliseconds
from support.clock import Clock
from support.direct_sandbox import MORNING, Fastn
from support.faulty_sandbox import FaultySandbox

from fastn_mcp.extensions.sandbox.state import Row
from fastn_mcp.tools.access import ListApiKeys, ListSecrets, ListUsers, QueryAuditLog
from fastn_mcp.tools.connectors import ListConnections, ListConnectors
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import ListExecutions, ListWorkflows, RunWorkflow

pytestmark = pytest.mark.long

EXECUTIONS = "/api/v1/executions"
MEGABYTE = 1024 * 1024


@pytest.fixture(scope="module")
def large() -> Fastn:
    """Return a large account, shared by tests that only read."""
    return Fastn(FaultySandbox(Clock(MORNING).now, begin=large_account))


@pytest.fixture
def fresh(clock: Clock) -> Fastn:
    """Return a large account with a history of 1.5 days: few enough runs to check each."""
    return of_days(Fastn(FaultySandbox(clock.now, begin=large_account)), 1.5)


def past_of(fastn: Fastn) -> RunSeries:
    past = RunSeries.of(fastn.sandbox.state)
    assert past is not None
    return past


def of_days(fastn: Fastn, days: float) -> Fastn:
    since = milliseconds(MORNING - timedelta(days=days))
    short = past_of(fastn).model_copy(update={"since": since, "count": 8_000})
    fastn.sandbox.history = History(short)
    fastn.sandbox.history.pass_time(MORNING)
    return fastn


def all_runs(fastn: Fastn) -> list[Row]:
    """Return every run, newest first, without the list operation."""
    history = fastn.sandbox.history
    rows = [history.row(number) for number in range(len(history))] + fastn.sandbox.state.all("executions")
    return sorted(rows, key=lambda row: str(row["createdAt"]))[::-1]


def pages(fastn: Fastn, query: dict[str, str], by: str) -> list[Row]:
    rows: list[Row] = []
    position: dict[str, str] = {}
    while True:
        answer = fastn.ask("GET", EXECUTIONS, query | {"limit": "100"} | position)
        rows += answer.data
        if answer.value["nextCursor"] is None:
            assert len(rows) == answer.value["total"]
            return rows
        position = {"cursor": answer.value["nextCursor"]} if by == "cursor" else {"offset": str(len(rows))}


def ids(rows: list[Any]) -> list[Any]:
    return [row["id"] for row in rows]


def total(fastn: Fastn, call: Any) -> int:
    return fastn(call).value["total"]


COUNTS: dict[Any, int] = {
    ListConnectors: 400,
    ListCustomers: 2_000,
    ListConnections: 3_000,
    ListWorkflows: 150,
    ListTriggers: 200,
    ListUsers: 60,
    ListApiKeys: 40,
    ListSecrets: 60,
}


def test_large_account_has_large_numbers(large: Fastn) -> None:
    assert {operation: total(large, operation()) for operation in COUNTS} == COUNTS
    assert 200_000 <= total(large, ListExecutions()) <= 208_000
    assert 359 <= total(large, QueryAuditLog()) < 400  # other tests add entries


def filters(fastn: Fastn) -> list[dict[str, str]]:
    """Return each filter alone, all together, and some that match nothing."""
    row: Any = next(row for row in all_runs(fastn) if row["status"] == "failed")
    workflow, customer = {"workflowId": row["workflowId"]}, {"endOrgId": row["endOrgId"]}
    since, until = {"since": "2026-10-05T07:00:00.250Z"}, {"until": "2026-10-06T01:00:00+02:00"}
    return [
        {},
        workflow,
        customer,
        since,
        until,
        since | until,
        workflow | customer,
        {"status": "completed"},
        {"status": "FAILED"} | workflow,
        {"status": "failed"} | customer | since,
        {"endOrgId": row["endOrgId"].upper(), "status": "failed"} | workflow | since | {"until": "2026-10-07"},
        {"since": row["createdAt"], "until": row["completedAt"]},
        {"workflowId": fastn.id_of("workflows", "acme-hubspot-sync")},
        {"endOrgId": fastn.id_of("customers", "acme-corp"), "status": "failed"},
        {"triggeredBy": "Webhook"} | since,
        {"status": "pending"},
        {"workflowId": "wf_nothing"},
        {"since": "2027-01-01"},
        {"since": "2026-10-06T00:00:00Z", "until": "2026-10-05T00:00:00Z"},
    ]


def matches(query: dict[str, str], row: Row) -> bool:
    def moment(text: str) -> datetime:
        found = datetime.fromisoformat(text)
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    made = moment(str(row["createdAt"]))
    if made < moment(query.get("since", "2000-01-01")) or made >= moment(query.get("until", "2100-01-01")):
        return False
    plain = query.keys() - {"since", "until"}
    return all(str(row[name]).casefold() == query[name].casefold() for name in plain)


@pytest.mark.parametrize("by", ["offset", "cursor"])
def test_filters_match_the_rows_on_every_page(fresh: Fastn, by: str) -> None:
    assert ListExecutions.model_fields.keys() == {
        "limit", "cursor", "fields", "detail", "workflow_id", "customer_id", "status", "started_by",
        "under_way_minutes", "since", "until",
    }  # fmt: skip
    rows = all_runs(fresh)
    empty = 0
    for query in filters(fresh):
        wanted = [row for row in rows if matches(query, row)]
        empty += not wanted
        assert ids(pages(fresh, query, by)) == ids(wanted), query
    assert empty == 4


def test_cursors_are_stable_while_runs_start(fresh: Fastn) -> None:
    before = ids(pages(fresh, {}, "offset"))
    workflow = fresh.id_of("workflows", "process-new-orders")
    first = fresh.ask("GET", EXECUTIONS, {"limit": "100"})
    fresh(RunWorkflow(workflow_id=workflow))
    second = fresh.ask("GET", EXECUTIONS, {"limit": "100", "cursor": first.value["nextCursor"]})

    assert ids(first.data) + ids(second.data) == before[:200]


def test_large_account_needs_little_memory() -> None:
    tracemalloc.start()
    sandbox = FaultySandbox(Clock(MORNING).now, begin=large_account)
    fastn = Fastn(sandbox)
    fastn(ListExecutions(status="completed", limit=100))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(sandbox.history) > 199_000
    assert held < 50 * MEGABYTE
    assert peak < 100 * MEGABYTE
