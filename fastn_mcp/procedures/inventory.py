"""Which workflows and connectors there are, and what of that has changed. Reads within bounds."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, cast

import anyio
from pydantic import JsonValue

from fastn_mcp.errors import FastnError
from fastn_mcp.fastn.rows import Row, key_of, row_of, text, timestamp
from fastn_mcp.offer import Record
from fastn_mcp.procedures.target import Call, Send
from fastn_mcp.tools.connectors import ListConnectors
from fastn_mcp.tools.listing import Listed
from fastn_mcp.tools.workflows import ListWorkflows

PAGES = 6
"""Pages of a hundred rows that are read for one inventory, of both kinds together."""

_MOST_NAMED = 20
_LISTS: dict[str, type[ListWorkflows | ListConnectors]] = {"workflow": ListWorkflows, "connector": ListConnectors}


@dataclass(frozen=True, slots=True)
class Item:
    """One resource, and what tells that it was changed."""

    kind: str
    id: str
    name: str
    state: str
    created: datetime | None


@dataclass(slots=True)
class Inventory:
    """What there is, by kind and id; `partial` says of which kinds not all could be read, and why."""

    items: dict[tuple[str, str], Item] = field(default_factory=dict[tuple[str, str], Item])
    partial: dict[str, str] = field(default_factory=dict[str, str])


async def take(send: Send, first: str) -> Inventory:
    """Both kinds, `first` before the other where there are more pages than are read."""
    found = Inventory()
    further: dict[str, Call] = {}

    async def read(kind: str, call: Call) -> None:
        further.pop(kind, None)
        try:
            page = cast("Listed[Record]", await send(call))
        except FastnError as error:
            found.partial[kind] = error.what
            return
        for row in page.items:
            item = _item(kind, row_of(row))
            found.items[kind, item.id] = item
        if page.next_cursor is not None:
            further[kind] = call.model_copy(update={"cursor": page.next_cursor})

    async with anyio.create_task_group() as group:
        for kind, listing in _LISTS.items():
            group.start_soon(read, kind, cast(Call, listing(limit=100)))
    for _ in range(PAGES - len(_LISTS)):
        if not further:
            break
        kind = first if first in further else next(iter(further))
        await read(kind, further[kind])
    for kind in further:
        found.partial[kind] = f"there are more than the {len(_of(found, kind))} that were read"
    return found


async def appeared(before: Inventory, kind: str, name: str | None, since: datetime, send: Send) -> bool:
    """Whether a new resource of this kind is there, by one read. Raises a `FastnError`."""
    listing: Any = _LISTS[kind]
    page = cast("Listed[Record]", await send(listing(limit=100, search=name)))
    items = [_item(kind, row_of(row)) for row in page.items]
    return any(_is_new(item, before, since) for item in items)


def compared(before: Inventory, after: Inventory, since: datetime) -> dict[str, JsonValue]:
    """What was created, updated and deleted, by id and name, and what cannot be said."""
    created = [item for item in after.items.values() if _is_new(item, before, since)]
    updated = [
        item
        for key, item in after.items.items()
        if (was := before.items.get(key)) is not None and (was.state, was.name) != (item.state, item.name)
    ]
    deleted = [item for key, item in before.items.items() if key not in after.items and item.kind not in after.partial]
    changed: dict[str, JsonValue] = {
        name: _named(items) for name, items in (("created", created), ("updated", updated), ("deleted", deleted))
    }
    partial = {kind: why for found in (before, after) for kind, why in found.partial.items()}
    if partial:
        changed["not_checked"] = [f"Not all {kind}s: {why}" for kind, why in partial.items()]
    return changed


def _is_new(item: Item, before: Inventory, since: datetime) -> bool:
    """Whether it was not there before. Where not all was seen then, it has to have been made since."""
    if (item.kind, item.id) in before.items:
        return False
    return item.kind not in before.partial or (item.created is not None and item.created >= since)


def _named(items: list[Item]) -> JsonValue:
    named: list[JsonValue] = [
        {"kind": item.kind, "id": item.id, "name": item.name[:120]} for item in items[:_MOST_NAMED]
    ]
    return [*named, f"{len(items) - _MOST_NAMED} more"] if len(items) > _MOST_NAMED else named


def _of(found: Inventory, kind: str) -> list[Item]:
    return [item for item in found.items.values() if item.kind == kind]


def _item(kind: str, row: Row) -> Item:
    state = " ".join(str(row.get(name)) for name in ("updatedAt", "version", "status", "publishedVersion"))
    name = text(row, "name", "slug")
    return Item(kind, key_of(row) or name, name, state, timestamp(row, "createdAt"))
