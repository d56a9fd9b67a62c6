"""Cache of the resource names of an account. It lasts for a minute, or until a resource of that kind changes."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any, Literal, TypeVar, cast, get_args

import anyio

from fastn_mcp.client.reads import GETS, read_names, read_pages
from fastn_mcp.records.rows import Row, key_of, owner_of, text
from fastn_mcp.runtime import System
from fastn_mcp.tools.catalog import OPERATIONS
from fastn_mcp.tools.operation import Call, Send
from fastn_mcp.tools.paging import List

Kind = Literal["customer", "connector", "connection", "workflow", "trigger", "user", "role", "api_key", "secret"]
"""Kinds of named resources."""

LISTS = {kind: cast("type[List[Any]]", OPERATIONS[f"list_{kind}s"]) for kind in get_args(Kind)}
"""The operation that lists each kind."""

MAX_PAGES = 30
"""Maximum number of pages of 100 rows read for one kind."""

_LIFETIME = 60.0
"""Seconds for which a cached name is used."""

_CHANGES_ANYTHING = "ai"
"""The toolset whose calls may change resources of every kind."""

_CASCADE = {
    "customer": ("connection", "secret", "trigger"),
    "connector": ("connection", "trigger"),
    "workflow": ("trigger",),
}
"""Kinds that may be deleted, or read differently, together with a resource."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """A resource with the names by which it is searched for."""

    kind: str
    id: str
    name: str
    also: tuple[str, ...]
    """Other names: slug, reference, email; number and last letters of a key."""
    customer: str | None
    """Id of the customer that owns it."""
    row: Row
    """Its row, without code."""

    @property
    def emails(self) -> list[str]:
        return [name for name in self.also if "@" in name]


@dataclass(frozen=True, slots=True)
class Contents:
    """Resources of one kind. Not `complete` if there are more than were read."""

    entries: tuple[Entry, ...]
    complete: bool


class Directory:
    """Resource names of one account. Concurrent requests for one kind share a single read."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._contents: dict[str, tuple[float, Contents]] = {}
        self._derived: dict[Hashable, tuple[tuple[Contents, ...], Any]] = {}
        self._names: dict[str, dict[str, tuple[float, str]]] = {kind: {} for kind in LISTS}
        self._reading = {kind: anyio.Lock() for kind in LISTS}
        self._changes = dict.fromkeys(LISTS, 0)

    async def contents(self, kind: str, send: Send) -> Contents:
        """Return the resources of a kind, up to `MAX_PAGES`. Raises a `FastnError` if they cannot be read."""
        async with self._reading[kind]:
            cached = self._contents.get(kind)
            if cached is not None and self._is_fresh(cached[0]):
                return cached[1]
            begun, changes = self._system.monotonic(), self._changes[kind]
            contents = await _read(kind, send)
            if changes == self._changes[kind]:  # otherwise it may be stale
                self._contents[kind] = (begun, contents)
                self._names[kind] |= {found.id: (begun, found.name) for found in contents.entries}
            return contents

    def derived(self, contents: Sequence[Contents], name: Hashable, make: Callable[[], T]) -> T:
        """Return `make()`, cached under `name` while these contents are current. The result must not be changed."""
        cached = self._derived.get(name)
        if cached is not None and len(cached[0]) == len(contents) and all(map(is_, cached[0], contents)):
            return cast(T, cached[1])
        current = {id(found) for _, found in self._contents.values()}
        self._derived = {key: old for key, old in self._derived.items() if current.issuperset(map(id, old[0]))}
        result = make()
        self._derived[name] = (tuple(contents), result)
        return result

    async def names(self, kind: str, ids: Iterable[str], send: Send) -> dict[str, str]:
        """Return the names of these ids: the cached ones, and a few that are looked up."""
        wanted = list(dict.fromkeys(ids))
        names = self._names[kind]
        cached = {key: names.get(key) for key in wanted}
        found = {key: item[1] for key, item in cached.items() if item is not None and self._is_fresh(item[0])}
        missing = [key for key in wanted if key not in found] if kind in GETS else []
        if not missing:
            return found
        begun, changes = self._system.monotonic(), self._changes[kind]
        read = (await read_names({kind: missing}, send))[kind]
        if changes == self._changes[kind]:
            names |= {key: (begun, name) for key, name in read.items()}
        return found | read

    def forget(self, toolset: str) -> None:
        """Drop the names of a changed toolset, such as `customers`, and of the kinds that Fastn deletes with it."""
        kind = toolset.removesuffix("s")
        for stale in LISTS if toolset == _CHANGES_ANYTHING else (kind, *_CASCADE.get(kind, ())):
            self._contents.pop(stale, None)
            if stale in self._changes:
                self._changes[stale] += 1
                self._names[stale] = {}

    def _is_fresh(self, since: float) -> bool:
        return self._system.monotonic() - since < _LIFETIME


async def _read(kind: str, send: Send) -> Contents:
    entries: dict[str, Entry] = {}
    found = await read_pages(cast(Call, LISTS[kind](limit=100)), send, MAX_PAGES)
    if found.error is not None:
        raise found.error
    for row in (entry(kind, row) for row in found.rows):
        if row.name:
            entries.setdefault(row.id or f"without id {len(entries)}", row)
    return Contents(tuple(entries.values()), found.is_complete)


_EMAILS = ("email", "adminEmail", "customerAdmin.email", "userEmail")


def entry(kind: str, whole: Row) -> Entry:
    """Return a row as an entry. Any of its fields may be missing."""
    row = {name: value for name, value in whole.items() if name != "code"}
    key = key_of(row)
    also = [other for field in ("slug", "externalRef", *_EMAILS) if (other := text(row, field))]
    if kind == "api_key":
        also += [f"key {key}", f"apikey {key}", text(row, "last4")]
    name = text(row, "name", "connectionName", "workflowName", "slug", "email", "id")
    return Entry(kind, key, name, tuple(filter(None, also)), owner_of(row), row)
