"""The tool `diagnose_workflow`: why a workflow fails or does not run, by bounded reads."""

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated

import anyio
from pydantic import Field, JsonValue

from fastn_mcp.fastn.rows import Row, owner_of, text, timestamp
from fastn_mcp.fastn.targets import Call
from fastn_mcp.procedures.context import Procedure, ProcedureContext
from fastn_mcp.procedures.diagnosis.failure_groups import Failure, FailureGroup, failure, grouped
from fastn_mcp.procedures.diagnosis.findings import (
    DiagnosisResult,
    FailureFinding,
    RunSummary,
    Success,
    changes,
    verdict,
)
from fastn_mcp.procedures.diagnosis.remedies import FailureEvidence, remedy
from fastn_mcp.procedures.diagnosis.workflow_state import (
    ConnectionState,
    Setup,
    connection_states,
    setup,
    trigger_states,
)
from fastn_mcp.procedures.reads import ReadRecord
from fastn_mcp.tools.account import QueryAuditLog
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.fields import CustomerId, WorkflowId
from fastn_mcp.tools.tool import Effect, FastnObject
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import GetExecution, GetWorkflow, ListExecutions

_WORKFLOW, _FAILED, _TIMED_OUT, _COMPLETED = "workflow", "failed runs", "timed-out runs", "completed runs"
_TRIGGERS, _AUDIT = "triggers", "audit log"

_CAUSES = 3
"""Causes of which the newest run is read in full."""

_TRIGGER_PAGES = 5

_CUSTOMERS = 2
"""Customers whose names and connections are read."""


class Diagnosis(FastnObject):
    """How a workflow does, and what would mend it."""


class DiagnoseWorkflow(Procedure[Diagnosis]):
    """Why a workflow fails or does not run, and what would mend it."""

    effect = Effect.READ

    workflow_id: WorkflowId
    customer_id: Annotated[CustomerId | None, Field(description="Only this customer.")] = None
    hours: Annotated[int, Field(ge=1, le=720, description="1-720, default 72.")] = 72

    @property
    def target(self) -> str | None:
        return self.workflow_id

    async def run(self, means: ProcedureContext) -> Diagnosis:
        return Diagnosis.model_validate(await _Diagnosing(self, means).findings())


