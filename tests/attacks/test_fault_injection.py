"""A sample of the injected faults: `make faults` makes 200 of each kind, ledger and transport."""

import itertools

import pytest
from fault_injection import KINDS, LEDGERS, TRANSPORTS, inject, seen

pytestmark = pytest.mark.anyio

SEED = 20261126


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
async def test_no_call_is_sent_twice_after_a_fault(kind: str) -> None:
    """One ledger and one transport per kind; `make faults` covers all combinations."""
    combinations = list(itertools.product(LEDGERS, TRANSPORTS))
    chosen = (kind, *combinations[KINDS.index(kind)])
    tallies = await inject(10, SEED, [chosen])
    assert tallies[chosen].faults == 10
    assert tallies[chosen].wrong == []


def test_result_is_recognized_on_the_wire() -> None:
    assert seen("create_customer", b'{"structuredContent":{"done":"create_customer"}}')
    assert not seen("create_customer", b'{"structuredContent":{"done":"create_connector"}}')
