"""Tests of a list of 200,000 runs: only the requested rows are read and held in memory."""

import tracemalloc
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from pydantic_core import from_json, to_json
from support.world import World

from fastn_mcp.client.client import FastnClient
from fastn_mcp.client.exchange import Answer
from fastn_mcp.config.model import Settings
from fastn_mcp.extensions.sandbox.auth import KEY
from fastn_mcp.procedures.list_rows import MAX_FURTHER_PAGES
from fastn_mcp.server.rendering import BUDGET
from fastn_mcp.tools.operation import Request
from fastn_mcp.tools.workflows import ListExecutions

RUNS = 200_000
MEGABYTE = 1_000_000


class Runs:
    """A Fastn with very many runs, generated when they are requested. It ignores filters."""

    def __init__(self) -> None:
        self.requests = 0
        self.returned: Counter[int] = Counter()

    async def __call__(self, request: Request) -> Answer:
        self.requests += 1
        start, limit = (int(str(request.query.get(name) or 0)) for name in ("offset", "limit"))
        numbers = range(start, min(start + limit, RUNS))
        self.returned.update(numbers)
        body = to_json({"data": [run(number) for number in numbers], "total": RUNS})
        return Answer(200, {"content-type": "application/json"}, body)

    async def aclose(self) -> None:
        pass


def run(number: int) -> dict[str, Any]:
    return {
        "id": f"exec_{number:012x}",
        "status": "completed",
        "workflowId": "wf_1",
        "workflowName": "Orders",
        "createdAt": "2026-11-24T15:00:00Z",
        "error": None,
        "input": {"text": "x" * 400},
    }


@pytest.fixture
def busy(tmp_path: Path) -> Generator[tuple[World, Runs]]:
    """Yield an account of which only runs can be read."""
    world, runs = World(tmp_path), Runs()
    world.client.send = FastnClient(Settings(base_url="http://localhost", api_key=KEY), runs, world.system).send
    yield world, runs
    world.close()


async def page(world: World, call: ListExecutions) -> dict[str, Any]:
    answer = await world.rendered(call)
    assert len(to_json(answer)) <= BUDGET
    return from_json(to_json(answer))


async def test_page_is_one_request_of_its_size(busy: tuple[World, Runs]) -> None:
    world, runs = busy
    answer = await page(world, ListExecutions())
    assert (runs.requests, runs.returned.total(), len(answer["data"])) == (1, 20, 20)
    assert answer["total"] == RUNS


async def test_further_pages_need_one_request_and_no_more_memory(busy: tuple[World, Runs]) -> None:
    world, runs = busy
    cursor: str | None = None
    peaks: list[int] = []
    tracemalloc.start()
    for _ in range(100):
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        answer = await page(world, ListExecutions(cursor=cursor))
        peaks.append(tracemalloc.get_traced_memory()[1] - before)
        cursor = answer["next_cursor"]
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert runs.requests == 100
    assert runs.returned == Counter(range(2_000))
    assert max(peaks) < MEGABYTE
    assert held < MEGABYTE


async def test_search_without_matches_ends_at_its_bound(busy: tuple[World, Runs]) -> None:
    """If Fastn ignores filters, 1,000 rows are read, and the answer says so and how to continue."""
    world, runs = busy
    tracemalloc.start()
    answer = await page(world, ListExecutions(status="failed"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (runs.requests, runs.returned.total()) == (1 + MAX_FURTHER_PAGES, 20 + MAX_FURTHER_PAGES * 100)
    assert answer["data"] == []
    assert answer["looked_at"] == 20 + MAX_FURTHER_PAGES * 100
    assert answer["next_cursor"]
    assert "total" not in answer
    assert peak < 3 * MEGABYTE
    await page(world, ListExecutions(status="failed", cursor=answer["next_cursor"]))
    assert runs.returned.most_common(1)[0][1] == 1, "no row is read twice"
