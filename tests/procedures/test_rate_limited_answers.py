"""Answers under the Free plan, 20 requests a minute: useful, within 10 seconds, never refused for want of requests."""

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from large_account import large_account
from support.world import World

from fastn_mcp.errors import Failed
from fastn_mcp.extensions.sandbox.server import Dataset, dataset
from fastn_mcp.procedures.context import Procedure
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.procedures.find import Find
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.tools.billing import GetQuotas

ACCOUNTS = pytest.mark.parametrize("begin", [dataset, large_account], ids=["small", "large"])
LEFT_OUT = "Left out to stay within Fastn's rate limit"


def limited(folder: Path, begin: Dataset, *, seconds: float = 90, requests: int | None = None) -> World:
    world = World(folder, begin=begin, snapshot_seconds=seconds, requests_per_answer=requests)
    world.behave(rate_limit=20)
    return world


async def leave(world: World, requests: int) -> None:
    """Use up the rate limit but for so many requests."""
    while world.client.limit.requests_left != requests:
        await world.client.send(GetQuotas())


async def answer(world: World, call: Procedure[Any]) -> dict[str, Any]:
    """Return an answer that takes at most 10 seconds and no refused request."""
    began, before = world.clock.at, len(world.sandbox.requests)
    shown = await world.ask(call)
    assert (world.clock.at - began).total_seconds() <= 10
    assert len(world.sandbox.requests) - before <= 20
    return shown


@ACCOUNTS
async def test_answers_in_a_row_are_useful(tmp_path: Path, begin: Dataset) -> None:
    world = limited(tmp_path, begin)
    found = await answer(world, Find(query="Katana"))
    diagnosis = await answer(world, Diagnose(customer_id=world.id_of("customers", "Katana")))
    assert "the connection TikTok Shop of Katana is FAILED" in diagnosis["verdict"]
    overview = await answer(world, GetOverview())
    everything = await answer(world, Diagnose())
    assert world.client.limit.requests_left == 3  # for the guard
    if begin is dataset:
        assert (found["found"][0]["name"], overview["not_checked"]) == ("Katana", [])
        assert "because the connection TikTok Shop of Katana is FAILED" in everything["verdict"]
    else:
        assert overview["findings"]
        assert LEFT_OUT in str(overview["not_checked"] + everything["not_checked"])


@ACCOUNTS
async def test_answers_with_five_requests_left_are_useful(tmp_path: Path, begin: Dataset) -> None:
    world = limited(tmp_path, begin)
    await leave(world, 5)
    found = await answer(world, Find(query="Katana"))
    assert found["found"][0]["name"].startswith("Katana")
    assert ["workflow" in gap and "Call again in 60 s" in gap for gap in found["not_searched"]] == [True]
    diagnosis = await answer(world, Diagnose(customer_id="Katana"))
    assert diagnosis["verdict"]
    assert LEFT_OUT in str(diagnosis["not_checked"])
    overview = await answer(world, GetOverview())
    assert overview["findings"]
    if "next_cursor" in overview:
        assert await answer(world, GetOverview(cursor=overview["next_cursor"]))
    assert world.client.limit.requests_left == 3


async def test_connections_of_a_connector_are_read_first(tmp_path: Path) -> None:
    """The question is about connections. The answer names all reads that were left out."""
    world = limited(tmp_path, large_account)
    await leave(world, 8)
    diagnosis = await answer(world, Diagnose(connector_id="hubspot"))
    assert diagnosis["verdict"].startswith(
        "HubSpot: 9 of 212 connections are broken, for 9 customers; it is not known whether runs"
    )
    (gap,) = diagnosis["not_checked"]
    assert gap.endswith(": Left out to stay within Fastn's rate limit. Call again in 60 s to continue.")
    assert {"triggers", "workflows", "failed runs", "queued runs", "names of customers"} <= {
        *gap.split(":")[0].split(", ")
    }


@pytest.mark.parametrize("call", [GetOverview(), Diagnose()], ids=lambda call: call.tool_name())
async def test_the_same_call_again_continues_where_it_stopped(tmp_path: Path, call: Procedure[Any]) -> None:
    """Five calls, a minute apart, together read what one call reads without a limit."""
    world = limited(tmp_path, large_account, seconds=300)
    last: dict[str, Any] = {}
    sizes: list[int] = []
    for _ in range(5):
        last = await answer(world, call)
        sizes.append(len(str(last.get("not_checked", ""))))
        world.clock.pass_(60)
    assert LEFT_OUT not in str(last)
    assert sizes[-1] == min(sizes)


async def test_list_that_is_cut_by_the_limit_says_to_call_again(tmp_path: Path) -> None:
    world = limited(tmp_path, large_account)
    await leave(world, 5)
    answer = await world.rendered_tool("list_connections", expires_before="2026-12-09")
    assert answer["left_out"].endswith("others may match: call again in a minute, or use more filters.")


async def test_name_that_cannot_be_looked_up_is_not_diagnosed_as_an_id(tmp_path: Path) -> None:
    """Nothing is known of an id that does not exist, which looks as if nothing failed."""
    world = limited(tmp_path, dataset)
    await answer(world, GetOverview())
    await leave(world, 3)
    diagnosis = await answer(world, Diagnose(workflow_id="A workflow of another name"))
    assert diagnosis["verdict"].startswith("The resource could not be identified.")
    assert diagnosis["causes"] == []


async def test_kind_that_was_not_looked_through_is_not_said_to_lack_a_name(tmp_path: Path) -> None:
    world = limited(tmp_path, dataset, requests=6)
    trigger = world.sandbox.state.all("triggers")[0]
    for number in range(500):
        world.sandbox.state.put("triggers", {**trigger, "id": str(UUID(int=number)), "name": f"Trigger {number}"})
    error = await world.call(Diagnose(trigger_id="Trigger 250"))
    assert isinstance(error, Failed)
    assert error.what == "Not all triggers were looked through, to keep within Fastn's rate limit."


async def test_runs_are_read_whole_as_far_as_the_limit_goes(tmp_path: Path) -> None:
    world = limited(tmp_path, dataset)
    gaps = [(await world.rendered_tool("list_executions", limit=20, detail="full"))["left_out"] for _ in range(3)]
    assert gaps[0].startswith("8 rows without input and output: they are read for 12 rows of a page.")
    assert gaps[1].endswith("Use limit 3 and next_cursor.")
    assert gaps[2].endswith("Call again in a minute.")
