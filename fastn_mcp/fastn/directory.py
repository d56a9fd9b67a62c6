"""Names of an account's resources by kind and id, cached for a minute, or until something of that kind is changed."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any, TypeVar, cast

import anyio

from fastn_mcp.fastn.rows import key_of, owner_of, row_of, text
from fastn_mcp.fastn.targets import GETS, Call, Pages, Send, read_names
from fastn_mcp.runtime import System
from fastn_mcp.tools.account import ListApiKeys, ListRoles, ListSecrets, ListUsers
from fastn_mcp.tools.connectors import ListConnections, ListConnectors
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.tool import FastnObject
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import ListWorkflows

LISTS: dict[str, type[List[Any]]] = {
    "customer": ListCustomers,
    "connector": ListConnectors,
    "connection": ListConnections,
    "workflow": ListWorkflows,
    "trigger": ListTriggers,
    "user": ListUsers,
    "role": ListRoles,
    "api_key": ListApiKeys,
    "secret": ListSecrets,
}
"""Every kind that has names, with the operation that lists it."""

PAGES = 30
"""Pages of a hundred rows that are read of one kind."""

_BELIEVED = 60.0
"""Seconds."""

_ANYTHING = "ai"
"""The toolset whose calls may have changed whatever there is."""

_WITH = {
    "customer": ("connection", "secret", "trigger"),
    "connector": ("connection", "trigger"),
    "workflow": ("trigger",),
}
"""What may go, or read differently, with a resource."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One resource, as it can be found and told apart."""

    kind: str
    id: str
    name: str
    also: tuple[str, ...]
    """What else it is called: slug, reference, email."""
    slug: str | None
    email: str | None
    status: str | None
    customer: str | None
    """Id of the customer that it belongs to."""
    connector: str | None
    """Id or slug of the connector that it is of."""
    connector_name: str | None = None
    """Its name, where the row says it."""
    workflow: str | None = None
    """Id of the workflow that it is a run of."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What there is of a kind; not `complete` where there was more than is read."""

    entries: tuple[Entry, ...]
    complete: bool


class Directory:
    """The names on one account. Whoever asks for a kind that is just being read waits for that reading."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._contents: dict[str, tuple[float, Contents]] = {}
        self._made: dict[Hashable, tuple[tuple[Contents, ...], Any]] = {}
        self._names: dict[str, dict[str, tuple[float, str]]] = {kind: {} for kind in LISTS}
        self._reading = {kind: anyio.Lock() for kind in LISTS}
        self._changes = dict.fromkeys(LISTS, 0)

    async def contents(self, kind: str, send: Send) -> Contents:
        """All of a kind, within bounds. Raises a `FastnError` where it cannot be read."""
        async with self._reading[kind]:
            kept = self._contents.get(kind)
            if kept is not None and self._believed(kept[0]):
                return kept[1]
            begun, changes = self._system.monotonic(), self._changes[kind]
            contents = await _read(kind, send)
            if changes == self._changes[kind]:  # or else it may show what was before
                self._contents[kind] = (begun, contents)
                self._names[kind] |= {found.id: (begun, found.name) for found in contents.entries}
            return contents

    def made_of(self, contents: Sequence[Contents], name: Hashable, make: Callable[[], T]) -> T:
        """The result of `make` for these contents, which nobody may change; cached for as long as they are current."""
        kept = self._made.get(name)
        if kept is not None and len(kept[0]) == len(contents) and all(map(is_, kept[0], contents)):
            return cast(T, kept[1])
        known = {id(found) for _, found in self._contents.values()}
        self._made = {key: made for key, made in self._made.items() if known.issuperset(map(id, made[0]))}
        made = make()
        self._made[name] = (tuple(contents), made)
        return made

    async def names(self, kind: str, ids: Iterable[str], send: Send) -> dict[str, str]:
        """The names of these, as far as they are known or few enough to be looked up."""
        wanted = list(dict.fromkeys(ids))
        names = self._names[kind]
        known = {key: names.get(key) for key in wanted}
        found = {key: kept[1] for key, kept in known.items() if kept is not None and self._believed(kept[0])}
        missing = [key for key in wanted if key not in found] if kind in GETS else []
        if not missing:
            return found
        begun, changes = self._system.monotonic(), self._changes[kind]
        read = (await read_names({kind: missing}, send))[kind]
        if changes == self._changes[kind]:
            names |= {key: (begun, name) for key, name in read.items()}
        return found | read

    def forget(self, toolset: str) -> None:
        """Something of this toolset, as `customers`, was changed: with it goes what Fastn deletes together with it."""
        kind = toolset.removesuffix("s")
        for gone in LISTS if toolset == _ANYTHING else (kind, *_WITH.get(kind, ())):
            self._contents.pop(gone, None)
            if gone in self._changes:
                self._changes[gone] += 1
                self._names[gone] = {}

    def _believed(self, since: float) -> bool:
        return self._system.monotonic() - since < _BELIEVED


async def _read(kind: str, send: Send) -> Contents:
    entries: dict[str, Entry] = {}
    pages = Pages(cast(Call, LISTS[kind](limit=100)), send, PAGES)
    async for page in pages:
        for found in (entry(kind, row) for row in page.items):
            if found.name:
                entries.setdefault(found.id or f"without id {len(entries)}", found)
    return Contents(tuple(entries.values()), pages.is_complete)


def entry(kind: str, record: FastnObject) -> Entry:
    """A row as an entry. Nothing is known of its fields, so that each may be missing."""
    row = row_of(record)
    emails = ("email", "adminEmail", "userEmail")
    return Entry(
        kind=kind,
        id=key_of(row),
        name=text(row, "name", "connectionName", "workflowName", "slug", "email", "id"),
        also=tuple(said for field in ("slug", "externalRef", *emails) if (said := text(row, field))),
        slug=text(row, "slug") or None,
        email=text(row, *emails) or None,
        status=text(row, "status") or None,
        customer=owner_of(row),
        connector=text(row, "connector.slug", "connector", "connectorId") or None,
        connector_name=text(row, "connector.name") or None,
        workflow=text(row, "workflowId") or None if kind not in LISTS else None,
    )
