"""What all tests share."""

from collections.abc import Generator
from pathlib import Path

import pytest
from world import World

from fastn_mcp.sandbox import Size


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    """A fresh account behind a fresh guard."""
    made = World(tmp_path)
    yield made
    made.close()


@pytest.fixture
def large_world(tmp_path: Path) -> Generator[World]:
    """The same with 400 connectors, 2,000 customers and 200,000 runs."""
    made = World(tmp_path, size=Size.LARGE)
    yield made
    made.close()
