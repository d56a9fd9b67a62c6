"""Why a workflow fails, or does not run: bounded reads, side by side. What cannot be read is said."""

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any, cast

import anyio
from pydantic import Field, JsonValue

from fastn_mcp.errors import FastnError
from fastn_mcp.offer import Effect, Record
from fastn_mcp.procedures.causes import Cause, Failure, Row, failure, grouped
from fastn_mcp.procedures.findings import Change, Finding, Findings, changes
from fastn_mcp.procedures.health import Bond, Setup, Starter, bonds, setup, starters, text
from fastn_mcp.procedures.moments import first_moment
from fastn_mcp.procedures.procedure import Means, Procedure
from fastn_mcp.procedures.remedies import Evidence, remedy
from fastn_mcp.procedures.target import Call
from fastn_mcp.procedures.verdict import Standing, Success, verdict
from fastn_mcp.tools.audit import QueryAuditLog
from fastn_mcp.tools.connections import ListConnections
from fastn_mcp.tools.executions import GetExecution, ListExecutions
from fastn_mcp.tools.fields import CustomerId, WorkflowId
from fastn_mcp.tools.listing import Listed
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import GetWorkflow

_CAUSES = 3
"""Causes of which the newest run is read in full."""

_CUSTOMERS = 2
"""Customers whose names and connections are read."""


class Diagnosis(Record):
    """How a workflow does, and what would mend it."""


class DiagnoseWorkflow(Procedure[Diagnosis]):
    """Why a workflow fails or does not run, and what would mend it."""

    effect = Effect.READ

    workflow_id: WorkflowId
    customer_id: CustomerId | None = None
    hours: Annotated[int, Field(ge=1, le=720, description="1-720.")] = 72

    @property
    def target(self) -> str | None:
        return self.workflow_id

    async def run(self, means: Means) -> Diagnosis:
        return Diagnosis.model_validate(await _Diagnosing(self, means).findings())


