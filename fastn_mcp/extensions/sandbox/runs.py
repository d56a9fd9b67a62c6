"""Runs: how they start, proceed and end, the scheduled ones, and the handlers of their operations."""

import random
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from fastn_mcp.extensions.sandbox.connectors import connection_of
from fastn_mcp.extensions.sandbox.executions import (
    broken_connection,
    dependency_error,
    ended_run,
    execution,
    no_connection,
    note_progress,
)
from fastn_mcp.extensions.sandbox.replies import Rows, SandboxRefusal, conflict, forbidden, not_found
from fastn_mcp.extensions.sandbox.resource import One, RouteContext, endpoint, set_status
from fastn_mcp.extensions.sandbox.state import Row, SandboxState, parse_stamp, record, stamp
from fastn_mcp.extensions.sandbox.workflows import WORKFLOWS, not_published
from fastn_mcp.records.cron import next_run
from fastn_mcp.records.rows import objects
from fastn_mcp.tools.workflows import GetExecution, ListExecutions, RunWorkflow


class Pace(NamedTuple):
    """When a run begins and ends: after a number of polls or seconds, whichever is first."""

    polls_to_begin: int
    polls_to_end: int
    seconds_to_begin: float
    seconds_to_end: float


PACES = {"STANDARD": Pace(1, 3, 1, 5), "LONG": Pace(1, 6, 2, 60)}

_SCHEDULED_SECONDS = {"INSTANT": 1, "STANDARD": 40, "LONG": 80}
"""Maximum duration of a scheduled run in seconds, by tier."""
SETTLED = timedelta(seconds=90)
"""Time after which a scheduled run is shown: it has ended by then."""
_MAX_OCCURRENCES = 200
"""Maximum number of due occurrences of a schedule that are run; the rest are skipped."""
_MAX_CUSTOMERS = 25
_FAILURES_ALLOWED = 20


def begin(
    state: SandboxState,
    now: datetime,
    workflow: Row,
    customer: str | None,
    installation: str | None = None,
    **more: Any,
) -> Row:
    """Start a manual run. A run of an INSTANT workflow ends at once."""
    key = state.short_id("exec")
    error = failure(state, workflow, customer, installation)
    if workflow["executionTier"] == "INSTANT":
        duration = 120 if error else 79
        ended = ended_run(key, workflow, now, duration=duration, by="manual", error=error, endOrgId=customer, **more)
        return state.put("executions", ended)
    row = execution(key, workflow, "queued", begun=now, duration=None, triggered_by="manual", endOrgId=customer, **more)
    pace = PACES.get(workflow["executionTier"], PACES["STANDARD"])
    note_progress(
        state, row, workflow, seconds_to_begin=pace.seconds_to_begin, seconds_to_end=pace.seconds_to_end, error=error
    )
    return state.put("executions", row)


def failure(state: SandboxState, workflow: Row, customer: str | None, installation: str | None = None) -> Row | None:
    """Return the error with which this workflow fails for this customer; None if it works.

    If a widget installed the workflow, its connections are found only with the installation, which triggers know.
    """
    failing = state.get("_failing", workflow["id"])
    if failing is not None:
        return dependency_error(state, failing["connector"], failing["action"], customer)
    if customer is None:
        return None
    needs_installation = installation is None and any(
        (row["workflowId"], row["endOrgId"]) == (workflow["id"], customer) for row in state.all("_installations")
    )
    for slug in _tenant_apps(workflow):
        usable = any(connection_of(state, slug, whose, "ACTIVE") for whose in (customer, None))
        if usable and not needs_installation:
            continue
        broken = connection_of(state, slug, customer)
        connector = state.first("connectors", "slug", slug)
        if usable or broken is None or connector is None:
            return no_connection(slug, customer)
        actions = connector["actions"] or [{"slug": "run"}]
        return broken_connection(slug, actions[0]["slug"], broken["id"])
    return None


def poll(state: SandboxState, key: str, now: datetime) -> None:
    """Count a poll of this run, which makes it proceed."""
    run = state.get("_runs", key)
    if run is not None:
        state.put("_runs", {**run, "polls": run["polls"] + 1})
        _advance(state, key, now)


def pass_time(state: SandboxState, now: datetime) -> None:
    """Process what is due: expected events, schedules, and the progress of runs."""
    for event in state.all("_expected"):
        _arrive(state, event, now)
    for trigger in state.all("triggers"):
        if trigger.get("type") == "scheduler":
            _fire(state, trigger, now)
    for run in state.all("_runs"):
        _advance(state, run["id"], now)


