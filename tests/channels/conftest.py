"""Fixtures: a running approval page for each test, and a browser."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.page_visitor import Visitor
from support.page_world import Desk, let_in

if TYPE_CHECKING:
    from playwright.async_api import Browser


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def started_chromium() -> AsyncIterator["Browser"]:
    from support.real_browser import launched

    async with launched() as browser:
        yield browser


@pytest.fixture
async def chromium(started_chromium: "Browser") -> AsyncIterator["Browser"]:
    """The module's browser, whose windows and cookies end with the test."""
    yield started_chromium
    for context in started_chromium.contexts:
        await context.close()


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
