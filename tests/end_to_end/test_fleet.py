"""A fleet under load whose parts are killed: nothing is lost, doubled or mixed up.

To run for a minute: FLEET_SECONDS=60 make test-long ARGS="tests/end_to_end/test_fleet.py -s"
"""

import itertools
import os
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterator
from functools import partial
from pathlib import Path

import anyio
import pytest
from support.collector_process import CollectorProcess
from support.crowd import Book, Mortal, desk, killed_in_turn, visited, workflow
from support.crowd_audit import problems
from support.fleet import KEYS, Fleet, a_fleet
from support.valkey_server import ValkeyServer

from fastn_mcp.audit.files import lines_of, log_files
from fastn_mcp.audit.log_copy import compare, stored
from fastn_mcp.audit.outbox import Outbox

pytestmark = pytest.mark.long

SECONDS = float(os.environ.get("FLEET_SECONDS", "20"))
CLIENTS = 60
DOWN = 1.5
"""Seconds for which each of them is away."""
PAUSE = 2.0
"""Seconds between a start and the next kill."""
DELIVERY = 90.0
"""Seconds in which the collector has to have everything, after the load."""


class KilledValkey:
    """Valkey, killed without a chance to save."""

    def __init__(self, server: ValkeyServer) -> None:
        self.server = server
        self.killed = 0

    def kill(self) -> None:
        self.killed += 1
        self.server.stop()

    def start(self) -> None:
        self.server.start()


@pytest.fixture
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Generator[KilledValkey]:
    options = ("--appendonly", "yes", "--appendfsync", "always")
    server = ValkeyServer(tmp_path_factory.mktemp("valkey"), options).start()
    yield KilledValkey(server)
    server.stop()


@pytest.fixture
def collector(tmp_path_factory: pytest.TempPathFactory) -> Generator[CollectorProcess]:
    collector = CollectorProcess(tmp_path_factory.mktemp("collector") / "collected.jsonl")
    collector.start()
    yield collector
    collector.kill()


@pytest.fixture
def fleet(
    tmp_path_factory: pytest.TempPathFactory, ledger: KilledValkey, collector: CollectorProcess
) -> Generator[Fleet]:
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        "FASTN_TELEMETRY_AUDIT_EXPORT": "fail-closed",
    }
    with a_fleet(tmp_path_factory.mktemp("fleet"), ledger.server.url(), env=env) as made:
        yield made


async def delivered(fleet: Fleet) -> None:
    """Wait until all replicas have exported what they recorded."""
    with anyio.fail_after(DELIVERY):
        for replica in fleet.replicas:
            for tenant in KEYS:
                while Outbox(replica.log(tenant)).unsent(1):  # noqa: ASYNC110 - another process
                    await anyio.sleep(0.2)


def lost(fleet: Fleet, collector: CollectorProcess, summary: Counter[str]) -> list[str]:
    """Compare each audit log with what the collector stored. Counts go to `summary`."""
    there, differences = list(stored(lines_of([collector.file]))), list[str]()
    for replica in fleet.replicas:
        for tenant in KEYS:
            path = replica.log(tenant)
            compared = compare(lines_of(log_files(path)), there, Outbox(path).sent().n)
            if not compared.is_proven or compared.waiting or compared.deleted:
                differences.append(f"{path}: {compared}")
            summary["audit entries at the collector"] += len(compared.same)
            summary["of them more than once"] += compared.repeated
    return differences


async def test_fleet_loses_nothing_while_its_parts_are_killed(
    fleet: Fleet, ledger: KilledValkey, collector: CollectorProcess, tmp_path: Path
) -> None:
    person, book, runs = desk(fleet, tmp_path), Book(), await workflow(fleet)
    began = time.monotonic()
    replicas = itertools.cycle(fleet.replicas)
    mortals: Iterator[Mortal] = (mortal for replica in replicas for mortal in (collector, ledger, fleet.login, replica))
    await visited(fleet, person, book, runs, CLIENTS, SECONDS, partial(killed_in_turn, mortals, 4, PAUSE, DOWN))
    summary = Counter({
        "collector killed": collector.killed,
        "Valkey killed": ledger.killed,
        "provider killed": fleet.login.killed,
        "replicas killed": sum(replica.killed for replica in fleet.replicas),
        **book.calls,
    })  # fmt: skip
    wrong = await problems(fleet, book, person.ledger, summary)
    await person.ledger.aclose()
    await delivered(fleet)
    wrong += lost(fleet, collector, summary)
    sys.stdout.write(f"\n{CLIENTS} clients, {time.monotonic() - began:.0f} s: {dict(summary)}\n")
    assert wrong == []
    for what in (
        *("collector killed", "Valkey killed", "provider killed", "replicas killed"),
        *("rows", "approved and made", "begun on one and finished on another", "audit entries at the collector"),
    ):
        assert summary[what] > 0, what
