"""Find out whether a create may overwrite a row: in a short list by all of its rows, in a long one by filters."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from pydantic_core import to_json

from fastn_mcp.client.absence import (
    MIN_FRAGMENT,
    Filters,
    control_by,
    finds_known_rows,
    read_filtered,
    references_of,
    text_in_other_case,
)
from fastn_mcp.client.reads import MAX_LIST_PAGES, SHORT_PAGES, Pages, read_page, with_new_rows
from fastn_mcp.errors import FastnError
from fastn_mcp.records.rows import FastnObject, Row
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.operation import UNKNOWN, Create, Send
from fastn_mcp.tools.paging import MAX_LIMIT, List, Listed
from fastn_mcp.tools.related_reads import kind_of, reader_of

_MAX_CONTROLS = 2
_RUN = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True)
class Overwritten:
    """What is known of the row that a create may overwrite: `row` is it; `is_settled`: there is none."""

    row: Row | None = None
    is_settled: bool = False
    is_doubtful: bool = False
    """Whether no filter can settle it: a name has letters beyond ASCII, which a slug may have as any text."""


async def read_overwritten(call: Create[Any], send: Send, earlier: Send | None = None) -> FastnObject | None:
    """Read the record that a create may overwrite. None if it is proven that there is none, else `UNKNOWN`.

    In this order, until one settles it: the first page of the list, a short list as a whole, the filters, and the
    whole list if it has at most 20 pages. `earlier` repeats the reads of an evaluation a short time ago: of a long
    list that it has read as a whole, only the first page is read again; else its first page proves the filters.
    """
    lister = cast("type[List[Any]] | None", reader_of(type(call)))
    if lister is None:
        return UNKNOWN
    try:
        lister.model_validate(call.beside)
        found = await _overwritten(call, lister, send, earlier)
        if found.row is None:
            return None if found.is_settled else UNKNOWN
        record = lister.row_type().model_validate(found.row)
        detail = OPERATIONS.get(f"get_{kind_of(call)}")
        if detail is None:
            return record
        id_ = getattr(record, "id", None)
        return await send(detail.model_validate({detail.route.parameters[-1]: id_})) if id_ else UNKNOWN
    except (FastnError, ValueError):
        return UNKNOWN


async def _overwritten(call: Create[Any], lister: type[List[Any]], send: Send, earlier: Send | None) -> Overwritten:
    listing = lister(limit=MAX_LIMIT)
    if earlier is not None:
        found = await _by_earlier_reads(call, listing, send, earlier)
        if found.row is not None or found.is_settled:
            return found
    first = await read_page(listing, send)
    if not _is_short(first):
        in_first = _among(call, first.rows, is_whole=True)
        if in_first.row is not None:
            return in_first
        found = await by_filters(call, lister, first.rows, send)
        if found.row is not None:
            return found
        is_too_long = (first.total or 0) > MAX_LIST_PAGES * MAX_LIMIT
        if found.is_settled or found.is_doubtful or not in_first.is_settled or is_too_long:
            return Overwritten(is_settled=found.is_settled and in_first.is_settled)
    return await _in_whole_list(call, listing, send)


def _is_short(first: Listed) -> bool:
    """Whether a list is short enough to be read as a whole, by its first page."""
    return first.next_cursor is None or (first.total is not None and first.total <= SHORT_PAGES * MAX_LIMIT)


async def _in_whole_list(call: Create[Any], listing: List[Any], send: Send) -> Overwritten:
    pages = Pages(listing, send, MAX_LIST_PAGES)
    is_settled = True
    async for page in pages:
        found = _among(call, page.rows, is_whole=True)
        if found.row is not None:
            return found
        is_settled = is_settled and found.is_settled
    return Overwritten(is_settled=is_settled and pages.is_complete)


def _among(call: Create[Any], rows: Sequence[Row], *, is_whole: bool) -> Overwritten:
    """Return what these rows say, which are all if `is_whole`. A row may not say whether it is overwritten."""
    answers = [(row, call.may_overwrite(row)) for row in rows]
    row = next((row for row, answer in answers if answer is True), None)
    is_silent = any(answer is None for _, answer in answers)
    return Overwritten(row, is_settled=row is None and is_whole and not is_silent)


async def _by_earlier_reads(call: Create[Any], listing: List[Any], send: Send, earlier: Send) -> Overwritten:
    """Return what is known of a long list by an earlier evaluation, and its new first page or the filters.

    Nothing of a short list, which is read again as a whole.
    """
    known = Pages(listing, earlier, MAX_LIST_PAGES)
    with suppress(FastnError):  # no more of it was read
        await known.read_rest()
    if not known.pages or _is_short(known.pages[0]):
        return Overwritten()
    if known.is_complete:
        rows = await with_new_rows(listing, known.rows, send)
        return Overwritten() if rows is None else _among(call, rows, is_whole=True)
    in_first = _among(call, known.pages[0].rows, is_whole=True)
    return await by_filters(call, type(listing), known.pages[0].rows, send) if in_first.is_settled else Overwritten()


async def by_filters(call: Create[Any], lister: type[List[Any]], known: Sequence[Row], send: Send) -> Overwritten:
    """Ask Fastn by filters, proven by `known` rows if nothing was found. What cannot be read settles nothing."""
    texts = call.looked_for
    beside = {name: value for name, value in call.beside.items() if value is not None}
    can_search = not beside and "search" in lister.model_fields
    is_doubtful = can_search and not all(each.isascii() for each in texts.values())
    queries: Sequence[Filters] = [beside] if beside else []
    if can_search:
        queries = [{"search": each} for each in _searches([*texts.values()], known, is_doubtful=is_doubtful)]
    try:
        for query in queries:
            answer = await read_filtered(lister, query, send)
            found = _among(call, answer.rows, is_whole=answer.is_filtered and answer.is_whole)
            if found.row is not None or not found.is_settled:
                return Overwritten(found.row, is_doubtful=is_doubtful)
        if is_doubtful or not queries:
            return Overwritten(is_doubtful=is_doubtful)
        controls = [control_by(references_of(*beside), known, differs_from=beside)]
        if can_search:
            controls = [control_by(text_in_other_case(field), known) for field in [*texts][:_MAX_CONTROLS]]
        return Overwritten(is_settled=await finds_known_rows(lister, controls, send))
    except (FastnError, ValueError):
        return Overwritten(is_doubtful=is_doubtful)


def _searches(texts: Sequence[str], known: Sequence[Row], *, is_doubtful: bool) -> list[str]:
    """Return searches, each by a part that some of the texts have in every spelling of them."""
    if is_doubtful:
        return list(dict.fromkeys(texts))
    groups: list[list[str]] = []
    for each in dict.fromkeys(texts):
        group = next((group for group in groups if _shared_runs([*group, each])), None)
        if group is None:
            groups.append([each])
        else:
            group.append(each)
    runs = [_shared_runs(group) for group in groups]
    contents = [to_json(row).decode().lower() for row in known]

    def rank(run: str) -> tuple[int, int]:
        """Rare parts come first, then long ones."""
        return sum(run in content for content in contents), -len(run)

    return [min(each, key=rank) for each in runs] if all(runs) else []


def _shared_runs(texts: Sequence[str]) -> list[str]:
    """Return the letters and digits between separators that stand in each of these texts."""
    lowered = [each.lower() for each in texts]
    runs = {run for each in lowered for run in _RUN.findall(each)}
    least = MIN_FRAGMENT if len(texts) > 1 else 1
    return sorted(run for run in runs if len(run) >= least and all(run in each for each in lowered))
