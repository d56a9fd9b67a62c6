"""Find out whether a create may overwrite a row of a long list, by filters that are proven to work.

How Fastn filters is not documented. A row in a filtered answer exists. That there is none proves nothing by itself:
Fastn may not know the filter, compare letter case, or not look into the field. So the same filter also has to find rows
that are known to exist, in another letter case and by a text that only one field of the row has (a control).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, cast

from pydantic_core import to_json

from fastn_mcp.client.reads import MAX_LIST_PAGES, SHORT_PAGES, find_row, read_page
from fastn_mcp.errors import FastnError
from fastn_mcp.records.rows import FastnObject, Row, connection_refers, key_of, owner_of, text
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.operation import UNKNOWN, Create, Send
from fastn_mcp.tools.paging import MAX_LIMIT, List, Listed
from fastn_mcp.tools.related_reads import kind_of, reader_of

Filters = Mapping[str, str]
"""Filters of a list, by the names of its arguments."""

_MAX_CONTROLS = 2
_MIN_FRAGMENT = 3
_RUN = re.compile(r"[a-z0-9]+")


class ExistenceFilter:
    """The filters that find what a create may overwrite. `row`: what they found. `is_proven`: there is nothing."""

    def __init__(self, call: Create[Any], lister: Callable[..., List[Any]], known: Sequence[Row], send: Send) -> None:
        """`known`: rows of the list, by which the filters are proven."""
        self.row: Row | None = None
        self.is_proven = False
        self.is_doubtful = False
        """Whether no filter can prove it: a name has letters beyond ASCII, which a slug may have as any text."""
        self._call = call
        self._lister = lister
        self._known = known
        self._send = send

    async def ask(self) -> None:
        """Ask Fastn by the filters, and prove them if nothing was found. What cannot be read proves nothing."""
        texts = self._call.looked_for
        beside = {name: value for name, value in self._call.beside.items() if value is not None}
        can_search = "search" in cast("type[List[Any]]", self._lister).model_fields
        self.is_doubtful = can_search and not all(each.isascii() for each in texts.values())
        try:
            if beside:
                controls = [self._longest(partial(_same_filters, beside))]
                await self._prove([beside], controls)
            elif can_search:
                controls = [self._longest(partial(_in_other_case, field)) for field in [*texts][:_MAX_CONTROLS]]
                await self._prove(self._searches([*texts.values()]), controls)
        except (FastnError, ValueError):
            self.is_proven = False

    async def _prove(self, queries: Sequence[Filters], controls: Sequence[tuple[Filters, Row] | None]) -> None:
        for query in queries:
            page, is_filtered = await self._page(query)
            answers = [(row, self._call.may_overwrite(row)) for row in page.rows]
            self.row = next((row for row, answer in answers if answer is True), None)
            is_silent = any(answer is None for _, answer in answers)
            if self.row is not None or is_silent or not is_filtered or page.next_cursor is not None:
                return
        if self.is_doubtful or not queries:
            return
        for control in controls:
            if control is None:
                return
            filters, row = control
            page, is_filtered = await self._page(filters)
            if not is_filtered or key_of(row) not in map(key_of, page.rows):
                return
        self.is_proven = True

    async def _page(self, filters: Filters) -> tuple[Listed, bool]:
        """Return the first page, and whether Fastn applied the filters: it sent no other row."""
        page = await read_page(self._lister(limit=MAX_LIMIT, **filters), self._send)
        return page, page.received == len(page.rows) and not page.not_checked

    def _longest(self, control: Callable[[Row], Filters | None]) -> tuple[Filters, Row] | None:
        """Return the most selective control that a known row allows."""
        candidates = [(control(row), row) for row in self._known if key_of(row)]
        controls = [(filters, row) for filters, row in candidates if filters is not None]
        return max(controls, key=lambda each: len("".join(each[0].values())), default=None)

    def _searches(self, texts: Sequence[str]) -> list[Filters]:
        """Return searches, each by a part that some of the texts have in every spelling of them."""
        if self.is_doubtful:
            return [{"search": each} for each in dict.fromkeys(texts)]
        groups: list[list[str]] = []
        for each in dict.fromkeys(texts):
            group = next((group for group in groups if _shared_runs([*group, each])), None)
            if group is None:
                groups.append([each])
            else:
                group.append(each)
        runs = [_shared_runs(group) for group in groups]
        return [{"search": min(each, key=self._rank)} for each in runs] if all(runs) else []

    def _rank(self, run: str) -> tuple[int, int]:
        """Rare parts come first, then long ones."""
        return sum(run in to_json(row).decode().lower() for row in self._known), -len(run)


def _shared_runs(texts: Sequence[str]) -> list[str]:
    """Return the letters and digits between separators that stand in each of these texts."""
    lowered = [each.lower() for each in texts]
    runs = {run for each in lowered for run in _RUN.findall(each)}
    least = _MIN_FRAGMENT if len(texts) > 1 else 1
    return sorted(run for run in runs if len(run) >= least and all(run in each for each in lowered))


def _in_other_case(field: str, row: Row) -> Filters | None:
    """Return a search for the inner part of a field, in another letter case, unless another field has it too."""
    content = row.get(field)
    if not isinstance(content, str) or not content.isascii():
        return None
    fragment = content.strip()[1:-1].strip()
    if len(fragment) < _MIN_FRAGMENT or fragment.swapcase() == fragment:
        return None
    others = to_json({name: value for name, value in row.items() if name != field}).decode()
    return None if fragment.lower() in others.lower() else {"search": fragment.swapcase()}


def _same_filters(beside: Filters, row: Row) -> Filters | None:
    """Return the filters of a connection's connector and customer; None if the row lacks one."""
    fields = {**connection_refers(key_of(row)), **row}
    held = {"connector_id": text(fields, "connectorId", "connector.id"), "customer_id": owner_of(fields) or ""}
    filters = {name: held.get(name, "") for name in beside}
    return filters if all(filters.values()) else None


