"""Tests that the rows of the small and of the large account agree with each other."""

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from large_account import large_account
from support.clock import Clock
from support.direct_sandbox import MORNING, Fastn
from support.faulty_sandbox import FaultySandbox

from fastn_mcp.extensions.sandbox.server import dataset
from fastn_mcp.extensions.sandbox.state import Row
from fastn_mcp.extensions.sandbox.workflows import output_of
from fastn_mcp.tools.billing import GetQuotas, GetUsage

EVENING = MORNING.replace(hour=23, minute=50)


ACCOUNTS = {"morning": (dataset, MORNING), "evening": (dataset, EVENING), "large": (large_account, EVENING)}


@pytest.fixture(scope="module", params=ACCOUNTS)
def account(request: pytest.FixtureRequest) -> Fastn:
    begin, at = ACCOUNTS[request.param]
    return Fastn(FaultySandbox(Clock(at).now, begin=begin))


def runs_of(account: Fastn, step: int = 97) -> list[Any]:
    """Return the stored runs, and every `step`th of the history."""
    history = account.sandbox.history
    return account.sandbox.state.all("executions") + [history.row(number) for number in range(0, len(history), step)]


def at(row: Row, name: str) -> datetime:
    return datetime.fromisoformat(str(row[name]))


def test_run_times_are_ordered_and_within_the_limit(account: Fastn) -> None:
    workflows: dict[str, Any] = account.sandbox.state.rows["workflows"]
    for row in runs_of(account):
        assert at(row, "createdAt") <= EVENING
        if row["startedAt"] is not None:
            assert at(row, "createdAt") <= at(row, "startedAt")
        if row["durationMs"] is not None:
            assert row["durationMs"] <= workflows[row["workflowId"]]["timeoutMs"], row
            assert at(row, "startedAt") <= at(row, "completedAt") <= EVENING
            assert at(row, "completedAt") - at(row, "createdAt") == timedelta(milliseconds=row["durationMs"])


def test_run_output_matches_its_code(account: Fastn) -> None:
    state = account.sandbox.state
    workflows: dict[str, Any] = state.rows["workflows"]
    for workflow in workflows.values():
        slugs = [app["slug"] for app in workflow["connectors"]]
        called = [
            line.split("fastn.connector.")[1].split("(")[0]
            for line in workflow["code"].split("\n")
            if "fastn.c" in line
        ]
        assert [call.split(".")[0] for call in called] == slugs
        for app, action in (call.split(".") for call in called):
            actions: Any = state.named("connectors", app)["actions"]
            assert action in [one["slug"] for one in actions]
    for row in runs_of(account):
        if row["status"] == "completed":
            workflow = workflows[row["workflowId"]]
            assert row["output"] == output_of(workflow, row["input"])
            assert all(f"{name}:" in workflow["code"] for name in row["output"])
        else:
            assert row["output"] is None


def test_usage_and_quotas_match_the_rows(account: Fastn) -> None:
    first = MORNING.replace(day=1, hour=0, minute=0)
    usage, quotas = account(GetUsage()).data, account(GetQuotas()).data
    history = account.sandbox.history
    stored: list[Any] = [row for row in account.sandbox.state.all("executions") if at(row, "createdAt") >= first]
    rows = stored + [history.row(number) for number in history.numbers(since=first)]
    counted = Counter(row["endOrgId"] for row in rows)

    assert usage["executions"]["month"] == len(rows) > 100
    assert {row["customerId"]: row["executions"] for row in usage["byCustomer"]} == counted
    used = {(row["name"], row["scope"]): row["used"] for row in quotas["quotas"]}
    today = MORNING.replace(hour=0, minute=0)
    events = len([row for row in rows if row["triggeredBy"] == "webhook" and at(row, "createdAt") >= today])
    assert used["Events", "per day"] == usage["events"]["day"] == events > 0
    assert used["API calls", "per day"] == usage["apiCalls"]["day"]
    assert used["Connected accounts", "total"] == len(account.sandbox.state.all("connections"))
    for row in quotas["quotas"]:
        assert row["used"] <= row["limit"], row
        if row["name"].startswith("Events ("):
            assert row["used"] <= events


def test_audit_log_matches_the_rows(account: Fastn) -> None:
    state = account.sandbox.state
    log: list[Any] = state.all("audit")
    collections = {"workflow": "workflows", "connection": "connections", "customer": "customers", "api_key": "apiKeys"}
    people = {str(row["email"]) for row in state.all("users")}
    keys = {f"apikey:{row['id']}" for row in state.all("apiKeys")}
    for entry in log:
        kind, key = entry["resource"]["type"], entry["resource"]["id"]
        assert entry["actor"] in people | keys | {"system", "agent"}
        assert at(entry, "timestamp") <= EVENING
        if kind == "workflow_executions":
            run: Any = state.get("executions", key)
            moment = "completedAt" if entry["action"].endswith("completed") else "createdAt"
            assert entry["timestamp"] == run[moment]
            assert (entry["actor"] in keys) == (moment == "createdAt" and run["triggeredBy"] == "manual")
        elif kind in collections:
            found: Any = state.get(collections[kind], key)
            assert found["createdAt"] <= entry["timestamp"]
    assert {entry["outcome"] for entry in log} == {"Success", "Failure", "Denied"}
    assert any(entry["actor"] in keys for entry in log)


def test_connections_and_triggers_match_the_runs(account: Fastn) -> None:
    state = account.sandbox.state
    for row in state.all("connections"):
        assert all((at(row, "expiresAt") > now) is (row["status"] == "ACTIVE") for now in (MORNING, EVENING)), row
        assert at(row, "createdAt") <= at(row, "lastUsedAt")
    for name in ("Daily TikTok sync", "Nightly contact sync"):
        trigger: Any = state.named("triggers", name, by="name")
        runs = [row for row in state.all("executions") if row["workflowId"] == trigger["routes"][0]["routeId"]]
        scheduled = sorted(
            (row for row in runs if row["triggeredBy"] == "scheduler"), key=lambda row: str(row["createdAt"])
        )
        assert scheduled[-1]["createdAt"] == trigger["lastRun"]
        failures = trigger["consecutiveFailures"]
        assert [row["status"] for row in scheduled[-failures:]] == ["failed"] * failures
    for trigger in state.all("triggers"):
        if trigger["type"] == "scheduler" and trigger["status"] == "Active":
            assert at(trigger, "lastRun") < at(trigger, "nextRun"), trigger
