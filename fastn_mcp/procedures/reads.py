"""Reads for one answer about an account: side by side and bounded, with a record of what could not be read."""

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
    """Rows of a list. `total` is how many there are where Fastn says so; `more`, whether some were not read."""

    rows: Sequence[Row] = ()
    total: int | None = None
    next_cursor: str | None = None

    @property
    def more(self) -> bool:
        return self.next_cursor is not None


class AccountReads:
    """What was read for an answer, and what could not be, each by a name for people."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.lists: dict[str, RowList] = {}
        self.records: dict[str, Row] = {}
        self.failed: dict[str, FastnError] = {}
        self.gaps: list[Unchecked] = []
        """Where what was read is not all, or may not be what was asked for."""

    async def run(self, jobs: Mapping[str, Job], report: Report = no_progress) -> None:
        """Do these side by side, as far as they succeed."""
        done = 0

        async def do(what: str, job: Job) -> None:
            nonlocal done
            try:
                await job()
            except FastnError as error:
                self.failed[what] = error
            done += 1
            await report(f"Read {what}", done, len(jobs))

        async with anyio.create_task_group() as group:
            for what, job in jobs.items():
                group.start_soon(do, what, job)

    async def read(self, calls: Mapping[str, Call]) -> None:
        """Read these side by side: the first page of a list, or one record."""
        await self.run({what: partial(self._read, what, call) for what, call in calls.items()})

    async def _read(self, what: str, call: Call) -> None:
        if isinstance(call, List):
            await self.read_list(what, cast("List[Any]", call))
        else:
            await self.read_record(what, call)

    async def read_record(self, what: str, call: Call) -> None:
        self.records[what] = row_of(await self._send(call))

    async def read_list(self, what: str, call: List[Any], pages: int = 1) -> None:
        """Read so many pages of a list, going on behind what was read of it, which an error leaves as it is."""
        found = self.lists.get(what, RowList())
        if what in self.lists:
            if found.next_cursor is None:
                return
            call = call.model_copy(update={"cursor": found.next_cursor})
        try:
            async for page in Pages(call, self._send, pages):
                if page.not_checked:
                    self.gaps.append(Unchecked(what, f"the rows do not say their {', '.join(page.not_checked)}"))
                total = found.total if page.total is None else page.total
                found = RowList([*found.rows, *map(row_of, page.items)], total, page.next_cursor)
                self.lists[what] = found
        except FastnError as error:
            if what not in self.lists:
                raise
            self.failed[f"more {what}"] = error

    def has_more(self, what: str) -> bool:
        """Whether a list has more rows than were read."""
        return what in self.lists and self.lists[what].more

    def rows(self, what: str) -> Sequence[Row] | None:
        """The rows of a list; None where it could not be read."""
        return self.lists[what].rows if what in self.lists else None

    def all_gaps(self) -> list[Unchecked]:
        """What could not be read, and what was read only in part."""
        failed = [Unchecked(what, error.what) for what, error in self.failed.items()]
        return list(dict.fromkeys([*failed, *self.gaps]))

    def not_checked(self) -> list[str]:
        """The same in words."""
        return [f"{gap.what}: {gap.why}".removesuffix(": ") for gap in self.all_gaps()]
