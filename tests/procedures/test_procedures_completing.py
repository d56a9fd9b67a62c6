"""Tests of completions of ids, and of reading resources that have only a list."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest
from support.world import World

from fastn_mcp.account.entries import LISTS
from fastn_mcp.errors import Failed, Forbidden, NotFound
from fastn_mcp.guard.batch import Done
from fastn_mcp.procedures.context import ProcedureContext
from fastn_mcp.procedures.lookup import KINDS, MAX_NAMES, CompleteId, ReadRow
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.customers import ListCustomers, UpdateCustomer
from fastn_mcp.tools.paging import Listed, Position


async def ids(world: World, kind: str, typed: str) -> list[str]:
    return (await world.ask(CompleteId(kind=kind, typed=typed)))["values"]


@pytest.mark.parametrize("kind", KINDS)
async def test_ids_are_completed_from_nothing_and_from_their_beginning(kind: str, world: World) -> None:
    everything = await ids(world, kind, "")
    assert 0 < len(everything) <= MAX_NAMES
    assert everything[0] in await ids(world, kind, everything[0][:-1].upper())
    assert await ids(world, kind, everything[0]) == everything[:1]
    assert await ids(world, kind, "nothing is called this") == []


async def test_names_slugs_and_emails_complete_to_ids(world: World) -> None:
    """People type names. Whole names come first, then beginnings, words' beginnings, and parts."""
    globex = next(row for row in await world.rows(ListCustomers()) if row.slug == "globex-exports")
    for typed in ("Globex Exports", "  globex   EXPORTS ", "globex-exports", "glob", "exports", "lobex"):
        assert (await ids(world, "customer", typed))[0] == globex.id, typed
    assert await ids(world, "api_key", "key 1") == ["1"]
    other = next(row for row in await world.rows(ListCustomers()) if row.id != globex.id)
    await world.expect(Done, UpdateCustomer(customer_id=other.id, name="New Globex"))
    assert await ids(world, "customer", "globex") == [globex.id, other.id]


async def test_completions_read_fastn_once(tmp_path: Path) -> None:
    world = World(tmp_path, snapshot_seconds=90)
    async with anyio.create_task_group() as tasks:
        for typed in ("a", "ac", "acm", "acme"):
            tasks.start_soon(ids, world, "customer", typed)
    assert len(world.sandbox.requests) == 1


async def test_unreadable_list_is_an_error(world: World) -> None:
    world.refuse("*")
    await world.expect(Forbidden, CompleteId(kind="role", typed="o"))


@pytest.mark.parametrize("kind", LISTS)
async def test_row_is_read_by_its_id(kind: str, world: World) -> None:
    rows = await world.rows(LISTS[kind](limit=100))
    assert (await world.ask(ReadRow(kind=kind, id=str(rows[-1].id))))["id"] == rows[-1].id
    await world.expect(NotFound, ReadRow(kind=kind, id="none"))


async def test_endless_list_is_read_up_to_a_bound() -> None:
    asked: list[Any] = []

    async def endless(reading: Any) -> FastnObject:
        asked.append(reading)
        return Listed(rows=[{"id": "c"}] * 100, next_cursor=Position(offset=1).encode())

    with pytest.raises(Failed, match="not among the first 2000") as raised:
        await ReadRow(kind="connection", id="none").run(cast(ProcedureContext, SimpleNamespace(read=endless)))
    assert "list_connections" in raised.value.next_step
    assert len(asked) == 20