class _Diagnosing:
    """One diagnosis: what was read for it, and what could not be."""

    def __init__(self, asked: DiagnoseWorkflow, means: Means) -> None:
        self._asked = asked
        self._means = means
        self._now = means.system.now()
        self._since = (self._now - timedelta(hours=asked.hours)).isoformat(timespec="seconds").replace("+00:00", "Z")
        self._failed: dict[str, FastnError] = {}
        self._bounded: list[str] = []

    async def findings(self) -> dict[str, JsonValue]:
        """All that was found. Raises a `FastnError` where there is nothing to go by."""
        asked = self._asked
        await self._means.report("reading runs, triggers and changes", 0, 3)
        found = await self._together(
            {
                "workflow": GetWorkflow(workflow_id=asked.workflow_id),
                "failed runs": self._runs("failed", self._since),
                "timed-out runs": self._runs("timeout", self._since),
                "completed runs": self._runs("completed"),  # also older ones: the last success
                "triggers": ListTriggers(limit=100),
                "audit log": QueryAuditLog(resource_id=asked.workflow_id, since=self._since, limit=50),
            }
        )
        failures, more = await self._failures(found)
        if "workflow" in self._failed and not failures:
            raise self._failed["workflow"]
        causes = grouped(failures)
        workflow: Row = _rows([found["workflow"]])[0] if "workflow" in found else {}
        made = setup(workflow)
        started = None
        trigger_rows = self._page(found, "triggers")
        if trigger_rows is not None:
            started = starters(trigger_rows, asked.workflow_id, self._now)
        customers = self._customers(causes, trigger_rows or [])
        await self._means.report("reading the failures and connections", 1, 3)
        full, names, connected = await self._closer(causes[:_CAUSES], customers)
        explained = self._explained(causes[:_CAUSES], full, made, connected, names)
        successes = self._page(found, "completed runs")
        standing = Standing(
            now=self._now,
            hours=asked.hours,
            failures=None if "failed runs" in self._failed and not failures else failures,
            more_failures=more,
            successes=None
            if successes is None
            else [Success(first_moment(row, "createdAt", "startedAt"), _customer(row)) for row in successes],
            more_successes=_goes_on(found.get("completed runs")),
            setup=made,
            starters=started,
        )
        await self._means.report("done", 3, 3)
        return Findings(
            workflow_id=asked.workflow_id,
            verdict=verdict(standing, explained[0].remedy.short if explained else "", names),
            standing=standing,
            causes=explained,
            other_causes=causes[_CAUSES:],
            bonds=self._bonds(connected, made, explained, customers, names),
            changes=self._changes(found, workflow, causes),
            names=names,
            not_checked=[*(f"{what}: {error.what}" for what, error in self._failed.items()), *self._bounded],
        ).data()

    def _runs(self, status: str, since: str | None = None) -> ListExecutions:
        asked = self._asked
        return ListExecutions(
            workflow_id=asked.workflow_id, customer_id=asked.customer_id, status=status, since=since, limit=100
        )

    async def _together(self, calls: dict[str, Call]) -> dict[str, Record]:
        """What these reads bring, as far as they succeed."""
        found: dict[str, Record] = {}

        async def read(what: str, call: Call) -> None:
            try:
                found[what] = await self._means.send(call)
            except FastnError as error:
                self._failed[what] = error

        async with anyio.create_task_group() as group:
            for what, call in calls.items():
                group.start_soon(read, what, call)
        return found

    async def _failures(self, found: dict[str, Record]) -> tuple[list[Failure], bool]:
        """The runs that failed, newest first, of three pages at most, and whether there are more."""
        rows: list[Row] = []
        further: dict[str, Call] = {}
        for what, status in (("failed runs", "failed"), ("timed-out runs", "timeout")):
            rows += self._page(found, what) or []
            if _goes_on(found.get(what)):
                cursor = cast("Listed[Record]", found[what]).next_cursor
                further[f"more {what}"] = self._runs(status, self._since).model_copy(update={"cursor": cursor})
        if further:
            what = next(iter(further))
            third = await self._together({what: further[what]})
            rows += self._page(third, what) or []
            if len(further) > 1 or what in self._failed or _goes_on(third.get(what)):
                self._bounded.append("runs: there are more failures than the three pages that were read")
                return _failures(rows), True
        return _failures(rows), False

    def _page(self, found: dict[str, Record], what: str) -> list[Row] | None:
        """The rows of a page; None where it could not be read."""
        if what not in found:
            return None
        page = cast("Listed[Record]", found[what])
        if page.not_checked:
            self._bounded.append(f"{what}: the rows do not say their {', '.join(page.not_checked)}")
        return _rows(page.items)

    def _customers(self, causes: list[Cause], triggers: list[Row]) -> list[str]:
        """The customers concerned, the most concerned first."""
        if self._asked.customer_id is not None:
            return [self._asked.customer_id]
        failing = [customer for cause in causes for customer in cause.customers]
        return list(dict.fromkeys(failing or [c for row in triggers if self._names(row) and (c := _customer(row))]))

    def _names(self, trigger: Row) -> bool:
        return bool(starters([trigger], self._asked.workflow_id, self._now))

    async def _closer(
        self, causes: list[Cause], customers: list[str]
    ) -> tuple[dict[str, Failure], dict[str, str], list[Row] | None]:
        """The newest run of each cause in full, the names of customers, and connections."""
        calls: dict[str, Call] = {
            f"run {key}": GetExecution(execution_id=key) for cause in causes if (key := cause.newest.execution)
        }
        whose: list[str | None] = [*customers[:_CUSTOMERS]]
        listings = {
            f"connections of {customer or 'the account'}": ListConnections(customer_id=customer, limit=100)
            for customer in (whose if len(whose) == _CUSTOMERS else [*whose, None])
        }
        names: dict[str, str] = {}
        found: dict[str, Record] = {}

        async def name() -> None:
            names.update(await self._means.directory.names("customer", customers[:_CUSTOMERS], self._means.send))

        async def read() -> None:
            found.update(await self._together(calls | listings))

        async with anyio.create_task_group() as group:
            group.start_soon(name)
            group.start_soon(read)
        if len(customers) > _CUSTOMERS:
            self._bounded.append(f"connections: those of {len(customers) - _CUSTOMERS} more customers were not read")
        full = {what.removeprefix("run "): failure(_rows([found[what]])[0]) for what in calls if what in found}
        pages = [self._page(found, what) for what in listings if what in found]
        return full, names, [row for page in pages for row in page or ()] if pages else None

    def _explained(
        self,
        causes: list[Cause],
        full: dict[str, Failure],
        made: Setup,
        connected: list[Row] | None,
        names: dict[str, str],
    ) -> list[Finding]:
        explained: list[Finding] = []
        for cause in causes:
            newest = full.get(cause.newest.execution) or cause.newest
            connector = _connector(newest, made)
            apps = [connector] if connector else made.apps
            there = None if connected is None else bonds(connected, apps, names)
            own = [bond for bond in there or () if bond.customer in cause.customers]
            shared = [bond for bond in there or () if bond.customer is None]
            evidence = Evidence(cause, newest, made, connector, None if there is None else tuple(own or shared))
            explained.append(Finding(cause, newest, remedy(evidence)))
        return explained

    def _bonds(
        self,
        connected: list[Row] | None,
        made: Setup,
        explained: list[Finding],
        customers: list[str],
        names: dict[str, str],
    ) -> list[Bond]:
        apps = {*made.apps, *(app for finding in explained if (app := _connector(finding.newest, made)))}
        there = bonds(connected or [], apps, names)
        return [bond for bond in there if not customers or bond.customer is None or bond.customer in customers]

    def _changes(self, found: dict[str, Record], workflow: Row, causes: list[Cause]) -> list[Change]:
        audited = self._page(found, "audit log") or []
        first = min((seen for cause in causes if (seen := cause.first_seen)), default=None)
        return changes(audited, workflow, self._asked.workflow_id, first)


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


def _goes_on(page: Record | None) -> bool:
    return page is not None and cast("Listed[Record]", page).next_cursor is not None


def _rows(records: Iterable[Any]) -> list[Row]:
    return [cast(Row, record.model_dump(exclude_unset=True)) for record in records]


def _customer(row: Row) -> str | None:
    return text(row, "endOrgId", "customerId") or None


__all__ = ["DiagnoseWorkflow", "Diagnosis", "Starter"]
