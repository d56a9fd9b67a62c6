"""What is read for a diagnosis: runs, connections, triggers, changes, and the names of those affected."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial

import anyio

from fastn_mcp.account.answer_reads import AnswerReads
from fastn_mcp.account.dependence import Unchecked
from fastn_mcp.account.entries import MAX_NAMED
from fastn_mcp.client.reads import read_page
from fastn_mcp.errors import Disabled, FastnError, LeftOut
from fastn_mcp.ledger.change import MADE_OUTCOMES
from fastn_mcp.procedures.checks.account_rows import EVERYTHING, AccountRows, read_account
from fastn_mcp.procedures.checks.check import AccountCheck
from fastn_mcp.procedures.checks.failures import (
    EndedRun,
    FailureGroup,
    Period,
    RunFilter,
    ended_run,
    grouped,
    workflow_of,
)
from fastn_mcp.procedures.checks.finding import Finding
from fastn_mcp.procedures.checks.parts import (
    PartState,
    apps_of,
    broken_for,
    connection_states,
    connections_to,
)
from fastn_mcp.procedures.checks.remedies import Dependencies
from fastn_mcp.procedures.checks.run_counts import (
    OF_CONNECTOR,
    RUN_KINDS,
    RunCounts,
    RunRecord,
    at_connector,
    count_runs,
    read_last_failures,
    read_records,
    run_jobs,
    runs_of,
)
from fastn_mcp.procedures.checks.stuck_runs import StuckRun, read_stuck_runs
from fastn_mcp.procedures.checks.table import run_checks
from fastn_mcp.procedures.checks.triggers import trigger_states
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.diagnosis.subject import Subject
from fastn_mcp.procedures.history import begins_after
from fastn_mcp.procedures.lookup import resolve
from fastn_mcp.procedures.reads import AccountReads, Job, read_back, read_if_short, unique
from fastn_mcp.records.formats import counted
from fastn_mcp.records.labels import ACCOUNT, name_of
from fastn_mcp.records.rows import (
    Row,
    connector_keys,
    key_of,
    number,
    owner_of,
    short,
    started_workflows,
    text,
    timestamp,
)
from fastn_mcp.records.states import BROKEN_STATUSES, RunState, connection_state, run_state
from fastn_mcp.tools.access import EXECUTION, QueryAuditLog
from fastn_mcp.tools.billing import GetQuotas
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import GetExecution, GetWorkflow, ListExecutions, ListWorkflows

MAX_AFFECTED = 3
"""Maximum number of affected workflows and customers of a cause with their numbers."""

MAX_CAUSES = 3
"""Maximum number of causes reported, each with its newest run read in full."""

_TRIGGERS = "triggers"
_WORKFLOWS = "workflows"
_QUOTAS = "quotas"
_NEWEST = "its newest runs"
_OWN = "its connections"

_MAX_PAGES = 10
"""Maximum number of pages of triggers, of workflows, and of connections of each status."""

_LOG = "audit log"
"""Name of the whole audit log."""

_LOG_PAGES = 3
"""Maximum number of its pages that replace reads of each resource."""

_MAX_FURTHER_PAGES = 2
"""Maximum number of pages after the first of all connections, if these replace reads of each status."""

_MAX_RECORDS = 5
"""Maximum number of workflows and customers for which the last success and the first failure since are read."""

_MAX_CONNECTED = 4
"""Maximum number of customers whose connections are read."""

_MAX_CHANGED = 6
"""Maximum number of resources whose changes are read."""

_CHANGES_BEFORE = timedelta(days=1)
"""Time before the first failure from which on changes are reported."""


@dataclass(frozen=True, slots=True)
class Changed:
    """A change of a resource, by Fastn's audit log, by its own row or by this server's journal."""

    at: datetime | None
    by: str
    what: str
    of: str
    """Id of the resource."""
    outcome: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything read for one diagnosis. What the second and third round of reads add has a default."""

    subject: Subject
    counts: RunCounts
    causes: Sequence[FailureGroup]
    """The most frequent first. If no run ended in the period, the causes of the last failures before it."""
    workflows: Mapping[str, Row]
    """Rows by id, as far as they were read."""
    relevant_workflows: Sequence[str]
    """The workflows of the subject, or else the workflows that ran or that triggers of its customer start."""
    quotas: Row
    names: Mapping[str, str]
    """Names of customers and workflows by id."""
    newest: Sequence[EndedRun] = ()
    """The newest run of each of the first causes, in full if it could be read."""
    run_records: Mapping[RunFilter, RunRecord] = field(default_factory=dict[RunFilter, RunRecord])
    connections: Sequence[PartState] = ()
    """All broken connections, and all connections of the customers in `connected`."""
    connected: Collection[str | None] = ()
    """Customers all of whose connections were read."""
    triggers: Sequence[PartState] | None = None
    """Those that start the workflows; all with a problem, if no workflow is given. None if not read."""
    has_more_triggers: bool = False
    other_triggers: int = 0
    """Number of triggers of other customers that start the same workflows."""
    changes: Sequence[Changed] = ()
    """Newest first."""
    gaps: Sequence[Unchecked] = ()
    connections_in_all: int | None = None
    """Number of connections of the subject's connector, including working ones."""
    stuck: Sequence[StuckRun] = ()
    history_begins: str = ""
    """When the history of runs begins, in words, if the period begins before it."""
    starters: Counter[str] = field(default_factory=Counter[str])
    """Number of the runs of the period by what started them, as far as their rows were read."""
    lengths: Mapping[str, Sequence[timedelta]] = field(default_factory=dict[str, Sequence[timedelta]])
    """How long completed runs took, by workflow, as far as they were read."""
    account_findings: Sequence[tuple[AccountCheck, Finding]] = ()
    """What the checks of the account find, if it is the subject."""
    missing_apps: Mapping[str, Row] = field(default_factory=dict[str, Row])
    """Connectors, by slug, that no customer of a cause has connected, as far as they were read."""

    @property
    def dependencies(self) -> Dependencies:
        return Dependencies(
            self.workflows,
            self.connections,
            connected=self.connected,
            missing_apps=self.missing_apps,
            lengths=self.lengths,
        )

    def owner(self, customer: str | None) -> str:
        """Return the name of a customer, or else its id; of None, your own account."""
        return ACCOUNT if customer is None else short(self.names.get(customer, customer))

    def workflow(self, key: str | None) -> str:
        """Return the name of a workflow, or else its id."""
        return short(self.names.get(key or "", key or ""))

    def names_of(self, which: RunFilter) -> list[str]:
        """Return the workflow and the customer of runs, as far as the subject does not name them."""
        workflow = None if len(self.subject.workflows) == 1 else self.workflow(which.workflow)
        customer = None if self.subject.customer else self.owner(which.customer)
        if customer is not None and which.customer not in (None, *self.names):
            customer = "other customers"  # whose names would take a request each
        return [*filter(None, (workflow, customer))] or [self.workflow(which.workflow)]

    @property
    def using_connector(self) -> set[str]:
        """Ids of the workflows that use the subject's connector, as far as they were read."""
        names = {self.subject.connector, text(self.subject.resources["connector"].row, "slug")}
        return {key for key in self.workflows if names.intersection(self.apps(key))}

    def apps(self, workflow: str) -> list[str]:
        return apps_of(self.workflows.get(workflow, {}))

    def connector(self, run: EndedRun) -> str | None:
        """Return the slug of the app at which a run failed."""
        return run.app(self.apps(run.workflow))

    def broken_for(self, cause: FailureGroup) -> list[PartState]:
        """Return the broken connections that the next runs of a cause's workflows for its customers would meet."""
        by_customer: dict[str | None, list[PartState]] = {}
        for connection in self.connections:
            by_customer.setdefault(connection.customer, []).append(connection)
        met: dict[str, PartState] = {}
        for which in cause.filters:
            own = [*by_customer.get(which.customer, ()), *by_customer.get(None, ())]
            workflow = self.workflows.get(which.workflow or "", {})
            met |= {each.id: each for each in broken_for(workflow, which.customer, own)}
        return [*met.values()]

    def completed_since(self, cause: FailureGroup) -> datetime | None:
        """Return when the workflow of a cause's newest run last completed for its customer, if it did after the run."""
        record = self.run_records.get(cause.newest.filter)
        success = record.last_success if record else None
        last = success.at if success else None
        failed = cause.newest.at
        return last if last and failed and last > failed else None

    def missing_app(self, cause: FailureGroup, newest: EndedRun) -> str | None:
        """Return the slug of the app that a cause's runs found no connection to, if none of its customers has one."""
        app = self.connector(newest) if "no active connection" in newest.text else None
        are_read = {*cause.customers} <= {*self.connected}
        owners = {connection.customer for connection in connections_to(filter(None, [app]), self.connections)}
        return app if cause.customers and are_read and owners.isdisjoint(cause.customers) else None

    @property
    def affected(self) -> set[str]:
        """Customers for whom the reported causes occurred."""
        return {key for cause in self.causes[:MAX_CAUSES] for key in cause.customers}

    @property
    def failing_since(self) -> datetime | None:
        """Time of the first failure, as far as it is known."""
        times = [record.since for record in self.run_records.values() if record.since]
        return min([*times, *(at for cause in self.causes for at in cause.times)], default=None)