def _arrive(state: SandboxState, event: Row, now: datetime) -> None:
    """Store the run of an expected event, unless its trigger or workflow was stopped."""
    row = event["run"]
    if parse_stamp(row["completedAt"]) > now:
        return
    state.drop("_expected", event["id"])
    trigger = state.get("triggers", event["triggerId"])
    workflow = state.get("workflows", row["workflowId"])
    if trigger is None or trigger.get("status") != "Active" or workflow is None or workflow.get("status") != "active":
        return
    error = failure(state, workflow, row["endOrgId"], trigger["id"])
    begun = parse_stamp(row["createdAt"])
    duration = row["durationMs"]
    fields = {name: row[name] for name in ("input", "endOrgId")}
    ended = ended_run(row["id"], workflow, begun, duration=duration, by="webhook", error=error, **fields)
    state.put("executions", ended)


def _fire(state: SandboxState, trigger: Row, now: datetime) -> None:
    """Run the occurrences due since the last time."""
    for _ in range(_MAX_OCCURRENCES):
        if trigger["status"] != "Active" or not trigger["nextRun"]:
            return
        due = parse_stamp(trigger["nextRun"])
        if due + SETTLED > now:
            return
        _run_scheduled(state, trigger, due)
        _next(state, trigger, due)
    _next(state, trigger, now)


def _next(state: SandboxState, trigger: Row, after: datetime) -> None:
    if trigger["status"] == "Active":
        trigger["nextRun"] = stamp(next_run(trigger["schedule"], trigger["timezone"], after))
        state.put("triggers", trigger)


