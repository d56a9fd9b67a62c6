"""Rows of the table `run_counts`: exact numbers of runs by Fastn's own totals, split by the columns that are read."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import anyio

from fastn_mcp.client.reads import read_page
from fastn_mcp.errors import NOTHING_CHANGED, Failed, InvalidArgument
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.history import Beginning, begins_after, read_beginning
from fastn_mcp.procedures.query.bounds import Bounds
from fastn_mcp.procedures.reads import read_if_short
from fastn_mcp.records.formats import stamp
from fastn_mcp.records.rows import Row
from fastn_mcp.tools.paging import MAX_LIMIT
from fastn_mcp.tools.workflows import ListExecutions

_DEFAULT_PERIOD = timedelta(days=7)
_MAX_CELLS = 2_000
_MAX_PARALLEL = 8

_PERIODS = ("hour", "day", "week", "month")
"""Columns of periods, the finest first."""

_STATUSES = ListExecutions.known_values("status")

Period = tuple[datetime, datetime]

Cell = tuple[Period, str | None, str | None, str | None]
"""What is counted by one request: a period, a customer, a workflow and a status; None for any."""


async def read_run_counts(
    columns: Collection[str], bounds: Bounds, ids: Mapping[str, Sequence[str]], context: ProcedureContext
) -> tuple[list[Row], list[str]]:
    """Return a row for each period, customer, workflow and status that the columns tell apart, and notes on them.

    `ids` are those of customers and workflows that the counts are split by; runs of any if there are none.
    Raises a `FastnError` if it takes more requests than the answer may send.
    """
    now = context.system.now()
    until = bounds.until or now
    since = bounds.since or _begin_of("day", until - _DEFAULT_PERIOD)
    periods = [*_periods(since, until, columns)]
    customers = ids["customer"] or (None,)
    workflows = ids["workflow"] or (None,)
    statuses: Sequence[str | None] = _STATUSES if "status" in columns else (None,)
    cells = [*product(periods, customers, workflows, statuses)]
    await _check(cells, (since, until), context)
    counts = await _totals(cells, context)
    begins = await _beginning(counts.values(), bounds.since, context)
    rows: list[Row] = []
    for place, ((begin, end), customer, workflow, status) in enumerate(cells):
        is_before = counts[place] == 0 and (begins is not None and (begins.at is None or end <= begins.at))
        rows.append(
            {
                "hour": stamp(begin),
                "day": stamp(begin)[:10],
                "week": _begin_of("week", begin).date().isoformat(),
                "month": stamp(begin)[:7],
                "workflowId": workflow,
                "endOrgId": customer,
                "status": status,
                "runs": None if is_before else counts[place],
            }
        )
    notes = [f"exact from {stamp(since)} to {stamp(until)}"]
    if period := _finest(columns):
        if until > now or until != _begin_of(period, until):
            notes.append(f"the last {period} is not whole")
        if since != _begin_of(period, since):
            notes.append(f"the first {period} is not whole")
    if begins is not None and begins.at is None:
        notes.append("when the history of runs begins is not known: a count of 0 is NULL")
    elif begins is not None and begins.at is not None and since < begins.at:
        notes.append(f"the history of runs begins at {stamp(begins.at)}: counts before are NULL")
    return rows, notes


async def _beginning(counts: Collection[int], since: datetime | None, context: ProcedureContext) -> Beginning | None:
    """Return when the history of runs begins, if a count of 0 may be of a period before that, or `since` lies before.

    None if it is certain that it reaches back.
    """
    if 0 in counts:
        return await read_beginning(ListExecutions, context.look)
    return since and await begins_after(ListExecutions, since, context.look, is_empty=False)


async def _totals(cells: Sequence[Cell], context: ProcedureContext) -> Mapping[int, int]:
    """Return the number of runs of each cell, by its place. Raises a `FastnError`."""
    counts: dict[int, int] = {}
    limiter = anyio.CapacityLimiter(_MAX_PARALLEL)

    async def count(place: int) -> None:
        async with limiter:
            (begin, end), customer, workflow, status = cells[place]
            counts[place] = await _total(context, begin, end, customer, workflow, status)

    try:
        async with anyio.create_task_group() as group:
            for place in range(len(cells)):
                group.start_soon(count, place)
    except* Exception as errors:
        raise errors.exceptions[0] from None
    return counts


def _periods(since: datetime, until: datetime, columns: Collection[str]) -> Iterator[Period]:
    """Yield the periods that the finest of these columns tells apart, in UTC."""
    period = _finest(columns)
    begin = since.astimezone(UTC)
    end = until.astimezone(UTC)
    while begin < end:
        following = end if period is None else min(_following(period, begin), end)
        yield begin, following
        begin = following


def _finest(columns: Collection[str]) -> str | None:
    return next((name for name in _PERIODS if name in columns), None)


def _begin_of(period: str, at: datetime) -> datetime:
    """Return the begin of the period in UTC in which a time lies."""
    hour = at.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    day = hour.replace(hour=0)
    match period:
        case "hour":
            return hour
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)
        case _:
            return day


def _following(period: str, at: datetime) -> datetime:
    """Return the begin of the next period."""
    begin = _begin_of(period, at)
    match period:
        case "hour":
            return begin + timedelta(hours=1)
        case "week":
            return begin + timedelta(weeks=1)
        case "month":
            return _begin_of(period, begin + timedelta(days=32))
        case _:
            return begin + timedelta(days=1)


async def _check(cells: Sequence[object], period: Period, context: ProcedureContext) -> None:
    """Read all runs of the period if those are fewer requests than counting. Raises if both are too many."""
    look = context.look
    if len(cells) > 1:
        since, until = map(stamp, period)
        listing = ListExecutions(since=since, until=until, limit=MAX_LIMIT)
        await read_if_short(listing, look, min(len(cells), look.affordable) - 1)
        if look.snapshot.pages_left(listing) == 0:
            if len(cells) > _MAX_CELLS * 20:
                raise _too_many(len(cells), _MAX_CELLS * 20)
            return
    if len(cells) > look.affordable:
        raise _too_many(len(cells), look.affordable)


def _too_many(needed: int, most: int) -> InvalidArgument:
    return InvalidArgument(
        f"run_counts takes one request for each period, customer, workflow and status: {needed:,} here, and at most"
        f" {most:,} now.",
        "Leave out a column of run_counts, or bound it with since, until, customer and workflow.",
        certainty=NOTHING_CHANGED,
    )


async def _total(context: ProcedureContext, begin: datetime, end: datetime, *which: str | None) -> int:
    customer, workflow, status = which
    filters: dict[str, Any] = {"customer_id": customer, "workflow_id": workflow, "status": status}
    call = ListExecutions.model_validate({"limit": 1, "since": stamp(begin), "until": stamp(end), **filters})
    page = await read_page(call, context.look)
    if page.total is not None:
        return page.total
    if page.next_cursor is None and not page.not_checked:
        return len(page.rows)
    raise Failed(
        "Fastn does not say how many runs match, so run_counts cannot be read.",
        "Use the table runs.",
        certainty=NOTHING_CHANGED,
    )
