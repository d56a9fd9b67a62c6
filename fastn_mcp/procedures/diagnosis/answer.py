"""The answer of a diagnosis: causes with their remedies, connections, triggers and changes, from the evidence."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import JsonValue

from fastn_mcp.account.dependence import by_reason
from fastn_mcp.procedures.checks.access import PENDING_CUSTOMERS, is_used_up
from fastn_mcp.procedures.checks.failures import EndedRun, FailureGroup, RunFilter
from fastn_mcp.procedures.checks.parts import PartState, connections_to, listed
from fastn_mcp.procedures.checks.remedies import Remedy, remedy_for_broken, remedy_of
from fastn_mcp.procedures.checks.run_counts import RunCounts, RunRecord
from fastn_mcp.procedures.checks.runs import blocked
from fastn_mcp.procedures.checks.triggers import failures_in_a_row
from fastn_mcp.procedures.diagnosis.connector import advice, affected_customers, broken_connections, connector_verdict
from fastn_mcp.procedures.diagnosis.evidence import MAX_AFFECTED, MAX_CAUSES, Changed, Evidence
from fastn_mcp.procedures.diagnosis.findings import findings
from fastn_mcp.procedures.diagnosis.summary import verdict
from fastn_mcp.records.formats import age, aged, counted, quoted, sentence, stamp
from fastn_mcp.records.labels import ACCOUNT, name_of
from fastn_mcp.records.quotas import quotas_of
from fastn_mcp.records.rows import key_of, owner_of, short, started_workflows, text, without_empty
from fastn_mcp.records.states import State, broken_since, is_pending, switched_off
from fastn_mcp.redaction import quote
from fastn_mcp.tools.connectors import CreateConnection, ListConnections
from fastn_mcp.tools.tool import suggested
from fastn_mcp.tools.triggers import GetTrigger, UpdateTrigger
from fastn_mcp.tools.workflows import GetExecution, GetWorkflow, ListExecutions

_MAX_ALSO_AFFECTED = 12
"""Maximum number of further affected workflows and customers of a cause by name."""

_MAX_BLOCKING = 3
"""Maximum number of broken connections that the verdict names where no run failed."""

Entry = dict[str, JsonValue]


@dataclass(frozen=True, slots=True)
class _Cause:
    """One of the most frequent causes, its newest run in full, and what would help."""

    failures: FailureGroup
    newest: EndedRun
    remedy: Remedy


def answer(evidence: Evidence) -> Entry:
    """Return the whole answer, with all entries of its lists."""
    newest = zip(evidence.causes, evidence.newest, strict=False)  # of the first causes only
    causes = [_Cause(cause, run, _remedy(evidence, cause, run)) for cause, run in newest]
    connections = _connections(evidence)
    broken = broken_connections(evidence) if evidence.subject.connector else []
    entries: Entry = {
        "verdict": _verdict(evidence, causes, connections, broken),
        **{
            kind: {"id": resource.id, "name": name_of(resource.row) or resource.id}
            for kind, resource in evidence.subject.resources.items()
        },
        "now": stamp(evidence.counts.period.now),
        "runs": _runs(evidence),
        "findings": findings(evidence),
        "stuck_runs": [run.data(evidence.names) for run in evidence.stuck],
        "customers": affected_customers(evidence, broken) if evidence.subject.connector else None,
        "advice": advice(evidence, broken) if evidence.subject.connector else None,
        "causes": [_cause(evidence, cause) for cause in causes],
        "other_causes": _other_causes(evidence),
        "without_failures": _without_failures(evidence),
        "connections": _connection_entries(evidence, causes, connections),
        "triggers": _trigger_entries(evidence, causes),
        "triggers_of_other_customers": evidence.other_triggers or None,
        "changes": [_change(evidence, change) for change in evidence.changes],
        "not_checked": [
            short(gap.what, 500) + (gap.why and f": {short(gap.why, 120)}") for gap in by_reason(evidence.gaps)
        ],
    }
    required = ("verdict", "causes", "connections", "triggers")
    return {name: item for name, item in entries.items() if item not in (None, []) or (name in required and item == [])}


def _verdict(
    evidence: Evidence, causes: Sequence[_Cause], connections: Sequence[PartState], broken: Sequence[PartState]
) -> str:
    if evidence.subject.connector:
        return connector_verdict(evidence, broken)
    whys = [(len(cause.failures.runs), cause.remedy.cause) for cause in causes[:2]]
    return _prefix(evidence) + verdict(evidence, _blocked(evidence, connections), whys)


def _other_causes(evidence: Evidence) -> list[JsonValue]:
    """Return the less frequent causes in Fastn's words, each with an example and its number of runs."""
    return [
        f"{cause.newest.reason or 'unknown'} ({cause.newest.id}): {counted(len(cause.runs), 'run')}"
        for cause in evidence.causes[MAX_CAUSES:]
    ]


