"""Exact numbers of runs in a period, and how a workflow has run for a customer since its last success."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

import anyio
from pydantic import JsonValue

from fastn_mcp.account.dependents import Unchecked
from fastn_mcp.account.targets import MAX_LOOKUPS, PagesRead, read_pages
from fastn_mcp.errors import FastnError
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.diagnosis.failures import EndedRun, Period, Scope, ended_run, newest_first
from fastn_mcp.procedures.reads import AccountReads, Job
from fastn_mcp.records.formats import age, aged, counted
from fastn_mcp.tools.paging import Position
from fastn_mcp.tools.workflows import ListExecutions

FAILED, TIMED_OUT = "failed runs", "timed-out runs"
_COMPLETED, _ALL, _OLDER, _SUCCESSES = "completed runs", "runs", "older runs", "successes"

_PAGES = 50
"""Maximum number of pages of failed runs read for one answer, and as many of timed-out ones."""

_PAGE = 100
_FEW_PAGES = 3


def _runs(scope: Scope, **filters: Any) -> ListExecutions:
    named = {"workflow_id": scope.workflow, "customer_id": scope.customer, "limit": 1}
    return ListExecutions.model_validate(named | filters)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """How the runs of a scope ended. None and False if something could not be read."""

    scope: Scope
    failures: Sequence[EndedRun] = ()
    """Failures in the period, newest first."""
    runs: int | None = None
    """Number of all runs in the period."""
    completed: int | None = None
    """Number of runs completed in the period."""
    last_success: EndedRun | None = None
    knows_success: bool = False
    """Whether `last_success` is certain, or it is certain that there is none."""
    since: datetime | None = None
    """Time of the first failure after the last success; None if no run has failed since."""
    knows_since: bool = False
    """Whether no earlier failure can be `since`."""

    def last_success_in_words(self, now: datetime) -> str:
        """Return when the last success was; empty if it is not known."""
        if self.last_success is not None:
            return aged(self.last_success.at, now) if self.last_success.at else ""
        return "none found" if self.knows_success else ""

    @property
    def is_failing(self) -> bool:
        """Whether all failures in the period came after the last success."""
        if not self.failures or not self.knows_success:
            return False
        last = self.last_success and self.last_success.at
        return last is None or all(run.at is None or run.at > last for run in self.failures)


class RunReads(AccountReads):
    """Runs in a period of some scopes that do not overlap, with other reads for the same answer."""

    def __init__(self, context: ProcedureContext, period: Period, scopes: Iterable[Scope]) -> None:
        super().__init__(context.read)
        self.context = context
        self.run_records: dict[Scope, RunRecord] = {}
        self.period = period
        self.scopes = tuple(scopes)

    def run_jobs(self) -> dict[str, Job]:
        """Return the reads of the failed runs, of the numbers of runs, and of the last success."""
        since = self.period.since
        jobs: dict[str, Job] = {}
        for scope in self.scopes:
            lists = {
                FAILED: self.reading(_runs(scope, status="failed", since=since, limit=_PAGE), _PAGES),
                TIMED_OUT: self.reading(_runs(scope, status="timeout", since=since, limit=_PAGE), _PAGES),
                _COMPLETED: self.reading(_runs(scope, status="completed", since=since)),
                _ALL: self.reading(_runs(scope, since=since)),
                _OLDER: self.reading(_runs(scope, until=since)),
                _SUCCESSES: self.reading(_runs(scope, status="completed")),
            }
            jobs |= {self._name(kind, scope): job for kind, job in lists.items()}
        return jobs

    def _name(self, kind: str, scope: Scope) -> str:
        return kind if len(self.scopes) == 1 else f"{kind} of {scope.workflow}"

    def _names(self, *kinds: str) -> list[str]:
        return [self._name(kind, scope) for scope in self.scopes for kind in kinds]

    @property
    def has_failures_unread(self) -> bool:
        """Whether some failed runs of the period were not read."""
        return any(name not in self.lists or self.has_more(name) for name in self._names(FAILED, TIMED_OUT))

    @property
    def knows_failures(self) -> bool:
        """Whether any list of failed runs could be read, or there is none to read."""
        names = self._names(FAILED, TIMED_OUT)
        return not names or any(name in self.lists for name in names)

    @cached_property
    def failures(self) -> list[EndedRun]:
        """Failed runs that were read, newest first. Records a gap if there are more."""
        names = self._names(FAILED, TIMED_OUT)
        for name in filter(self.has_more, names):
            whole = self.lists[name].total
            of = "" if whole is None else f" of {whole:,}"
            why = f"only the newest {len(self.lists[name].rows):,}{of} were read; causes are counted in those"
            self.gaps.append(Unchecked(f"older {name}", why))
        return newest_first(self.rows(*names))

    @property
    def failures_of_runs(self) -> str:
        """The failures of all runs: `9 of 12 runs`."""
        count, runs = len(self.failures), self.runs
        if runs is None:
            return counted(count, "run", at_least=self.has_failures_unread)
        return f"{'at least ' * self.has_failures_unread}{count:,} of {runs:,} runs"

    @property
    def knows_success(self) -> bool:
        """Whether a last success was found, or there certainly is none."""
        if self.last_success is not None:
            return True
        return all(name in self.lists and not self.has_more(name) for name in self._names(_SUCCESSES))

    @cached_property
    def last_success(self) -> EndedRun | None:
        """The newest completed run, also from before the period."""
        return self._newest(_SUCCESSES)

    @property
    def last_success_at(self) -> datetime | None:
        return self.last_success and self.last_success.at

    @property
    def last_success_in_words(self) -> str:
        if self.last_success_at is not None:
            return f"last success {age(self.last_success_at, self.period.now)}"
        if self.last_success:
            return "last success unknown"
        return "no success found" if self.knows_success else "successes could not be read"

    @cached_property
    def last_before(self) -> EndedRun | None:
        """The newest run from before the period."""
        return self._newest(_OLDER)

    def _newest(self, kind: str) -> EndedRun | None:
        return next(iter(newest_first(self.rows(*self._names(kind)))), None)

    @property
    def ever(self) -> int | None:
        """Number of all runs; None if it is not known."""
        older, period = self._sum(_OLDER), self.runs
        return None if older is None or period is None else older + period

    @property
    def runs(self) -> int | None:
        """Number of all runs in the period; None if Fastn's totals are not plausible."""
        return self._sum(_ALL) if self.totals() else None

    @property
    def completed(self) -> int | None:
        """Number of runs completed in the period; None if Fastn's totals are not plausible."""
        return self._sum(_COMPLETED) if self.totals() else None

    def totals(self) -> dict[str, JsonValue]:
        """Return the numbers of runs in the period by how they ended; empty if Fastn's totals are not plausible."""
        return run_totals(*map(self._sum, (_OLDER, _ALL, _COMPLETED, FAILED, TIMED_OUT)))

    def _sum(self, kind: str) -> int | None:
        counts = [self.total(name) for name in self._names(kind)]
        return None if None in counts else sum(filter(None, counts))

    async def read_customer_names(self, ids: Collection[str]) -> dict[str, str]:
        """Return the names of these customers, as far as they could be read."""
        directory, read = self.context.directory, self.context.read
        if len(ids) > MAX_LOOKUPS:
            try:
                await directory.contents("customer", read)
            except FastnError as error:
                self.failed["names of customers"] = error
        return await directory.names("customer", ids, read)

    async def read_records(self, failures: Mapping[Scope, Sequence[EndedRun]]) -> None:
        """Read how the runs of each scope ended, given its failures in the period, newest first."""

        async def read(scope: Scope) -> None:
            try:
                self.run_records[scope] = await self._record(scope, failures[scope])
            except FastnError as error:
                self.failed["earlier runs"] = error
                self.run_records[scope] = RunRecord(scope, failures[scope])

        async with anyio.create_task_group() as group:
            for scope in failures:
                group.start_soon(read, scope)

    async def _record(self, scope: Scope, failures: Sequence[EndedRun]) -> RunRecord:
        read: dict[str, PagesRead] = {}
        errors: list[FastnError] = []

        async def newest(kind: str, call: ListExecutions) -> None:
            try:
                found = await read_pages(call, self._send, 1)
                if not found.rows and not found.is_complete:  # Fastn did not filter
                    found = await read_pages(call.model_copy(update={"limit": _PAGE}), self._send, _FEW_PAGES)
                read[kind] = found
            except FastnError as error:  # a task group would raise it as an exception group
                errors.append(error)

        async with anyio.create_task_group() as group:
            group.start_soon(newest, _COMPLETED, _runs(scope, status="completed", since=self.period.since))
            group.start_soon(newest, _ALL, _runs(scope, since=self.period.since))
        if not errors and not read[_COMPLETED].rows:
            await newest(_SUCCESSES, _runs(scope, status="completed"))
        if errors:
            raise errors[0]
        successful = read.get(_SUCCESSES, read[_COMPLETED])
        success = next(iter(newest_first(successful.rows)), None)
        knows_success = success is not None or successful.is_complete
        runs, completed = _count(read[_ALL]), _count(read[_COMPLETED])
        if runs is not None and (runs < len(failures) or (completed is not None and runs < completed)):
            runs = completed = None  # Fastn ignored a filter
        since, knows_since = await self._first_failure(scope, failures, success) if knows_success else (None, False)
        return RunRecord(scope, failures, runs, completed, success, knows_success, since, knows_since)

    async def _first_failure(
        self, scope: Scope, failures: Sequence[EndedRun], success: EndedRun | None
    ) -> tuple[datetime | None, bool]:
        """Return the time of the first failure after the last success, and whether none can be earlier."""
        last = success.at if success else None
        times = [run.at for run in failures if run.at and (last is None or run.at > last)]
        if not times or (last is not None and last >= self.period.begin):
            return min(times, default=None), not self.has_failures_unread
        call = _runs(scope, limit=_PAGE, since=None if last is None else last.isoformat(timespec="seconds"))
        found = await read_pages(call, self._send, 1)
        rows, is_complete = found.rows, found.is_complete
        if not is_complete and found.total is not None:
            end = call.model_copy(update={"cursor": Position(offset=found.total - _PAGE).encode()})
            oldest = (await read_pages(end, self._send, 1)).rows
            if oldest and oldest[0] != rows[0]:
                rows += oldest
                is_complete = True
        failed = (run for run in map(ended_run, rows) if run.has_failed)
        times += [run.at for run in failed if run.at and (last is None or run.at > last)]
        return min(times), is_complete


def _count(found: PagesRead) -> int | None:
    return len(found.rows) if found.is_complete else found.total


def run_totals(
    older: int | None, period: int | None, completed: int | None, failed: int | None, timeout: int | None
) -> dict[str, JsonValue]:
    """Return the runs of a period by how they ended, with a success rate; empty if the totals are not plausible.

    If Fastn ignores a filter, its totals do not add up. `older` is the number of runs before the period.
    """
    if older is None or period is None or completed is None or failed is None or timeout is None:
        return {}
    ended = completed + failed + timeout
    if ended > period:
        return {}
    rate: dict[str, JsonValue] = {"success_rate": f"{100 * completed / ended:.1f} %"} if ended else {}
    return {"all": period, "completed": completed, "failed": failed, "timeout": timeout, **rate}