async def read_overwritten(call: Create[Any], send: Send) -> FastnObject | None:
    """Read the record that a create may overwrite. None if it is proven that there is none, else `UNKNOWN`.

    In this order, until one settles it: the first page of the list, a short list as a whole, the filters, and the
    whole list if it has at most 20 pages.
    """
    lister = cast("type[List[Any]] | None", reader_of(type(call)))
    if lister is None:
        return UNKNOWN
    try:
        lister.model_validate(call.beside)
        row = await _overwritten_row(call, lister, send)
        if row is None or row is UNKNOWN:
            return row
        detail = OPERATIONS.get(f"get_{kind_of(call)}")
        if detail is None:
            return row
        id_ = getattr(row, "id", None)
        return await send(detail.model_validate({detail.route.parameters[-1]: id_})) if id_ else UNKNOWN
    except (FastnError, ValueError):
        return UNKNOWN


async def _overwritten_row(call: Create[Any], lister: type[List[Any]], send: Send) -> FastnObject | None:
    first = await read_page(lister(limit=MAX_LIMIT), send)
    answers = [call.may_overwrite(row) for row in first.rows]
    is_short = first.next_cursor is None or (first.total is not None and first.total <= SHORT_PAGES * MAX_LIMIT)
    if True not in answers and not is_short:
        asked = ExistenceFilter(call, lister, first.rows, send)
        await asked.ask()
        if asked.row is not None:
            return lister.row_type().model_validate(asked.row)
        is_first_page_clear = None not in answers
        if asked.is_proven and is_first_page_clear:
            return None
        if asked.is_proven or asked.is_doubtful or not is_first_page_clear:
            return UNKNOWN
        if (first.total or 0) > MAX_LIST_PAGES * MAX_LIMIT:
            return UNKNOWN
    row, doubtful = await find_row(lister, call.may_overwrite, send)
    return UNKNOWN if row is None and doubtful else row
