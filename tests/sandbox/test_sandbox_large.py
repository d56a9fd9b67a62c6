"""Tests of the large account: its data, runs, lists and memory. Its speed is not tested here."""

import re
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from large_account import large_account
from large_account.run_history import History, RunSeries, milliseconds
from support.direct_sandbox import MORNING, Clock, Fastn
from support.faulty_sandbox import FaultySandbox

from fastn_mcp.sandbox.state import Row
from fastn_mcp.tools.access import ListApiKeys, ListSecrets, ListUsers, QueryAuditLog
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.connectors import ListConnections, ListConnectors
from fastn_mcp.tools.customers import DeleteCustomer, ListCustomers
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import DeleteWorkflow, GetExecution, ListExecutions, ListWorkflows, RunWorkflow

pytestmark = pytest.mark.long

EXECUTIONS = "/api/v1/executions"
MEGABYTE = 1024 * 1024
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def large() -> Fastn:
    """Return a large account, shared by tests that only read."""
    return Fastn(FaultySandbox(Clock(), begin=large_account))


@pytest.fixture
def fresh(clock: Clock) -> Fastn:
    """Return a large account with a history of 1.5 days: few enough runs to check each."""
    return of_days(Fastn(FaultySandbox(clock, begin=large_account)), 1.5)


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


def test_acmes_sync_failed_last_night_because_its_connection_expired(large: Fastn) -> None:
    (sync,) = large(ListWorkflows(search="Acme HubSpot sync")).data
    acme = large.id_of("customers", "acme-corp")
    runs: list[Any] = large(ListExecutions(workflow_id=sync["id"], limit=100)).data
    (connection,) = large(ListConnections(customer_id=acme, status="EXPIRED")).data

    assert sync["slug"] == "acme-hubspot-sync"
    assert {row["endOrgId"] for row in runs} == {acme}
    assert [row["status"] for row in runs[:11]] == ["failed"] * 10 + ["completed"]
    assert {row["createdAt"][:10] for row in runs[:5]} == {"2026-10-06"}
    assert connection["connector"]["slug"] == "hubspot"
    assert connection["id"] in runs[0]["error"]["raw"]
    assert runs[10]["createdAt"] < connection["expiresAt"] < runs[9]["createdAt"]
    trigger = large.sandbox.state.named("triggers", "Acme HubSpot sync, at night", by="name")
    assert (trigger["consecutiveFailures"], trigger["lastRun"]) == (10, runs[0]["createdAt"])


def test_large_account_contains_the_small_one(large: Fastn, fastn: Fastn) -> None:
    small, state = fastn.sandbox.state, large.sandbox.state
    for collection, rows in small.rows.items():
        if collection not in ("_counters", "_runs", "apiKeys", "billing", "executions"):
            assert {key: state.get(collection, key) for key in rows} == rows, collection
    for row in small.all("executions"):
        if row["status"] not in ("queued", "running"):
            assert state.get("executions", row["id"]) == row
    katana = large.id_of("customers", "katana-customer")
    assert {row["workflowSlug"] for row in large(ListExecutions(customer_id=katana)).data} == {
        "sync-tiktok-orders-to-cin7-core"
    }


def test_large_account_is_reproducible(large: Fastn) -> None:
    again = FaultySandbox(Clock(), begin=large_account)
    other = FaultySandbox(Clock(), begin=large_account, seed=2)

    def runs(sandbox: FaultySandbox) -> list[Row]:
        return [sandbox.history.row(number) for number in range(0, len(sandbox.history), 1_999)]

    def customers(sandbox: FaultySandbox) -> list[Row]:
        return sandbox.state.all("customers")

    assert runs(again) == runs(large.sandbox)
    assert customers(again) == customers(large.sandbox)
    assert RunSeries.of(again.state) == past_of(large)
    assert not {*ids(runs(other))} & {*ids(runs(again))}
    assert ids(customers(other)) != ids(customers(again))


def test_ids_and_runs_map_to_each_other(large: Fastn) -> None:
    history = large.sandbox.history
    found = [(number, str(history.row(number)["id"])) for number in range(0, len(history), 97)]

    assert all(re.fullmatch(r"exec_[0-9a-f]{12}", key) for _, key in found)
    assert [history.number(key) for _, key in found] == [number for number, _ in found]
    assert history.number("exec_000000000000") is history.number("exec_0") is history.number("nothing") is None


def test_listed_run_can_be_read(large: Fastn) -> None:
    for row in large(ListExecutions(limit=100, until="2026-09-20T00:00:00Z")).data:
        whole = large(GetExecution(execution_id=row["id"])).data
        assert {name: whole[name] for name in row} == row
        assert whole.keys() - row.keys() == {"input", "output", "summary"}
    assert large(GetExecution(execution_id="exec_000000000000")).status == 404


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


def test_cursor_of_another_list_is_refused(large: Fastn) -> None:
    """Fastn's reference: 400 for invalid parameters."""
    cursor = large.ask("GET", EXECUTIONS, {"status": "failed"}).value["nextCursor"]

    assert large.ask("GET", EXECUTIONS, {"status": "completed", "cursor": cursor}).status == 400
    assert large.ask("GET", EXECUTIONS, {"cursor": cursor[:-4]}).status == 400
    assert large.ask("GET", EXECUTIONS, {"cursor": "ä"}).status == 400


def test_new_runs_come_first(fresh: Fastn, clock: Clock) -> None:
    clock.pass_(minutes=1)
    workflow = fresh.id_of("workflows", "acme-hubspot-sync")
    acme = fresh.id_of("customers", "acme-corp")
    begun = fresh(RunWorkflow(workflow_id=workflow, customer_id=acme)).data["executionId"]
    clock.pass_(minutes=10)

    newest = fresh(ListExecutions(limit=1)).data[0]
    assert (newest["id"], newest["status"]) == (begun, "failed")
    assert newest["error"]["headline"] == "The hubspot connection cannot be used"
    assert fresh(GetExecution(execution_id=begun)).data["id"] == begun


def test_large_account_needs_little_memory() -> None:
    tracemalloc.start()
    sandbox = FaultySandbox(Clock(), begin=large_account)
    fastn = Fastn(sandbox)
    fastn(ListExecutions(status="completed", limit=100))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(sandbox.history) > 199_000
    assert held < 50 * MEGABYTE
    assert peak < 100 * MEGABYTE


def test_agent_counts_all_runs(large: Fastn) -> None:
    failed = total(large, ListExecutions(status="failed"))

    said = large(AiChat(message="How are we doing?")).data["message"]

    assert "2000 customers and 150 workflows" in said
    assert f"{failed} of the runs" in said


def test_history_survives_deletions(fresh: Fastn) -> None:
    row = fresh(ListExecutions(limit=1, status="completed", until="2026-10-05T12:00:00Z")).data[0]

    assert fresh(DeleteWorkflow(workflow_id=row["workflowId"])).status < 300
    assert fresh(DeleteCustomer(customer_id=row["endOrgId"])).status < 300

    whole = fresh(GetExecution(execution_id=row["id"])).data
    assert {name: whole[name] for name in row} == row


def test_reset_recreates_the_large_account(clock: Clock) -> None:
    fastn = Fastn(FaultySandbox(clock, begin=large_account))
    clock.pass_(days=3)

    fastn.sandbox.reset()

    assert total(fastn, ListExecutions()) >= 200_000
    history = fastn.sandbox.history
    assert str(history.row(len(history) - 1)["completedAt"]) > (clock.at - HOUR).isoformat()
