"""Fixtures: a sandbox in its own process, and a home that other users may enter."""

import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from support.server_process import sandbox_process, upstream

__all__ = ["home", "sandbox_process", "upstream"]


@pytest.fixture
def home() -> Generator[Path]:
    """A home that others may enter, unlike pytest's folders."""
    with tempfile.TemporaryDirectory(prefix="fastn-mcp-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
