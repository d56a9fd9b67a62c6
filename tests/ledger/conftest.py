"""A store of each kind, as two processes have it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest
from support.stores import SHARED, opened
from support.valkey_server import ValkeyServer, wait_longer

from fastn_mcp.ledger.ledger import Ledger


@pytest.fixture(params=[*SHARED, "memory"])
def where(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store of its own for each test. Tests that use several processes name the kinds that these can share."""
    if request.param == "memory":
        return f"memory:{tmp_path}"
    if request.param == "sqlite":
        return f"sqlite:{tmp_path / 'state' / 'ledger'}"
    if request.param == "jsonfile":
        request.getfixturevalue("foreign_extensions")
        return f"jsonfile://{tmp_path / 'state' / 'ledger.json'}"
    wait_longer(monkeypatch)
    server: ValkeyServer = request.getfixturevalue("valkey")
    return server.url()


@pytest.fixture
async def ledger(where: str) -> AsyncGenerator[Ledger]:
    async with aclosing(opened(where)) as store:
        yield store


@pytest.fixture
async def other(where: str) -> AsyncGenerator[Ledger]:
    """The same store, as another process has it."""
    async with aclosing(opened(where)) as store:
        yield store
