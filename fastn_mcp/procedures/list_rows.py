"""Rows of one page of a list, by bounded reads: until it is full, or of the whole list where it is sorted here."""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Annotated, Any

from pydantic import Field, JsonValue, SkipValidation

from fastn_mcp.client.reads import RecordedReads, read_page, read_pages
from fastn_mcp.errors import FastnError
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.reads import unique
from fastn_mcp.records.formats import counted, quoted, stamp
from fastn_mcp.records.rows import FastnObject, Row, parse_timestamp, text, timestamp
from fastn_mcp.tools.fields import in_words
from fastn_mcp.tools.paging import MAX_LIMIT, MAX_OBJECTS, ORDERS, List, Place, Position, mark
from fastn_mcp.tools.workflows import ListExecutions

_NOT_ENDED = "!completed,failed,timeout,cancelled"


class ListAnswer(FastnObject):
    """Rows of a page of a list, and what an agent has to know about them."""

    total: Annotated[int | None, Field(description="How many there are in all, if known.")] = None
    by_status: Annotated[
        dict[str, int] | None, Field(description="How many of these rows have which status, if no page is missing.")
    ] = None
    order: Annotated[str | None, Field(description="Order of the rows, if it is not Fastn's.")] = None
    looked_at: Annotated[int | None, Field(description="Rows that were read for it, if most did not match.")] = None
    not_checked: Annotated[list[str] | None, Field(description="Filters that the rows could not confirm.")] = None
    unknown: Annotated[list[str] | None, Field(description="Filters with an unknown value that no row has.")] = None
    absent: Annotated[list[str] | None, Field(description="Requested fields that no row has.")] = None
    now: Annotated[str | None, Field(description="The server's time, if the rows' times have no age.")] = None
    ids: Annotated[
        dict[str, dict[str, str]] | None, Field(description="Names by id of what the rows call by name, by kind.")
    ] = None
    next_cursor: Annotated[str | None, Field(description="Give it as `cursor` to read on.")] = None
    items: SkipValidation[list[dict[str, JsonValue]]]
    places: SkipValidation[list[Place]] = Field(default=[], exclude=True)
    dropped: SkipValidation[list[dict[str, JsonValue]]] = Field(default=[], exclude=True)
    """Rows that were read for it and do not match, of a list that keeps them."""
    gaps: list[str] = Field(default=[], exclude=True)
    """What could not be read of the rows, in sentences."""


MAX_FURTHER_PAGES = 10
"""Maximum number of further pages of 100 rows read to fill one page, if Fastn does not filter."""


async def collected(call: List[Any], context: ProcedureContext) -> ListAnswer:
    """Return the page with Fastn's rows. Reads further pages while filters leave it short of rows."""
    if isinstance(call, ListExecutions) and call.under_way_minutes is not None:
        call = _begun_before(call, context.system.now() - timedelta(minutes=call.under_way_minutes))
    if call.statuses or ORDERS.keys() & call.filters:
        return await _whole(call, context)
    page = await read_page(call, context.read)
    items = list(page.rows)
    places = list(page.places)
    unchecked = set(page.not_checked or ())
    total = page.total
    read = 1
    received = page.received
    dropped = list(page.dropped)
    while call.filters and len(items) < call.limit and page.next_cursor is not None and read <= MAX_FURTHER_PAGES:
        if not context.look.affordable:
            break
        await context.report(f"{len(items)} of {call.limit} rows found", read, None)
        try:
            following = call.wider(page.next_cursor, call.limit - len(items))
            page = await read_page(following, context.read)
        except FastnError:
            if not items:
                raise
            break  # keep the rows found; the cursor continues from here
        items += page.rows
        places += page.places
        unchecked |= {*(page.not_checked or ())}
        total = None
        read += 1
        received += page.received
        dropped += page.dropped
    is_whole = page.next_cursor is None and call.cursor is None
    every = context.look.snapshot.stored(type(call)())
    if is_whole and not unchecked:
        total = len(items)
    elif call.filters and every and total == every.prefix.total:
        total = None  # of all rows: Fastn may have ignored the filters
    return ListAnswer(
        items=items,
        places=places,
        next_cursor=page.next_cursor,
        total=total,
        not_checked=sorted(unchecked) or None,
        unknown=call.unknown(items) or None,
        looked_at=received if read > 1 else None,
        by_status=_by_status(items) if is_whole else None,
        dropped=dropped,
    )


