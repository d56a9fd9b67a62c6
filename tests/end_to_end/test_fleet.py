"""Three replicas behind nginx with one Valkey and an OpenID provider: nothing is lost, doubled or mixed up.

To run for a minute: FLEET_SECONDS=60 make test ARGS="tests/end_to_end/test_fleet.py -s"
"""

import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Generator
from functools import partial
from pathlib import Path

import pytest
from support.crowd import Book, desk, killed_in_turn, visited, workflow
from support.crowd_audit import problems
from support.fleet import Fleet, a_fleet
from support.valkey_server import ValkeyServer

pytestmark = [pytest.mark.long, pytest.mark.anyio]

SECONDS = float(os.environ.get("FLEET_SECONDS", "15"))
CLIENTS = 200
KILLS_EVERY = min(10.0, SECONDS / 4)
"""Seconds."""


@pytest.fixture
def fleet(tmp_path_factory: pytest.TempPathFactory, valkey: ValkeyServer) -> Generator[Fleet]:
    with a_fleet(tmp_path_factory.mktemp("fleet"), valkey.url()) as made:
        yield made


async def test_fleet_loses_nothing_while_replicas_are_killed(fleet: Fleet, tmp_path: Path) -> None:
    person, book, runs = desk(fleet, tmp_path), Book(), await workflow(fleet)
    began = time.monotonic()
    killing = partial(killed_in_turn, itertools.cycle(fleet.replicas), KILLS_EVERY, 0)
    await visited(fleet, person, book, runs, CLIENTS, SECONDS, killing)
    summary = Counter(kills=sum(replica.killed for replica in fleet.replicas), **book.calls)
    wrong = await problems(fleet, book, person.ledger, summary)
    await person.ledger.aclose()
    sys.stdout.write(f"\n{CLIENTS} clients, {time.monotonic() - began:.0f} s: {dict(summary)}\n")
    assert wrong == []
    for what in ("kills", "rows", "approved and made", "begun on one and finished on another"):
        assert summary[what] > 0, what
