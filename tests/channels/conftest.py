"""A running approval page for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from approval_desk import Clock, Desk, Visitor, let_in

from fastn_mcp.channels.page import Page
from fastn_mcp.guard.ledger.sqlite import SqliteLedger
from fastn_mcp.system import System


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = Clock()
    system = System(now=clock.now, monotonic=clock.monotonic, sleep=clock.sleep)
    ledger = SqliteLedger(":memory:")
    door = tmp_path / "state" / "page.json"
    desk: Desk

    def opener(url: str) -> bool:
        return desk.open(url)

    desk = Desk(Page(ledger, system, opener, door), ledger, clock, system, door)
    yield desk
    await desk.page.aclose()
    ledger.close()


@pytest.fixture
async def visitor(desk: Desk) -> AsyncIterator[Visitor]:
    visitor = await let_in(desk)
    yield visitor
    await visitor.http.aclose()