def _connection_entries(
    evidence: Evidence, causes: Sequence[_Cause], connections: Sequence[PartState]
) -> list[JsonValue] | None:
    """Return the connections that matter; None if they were not read, or other entries say the same."""
    is_read = bool(connections) or not any("connections" in gap.what for gap in evidence.gaps)
    if not is_read or evidence.subject.connector or evidence.subject.is_account:
        return None
    repaired = [each for cause in causes for each in (*cause.remedy.repairs, *cause.remedy.further)]
    further = [each for each in repaired if each not in connections]
    return [_connection(evidence, each, is_repaired=each in repaired) for each in (*connections, *further)]


def _trigger_entries(evidence: Evidence, causes: Sequence[_Cause]) -> list[JsonValue] | None:
    """Return the triggers to show; None if they were not read, or the findings say the same."""
    if evidence.triggers is None or evidence.subject.is_account:
        return None
    entries = [_trigger(trigger, causes) for trigger in _relevant_triggers(evidence, evidence.triggers)]
    if evidence.subject.connector:
        started = {trigger.id: started_workflows(trigger.row) for trigger in evidence.triggers}
        entries = [each | {"starts": listed([*map(evidence.workflow, started[str(each["id"])])])} for each in entries]
    return [*entries]


def _prefix(evidence: Evidence) -> str:
    subject = evidence.subject
    if subject.trigger is not None:
        owner = evidence.owner(owner_of(subject.trigger))
        of = "" if owner == ACCOUNT else f" of {quoted(owner)}"
        return f"Trigger {quoted(name_of(subject.trigger))}{of}: "
    customer = subject.resources.get("customer")
    return "" if customer is None or "workflow" in subject.resources else f"{quoted(evidence.owner(customer.id))}: "


def _blocked(evidence: Evidence, connections: Sequence[PartState]) -> list[str]:
    """Return what keeps runs from happening at all."""
    subject = evidence.subject
    now = evidence.counts.period.now
    reasons: list[str] = []
    customer = subject.resources.get("customer")
    if customer is not None and is_pending(customer.row):
        owner = evidence.owner(customer.id)
        reasons.append(f"{quoted(owner)} {PENDING_CUSTOMERS.problem(customer.row, now)}")
    workflows = evidence.relevant_workflows if subject.resources else ()
    for key in workflows:
        predicate = blocked(evidence.workflows.get(key, {}), now)
        if predicate:
            name = "the workflow" if len(workflows) == 1 else quote(evidence.workflow(key), is_name=True)
            reasons.append(f"{name} {predicate}")
    if subject.trigger is not None and not workflows:
        reasons.append("the trigger starts no workflow")
    if not evidence.counts.failures and subject.customer:
        broken = [connection for connection in connections if connection.state.is_broken]
        reasons += [
            f"the connection {quoted(connection.label)} is {quoted(connection.status)}"
            for connection in broken[:_MAX_BLOCKING]
        ]
        if len(broken) > _MAX_BLOCKING:
            reasons.append(f"{counted(len(broken) - _MAX_BLOCKING, 'more connection')} of it cannot be used")
    return reasons + [f"the quota {quota} is used up" for quota in quotas_of(evidence.quotas) if is_used_up(quota)]


def _runs(evidence: Evidence) -> Entry:
    counts = evidence.counts
    now = evidence.counts.period.now
    count = len(counts.failures)
    last = counts.last_success_at
    before = counts.last_before
    totals: Entry = {**counts.totals}
    if not totals and counts.counted_since is not None:
        totals["failed"] = f"{count:,} {counts.window}"
    elif not totals and (failed := counts.failed(count)) is not None:
        totals["failed"] = failed
    entry: Entry = {"hours": counts.period.hours, **totals}
    if note := counts.window_note:
        entry["failures_since"] = note
    if evidence.history_begins:
        entry["history_begins"] = evidence.history_begins
    if evidence.starters and not evidence.subject.connector:
        starters = "; ".join(f"{number} {name}" for name, number in evidence.starters.most_common())
        of = sum(evidence.starters.values())
        entry["started_by"] = starters if of == counts.runs else f"of the newest {of}: {starters}"
    if not evidence.subject.connector:
        entry["last_success"] = aged(last, now) if last else counts.last_success_in_words
    if not counts.runs and before and before.at:
        entry["last_run"] = f"{before.id}, {aged(before.at, now)}"
    return entry


