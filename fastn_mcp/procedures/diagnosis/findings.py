"""The result of a diagnosis: one sentence first, then findings, within its size."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.fastn.names import counted, sentence
from fastn_mcp.fastn.rows import Row, text, timestamp
from fastn_mcp.fastn.states import State
from fastn_mcp.procedures.diagnosis.failure_groups import Failure, FailureGroup
from fastn_mcp.procedures.diagnosis.remedies import Remedy
from fastn_mcp.procedures.diagnosis.workflow_state import ConnectionState, Setup, TriggerState
from fastn_mcp.procedures.tables import age, aged
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.tool import suggested
from fastn_mcp.tools.triggers import GetTrigger, UpdateTrigger
from fastn_mcp.tools.workflows import GetExecution, GetWorkflow


@dataclass(frozen=True, slots=True)
class Success:
    """A run that completed."""

    at: datetime | None
    customer: str | None


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What was read of a workflow's runs, and of what starts it."""

    now: datetime
    hours: int
    failures: Sequence[Failure] | None
    """Those of the period; None where they could not be read."""
    more_failures: bool
    successes: Sequence[Success] | None
    """The newest, also from before the period; None where they could not be read."""
    more_successes: bool
    setup: Setup
    triggers: Sequence[TriggerState] | None
    more_triggers: bool
    """Whether there are triggers that were not read."""

    @property
    def completed(self) -> list[Success]:
        """Those of the period."""
        since = self.now - timedelta(hours=self.hours)
        return [success for success in self.successes or () if success.at is None or success.at >= since]

    @property
    def more_completed(self) -> bool:
        """Whether more may have completed in the period than were read."""
        return self.more_successes and len(self.completed) == len(self.successes or ())

    @property
    def last_success(self) -> datetime | None:
        return max((success.at for success in self.successes or () if success.at), default=None)


def verdict(summary: RunSummary, why: str, names: dict[str, str]) -> str:
    """The sentence. `why` is a clause on the most frequent cause; `names` are of customers, by id."""
    if summary.failures is None:
        return f"Whether it failed could not be read. {_completed(summary)}"
    if not summary.failures:
        return _completed(summary) if summary.completed else _idle(summary)
    return f"{_failing(summary, names)}: {why}.{_stopped(summary)}"


def _failing(summary: RunSummary, names: dict[str, str]) -> str:
    failures = summary.failures or ()
    many = f"{'at least ' if summary.more_failures else ''}{len(failures)}"
    all_runs = f"{len(failures) + len(summary.completed)}{'+' if summary.more_completed else ''}"
    last = summary.last_success
    since = [f for f in failures if last is None or f.at is None or f.at > last]
    if len(since) == len(failures) and not summary.more_failures:
        first = min((f.at for f in failures if f.at), default=None)
        began = summary.now - timedelta(hours=summary.hours)
        longer = "" if last is not None and last >= began else "at least "
        length = "" if first is None else f" for {longer}{_length(first, summary.now)}"
        return f"Failing{length} ({many} of {many} runs; {_last_success(summary)})"
    if summary.completed and (always := _always_failing(summary)):
        named = [key for key in always if key in names] or always[:1]
        who = ", ".join(names.get(key, key)[:60] for key in named[:3])
        more = f" and {rest} more" if (rest := len(always) - len(named[:3])) else ""
        return f"Failing each time for {who}{more}, and not for others ({many} of {all_runs} runs)"
    if since:
        first = min((f.at for f in since if f.at), default=None)
        length = "" if first is None else f" for {_length(first, summary.now)}"
        return f"Failing{length} ({len(since)} runs since the last success; {many} of {all_runs} in {summary.hours} h)"
    return f"It worked the last time ({_last_success(summary)}), but {many} of {all_runs} runs failed"


def _always_failing(summary: RunSummary) -> list[str]:
    """Customers for whom nothing worked, where it worked for others."""
    worked = {success.customer for success in summary.completed}
    failed = dict.fromkeys(failure.customer for failure in summary.failures or ())
    always = [key for key in failed if key is not None and key not in worked]
    return always if worked and None not in worked and len(always) == len(failed) else []


def _completed(summary: RunSummary) -> str:
    count = len(summary.completed)
    runs = counted(count, "run", at_least=summary.more_completed)
    if summary.failures is None:
        return f"{runs} completed in {summary.hours} hours, {_last_success(summary)}."
    return f"No failures in {summary.hours} hours: {runs} completed, {_last_success(summary)}."


