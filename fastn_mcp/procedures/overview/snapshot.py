"""Resources read for one overview: about 15 requests for a small account, at most about 30 for any."""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from fastn_mcp.fastn.dependents import Unchecked
from fastn_mcp.fastn.rows import Row, key_of
from fastn_mcp.fastn.states import NOT_WORKING, PENDING
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.diagnosis.failures import EndedRun, Period, ended_runs
from fastn_mcp.procedures.reads import AccountReads, Job, RowList
from fastn_mcp.tools.account import GetBilling, GetQuotas, ListApiKeys, ListSecrets, ListUsers
from fastn_mcp.tools.connectors import ListConnections, ListConnectors
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import ListExecutions, ListWorkflows

FAILED = ("failed runs", "timed-out runs")
COUNTS = ("completed runs", "the number of runs", "the number of all runs")

_PAGE = 100
_PAGES = 3
"""Maximum number of pages of triggers, and of workflows: each row may have a problem of its own."""


class AccountSnapshot(AccountReads):
    """Resources read of an account, by kind."""

    matching: Mapping[str, RowList]
    """Rows with a problematic status, if the list was too long to read whole."""

    def chosen(self, kind: str) -> RowList:
        """Return the rows to check for problems."""
        return self.matching.get(kind) or self.lists.get(kind) or RowList()

    def failures(self) -> list[EndedRun]:
        """Return the failed runs that were read."""
        return ended_runs(row for kind in FAILED for row in self.rows(kind) or ())

    def total(self, kind: str) -> int | None:
        return self.lists[kind].total if kind in self.lists else None

    async def read_problems(self, kind: str, call: List[Any], pages: int, statuses: Sequence[str]) -> None:
        """Read the first pages; if there are more, read the rows with these statuses instead."""
        await self.read_list(kind, call, pages)
        is_long = self.lists[kind].more
        for status in statuses if is_long else ():  # stored one by one, so that rows stay if a later read fails
            part = f"{kind} of status {status}"
            await self.read_list(part, call.model_copy(update={"status": status}))
            found = self.lists.pop(part)
            self.matching = {**self.matching, kind: _joined(self.matching.get(kind), found)}
        chosen = self.chosen(kind)
        if (chosen.more and chosen.total is None) or (is_long and not statuses):
            self.gaps.append(Unchecked(f"more {kind}", "There are more than are read for an overview."))

    async def read_count(self, kind: str, listing: type[List[Any]]) -> None:
        """Read the number of rows of a list."""
        await self.read_list(kind, listing(limit=1))
        if self.lists[kind].more and self.lists[kind].total is None:
            del self.lists[kind]
            await self.read_list(kind, listing(limit=_PAGE))

    async def read_failures(self, kind: str, call: ListExecutions, pages: int) -> None:
        """Read the newest failed runs."""
        await self.read_list(kind, call, pages)
        if self.lists[kind].more and len(self.lists[kind].rows) < call.limit * pages:
            why = "Fastn did not filter: of all runs, only the newest were looked through."
            self.gaps.append(Unchecked(f"older {kind}", why))

    def __init__(self, context: ProcedureContext, period: Period) -> None:
        super().__init__(context.read)
        self.matching = {}
        self.context = context
        self.period = period

    async def take(self, only: Collection[str] | None = None, failure_pages: int = 1) -> None:
        """Read everything, or `only` some kinds, with at most `failure_pages` of failed runs.

        Raises a `FastnError` only if every read failed.
        """
        jobs = {name: job for name, job in self._jobs(failure_pages).items() if only is None or name in only}
        await self.run(jobs, self.context.report)
        if len(self.failed) == len(jobs):
            raise next(iter(self.failed.values()))

    def _jobs(self, failure_pages: int) -> dict[str, Job]:
        """Return the reads by display name."""
        since = self.period.since
        lists: dict[str, tuple[List[Any], int, Sequence[str]]] = {
            "customers": (ListCustomers(limit=_PAGE), 1, (PENDING,)),
            "connections": (ListConnections(limit=_PAGE), 1, NOT_WORKING),
            "workflows": (ListWorkflows(limit=_PAGE), _PAGES, ()),
            "triggers": (ListTriggers(limit=_PAGE), _PAGES, ()),
            "users": (ListUsers(limit=_PAGE), 1, ("Invited",)),
            "API keys": (ListApiKeys(limit=_PAGE), 1, ()),
        }
        runs = {"failed": failure_pages, "timeout": 1}
        failures = {
            kind: partial(self.read_failures, kind, ListExecutions(limit=_PAGE, status=status, since=since), pages)
            for kind, (status, pages) in zip(FAILED, runs.items(), strict=True)
        }
        counts = {
            "completed runs": ListExecutions(limit=1, status="completed", since=since),
            "the number of runs": ListExecutions(limit=1, since=since),
            "the number of all runs": ListExecutions(limit=1),
        }
        return {
            **failures,
            **{kind: partial(self.read_list, kind, call) for kind, call in counts.items()},
            **{kind: partial(self.read_problems, kind, *how) for kind, how in lists.items()},
            "connectors": partial(self.read_count, "connectors", ListConnectors),
            "secrets": partial(self.read_count, "secrets", ListSecrets),
            "quotas": partial(self.read_record, "quotas", GetQuotas()),
            "billing": partial(self.read_record, "billing", GetBilling()),
        }


def _joined(first: RowList | None, other: RowList) -> RowList:
    """Return the rows of both lists, each once."""
    if first is None:
        return other
    rows: dict[str, Row] = {key_of(row) or str(place): row for place, row in enumerate((*first.rows, *other.rows))}
    return RowList(list(rows.values()), None, first.next_cursor or other.next_cursor)
