"""Fixtures: a fresh sandbox for each test, its clock, and a client."""

from pathlib import Path

import pytest
from support.clock import Clock
from support.direct_sandbox import MORNING, Fastn
from support.faulty_sandbox import FaultySandbox


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    without_plugin = not config.pluginmanager.has_plugin("schemathesis")
    return True if without_plugin and collection_path.name == "test_schemathesis.py" else None


@pytest.fixture
def clock() -> Clock:
    return Clock(MORNING)


@pytest.fixture
def sandbox(clock: Clock) -> FaultySandbox:
    return FaultySandbox(clock.now)


@pytest.fixture
def fastn(sandbox: FaultySandbox) -> Fastn:
    return Fastn(sandbox)