async def gather(subject: Subject, period: Period, context: ProcedureContext) -> Evidence:
    """Read everything. Raises a `FastnError` if nothing, or neither the subject nor a failed run, can be read."""
    reads = AccountReads(context.look)
    await context.report("Reading runs, connections and triggers", 0, 2)
    evidence = await _read_lists(subject, period, reads)
    await context.report("Reading earlier runs, failures and changes", 1, 2)
    evidence = await _read_details(evidence, reads)
    evidence = await _read_missing_apps(evidence, context)
    changes = await _read_changes(evidence, reads, context)
    begins = await _history(evidence.counts, context.look)
    return replace(evidence, changes=changes, history_begins=begins, gaps=reads.all_gaps())


async def _history(counts: RunCounts, look: AnswerReads) -> str:
    """Return when the history of runs begins, if the period begins before it and no run of the subject is older."""
    period = counts.period
    reaches_back = counts.older or not counts.knows_failures  # without runs there is nothing to say
    begins = None if reaches_back else await begins_after(ListExecutions, period.begin, look, is_empty=False)
    return "" if begins is None else begins.in_words(period.now)


async def _read_lists(subject: Subject, period: Period, reads: AccountReads) -> Evidence:
    counts = await _read_counts(subject, period, reads)
    newest = [*map(ended_run, reads.rows(_NEWEST))]
    workflows = _workflow_rows(subject, reads)
    if subject.connector:
        apps = {key: apps_of(row) for key, row in workflows.items()}
        counts = at_connector(counts, {subject.connector, text(subject.resources["connector"].row, "slug")}, apps)
    failures = counts.failures
    if subject.workflows and not subject.connector:
        failures = failures or await read_last_failures(reads, counts, subject.filters)
    causes = grouped(failures, lambda run: run.cause)
    names = {run.workflow: run.workflow_name for run in (*failures, *newest) if run.workflow_name}
    names |= {key: name_of(row) for key, row in workflows.items() if row}
    runs = await read_stuck_runs(counts, workflows.values(), reads.look)
    counts = replace(counts, knows_under_way=not runs.has_more)
    account_findings: Sequence[tuple[AccountCheck, Finding]] = ()
    if subject.is_account:
        account = AccountRows(reads, counts)
        reads.gaps += account.unknown_states()
        reading = replace(account.reading(), stuck=runs.stuck, unjudged=runs.unjudged)
        account_findings = run_checks(reading)
        names |= {key_of(row): name_of(row) for row in reads.rows("customers")}
    return Evidence(
        subject,
        counts,
        causes,
        workflows=workflows,
        relevant_workflows=subject.workflows or _workflows_that_ran(subject, causes, newest, reads.rows(_TRIGGERS)),
        quotas=reads.records.get(_QUOTAS, {}),
        names=names,
        stuck=runs.stuck,
        starters=_starters(subject, period, reads.look),
        connections_in_all=await _connections_in_all(subject, reads.look),
        account_findings=account_findings,
    )


