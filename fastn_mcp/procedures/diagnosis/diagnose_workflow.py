"""The tool `diagnose_workflow`: why a workflow fails or does not run, from bounded reads."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, cast

import anyio
from pydantic import Field, JsonValue
from pydantic_core import to_json

from fastn_mcp.fastn.dependents import Unchecked
from fastn_mcp.fastn.rows import Row, key_of, owner_of, text, timestamp
from fastn_mcp.fastn.states import State
from fastn_mcp.fastn.targets import Call
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.diagnosis.account_parts import (
    PartState,
    WorkflowSetup,
    connection_states,
    connections_to,
    trigger_states,
    triggers_of,
    workflow_setup,
)
from fastn_mcp.procedures.diagnosis.failures import (
    EndedRun,
    FailureGroup,
    Period,
    by_cause,
    ended_run,
    ended_runs,
    time_of,
)
from fastn_mcp.procedures.diagnosis.remedies import FailureEvidence, Remedy, remedy
from fastn_mcp.procedures.diagnosis.workflow_summary import WorkflowFacts, verdict
from fastn_mcp.procedures.reads import AccountReads
from fastn_mcp.procedures.tables import aged
from fastn_mcp.tools.account import QueryAuditLog
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.fields import CustomerId, WorkflowId
from fastn_mcp.tools.tool import Effect, FastnObject, suggested
from fastn_mcp.tools.triggers import GetTrigger, ListTriggers, UpdateTrigger
from fastn_mcp.tools.workflows import GetExecution, GetWorkflow, ListExecutions

_WORKFLOW, _FAILED, _TIMED_OUT, _COMPLETED = "workflow", "failed runs", "timed-out runs", "completed runs"
_TRIGGERS, _AUDIT = "triggers", "audit log"

_CAUSES = 3
"""Maximum number of causes reported, each with its newest run read in full."""

_TRIGGER_PAGES = 5

_CUSTOMERS = 2
"""Maximum number of customers whose names and connections are read."""

LONGEST = 4_300
"""Maximum size of the answer as JSON in characters."""

_SHORT = 120
"""Maximum length of a text in characters."""

_CUTS = (
    *((name, 5, 0) for name in ("connections", "triggers", "changes", "not_checked")),
    ("changes", 2, LONGEST),
    ("connections", 2, LONGEST),
    ("triggers", 1, LONGEST),
    ("not_checked", 3, LONGEST),
    ("causes", 1, LONGEST),
)
"""Cuts in order: a list, its minimum number of entries, and the size in characters above which it is shortened."""


class Diagnosis(FastnObject):
    """Diagnosis of a workflow, with remedies."""

    shape = (("verdict", "string"), ("causes", "array"))


class DiagnoseWorkflow(Procedure[Diagnosis]):
    """Why a workflow fails or does not run, and what would mend it."""

    effect = Effect.READ

    workflow_id: WorkflowId
    customer_id: Annotated[CustomerId | None, Field(description="Only this customer.")] = None
    hours: Annotated[int, Field(ge=1, le=720, description="1-720, default 72.")] = 72

    @property
    def target(self) -> str | None:
        return self.workflow_id

    async def run(self, context: ProcedureContext) -> Diagnosis:
        return Diagnosis.model_validate(await _WorkflowDiagnosis(self, context).findings())


class _WorkflowDiagnosis:
    """One diagnosis, with the data read for it."""

    def __init__(self, call: DiagnoseWorkflow, context: ProcedureContext) -> None:
        self._call = call
        self._context = context
        self._reads = AccountReads(context.read)
        self._period = Period(call.hours, context.system.now())
        self._setup = workflow_setup({})
        self._customers: list[str] = []
        """Ids of the affected customers, those with most failures first."""
        self._names: dict[str, str] = {}
        """Customer names by id."""
        self._connections: list[PartState] | None = None
        """None if no list of them could be read."""

    async def findings(self) -> dict[str, JsonValue]:
        """Return the answer. Raises a `FastnError` if the workflow cannot be read and no failed run was found."""
        reads, workflow_id, now = self._reads, self._call.workflow_id, self._period.now
        await self._context.report("reading runs and triggers", 0, 2)
        await reads.read(
            {
                _WORKFLOW: GetWorkflow(workflow_id=workflow_id),
                _FAILED: self._runs("failed", self._period.since),
                _TIMED_OUT: self._runs("timeout", self._period.since),
                _COMPLETED: self._runs("completed"),  # without since: the last success may be older
                _TRIGGERS: ListTriggers(limit=100),
            }
        )
        failures, more_failures = await self._failures()
        if _WORKFLOW in reads.failed and not failures:
            raise reads.failed[_WORKFLOW]
        self._setup = workflow_setup(reads.records.get(_WORKFLOW, {}))
        causes = by_cause(failures)
        # Without failures, the question is what starts the workflow.
        triggers = await self._triggers(pages=2 if failures else _TRIGGER_PAGES)
        successes = reads.rows(_COMPLETED)
        facts = WorkflowFacts(
            period=self._period,
            failures=None if _FAILED in reads.failed and not failures else failures,
            more_failures=more_failures,
            successes=None if successes is None else list(map(ended_run, successes)),
            more_successes=reads.has_more(_COMPLETED),
            setup=self._setup,
            triggers=None if triggers is None else trigger_states(triggers, now),
            more_triggers=reads.has_more(_TRIGGERS),
        )
        await self._context.report("reading failures, connections and changes", 1, 2)
        full = await self._read_details(causes, triggers or [])
        newest = [full.get(cause.newest.id, cause.newest) for cause in causes[:_CAUSES]]
        remedies = [self._remedy(cause, run) for cause, run in zip(causes, newest, strict=False)]
        explained = zip(causes, newest, remedies, strict=False)
        others = causes[_CAUSES:]
        found: dict[str, JsonValue] = {
            "verdict": verdict(facts, remedies[0].short if remedies else "", self._names),
            "workflow": {"id": workflow_id, "name": _cut(self._setup.name)},
            "runs": _run_counts(facts),
            "causes": [self._cause(*cause, len(failures)) for cause in explained],
            "other_causes": {"causes": len(others), "failures": sum(len(cause.runs) for cause in others)}
            if others
            else None,
            "connections": [
                {"id": connection.id, "what": _cut(connection.label), "status": connection.status}
                for connection in self._relevant_connections(newest)
            ],
            "triggers": None if facts.triggers is None else list(map(_trigger, facts.triggers)),
            "changes": [*self._changes(min((at for cause in causes for at in cause.times), default=None))],
            "not_checked": [_cut(gap, 160) for gap in reads.not_checked()] or None,
        }
        return _fitting({name: value for name, value in found.items() if value is not None})

    def _runs(self, status: str, since: str | None = None) -> ListExecutions:
        call = self._call
        return ListExecutions(
            workflow_id=call.workflow_id, customer_id=call.customer_id, status=status, since=since, limit=100
        )

    async def _failures(self) -> tuple[list[EndedRun], bool]:
        """Return the failed runs, newest first, of at most three pages, and whether there are more."""
        reads, statuses = self._reads, {_FAILED: "failed", _TIMED_OUT: "timeout"}
        longer = [name for name in statuses if reads.has_more(name)]
        if longer:
            await reads.read_list(longer[0], self._runs(statuses[longer[0]], self._period.since))
        failures = ended_runs(row for name in statuses for row in reads.rows(name) or ())
        more = any(map(reads.has_more, longer))
        if more:
            why = "there are more than the three pages of failures that were read"
            reads.gaps.append(Unchecked("runs", why))
        return sorted(failures, key=time_of, reverse=True), more

    async def _triggers(self, pages: int) -> list[Row] | None:
        """Return the triggers that start the workflow, of at most `pages`; None if they could not be read."""
        reads = self._reads
        if _TRIGGERS not in reads.lists:
            return None
        await reads.read_list(_TRIGGERS, ListTriggers(limit=100), pages - 1)
        found = reads.lists[_TRIGGERS]
        if found.more:
            reads.gaps.append(Unchecked(_TRIGGERS, f"only {len(found.rows)} were read"))
        return triggers_of(self._call.workflow_id, found.rows)

    async def _read_details(self, causes: Sequence[FailureGroup], triggers: Sequence[Row]) -> dict[str, EndedRun]:
        """Read names and connections of the affected customers, and return the newest runs of the causes by id."""
        reads, customer_id = self._reads, self._call.customer_id
        failing = [customer for cause in causes for customer in cause.customers]
        affected = failing or filter(None, map(owner_of, triggers))
        self._customers = list(dict.fromkeys(affected)) if customer_id is None else [customer_id]
        shown = self._customers[:_CUSTOMERS]
        runs: dict[str, Call] = {
            f"run {cause.newest.id}": GetExecution(execution_id=cause.newest.id)
            for cause in causes[:_CAUSES]
            if cause.newest.id
        }
        audit = QueryAuditLog(resource_id=self._call.workflow_id, since=self._period.since, limit=50)
        listings: dict[str, Call] = {
            f"connections of {key}": ListConnections(customer_id=key, limit=100) for key in shown
        }
        if len(shown) < _CUSTOMERS:
            listings["connections of the account"] = ListConnections(limit=100)

        async def read_names() -> None:
            self._names = await self._context.directory.names("customer", shown, self._context.read)

        async with anyio.create_task_group() as group:
            group.start_soon(read_names)
            group.start_soon(reads.read, runs | listings | {_AUDIT: audit})
        if unread := len(self._customers) - len(shown):
            reads.gaps.append(Unchecked(f"connections of {unread} more customers", ""))
        if any(name in reads.lists for name in listings):
            rows = {key_of(row) or str(row): row for name in listings for row in reads.rows(name) or ()}
            self._connections = connection_states(rows.values(), self._names)
        return {run.id: run for name in runs if name in reads.records for run in [ended_run(reads.records[name])]}

    def _remedy(self, cause: FailureGroup, newest: EndedRun) -> Remedy:
        connector = _connector(newest, self._setup)
        candidates = connections_to([connector] if connector else self._setup.apps, self._connections or ())
        own = [connection for connection in candidates if connection.customer in cause.customers]
        relevant = own or [connection for connection in candidates if connection.customer is None]
        unread = cause.customers and not {*cause.customers} & {*self._customers[:_CUSTOMERS]}
        connections = None if self._connections is None or unread else relevant
        return remedy(FailureEvidence(newest, self._setup, bool(cause.customers), connector, connections))

    def _cause(self, cause: FailureGroup, newest: EndedRun, found: Remedy, failures: int) -> dict[str, JsonValue]:
        customers: list[JsonValue] = [_cut(self._names.get(key, key), 60) for key in cause.customers[:3]]
        if (more := len(cause.customers) - 3) > 0:
            customers.append(f"{more} more")
        times, now = cause.times, self._period.now
        arguments: dict[Any, dict[str, JsonValue]] = {
            GetExecution: {"execution_id": newest.id},
            GetWorkflow: {"workflow_id": self._call.workflow_id},
            ListConnections: {"customer_id": cause.customers[0]} if cause.customers else {},
        }
        return _without_empty(
            {
                "count": len(cause.runs),
                "share": f"{100 * len(cause.runs) / failures:.0f} %",
                "first_seen": aged(min(times), now) if times else None,
                "last_seen": aged(max(times), now) if times else None,
                "failing_step": _cut(" ".join(filter(None, (newest.failed_at, newest.step and f"({newest.step})")))),
                "headline": _cut(newest.headline),
                "message": _cut(newest.message, 200),
                "category": _cut(newest.category, 60),
                "fastn_suggests": _cut(newest.suggestion, 200),
                "example": newest.id,
                "customers": customers,
                "likely_cause": found.likely,
                "fix": found.fix,
                "will_not_help": found.will_not_help,
                "next": suggested(found.see, **arguments.get(found.see, {})),
            }
        )

    def _relevant_connections(self, newest: Iterable[EndedRun]) -> list[PartState]:
        """Return the connections of the account and affected customers to its apps, and to those where runs fail."""
        apps = {*self._setup.apps, *filter(None, (_connector(run, self._setup) for run in newest))}
        owners = {None, *self._customers}
        found = connections_to(apps, self._connections or ())
        return [connection for connection in found if not self._customers or connection.customer in owners]

    def _changes(self, first: datetime | None) -> list[dict[str, JsonValue]]:
        """Return the changes of the workflow, newest first. `first` is the time of the first failure."""
        reads, workflow_id, now = self._reads, self._call.workflow_id, self._period.now
        found: list[tuple[datetime | None, str, str, str]] = []
        for row in reads.rows(_AUDIT) or ():
            action, named = text(row, "action", "event", "type"), text(row, "resource.id", "resourceId")
            # A row without a resource is taken to match the filter.
            if not action.startswith("workflow.execute") and named in ("", workflow_id):
                by = text(row, "actor.name", "actor", "user.name", "user", "actorName")
                found.append((timestamp(row, "timestamp", "createdAt", "at"), by, action, text(row, "outcome")))
        workflow = reads.records.get(_WORKFLOW, {})
        if (at := timestamp(workflow, "updatedAt")) is not None:
            found.append((at, text(workflow, "updatedBy"), "last update of the workflow", ""))
        found.sort(key=lambda change: change[0].timestamp() if change[0] else 0.0, reverse=True)
        return [
            _without_empty(
                {
                    "at": aged(at, now) if at else None,
                    "by": _cut(by, 60),
                    "what": _cut(what, 60),
                    "outcome": "" if outcome == "Success" else outcome,
                    "before_failures": True if at and first and at <= first else None,
                }
            )
            for at, by, what, outcome in found
        ]


def _connector(run: EndedRun, setup: WorkflowSetup) -> str | None:
    """Return the slug of the app at which a run failed."""
    named = re.match(r"connector\.([\w-]+)", run.failed_at) or re.search(
        r'connector "([\w-]+)"', f"{run.message} {run.headline}"
    )
    return named[1] if named else next((app for app in setup.apps if app.casefold() in run.text), None)


def _run_counts(facts: WorkflowFacts) -> dict[str, JsonValue]:
    last = facts.last_success
    failed = None if facts.failures is None else len(facts.failures)
    completed = None if facts.successes is None else len(facts.completed)
    return {
        "hours": facts.period.hours,
        "failed": f"{failed} or more" if facts.more_failures else failed,
        "completed": f"{completed} or more" if facts.more_completed else completed,
        "last_success": None if last is None else aged(last, facts.period.now),
    }


def _trigger(trigger: PartState) -> dict[str, JsonValue]:
    entry: dict[str, JsonValue] = {"id": trigger.id, "name": _cut(trigger.label, 60), "type": text(trigger.row, "type")}
    entry |= {"status": trigger.status} | ({"problem": _cut(trigger.problem, 160)} if trigger.problem else {})
    if trigger.state is State.OFF:
        entry["fix"] = "Fix the cause first, then switch it on."
        entry["next"] = suggested(UpdateTrigger, trigger_id=trigger.id, status="Active")
    elif trigger.state is State.BROKEN:
        entry["fix"] = "Repair its connection, then retry the subscription in the dashboard."
        entry["next"] = suggested(GetTrigger, trigger_id=trigger.id)
    return entry


def _without_empty(entry: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    return {name: value for name, value in entry.items() if value not in (None, "", [])}


def _fitting(found: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Shorten the answer to `LONGEST`: apply the `_CUTS`, then drop suggestions and messages of causes."""
    left_out: Counter[str] = Counter()
    for name, least, longest in _CUTS:
        entries = cast("list[JsonValue]", found.get(name, []))
        while len(entries) > least and len(to_json(found)) > longest:
            entries.pop()
            left_out[name] += 1
    for cause in cast("list[dict[str, JsonValue]]", found["causes"]):
        for name in ("fastn_suggests", "message"):
            if len(to_json(found)) > LONGEST:
                cause.pop(name, None)
    if left_out:
        found["left_out"] = {**left_out}
    return found


def _cut(text_: str, longest: int = _SHORT) -> str:
    return text_ if len(text_) <= longest else f"{text_[:longest]}…"
