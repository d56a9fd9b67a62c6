"""Tests of find, get_overview and diagnose where Fastn pages, filters, counts or refuses in other ways than hoped.

What they answer is right, or they say what they could not know; also when they share what was read.
"""

import gc
import re
import tracemalloc
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from large_account import large_account
from support.behaviour import Filtering, Paging
from support.shared_account import answer
from support.world import World

from fastn_mcp.account.snapshot import MAX_BYTES
from fastn_mcp.client.exchange import Answer, Exchange
from fastn_mcp.errors import FastnError
from fastn_mcp.extensions.sandbox.state import SandboxState, parse_stamp, stamp
from fastn_mcp.guard.result import Done
from fastn_mcp.procedures.catalog import TOOLS
from fastn_mcp.procedures.diagnosis.diagnose import Diagnose
from fastn_mcp.procedures.find import Find
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.tools.operation import Request
from fastn_mcp.tools.tool import Tool

pytestmark = pytest.mark.no_cover

ACME = "c009d6af-1950-4428-ad06-a70af567801a"
HOURS = 72
QUESTIONS: list[Tool[Any]] = [
    Find(query="the katana customer"),
    GetOverview(hours=HOURS),
    Diagnose(hours=HOURS),
    Diagnose(customer_id="Katana", hours=HOURS),
    Find(query="process new orders", kind="workflow"),
    GetOverview(hours=24),
]
COLLECTIONS = {"customers", "connectors", "connections", "workflows", "triggers", "users", "secrets", "executions"}


class Truth:
    """What holds of an account."""

    def __init__(self, state: SandboxState, now: datetime) -> None:
        self.counts = {name: len(state.all(name)) for name in COLLECTIONS} | {"api_keys": len(state.all("apiKeys"))}
        self._runs = [(parse_stamp(str(row["createdAt"])), row) for row in state.all("executions")]
        self._now = now
        self.customers = {str(row["name"]): str(row["id"]) for row in state.all("customers")}

    def runs(self, hours: int, customer: str | None = None) -> Counter[str]:
        """Return the number of runs of a period by status, and of all."""
        begin = self._now - timedelta(hours=hours)
        rows = [row for at, row in self._runs if at >= begin and customer in (None, row["endOrgId"])]
        return Counter([str(row["status"]) for row in rows]) + Counter(all=len(rows))


def is_between(number: object, first: int, last: int) -> bool:
    """Whether a number is right at some time between two, or says that it is a lower bound."""
    if isinstance(number, str):
        return int(re.findall(r"[\d,]+", number)[0].replace(",", "")) <= max(first, last)
    assert isinstance(number, int)
    return min(first, last) <= number <= max(first, last)


def check(call: Tool[Any], shown: dict[str, Any], before: Truth, after: Truth) -> None:
    """Check an answer of an account that may change from one state to another."""
    unknown = str(shown.get("not_checked", "")) + str(shown.get("not_searched", "")) + str(shown.get("error", ""))
    match call:
        case Find():
            name = "Katana" if "katana" in call.query else "process-new-orders"
            assert name in [row["name"] for row in shown.get("found", [])[:1]] or unknown
        case GetOverview() | Diagnose() if "error" in shown:
            assert "rate limit" in shown["error"] or "429" in shown["error"], shown
        case GetOverview():
            check_runs(call.hours or 24, None, shown.get("runs"), unknown, before, after)
            for kind, number in shown["counts"].items():
                assert is_between(number, before.counts[kind], after.counts[kind]), (kind, number)
            missing = before.counts.keys() - shown["counts"].keys()
            assert not missing or unknown, missing
        case Diagnose():
            customer = None if call.customer_id is None else before.customers[call.customer_id]
            check_runs(call.hours, customer, shown.get("runs"), unknown, before, after)
        case _:
            raise AssertionError(call)


