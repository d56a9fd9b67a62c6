"""Pages of an overview's table: a cursor carries what was asked, and later pages have rows only."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from large_account import large_account
from support.table_rows import table_rows
from support.world import World

from fastn_mcp.errors import FastnError, NotSent
from fastn_mcp.guard.batch import Done
from fastn_mcp.procedures.catalog import TOOLS, parse
from fastn_mcp.procedures.overview.get_overview import GetOverview

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    made = World(tmp_path, begin=large_account, snapshot_seconds=90)
    yield made
    made.close()


async def page(world: World, **arguments: Any) -> dict[str, Any]:
    done = await world.call(GetOverview(**arguments))
    assert isinstance(done, Done), done
    return done.result.model_dump()


def names(answer: dict[str, Any]) -> list[str]:
    return [row["name"] for row in table_rows(answer["table"])]


async def test_later_pages_send_nothing_and_have_rows_only(world: World) -> None:
    asked = {"about": "workflows", "order": "name", "hours": 168}
    first = await page(world, **asked)
    before = len(world.sandbox.requests)
    rows, answer = names(first), first
    while cursor := answer.get("next_cursor"):
        answer = await page(world, **asked, cursor=cursor)
        assert answer.keys() <= {"table", "of", "next_cursor"}
        rows += names(answer)
    assert len(rows) == first["of"] == 150
    assert rows == sorted(rows, key=str.casefold)
    assert len(world.sandbox.requests) == before


async def test_page_after_the_snapshot_is_too_old_says_that_it_was_read_anew(world: World) -> None:
    first = await page(world, about="workflows")
    world.clock.pass_(3600)
    again = await page(world, about="workflows", cursor=first["next_cursor"])
    assert again["note"] == "Read again since the first page: rows may have moved."


@pytest.mark.parametrize("cursor", ["", "t1:3.3", "1", "1.1.1", "1.-1"])
def test_cursor_that_is_none_is_refused(cursor: str) -> None:
    with pytest.raises(FastnError, match="cursor"):
        parse(TOOLS, "get_overview", {"cursor": cursor})


async def test_order_without_a_table_is_refused(world: World) -> None:
    assert isinstance(await world.call(GetOverview(order="name")), NotSent)
