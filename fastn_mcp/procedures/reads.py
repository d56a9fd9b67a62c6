"""Parallel, bounded reads for one answer about an account, with a record of those that failed."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import anyio

from fastn_mcp.errors import FastnError
from fastn_mcp.fastn.dependents import Unchecked
from fastn_mcp.fastn.rows import Row, row_of
from fastn_mcp.fastn.targets import Call, Pages, Send
from fastn_mcp.runtime import Report, no_progress
from fastn_mcp.tools.paging import List

Job = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class RowList:
    """Rows read of a list. `total` is Fastn's count of all rows, if given; `more` is whether some were not read."""

    rows: Sequence[Row] = ()
    total: int | None = None
    next_cursor: str | None = None

    @property
    def more(self) -> bool:
        return self.next_cursor is not None


class AccountReads:
    """Lists and records read for an answer, and the reads that failed, by display name."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.lists: dict[str, RowList] = {}
        self.records: dict[str, Row] = {}
        self.failed: dict[str, FastnError] = {}
        self.gaps: list[Unchecked] = []
        """Reads that were incomplete, or whose rows may not match the filter."""

    async def run(self, jobs: Mapping[str, Job], report: Report = no_progress) -> None:
        """Run the jobs in parallel. A `FastnError` of a job is recorded in `failed`."""
        done = 0

        async def do(name: str, job: Job) -> None:
            nonlocal done
            try:
                await job()
            except FastnError as error:
                self.failed[name] = error
            done += 1
            await report(f"Read {name}", done, len(jobs))

        async with anyio.create_task_group() as group:
            for name, job in jobs.items():
                group.start_soon(do, name, job)

    async def read(self, calls: Mapping[str, Call]) -> None:
        """Read in parallel the first page of each list, and each single record."""
        await self.run({name: partial(self._read, name, call) for name, call in calls.items()})

    async def _read(self, name: str, call: Call) -> None:
        if isinstance(call, List):
            await self.read_list(name, cast("List[Any]", call))
        else:
            await self.read_record(name, call)

    async def read_record(self, name: str, call: Call) -> None:
        self.records[name] = row_of(await self._send(call))

    async def read_list(self, name: str, call: List[Any], pages: int = 1) -> None:
        """Read the next pages of a list. Raises if the first page fails; keeps the rows read if a later one does."""
        found = self.lists.get(name, RowList())
        if name in self.lists:
            if found.next_cursor is None:
                return
            call = call.model_copy(update={"cursor": found.next_cursor})
        try:
            async for page in Pages(call, self._send, pages):
                if page.not_checked:
                    self.gaps.append(Unchecked(name, f"the rows do not say their {', '.join(page.not_checked)}"))
                total = found.total if page.total is None else page.total
                found = RowList([*found.rows, *map(row_of, page.items)], total, page.next_cursor)
                self.lists[name] = found
        except FastnError as error:
            if name not in self.lists:
                raise
            self.failed[f"more {name}"] = error

    def has_more(self, name: str) -> bool:
        """Whether a list has more rows than were read."""
        return name in self.lists and self.lists[name].more

    def rows(self, name: str) -> Sequence[Row] | None:
        """Return the rows of a list; None if it could not be read."""
        return self.lists[name].rows if name in self.lists else None

    def all_gaps(self) -> list[Unchecked]:
        """Return the failed reads and the incomplete ones."""
        failed = [Unchecked(name, error.what) for name, error in self.failed.items()]
        return list(dict.fromkeys([*failed, *self.gaps]))

    def not_checked(self) -> list[str]:
        """Return `all_gaps` as text."""
        return [f"{gap.what}: {gap.why}".removesuffix(": ") for gap in self.all_gaps()]