async def _read_counts(subject: Subject, period: Period, reads: AccountReads) -> RunCounts:
    """Read the lists, and count the runs. Raises a `FastnError` if all reads failed."""
    if subject.is_account:
        account = await read_account(reads, period, EVERYTHING)
        return account.counts
    names_of_lists = await _run_first_reads(subject, period, reads)
    counts = count_runs(reads, period, subject.filters)
    _note_gaps(subject, names_of_lists, counts, reads)
    return counts


async def _run_first_reads(subject: Subject, period: Period, reads: AccountReads) -> list[str]:
    """Run the first reads. Return the names of those that are not of runs. Raises a `FastnError` if all failed."""
    lists = _lists(subject)
    connecting = dict[str, Job]()
    is_small = reads.look.snapshot.pages_left(ListCustomers(limit=100)) == 0
    if is_small or subject.connector or not subject.is_any_of_customer:  # else its own mostly tell: `_read_others`
        own = {_OWN: lists.pop(_OWN)} if _OWN in lists else {}
        connecting = _connection_jobs(subject, own, reads)
    jobs = {name: reads.reading(call, 1 if name == _NEWEST else _MAX_PAGES) for name, call in lists.items()}
    runs = run_jobs(reads, period, subject.filters, OF_CONNECTOR if subject.connector else RUN_KINDS)
    if subject.connector:  # its connections are asked about, should the rate limit leave something out
        await reads.run(connecting)
        await reads.run(runs | jobs)
    else:
        await reads.run(runs | jobs | connecting)
    reads.check()
    return [*jobs, *connecting]


