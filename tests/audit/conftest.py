"""An audit log and its ledger in a folder of their own."""

from collections.abc import Generator
from pathlib import Path

import anyio
import pytest

from fastn_mcp.build.stores import ledger_at
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.runtime import System


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "audit.jsonl"


@pytest.fixture
def ledger(tmp_path: Path) -> Generator[Ledger]:
    ledger = ledger_at(None, tmp_path / "ledger", System())
    yield ledger
    anyio.run(ledger.aclose)
