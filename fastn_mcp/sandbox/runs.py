"""Runs: how they begin, go on while somebody looks, and end; which of them schedules start; their handlers."""

import random
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from fastn_mcp.fastn.cron import next_run
from fastn_mcp.sandbox.behaviour import SandboxRefusal, conflict, forbidden
from fastn_mcp.sandbox.connectors import connection_of
from fastn_mcp.sandbox.executions import execution, no_connection, unusable
from fastn_mcp.sandbox.paging import MergedRows, instant, select
from fastn_mcp.sandbox.past_runs import dependency_error, ended_run, note_progress
from fastn_mcp.sandbox.resource import One, Resource, RouteContext, endpoint, set_status
from fastn_mcp.sandbox.run_history import RunSeries
from fastn_mcp.sandbox.state import Row, SandboxState, moment, objects, record, stamp
from fastn_mcp.sandbox.workflows import WORKFLOWS, not_published
from fastn_mcp.tools.workflows import GetExecution, ListExecutions, RunWorkflow


class Pace(NamedTuple):
    """When a run has begun and when it is over: after so many looks, or so many seconds."""

    looks_to_begin: int
    looks_to_end: int
    seconds_to_begin: float
    seconds_to_end: float


PACES = {"STANDARD": Pace(1, 3, 1, 5), "LONG": Pace(1, 6, 2, 60)}

_SCHEDULED_SECONDS = {"INSTANT": 1, "STANDARD": 40, "LONG": 80}
"""How long a scheduled run takes at most."""
_SETTLED = timedelta(seconds=90)
"""A scheduled run is shown once it is over, so this long after it was due."""
_MOST_OCCURRENCES = 200
"""Of one schedule at a time: what was due before is skipped."""
_MOST_CUSTOMERS = 25
_FAILURES_ALLOWED = 20


def begin(
    state: SandboxState,
    now: datetime,
    workflow: Row,
    customer: str | None,
    installation: str | None = None,
    **more: Any,
) -> Row:
    """Start a run by hand. One of an INSTANT workflow has ended already."""
    key = state.short_id("exec")
    error = failure(state, workflow, customer, installation)
    if workflow["executionTier"] == "INSTANT":
        duration = 120 if error else 79
        return state.put(
            "executions", ended_run(key, workflow, now, duration, "manual", error, endOrgId=customer, **more)
        )
    row = execution(key, workflow, "queued", now, None, "manual", endOrgId=customer, **more)
    pace = PACES.get(workflow["executionTier"], PACES["STANDARD"])
    note_progress(state, row, workflow, pace.seconds_to_begin, pace.seconds_to_end, error)
    return state.put("executions", row)


