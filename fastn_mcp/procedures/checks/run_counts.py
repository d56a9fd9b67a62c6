"""Exact numbers of runs in a period, and how a workflow has run for a customer since its last success."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import takewhile
from typing import Any, cast

import anyio
from pydantic import JsonValue

from fastn_mcp.account.answer_reads import AnswerReads
from fastn_mcp.account.dependence import Unchecked
from fastn_mcp.client.reads import read_page
from fastn_mcp.errors import FastnError
from fastn_mcp.procedures.checks.failures import EndedRun, Period, RunFilter, ended_run, newest_first
from fastn_mcp.procedures.reads import AccountReads, Job, RowList, read_back, read_if_short
from fastn_mcp.records.formats import age, aged, counted, sentence, stamp
from fastn_mcp.records.states import RunState, run_state
from fastn_mcp.tools.paging import Position, created_newest_first
from fastn_mcp.tools.workflows import ListExecutions

FAILED = "failed runs"
TIMED_OUT = "timed-out runs"
_COMPLETED = "completed runs"
_ALL = "runs"
_OLDER = "older runs"
_SUCCESSES = "successes"
_BEFORE = "runs before the period"
_UNDER_WAY = {f"{status} runs": status for status in ("running", "queued")}

FAILURES = (FAILED, TIMED_OUT)
OF_CONNECTOR = (*FAILURES, *_UNDER_WAY)
RUN_KINDS = (*OF_CONNECTOR, _COMPLETED, _ALL, _OLDER, _SUCCESSES)
"""Lists of runs: the failures that `at_connector` keeps, and all runs."""

_MAX_RUN = timedelta(hours=48)
"""Age up to which runs under way are looked for also before the period: no tier lets one take more than 36 hours."""

_MAX_PAGES = 8
"""Maximum number of pages of failed runs read for one answer, and as many of timed-out ones."""

_PAGE_ROWS = 100
_FEW_PAGES = 3

_MAX_EXACT_STARTS = 3
"""Maximum number of workflows, or workflows of a customer, whose first failure since the last success is looked for."""

_MAX_IDLE_WORKFLOWS = 3
"""Maximum number of workflows without a run in the period whose last runs are read."""

_FEW_FAILURES = 20
"""Number of failures below which a page of the newest runs is likely to show the last success."""

_MAX_COVERING_PAGES = 4
"""Maximum number of pages of the newest runs that are read instead of counting them, which takes as many requests."""


def runs_of(which: RunFilter, **filters: Any) -> ListExecutions:
    """Return the list of these runs, by default only the newest one."""
    named = {"workflow_id": which.workflow, "customer_id": which.customer, "limit": 1}
    return ListExecutions.model_validate(named | filters)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """How the matching runs ended. None and False if something could not be read."""

    which: RunFilter
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

    def or_earlier(self, since: str) -> str:
        """Return `since`, given in words, with `or earlier` if an earlier failure may be the first one."""
        return since if self.knows_since else f"{since} or earlier"

    @property
    def is_failing(self) -> bool:
        """Whether all failures in the period came after the last success."""
        if not self.failures or not self.knows_success:
            return False
        last = self.last_success and self.last_success.at
        return last is None or all(run.at is None or run.at > last for run in self.failures)


@dataclass(frozen=True, slots=True)
class RunCounts:
    """Runs of a period, as far as they were read. A number is None if Fastn's totals are not known or not plausible."""

    period: Period
    failures: Sequence[EndedRun]
    """Failed runs of the period, newest first."""
    has_failures_unread: bool
    """Whether older failures of the period were not read."""
    knows_failures: bool
    """Whether any list of failed runs could be read, or there is none to read."""
    totals: Mapping[str, JsonValue]
    """Runs of the period by how they ended; see `run_totals`."""
    runs: int | None
    completed: int | None
    older: int | None
    """Number of runs before the period."""
    last_success: EndedRun | None
    """The newest completed run, also from before the period."""
    knows_success: bool
    """Whether a last success was found, or there certainly is none."""
    last_before: EndedRun | None
    """The newest run from before the period."""
    under_way: Sequence[EndedRun] = ()
    """Runs that are queued or running, also from before the period, newest first."""
    knows_under_way: bool = True
    failed_elsewhere: int = 0
    """Number of failed runs of workflows that use the connector, if these are the runs that failed at one."""
    counted_since: datetime | None = None
    """Begin of the window of `failures`, if older ones of the period were not read; None if it is the whole period.

    It is one window for all of them, so that counts of workflows, customers and causes can be compared.
    """

    @property
    def begin(self) -> datetime:
        """Begin of the window of `failures`."""
        return self.counted_since or self.period.begin

    @property
    def since(self) -> str:
        """Begin of the window of `failures`, as ISO 8601."""
        return self.begin.isoformat(timespec="seconds")

    @property
    def window(self) -> str:
        """The window of `failures` in words: `in 24 hours`, `since 2026-11-25T09:00:00Z`."""
        return f"in {self.period}" if self.counted_since is None else f"since {stamp(self.counted_since)}"

    @property
    def window_note(self) -> str:
        """Since when failures are counted, and what counts the older ones; empty if it is the whole period."""
        if self.counted_since is None:
            return ""
        hours = int((self.period.now - self.counted_since).total_seconds() // 3_600)
        ways = ["query run_counts counts those of one workflow or customer"]
        if hours:
            ways.insert(0, f"with hours={hours} all are read")
        since = aged(self.counted_since, self.period.now)
        return f"{since}: older failures were not read. {sentence('; '.join(ways))}."

    @property
    def is_lower_bound(self) -> bool:
        """Whether failures may be missing from the window itself, as it is not known which were not read."""
        return self.has_failures_unread and self.counted_since is None

    @property
    def ever(self) -> int | None:
        """Number of all runs, also before the period."""
        return None if self.older is None or self.runs is None else self.older + self.runs

    @property
    def failures_of_runs(self) -> str:
        """The failures of all runs: `9 of 12 runs`."""
        if self.runs is None:
            return counted(len(self.failures), "run", at_least=self.has_failures_unread)
        return f"{cast(int, self.totals['failed']) + cast(int, self.totals['timeout']):,} of {self.runs:,} runs"

    def failed(self, count: int) -> JsonValue:
        """Return the number of failures of a workflow, customer or cause in the window, given the number read.

        None if none was read and there may be others.
        """
        if not self.is_lower_bound:
            return count
        return f"at least {count:,}" if count else None

    @property
    def last_success_at(self) -> datetime | None:
        return self.last_success and self.last_success.at

    @property
    def last_success_in_words(self) -> str:
        if self.last_success_at is not None:
            return f"last success {age(self.last_success_at, self.period.now)}"
        if self.last_success:
            return "last success unknown"
        return "no successful run found" if self.knows_success else "successes could not be read"


def run_jobs(
    reads: AccountReads, period: Period, filters: Sequence[RunFilter], kinds: Collection[str]
) -> dict[str, Job]:
    """Return the reads of these `RUN_KINDS`: failed runs, numbers of runs, last success. See `count_runs`."""

    async def read(_: str, which: RunFilter) -> None:
        if len(kinds) > len(FAILURES):  # else that takes as many requests as it may save
            with suppress(FastnError):  # each of the others then finds out for itself
                await read_back(runs_of(which, limit=_PAGE_ROWS), reads.look, period.begin, _MAX_COVERING_PAGES)
        since = period.since
        lists = {
            FAILED: reads.reading(runs_of(which, status="failed", since=since, limit=_PAGE_ROWS), _MAX_PAGES),
            TIMED_OUT: reads.reading(runs_of(which, status="timeout", since=since, limit=_PAGE_ROWS), _MAX_PAGES),
            _COMPLETED: reads.reading(runs_of(which, status="completed", since=since)),
            _ALL: reads.reading(runs_of(which, since=since)),
            _OLDER: partial(_read_older, reads=reads, which=which, since=since),
            _SUCCESSES: reads.reading(runs_of(which, status="completed")),
        }
        begin = min(period.begin, period.now - _MAX_RUN).isoformat(timespec="seconds")
        for name, status in _UNDER_WAY.items():
            lists[name] = reads.reading(runs_of(which, status=status, since=begin, limit=_PAGE_ROWS))
        await reads.run({_name(kind, which, filters): job for kind, job in lists.items() if kind in kinds})

    return {_name("newest runs", which, filters): partial(read, which=which) for which in filters}


async def _read_older(name: str, reads: AccountReads, which: RunFilter, since: str) -> None:
    """Read the newest run from before the period, with the number of such runs.

    Neither takes a request of its own if the numbers of all runs and of those since then differ: Fastn then filters.
    """
    call = runs_of(which, until=since)
    look = reads.look
    if not look.snapshot.holds(call) and look.snapshot.holds(runs_of(which)):
        ever, period = [(await read_page(each, look)).total for each in (runs_of(which), runs_of(which, since=since))]
        if ever is not None and period is not None and 0 < period < ever:
            reads.lists[name] = RowList((), ever - period, more=True)
            return
    await reads.read_one(name, call)


def _name(kind: str, which: RunFilter, filters: Sequence[RunFilter]) -> str:
    return kind if len(filters) == 1 else f"{kind} of {which.workflow}"


def count_runs(reads: AccountReads, period: Period, filters: Sequence[RunFilter]) -> RunCounts:
    """Count the runs that match one of the filters, which must not overlap. Records a gap for failures not read."""

    def names(*kinds: str) -> list[str]:
        return [_name(kind, which, filters) for which in filters for kind in kinds]

    def total(kind: str) -> int | None:
        counts = [reads.total(name) for name in names(kind)]
        return None if None in counts else sum(filter(None, counts))

    failed = names(FAILED, TIMED_OUT)
    under_way = names(*_UNDER_WAY)
    counted_since = _counted_since(reads, failed)
    _note_unread(reads, failed, counted_since, are_failures=True)
    _note_unread(reads, under_way, None, are_failures=False)
    older, runs, completed = map(total, (_OLDER, _ALL, _COMPLETED))
    totals = run_totals(older, runs, completed, failed=total(FAILED), timeout=total(TIMED_OUT))
    last_success = _newest(reads, names(_SUCCESSES))
    return RunCounts(
        period,
        failures=_since(newest_first(reads.rows(*failed)), counted_since),
        has_failures_unread=any(name not in reads.lists or reads.has_more(name) for name in failed),
        knows_failures=not failed or any(name in reads.lists for name in failed),
        totals=totals,
        runs=runs if totals else None,
        completed=completed if totals else None,
        older=older if totals else None,
        last_success=last_success,
        knows_success=last_success is not None or _are_whole(reads, names(_SUCCESSES)),
        last_before=_newest(reads, names(_OLDER)),
        under_way=[run for run in newest_first(reads.rows(*under_way)) if not run_state(run.row).has_ended],
        knows_under_way=_are_whole(reads, under_way),
        counted_since=counted_since,
    )


def _newest(reads: AccountReads, names: Sequence[str]) -> EndedRun | None:
    return next(iter(newest_first(reads.rows(*names))), None)


def _are_whole(reads: AccountReads, names: Sequence[str]) -> bool:
    """Whether each of these lists was read whole."""
    return all(name in reads.lists and not reads.has_more(name) for name in names)


def _since(failures: Sequence[EndedRun], counted_since: datetime | None) -> list[EndedRun]:
    """Return the failures since `counted_since`, or all of them if it is None."""
    return [run for run in failures if counted_since is None or run.at is None or run.at >= counted_since]


def _counted_since(reads: AccountReads, failed: Sequence[str]) -> datetime | None:
    """Return the second from which on no failure is missing, if older ones were not read; None if it is not known."""
    oldest: list[datetime] = []
    for name in failed:
        if name not in reads.lists or f"more {name}" in reads.failed:
            return None  # a page is missing, perhaps one between others
        if reads.has_more(name):
            times = created_newest_first(reads.lists[name].rows)
            if not times:
                return None
            oldest.append(times[-1])
    return max(oldest).replace(microsecond=0) + timedelta(seconds=1) if oldest else None


def _note_unread(
    reads: AccountReads, names: Sequence[str], counted_since: datetime | None, *, are_failures: bool
) -> None:
    """Record a gap for each of these lists whose older runs were not read."""
    for name in filter(reads.has_more, names):
        reads.gaps.append(_older_unread(name, reads.lists[name], counted_since, are_failures=are_failures))


def _older_unread(name: str, read: RowList, counted_since: datetime | None, *, are_failures: bool) -> Unchecked:
    """Return the gap of a list of runs that was not read whole."""
    if not read.rows:
        return Unchecked(f"older {name}", "not all runs were looked through")
    of = "" if read.total is None else f" of {read.total:,}"
    counts = ""
    if counted_since is not None:
        counts = f"; failures are counted since {stamp(counted_since)}"
    elif are_failures:
        counts = "; causes and each workflow's failures are counted in those"
    return Unchecked(f"older {name}", f"only the newest {len(read.rows):,}{of} were read{counts}")


async def read_last_failures(reads: AccountReads, counts: RunCounts, filters: Sequence[RunFilter]) -> list[EndedRun]:
    """Return the runs with which each of these filters ended before the period: those that failed since a success.

    Returns none unless it is certain that no run completed or failed in the period, and that there were runs before.
    """
    if counts.failures or counts.has_failures_unread or counts.completed != 0 or not counts.ever:
        return []
    calls = {
        _name(_BEFORE, which, filters): runs_of(which, until=counts.period.since, limit=_PAGE_ROWS)
        for which in filters[:_MAX_IDLE_WORKFLOWS]
    }
    await reads.read(calls)
    failures: list[EndedRun] = []
    for name in calls:
        runs = newest_first(reads.rows(name))
        ended = [run for run in runs if run_state(run.row) in (RunState.COMPLETED, RunState.FAILED, RunState.TIMED_OUT)]
        failed = [*takewhile(lambda run: run.has_failed, ended)]
        if failed and len(failed) == len(ended) and reads.has_more(name):
            reads.gaps.append(Unchecked(f"older {name}", f"only the newest {len(runs)} were read"))
        failures += failed
    return failures


def at_connector(counts: RunCounts, keys: set[str], apps: Mapping[str, Sequence[str]]) -> RunCounts:
    """Return only the runs that failed at a connector, named by `keys`. `apps` are the connectors of workflows by id.

    The numbers of all others say nothing about it, and are not read: see `OF_CONNECTOR`.
    """

    def uses(run: EndedRun) -> bool:
        return not keys.isdisjoint(apps.get(run.workflow, ()))

    failures = [run for run in counts.failures if run.app(apps.get(run.workflow, ())) in keys]
    elsewhere = sum(map(uses, counts.failures)) - sum(map(uses, failures))
    under_way = [*filter(uses, counts.under_way)]
    return replace(counts, failures=failures, under_way=under_way, failed_elsewhere=elsewhere)


async def read_records(
    reads: AccountReads, counts: RunCounts, failures: Mapping[RunFilter, Sequence[EndedRun]]
) -> dict[RunFilter, RunRecord]:
    """Read how the runs of each filter ended, given its failures in the period, newest first."""
    records = {which: RunRecord(which, failed) for which, failed in failures.items()}
    look = reads.look
    everything = runs_of(RunFilter(), limit=_PAGE_ROWS)
    if len(failures) > _MAX_EXACT_STARTS and look.snapshot.holds(everything):
        # So many that the first failures are not looked for one by one: they follow from all runs, if those are few.
        await read_if_short(everything, look, min(len(failures), _FEW_PAGES))

    async def read(which: RunFilter) -> None:
        try:
            records[which] = await _record(records[which], counts, look, reads_on=len(failures) <= _MAX_EXACT_STARTS)
        except FastnError as error:
            reads.failed["earlier runs"] = error
            since = counts.since
            runs = await _total(runs_of(which, since=since), look)
            completed = await _total(runs_of(which, since=since, status="completed"), look)
            records[which] = _counted(records[which], runs, completed)

    async with anyio.create_task_group() as group:
        for which in failures:
            group.start_soon(read, which)
    return records


async def _record(known: RunRecord, counts: RunCounts, look: AnswerReads, *, reads_on: bool) -> RunRecord:
    """Add the number of runs, the last success and the start of the failures to a record that has only the failures.

    The number of all runs takes no request of its own. With `reads_on`, the first failure may take some.
    """
    which = known.which
    failures = known.failures
    since = counts.since
    reads = AccountReads(look)
    snapshot = look.snapshot
    completed = runs_of(which, status="completed", since=since)
    successes = runs_of(which, status="completed")
    if which.customer is None:  # probably some have completed
        await _read_newest(_COMPLETED, reads, completed)
    if not reads.rows(_COMPLETED):
        if len(failures) < _FEW_FAILURES and not (snapshot.holds(completed) and snapshot.holds(successes)):
            await look(runs_of(which, limit=_PAGE_ROWS))  # from which all of the rest may be derived
        await _read_newest(_SUCCESSES, reads, successes)
    success = next(iter(newest_first(reads.rows(_SUCCESSES, _COMPLETED))), None)
    knows_success = success is not None or not reads.has_more(_SUCCESSES)
    number: int | None = 0
    if not knows_success or (success is not None and (success.at is None or success.at >= counts.begin)):
        await _read_newest(_COMPLETED, reads, completed)
        number = reads.total(_COMPLETED)
    known = _counted(known, await _total(runs_of(which, since=since), look), number)
    first = None
    knows_since = False
    if knows_success:
        first, knows_since = await _first_failure(known, success and success.at, counts, look, reads_on=reads_on)
    return replace(known, last_success=success, knows_success=knows_success, since=first, knows_since=knows_since)


async def _total(call: ListExecutions, look: AnswerReads) -> int | None:
    """Return the number of runs that match; None if it would take a request."""
    return (await read_page(call, look)).total if look.snapshot.holds(call) else None


def _counted(known: RunRecord, runs: int | None, completed: int | None) -> RunRecord:
    """Add the numbers of all runs and of those completed, unless they show that Fastn ignored a filter."""
    if runs is not None and (runs < len(known.failures) or (completed is not None and runs < completed)):
        return known
    return replace(known, runs=runs, completed=completed)


async def _read_newest(name: str, reads: AccountReads, call: ListExecutions) -> None:
    await reads.read_one(name, call)
    if not reads.lists[name].rows and reads.has_more(name):  # Fastn did not filter
        await reads.read_one(name, call.model_copy(update={"limit": _PAGE_ROWS}), _FEW_PAGES)


async def _first_failure(
    known: RunRecord, last: datetime | None, counts: RunCounts, look: AnswerReads, *, reads_on: bool
) -> tuple[datetime | None, bool]:
    """Return the time of the first failure after the `last` success, and whether none can be earlier."""
    times = [run.at for run in known.failures if run.at and (last is None or run.at > last)]
    if not times or (last is not None and last >= counts.begin):
        return min(times, default=None), not counts.is_lower_bound
    call = runs_of(known.which, limit=_PAGE_ROWS, since=None if last is None else last.isoformat(timespec="seconds"))
    if not reads_on and not look.snapshot.holds(call):
        return min(times), False
    page = await read_page(call, look)
    rows = [*page.rows]
    is_complete = page.next_cursor is None
    if not is_complete and page.total is not None and reads_on:
        end = call.model_copy(update={"cursor": Position(offset=page.total - _PAGE_ROWS).encode()})
        oldest = (await read_page(end, look)).rows
        if oldest and oldest[0] != rows[0]:
            rows += oldest
            is_complete = True
    failed = (ended_run(row).at for row in rows if run_state(row).is_failure)
    times += [at for at in failed if at and (last is None or at > last)]
    return min(times), is_complete


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
