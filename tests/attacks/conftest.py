"""Fixtures: a sandbox in its own process, and a home that other users may enter."""

import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest
from support.ports import free_port
from support.server_process import Upstream, running_sandbox


@pytest.fixture(scope="module")
def sandbox_process() -> Generator[Upstream]:
    port = free_port()
    with running_sandbox(port):
        yield Upstream(f"http://127.0.0.1:{port}")


@pytest.fixture
def upstream(sandbox_process: Upstream) -> Upstream:
    sandbox_process.reset()
    return sandbox_process


@pytest.fixture
def home() -> Generator[Path]:
    """A home that others may enter, unlike pytest's folders."""
    with tempfile.TemporaryDirectory(prefix="fastn-mcp-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)