def check_runs(
    hours: int, customer: str | None, shown: dict[str, Any] | None, unknown: str, before: Truth, after: Truth
) -> None:
    first, last = before.runs(hours, customer), after.runs(hours, customer)
    if shown is None:
        assert "success rate" in unknown or "runs" in unknown or "rate limit" in unknown, unknown
    elif "all" not in shown:  # without totals, those that timed out are among the failed
        first["failed"], last["failed"] = (each["failed"] + each["timeout"] for each in (first, last))
    for name in ("all", "completed", "failed", "timeout"):
        if shown is not None and name in shown:
            assert is_between(shown[name], first[name], last[name]), (name, shown, first)


async def ask(world: World, before: Truth | None = None) -> list[dict[str, Any]]:
    """Put all questions, which share what is read, and check each answer. `before`: what held when they began."""
    return [await ask_one(world, call, before) for call in QUESTIONS]


async def ask_one(world: World, call: Tool[Any], before: Truth | None = None) -> dict[str, Any]:
    before = before or Truth(world.sandbox.state, world.clock.at)
    shown = await answer(world, call)
    check(call, shown, before, Truth(world.sandbox.state, world.clock.at))
    return shown


class Watched:
    """Lets something happen before each request, by its number, and may answer in Fastn's place."""

    def __init__(
        self, before: Callable[[int, Request], Answer | None] = lambda _, __: None, *, keeps_headers: bool = True
    ) -> None:
        self._before = before
        self._keeps_headers = keeps_headers
        self.number = 0

    def around(self, inner: Exchange) -> "Watched":
        self._inner = inner
        return self

    async def __call__(self, request: Request) -> Answer:
        self.number += 1
        if (instead := self._before(self.number, request)) is not None:
            return instead
        answer = await self._inner(request)
        if self._keeps_headers:
            return answer
        return replace(answer, headers={k: v for k, v in answer.headers.items() if not k.startswith("x-ratelimit")})

    async def aclose(self) -> None:
        await self._inner.aclose()


Worlds = Callable[..., World]


@pytest.fixture
def worlds(tmp_path: Path) -> Generator[Worlds]:
    """Yield a function that makes worlds with a snapshot, and the share of the rate limit that is the default."""
    made: list[World] = []

    def make(**options: Any) -> World:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        usual: dict[str, Any] = {"snapshot_seconds": 90, "requests_per_answer": None}
        made.append(World(folder, **(usual | options)))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.mark.parametrize(
    ("paging", "filtering"),
    [
        (Paging.TOTAL_AND_CURSOR, Filtering.IGNORED),
        (Paging.TOTAL, Filtering.IGNORED),
        (Paging.CURSOR, Filtering.HEEDED),
        (Paging.SILENT, Filtering.HEEDED),
        (Paging.IGNORED, Filtering.IGNORED),
    ],
)
async def test_answers_are_right_however_fastn_pages_and_filters(
    worlds: Worlds, paging: Paging, filtering: Filtering
) -> None:
    """Without totals, by cursor or offset only, all rows at once; with filters that are ignored."""
    world = worlds(requests_per_answer=1000)
    world.behave(paging=paging, filtering=filtering)
    await ask(world)


async def test_answers_are_right_without_rate_headers(worlds: Worlds) -> None:
    world, usual = worlds(exchange=Watched(keeps_headers=False).around), worlds(requests_per_answer=1000)
    for _ in range(2):  # each answer takes 25 requests at most
        await ask(world)
    assert await ask(world) == await ask(usual)
    assert world.client.limit.requests_left is None


def added_run(world: World, number: int) -> None:
    rows = world.sandbox.state.all("executions")
    newest = {**max(rows, key=lambda row: str(row["createdAt"])), "id": f"exec_{number:012x}", "status": "completed"}
    world.sandbox.state.put("executions", newest | {"createdAt": stamp(world.clock.at)})


def added_customer(world: World, number: int) -> None:
    row = {**world.sandbox.state.all("customers")[0], "id": f"00000000-0000-4000-8000-{number:012x}"}
    world.sandbox.state.put("customers", row | {"name": f"New {number}", "slug": f"new-{number}"})
    added_run(world, number)


def removed_run(world: World, number: int) -> None:
    rows = sorted(world.sandbox.state.all("executions"), key=lambda row: str(row["createdAt"]), reverse=True)
    row = next(row for row in rows[number:] if row["status"] == "completed")
    world.sandbox.state.drop("executions", row["id"])