def _remedy(evidence: Evidence, cause: FailureGroup, newest: EndedRun) -> Remedy:
    since = evidence.completed_since(cause)
    return remedy_of(
        cause,
        newest,
        evidence.dependencies,
        further=evidence.broken_for(cause),
        completed_since="" if since is None else age(since, evidence.counts.period.now),
    )


def _cause(evidence: Evidence, cause: _Cause) -> Entry:
    failures = cause.failures
    newest = cause.newest
    remedy = cause.remedy
    times = failures.times
    now = evidence.counts.period.now
    count = len(failures.runs)
    or_earlier = " or earlier" if evidence.counts.has_failures_unread else ""
    arguments: Mapping[Any, Entry] = {
        GetExecution: {"execution_id": newest.id},
        GetWorkflow: {"workflow_id": newest.workflow},
        ListConnections: {"customer_id": failures.customers[0]} if failures.customers else {},
    }
    app = evidence.missing_apps.get(evidence.connector(newest) or "")
    if app and failures.customers:
        new: Entry = {"connector_id": key_of(app), "customer_id": failures.customers[0]}
        arguments = {**arguments, CreateConnection: new}
    if len(failures.customers) > 1 and remedy.repairs:
        broken = text(remedy.repairs[0].row, "connectorId", "connector.id")
        arguments = {**arguments, ListConnections: {"connector_id": broken, "status": "!ACTIVE"}}
    return without_empty(
        {
            "runs": count,
            "share": _share(count, evidence.counts),
            "first_seen": aged(min(times), now) + or_earlier if times else None,
            "last_seen": aged(max(times), now) if times else None,
            "failing_step": short(" ".join(filter(None, (newest.failed_at, newest.step and f"({newest.step})"))), 120),
            "headline": short(newest.headline, 120),
            # A connection's error repeats its id; the likely cause names the connection.
            "message": "" if remedy.see is ListConnections and newest.headline else short(newest.message, 160),
            "category": short(newest.category, 60),
            "fastn_suggests": short(newest.suggestion, 160),
            "example": newest.id,
            **({} if evidence.subject.connector else _affected(evidence, failures)),  # its customers have a row each
            "likely_cause": sentence(f"{remedy.cause}."),
            "fix": remedy.fix,
            "will_not_help": remedy.will_not_help,
            "next": suggested(remedy.see, **arguments.get(remedy.see, {})),
        }
    )


def _share(count: int, counts: RunCounts) -> str | None:
    """Return the share of a cause in the failures that were read; None if its runs are from before the period."""
    read = len(counts.failures)
    if not read:
        return None
    of = f"{read:,} read" if counts.has_failures_unread else "failures"
    return f"{100 * count / read:.0f} % of the {of}"


def _affected(evidence: Evidence, cause: FailureGroup) -> Entry:
    """Return the customers and workflows that fail: the first with counts, further ones by name."""
    filters = [*cause.filters.items()]
    more = Counter[str]()
    for which, count in filters[MAX_AFFECTED:]:
        more[" for ".join(evidence.names_of(which))] += count
    also: list[JsonValue] = [f"{key} ({count})" for key, count in more.most_common(_MAX_ALSO_AFFECTED)]
    if len(more) > _MAX_ALSO_AFFECTED:
        also.append(f"{len(more) - _MAX_ALSO_AFFECTED} more")
    return {"affected": [_failed_runs(evidence, which, count) for which, count in filters[:MAX_AFFECTED]], "also": also}


def _failed_runs(evidence: Evidence, which: RunFilter, count: int) -> Entry:
    subject = evidence.subject
    record = evidence.run_records.get(which, RunRecord(which))
    is_named = len(subject.workflows) == 1
    of = "" if record.runs is None else f" of {record.runs:,}"
    return without_empty(
        {
            "workflow": None if is_named else evidence.workflow(which.workflow),
            "workflow_id": None if is_named else which.workflow,
            "customer": None if subject.customer and not is_named else evidence.owner(which.customer),
            "failed": f"{count:,}{of}",
            **_history(evidence, record),
        }
    )


def _history(evidence: Evidence, record: RunRecord) -> Entry:
    """Return since when runs fail, and the last success."""
    success = record.last_success
    now = evidence.counts.period.now
    entry: Entry = {}
    if record.is_failing and record.since is not None:
        entry["since"] = record.or_earlier(aged(record.since, now))
    last = record.last_success_in_words(now)
    if last:
        entry["last_success"] = last
    newest = record.failures[0].version if record.failures else ""
    if success and newest and success.version and newest != success.version:
        entry["version"] = f"failing runs {newest}, last success {success.version}"
    return entry


