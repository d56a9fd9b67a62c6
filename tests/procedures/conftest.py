"""A fresh account behind a fresh guard for each test."""

from collections.abc import Generator
from pathlib import Path

import pytest
from guard.world import World


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    made = World(tmp_path)
    yield made
    made.close()
