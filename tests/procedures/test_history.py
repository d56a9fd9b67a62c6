"""Whenever a period begins before Fastn's history of runs, or its audit log, the answer says when that begins."""

from collections.abc import Generator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from support.behaviour import Filtering, Paging
from support.world import World

from fastn_mcp.extensions.sandbox.state import parse_stamp
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.procedures.query.query import Query
from fastn_mcp.records.formats import stamp


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    world = World(tmp_path, snapshot_seconds=90)
    yield world
    world.close()


def requests_for_runs(world: World) -> int:
    return sum(request.path == "/api/v1/executions" for request in world.sandbox.requests)


def begun(world: World, collection: str = "executions", field: str = "createdAt") -> datetime:
    return parse_stamp(min(str(row[field]) for row in world.sandbox.state.all(collection)))


async def runs(world: World, **arguments: Any) -> dict[str, Any]:
    return await world.rendered_tool("list_executions", limit=1, **arguments)


@pytest.mark.parametrize("days", [-40, -0.01])
async def test_list_of_runs_says_when_the_history_begins_though_it_has_rows(world: World, days: float) -> None:
    answer = await runs(world, since=stamp(begun(world) + timedelta(days=days)))
    assert answer["data"]
    assert answer["history_begins"].startswith(stamp(begun(world)))
    assert requests_for_runs(world) <= 4


async def test_list_of_runs_before_the_history_says_when_it_begins(world: World) -> None:
    """A `total` of 0 was compared with the number of the next month."""
    before = stamp(begun(world))
    for period in ({"until": before}, {"since": "2026-01-01T00:00:00Z", "until": before}):
        answer = await runs(world, **period)
        assert answer["total"] == 0
        assert answer["history_begins"].startswith(before)
    assert requests_for_runs(world) == 4, "the beginning was read once"


async def test_history_that_reaches_back_takes_one_request_and_no_word(world: World) -> None:
    for period in ({"since": stamp(begun(world) + timedelta(days=1))}, {"until": stamp(world.clock.now())}):
        world.sandbox.requests.clear()
        assert "history_begins" not in await runs(world, **period)
        assert requests_for_runs(world) <= 2
    world.sandbox.requests.clear()
    assert "history_begins" not in await runs(world)
    assert requests_for_runs(world) == 1


@pytest.mark.parametrize("filtering", Filtering)
@pytest.mark.parametrize("paging", Paging)
async def test_beginning_is_right_or_not_known(world: World, paging: Paging, filtering: Filtering) -> None:
    """Nothing is known about Fastn's pagination and filters."""
    world.behave(paging=paging, filtering=filtering)
    answer = await runs(world, since="2026-01-01T00:00:00Z")
    assert answer["history_begins"].startswith((stamp(begun(world)), "not known ("))
    if filtering is Filtering.HEEDED:
        assert "history_begins" not in await runs(world, since=stamp(begun(world) + timedelta(days=2)))


async def test_overview_without_runs_says_nothing_of_their_history(world: World) -> None:
    world.disabled["list_executions"] = "exclude_tools"
    assert "history_begins" not in await world.ask(GetOverview(hours=720))


async def test_overview_and_diagnosis_say_when_the_history_begins(world: World) -> None:
    begins = stamp(begun(world))
    for about in (None, "workflows", "customers", "connections"):
        data = await world.ask(GetOverview(about=about, hours=720))
        assert data["history_begins"].startswith(begins), about
        assert "history_begins" not in await world.ask(GetOverview(about=about, hours=48))
    assert "history_begins" not in await world.ask(GetOverview(about="access"))
    connector = world.id_of("connectors", "slack")
    subjects: list[dict[str, Any]] = [
        {},
        {"connector_id": connector},
        {"customer_id": world.id_of("customers", "Acme Corp")},
    ]
    for subject in subjects:
        data = await world.ask(Diagnose(hours=720, **subject))
        assert data["runs"]["history_begins"].startswith(begins), subject
        assert "history_begins" not in (await world.ask(Diagnose(**subject)))["runs"]


async def test_statement_says_when_the_history_and_the_log_begin(world: World) -> None:
    history = f"the history of runs begins at {stamp(begun(world))}"
    log = f"the log begins at {stamp(begun(world, 'audit', 'timestamp'))}"
    long_ago = "2026-01-01"
    later = stamp(begun(world) + timedelta(days=15))

    async def reach(table: str, **bounds: Any) -> str:
        column = "sum(runs)" if table == "run_counts" else "count(*)"
        data = await world.ask(Query(sql=f"select {column} from {table}", **bounds))  # noqa: S608
        return str(data["reach"][table])

    assert history in await reach("runs")
    assert history in await reach("runs", since=long_ago)
    assert history in await reach("run_counts", since=long_ago)
    assert log in await reach("audit")
    assert log in await reach("audit", since=long_ago)
    assert "begins" not in await reach("runs", since=later)
    assert "begins" not in await reach("run_counts", since=later)
    assert "begins" not in await reach("audit", since=stamp(world.clock.now() - timedelta(days=1)))
    assert "the log lacks most reads" in await reach("audit")
