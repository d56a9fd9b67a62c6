"""Who is called what: the names of an account's resources, by kind. Reads by the sender it is given, within bounds.

What was read is believed for a minute, or until something of that kind is changed through here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import anyio
from pydantic import JsonValue

from fastn_mcp.errors import FastnError
from fastn_mcp.offer import Record
from fastn_mcp.procedures.target import Call, Send
from fastn_mcp.system import System
from fastn_mcp.tools.api_keys import ListApiKeys
from fastn_mcp.tools.connections import ListConnections
from fastn_mcp.tools.connectors import GetConnector, ListConnectors
from fastn_mcp.tools.customers import GetCustomer, ListCustomers
from fastn_mcp.tools.listing import List, Listed
from fastn_mcp.tools.roles import ListRoles
from fastn_mcp.tools.secrets import ListSecrets
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.users import ListUsers
from fastn_mcp.tools.workflows import GetWorkflow, ListWorkflows

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

LOOKUPS = 5
"""Single resources that are read for their names, for one answer."""

_BELIEVED = 60.0
"""Seconds."""

_GETS = {"customer": GetCustomer, "connector": GetConnector, "workflow": GetWorkflow}


@dataclass(frozen=True, slots=True)
class Entry:
    """One resource, as it can be found and told apart."""

    kind: str
    id: str
    name: str
    also: tuple[str, ...]
    """What else it is called: slug, reference, email."""
    status: str | None
    customer: str | None
    """Id of the customer that it belongs to."""
    connector: str | None
    """Id or slug of the connector that it is of."""


@dataclass(frozen=True, slots=True)
class Contents:
    """What there is of a kind; not `complete` where there was more than is read."""

    entries: tuple[Entry, ...]
    complete: bool


class Directory:
    """The names on one account."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._contents: dict[str, tuple[float, Contents]] = {}
        self._turns: dict[str, anyio.Lock] = {}
        self._names: dict[tuple[str, str], tuple[float, str]] = {}

    async def contents(self, kind: str, send: Send) -> Contents:
        """All of a kind, within bounds, read once for all who ask. Raises a `FastnError` where it cannot be read."""
        async with self._turns.setdefault(kind, anyio.Lock()):
            kept = self._contents.get(kind)
            if kept is not None and self._system.monotonic() - kept[0] < _BELIEVED:
                return kept[1]
            return await self._read(kind, send)

    async def _read(self, kind: str, send: Send) -> Contents:
        entries: list[Entry] = []
        reading = cast(Call, LISTS[kind](limit=100))
        for _ in range(PAGES):
            page = cast("Listed[Record]", await send(reading))
            entries += [entry(kind, row) for row in page.items]
            if page.next_cursor is None:
                break
            reading = reading.model_copy(update={"cursor": page.next_cursor})
        else:
            return self._kept(kind, Contents(tuple(entries), complete=False))
        return self._kept(kind, Contents(tuple(entries), complete=True))

    async def names(self, kind: str, ids: Iterable[str], send: Send) -> dict[str, str]:
        """The names of these, as far as they are known or few enough to be looked up."""
        now = self._system.monotonic()
        wanted = list(dict.fromkeys(ids))
        found = {key: kept[1] for key in wanted if (kept := self._names.get((kind, key))) and now - kept[0] < _BELIEVED}
        get = _GETS.get(kind)
        missing = [key for key in wanted if key not in found][:LOOKUPS] if get else []

        async def look_up(key: str) -> None:
            try:
                record = await send(cast(Call, get and get.model_validate({f"{kind}_id": key})))
            except (FastnError, ValueError):
                return  # a name is a courtesy
            found[key] = entry(kind, record).name
            self._names[kind, key] = (now, found[key])

        async with anyio.create_task_group() as group:
            for key in missing:
                group.start_soon(look_up, key)
        return found

    def forget(self, toolset: str) -> None:
        """Something of this toolset, as `customers`, was changed."""
        kind = toolset.removesuffix("s")
        self._contents.pop(kind, None)
        for key in [key for key in self._names if key[0] == kind]:
            del self._names[key]

    def _kept(self, kind: str, contents: Contents) -> Contents:
        now = self._system.monotonic()
        self._contents[kind] = (now, contents)
        self._names |= {(kind, found.id): (now, found.name) for found in contents.entries}
        return contents


def entry(kind: str, record: Record) -> Entry:
    """A row as an entry. Nothing is known of its fields, so that each may be missing."""
    row = record.model_dump()
    name = next(
        (text for field in ("name", "connectionName", "slug", "email", "id") if (text := _text(row, field))), ""
    )
    also = tuple(
        text for field in ("slug", "externalRef", "email", "adminEmail", "userEmail") if (text := _text(row, field))
    )
    connector: JsonValue = row.get("connector")
    slug = _text(connector, "slug") if isinstance(connector, dict) else None
    return Entry(
        kind=kind,
        id=str(row.get("id") or ""),
        name=name,
        also=also,
        status=_text(row, "status"),
        customer=_text(row, "endOrgId") or _text(row, "customerId"),
        connector=slug or _text(row, "connectorId"),
    )


def _text(row: dict[str, JsonValue], field: str) -> str | None:
    value = row.get(field)
    return str(value) if isinstance(value, (str, int)) and value != "" else None