def _note_gaps(subject: Subject, lists: Sequence[str], counts: RunCounts, reads: AccountReads) -> None:
    """Note what was not read. Raises the error of a resource that cannot be read, if no run failed either."""
    for name in filter(reads.has_more, lists):
        read = len(reads.lists[name].rows)
        reads.gaps.append(Unchecked(name, f"only {read} were read" if read else "not all were looked through"))
    for kind, resource in subject.resources.items():
        if resource.error is not None and not counts.failures and not isinstance(resource.error, (Disabled, LeftOut)):
            raise resource.error
        if resource.error is not None:
            reads.failed[kind] = resource.error


def _workflow_rows(subject: Subject, reads: AccountReads) -> dict[str, Row]:
    """Return the rows of workflows by id: of their list, and of those that were read themselves."""
    single = [row for name, row in reads.records.items() if name.startswith("workflow ")]
    if "workflow" in subject.resources:
        single.append(subject.resources["workflow"].row)
    return {key_of(row): row for row in (*reads.rows(_WORKFLOWS), *single)}


def _workflows_that_ran(
    subject: Subject, causes: Sequence[FailureGroup], newest: Sequence[EndedRun], triggers: Sequence[Row]
) -> list[str]:
    """Return the workflows that failed, those that ran, and those that triggers of the customer start."""
    failed = [which.workflow or "" for cause in causes for which in cause.filters]
    ran = [run.workflow for run in newest]
    own = [row for row in triggers if subject.customer and owner_of(row) == subject.customer]
    started = [key for row in own for key in started_workflows(row)]
    return [key for key in dict.fromkeys([*failed, *ran, *started]) if key]


def _starters(subject: Subject, period: Period, look: AnswerReads) -> Counter[str]:
    """Count the stored runs of the period by what started them."""
    stored = [row for which in subject.filters for row in look.stored(runs_of(which, limit=100)).rows]
    return Counter(run.started_by for run in map(ended_run, stored) if run.at and run.at >= period.begin)


