"""Rows of the table `run_counts`: exact numbers of runs by Fastn's own totals, split by the columns that are read.

The median and the 90th percentile of their durations are those of runs that were read: exact where all of them were.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any, cast

import anyio

from fastn_mcp.client.reads import read_page, read_pages
from fastn_mcp.errors import NOTHING_CHANGED, Failed, FastnError, InvalidArgument
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.history import Beginning, begins_after, read_beginning
from fastn_mcp.procedures.query.bounds import Bounds
from fastn_mcp.procedures.query.child_program import P90, Median
from fastn_mcp.procedures.query.tables import TABLES
from fastn_mcp.procedures.reads import read_if_short, unique
from fastn_mcp.records.formats import stamp
from fastn_mcp.records.rows import Row, as_word, number, owner_of, text
from fastn_mcp.tools.paging import MAX_LIMIT, created
from fastn_mcp.tools.workflows import ListExecutions

_DEFAULT_PERIOD = timedelta(days=7)
_MAX_CELLS = 2_000
_MAX_PARALLEL = 8

MAX_WINDOW_PAGES = 40
"""Maximum number of pages of the newest runs or entries of the audit log."""

_QUANTILES = {"median_ms": Median, "p90_ms": P90}
"""Columns of durations."""

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
    split_by: dict[str, Sequence[Any]] = {
        f"{_finest(columns) or 'period'}s": [*_periods(since, until, columns)],
        "customers": ids["customer"] or (None,),
        "workflows": ids["workflow"] or (None,),
        "statuses": _STATUSES if "status" in columns else (None,),
    }
    await _check(split_by, (since, until), context)
    cells: list[Cell] = [*product(*split_by.values())]
    counts = await _totals(cells, context)
    begins = await _beginning(counts.values(), bounds.since, context)
    runs = await _runs(bounds, (since, until), context) if _QUANTILES.keys() & columns else []
    durations = _durations(runs, cells)
    rows = [_row(cell, counts[place], durations[place], begins) for place, cell in enumerate(cells)]
    notes = _notes((since, until), now, columns, begins)
    if _QUANTILES.keys() & columns:
        notes.append(_durations_note(counts, durations))
    return rows, notes


def _row(cell: Cell, count: int, durations: Sequence[float | None], begins: Beginning | None) -> Row:
    """Return the row of a cell. Its count is NULL if it is of a period before the history of runs `begins`."""
    (begin, end), customer, workflow, status = cell
    is_before = count == 0 and begins is not None and (begins.at is None or end <= begins.at)
    return {
        "hour": stamp(begin),
        "day": stamp(begin)[:10],
        "week": _begin_of("week", begin).date().isoformat(),
        "month": stamp(begin)[:7],
        "workflowId": workflow,
        "endOrgId": customer,
        "status": status,
        "runs": None if is_before else count,
        **{name: _quantile(name, durations, count) for name in _QUANTILES},
    }


def _notes(whole: Period, now: datetime, columns: Collection[str], begins: Beginning | None) -> list[str]:
    """Return how far the counts reach."""
    since, until = whole
    notes = [f"exact from {stamp(since)} to {stamp(until)}"]
    period = _finest(columns)
    if period and (until > now or until != _begin_of(period, until)):
        notes.append(f"the last {period} is not whole")
    if period and since != _begin_of(period, since):
        notes.append(f"the first {period} is not whole")
    if begins is not None and begins.at is None:
        notes.append("when the history of runs begins is not known: a count of 0 is NULL")
    elif begins is not None and begins.at is not None and since < begins.at:
        notes.append(f"the history of runs begins at {stamp(begins.at)}: counts before are NULL")
    return notes


async def _beginning(counts: Collection[int], since: datetime | None, context: ProcedureContext) -> Beginning | None:
    """Return when the history of runs begins, if a count of 0 may be of a period before that, or `since` lies before.

    None if it is certain that it reaches back.
    """
    if 0 in counts:
        return await read_beginning(ListExecutions, context.look)
    return since and await begins_after(ListExecutions, since, context.look, is_empty=False)


async def _runs(bounds: Bounds, period: Period, context: ProcedureContext) -> list[Row]:
    """Return the newest runs of a period, as many as the budget of the answer allows."""
    runs: list[Row] = []
    for listing in replace(bounds, since=period[0], until=period[1]).lists(TABLES["runs"]):
        try:
            pages = await read_pages(listing, context.look, MAX_WINDOW_PAGES)
        except FastnError:  # its counts have no quantiles then, which the answer says
            continue
        runs += pages.rows
    return unique(runs)


def _durations(runs: Sequence[Row], cells: Sequence[Cell]) -> list[list[float | None]]:
    """Return the durations of the runs that were read, by cell; None for a run without one."""
    durations: list[list[float | None]] = [[] for _ in cells]
    places: dict[tuple[str | None, str | None, str | None], list[int]] = {}
    for place, (_, *which) in enumerate(cells):
        places.setdefault((which[0], which[1], which[2] and as_word(which[2])), []).append(place)
    kinds = {tuple(value is not None for value in which) for which in places}
    for run in runs:
        at = created(run)
        own = (owner_of(run), text(run, "workflowId"), as_word(text(run, "status")))
        for kind in kinds:
            which = tuple(value if is_told else None for value, is_told in zip(own, kind, strict=True))
            for place in places.get(cast("tuple[str | None, str | None, str | None]", which), ()):
                begin, end = cells[place][0]
                if at is not None and begin <= at < end:
                    durations[place].append(number(run, "durationMs"))
    return durations


def _quantile(name: str, durations: Sequence[float | None], count: int) -> float | None:
    """Return a quantile of the runs of a cell; None unless all were read."""
    if len(durations) != count:
        return None
    quantile = _QUANTILES[name]()
    for duration in durations:
        quantile.step(duration)
    return quantile.finalize()


def _durations_note(counts: Mapping[int, int], durations: Sequence[Sequence[object]]) -> str:
    total = sum(counts.values())
    read = sum(map(len, durations))
    if all(len(durations[place]) == count for place, count in counts.items()):
        return "median_ms and p90_ms are exact"
    share = f"{read / total:.0%}" if total else "none"
    return (
        f"durations were read of {read:,} of {total:,} runs ({share}), the newest: median_ms and p90_ms are NULL where"
        " any is missing. Bound it with since, until, customer and workflow"
    )


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


async def _check(split_by: Mapping[str, Sequence[object]], period: Period, context: ProcedureContext) -> None:
    """Read all runs of the period if those are fewer requests than counting. Raises if both are too many."""
    look = context.look
    needed = math.prod(map(len, split_by.values()))
    if needed > 1:
        since, until = map(stamp, period)
        listing = ListExecutions(since=since, until=until, limit=MAX_LIMIT)
        await read_if_short(listing, look, min(needed, look.affordable) - 1)
        if look.snapshot.pages_left(listing) == 0:
            if needed > _MAX_CELLS * 20:
                raise _too_many(split_by, _MAX_CELLS * 20)
            return
    if needed > look.affordable:
        raise _too_many(split_by, look.affordable)


def _too_many(split_by: Mapping[str, Sequence[object]], most: int) -> InvalidArgument:
    multiplied = " x ".join(f"{len(values):,} {kind}" for kind, values in split_by.items() if len(values) > 1)
    needed = math.prod(map(len, split_by.values()))
    return InvalidArgument(
        f"run_counts takes one request for each period, customer, workflow and status, whatever WHERE says:"
        f" {multiplied} make {needed:,}, and this answer has {most:,}.",
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
