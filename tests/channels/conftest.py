"""Fixtures: a running approval page for each test, and browsers."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.page_world import Desk, Visitor, let_in


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path / "state" / "page.json")
    yield desk
    await desk.aclose()


@pytest.fixture
async def visitor(desk: Desk) -> AsyncIterator[Visitor]:
    visitor = await let_in(desk)
    yield visitor
    await visitor.http.aclose()