def _idle(summary: RunSummary) -> str:
    reasons: list[str] = []
    if summary.setup.cannot_run:
        reasons.append(summary.setup.cannot_run)
    if summary.triggers is None:
        reasons.append("its triggers could not be read")
    elif not summary.triggers:
        reasons.append("no trigger that was read starts it" if summary.more_triggers else "no trigger starts it")
    else:
        ailing = [trigger for trigger in summary.triggers if trigger.problem]
        reasons += [f"trigger {trigger.name or trigger.id}: {trigger.problem}" for trigger in ailing[:2]]
        if any(trigger.state is State.LIVE for trigger in summary.triggers):
            reasons.append("a trigger is active and may not have been due")
    done = "completed or " if summary.successes is not None else ""
    return f"No runs {done}failed in {summary.hours} hours: {'; '.join(reasons)}. {sentence(_last_success(summary))}."


def _stopped(summary: RunSummary) -> str:
    """What keeps it from being started, though it also fails."""
    if summary.setup.cannot_run:
        return f" Besides, {summary.setup.cannot_run}."
    triggers = summary.triggers or ()
    if triggers and all(trigger.state in (State.OFF, State.BROKEN) for trigger in triggers):
        return f" Nothing starts it now: trigger {triggers[0].name or triggers[0].id}: {triggers[0].problem}."
    return ""


def _last_success(summary: RunSummary) -> str:
    if summary.successes is None:
        return "successes could not be read"
    if summary.last_success is None:
        return "last success unknown" if summary.successes else "no success found"
    return f"last success {age(summary.last_success, summary.now)}"


def _length(first: datetime, now: datetime) -> str:
    """In days where there are some: weeks would round too much away."""
    days = (now - first).days
    return f"{days} days" if days >= 2 else age(first, now).removesuffix(" ago")


LONGEST = 4_300
"""Characters of JSON."""

_SHORT = 120
_FEW = 5


@dataclass(frozen=True, slots=True)
class FailureFinding:
    """A cause, its newest run as fully as it could be read, and what to do."""

    cause: FailureGroup
    newest: Failure
    remedy: Remedy


@dataclass(frozen=True, slots=True)
class WorkflowChange:
    """Something that was done to the workflow."""

    at: datetime | None
    by: str
    what: str
    outcome: str
    before_failures: bool
    """Whether it came before the first failure that was read."""


@dataclass(frozen=True, slots=True)
class DiagnosisResult:
    """All that a diagnosis found."""

    workflow_id: str
    verdict: str
    summary: RunSummary
    causes: Sequence[FailureFinding]
    other_causes: Sequence[FailureGroup]
    connections: Sequence[ConnectionState]
    changes: Sequence[WorkflowChange]
    names: Mapping[str, str]
    not_checked: Sequence[str]

    def data(self) -> dict[str, JsonValue]:
        """As JSON, the verdict first. What is too much is left out from the least important on, and that is said."""
        summary = self.summary
        triggers = summary.triggers
        found: dict[str, JsonValue] = {
            "verdict": self.verdict,
            "workflow": {"id": self.workflow_id, "name": _cut(summary.setup.name)},
            "runs": self._runs(),
            "causes": [self._cause(finding) for finding in self.causes],
            "other_causes": {
                "causes": len(self.other_causes),
                "failures": sum(len(cause.failures) for cause in self.other_causes),
            }
            if self.other_causes
            else None,
            "connections": [
                {"id": connection.id, "what": _cut(connection.label), "status": connection.status}
                for connection in self.connections
            ],
            "triggers": None if triggers is None else [_trigger(trigger) for trigger in triggers],
            "changes": [_change(change, summary.now) for change in self.changes],
            "not_checked": [_cut(said, 160) for said in self.not_checked] or None,
        }
        return _fitting({name: value for name, value in found.items() if value is not None})

    def _runs(self) -> dict[str, JsonValue]:
        summary = self.summary
        last = summary.last_success
        failed = None if summary.failures is None else len(summary.failures)
        completed = None if summary.successes is None else len(summary.completed)
        return {
            "hours": summary.hours,
            "failed": f"{failed} or more" if summary.more_failures else failed,
            "completed": f"{completed} or more" if summary.more_completed else completed,
            "last_success": None if last is None else aged(last, summary.now),
        }

    def _cause(self, finding: FailureFinding) -> dict[str, JsonValue]:
        cause, newest, said = finding.cause, finding.newest, finding.remedy
        first, last = cause.first_seen, cause.last_seen
        customers: list[JsonValue] = [_cut(self.names.get(key, key), 60) for key in cause.customers[:3]]
        if len(cause.customers) > 3:
            customers.append(f"{len(cause.customers) - 3} more")
        count = len(cause.failures)
        entry: dict[str, JsonValue] = {
            "count": count,
            "share": f"{100 * count / max(len(self.summary.failures or ()), 1):.0f} %",
            "first_seen": None if first is None else aged(first, self.summary.now),
            "last_seen": None if last is None else aged(last, self.summary.now),
            "failing_step": _cut(" ".join(filter(None, (newest.failed_at, newest.step and f"({newest.step})")))),
            "headline": _cut(newest.headline),
            "message": _cut(newest.message, 200),
            "category": _cut(newest.category, 60),
            "fastn_suggests": _cut(newest.suggestion, 200),
            "example": newest.execution,
            "customers": customers,
            "likely_cause": said.likely,
            "fix": said.fix,
            "will_not_help": said.will_not_help,
            "next": self._next(finding),
        }
        return {name: value for name, value in entry.items() if value not in (None, "", [])}

    def _next(self, finding: FailureFinding) -> dict[str, JsonValue] | None:
        see = finding.remedy.see
        if see is ListConnections:
            customer = next(iter(finding.cause.customers), None)
            return suggested(see, **({} if customer is None else {"customer_id": customer}))
        if see is GetExecution:
            return suggested(see, execution_id=finding.newest.execution)
        return suggested(see, **({"workflow_id": self.workflow_id} if see is GetWorkflow else {}))