class _Diagnosing:
    """One diagnosis."""

    def __init__(self, asked: DiagnoseWorkflow, means: ProcedureContext) -> None:
        self._asked = asked
        self._means = means
        self._now = means.system.now()
        self._since = (self._now - timedelta(hours=asked.hours)).isoformat(timespec="seconds").replace("+00:00", "Z")
        self._reading = ReadRecord(means.read)
        self._more_triggers = False
        self._read: list[str] = []

    async def findings(self) -> dict[str, JsonValue]:
        """All that was found. Raises a `FastnError` where there is nothing to go by."""
        asked, reading = self._asked, self._reading
        await self._means.report("reading runs, triggers and changes", 0, 2)
        await reading.together(
            {
                _WORKFLOW: GetWorkflow(workflow_id=asked.workflow_id),
                _FAILED: self._runs("failed", self._since),
                _TIMED_OUT: self._runs("timeout", self._since),
                _COMPLETED: self._runs("completed"),  # also older ones: the last success
                _TRIGGERS: ListTriggers(limit=100),
                _AUDIT: QueryAuditLog(resource_id=asked.workflow_id, since=self._since, limit=50),
            }
        )
        failures, more = await self._failures()
        if _WORKFLOW in reading.failed and not failures:
            raise reading.failed[_WORKFLOW]
        causes = grouped(failures)
        # Where nothing fails, the question is what starts it.
        triggers = await self._triggers(pages=2 if failures else _TRIGGER_PAGES)
        summary = self._summary(failures, more, triggers)
        customers = self._customers(causes, triggers or [])
        await self._means.report("reading the failures and connections", 1, 2)
        full, names, connected = await self._closer(causes[:_CAUSES], customers)
        explained = [
            self._explained(cause, full.get(cause.newest.execution, cause.newest), summary.setup, connected, names)
            for cause in causes[:_CAUSES]
        ]
        first = min((seen for cause in causes if (seen := cause.first_seen)), default=None)
        workflow = reading.row(_WORKFLOW) or {}
        return DiagnosisResult(
            workflow_id=asked.workflow_id,
            verdict=verdict(summary, explained[0].remedy.short if explained else "", names),
            summary=summary,
            causes=explained,
            other_causes=causes[_CAUSES:],
            connections=self._connections(connected, summary.setup, explained, customers, names),
            changes=changes(reading.page(_AUDIT) or [], workflow, asked.workflow_id, first),
            names=names,
            not_checked=reading.not_checked(),
        ).data()

    def _runs(self, status: str, since: str | None = None) -> ListExecutions:
        asked = self._asked
        return ListExecutions(
            workflow_id=asked.workflow_id, customer_id=asked.customer_id, status=status, since=since, limit=100
        )

    async def _failures(self) -> tuple[list[Failure], bool]:
        """The runs that failed, newest first, of three pages at most, and whether there are more."""
        reading = self._reading
        found = [row for what in (_FAILED, _TIMED_OUT) for row in reading.page(what) or ()]
        statuses = {_FAILED: "failed", _TIMED_OUT: "timeout"}
        further = {what: cursor for what in statuses if (cursor := reading.following(what)) is not None}
        if not further:
            return _failures(found), False
        what, cursor = next(iter(further.items()))
        third = f"more {what}"
        await reading.together({third: self._runs(statuses[what], self._since).model_copy(update={"cursor": cursor})})
        found += reading.page(third) or []
        more = len(further) > 1 or third in reading.failed or reading.following(third) is not None
        if more:
            reading.bounds.append("runs: there are more than the three pages of failures that were read")
        return _failures(found), more

    async def _triggers(self, pages: int) -> list[Row] | None:
        """The rows of so many pages of triggers; None where they could not be read."""
        reading, what = self._reading, _TRIGGERS
        found = reading.page(what)
        for number in range(2, pages + 1):
            cursor = reading.following(what)
            if cursor is None or found is None:
                break
            what = f"triggers, page {number}"
            await reading.together({what: ListTriggers(limit=100, cursor=cursor)})
            found += reading.page(what) or []
        self._more_triggers = found is not None and (reading.following(what) is not None or what in reading.failed)
        if self._more_triggers:
            reading.bounds.append(f"triggers: only {len(found or [])} were read")
        return found

    def _summary(self, failures: list[Failure], more: bool, triggers: list[Row] | None) -> RunSummary:
        reading = self._reading
        completed = reading.page(_COMPLETED)
        unread = _FAILED in reading.failed and not failures
        return RunSummary(
            now=self._now,
            hours=self._asked.hours,
            failures=None if unread else failures,
            more_failures=more,
            successes=None if completed is None else [_success(row) for row in completed],
            more_successes=reading.following(_COMPLETED) is not None,
            setup=setup(reading.row(_WORKFLOW) or {}),
            triggers=None if triggers is None else trigger_states(triggers, self._asked.workflow_id, self._now),
            more_triggers=self._more_triggers,
        )

    def _customers(self, causes: list[FailureGroup], triggers: list[Row]) -> list[str]:
        """The customers concerned, the most concerned first; those of its triggers where none failed."""
        if self._asked.customer_id is not None:
            return [self._asked.customer_id]
        failing = dict.fromkeys(customer for cause in causes for customer in cause.customers)
        starting = [
            c for row in triggers if trigger_states([row], self._asked.workflow_id, self._now) and (c := owner_of(row))
        ]
        return list(failing or dict.fromkeys(starting))

    async def _closer(
        self, causes: list[FailureGroup], customers: list[str]
    ) -> tuple[dict[str, Failure], dict[str, str], list[Row] | None]:
        """The newest run of each cause in full, the names of customers, and connections."""
        reading = self._reading
        runs: dict[str, Call] = {
            f"run {key}": GetExecution(execution_id=key) for cause in causes if (key := cause.newest.execution)
        }
        self._read = read = customers[:_CUSTOMERS]
        listings: dict[str, Call] = {
            f"connections of {key}": ListConnections(customer_id=key, limit=100) for key in read
        }
        if len(read) < _CUSTOMERS:
            listings["connections of the account"] = ListConnections(limit=100)
        names: dict[str, str] = {}

        async def name() -> None:
            names.update(await self._means.directory.names("customer", read, self._means.read))

        async with anyio.create_task_group() as group:
            group.start_soon(name)
            group.start_soon(reading.together, runs | listings)
        if len(customers) > len(read):
            reading.bounds.append(f"connections of {len(customers) - len(read)} more customers")
        full = {what.removeprefix("run "): failure(row) for what in runs if (row := reading.row(what)) is not None}
        pages = [page for what in listings if (page := reading.page(what)) is not None]
        return full, names, [row for page in pages for row in page] if pages else None

    def _explained(
        self, cause: FailureGroup, newest: Failure, made: Setup, connected: list[Row] | None, names: dict[str, str]
    ) -> FailureFinding:
        connector = _connector(newest, made)
        there = connection_states(connected or [], [connector] if connector else made.apps, names)
        own = [connection for connection in there if connection.customer in cause.customers]
        known = own or [connection for connection in there if connection.customer is None]
        unread = connected is None or (cause.customers and not {*cause.customers} & {*self._read})
        evidence = FailureEvidence(cause, newest, made, connector, None if unread else tuple(known))
        return FailureFinding(cause, newest, remedy(evidence))

    def _connections(
        self,
        connected: list[Row] | None,
        made: Setup,
        explained: list[FailureFinding],
        customers: list[str],
        names: dict[str, str],
    ) -> list[ConnectionState]:
        apps = {*made.apps, *(app for finding in explained if (app := _connector(finding.newest, made)))}
        there = connection_states(connected or [], apps, names)
        return [
            connection
            for connection in there
            if not customers or connection.customer is None or connection.customer in customers
        ]


def _failures(rows: Iterable[Row]) -> list[Failure]:
    """Each run once, newest first."""
    once = {text(row, "id") or str(number): failure(row) for number, row in enumerate(rows)}
    return sorted(once.values(), key=lambda found: found.at.timestamp() if found.at else 0.0, reverse=True)


def _connector(found: Failure, made: Setup) -> str | None:
    """Slug of the app at which a run failed."""
    named = re.match(r"connector\.([\w-]+)", found.failed_at) or re.search(
        r'connector "([\w-]+)"', f"{found.message} {found.headline}"
    )
    return named[1] if named else next((app for app in made.apps if app.casefold() in found.text), None)


def _success(row: Row) -> Success:
    return Success(timestamp(row, "createdAt", "startedAt"), owner_of(row))
