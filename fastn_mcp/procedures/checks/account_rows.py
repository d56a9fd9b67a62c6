"""Rows of an account read for one overview, and the runs of its period."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from fastn_mcp.account.dependence import Unchecked
from fastn_mcp.account.entries import MAX_PAGES
from fastn_mcp.procedures.checks.failures import Period, RunFilter
from fastn_mcp.procedures.checks.run_counts import FAILED, FAILURES, RUN_KINDS, RunCounts, count_runs, run_jobs
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.reads import AccountReads, Job, RowList, unique
from fastn_mcp.records.states import BROKEN_STATUSES, PENDING
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


def problem_rows(reads: AccountReads, kind: str) -> RowList | None:
    """Return the rows with a problematic status, if the list was too long to read whole; else None."""
    parts = [rows for name, rows in reads.lists.items() if name.startswith(f"{kind} of status ")]
    totals = [part.total for part in parts]
    total = None if None in totals else sum(filter(None, totals))
    rows = unique(row for part in parts for row in part.rows)
    return RowList(rows, total, any(part.more for part in parts)) if parts else None


async def read_account(
    context: ProcedureContext, period: Period, only: Collection[str] | None = None, *, all_connections: bool = False
) -> AccountRows:
    """Read everything, or `only` some kinds. Raises a `FastnError` only if every read failed."""
    reads = AccountReads(context.look)
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
    await reads.run(jobs, context.report)
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
