"""What is read for a diagnosis: runs, connections, triggers, changes, and the names of those affected."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import anyio

from fastn_mcp.account.dependents import Unchecked
from fastn_mcp.account.targets import Call
from fastn_mcp.guard.changes import MADE
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.diagnosis.account_parts import (
    PartState,
    WorkflowSetup,
    connection_states,
    trigger_states,
    workflow_setup,
)
from fastn_mcp.procedures.diagnosis.failures import EndedRun, FailureGroup, Period, Scope, ended_run, grouped
from fastn_mcp.procedures.diagnosis.run_counts import RunReads
from fastn_mcp.procedures.lookup import FoundResource
from fastn_mcp.procedures.reads import Job
from fastn_mcp.records.labels import name_of
from fastn_mcp.records.rows import Row, connector_keys, key_of, owner_of, started_workflows, text, timestamp
from fastn_mcp.records.states import NOT_WORKING, State
from fastn_mcp.tools.account import GetQuotas, QueryAuditLog
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import GetExecution, GetWorkflow, ListExecutions, ListWorkflows

CAUSES = 3
"""Maximum number of causes reported, each with its newest run read in full."""

_TRIGGERS, _WORKFLOWS, _QUOTAS, _NEWEST = "triggers", "workflows", "quotas", "its newest runs"

_PAGES = 10
"""Maximum number of pages of triggers, of workflows, and of connections of each status."""

_RECORDS = 8
"""Maximum number of workflows and customers for which the last success and the first failure since are read."""

_CONNECTED, _CHANGED = 4, 6
"""Maximum number of customers whose connections, and of resources whose changes are read."""

_BEFORE = timedelta(days=1)
"""Time before the first failure from which on changes are reported."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is diagnosed: resources by kind; the whole account if none is given."""

    given: dict[str, FoundResource]

    @property
    def trigger(self) -> Row | None:
        return self.given["trigger"].row if "trigger" in self.given else None

    @property
    def customer(self) -> str | None:
        """Id of the customer: the given one, or the trigger's."""
        return self.given["customer"].id if "customer" in self.given else owner_of(self.trigger or {})

    @property
    def workflows(self) -> list[str]:
        """Ids of the workflows: the given one, or the first of those that the trigger starts."""
        started = started_workflows(self.trigger or {})[:_RECORDS]
        return [self.given["workflow"].id] if "workflow" in self.given else started

    @property
    def is_any_of_customer(self) -> bool:
        """Whether the runs are those of one customer, of any workflow."""
        return self.customer is not None and not self.workflows

    @property
    def scopes(self) -> list[Scope]:
        if self.trigger is not None and not self.workflows:
            return []
        return [Scope(workflow, self.customer) for workflow in self.workflows or [None]]


@dataclass(frozen=True, slots=True)
class Changed:
    """A change of a resource, by Fastn's audit log, by its own row or by this server's journal."""

    at: datetime | None
    by: str
    what: str
    of: str
    """Id of the resource."""
    outcome: str = ""