async def _connections_in_all(subject: Subject, look: AnswerReads) -> int | None:
    """Return Fastn's number of the subject's connections, if their list was read already."""
    listing = ListConnections(connector_id=subject.connector, limit=100)
    if not look.snapshot.holds(listing):
        return None
    page = await read_page(listing, look)
    return page.total


def _connection_jobs(subject: Subject, own: Mapping[str, Call], reads: AccountReads) -> dict[str, Job]:
    """Return the reads of broken connections, and of `own`. If there are few connections, all are read instead."""
    connecting = anyio.Lock()
    listing = ListConnections(connector_id=subject.connector, limit=100)

    async def read(name: str, call: Call) -> None:
        async with connecting:
            await read_if_short(listing, reads.look, _MAX_FURTHER_PAGES)
        await reads.read_one(name, call, _MAX_PAGES)

    of_status = {
        f"connections of status {each}": listing.model_copy(update={"status": each}) for each in BROKEN_STATUSES
    }
    return {name: partial(read, call=call) for name, call in (of_status | {**own}).items()}


def _lists(subject: Subject) -> dict[str, Call]:
    """Return the first reads, besides the reads of runs and of broken connections, by display name."""
    calls: dict[str, Call] = {}
    if subject.trigger is None or not subject.workflows:
        workflow = subject.workflows[0] if subject.workflows else None
        calls[_TRIGGERS] = ListTriggers(workflow_id=workflow, limit=100)
    if subject.customer:
        calls[_OWN] = ListConnections(customer_id=subject.customer, limit=100)
    if subject.is_any_of_customer:
        calls[_NEWEST] = ListExecutions(customer_id=subject.customer, limit=100)
    if not subject.workflows:
        calls[_WORKFLOWS] = ListWorkflows(limit=100)
    if not subject.workflows and not subject.connector:
        calls[_QUOTAS] = GetQuotas()
    for key in subject.workflows if "workflow" not in subject.resources else ():
        calls[f"workflow {key}"] = GetWorkflow(workflow_id=key)
    return calls


async def _read_details(evidence: Evidence, reads: AccountReads) -> Evidence:
    subject = evidence.subject
    newest = [cause.newest for cause in evidence.causes[:MAX_CAUSES]]
    triggers, others = _triggers(evidence, reads)
    unread = _unexplained_customers(evidence, reads)
    names = _known_names(evidence)
    records = dict[RunFilter, RunRecord]()
    unnamed, most = _customers_to_name(evidence, triggers or (), names, reads)

    async def read_names() -> None:
        names.update(await reads.read_customer_names(unnamed, most))

    async def read_runs() -> None:
        records.update(await _run_records(evidence, reads))

    async with anyio.create_task_group() as group:
        group.start_soon(read_runs)
        group.start_soon(reads.read, _detail_calls(newest, unread))
        group.start_soon(read_names)
    newest = [ended_run(reads.records.get(f"run {run.id}", run.row)) for run in newest]
    lengths = await _lengths_of_completed(evidence, records, reads)
    if subject.is_any_of_customer and not subject.connector:
        await _read_others(evidence, newest, reads)
    connected = {key for key in unread if f"connections of {key}" in reads.lists}
    return replace(
        evidence,
        newest=newest,
        run_records=records,
        lengths=lengths,
        connections=connection_states(unique(_connection_rows(reads)), names),
        connected=connected | ({subject.customer} if _OWN in reads.lists else set()),
        triggers=None if triggers is None else trigger_states(triggers, evidence.counts.period.now, names),
        has_more_triggers=reads.has_more(_TRIGGERS),
        other_triggers=others,
        names=names,
    )


def _known_names(evidence: Evidence) -> dict[str, str]:
    """Return the names of customers that were read so far, by their ids."""
    names = dict(evidence.names)
    customer = evidence.subject.resources.get("customer")
    if customer is not None and customer.row:
        names[customer.id] = name_of(customer.row)
    return names


