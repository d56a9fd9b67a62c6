"""Rows of executions: how they begin, continue and end, and errors in the words of Fastn's documentation."""

from datetime import datetime, timedelta
from typing import Any

from fastn_mcp.records.rows import inside
from fastn_mcp.sandbox.connectors import connection_of
from fastn_mcp.sandbox.state import Row, SandboxState, parse_stamp, stamp
from fastn_mcp.sandbox.workflows import output_of


def execution(
    key: str, workflow: Row, status: str, begun: datetime, duration: int | None, triggered_by: str, **more: Any
) -> Row:
    """Return the row of an execution. `duration` is in milliseconds, None while it is running."""
    ended = None if duration is None else stamp(begun + timedelta(milliseconds=duration))
    steps = len(workflow.get("connectors") or ()) or 1
    failed = 1 if status in ("failed", "timeout") else 0
    stopped = 1 if status == "cancelled" else failed
    summary = None
    if duration is not None:
        summary = {
            "totalSteps": steps,
            "succeeded": steps - stopped,
            "failed": failed,
            "slowestStep": f"step {steps}",
            "slowestMs": duration * 2 // 3,
            "peakSandboxMB": 61,
            "sandboxMemoryLimitMB": 512,
        }
    error = inside(more, "error")
    return {
        "id": key,
        "workflowId": workflow["id"],
        "workflowName": workflow["name"],
        "workflowSlug": workflow["slug"],
        "version": _version(workflow, begun),
        "tier": workflow["executionTier"],
        "environment": "live",
        "status": status,
        "httpStatus": {"completed": 200, "failed": 500, "timeout": 504}.get(status),
        "durationMs": duration,
        "triggeredBy": triggered_by,
        "endOrgId": None,
        "input": {},
        "output": {"ok": True} if status == "completed" else None,
        "error": None,
        "errorCategory": error.get("category"),
        "fixSuggestion": inside(error, "diagnosis").get("howToFix"),
        "summary": summary,
        "createdAt": stamp(begun),
        "startedAt": stamp(begun + timedelta(milliseconds=40)) if status != "queued" else None,
        "completedAt": ended,
        **more,
    }


def _version(workflow: Row, begun: datetime) -> str | None:
    published: str | None = workflow["publishedVersion"]
    number = int(published.removeprefix("v")) if published else 1
    changed = parse_stamp(workflow["updatedAt"])
    return f"v{number - 1}" if begun < changed and number > 1 else published


def ended_run(key: str, workflow: Row, begun: datetime, duration: int, by: str, error: Row | None, **more: Any) -> Row:
    """Return a run that has ended: at its time limit at the latest."""
    limit = workflow.get("timeoutMs")
    if isinstance(limit, int) and duration > limit:
        return execution(key, workflow, "timeout", begun, limit, by, error=timed_out(limit), **more)
    if error is not None:
        return execution(key, workflow, "failed", begun, duration, by, error=error, **more)
    output = output_of(workflow, more.get("input") or {})
    return execution(key, workflow, "completed", begun, duration, by, output=output, **more)


def note_progress(
    state: SandboxState,
    row: Row,
    workflow: Row,
    seconds_to_begin: float,
    seconds_to_end: float,
    error: Row | None = None,
) -> None:
    """Store how a run that has not ended will continue."""
    noted = {"workflow": {**workflow}, "secondsToBegin": seconds_to_begin, "secondsToEnd": seconds_to_end}
    state.put("_runs", {"id": row["id"], "polls": 0, "begun": row["createdAt"], "error": error, **noted})


def dependency_error(state: SandboxState, app: str, action: str, customer: str | None) -> Row:
    connections = (row for row in state.all("connections") if row["connector"]["slug"] == app)
    connection = connection_of(state, app, customer) or next(connections, None)
    return unusable(app, action, str(connection["id"]) if connection else "(removed)")


def unusable(app: str, action: str, pinned: str) -> Row:
    """Return the error of a pinned connection that no longer works."""
    return _dependency_error(
        f"The {app} connection cannot be used",
        f"connector.{app}.{action}",
        "Step 2 of 2",
        f"The workflow called {action} and {app} did not accept the connection.",
        "The pinned connection was revoked, expired, or belongs to another customer.",
        f"Let the customer connect {app} again in the widget, then run the workflow once.",
        f'Pinned connection "{pinned}" is not usable or does not belong to this org for connector "{app}"',
    )


def no_connection(app: str, customer: str) -> Row:
    return _dependency_error(
        f"{app} is not connected",
        f"connector.{app}",
        "Step 1 of 2",
        f"There is no active {app} connection for this customer.",
        "It was never connected, or it was disconnected.",
        f"Let the customer connect {app} in the widget.",
        f'No active connection for connector "{app}" and end-org {customer}',
    )


def out_of_memory() -> Row:
    return _error("DATA", "The workflow ran out of memory", "Sandbox memory limit exceeded: 512 MB of 512 MB")


def timed_out(milliseconds: int) -> Row:
    return _error("CONFIGURATION", "The workflow took too long", f"WF-TIMEOUT: no result after {milliseconds} ms")


def _dependency_error(headline: str, failed_at: str, step: str, what: str, why: str, fix: str, raw: str) -> Row:
    diagnosis = {"whatHappened": what, "why": why, "howToFix": fix}
    error = _error("CONNECTION", headline, raw, failedAt=failed_at, step=step, diagnosis=diagnosis)
    return {"tag": "Dependency Error", **error}


def _error(code: str, headline: str, raw: str, **more: object) -> Row:
    error: Row = {"category": "Configuration", "code": code, "severity": "Needs your attention", "headline": headline}
    return error | more | {"raw": raw}