@pytest.mark.parametrize(
    ("change", "paging"),
    [
        (added_run, Paging.TOTAL_AND_CURSOR),
        (added_run, Paging.CURSOR),
        (added_customer, Paging.TOTAL),
        (removed_run, Paging.TOTAL),
        (removed_run, Paging.CURSOR),
    ],
)
async def test_rows_that_change_while_pages_are_read(
    worlds: Worlds, change: Callable[[World, int], None], paging: Paging
) -> None:
    """Each number is one that was right since the first question, or is said to be uncertain."""

    def before(number: int, request: Request) -> None:
        if "executions" in request.path or "customers" in request.path:
            change(world, number)

    world = worlds(exchange=Watched(before).around, requests_per_answer=1000)
    world.behave(paging=paging)
    await ask(world, Truth(world.sandbox.state, world.clock.at))


@pytest.mark.parametrize(("number", "retry_after"), [(1, 3), (3, None), (7, 45), (7, 3), (20, None)])
async def test_refused_request_in_the_middle(worlds: Worlds, number: int, retry_after: int | None) -> None:
    """Requests are refused until the time that Fastn names, and from then on answered. Each answer takes 10 s."""

    def before(at: int, _: Request) -> Answer | None:
        if at == number:
            until.append(world.clock.at + timedelta(seconds=retry_after or 5))
        if not until or world.clock.at >= until[0]:
            return None
        headers = {"content-type": "application/json"}
        if retry_after is not None:
            headers["retry-after"] = str((until[0] - world.clock.at).seconds + 1)
        return Answer(429, headers, b'{"error": {"code": "RATE_LIMITED", "message": "too many"}}')

    until: list[datetime] = []
    world = worlds(exchange=Watched(before).around, requests_per_answer=1000)
    before_all = Truth(world.sandbox.state, world.clock.at)
    for call in QUESTIONS:
        begun = world.clock.at
        await ask_one(world, call, before_all)
        assert world.clock.at - begun <= timedelta(seconds=20)
    world.clock.pass_(45)
    for shown in await ask(world, before_all):
        assert "rate limit" not in str(shown)


@pytest.mark.long
async def test_memory_for_a_large_account_is_bounded(worlds: Worlds) -> None:
    """Of 200,000 runs, 2,000 customers and 400 connectors."""
    world = worlds(begin=large_account, requests_per_answer=1000)
    tracemalloc.start()
    names = [str(row["name"]) for row in world.sandbox.state.all("customers")[:4]]
    for call in [*QUESTIONS, *(Diagnose(customer_id=name) for name in names), *(Find(query=name) for name in names)]:
        await answer(world, call)
    assert 1_000_000 < world.snapshot.size < MAX_BYTES
    held = memory()
    world.snapshot.forget("ai")
    held -= memory()
    tracemalloc.stop()
    assert 5_000_000 < held < 20_000_000


def memory() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("get_overview", {"hours": 300}),
        ("diagnose", {"hours": 300}),
        ("diagnose", {"customer_id": ACME}),
        ("find", {"query": "why did acme's hubspot sync fail last night?"}),
        ("find_dependents", {"customer_id": ACME}),
    ],
)
async def test_any_single_request_may_fail(worlds: Worlds, tool: str, arguments: dict[str, Any]) -> None:
    """An error of one of several parallel reads must not arrive as a group of exceptions."""

    def before(number: int, _: Request) -> Answer | None:
        body = b'{"error": {"code": "NO", "message": "no"}}'
        return Answer(403, {"content-type": "application/json"}, body) if number == failing else None

    failing, watched = 0, Watched(before)
    world = worlds(exchange=watched.around, snapshot_seconds=0, requests_per_answer=1000)
    while failing <= watched.number:
        failing, watched.number = failing + 1, 0
        outcome = await world.call(TOOLS[tool].model_validate(arguments))
        assert isinstance(outcome, (Done, FastnError)), failing
        if tool == "get_overview":
            assert isinstance(outcome, Done)
            assert outcome.result.model_dump()["findings"]
    assert failing > 2
