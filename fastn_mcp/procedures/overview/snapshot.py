"""Resources read for one overview: about 20 requests for a small account, more where many runs failed."""

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any, cast

from fastn_mcp.account.dependents import Unchecked
from fastn_mcp.account.targets import Call
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.diagnosis.failures import Period, Scope
from fastn_mcp.procedures.diagnosis.run_counts import RunReads
from fastn_mcp.procedures.reads import Job, RowList, unique
from fastn_mcp.records.states import NOT_WORKING, PENDING
from fastn_mcp.tools.account import GetBilling, GetQuotas, ListApiKeys, ListSecrets, ListUsers
from fastn_mcp.tools.connectors import ListConnections, ListConnectors
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import ListWorkflows

RUNS = "runs"
"""What stands for all reads of runs."""

_PAGE = 100
_PAGES = 5
"""Maximum number of pages to read: of a kind, if it is checked row by row, and of the rows of one status."""


class AccountSnapshot(RunReads):
    """Resources read of an account, by kind."""

    def __init__(self, context: ProcedureContext, period: Period) -> None:
        super().__init__(context, period, [Scope()])
        self.matching: dict[str, RowList] = {}
        """Rows with a problematic status, if the list was too long to read whole."""

    def chosen(self, kind: str) -> RowList:
        """Return the rows to check for problems."""
        return self.matching.get(kind) or self.lists.get(kind) or RowList()

    async def take(self, only: Collection[str] | None = None) -> None:
        """Read everything, or `only` some kinds. Raises a `FastnError` only if every read failed."""
        jobs = {name: job for name, job in self._jobs().items() if only is None or name in only}
        if only is None or RUNS in only:
            jobs = self.run_jobs() | jobs
        await self.run(jobs, self.context.report)
        if len(self.failed) == len(jobs):
            raise next(iter(self.failed.values()))

    def _jobs(self) -> dict[str, Job]:
        """Return the reads beside those of runs, by display name."""
        return {
            "customers": partial(self._read_problems, listing=ListCustomers, statuses=(PENDING,)),
            "connections": partial(self._read_problems, listing=ListConnections, statuses=NOT_WORKING),
            "workflows": partial(self._read_problems, listing=ListWorkflows),
            "triggers": partial(self._read_problems, listing=ListTriggers),
            "users": partial(self._read_problems, listing=ListUsers, statuses=("Invited",)),
            "API keys": partial(self._read_problems, listing=ListApiKeys),
            "connectors": partial(self._read_count, listing=ListConnectors),
            "secrets": partial(self._read_count, listing=ListSecrets),
            "quotas": self.reading(GetQuotas()),
            "billing": self.reading(GetBilling()),
        }

    async def _read_problems(self, kind: str, listing: type[List[Any]], statuses: Sequence[str] = ()) -> None:
        """Read a list. If it has more than one page, read the rows with these statuses instead, if there are any."""
        call = cast(Call, listing(limit=_PAGE))
        await self.read_one(kind, call, 1 if statuses else _PAGES)
        is_long = self.lists[kind].more
        for status in statuses if is_long else ():  # stored one by one, so that rows stay if a later read fails
            part = f"{kind} of status {status}"
            await self.read_one(part, call.model_copy(update={"status": status}), _PAGES)
            self.matching[kind] = _joined(self.matching.get(kind), self.lists.pop(part))
        chosen = self.chosen(kind)
        if (chosen.more and chosen.total is None) or (is_long and not statuses):
            self.gaps.append(Unchecked(f"more {kind}", "There are more than are read for an overview."))

    async def _read_count(self, kind: str, listing: type[List[Any]]) -> None:
        """Read the number of rows of a list."""
        await self.read_one(kind, cast(Call, listing(limit=1)))
        if self.total(kind) is None:
            await self.read_one(kind, cast(Call, listing(limit=_PAGE)))


def _joined(first: RowList | None, other: RowList) -> RowList:
    """Return the rows of both lists, each once."""
    if first is None:
        return other
    total = None if first.total is None or other.total is None else first.total + other.total
    return RowList(unique((*first.rows, *other.rows)), total, first.more or other.more)