def failure(state: SandboxState, workflow: Row, customer: str | None, installation: str | None = None) -> Row | None:
    """Why a run of this workflow for this customer cannot work; None where it can.

    Where a widget installed the workflow, its connections are found by the installation only. A trigger knows it.
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
        broken, connector = connection_of(state, slug, customer), state.first("connectors", "slug", slug)
        if usable or broken is None or connector is None:
            return no_connection(slug, customer)
        actions = connector["actions"] or [{"slug": "run"}]
        return unusable(slug, actions[0]["slug"], broken["id"])
    return None


def look(state: SandboxState, key: str, now: datetime) -> None:
    """Somebody looks at this run, which brings it on."""
    run = state.get("_runs", key)
    if run is not None:
        state.put("_runs", {**run, "polls": run["polls"] + 1})
        _bring_on(state, key, now)


def pass_time(state: SandboxState, now: datetime) -> None:
    """Do what is due: expected events arrive, schedules fire, runs go on and end."""
    for event in state.all("_expected"):
        _arrive(state, event, now)
    past = RunSeries.of_triggers(state)
    for trigger in state.all("triggers"):
        if trigger.get("type") == "scheduler":
            _fire(state, trigger, now, described=trigger["id"] in past)
    for run in state.all("_runs"):
        _bring_on(state, run["id"], now)


def _arrive(state: SandboxState, event: Row, now: datetime) -> None:
    """Keep the run that an event starts, unless its trigger or its workflow has stopped meanwhile."""
    row = event["run"]
    if moment(row["completedAt"]) > now:
        return
    state.drop("_expected", event["id"])
    trigger, workflow = state.get("triggers", event["triggerId"]), state.get("workflows", row["workflowId"])
    if trigger is None or trigger.get("status") != "Active" or workflow is None or workflow.get("status") != "active":
        return
    error = failure(state, workflow, row["endOrgId"], trigger["id"])
    begun, duration = moment(row["createdAt"]), row["durationMs"]
    given = {name: row[name] for name in ("input", "endOrgId")}
    state.put("executions", ended_run(row["id"], workflow, begun, duration, "webhook", error, **given))


def _fire(state: SandboxState, trigger: Row, now: datetime, *, described: bool) -> None:
    """Start what was due since anybody looked. Of a `described` trigger the history has the runs."""
    for _ in range(_MOST_OCCURRENCES):
        if trigger["status"] != "Active" or not trigger["nextRun"]:
            return
        due = moment(trigger["nextRun"])
        if due + _SETTLED > now:
            return
        if described:
            trigger["lastRun"] = stamp(due)
        else:
            _run_scheduled(state, trigger, due)
        _next(state, trigger, due)
    _next(state, trigger, now)


def _next(state: SandboxState, trigger: Row, after: datetime) -> None:
    if trigger["status"] == "Active":
        trigger["nextRun"] = stamp(next_run(trigger["schedule"], trigger["timezone"], after))
        state.put("triggers", trigger)


def _run_scheduled(state: SandboxState, trigger: Row, due: datetime) -> None:
    """Run each workflow of a schedule once for each customer. After too many failures the platform switches it off."""
    # Not of the state's own randomness: each process of the day makes the same runs, whenever it looks.
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
            input_: Row = target.get("payload") or {}
            row = ended_run(key, workflow, due, duration, "scheduler", error, endOrgId=customer, input=input_)
            ended.append(state.put("executions", row))
    if not ended:
        return
    failed = [row for row in ended if row["status"] != "completed"]
    failures = (trigger.get("consecutiveFailures") or 0) + 1 if failed else 0
    trigger |= {"lastRun": stamp(due), "consecutiveFailures": failures}
    if failures >= _FAILURES_ALLOWED:
        reason = f"{failures} consecutive failures; may be enabled again after 30 minutes."
        set_status(trigger, "Disabled", stamp(due + _SETTLED), "platform", reason=reason)
        trigger["nextRun"] = None
    state.put("triggers", trigger)


def _customers(state: SandboxState, trigger: Row, workflow: Row) -> list[str | None]:
    """For whom a schedule runs a workflow: its customer, or all who have connected what the workflow needs."""
    at_work = {row["id"]: row["id"] for row in state.all("customers") if row["status"] == "Active"}
    if trigger.get("endOrgId") is not None:
        return [at_work[key]] if (key := trigger["endOrgId"]) in at_work else []
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
    found = [value for key, value in at_work.items() if all(key in those for those in connected)]
    return found[:_MOST_CUSTOMERS]


def _tenant_apps(workflow: Row) -> list[str]:
    """The slugs of the apps that each customer has to connect."""
    return [str(app.get("slug")) for app in objects(workflow, "connectors") if app.get("scope") == "MULTI_TENANT"]


def _bring_on(state: SandboxState, key: str, now: datetime) -> None:
    run, row = state.rows["_runs"][key], state.rows["executions"][key]
    begun, workflow = moment(run["begun"]), run["workflow"]
    seconds, polls = (now - begun).total_seconds(), run["polls"]
    pace = PACES.get(row["tier"], PACES["STANDARD"])
    seconds_to_begin, seconds_to_end = (run[name] for name in ("secondsToBegin", "secondsToEnd"))
    if polls >= pace.looks_to_end or seconds >= seconds_to_end:
        duration = int(min(seconds, seconds_to_end) * 1000)  # looked at often enough, it has ended by now
        error = run["error"]
        kept = {name: row[name] for name in ("input", "endOrgId", "environment")}
        ended = ended_run(key, workflow, begun, duration, row["triggeredBy"], error, **kept)
        ended["startedAt"] = row["startedAt"] or ended["startedAt"]
        state.drop("_runs", key)
        state.put("executions", ended)
        over = min(moment(ended["completedAt"]), now)
        outcome = "Success" if ended["status"] == "completed" else "Failure"
        resource = ("workflow_executions", key)
        record(state, over, "system", "workflow.execute.completed", resource, outcome, customer=row["endOrgId"])
    elif row["status"] == "queued" and (polls >= pace.looks_to_begin or seconds >= seconds_to_begin):
        started = min(now, begun + timedelta(seconds=seconds_to_begin))
        state.put("executions", {**row, "status": "running", "startedAt": stamp(started)})


_EXECUTIONS = Resource(
    "executions", "execution", settable={}, unique=(), long=frozenset({"input", "output", "summary"})
)


@endpoint(ListExecutions, "executions:read")
def list_all(context: RouteContext, call: ListExecutions) -> MergedRows:
    numbers = context.history.numbers(
        workflow=call.workflow_id,
        customer=call.customer_id,
        status=call.status,
        since=None if call.since is None else instant("since", call.since),
        until=None if call.until is None else instant("until", call.until),
    )
    return MergedRows(select(context.state.all("executions"), call), _EXECUTIONS.brief, context.history, numbers)


@endpoint(GetExecution, "executions:read")
def get(context: RouteContext, call: GetExecution) -> One:
    look(context.state, call.execution_id, context.now)
    if (number := context.history.number(call.execution_id)) is not None:
        return One(context.history.row(number))
    return _EXECUTIONS.get(context, call)


@endpoint(RunWorkflow, "workflows:execute")
def run(context: RouteContext, call: RunWorkflow) -> One:
    workflow = WORKFLOWS.target(context, call)
    if workflow["publishedVersion"] is None:
        raise not_published()
    customer = _customer(context, call)
    _check_installation(context, call, customer)
    wanted = [call.input or {}, customer, call.environment, call.installation_id]
    replay = f"{call.workflow_id} {call.idempotency_key}"
    if call.idempotency_key is not None and (earlier := context.state.get("_replays", replay)) is not None:
        if earlier["wanted"] != wanted:
            raise conflict("The Idempotency-Key was used for another run")
        return _started(context, earlier["executionId"])
    environment = call.environment or ("test" if context.key["mode"] == "Test" else "live")
    more = {"input": call.input or {}, "environment": environment}
    row = begin(context.state, context.now, workflow, customer, call.installation_id, **more)
    if call.idempotency_key is not None:
        context.state.put("_replays", {"id": replay, "wanted": wanted, "executionId": row["id"]})
    context.audit("workflow.execute", "workflow_executions", row["id"], customer)
    return _started(context, row["id"])


def _started(context: RouteContext, key: str) -> One:
    """A workflow that throws is a failed execution, no failed request: that, too, is 200."""
    row = context.state.rows["executions"][key]
    answer: Row = {"executionId": key, "status": row["status"], "workflowId": row["workflowId"]}
    if row["tier"] != "INSTANT":
        return One(answer, 202)
    return One(answer | {"output": row["output"], "error": row["error"], "durationMs": row["durationMs"]})


def _customer(context: RouteContext, call: RunWorkflow) -> str | None:
    """The id of the customer that a run is for, by its id or by the account's own reference of it."""
    if call.customer_id is None and call.customer_ref is None:
        return None
    if call.customer_ref is None:
        found = context.state.get("customers", call.customer_id)
        if found is None:
            raise SandboxRefusal(404, "NOT_FOUND", "x-org-id does not match a customer organization of this account")
    else:
        found = context.state.first("customers", "externalRef", call.customer_ref)
    served = context.key.get("customers")
    if found is None or (isinstance(served, list) and found["id"] not in served):
        raise forbidden("Requested org is outside your tenant scope")
    if found["status"] != "Active":
        raise conflict(f"The customer is {found['status']}; its integrations do not run")
    return found["id"]


def _check_installation(context: RouteContext, call: RunWorkflow, customer: str | None) -> None:
    if call.installation_id is None:
        return
    installed = context.state.get("_installations", call.installation_id)
    if installed is None or (installed["workflowId"], installed["endOrgId"]) != (call.workflow_id, customer):
        raise forbidden(f'Installation "{call.installation_id}" does not serve the requesting tenant')
