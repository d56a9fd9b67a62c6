"""The random search of the guard machine."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from support.guard_machine.machine import GuardMachine

_ONE_RUN = settings(
    max_examples=2,  # the first is always the simplest one
    derandomize=False,  # by the seed
    database=None,
    deadline=None,
    print_blob=False,
    report_multiple_bugs=False,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def search(
    store_address: Callable[[Path], str],
    seeds: Iterable[int],
    *,
    step_count: int,
    phases: Sequence[Phase] = (Phase.generate, Phase.shrink),
) -> None:
    """Run the machine once for each seed, in at most so many steps. Raises the `AssertionError` of the first failure.

    Each seed is drawn apart: of a search over many examples, Hypothesis spends five in six on mutations of a few, which
    repeat the same rules and arguments.
    """
    for number in seeds:
        machine = type("StoredGuardMachine", (GuardMachine,), {"store_address": staticmethod(store_address)})
        run = settings(_ONE_RUN, stateful_step_count=step_count, phases=phases)
        run_state_machine_as_test(seed(number)(machine), settings=run)