async def _lengths_of_completed(
    evidence: Evidence, records: Mapping[RunFilter, RunRecord], reads: AccountReads
) -> dict[str, list[timedelta]]:
    """Return how long completed runs took, of the workflows of runs that timed out.

    A page of them is read, unless the runs that were read already show one.
    """
    lengths: dict[str, list[timedelta]] = {}
    timed_out = [cause.newest.workflow for cause in evidence.causes[:MAX_CAUSES] if cause.newest.timed_out]
    for workflow in dict.fromkeys(filter(None, timed_out)):
        last = [record.last_success for which, record in records.items() if which.workflow == workflow]
        rows = [run.row for run in last if run is not None]
        for which in (RunFilter(), RunFilter(workflow), RunFilter(workflow, evidence.subject.customer)):
            rows += [*reads.look.stored(runs_of(which, limit=100)).rows]
        known = _completed_lengths(rows, workflow)
        if not known:
            name = f"completed runs of {evidence.workflow(workflow)}"
            await reads.read({name: runs_of(RunFilter(workflow), status="completed", limit=100)})
            known = _completed_lengths(reads.rows(name), workflow)
        lengths[workflow] = known
    return lengths


def _completed_lengths(rows: Sequence[Row], workflow: str) -> list[timedelta]:
    """Return how long the completed runs of a workflow took, each run once."""
    own = [row for row in unique(rows) if workflow_of(row) == workflow and run_state(row) is RunState.COMPLETED]
    known = (number(row, "durationMs") for row in own)
    return [timedelta(milliseconds=length) for length in known if length is not None]


async def _read_missing_apps(evidence: Evidence, context: ProcedureContext) -> Evidence:
    """Read the connectors of the apps that no customer of a cause has connected."""
    apps = {evidence.missing_app(cause, run) for cause, run in zip(evidence.causes, evidence.newest, strict=False)}
    rows = dict[str, Row]()
    for app in sorted(filter(None, apps)):
        with suppress(FastnError):  # only whether credentials can be typed is then not known
            rows[app] = (await resolve("connector", app, context, fields=("authMethods",))).row
    return replace(evidence, missing_apps=rows)


def _detail_calls(newest: Sequence[EndedRun], customers: Sequence[str]) -> Mapping[str, Call]:
    """Return the reads of runs and of the connections of customers, by display name."""
    runs = {f"run {run.id}": GetExecution(execution_id=run.id) for run in newest if run.id}
    return runs | {f"connections of {key}": ListConnections(customer_id=key, limit=100) for key in customers}


def _connection_rows(reads: AccountReads) -> Sequence[Row]:
    """Return the rows of every list of connections that was read."""
    return reads.rows(*(name for name in reads.lists if "connections" in name))


def _customers_to_name(
    evidence: Evidence, triggers: Sequence[Row], names: Mapping[str, str], reads: AccountReads
) -> tuple[list[str], int]:
    """Return the customers in the answer without a name, and how many of the names to read: all that have a row."""
    first = _customers_of_rows(evidence, reads)
    of_findings = [row.customer for _, finding in evidence.account_findings for row in finding.first_rows]
    of_relevant = [row for row in triggers if not {*started_workflows(row)}.isdisjoint(evidence.relevant_workflows)]
    of_triggers = () if evidence.subject.is_account else map(owner_of, of_relevant)
    mentioned = [*first, evidence.subject.customer, *evidence.affected, *of_findings, *of_triggers]
    unnamed = [key for key in mentioned if key and key not in names]
    return unnamed, max(len({*first}), MAX_NAMED)


def _customers_of_rows(evidence: Evidence, reads: AccountReads) -> list[str]:
    """Return the customers that have a row in the answer."""
    customers = [key for cause in evidence.causes[:MAX_CAUSES] for key in cause.customers[:MAX_AFFECTED]]
    if evidence.subject.connector:
        customers += filter(None, map(owner_of, _connection_rows(reads)))
    return customers + [run.run.customer for run in evidence.stuck if run.run.customer]


async def _run_records(evidence: Evidence, reads: AccountReads) -> dict[RunFilter, RunRecord]:
    """Return how the workflows and customers to look at ran."""
    read = await read_records(reads, evidence.counts, _measured(evidence))
    return {which: _of_its_owner(record, evidence.counts, reads.look) for which, record in read.items()}


