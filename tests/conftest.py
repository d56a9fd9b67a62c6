"""What all tests share."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from world import World

os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.fail.Keyring"  # nobody's own keys are asked for, or changed


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def world(tmp_path: Path) -> Generator[World]:
    """A fresh account behind a fresh guard."""
    made = World(tmp_path)
    yield made
    made.close()
