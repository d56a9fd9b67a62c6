"""Fixtures: a fresh sandbox for each test, its clock, and a client."""

import pytest
from support.direct_sandbox import Clock, Fastn
from support.faulty_sandbox import FaultySandbox


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sandbox(clock: Clock) -> FaultySandbox:
    return FaultySandbox(clock)


@pytest.fixture
def fastn(sandbox: FaultySandbox) -> Fastn:
    return Fastn(sandbox)
