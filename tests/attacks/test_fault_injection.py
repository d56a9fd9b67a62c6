"""A sample of the injected faults: `make faults` makes 200 of each kind, ledger and transport."""

import itertools

import pytest
from fault_injection import KINDS, LEDGERS, PROGRAM, TRANSPORTS, WITH_LIBRARY, inject, seen
from support.library_transport import library_transport

from fastn_mcp.client.exchange import TransportFactory

SEED = 20261126


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
async def test_no_call_is_sent_twice_after_a_fault(kind: str, transport_factory: TransportFactory) -> None:
    combinations = list(itertools.product(LEDGERS, TRANSPORTS))
    chosen = (kind, *combinations[KINDS.index(kind)])
    program = WITH_LIBRARY if transport_factory is library_transport else PROGRAM
    tallies = await inject(10, SEED, [chosen], program)
    assert tallies[chosen].faults == 10
    assert tallies[chosen].wrong == []


def test_result_is_recognized_on_the_wire() -> None:
    assert seen("create_customer", b'{"structuredContent":{"done":"create_customer"}}')
    assert not seen("create_customer", b'{"structuredContent":{"done":"create_connector"}}')
