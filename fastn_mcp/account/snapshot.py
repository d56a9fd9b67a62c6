"""Snapshot of an account: rows that were read a short time ago, shared by the answers of this process.

A narrower list is answered from a wider one that is complete, or that covers the period, without a request. Nothing of
it is used by the guard, by `get_*`, or by a list that is called as a tool.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property, partial
from itertools import chain
from operator import is_
from typing import Any, TypeVar, cast

import anyio
from pydantic_core import to_json

from fastn_mcp.client.cost import received
from fastn_mcp.records.rows import FastnObject, Row, key_of, parse_timestamp, row_of
from fastn_mcp.records.states import run_state
from fastn_mcp.runtime import System, work_on
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.customers import GetCustomer, ListCustomers
from fastn_mcp.tools.operation import Call, Send
from fastn_mcp.tools.paging import MAX_LIMIT, List, Listed, Position, created, created_newest_first

MAX_BYTES = 8_000_000
"""Maximum size of the stored rows as JSON, in bytes. In memory they take about twice as much."""

_MAX_RESULTS = 50
"""Maximum number of values derived from lists, such as a search index or the findings of an overview."""

_MAX_LIMIT_WITHOUT_TOTAL = 2
"""Maximum limit of a list that is answered from the newest rows without Fastn's count of all rows."""

_UNFINISHED_SECONDS = 5.0
"""Age in seconds from which on stored runs are read again if one of them had not ended."""

_UNSETTLED_SECONDS = 90.0
"""Seconds in which reads are kept only that long, after a change by Fastn's AI or one whose outcome is unknown."""

_UNTIL_STUCK = 300.0
"""Age in seconds from which on a run that is still under way is not expected to end soon."""

_CHANGES_ANYTHING = "ai"
"""The toolset whose calls may change resources of every kind."""

_AFTER_EACH_CHANGE = ("audit", "billing")

_RUNS = "executions"

_CASCADE = {
    "customers": ("connections", "secrets", "triggers", "executions"),
    "connectors": ("connections", "triggers", "workflows"),
    "connections": ("triggers",),
    "workflows": ("triggers", "executions"),
    "triggers": ("executions",),
}
"""Toolsets whose rows may be deleted, or read differently, together with the rows of another."""

Key = tuple[str, bytes]
T = TypeVar("T")


@dataclass(frozen=True)
class Prefix:
    """The first rows of a list, each once, as far as they were read without a gap."""

    rows: Sequence[Row]
    is_complete: bool
    total: int | None
    """Fastn's count of all rows."""

    @cached_property
    def by_id(self) -> Mapping[str, Row]:
        rows = {key_of(row): row for row in self.rows}
        rows.pop("", None)
        return rows

    @cached_property
    def oldest(self) -> datetime | None:
        """Creation time of the last row; None unless all rows have one and the newest come first."""
        times = created_newest_first(self.rows)
        return times[-1] if times else None

    @cached_property
    def newest_under_way(self) -> datetime | None:
        """Creation time of the newest row that is a run which has not ended."""
        return max(filter(None, (created(row) for row in self.rows if not run_state(row).has_ended)), default=None)

    def covers(self, since: object) -> bool:
        """Whether no row created since then is missing."""
        begin = parse_timestamp(since)
        return self.is_complete or (begin is not None and self.oldest is not None and self.oldest < begin)