def changes(audited: Iterable[Row], workflow: Row, workflow_id: str, first: datetime | None) -> list[WorkflowChange]:
    """What was done to the workflow, newest first. `first` is when the first failure was."""
    found: list[WorkflowChange] = []
    for row in audited:
        action = text(row, "action", "event", "type")
        if action.startswith("workflow.execute") or not _is_about(row, workflow_id):
            continue
        at = timestamp(row, "timestamp", "createdAt", "at")
        by = text(row, "actor.name", "actor", "user.name", "user", "actorName")
        found.append(WorkflowChange(at, by, action, text(row, "outcome"), _before(at, first)))
    at = timestamp(workflow, "updatedAt")
    if at is not None:
        found.append(
            WorkflowChange(at, text(workflow, "updatedBy"), "last update of the workflow", "", _before(at, first))
        )
    return sorted(found, key=lambda change: change.at.timestamp() if change.at else 0.0, reverse=True)


def _before(at: datetime | None, first: datetime | None) -> bool:
    return at is not None and first is not None and at <= first


def _is_about(row: Row, workflow_id: str) -> bool:
    """Whether an audit row is of this workflow; where it names no resource, the filter is believed."""
    named = text(row, "resource.id", "resourceId")
    return named in ("", workflow_id)


def _trigger(trigger: TriggerState) -> dict[str, JsonValue]:
    entry: dict[str, JsonValue] = {"id": trigger.id, "name": _cut(trigger.name, 60), "type": trigger.kind}
    entry |= {"status": trigger.status} | ({"problem": _cut(trigger.problem, 160)} if trigger.problem else {})
    if trigger.state is State.OFF:
        entry["fix"] = "Fix the cause first, then switch it on."
        entry["next"] = suggested(UpdateTrigger, trigger_id=trigger.id, status="Active")
    elif trigger.state is State.BROKEN:
        entry["fix"] = "Repair its connection, then retry the subscription in the dashboard."
        entry["next"] = suggested(GetTrigger, trigger_id=trigger.id)
    return entry


def _change(change: WorkflowChange, now: datetime) -> dict[str, JsonValue]:
    entry: dict[str, JsonValue] = {"at": None if change.at is None else aged(change.at, now)}
    entry |= {"by": _cut(change.by, 60), "what": _cut(change.what, 60), "outcome": change.outcome}
    entry["before_failures"] = change.before_failures or None
    return {name: value for name, value in entry.items() if value not in (None, "", "Success")}


def _fitting(found: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """What fits, at most five of a kind; then fewer, then without messages, then without the last causes."""
    left_out: dict[str, JsonValue] = {}
    dropped: Counter[str] = Counter()

    def drop(name: str, least: int) -> bool:
        entries = found.get(name)
        if not isinstance(entries, list) or len(entries) <= least:
            return False
        entries.pop()
        dropped[name] += 1
        left_out[name] = dropped[name]
        return True

    for name in ("connections", "triggers", "changes", "not_checked"):
        while drop(name, _FEW):
            pass
    for name, least in (("changes", 2), ("connections", 2), ("triggers", 1), ("not_checked", 3), ("causes", 1)):
        while _size(found) > LONGEST and drop(name, least):
            pass
    _shorten(found)
    if left_out:
        found["left_out"] = left_out
    return found


def _shorten(found: dict[str, JsonValue]) -> None:
    """Leave out what Fastn says of causes, until it fits."""
    for cause in cast("list[dict[str, JsonValue]]", found["causes"]):
        for name in ("fastn_suggests", "message"):
            if _size(found) > LONGEST:
                cause.pop(name, None)


def _size(value: JsonValue) -> int:
    return len(to_json(value))


def _cut(said: str, longest: int = _SHORT) -> str:
    return said if len(said) <= longest else f"{said[:longest]}…"
