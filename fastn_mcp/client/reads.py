"""Reads of several requests: pages of a list, many records at once, and the record that a call acts on."""

from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self, TypeVar, cast

import anyio
from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.errors import FastnError, LeftOut
from fastn_mcp.records.labels import label_of
from fastn_mcp.records.rows import FastnObject, Row, key_of, row_of
from fastn_mcp.tools.catalog import OPERATIONS, AnyOperation
from fastn_mcp.tools.operation import Call, Send
from fastn_mcp.tools.paging import MAX_LIMIT, List, Listed, Position, created_newest_first

Key = TypeVar("Key", bound=Hashable)
Found = TypeVar("Found")

MAX_LIST_PAGES = 20
"""Maximum number of pages of 100 rows searched for a resource that has no GET of its own."""

SHORT_PAGES = 4
"""Maximum number of pages of a list that is read whole instead of filtered: it knows every spelling of a name."""

GETS = {kind: OPERATIONS[f"get_{kind}"] for kind in ("customer", "connector", "workflow")}
"""Operations that read a resource for its name, by kind."""

MAX_LOOKUPS = 5
"""Maximum number of resources of one kind that are read for their names, per answer."""


async def read_each(keys: Collection[Key], read: Callable[[Key], Awaitable[Found]]) -> dict[Key, Found]:
    """Read by each of these keys in parallel. Returns what was found by key, without what cannot be read."""
    records: dict[Key, Found] = {}

    async def read_one(key: Key) -> None:
        with suppress(FastnError, ValueError):  # ValueError: an id that cannot be sent
            records[key] = await read(key)

    if keys:
        async with anyio.create_task_group() as group:
            for key in keys:
                group.start_soon(read_one, key)
    return records


async def read_names(wanted: Mapping[str, Iterable[str]], send: Send) -> dict[str, dict[str, str]]:
    """Read the names of `wanted` ids by kind, each by a request. Omits unreadable ones."""
    names: dict[str, dict[str, str]] = {kind: {} for kind, keys in wanted.items() if keys}

    async def name_of(resource: tuple[str, str]) -> str:
        kind, key = resource
        label = label_of(kind, row_of(await send(GETS[kind].model_validate({f"{kind}_id": key}))))
        return label.name if label else key

    resources = [(kind, key) for kind, keys in wanted.items() for key in dict.fromkeys(keys)]
    for (kind, key), name in (await read_each(resources, name_of)).items():
        names[kind][key] = name
    return names


async def read_page(listing: List[Any], send: Send) -> Listed:
    """Read one page of a list. Raises a `FastnError`."""
    return cast(Listed, await send(cast(Call, listing)))


@dataclass(slots=True)
class Pages:
    """Pages of one list, in order. Iterating reads one after another, up to `limit`."""

    reading: List[Any]
    """The call for the next page."""
    send: Send
    limit: int
    pages: list[Listed] = field(default_factory=list[Listed])
    is_complete: bool = False
    """Whether no page is missing."""
    error: FastnError | None = None
    """Error of the first later page that `read_pages` could not read."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Listed:
        if not self.has_next:
            raise StopAsyncIteration
        page = await read_page(self.reading, self.send)
        self.pages.append(page)
        self.reading = self.reading.model_copy(update={"cursor": page.next_cursor})
        self.is_complete = page.next_cursor is None
        return page

    async def read_rest(self) -> None:
        """Read the pages that are left. Raises a `FastnError`."""
        async for _ in self:
            pass

    @property
    def has_next(self) -> bool:
        """Whether a further page may be read."""
        return not self.is_complete and len(self.pages) < self.limit

    @property
    def rows(self) -> list[Row]:
        return [row for page in self.pages for row in page.rows]

    @property
    def total(self) -> int | None:
        """Fastn's count of all rows; None if there is none, or if it counts rows that do not match."""
        return None if any(page.total is None for page in self.pages) else self.pages[0].total

    @property
    def lost_rows(self) -> bool:
        """Whether rows were removed while pages were read, so that others may have moved past the end of a page."""
        totals = [page.total for page in self.pages if page.total is not None]
        return any(after < before for before, after in pairwise(totals))