@dataclass(slots=True)
class StoredList:
    """Pages of 100 rows of one list, by cursor."""

    call: List[Any]
    begun: float
    """Time from which on all of them were read, on the monotonic clock."""
    size: int = 0
    pages: dict[str | None, Listed] = field(default_factory=dict[str | None, Listed])
    _prefix: Prefix | None = None

    filters: dict[str, Any] = field(init=False)
    toolset: str = field(init=False)

    def __post_init__(self) -> None:
        self.filters = self.call.filters
        self.toolset = self.call.toolset()

    def add(self, cursor: str | None, page: Listed, size: int) -> None:
        self.pages[cursor] = page
        self._prefix = None
        self.size += size

    @property
    def prefix(self) -> Prefix:
        if self._prefix is None:
            self._prefix = self._joined()
        return self._prefix

    def page(self, cursor: str | None) -> Listed | None:
        """Return the page at a cursor, also if it was read by its offset."""
        pages = self._in_order()
        return self.pages.get(cursor) or next((after for page, after in pages if page.next_cursor == cursor), None)

    def _in_order(self) -> Iterator[tuple[Listed, Listed | None]]:
        """Yield the pages from the first on, as far as none is missing, each with the one after it."""
        page = self.pages.get(None)
        read = 0
        while page is not None:
            read += len(page.rows)
            after = None
            if page.rows and page.next_cursor is not None:
                after = self.pages.get(page.next_cursor) or self.pages.get(Position(offset=read).encode())
            if after and after.total is not None and page.total is not None and after.total < page.total:
                after = None  # rows were removed meanwhile, and others moved from here to the page before
            yield page, after
            page = after

    def _joined(self) -> Prefix:
        rows = dict[str, Row]()
        pages = [page for page, _ in self._in_order()]
        for row in chain.from_iterable(page.rows for page in pages):
            rows.setdefault(key_of(row) or f"without id {len(rows)}", row)
        total = pages[0].total  # without the rows that were added meanwhile, which move others to a second page
        is_complete = pages[-1].next_cursor is None and (total is None or total <= len(rows))
        return Prefix([*rows.values()], is_complete, len(rows) if is_complete else total)

    def answer(self, call: List[Any]) -> Listed | None:
        """Return the page that `call` asks for, derived from these rows; None if they do not settle it."""
        position = call.position
        rest = self._further_filters(call)
        if rest is None or position.cursor is not None or position.skip:
            return None
        numbered, unchecked = call.matching_rows(self.prefix.rows, rest)
        if unchecked:  # a row does not tell: only Fastn can answer
            return None
        matching = [row for _, row in numbered]
        begin = position.offset
        end = position.offset + call.limit
        is_settled, total = self._total(call, rest, matching)
        if not is_settled or ((total is None or total > len(matching)) and len(matching) < end):
            return None
        following = Position(offset=end).encode() if total is None or end < total else None
        rows = cast("list[dict[str, Any]]", matching[begin:end])
        return Listed(rows=rows, total=total, next_cursor=following)

    def _total(self, call: List[Any], rest: Row, matching: Sequence[Row]) -> tuple[bool, int | None]:
        """Return whether the matching rows are the first that Fastn would return, and the number of all, if known."""
        prefix = self.prefix
        by_creation = "since" in call.filters and "since" not in call.matching
        if prefix.is_complete or (by_creation and prefix.covers(call.filters["since"])):
            return True, len(matching)
        if not rest:
            return True, prefix.total
        if prefix.oldest is None:
            return False, None
        if [*rest] == ["until"] and prefix.total is not None:
            return True, prefix.total - (len(prefix.rows) - len(matching))
        return call.limit <= _MAX_LIMIT_WITHOUT_TOTAL and not {"since", "until"}.intersection(rest), None

    def _further_filters(self, call: List[Any]) -> dict[str, Any] | None:
        """Return the filters of `call` that these rows were not filtered by; None if they lack rows that it wants."""
        rest = dict(call.filters)
        for name, value in self.filters.items():
            if name == "since":
                begin = parse_timestamp(rest.get(name))
                own = parse_timestamp(value)
                if begin is None or own is None or begin < own:
                    return None
            elif rest.pop(name, None) != value:
                return None
        return None if "search" in rest else rest  # what Fastn searches is not documented


@dataclass(frozen=True, slots=True)
class _Answer:
    """Fastn's answer to one call that is not a page of a stored list."""

    toolset: str
    begun: float
    size: int
    result: FastnObject

    @property
    def prefix(self) -> Prefix:
        rows = self.result.rows if isinstance(self.result, Listed) else [row_of(self.result)]
        return Prefix(rows, is_complete=False, total=None)