def _without_failures(evidence: Evidence) -> list[JsonValue]:
    """Return the other workflows of the customer, with their last success, unless more runs of them may have failed."""
    if evidence.counts.has_failures_unread:
        return []
    stuck = {run.run.workflow for run in evidence.stuck}
    return [
        without_empty(
            {
                "workflow": evidence.workflow(record.which.workflow),
                "id": record.which.workflow,
                "runs": record.runs,
                **_history(evidence, record),
            }
        )
        for record in evidence.run_records.values()
        if not record.failures and record.which.workflow not in stuck
    ]


def _connections(evidence: Evidence) -> list[PartState]:
    """Return the connections that matter: all of a customer's, else the connections of affected customers and the
    account."""
    subject = evidence.subject
    if subject.is_any_of_customer:
        return [connection for connection in evidence.connections if connection.customer == subject.customer]
    apps = {*filter(None, map(evidence.connector, evidence.newest))}
    apps |= {app for key in subject.workflows for app in evidence.apps(key)}
    affected = {key for cause in evidence.causes for key in cause.customers} | {None, subject.customer}
    if not evidence.counts.failures and evidence.triggers:
        affected |= {trigger.customer for trigger in evidence.triggers}
    return [
        connection
        for connection in connections_to(apps, evidence.connections)
        if connection.customer in affected
        and (not connection.state.is_usable or connection.customer == subject.customer)
    ]


def _connection(evidence: Evidence, connection: PartState, *, is_repaired: bool) -> Entry:
    """Return a connection; not how to repair it, if the fix of a cause says so."""
    entry: Entry = {"what": connection.label, "status": connection.status}
    if connection.state.is_broken:
        entry["since"] = broken_since(connection.row, evidence.counts.period.now)
        if not is_repaired:
            entry["fix"] = connection.fix
    return entry


def _relevant_triggers(evidence: Evidence, triggers: Sequence[PartState]) -> list[PartState]:
    """Return the triggers to show: if runs fail, another customer's triggers only if they have a problem."""
    if evidence.subject.connector:
        return [trigger for trigger in triggers if trigger.problem]
    affected = {None, *(key for cause in evidence.causes for key in cause.customers)}
    return [each for each in triggers if each.problem or not evidence.counts.failures or each.customer in affected]


def _trigger(trigger: PartState, causes: Sequence[_Cause]) -> Entry:
    """Return a trigger. Its cause is the cause of the failures of the workflows that it starts, for its own
    customer."""
    started = started_workflows(trigger.row)

    def is_started(which: RunFilter) -> bool:
        return which.workflow in started and trigger.customer in (None, which.customer)

    remedy = next((cause.remedy for cause in causes if any(map(is_started, cause.failures.filters))), None)
    own = [each for each in remedy.repairs if each.customer == trigger.customer] if remedy else []
    cause = remedy.cause if remedy else ""
    if own:
        cause = remedy_for_broken(own).cause
    entry: Entry = {"id": trigger.id, "name": trigger.label, "of": trigger.owner}
    entry |= {"type": text(trigger.row, "type"), "status": trigger.status}
    entry |= {"problem": trigger.problem} if trigger.problem else {}
    is_failing = bool(trigger.problem) or failures_in_a_row(trigger.row) > 0
    entry |= {"runs_fail_because": cause} if cause and is_failing else {}
    entry |= {"fix": trigger.fix} if trigger.fix else {}
    if trigger.state is State.OFF:
        is_platform = switched_off(trigger.row).is_platform
        entry["next"] = suggested(UpdateTrigger, trigger_id=trigger.id, status="Active")
        if is_platform and not cause:  # its runs failed before the period
            of = {"workflow_id": next(iter(started), ""), "status": "failed,timeout"}
            of |= {"customer_id": trigger.customer} if trigger.customer else {}
            entry["next"] = suggested(ListExecutions, **of)
    elif trigger.state is State.BROKEN:
        entry["next"] = suggested(GetTrigger, trigger_id=trigger.id)
    return entry


def _change(evidence: Evidence, change: Changed) -> Entry:
    first = None if evidence.counts.has_failures_unread else evidence.failing_since
    labels = {resource.id: kind for kind, resource in evidence.subject.resources.items()}
    labels |= {connection.id: connection.label for connection in evidence.connections} | {**evidence.names}
    return without_empty(
        {
            "at": aged(change.at, evidence.counts.period.now) if change.at else None,
            "of": short(labels.get(change.of, change.of), 60),
            "what": short(change.what, 60),
            "by": short(change.by, 60),
            "outcome": "" if change.outcome == "Success" else change.outcome,
            "before_failures": True if change.at and first and change.at <= first else None,
        }
    )
