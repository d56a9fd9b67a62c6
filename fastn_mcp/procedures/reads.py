"""Parallel, bounded reads for one answer about an account, with a record of the reads that failed."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, TypeVar, cast

import anyio

from fastn_mcp.account.answer_reads import AnswerReads
from fastn_mcp.account.dependence import Unchecked
from fastn_mcp.account.entries import MAX_PAGES, read_many_labels
from fastn_mcp.client.reads import Pages, read_page, read_pages
from fastn_mcp.errors import Disabled, FastnError, LeftOut, RateLimited
from fastn_mcp.records.rows import Row, key_of, row_of
from fastn_mcp.runtime import Report, no_progress
from fastn_mcp.tools.operation import Call
from fastn_mcp.tools.paging import List, created

AnyRow = TypeVar("AnyRow", bound=Row)

Job = Callable[[str], Awaitable[None]]
"""Read what has this display name."""

_ONE_BY_ONE = 5
"""Maximum number of pages of a list that are read one after another, where Fastn does not page by offset."""


@dataclass(frozen=True, slots=True)
class RowList:
    """Rows read of a list. `total` is Fastn's count of all rows, if given; `more` is whether some were not read."""

    rows: Sequence[Row] = ()
    total: int | None = None
    more: bool = False


def unique(rows: Iterable[AnyRow]) -> list[AnyRow]:
    """Return the rows, of each id the last one."""
    return list({key_of(row) or f"without id {number}": row for number, row in enumerate(rows)}.values())


def failure(error: FastnError, otherwise: str) -> str:
    """Return why a read failed: at the rate limit also when to call again, else `otherwise`."""
    if isinstance(error, Disabled):
        return error.what
    return f"{error.what} {error.next_step}".rstrip() if isinstance(error, RateLimited) else otherwise


class AccountReads:
    """Lists and records read for an answer, and the reads that failed, by display name."""

    def __init__(self, look: AnswerReads) -> None:
        self.look = look
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
                await job(name)
            except FastnError as error:
                self.failed[name] = error
            done += 1
            await report(f"Read {name}", done, len(jobs))

        async with anyio.create_task_group() as group:
            for name, job in jobs.items():
                group.start_soon(do, name, job)

    async def read(self, calls: Mapping[str, Call], pages: int = 1) -> None:
        """Read in parallel each single record, and up to `pages` pages of each list."""
        await self.run({name: self.reading(call, pages) for name, call in calls.items()})

    def reading(self, call: Call, pages: int = 1) -> Job:
        """Return the job that reads a record, or up to `pages` pages of a list."""
        return partial(self.read_one, call=call, pages=pages)

    async def read_one(self, name: str, call: Call, pages: int = 1) -> None:
        """Read a record, or pages of a list. Raises if the first fails; keeps the rows read if a later one does."""
        if not isinstance(call, List):
            self.records[name] = row_of(await self.look(call))
            return
        pages_read = await read_pages(cast("List[Any]", call), self.look, pages, _ONE_BY_ONE)
        # A row that came while pages were read moves others to the next page.
        rows = unique(pages_read.rows)
        self.lists[name] = RowList(rows, pages_read.total, not pages_read.is_complete)
        for page in pages_read.pages:
            if page.not_checked:
                self.gaps.append(Unchecked(name, f"the rows do not say their {', '.join(page.not_checked)}"))
        if pages_read.lost_rows:
            self.gaps.append(Unchecked(name, "rows were removed while the pages were read, so others may be missing"))
        if pages_read.error is not None:
            self.failed[f"more {name}"] = pages_read.error

    async def read_customer_names(self, ids: Iterable[str], most: int) -> dict[str, str]:
        """Return the names of these customers, as far as they are read in about `most` requests."""
        try:
            return await read_many_labels("customer", list(dict.fromkeys(ids)), self.look, most)
        except FastnError as error:
            self.failed["names of customers"] = error
            return {}

    def check(self) -> None:
        """Raise the first refusal if nothing could be read. A read that was left out is not refused."""
        refused = [error for error in self.failed.values() if not isinstance(error, LeftOut)]
        if refused and not self.lists and not self.records:
            raise refused[0]

    def has_more(self, name: str) -> bool:
        """Whether a list has more rows than were read."""
        return name in self.lists and self.lists[name].more

    def rows(self, *names: str) -> list[Row]:
        """Return the rows of these lists, without lists that could not be read."""
        return [row for name in names if name in self.lists for row in self.lists[name].rows]

    def total(self, name: str) -> int | None:
        """Return the number of rows of a list; None if it is not known."""
        rows = self.lists.get(name)
        if rows is None:
            return None
        return rows.total if rows.more else len(rows.rows)

    def all_gaps(self) -> list[Unchecked]:
        """Return the failed reads and the incomplete ones."""
        failed = [Unchecked(name, failure(error, error.what)) for name, error in self.failed.items()]
        return list(dict.fromkeys([*failed, *self.gaps]))


async def read_back(listing: List[Any], look: AnswerReads, since: datetime, most: int) -> None:
    """Read a list, newest first, until `since`; only its first pages if that takes more than `most`.

    Raises a `FastnError` if the first page cannot be read.
    """
    pages = Pages(listing, look, most)
    async for page in pages:
        number = len(pages.pages)
        read = look.stored(listing)
        if not page.rows or read.oldest is None or read.oldest < since:
            break
        newest = created(read.rows[0]) or since
        left = look.snapshot.pages_left(listing)
        is_short = left is not None and number + left <= most
        if not is_short and number * (newest - since) > most * (newest - read.oldest):
            break


async def read_if_short(listing: List[Any], look: AnswerReads, most: int) -> None:
    """Read a list whole, if it has at most `most` pages after the first, so that narrower ones need no request.

    A failure is not reported: each of the narrower reads then finds out for itself.
    """
    with suppress(FastnError):
        await read_page(listing, look)
        if 0 < (look.snapshot.pages_left(listing) or 0) <= most:
            await read_pages(listing, look, MAX_PAGES)
