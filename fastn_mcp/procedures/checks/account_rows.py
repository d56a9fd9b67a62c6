"""The one reading of a whole account: its rows, and the runs of a period."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any, cast

from fastn_mcp.account.dependence import Unchecked
from fastn_mcp.account.entries import MAX_PAGES
from fastn_mcp.procedures.checks.access import ALL_USERS
from fastn_mcp.procedures.checks.check import EXPIRY_NOTICE, Reading
from fastn_mcp.procedures.checks.connections import BROKEN
from fastn_mcp.procedures.checks.failures import EndedRun, Period, RunFilter
from fastn_mcp.procedures.checks.parts import connection_states
from fastn_mcp.procedures.checks.remedies import Dependencies, remedies_by_workflow
from fastn_mcp.procedures.checks.run_counts import FAILED, FAILURES, RUN_KINDS, RunCounts, count_runs, run_jobs
from fastn_mcp.procedures.checks.runs import STARTED
from fastn_mcp.procedures.reads import AccountReads, Job, RowList, unique
from fastn_mcp.records.formats import counted
from fastn_mcp.records.labels import app_of, name_of
from fastn_mcp.records.quotas import credits_quota, quotas_of
from fastn_mcp.records.rows import Row, key_of, started_workflows
from fastn_mcp.records.states import BROKEN_STATUSES, PENDING, STATES, State, trigger_state
from fastn_mcp.runtime import Report, no_progress
from fastn_mcp.tools.access import ListApiKeys, ListSecrets, ListUsers
from fastn_mcp.tools.billing import GetBilling, GetQuotas
from fastn_mcp.tools.connectors import ListConnections, ListConnectors
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import ListWorkflows

RUNS = "runs"
"""What stands for all reads of runs."""

EVERYTHING = (RUNS, "customers", "connections", "workflows", "triggers", "quotas", "API keys", "users", "billing")
"""What all checks look at."""

_PAGE_ROWS = 100
_MAX_PAGES = 5
"""Maximum number of pages to read: of a kind, if it is checked row by row, and of the rows of one status."""


@dataclass(frozen=True, slots=True)
class AccountRows:
    """What was read for one overview: lists and records by kind, and counts of the runs."""

    reads: AccountReads
    counts: RunCounts

    def chosen(self, kind: str) -> RowList:
        """Return the rows to check for problems."""
        return problem_rows(self.reads, kind) or self.reads.lists.get(kind, RowList())

    def reading(self, ahead: timedelta = EXPIRY_NOTICE, *, is_whole: bool = True) -> Reading:
        """Return what checks look at, without the runs that hang and the rows of workflows. See `Reading`."""
        connections = self.reads.lists.get("connections", RowList())
        broken = self.chosen("connections")
        pending = problem_rows(self.reads, "customers")
        lists = {kind: self.chosen(kind) for kind in ("workflows", "triggers", "customers", "users", "API keys")}
        lists["connections"] = replace(connections, rows=unique((*connections.rows, *broken.rows)))
        lists[BROKEN] = broken
        lists[STARTED] = started(lists["workflows"], lists["triggers"].rows)
        lists[ALL_USERS] = self.reads.lists.get("users", RowList())
        fails, causes = failures_by_connection(self.counts.failures, lists["workflows"].rows, broken.rows)
        return Reading(
            self.counts,
            lists,
            totals={"customers": pending.total} if pending and pending.total is not None else {},
            quotas=quotas_of(self.reads.records.get("quotas", {})),
            credits=credits_quota(self.reads.records.get("billing", {})),
            fails_without=fails,
            causes=causes,
            ahead=ahead,
            is_whole=is_whole,
        )

    def unknown_states(self) -> list[Unchecked]:
        """Return how many resources of each kind have a status that tells nothing."""
        gaps: list[Unchecked] = []
        for kind, state in STATES.items():
            unknown = sum(state(row) is State.UNKNOWN for row in self.chosen(kind).rows)
            if unknown:
                why = "Their status is missing or undocumented."
                gaps.append(Unchecked(counted(unknown, kind.removesuffix("s")), why))
        return gaps


def started(workflows: RowList, triggers: Sequence[Row]) -> RowList:
    """Return the workflows that any of the triggers starts, unless it is switched off."""
    keys = {key for row in triggers if trigger_state(row) is not State.OFF for key in started_workflows(row)}
    return replace(workflows, rows=[row for row in workflows.rows if key_of(row) in keys])


def failures_by_connection(
    failed: Sequence[EndedRun], workflows: Sequence[Row], broken: Sequence[Row]
) -> tuple[Mapping[str, Mapping[str, int]], Mapping[tuple[str, str | None], str]]:
    """Return `fails_without` and `causes` of a `Reading`, given the broken connections."""
    # Each cause is told beside the customer, whose name is not read yet.
    connections = [replace(each, label=app_of(each.row)) for each in connection_states(broken, {})]
    dependencies = Dependencies({key_of(row): row for row in workflows}, connections)
    fails = dict[str, Counter[str]]()
    causes = dict[tuple[str, str | None], str]()
    for group, remedy in remedies_by_workflow(failed, dependencies):
        run = group.newest
        name = name_of(dependencies.workflows.get(run.workflow, {})) or run.workflow_name or run.workflow
        causes.setdefault((run.workflow, run.customer), remedy.cause)
        for connection in remedy.repairs:
            fails.setdefault(connection.id, Counter())[name] += len(group.runs)
    return {key: dict(runs.most_common()) for key, runs in fails.items()}, causes


def problem_rows(reads: AccountReads, kind: str) -> RowList | None:
    """Return the rows with a problematic status, if the list was too long to read whole; else None."""
    parts = [rows for name, rows in reads.lists.items() if name.startswith(f"{kind} of status ")]
    totals = [part.total for part in parts]
    total = None if None in totals else sum(filter(None, totals))
    rows = unique(row for part in parts for row in part.rows)
    return RowList(rows, total, any(part.more for part in parts)) if parts else None


async def read_account(
    reads: AccountReads,
    period: Period,
    only: Collection[str] | None = None,
    *,
    all_connections: bool = False,
    report: Report = no_progress,
) -> AccountRows:
    """Read everything, or `only` some kinds. Raises a `FastnError` only if every read failed."""
    filters = [RunFilter()]
    kinds: Collection[str] = ()
    if only is None or RUNS in only:
        kinds = RUN_KINDS
    elif FAILED in only:
        kinds = FAILURES
    jobs = run_jobs(reads, period, filters, kinds) if kinds else {}
    jobs |= {name: job for name, job in _jobs(reads).items() if only is None or name in only}
    if all_connections:
        jobs["connections"] = reads.reading(ListConnections(limit=_PAGE_ROWS), MAX_PAGES)
    await reads.run(jobs, report)
    reads.check()
    return AccountRows(reads, count_runs(reads, period, filters))


def _jobs(reads: AccountReads) -> dict[str, Job]:
    """Return the reads besides the reads of runs, by display name."""
    problems = partial(_read_problems, reads=reads)
    return {
        "customers": partial(problems, listing=ListCustomers, statuses=(PENDING,)),
        "connections": partial(problems, listing=ListConnections, statuses=BROKEN_STATUSES),
        "workflows": partial(problems, listing=ListWorkflows),
        "triggers": partial(problems, listing=ListTriggers),
        "users": partial(problems, listing=ListUsers, statuses=("Invited",)),
        "API keys": partial(problems, listing=ListApiKeys),
        "connectors": reads.reading(ListConnectors(limit=_PAGE_ROWS)),
        "secrets": reads.reading(ListSecrets(limit=_PAGE_ROWS)),
        "quotas": reads.reading(GetQuotas()),
        "billing": reads.reading(GetBilling()),
    }


async def _read_problems(
    kind: str, reads: AccountReads, listing: type[List[Any]], statuses: Sequence[str] = ()
) -> None:
    """Read a list. If it has more than one page, read the rows with these statuses instead, if there are any."""
    call = cast(Call, listing(limit=_PAGE_ROWS))
    await reads.read_one(kind, call, 1 if statuses else _MAX_PAGES)
    is_long = reads.has_more(kind)
    for status in statuses if is_long else ():  # stored one by one, so that rows stay if a later read fails
        await reads.read_one(f"{kind} of status {status}", call.model_copy(update={"status": status}), _MAX_PAGES)
    chosen = problem_rows(reads, kind) or reads.lists[kind]
    if (chosen.more and chosen.total is None) or (is_long and not statuses):
        reads.gaps.append(Unchecked(f"more {kind}", "There are more than an overview reads."))
