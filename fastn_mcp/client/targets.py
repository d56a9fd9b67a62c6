"""The record that a call acts on: by its own GET, or in the list of its kind, whose length does not matter."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, cast

from fastn_mcp.client.absence import control_by, finds_known_rows, read_filtered, references_of, text_in_other_case
from fastn_mcp.client.reads import SHORT_PAGES, Pages
from fastn_mcp.errors import FastnError, NotFound
from fastn_mcp.records.rows import FastnObject, Row, connection_refers, key_of
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.operation import UNKNOWN, Call, Send
from fastn_mcp.tools.paging import MAX_LIMIT, List
from fastn_mcp.tools.related_reads import reader_of

MAX_TARGET_PAGES = SHORT_PAGES
"""Maximum number of pages of 100 rows searched for a row whose kind has no GET of its own."""


@dataclass(frozen=True, slots=True)
class ListedRow:
    """The row of a list with an id. Without a row, there is none if `is_settled`."""

    row: Row | None = None
    is_settled: bool = True
    looked_at: int = 0
    """Number of the first rows of the list among which it is not."""
    total: int | None = None
    """Fastn's count of all rows."""

    @property
    def looked_through(self) -> str:
        """Return how far the search reached: `the first 400 of 3,000`."""
        of = "" if self.total is None else f" of {self.total:,}"
        return f"the first {self.looked_at:,}{of}"


async def read_target(call: Call, send: Send) -> FastnObject | None:
    """Read the record that `call` acts on. Returns None if it names none, or if the record does not exist.

    `UNKNOWN` if it is not among the first rows of a longer list. For a create, see `overwrites.read_overwritten`.
    """
    reader = reader_of(type(call))
    if call.target is None or reader is None:
        return None
    if not issubclass(reader, List):
        name = type(call).route.parameters[-1]
        try:
            return await send(reader.model_validate({name: call.target}))
        except NotFound:
            return None
    lister = cast("type[List[Any]]", reader)
    found = await find_listed(lister, call.target, send)
    if found.row is not None:
        return lister.row_type().model_validate(found.row)
    return None if found.is_settled else UNKNOWN


async def find_listed(lister: type[List[Any]], id_: str, send: Send) -> ListedRow:
    """Find the row with this id. Raises a `FastnError` if the list cannot be read.

    In this order, until one settles it: the connections of the connector and customer in a connection's id, the first
    page of the list, a short list as a whole, a proof that the filters work, and as many further pages as are left.
    """
    refers = connection_filters(id_) if lister is ListConnections else {}
    left = MAX_TARGET_PAGES
    if refers:
        like = Pages(lister.model_validate({"limit": MAX_LIMIT, **refers}), send, left)
        found = await _in_filtered_pages(like, id_)
        left -= len(like.pages)
        if found.is_settled or not left:
            return found
    pages = Pages(lister(limit=MAX_LIMIT), send, left)
    first = await anext(pages)
    row = _with_id(first.rows, id_)
    is_short = first.total is not None and first.total <= left * MAX_LIMIT
    if row is None and not pages.is_complete and not is_short:
        found, used = await _by_filters(lister, id_, first.rows, send=send, refers=refers)
        if found.row is not None or found.is_settled:
            return found
        pages.limit -= used
    return await _in_pages(pages, id_)


async def _in_filtered_pages(pages: Pages, id_: str) -> ListedRow:
    """Look through a list with filters. That a row is not there is settled only if Fastn ignores them and shows all."""
    try:
        found = await _in_pages(pages, id_)
    except (FastnError, ValueError):
        return ListedRow(is_settled=False)
    ignores_filters = any(page.received != len(page.rows) for page in pages.pages)
    return replace(found, is_settled=found.row is not None or (pages.is_complete and ignores_filters))


async def _in_pages(pages: Pages, id_: str) -> ListedRow:
    """Look through pages, those first that were read already."""
    row = _with_id(pages.rows, id_)
    while row is None and pages.has_next:
        row = _with_id((await anext(pages)).rows, id_)
    is_settled = row is not None or pages.is_complete
    return ListedRow(row, is_settled=is_settled, looked_at=len(pages.rows), total=pages.total)


async def _by_filters(
    lister: type[List[Any]], id_: str, known: Sequence[Row], *, send: Send, refers: dict[str, str]
) -> tuple[ListedRow, int]:
    """Return what the filters of a list say of an id, proven by `known` rows, and the number of requests for it."""
    control = control_by(references_of(*refers), known, differs_from=refers) if refers else None
    used = 0
    with suppress(FastnError, ValueError):
        if not refers and "search" in lister.model_fields:
            used += 1
            answer = await read_filtered(lister, {"search": id_}, send)
            row = _with_id(answer.rows, id_)
            if row is not None:
                return ListedRow(row), used
            control = control_by(text_in_other_case("id"), known) if answer.is_filtered and answer.is_whole else None
        if control is not None:
            used += 1
            if await finds_known_rows(lister, [control], send):
                return ListedRow(), used
    return ListedRow(is_settled=False), used


def _with_id(rows: Sequence[Row], id_: str) -> Row | None:
    return next((row for row in rows if key_of(row) == id_), None)


def connection_filters(id_: str) -> dict[str, str]:
    """Return the filters of the connector and the customer in a connection's id; empty if it names none."""
    refers = connection_refers(id_)
    filters = {"connector_id": refers.get("connectorId"), "customer_id": refers.get("endOrgId")}
    named = {name: str(value) for name, value in filters.items() if value is not None}
    try:
        ListConnections.model_validate(named)
    except ValueError:
        return {}
    return named
