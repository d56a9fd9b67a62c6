"""When a list that grows with time begins: Fastn's history of runs, and its audit log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from fastn_mcp.account.answer_reads import AnswerReads
from fastn_mcp.client.reads import Pages, read_page
from fastn_mcp.errors import FastnError
from fastn_mcp.records.formats import aged, stamp
from fastn_mcp.records.rows import Row, key_of, parse_timestamp
from fastn_mcp.tools.access import QueryAuditLog
from fastn_mcp.tools.paging import MAX_LIMIT, Position, created
from fastn_mcp.tools.workflows import ListExecutions

_STEPS = (1_000, 365, 90, 30, 7, 0)
"""Ages, in days, from which on the oldest row is looked for where Fastn does not page by offset."""

_MAX_PAGES = 10
"""Maximum number of pages of 100 rows read to the oldest one there."""

History = type[ListExecutions] | type[QueryAuditLog]
"""Lists whose rows are of a period, and that Fastn does not keep for ever."""


LOG_GAPS = "most reads are not in the log, nor are some changes"
"""What Fastn's audit log does not hold."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """When a list begins. `at` is None if it has no row, or if that is not known."""

    at: datetime | None
    is_exact: bool
    """Whether no row is older, or there is certainly none."""
    why: str = ""
    """Why it is not known."""

    def in_words(self, now: datetime) -> str:
        """Return the time with its age, `or earlier` if that may be; or that there is none, or that it is not known."""
        if self.at is not None:
            return aged(self.at, now) if self.is_exact else f"{aged(self.at, now)} or earlier"
        return "it has no entry that this key may see" if self.is_exact else f"not known ({self.why})"


async def read_beginning(history: History, look: AnswerReads, *, searches: bool = False) -> Beginning:
    """Return when a list begins, by its newest row and, at the offset of Fastn's total, its oldest one.

    With `searches`, it is looked for by more requests where Fastn does not page by offset.
    """
    whole = look.stored(history(limit=MAX_LIMIT))
    if whole.is_complete and whole.rows:
        return _oldest_of(whole.rows)
    try:
        newest = await read_page(history(limit=1), look)
        if newest.next_cursor is None:
            return _oldest_of(newest.rows)
        if newest.rows and newest.total:
            oldest = await read_page(_oldest(history, newest.total), look)
            if oldest.rows and key_of(oldest.rows[0]) != key_of(newest.rows[0]):
                return _oldest_of([*newest.rows, *oldest.rows])
    except FastnError as error:
        return Beginning(None, is_exact=False, why=error.outcome)
    return await _searched(history, look) if searches else Beginning(None, False, "Fastn does not say how many it has")


async def begins_after(history: History, bound: datetime, look: AnswerReads, *, is_empty: bool) -> Beginning | None:
    """Return when a list begins, unless a row from before `bound` shows that it reaches back so far.

    It takes one request where it reaches back, else two more, and none where rows that were read a short time ago tell.
    `is_empty`: what was asked for since then has no row, so that it probably does not reach back.
    """
    times = map(created, look.stored(history(limit=MAX_LIMIT)).rows)
    if any(at is not None and at < bound for at in times):
        return None
    earlier = history(until=stamp(bound), limit=1)
    is_cheaper = is_empty or await _is_stored(history, look)
    if look.snapshot.holds(earlier) or not is_cheaper:
        try:
            before = await read_page(earlier, look)
        except FastnError as error:
            return Beginning(None, is_exact=False, why=error.outcome)
        if any(at is not None and at < bound for at in map(created, before.rows)):
            return None
    beginning = await read_beginning(history, look)
    return None if beginning.at is not None and beginning.at <= bound else beginning


async def begins_within(call: ListExecutions | QueryAuditLog, look: AnswerReads, *, is_empty: bool) -> Beginning | None:
    """Return when the list of `call` begins, if its `since` lies before that, or its `until` and it has no row."""
    since = parse_timestamp(call.filters.get("since"))
    until = parse_timestamp(call.filters.get("until"))
    bound = since
    if since is None and until is not None and is_empty:
        bound = until - timedelta(seconds=1)  # the last second that was asked for
    if bound is None or call.cursor is not None:
        return None
    return await begins_after(type(call), bound, look, is_empty=is_empty)


def _oldest(history: History, total: int) -> ListExecutions | QueryAuditLog:
    return history(limit=1, cursor=Position(offset=total - 1).encode())


async def _is_stored(history: History, look: AnswerReads) -> bool:
    """Whether `read_beginning` takes no request."""
    if not look.snapshot.holds(history(limit=1)):
        return False
    total = (await read_page(history(limit=1), look)).total
    return bool(total) and look.snapshot.holds(_oldest(history, total))


def _oldest_of(rows: Sequence[Row]) -> Beginning:
    times = [at for at in map(created, rows) if at is not None]
    if times or not rows:
        return Beginning(min(times, default=None), is_exact=True)
    return Beginning(None, is_exact=False, why="its rows have no time")


async def _searched(history: History, look: AnswerReads) -> Beginning:
    """Look for the oldest row: from the first age on that any row has, page by page."""
    now = look.as_of
    oldest: datetime | None = None
    for days in _STEPS:
        until = stamp(now - timedelta(days=days)) if days else None
        pages = Pages(history(limit=MAX_LIMIT, until=until), look, _MAX_PAGES)
        try:
            async for page in pages:
                oldest = min(filter(None, (oldest, *map(created, page.rows))), default=None)
                if oldest is None:
                    break
        except FastnError as error:
            if oldest is None:
                return Beginning(None, is_exact=False, why=error.outcome)
        if oldest is not None:
            return Beginning(oldest, is_exact=pages.is_complete)
    return Beginning(None, is_exact=True)
