"""Runs: how they begin, how they go on while somebody looks, how they end. Pure: the moment is passed in."""

from datetime import datetime, timedelta
from typing import NamedTuple, cast

from pydantic import JsonValue

from fastn_mcp.sandbox.audit_rows import record
from fastn_mcp.sandbox.dataset.executions import execution
from fastn_mcp.sandbox.failures import connection_of, dependency_error, no_connection
from fastn_mcp.sandbox.state import Row, State, moment, stamp


class Pace(NamedTuple):
    """When a run has begun and when it is over: after so many looks, or so many seconds."""

    looks_to_begin: int
    looks_to_end: int
    seconds_to_begin: float
    seconds_to_end: float


PACES = {"STANDARD": Pace(1, 3, 1, 5), "LONG": Pace(1, 6, 2, 60)}


def begin(
    state: State, now: datetime, workflow: Row, customer: JsonValue, installation: str | None = None, **more: JsonValue
) -> Row:
    """A new run. One of an INSTANT workflow has ended already."""
    key = state.short_id("exec")
    error = failure(state, workflow, customer, installation)
    if workflow["executionTier"] == "INSTANT":
        status, duration = ("failed", 120) if error else ("completed", 79)
        row = execution(key, workflow, status, now, duration, "manual", endOrgId=customer, error=error, **more)
        if status == "completed":
            row["output"] = {"ok": True, "received": row["input"]}
        return state.put("executions", row)
    row = execution(key, workflow, "queued", now, None, "manual", endOrgId=customer, **more)
    state.put("_runs", {"id": row["id"], "polls": 0, "begun": stamp(now), "error": error})
    return state.put("executions", row)


def failure(state: State, workflow: Row, customer: JsonValue, installation: str | None = None) -> Row | None:
    """Why a run of this workflow for this customer cannot work; None where it can.

    Where a widget installed the workflow, its connections are found by the installation only.
    """
    failing = state.get("_failing", workflow["id"])
    if failing is not None:
        return dependency_error(state, str(failing["connector"]), str(failing["action"]), cast("str | None", customer))
    if customer is None:
        return None
    needs_installation = installation is None and any(
        (row["workflowId"], row["endOrgId"]) == (workflow["id"], customer) for row in state.all("_installations")
    )
    for app in cast("list[Row]", workflow.get("connectors") or []):
        slug = str(app.get("slug"))
        usable = [connection_of(state, slug, whose, "ACTIVE") for whose in (customer, None)]
        if app.get("scope") == "MULTI_TENANT" and (needs_installation or not any(usable)):
            return no_connection(slug, str(customer))
    return None


def look(state: State, key: str, now: datetime) -> None:
    """Somebody looks at this run, which brings it on."""
    run = state.get("_runs", key)
    if run is not None:
        state.put("_runs", {**run, "polls": cast(int, run["polls"]) + 1})
        _bring_on(state, key, now)


def pass_time(state: State, now: datetime) -> None:
    """Bring on all runs by the time that has passed."""
    for run in state.all("_runs"):
        _bring_on(state, str(run["id"]), now)


def _bring_on(state: State, key: str, now: datetime) -> None:
    run, row = state.rows["_runs"][key], state.rows["executions"][key]
    begun = moment(str(run["begun"]))
    seconds = (now - begun).total_seconds()
    polls = cast(int, run["polls"])
    pace = PACES.get(str(row["tier"]), PACES["STANDARD"])
    if polls >= pace.looks_to_end or seconds >= pace.seconds_to_end:
        _end(state, row, run, now)
    elif row["status"] == "queued" and (polls >= pace.looks_to_begin or seconds >= pace.seconds_to_begin):
        row |= {"status": "running", "startedAt": stamp(now)}
        state.put("executions", row)


def _end(state: State, row: Row, run: Row, now: datetime) -> None:
    begun = moment(str(row["createdAt"]))
    duration = max(int((now - begun).total_seconds() * 1000), 1_000)
    error = run.get("error")
    status = "failed" if error else "completed"
    workflow: Row = state.get("workflows", row["workflowId"]) or {"connectors": []}
    described = {"id": row["workflowId"], "name": row["workflowName"], "slug": row["workflowSlug"]}
    described |= {
        "publishedVersion": row["version"],
        "executionTier": row["tier"],
        "connectors": workflow["connectors"],
    }
    ended = execution(str(row["id"]), described, status, begun, duration, str(row["triggeredBy"]), error=error)
    kept = ("input", "endOrgId", "environment", "createdAt")
    row |= ended | {name: row[name] for name in kept}
    row |= {
        "startedAt": row["startedAt"] or stamp(begun),
        "completedAt": stamp(begun + timedelta(milliseconds=duration)),
    }
    state.drop("_runs", row["id"])
    state.put("executions", row)
    resource = ("workflow_executions", row["id"])
    outcome = "Failure" if error else "Success"
    record(state, now, "system", "workflow.execute.completed", resource, outcome, customer=row["endOrgId"])