async def _read_others(evidence: Evidence, newest: Sequence[EndedRun], reads: AccountReads) -> None:
    """Read all broken connections, if a run may have failed at an app that the customer has not connected."""
    own = {key for row in reads.rows(_OWN) for key in connector_keys(row)}
    apps = (_apps_of_failure(evidence, run) for run in newest)
    if _OWN not in reads.lists or any(of_run and own.isdisjoint(of_run) for of_run in apps):
        await reads.run(_connection_jobs(evidence.subject, {}, reads))


def _apps_of_failure(evidence: Evidence, run: EndedRun) -> set[str]:
    """Return the app at which a run failed; if that is not known, all apps of its workflow."""
    app = evidence.connector(run)
    return {app} if app else {*evidence.apps(run.workflow)}


def _triggers(evidence: Evidence, reads: AccountReads) -> tuple[list[Row] | None, int]:
    """Return the triggers to report, None if they were not read, and the number of other customers' triggers.

    Reported are triggers that start the workflows; for a customer, its own and the account's of its workflows; for a
    connector, triggers that start workflows which use it.
    """
    rows = reads.rows(_TRIGGERS)
    subject = evidence.subject
    workflows = {*evidence.relevant_workflows}
    if subject.connector:
        candidates = evidence.workflows if subject.customer is None else workflows
        workflows = evidence.using_connector.intersection(candidates)
    if subject.trigger is not None:
        return [subject.trigger], 0
    if _TRIGGERS not in reads.lists or not subject.resources:
        return (rows if _TRIGGERS in reads.lists else None), 0
    customer = subject.customer
    starting = [row for row in rows if workflows.intersection(started_workflows(row))]
    reported = [row for row in starting if customer is None or owner_of(row) in (None, customer)]
    others = len(starting) - len(reported)
    if subject.is_any_of_customer and not subject.connector:
        reported += [row for row in rows if owner_of(row) == customer and row not in starting]
    return reported, others


def _measured(evidence: Evidence) -> dict[RunFilter, Sequence[EndedRun]]:
    """Return the failures of the workflows and customers to look at, most failures first."""
    if evidence.subject.connector:
        return {}  # its customers have a row each
    by_filter = {group.newest.filter: group.runs for group in grouped(evidence.counts.failures, lambda run: run.filter)}
    reported = {which for cause in evidence.causes[:MAX_CAUSES] for which in cause.filters}
    wanted = [which for which in by_filter if which in reported and which.workflow]
    if evidence.subject.is_any_of_customer:
        wanted += [RunFilter(key, evidence.subject.customer) for key in evidence.relevant_workflows]
    return {which: by_filter.get(which, []) for which in list(dict.fromkeys(wanted))[:_MAX_RECORDS]}


def _of_its_owner(record: RunRecord, counts: RunCounts, look: AnswerReads) -> RunRecord:
    """Return a record of the account's own runs without numbers of customers' runs, which no filter leaves out."""
    which = record.which
    runs = [run.row for run in (*counts.failures, *filter(None, [record.last_success]))]
    for stored in (runs_of(which, limit=100), runs_of(RunFilter(), limit=100)):
        runs += look.stored(stored).rows
    is_mixed = any(workflow_of(run) == which.workflow and owner_of(run) for run in runs)
    return RunRecord(which, record.failures) if which.customer is None and is_mixed else record


def _unexplained_customers(evidence: Evidence, reads: AccountReads) -> list[str]:
    """Return a few affected customers whose broken connections do not explain their failures."""
    customers: list[str] = []
    broken_rows = [row for row in _connection_rows(reads) if not connection_state(row).is_usable]
    for cause in evidence.causes[:MAX_CAUSES]:
        app = evidence.connector(cause.newest)
        broken = {owner_of(row) for row in broken_rows if app in connector_keys(row)}
        customers += [key for key in cause.customers if key not in (*broken, evidence.subject.customer)][:2]
    return list(dict.fromkeys(customers))[:_MAX_CONNECTED]


