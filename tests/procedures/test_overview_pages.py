"""Pages of an overview: they come from what the first page was made of."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from large_account import large_account
from support.world import World

from fastn_mcp.guard.batch import Done
from fastn_mcp.guard.caller import Caller
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.tools.connectors import DeleteConnection

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    made = World(tmp_path, begin=large_account, snapshot_seconds=90)
    yield made
    made.close()


async def page(world: World, cursor: str | None = None, principal: str = "local") -> dict[str, Any]:
    call = GetOverview(about="connections", cursor=cursor)
    done = await world.dispatch(call, Caller(principal, None))
    assert isinstance(done, Done)
    return done.result.model_dump()


def names(answer: dict[str, Any]) -> list[str]:
    return [row["name"] for finding in answer["findings"] for row in finding.get("rows", [])]


async def test_later_pages_send_nothing_and_show_the_state_of_the_first(world: World) -> None:
    first = await page(world)
    before = len(world.sandbox.requests)
    second = await page(world, first["next_cursor"])
    assert not {*names(first)} & {*names(second)}
    for row in world.sandbox.state.all("connections"):
        row["status"] = "ACTIVE"
    world.clock.pass_(3600)
    later = await page(world, first["next_cursor"])
    assert later.pop("as_of") == first["now"]
    assert later == second
    assert len(world.sandbox.requests) == before
    assert {name: second[name] for name in ("now", "order")} == {name: first[name] for name in ("now", "order")}


async def test_change_does_not_move_the_pages(world: World) -> None:
    first = await page(world)
    second = await page(world, first["next_cursor"])
    row = next(row for row in world.sandbox.state.all("connections") if row["status"] == "EXPIRED")
    world.snapshot.forget(DeleteConnection.toolset())
    world.sandbox.state.drop("connections", str(row["id"]))
    assert await page(world, first["next_cursor"]) == second
    anew = await page(world)
    assert [finding["what"] for finding in anew["findings"]] != [finding["what"] for finding in first["findings"]]


async def test_page_whose_first_one_is_gone_says_so(world: World) -> None:
    first = await page(world)
    second = await page(world, first["next_cursor"])
    for _ in range(8):  # as many answers as are kept
        await page(world)
    again = await page(world, first["next_cursor"])
    assert again["note"] == "The first page is no longer kept: this one was read anew."
    assert names(again) == names(second)
    assert "note" not in second


async def test_pages_of_another_principal_are_read_anew(world: World) -> None:
    """A cursor shows nobody what only somebody else may read."""
    first = await page(world)
    assert "note" in await page(world, first["next_cursor"], "somebody else")
    assert "note" not in await page(world, first["next_cursor"])


async def test_cursor_of_another_question_is_read_anew(world: World) -> None:
    first = await page(world)
    done = await world.dispatch(GetOverview(about="runs", cursor=first["next_cursor"]), Caller("local", None))
    assert isinstance(done, Done)
    answer = done.result.model_dump()
    assert "note" in answer
    assert "runs" in answer
