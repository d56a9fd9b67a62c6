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
    first = await page(world, about="workflows", order="name", hours=168)
    before = len(world.sandbox.requests)
    rows, answer = names(first), first
    while cursor := answer.get("next_cursor"):
        answer = await page(world, cursor=cursor)
        assert answer.keys() <= {"table", "of", "next_cursor"}
        rows += names(answer)
    assert len(rows) == first["of"] == 150
    assert rows == sorted(rows, key=str.casefold)
    assert len(world.sandbox.requests) == before


async def test_page_after_the_snapshot_is_too_old_says_that_it_was_read_anew(world: World) -> None:
    first = await page(world, about="workflows")
    world.clock.pass_(3600)
    again = await page(world, cursor=first["next_cursor"])
    assert again["note"] == "Read anew since the first page: rows may have moved."


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"hours": 72}, "hours=24, not 72"),
        ({"about": "connections"}, "about=workflows, not connections"),
        ({"order": "name", "hours": 2}, "order=failed, not name, hours=24, not 2"),
    ],
)
async def test_cursor_of_another_call_is_refused(world: World, other: dict[str, Any], words: str) -> None:
    """It was accepted with other hours, and rows were skipped."""
    first = await page(world, about="workflows")
    world.sandbox.requests.clear()
    refused = await world.call(GetOverview(cursor=first["next_cursor"], **other))
    assert isinstance(refused, NotSent)
    assert words in str(refused)
    assert world.sandbox.requests == []
    same = await page(world, cursor=first["next_cursor"], about="workflows", hours=24, order="failed")
    assert same["table"]["rows"]


@pytest.mark.parametrize("cursor", ["", "t1:3.3", "runs..24.1.1", "workflows.worst.24.1.1", "workflows.failed.24.1"])
def test_cursor_that_is_none_is_refused(cursor: str) -> None:
    with pytest.raises(FastnError, match="cursor"):
        parse(TOOLS, "get_overview", {"cursor": cursor})


async def test_order_without_a_table_is_refused(world: World) -> None:
    assert isinstance(await world.call(GetOverview(order="name")), NotSent)
