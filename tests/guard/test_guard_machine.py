"""Agents, people, faults, clocks and two processes in any order: the guard keeps the invariants on every store.

The invariants: `tests/support/guard_machine/invariants.py`. That they notice faults: `test_guard_machine_faults.py`.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from support.guard_machine.machine import GuardMachine

SHORT = settings(
    max_examples=12,
    stateful_step_count=15,
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    report_multiple_bugs=False,
)
"""The same examples each time."""

LONG = settings(SHORT, max_examples=300, stateful_step_count=30, derandomize=False, print_blob=True)
"""Other examples each time. A failure prints its steps."""


def machine_on(store_address: Callable[[Path], str]) -> type[GuardMachine]:
    return type("StoredGuardMachine", (GuardMachine,), {"store_address": staticmethod(store_address)})


def test_guard_keeps_the_invariants(store_address: Callable[[Path], str]) -> None:
    run_state_machine_as_test(machine_on(store_address), settings=SHORT)


@pytest.mark.long
def test_guard_keeps_the_invariants_for_long(store_address: Callable[[Path], str]) -> None:
    run_state_machine_as_test(machine_on(store_address), settings=LONG)