async def read_pages(reading: List[Any], send: Send, limit: int, one_by_one: int | None = None) -> Pages:
    """Read up to `limit` pages: from the third on at once where Fastn pages by offset, else `one_by_one` in a row.

    Raises a `FastnError` if the first page cannot be read.
    """
    pages = Pages(reading, send, limit)
    first = await anext(pages)
    size = len(first.rows)
    total = first.total or 0
    if pages.is_complete or limit == 1:
        return pages
    offsets = range(size, total, size) if size else range(0)
    rest = [reading.model_copy(update={"cursor": Position(offset=offset).encode()}) for offset in offsets[: limit - 1]]
    second = await _second(rest, first, send)
    if second is None:
        pages.limit = limit if one_by_one is None else min(limit, one_by_one)
        try:
            await pages.read_rest()
        except FastnError as error:
            pages.error = error
        return pages
    later: list[Listed | None] = [second, *(None for _ in rest[1:])]
    errors: list[FastnError] = []

    async def read(number: int, call: List[Any]) -> None:
        try:
            later[number] = await read_page(call, send)
        except FastnError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:
        for number, call in enumerate(rest[1:], 1):
            group.start_soon(read, number, call)
    pages.pages += [page for page in later if page is not None]
    pages.is_complete = not errors and len(rest) == len(offsets)
    pages.error = next(iter(errors), None)
    return pages


async def _second(rest: Sequence[List[Any]], first: Listed, send: Send) -> Listed | None:
    """Read the second page by its offset. Returns None if Fastn does not page by offset."""
    if not rest:
        return None
    try:
        page = await read_page(rest[0], send)
    except FastnError:
        return None
    return page if page.rows and page.rows[0] != first.rows[0] else None


class RecordedReads:
    """A `Send` that sends each read only once, and repeats its answer."""

    def __init__(self, send: Send, earlier: Self | None = None) -> None:
        """`earlier`: the reads for the same purpose a short time ago."""
        self.earlier = None if earlier is None else earlier.repeated
        self._send = send
        self._outcomes: dict[tuple[str, bytes], FastnObject | FastnError] = {}

    async def __call__(self, call: Call) -> FastnObject:
        key = call_key(call)
        outcome = self._outcomes.get(key)
        if outcome is not None and not isinstance(outcome, FastnError):
            return outcome
        try:
            outcome = self._outcomes[key] = await self._send(call)
        except FastnError as error:
            self._outcomes[key] = error
            raise
        return outcome

    async def repeated(self, call: Call) -> FastnObject:
        """Return the recorded result of a read, or raise its error. Raises `LeftOut` if it was not made."""
        outcome = self._outcomes.get(call_key(call), LeftOut("It was not read."))
        if isinstance(outcome, FastnError):
            raise outcome
        return outcome


def call_key(call: Call) -> tuple[str, bytes]:
    """Return what two reads of the same have in common."""
    return call.tool_name(), to_json(call.arguments())


def after_creates(lister: AnyOperation, earlier: Send, send: Send) -> Send:
    """Return a `Send` that reads the first page of a list again, and takes the rest from `earlier`, which has read it.

    The whole list is read if no row was added, or if the two together may not be all rows (see `with_new_rows`).
    """

    async def read(call: Call) -> FastnObject:
        listing = cast("List[Any]", call)
        if type(call) is not lister or listing.cursor is not None:
            return await send(call)
        page = await read_page(listing, send)
        if page.next_cursor is None or (page.total or 0) > SHORT_PAGES * MAX_LIMIT:
            return page
        known = [row async for each in Pages(listing, earlier, MAX_LIST_PAGES) for row in each.rows]
        rows = _merged(page, known)
        if rows is None or len(rows) == len({*map(key_of, known)}):
            return page
        return page.model_copy(update={"rows": rows, "next_cursor": None})

    return read


async def with_new_rows(listing: List[Any], known: Sequence[Row], send: Send) -> Sequence[Row] | None:
    """Return all rows of a list by its first page, read again, and the rows `known` before. None if it is not certain.

    That needs the newest rows first and a total that equals the rows: then none was removed and no other added. A row
    beyond the first page may have been edited meanwhile.
    """
    page = await read_page(listing, send)
    return [*page.rows] if page.next_cursor is None else _merged(page, known)


def _merged(page: Listed, known: Sequence[Row]) -> list[dict[str, JsonValue]] | None:
    """Return these rows, the newest first and each as it is now; None if they may not be all."""
    newest = {key_of(row): row for row in page.rows}
    before = {key_of(row): dict(row) for row in known}
    rows = [*(newest | before | newest).values()]
    return None if created_newest_first(rows) is None or page.total != len(rows) else rows