class Evidence(RunReads):
    """Everything read for one diagnosis."""

    def __init__(self, subject: Subject, period: Period, context: ProcedureContext) -> None:
        super().__init__(context, period, subject.scopes)
        self.subject = subject
        self.causes: list[FailureGroup] = []
        """The most frequent first."""
        self.newest: list[EndedRun] = []
        """The newest run of each of the first causes, in full if it could be read."""
        self.workflows: dict[str, Row] = {}
        """Rows by id, as far as they were read."""
        self.names: dict[str, str] = {}
        """Names of customers and workflows by id."""
        self.connections: list[PartState] = []
        """All that do not work, and those of the customers in `connected`."""
        self.connected: set[str] = set()
        """Customers all of whose connections were read."""
        self.triggers: list[PartState] | None = None
        """Those that start the workflows; all with a problem, if no workflow is given. None if not read."""
        self.changes: list[Changed] = []
        """Newest first."""

    async def take(self) -> None:
        """Read everything. Raises a `FastnError` if the subject cannot be read and no failed run was found."""
        await self.context.report("Reading runs, connections and triggers", 0, 2)
        lists = self._jobs()
        await self.run(self.run_jobs() | lists)
        failures = self.failures
        for name in filter(self.has_more, lists):
            self.gaps.append(Unchecked(name, f"only {len(self.lists[name].rows)} were read"))
        for kind, found in self.subject.given.items():
            if found.error is not None and not failures:
                raise found.error
            if found.error is not None:
                self.failed[kind] = found.error
        self.causes = grouped(failures, lambda run: run.cause)
        self._take_workflows()
        await self.context.report("Reading earlier runs, failures and changes", 1, 2)
        triggers = self._relevant_triggers()
        measured = self._measured()
        runs = {
            f"run {run.id}": GetExecution(execution_id=run.id)
            for cause in self.causes[:CAUSES]
            if (run := cause.newest).id
        }
        unread = self._unread_customers()
        connections = {f"connections of {key}": ListConnections(customer_id=key, limit=100) for key in unread}
        async with anyio.create_task_group() as group:
            group.start_soon(self.read_records, measured)
            group.start_soon(self.read, runs | connections)
            group.start_soon(self._read_names, triggers or [])
        self.connected = {key for key in unread if f"connections of {key}" in self.lists}
        if self.subject.customer and "its connections" in self.lists:
            self.connected.add(self.subject.customer)
        newest = [cause.newest for cause in self.causes[:CAUSES]]
        self.newest = [ended_run(self.records.get(f"run {run.id}", run.row)) for run in newest]
        rows = self.rows(*(name for name in self.lists if "connections" in name))
        self.connections = connection_states({key_of(row) or str(row): row for row in rows}.values(), self.names)
        self.triggers = None if triggers is None else trigger_states(triggers, self.period.now, self.names)
        await self._read_changes()

    def _jobs(self) -> dict[str, Job]:
        """Return the reads beside those of runs."""
        subject = self.subject
        calls: dict[str, Call] = {
            f"connections that are {status}": ListConnections(status=status, limit=100) for status in NOT_WORKING
        }
        calls[_TRIGGERS] = ListTriggers(limit=100)
        if not subject.workflows:
            calls[_WORKFLOWS] = ListWorkflows(limit=100)
        if subject.customer:
            calls["its connections"] = ListConnections(customer_id=subject.customer, limit=100)
        if subject.is_any_of_customer:
            calls[_NEWEST] = ListExecutions(customer_id=subject.customer, limit=100)
        if not subject.workflows:
            calls[_QUOTAS] = GetQuotas()
        for key in subject.workflows if "workflow" not in subject.given else ():
            calls[f"workflow {key}"] = GetWorkflow(workflow_id=key)
        return {name: self.reading(call, 1 if name == _NEWEST else _PAGES) for name, call in calls.items()}

    @property
    def quotas(self) -> Row:
        return self.records.get(_QUOTAS, {})

    def _take_workflows(self) -> None:
        read = [row for name, row in self.records.items() if name.startswith("workflow ")]
        given = [self.subject.given["workflow"].row] if "workflow" in self.subject.given else []
        self.workflows = {key_of(row): row for row in (*self.rows(_WORKFLOWS), *read, *given)}
        runs = [*self.failures, *map(ended_run, self.rows(_NEWEST))]
        self.names = {run.workflow: run.workflow_name for run in runs if run.workflow_name}
        self.names |= {key: name_of(row) for key, row in self.workflows.items() if row}

    def setup(self, workflow: str) -> WorkflowSetup:
        return workflow_setup(self.workflows.get(workflow, {}))

    def workflows_of_customer(self) -> list[str]:
        """Return the workflows that ran for the customer, or that its own triggers start."""
        runs = [run.workflow for run in map(ended_run, self.rows(_NEWEST))]
        customer = self.subject.customer
        own = [row for row in self.rows(_TRIGGERS) if customer and owner_of(row) == customer]
        failed = [scope.workflow or "" for cause in self.causes for scope in cause.scopes]
        return [
            key
            for key in dict.fromkeys([*failed, *runs, *(key for row in own for key in started_workflows(row))])
            if key
        ]

    @property
    def relevant_workflows(self) -> list[str]:
        """The workflows of the subject, or else those of its customer."""
        return self.subject.workflows or self.workflows_of_customer()

    def _relevant_triggers(self) -> list[Row] | None:
        """Return the triggers that start the workflows; for a customer, its own and the account's of its workflows."""
        rows, subject = self.rows(_TRIGGERS), self.subject
        if _TRIGGERS not in self.lists:
            return None
        if subject.trigger is not None:
            return [subject.trigger]
        workflows = {*self.relevant_workflows}
        if not subject.given:
            return list(rows)
        return [
            row
            for row in rows
            if (
                workflows.intersection(started_workflows(row))
                and (subject.customer is None or owner_of(row) in (None, subject.customer))
            )
            or (subject.is_any_of_customer and owner_of(row) == subject.customer)
        ]

    @property
    def other_triggers(self) -> int:
        """Number of triggers of other customers that start the same workflows."""
        subject = self.subject
        if subject.customer is None or subject.trigger is not None:
            return 0
        workflows = {*self.relevant_workflows}
        rows = [row for row in self.rows(_TRIGGERS) if workflows.intersection(started_workflows(row))]
        return sum(owner_of(row) not in (None, subject.customer) for row in rows)

    def _measured(self) -> dict[Scope, Sequence[EndedRun]]:
        """Return the failures of the workflows and customers to look at, those with most failures first."""
        by_scope = {group.newest.scope: group.runs for group in grouped(self.failures, lambda run: run.scope)}
        reported = {scope for cause in self.causes[:CAUSES] for scope in cause.scopes}
        scopes = [scope for scope in by_scope if scope in reported and scope.workflow]
        if self.subject.is_any_of_customer:
            scopes += [Scope(key, self.subject.customer) for key in self.workflows_of_customer()]
        return {scope: by_scope.get(scope, []) for scope in list(dict.fromkeys(scopes))[:_RECORDS]}

    def _unread_customers(self) -> list[str]:
        """Return a few affected customers whose broken connections do not explain their failures."""
        found: list[str] = []
        unusable = self.rows(*(name for name in self.lists if name.startswith("connections that are")))
        for cause in self.causes[:CAUSES]:
            app = self.connector(cause.newest)
            broken = {owner_of(row) for row in unusable if app in connector_keys(row)}
            found += [key for key in cause.customers if key not in broken and key != self.subject.customer][:2]
        return list(dict.fromkeys(found))[:_CONNECTED]

    def connector(self, run: EndedRun) -> str | None:
        """Return the slug of the app at which a run failed."""
        return run.app(self.setup(run.workflow).apps)

    async def _read_names(self, triggers: Sequence[Row]) -> None:
        """Read the names of the customers that the answer may mention."""
        given = self.subject.given.get("customer")
        if given is not None and given.row:
            self.names[given.id] = name_of(given.row)
        mentioned = {*self._affected, *map(owner_of, triggers), self.subject.customer}
        wanted = [key for key in mentioned if key and key not in self.names]
        self.names |= await self.read_customer_names(wanted)

    @property
    def _affected(self) -> set[str]:
        """Customers for whom the reported causes occurred."""
        return {key for cause in self.causes[:CAUSES] for key in cause.customers}

    @property
    def failing_since(self) -> datetime | None:
        """Time of the first failure, as far as it is known."""
        times = [record.since for record in self.run_records.values() if record.since]
        return min([*times, *(at for cause in self.causes for at in cause.times)], default=None)

    async def _read_changes(self) -> None:
        """Read changes of the workflows that fail, of connections that do not work, and of the given resources."""
        workflows = self.subject.workflows or [run.workflow for run in self.newest]
        affected = self._affected
        broken = [c.id for c in self.connections if c.state is not State.LIVE and c.customer in affected]
        given = [found.id for found in self.subject.given.values()]
        keys = list(dict.fromkeys(filter(None, (*given, *workflows, *broken))))
        audit = {f"audit log of {key}": QueryAuditLog(resource_id=key, limit=20) for key in keys[:_CHANGED]}
        await self.read(audit)
        refused = [name for name in audit if name in self.failed]
        if len(refused) > 1:  # the log is for owners and admins only: it is refused once
            self.failed["audit log"] = self.failed[refused[0]]
            for name in refused:
                del self.failed[name]
        found = [_audited(row, key) for key in keys[:_CHANGED] for row in self.rows(f"audit log of {key}")]
        for key in workflows:
            row = self.workflows.get(key, {})
            if (at := timestamp(row, "updatedAt")) is not None:
                found.append(Changed(at, text(row, "updatedBy"), "last update", key))
        made = await self.context.journal.changes(self.context.account, 50, self.period.now.timestamp() + 1)
        for change in made:
            if change.target in keys and change.outcome in MADE:
                at = datetime.fromtimestamp(change.at, self.period.now.tzinfo)
                found.append(Changed(at, "this server", f"{change.tool} ({change.id})", change.target))
        first = self.failing_since
        begin = self.period.begin if first is None else first - _BEFORE
        recent = [change for change in found if change and (change.at is None or change.at >= begin)]
        self.changes = sorted(recent, key=lambda change: change.at.timestamp() if change.at else 0.0, reverse=True)


def _audited(row: Row, key: str) -> Changed | None:
    """Return the change that a row of the audit log records; None if it is a run or of something else."""
    action, named = text(row, "action", "event", "type"), text(row, "resource.id", "resourceId")
    if action.startswith("workflow.execute") or named not in ("", key):  # without a resource it is taken to match
        return None
    by = text(row, "actor.name", "actor", "user.name", "user", "actorName")
    return Changed(timestamp(row, "timestamp", "createdAt", "at"), by, action, key, text(row, "outcome"))