def _begun_before(call: ListExecutions, time: datetime) -> ListExecutions:
    """Return a call for the runs that had begun by `time` and have not ended, with the filters that Fastn has."""
    until = stamp(min(time, parse_timestamp(call.until) or time))
    return call.model_copy(update={"until": until, "status": call.status or _NOT_ENDED})


async def _whole(call: List[Any], context: ProcedureContext) -> ListAnswer:
    """Return the page of a list that is read whole, up to a bound, before it is filtered and sorted here."""
    read, statuses, is_complete = await _all_rows(call, context)
    numbered, unchecked = call.matching_rows(read)
    matching = [row for _, row in numbered]
    position = call.position
    words, fields = next((order for name, order in ORDERS.items() if name in call.filters), (None, ()))
    if words is not None:
        matching.sort(key=partial(_seconds, fields=fields))
    start = next((end for end, row in enumerate(matching, 1) if mark([row]) == position.before), position.skip)
    rows = matching[start : start + call.limit]
    places = [(Position(skip=start, before=mark([row])), number) for number, row in enumerate(rows, 1)]
    end = Position(skip=start + len(rows), before=mark(rows[-1:]))
    advice = "use more filters" if context.look.affordable else "call again in a minute, or use more filters"
    gaps = list[str]()
    if not is_complete:
        gaps.append(f"Only {counted(len(read), 'row')} were read, others may match: {advice}.")
    if statuses and call.filters["status"].startswith("!"):
        gaps.append(f"Read by status: {in_words(tuple(statuses))}. Rows with any other status are not here.")
    return ListAnswer(
        items=rows,
        places=places,
        next_cursor=end.encode() if rows and start + len(rows) < len(matching) else None,
        total=len(matching) if is_complete and not unchecked else None,
        not_checked=unchecked or None,
        unknown=call.unknown(matching) or None,
        looked_at=len(read) if len(read) > MAX_LIMIT else None,
        by_status=_by_status(matching) if is_complete else None,
        order=words,
        gaps=gaps,
    )


def _seconds(row: Row, fields: Sequence[str]) -> float:
    """Return the time in the first of these fields that has one; without one, the row comes last."""
    at = timestamp(row, *fields)
    return at.timestamp() if at else math.inf


async def _all_rows(
    call: List[Any], context: ProcedureContext
) -> tuple[list[dict[str, JsonValue]], Sequence[str], bool]:
    """Return what Fastn's filters leave, the statuses by which it was read, and whether no row is missing."""
    send = RecordedReads(context.read)
    ours = dict.fromkeys(call.applied_here())
    listing = call.model_copy(update={"cursor": None, "limit": MAX_LIMIT, **ours})
    first = await read_page(listing, send)
    statuses = call.statuses
    by_status = [listing.model_copy(update={"status": status}) for status in statuses]
    is_shorter = first.next_cursor is not None and MAX_LIMIT * len(statuses) < (first.total or math.inf)
    if not (is_shorter and by_status and context.look.affordable):
        statuses = ()
    else:  # where Fastn does not filter, this would read everything several times
        page = await read_page(by_status[0], send)
        statuses = statuses if page.received == len(page.rows) else ()
    rows = list[dict[str, JsonValue]]()
    is_complete = True
    most = min(MAX_FURTHER_PAGES, context.look.affordable) + 1
    for part in by_status if statuses else [listing]:
        pages = await read_pages(part, send, max(1, most))
        most -= len(pages.pages)
        is_complete = is_complete and pages.is_complete
        rows += [row for page in pages.pages for row in page.rows]
    return unique(rows), statuses, is_complete


def _status(row: Row) -> str:
    status = row.get("status")  # faster than `text`, which reads other spellings too
    return status if isinstance(status, str) else text(row, "status")


def _by_status(rows: Sequence[Row]) -> dict[str, int] | None:
    """Count many rows by status, if they differ in it."""
    if len(rows) <= MAX_OBJECTS:
        return None
    counts = Counter[str]()
    values = (_status(row) for row in rows)
    for value, count in Counter(values).items():  # the words are looked at once for each, not for each row
        status = value if value.strip() else ""
        counts[status if quoted(status) == status else "other"] += count
    return dict(counts.most_common()) if len(counts) > 1 else None
