"""What all tests share."""

from collections.abc import Generator
from pathlib import Path

import pytest
from world import World


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    """A fresh account behind a fresh guard."""
    made = World(tmp_path)
    yield made
    made.close()