async def _read_changes(evidence: Evidence, reads: AccountReads, context: ProcedureContext) -> list[Changed]:
    """Read changes of failing workflows, of broken connections and of the given resources."""
    period = evidence.counts.period
    workflows = evidence.subject.workflows or [run.workflow for run in evidence.newest]
    keys = _keys_that_matter(evidence, workflows)
    first = evidence.failing_since
    begin = period.begin if first is None else first - _CHANGES_BEFORE
    changes = await _audited_changes(keys, begin, reads, context)
    changes += _last_updates(evidence, workflows)
    changes += await _made_here(keys, period, context)
    recent = [change for change in changes if change.at is None or change.at >= begin]
    return sorted(recent, key=lambda change: change.at.timestamp() if change.at else 0.0, reverse=True)


def _keys_that_matter(evidence: Evidence, workflows: Sequence[str]) -> list[str]:
    """Return the ids of the first resources whose changes may explain the failures."""
    affected = evidence.affected
    broken = [c.id for c in evidence.connections if not c.state.is_usable and c.customer in affected]
    subject_ids = [resource.id for resource in evidence.subject.resources.values()]
    return list(dict.fromkeys(filter(None, (*workflows, *broken, *subject_ids))))[:_MAX_CHANGED]


async def _audited_changes(
    keys: Sequence[str], begin: datetime, reads: AccountReads, context: ProcedureContext
) -> list[Changed]:
    """Read the changes of resources in Fastn's audit log: in the whole of it if they are many, else by resource."""
    since = begin.isoformat(timespec="seconds")
    audit = {f"audit log of {key}": key for key in keys}
    calls = {name: QueryAuditLog(resource_id=key, since=since, limit=20) for name, key in audit.items()}
    if len(calls) > 2:
        await reads.run({_LOG: lambda _: read_back(QueryAuditLog(limit=100), context.look, begin, _LOG_PAGES)})
        # Where the newest entries of the whole log do not reach back to the begin, only the first is asked for.
        unread = [name for name, call in [*calls.items()][1:] if not context.look.snapshot.holds(call)]
        for name in unread:
            del calls[name]
        if unread and _LOG not in reads.failed:
            reads.gaps.append(Unchecked(f"older changes of {counted(len(unread), 'resource')}", "see query_audit_log"))
    if _LOG not in reads.failed:
        await reads.read(calls)
    return [*filter(None, (_audited(row, audit[name]) for name in calls for row in reads.rows(name)))]


def _last_updates(evidence: Evidence, workflows: Sequence[str]) -> list[Changed]:
    """Return the last update of each workflow, by its own row."""
    changes: list[Changed] = []
    for key in workflows:
        row = evidence.workflows.get(key, {})
        at = timestamp(row, "updatedAt")
        if at is not None:
            changes.append(Changed(at, text(row, "updatedBy"), "last update", key))
    return changes


async def _made_here(keys: list[str], period: Period, context: ProcedureContext) -> list[Changed]:
    """Return the changes of resources that this server made."""
    changes: list[Changed] = []
    for change in await context.changes.changes(50, period.now.timestamp() + 1):
        if change.target in keys and change.outcome in MADE_OUTCOMES:
            at = datetime.fromtimestamp(change.at, period.now.tzinfo)
            changes.append(Changed(at, "this server", f"{change.tool} ({change.id})", change.target))
    return changes


def _audited(row: Row, key: str) -> Changed | None:
    """Return the change that a row of the audit log records; None if it is a run or of something else."""
    action = text(row, "action", "event", "type")
    named = text(row, "resource.id", "resourceId")
    if action.startswith(EXECUTION) or named not in ("", key):  # without a resource it is taken to match
        return None
    by = text(row, "actor.name", "actor", "user.name", "user", "actorName")
    return Changed(timestamp(row, "timestamp", "createdAt", "at"), by, action, of=key, outcome=text(row, "outcome"))
