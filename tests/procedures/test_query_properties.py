# ruff: noqa: S311 - the randomness is to be repeatable, and statements are what is tested
"""The tool `query` on generated accounts and under random statements."""

import random
import re
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import Process
from pydantic_core import to_json
from support.statements import COSTLY, HOSTILE, random_statement
from support.world import World

from fastn_mcp.errors import FastnError
from fastn_mcp.guard.result import Done
from fastn_mcp.procedures.catalog import TOOLS, parse
from fastn_mcp.procedures.query.statement_process import IS_AVAILABLE
from fastn_mcp.server.rendering import render

pytestmark = [
    pytest.mark.no_cover,  # `test_query` covers the tool
    pytest.mark.skipif(not IS_AVAILABLE, reason="statements run where their memory is limited"),
]

HIDDEN = {"list_secrets": "/api/v1/secrets", "list_users": "/api/v1/users", "list_api_keys": "/api/v1/api-keys"}
"""List tools that are switched off, and the paths that are then not read."""

CANARY = "canary"

MAX_SECONDS = 3.0
MAX_MEMORY = 300_000_000
MAX_ANSWER = 30_000


def hide(world: World) -> None:
    """Switch list tools off, and mark every text of their rows."""
    world.disabled |= dict.fromkeys(HIDDEN, "exclude_tools")
    for collection in ("secrets", "users", "apiKeys"):
        for row in world.sandbox.state.all(collection):
            row["name"] = f"{CANARY} {row['name']}"


class Statements:
    """Puts statements to the tool, and holds the memory of the processes in which they run."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._world = world
        self._processes: list[Process] = []
        self.most_memory = 0
        """Of any process, in bytes. Read where Linux tells it."""
        open_process = anyio.open_process

        async def opened(*arguments: Any, **options: Any) -> Process:
            process = await open_process(*arguments, **options)
            self._processes.append(process)
            return process

        monkeypatch.setattr(anyio, "open_process", opened)
        hide(world)

    async def put(self, statement: str) -> tuple[str, str]:
        """Return the answer to a statement as the model reads it, and its outcome."""
        answered = ("", "")
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch)
            answered = await answer(self._world, statement)
            group.cancel_scope.cancel()
        return answered

    async def _watch(self) -> None:
        while True:
            for process in self._processes:
                self.most_memory = max(self.most_memory, memory_of(process.pid))
            self._processes = [process for process in self._processes if process.returncode is None]
            await anyio.sleep(0.01)

    async def check(self, statements: Iterable[str]) -> Counter[str]:
        """Check the answer to each statement. Returns the number of each outcome."""
        outcomes: Counter[str] = Counter()
        for statement in statements:
            text, outcome = await self.put(statement)
            outcomes[outcome] += 1
            assert len(text.encode()) <= MAX_ANSWER, statement
            assert CANARY not in text, statement
            assert self.most_memory < MAX_MEMORY, statement
        assert not self._world.changes
        assert not await self._world.ledger.waiting(self._world.timestamp)
        assert not {request.path for request in self._world.sandbox.requests} & {*HIDDEN.values()}
        return outcomes

    async def seconds_of(self, statement: str) -> float:
        """Check the answer to a statement. Returns how long it took."""
        began = time.monotonic()
        await self.check([statement])
        return time.monotonic() - began


def memory_of(pid: int) -> int:
    """Return the most memory that a process has had, in bytes; 0 if that is not known, or it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(found[1]) * 1024 if found else 0


async def answer(world: World, statement: str) -> tuple[str, str]:
    """Return the answer to a statement as the model reads it, and its outcome."""
    try:
        call: Any = parse(TOOLS, "query", {"sql": statement, "max_kb": 30}).call
    except FastnError as error:
        return str(error), type(error).__name__
    outcome = await world.call(call)
    if isinstance(outcome, FastnError):
        return str(outcome), type(outcome).__name__
    assert isinstance(outcome, Done), outcome
    return to_json(render(call, outcome.result, {}, None, outcome.notes)).decode(), "answered"


async def test_random_statements_change_nothing_and_read_no_disabled_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(1)
    statements = Statements(World(tmp_path, snapshot_seconds=90, requests_per_answer=100), monkeypatch)
    outcomes = await statements.check(random_statement(chance) for _ in range(80))
    assert min(outcomes["answered"], outcomes["InvalidArgument"], outcomes["Disabled"]) > 8


@pytest.mark.long
async def test_thousand_random_and_hostile_statements_stay_within_their_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others each time: the order of the tests seeds them."""
    chance = random.Random(random.getrandbits(64))
    statements = Statements(World(tmp_path, snapshot_seconds=90, requests_per_answer=100), monkeypatch)
    many = [*HOSTILE, *COSTLY, *(random_statement(chance) for _ in range(1_000))]
    chance.shuffle(many)
    for statement in many:
        seconds = await statements.seconds_of(statement)
        if seconds >= MAX_SECONDS:  # the machine may have been busy
            seconds = await statements.seconds_of(statement)
        assert seconds < MAX_SECONDS, statement
