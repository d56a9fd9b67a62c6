"""Runs: how they begin, how they go on while somebody looks, how they end, and which of them schedules start."""

import random
from datetime import datetime, timedelta
from typing import NamedTuple, cast

from pydantic import JsonValue

from fastn_mcp.fastn.cron import next_run
from fastn_mcp.sandbox.dataset.executions import execution
from fastn_mcp.sandbox.dataset.workflows import output_of
from fastn_mcp.sandbox.failures import connection_of, dependency_error, no_connection, timed_out, unusable
from fastn_mcp.sandbox.run_history import RunSeries
from fastn_mcp.sandbox.state import Row, SandboxState, moment, record, stamp


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
    customer: JsonValue,
    installation: str | None = None,
    **more: JsonValue,
) -> Row:
    """Start a run by hand. One of an INSTANT workflow has ended already."""
    key = state.short_id("exec")
    error = failure(state, workflow, customer, installation)
    if workflow["executionTier"] == "INSTANT":
        duration = 120 if error else 79
        return state.put("executions", _ended(key, workflow, now, duration, "manual", error, endOrgId=customer, **more))
    row = execution(key, workflow, "queued", now, None, "manual", endOrgId=customer, **more)
    pace = PACES.get(str(workflow["executionTier"]), PACES["STANDARD"])
    progress(state, row, workflow, pace.seconds_to_begin, pace.seconds_to_end, error)
    return state.put("executions", row)


def progress(
    state: SandboxState,
    row: Row,
    workflow: Row,
    seconds_to_begin: float,
    seconds_to_end: float,
    error: Row | None = None,
) -> None:
    """Note how a run that is not over will go on."""
    noted = {"workflow": {**workflow}, "secondsToBegin": seconds_to_begin, "secondsToEnd": seconds_to_end}
    state.put("_runs", {"id": row["id"], "polls": 0, "begun": row["createdAt"], "error": error, **noted})


def failure(state: SandboxState, workflow: Row, customer: JsonValue, installation: str | None = None) -> Row | None:
    """Why a run of this workflow for this customer cannot work; None where it can.

    Where a widget installed the workflow, its connections are found by the installation only. A trigger knows it.
    """
    failing = state.get("_failing", workflow["id"])
    if failing is not None:
        return dependency_error(state, str(failing["connector"]), str(failing["action"]), cast("str | None", customer))
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
            return no_connection(slug, str(customer))
        actions = cast("list[Row]", connector["actions"] or [{"slug": "run"}])
        return unusable(slug, str(actions[0]["slug"]), str(broken["id"]))
    return None


def look(state: SandboxState, key: str, now: datetime) -> None:
    """Somebody looks at this run, which brings it on."""
    run = state.get("_runs", key)
    if run is not None:
        state.put("_runs", {**run, "polls": cast(int, run["polls"]) + 1})
        _bring_on(state, key, now)


def pass_time(state: SandboxState, now: datetime) -> None:
    """Do what is due: expected events arrive, schedules fire, runs go on and end."""
    for event in state.all("_expected"):
        _arrive(state, event, now)
    past = RunSeries.of_triggers(state)
    for trigger in state.all("triggers"):
        if trigger.get("type") == "scheduler":
            _fire(state, trigger, now, described=str(trigger["id"]) in past)
    for run in state.all("_runs"):
        _bring_on(state, str(run["id"]), now)


def _arrive(state: SandboxState, event: Row, now: datetime) -> None:
    """Keep the run that an event starts, unless its trigger or its workflow has stopped meanwhile."""
    row = cast(Row, event["run"])
    if moment(str(row["completedAt"])) > now:
        return
    state.drop("_expected", event["id"])
    trigger, workflow = state.get("triggers", event["triggerId"]), state.get("workflows", row["workflowId"])
    if trigger is None or trigger.get("status") != "Active" or workflow is None or workflow.get("status") != "active":
        return
    error = failure(state, workflow, row["endOrgId"], str(trigger["id"]))
    begun, duration = moment(str(row["createdAt"])), cast(int, row["durationMs"])
    given = {name: row[name] for name in ("input", "endOrgId")}
    state.put("executions", _ended(str(row["id"]), workflow, begun, duration, "webhook", error, **given))


def _fire(state: SandboxState, trigger: Row, now: datetime, *, described: bool) -> None:
    """Start what was due since anybody looked. Of a `described` trigger the history has the runs."""
    for _ in range(_MOST_OCCURRENCES):
        if trigger["status"] != "Active" or not trigger["nextRun"]:
            return
        due = moment(str(trigger["nextRun"]))
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
        trigger["nextRun"] = stamp(next_run(str(trigger["schedule"]), str(trigger["timezone"]), after))
        state.put("triggers", trigger)