def _run_scheduled(state: SandboxState, trigger: Row, due: datetime) -> None:
    """Run each workflow of a schedule for each customer. Too many failures in a row disable the trigger."""
    # Seeded by the trigger and time, so that every process of the day generates the same runs.
    randomness = random.Random(f"{trigger['id']} {due}")  # noqa: S311 it is to be repeatable
    ended: list[Row] = []
    for target in objects(trigger, "routes"):
        workflow = state.get("workflows", target.get("routeId"))
        if workflow is None or workflow["status"] != "active" or workflow["publishedVersion"] is None:
            continue
        for customer in _customers(state, trigger, workflow):
            error = failure(state, workflow, customer, trigger["id"])
            most = _SCHEDULED_SECONDS[workflow["executionTier"]] * 1000
            duration = randomness.randrange(1_500, 3_000) if error else randomness.randrange(most // 2, most)
            key = f"exec_{randomness.getrandbits(48):012x}"
            input_: Any = target.get("payload") or {}
            row = ended_run(
                key, workflow, due, duration=duration, by="scheduler", error=error, endOrgId=customer, input=input_
            )
            ended.append(state.put("executions", row))
    if not ended:
        return
    failed = [row for row in ended if row["status"] != "completed"]
    failures = (trigger.get("consecutiveFailures") or 0) + 1 if failed else 0
    trigger |= {"lastRun": stamp(due), "consecutiveFailures": failures}
    if failures >= _FAILURES_ALLOWED:
        reason = f"{failures} consecutive failures; may be enabled again after 30 minutes."
        set_status(trigger, "Disabled", stamp(due + SETTLED), "platform", reason=reason)
        trigger["nextRun"] = None
    state.put("triggers", trigger)


def _customers(state: SandboxState, trigger: Row, workflow: Row) -> list[str | None]:
    """Return the customers of a scheduled run: the trigger's, or all that have connected the workflow's apps."""
    active = {row["id"]: row["id"] for row in state.all("customers") if row["status"] == "Active"}
    if trigger.get("endOrgId") is not None:
        owner = trigger["endOrgId"]
        return [active[owner]] if owner in active else []
    apps = _tenant_apps(workflow)
    if not apps:
        return [None]
    connected = [
        {
            row["endOrgId"]
            for row in state.all("connections")
            if row["connector"]["slug"] == app and row["status"] not in ("INACTIVE", "PENDING")
        }
        for app in apps
    ]
    connected_customers = [value for key, value in active.items() if all(key in customers for customers in connected)]
    return connected_customers[:_MAX_CUSTOMERS]


def _tenant_apps(workflow: Row) -> list[str]:
    """Return the slugs of the apps that each customer has to connect."""
    return [str(app.get("slug")) for app in objects(workflow, "connectors") if app.get("scope") == "MULTI_TENANT"]


def _advance(state: SandboxState, key: str, now: datetime) -> None:
    run = state.rows["_runs"][key]
    row = state.rows["executions"][key]
    begun = parse_stamp(run["begun"])
    seconds = (now - begun).total_seconds()
    polls = run["polls"]
    pace = PACES.get(row["tier"], PACES["STANDARD"])
    seconds_to_begin = run["secondsToBegin"]
    if polls >= pace.polls_to_end or seconds >= run["secondsToEnd"]:
        _end(state, key, now)
    elif row["status"] == "queued" and (polls >= pace.polls_to_begin or seconds >= seconds_to_begin):
        started = min(now, begun + timedelta(seconds=seconds_to_begin))
        state.put("executions", {**row, "status": "running", "startedAt": stamp(started)})


def _end(state: SandboxState, key: str, now: datetime) -> None:
    run = state.rows["_runs"][key]
    row = state.rows["executions"][key]
    begun = parse_stamp(run["begun"])
    seconds = min((now - begun).total_seconds(), run["secondsToEnd"])  # a run polled often enough ends early
    ended = ended_run(
        key,
        run["workflow"],
        begun,
        duration=int(seconds * 1000),
        by=row["triggeredBy"],
        error=run["error"],
        **{name: row[name] for name in ("input", "endOrgId", "environment")},
    )
    ended["startedAt"] = row["startedAt"] or ended["startedAt"]
    state.drop("_runs", key)
    state.put("executions", ended)
    record(
        state,
        min(parse_stamp(ended["completedAt"]), now),
        "system",
        action="workflow.execute.completed",
        resource=("workflow_executions", key),
        outcome="Success" if ended["status"] == "completed" else "Failure",
        customer=row["endOrgId"],
    )


@endpoint(ListExecutions, "executions:read")
def list_all(context: RouteContext, call: ListExecutions) -> Rows:
    return context.runs(call)


@endpoint(GetExecution, "executions:read")
def get(context: RouteContext, call: GetExecution) -> One:
    poll(context.state, call.execution_id, context.now)
    row = context.run(call.execution_id)
    if row is None:
        raise not_found()
    return One(row)


@endpoint(RunWorkflow, "workflows:execute")
def run(context: RouteContext, call: RunWorkflow) -> One:
    workflow = WORKFLOWS.target(context, call)
    if workflow["publishedVersion"] is None:
        raise not_published()
    customer = _customer(context, call)
    _check_installation(context, call, customer)
    parameters = [call.input or {}, customer, call.environment, call.installation_id]
    replay = f"{call.workflow_id} {call.idempotency_key}"
    if call.idempotency_key is not None and (earlier := context.state.get("_replays", replay)) is not None:
        if earlier["wanted"] != parameters:
            raise conflict("The Idempotency-Key was used for another run")
        return _started(context, earlier["executionId"])
    environment = call.environment or ("test" if context.key["mode"] == "Test" else "live")
    more = {"input": call.input or {}, "environment": environment}
    row = begin(context.state, context.now, workflow, customer=customer, installation=call.installation_id, **more)
    if call.idempotency_key is not None:
        context.state.put("_replays", {"id": replay, "wanted": parameters, "executionId": row["id"]})
    context.audit("workflow.execute", "workflow_executions", row["id"], customer)
    return _started(context, row["id"])


def _started(context: RouteContext, key: str) -> One:
    """Return the answer to a start. A workflow that throws is a failed execution and still answers 200."""
    row = context.state.rows["executions"][key]
    answer: Row = {"executionId": key, "status": row["status"], "workflowId": row["workflowId"]}
    if row["tier"] != "INSTANT":
        return One(answer, 202)
    return One(answer | {"output": row["output"], "error": row["error"], "durationMs": row["durationMs"]})


def _customer(context: RouteContext, call: RunWorkflow) -> str | None:
    """Return the id of a run's customer, given by id or by external reference. Raises `SandboxRefusal`."""
    if call.customer_id is None and call.customer_ref is None:
        return None
    if call.customer_ref is None:
        customer = context.state.get("customers", call.customer_id)
        if customer is None:
            raise SandboxRefusal(404, "NOT_FOUND", "x-org-id does not match a customer organization of this account")
    else:
        customer = context.state.first("customers", "externalRef", call.customer_ref)
    served = context.key.get("customers")
    if customer is None or (isinstance(served, list) and customer["id"] not in served):
        raise forbidden("Requested org is outside your tenant scope")
    if customer["status"] != "Active":
        raise conflict(f"The customer is {customer['status']}; its integrations do not run")
    return customer["id"]


def _check_installation(context: RouteContext, call: RunWorkflow, customer: str | None) -> None:
    if call.installation_id is None:
        return
    installed = context.state.get("_installations", call.installation_id)
    if installed is None or (installed["workflowId"], installed["endOrgId"]) != (call.workflow_id, customer):
        raise forbidden(f'Installation "{call.installation_id}" does not serve the requesting tenant')