class AccountSnapshot:
    """Rows of one account by list and filters. Concurrent equal reads are made once."""

    def __init__(self, system: System, max_age: float) -> None:
        """`max_age` in seconds; 0: nothing is kept for other answers."""
        self._system = system
        self._max_age = max_age
        self._lists: OrderedDict[Key, StoredList] = OrderedDict()
        self._answers: OrderedDict[Key, _Answer] = OrderedDict()
        self._results: OrderedDict[Hashable, tuple[float, Sequence[object], Any]] = OrderedDict()
        self._under_way: dict[Key, anyio.Event] = {}
        self._changes: dict[str, int] = {}
        self._unsettled: dict[str, float] = {}
        """Time until which changes of a toolset may still be under way in Fastn."""
        self._instant: tuple[float, datetime] | None = None

    def for_answer(self) -> "AccountSnapshot":
        """Return this snapshot without what is too old for an answer that begins now; an empty one if it is off.

        Runs are dropped together, as their numbers must agree.
        """
        if self._max_age == 0:
            return AccountSnapshot(self._system, math.inf)
        now = self._system.monotonic()
        oldest = now - self._max_age
        self._drop(lambda kept: kept.begun <= oldest)
        unsettled = {toolset for toolset, until in self._unsettled.items() if now < until}
        self._drop(lambda kept: kept.toolset in unsettled and now - kept.begun >= _UNFINISHED_SECONDS)
        for name in [name for name, (begun, _, _) in self._results.items() if begun <= oldest or unsettled]:
            del self._results[name]
        if self._instant is not None and self._instant[0] <= oldest:
            self._instant = None
        if any(map(self._is_outdated, (*self._lists.values(), *self._answers.values()))):
            self._drop(lambda kept: kept.toolset == _RUNS)
            self._instant = None
        return self

    def instant(self) -> datetime:
        """Return the time at which periods end: the same for all answers that share counts of runs."""
        if self._instant is None:
            self._instant = self._system.monotonic(), self._system.now()
        return self._instant[1]

    async def read(self, call: Call, send: Send) -> tuple[FastnObject, float]:
        """Return the result of a read, and since when it holds on the monotonic clock.

        It is a stored one, one derived from a wider list, or Fastn's. Raises a `FastnError`.
        """
        key = _key(call)
        answer = self._find(call, key)
        other = self._under_way.get(key)
        if answer is None and other is not None:
            await other.wait()
            answer = self._find(call, key)
        return answer or await self._send(call, key, send)

    async def _send(self, call: Call, key: Key, send: Send) -> tuple[FastnObject, float]:
        self._under_way[key] = done = anyio.Event()
        toolset = call.toolset()
        try:
            begun = self._system.monotonic()
            changes = self._changes.get(toolset, 0)
            result = await send(call)
            size = await work_on(received(), partial(_size, result))
            if changes == self._changes.get(toolset, 0):  # otherwise it may be stale
                self._keep(call, key, result, size, begun=begun)
            return result, begun
        finally:
            if self._under_way.get(key) is done:
                del self._under_way[key]
            done.set()

    def stored(self, listing: List[Any]) -> StoredList | None:
        """Return what is stored of a list with these filters; None if its first page is not."""
        return self._lists.get(_key(_first_page(listing)))

    def listed(self, lister: type[List[Any]], key: str) -> tuple[Row, float] | None:
        """Return the row with this id of any stored list of a kind, and since when it holds; None if none has it."""
        for stored in self._lists.values():
            row = stored.prefix.by_id.get(key) if isinstance(stored.call, lister) else None
            if row:
                return row, stored.begun
        return None

    def holds(self, call: Call) -> bool:
        """Whether the answer to `call` needs no request."""
        return self._find(call, _key(call)) is not None

    def pages_left(self, listing: List[Any]) -> int | None:
        """Return the number of pages of a list that were not read; None if its first was not, or it has no total."""
        stored = self.stored(listing)
        if stored is None or stored.prefix.total is None:
            return None
        return math.ceil((stored.prefix.total - len(stored.prefix.rows)) / MAX_LIMIT)

    def derived(self, name: Hashable, sources: Sequence[object], make: Callable[[], T]) -> T:
        """Return `make()`, kept under `name` while these are its sources, up to the maximum age."""
        _, known, result = self._results.get(name, (0.0, (), None))
        if name in self._results and len(known) == len(sources) and all(map(is_, known, sources)):
            self._results.move_to_end(name)
            return cast(T, result)
        made = self._system.monotonic()
        known = [*sources]
        result = make()
        self._results[name] = (made, known, result)
        self._results.move_to_end(name)
        if len(self._results) > _MAX_RESULTS:
            self._results.popitem(last=False)
        return result

    def forget(self, toolset: str, is_settled: bool = True) -> None:
        """Drop what a change through this server may have made stale. Not settled: Fastn may still be at it."""
        stale = {toolset, *_CASCADE.get(toolset, ()), *_AFTER_EACH_CHANGE}
        if toolset == _CHANGES_ANYTHING:
            stale.update(operation.toolset() for operation in OPERATIONS.values())
        for name in stale:
            self._changes[name] = self._changes.get(name, 0) + 1
        if not is_settled or toolset == _CHANGES_ANYTHING:
            self._unsettled.update(dict.fromkeys(stale, self._system.monotonic() + _UNSETTLED_SECONDS))
        self._drop(lambda kept: kept.toolset in stale)
        self._results.clear()
        if _RUNS in stale:
            self._instant = None

    @property
    def size(self) -> int:
        """Size of the stored rows as JSON, in bytes."""
        return sum(kept.size for kept in (*self._lists.values(), *self._answers.values()))

    def _find(self, call: Call, key: Key) -> tuple[FastnObject, float] | None:
        """Return the stored or derived answer to a call, and since when it holds."""
        exact = self._answers.get(key)
        if exact is not None:
            self._answers.move_to_end(key)
            return exact.result, exact.begun
        if isinstance(call, GetCustomer):  # a row of the list says as much as the customer itself
            listed = self.listed(ListCustomers, call.customer_id)
            return listed and (type(call).returns.model_validate(listed[0]), listed[1])
        if not isinstance(call, List):
            return None
        listing = cast("List[Any]", call)
        filters = listing.filters
        answers: list[tuple[Listed, StoredList]] = []
        for stored in self._lists.values():
            if type(stored.call) is not type(listing):
                continue
            page = None
            if stored.filters == filters and listing.limit == MAX_LIMIT:
                page = stored.page(listing.cursor)
            page = page or stored.answer(listing)
            if page is not None:
                answers.append((page, stored))
                if page.total is not None:
                    break
        if not answers:
            return None
        page, stored = answers[-1]
        self._lists.move_to_end(_key(stored.call))
        return page, stored.begun

    def _keep(self, call: Call, key: Key, result: FastnObject, size: int, *, begun: float) -> None:
        is_page = isinstance(call, List) and call.limit == MAX_LIMIT
        if is_page and isinstance(result, Listed) and not result.not_checked:
            self._keep_page(cast("List[Any]", call), begun, result, size)
        else:
            self._answers[key] = _Answer(call.toolset(), begun, size, result)
        excess = self.size - MAX_BYTES
        while excess > 0:
            kept: Any = min(filter(None, (self._answers, self._lists)), key=lambda of: next(iter(of.values())).begun)
            excess -= kept.popitem(last=False)[1].size

    def _keep_page(self, call: List[Any], begun: float, page: Listed, size: int) -> None:
        of = _key(_first_page(call))
        stored = None if call.cursor is None else self._lists.get(of)
        if call.cursor is None:
            stored = self._lists[of] = StoredList(_first_page(call), begun)
        if stored is None:
            self._answers[_key(call)] = _Answer(call.toolset(), begun, size, page)
        else:
            stored.add(call.cursor, page, size)
            self._lists.move_to_end(of)

    def _drop(self, is_stale: Callable[["StoredList | _Answer"], bool]) -> None:
        for of in (self._lists, self._answers):
            for key in [key for key, kept in of.items() if is_stale(kept)]:
                del of[key]

    def _is_outdated(self, stored: StoredList | _Answer) -> bool:
        """Whether a run that was under way has probably ended. A long one is not expected to end just now."""
        if stored.toolset != _RUNS or self._system.monotonic() - stored.begun < _UNFINISHED_SECONDS:
            return False
        newest = stored.prefix.newest_under_way
        return newest is not None and (self._system.now() - newest).total_seconds() < _UNTIL_STUCK


def _size(result: FastnObject) -> int:
    return len(to_json(result.rows if isinstance(result, Listed) else result, fallback=str))


def _first_page(call: List[Any]) -> List[Any]:
    """Return the call for the first page of a list."""
    return call.model_copy(update={"cursor": None, "limit": MAX_LIMIT, "fields": None, "detail": None})


def _key(call: Any) -> Key:
    return call.tool_name(), to_json(call.model_dump(exclude_none=True))
