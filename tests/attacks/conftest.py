"""Fixture: a home that other users may enter."""

import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest


@pytest.fixture
def home() -> Generator[Path]:
    """A home that others may enter, unlike pytest's folders."""
    with tempfile.TemporaryDirectory(prefix="fastn-mcp-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