def _run_scheduled(state: SandboxState, trigger: Row, due: datetime) -> None:
    """Run each workflow of a schedule once for each customer. After too many failures the platform switches it off."""
    # Not of the state's own randomness: each process of the day makes the same runs, whenever it looks.
    randomness = random.Random(f"{trigger['id']} {due}")  # noqa: S311 it is to be repeatable
    ended: list[Row] = []
    for target in cast("list[Row]", trigger["routes"] or []):
        workflow = state.get("workflows", target.get("routeId"))
        if workflow is None or workflow["status"] != "active" or workflow["publishedVersion"] is None:
            continue
        for customer in _customers(state, trigger, workflow):
            error = failure(state, workflow, customer, str(trigger["id"]))
            most = _SCHEDULED_SECONDS[str(workflow["executionTier"])] * 1000
            duration = randomness.randrange(1_500, 3_000) if error else randomness.randrange(most // 2, most)
            key = f"exec_{randomness.getrandbits(48):012x}"
            input_ = target.get("payload") or {}
            row = _ended(key, workflow, due, duration, "scheduler", error, endOrgId=customer, input=input_)
            ended.append(state.put("executions", row))
    if not ended:
        return
    failed = [row for row in ended if row["status"] != "completed"]
    failures = cast(int, trigger.get("consecutiveFailures") or 0) + 1 if failed else 0
    trigger |= {"lastRun": stamp(due), "consecutiveFailures": failures}
    if failures >= _FAILURES_ALLOWED:
        reason = f"{failures} consecutive failures; may be enabled again after 30 minutes."
        entry: Row = {"status": "Disabled", "at": stamp(due + _SETTLED), "by": "platform", "reason": reason}
        earlier = cast("list[JsonValue]", trigger.get("statusHistory") or [])[-19:]
        trigger |= {"status": "Disabled", "nextRun": None, "statusHistory": [*earlier, entry]}
    state.put("triggers", trigger)


def _customers(state: SandboxState, trigger: Row, workflow: Row) -> list[JsonValue]:
    """For whom a schedule runs a workflow: its customer, or all who have connected what the workflow needs."""
    at_work = {str(row["id"]): row["id"] for row in state.all("customers") if row["status"] == "Active"}
    if trigger.get("endOrgId") is not None:
        return [at_work[key]] if (key := str(trigger["endOrgId"])) in at_work else []
    apps = _tenant_apps(workflow)
    if not apps:
        return [None]
    connected = [
        {
            str(row["endOrgId"])
            for row in state.all("connections")
            if cast(Row, row["connector"])["slug"] == app and row["status"] not in ("INACTIVE", "PENDING")
        }
        for app in apps
    ]
    found = [value for key, value in at_work.items() if all(key in those for those in connected)]
    return found[:_MOST_CUSTOMERS]


def _tenant_apps(workflow: Row) -> list[str]:
    """The slugs of the apps that each customer has to connect."""
    apps = cast("list[Row]", workflow.get("connectors") or [])
    return [str(app.get("slug")) for app in apps if app.get("scope") == "MULTI_TENANT"]


def _bring_on(state: SandboxState, key: str, now: datetime) -> None:
    run, row = state.rows["_runs"][key], state.rows["executions"][key]
    begun, workflow = moment(str(run["begun"])), cast(Row, run["workflow"])
    seconds, polls = (now - begun).total_seconds(), cast(int, run["polls"])
    pace = PACES.get(str(row["tier"]), PACES["STANDARD"])
    seconds_to_begin, seconds_to_end = (cast(float, run[name]) for name in ("secondsToBegin", "secondsToEnd"))
    if polls >= pace.looks_to_end or seconds >= seconds_to_end:
        duration = int(min(seconds, seconds_to_end) * 1000)  # looked at often enough, it has ended by now
        error = cast("Row | None", run["error"])
        kept = {name: row[name] for name in ("input", "endOrgId", "environment")}
        ended = _ended(key, workflow, begun, duration, str(row["triggeredBy"]), error, **kept)
        ended["startedAt"] = row["startedAt"] or ended["startedAt"]
        state.drop("_runs", key)
        state.put("executions", ended)
        over = min(moment(str(ended["completedAt"])), now)
        outcome = "Success" if ended["status"] == "completed" else "Failure"
        resource = ("workflow_executions", key)
        record(state, over, "system", "workflow.execute.completed", resource, outcome, customer=row["endOrgId"])
    elif row["status"] == "queued" and (polls >= pace.looks_to_begin or seconds >= seconds_to_begin):
        started = min(now, begun + timedelta(seconds=seconds_to_begin))
        state.put("executions", {**row, "status": "running", "startedAt": stamp(started)})


def _ended(
    key: str, workflow: Row, begun: datetime, duration: int, by: str, error: Row | None, **more: JsonValue
) -> Row:
    """A run that is over: at its time limit at the latest."""
    limit = workflow.get("timeoutMs")
    if isinstance(limit, int) and duration > limit:
        return execution(key, workflow, "timeout", begun, limit, by, error=timed_out(limit), **more)
    if error is not None:
        return execution(key, workflow, "failed", begun, duration, by, error=error, **more)
    output = output_of(workflow, cast(Row, more.get("input") or {}))
    return execution(key, workflow, "completed", begun, duration, by, output=output, **more)
