"""Agents, people, faults, clocks and two processes in any order: the guard keeps the invariants on every store.

The invariants: `tests/support/guard_machine/invariants.py`. That they notice faults: `test_guard_machine_faults.py`.
"""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from support.guard_machine.search import search

FIRST_SEEDS = {"sqlite": 0, "valkey": 1_000, "memory": 2_000}
"""Each store gets other runs, and the same each time."""

RUNS = 5
STEPS = 20

LONG_RUNS = 150
LONG_STEPS = 30


def test_guard_keeps_the_invariants(store_kind: str, store_address: Callable[[Path], str]) -> None:
    first = FIRST_SEEDS[store_kind]
    search(store_address, range(first, first + RUNS), step_count=STEPS)


@pytest.mark.long
def test_guard_keeps_the_invariants_for_long(store_address: Callable[[Path], str]) -> None:
    """Other runs each time; `SEED=` of `make test-long` gives them again."""
    first = random.getrandbits(32)
    search(store_address, range(first, first + LONG_RUNS), step_count=LONG_STEPS)
