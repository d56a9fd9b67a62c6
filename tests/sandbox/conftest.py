"""A fresh account for each test, and who asks it."""

import pytest
from asking import Clock, Fastn

from fastn_mcp.sandbox.server import Sandbox


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sandbox(clock: Clock) -> Sandbox:
    return Sandbox(clock)


@pytest.fixture
def fastn(sandbox: Sandbox) -> Fastn:
    return Fastn(sandbox)
