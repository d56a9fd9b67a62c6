"""A thousand calls that wait on one shared ledger: they read as one, and each ends, whatever becomes of the others."""

import os
import sys
import time
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager

import anyio
import pytest
from support.stores import grant
from support.tcp_proxy import proxied
from support.valkey_server import ValkeyServer
from support.values import not_none

from fastn_mcp.extensions.valkey.server import parse
from fastn_mcp.extensions.valkey.store import ValkeyStore
from fastn_mcp.guard.approval.wait import DecisionWait
from fastn_mcp.guard.stops import Stops
from fastn_mcp.ledger.approval_request import Vote
from fastn_mcp.ledger.ledger import MAX_WAITING, Ledger
from fastn_mcp.policy.asker import Asker
from fastn_mcp.runtime import System

pytestmark = pytest.mark.long

CALLS = 1_000
WAIT, HANGING = 5.0, 120.0
"""Seconds for which a call waits that nobody decides, and after which the test gives up those that never end."""


def names(replica: str) -> list[str]:
    return [f"{replica} {number}" for number in range(CALLS)]


@asynccontextmanager
async def ledger_at(url: str) -> AsyncGenerator[Ledger]:
    ledger = Ledger(ValkeyStore(parse(url), System()))
    try:
        yield ledger
    finally:
        await ledger.aclose()


async def open_requests(ledger: Ledger, replica: str) -> None:
    now, every = time.time(), names(replica)
    for first in range(0, CALLS, MAX_WAITING):
        async with anyio.create_task_group() as tasks:
            for name in every[first : first + MAX_WAITING]:
                tasks.start_soon(ledger.open, grant(name, f"{replica} from {first}", now, now + 600))


async def waits(ledger: Ledger, replica: str, decided: Collection[str] = ()) -> dict[str, bool]:
    """Return whether each of a replica's calls was decided. Those that somebody will decide wait until then."""
    wait, began, answers = DecisionWait(ledger, Stops(ledger, System()), System()), time.time(), dict[str, bool]()

    async def call(name: str) -> None:
        answers[name] = await wait.decided(name, Asker(), began + (HANGING if name in decided else WAIT))

    with anyio.move_on_after(HANGING):
        async with anyio.create_task_group() as tasks:
            for name in names(replica):
                tasks.start_soon(call, name)
    return answers


@pytest.mark.parametrize("meanwhile", ["nothing", "decisions", "a replica is killed"])
async def test_thousand_waiting_calls_read_as_one(valkey: ValkeyServer, meanwhile: str) -> None:
    """Each command takes 2 ms. Decisions end the calls that they are about, and no others."""
    url, decided, answers = valkey.url(), names("one")[::100] if meanwhile == "decisions" else [], dict[str, bool]()
    async with ledger_at(url) as direct, proxied(valkey.port) as proxy:
        await open_requests(direct, "one")
        proxy.latency = 0.002
        slow = url.replace(f":{valkey.port}", f":{proxy.port}")
        async with ledger_at(slow) as ledger, anyio.create_task_group() as tasks:

            async def decide() -> None:
                for name in decided:
                    await anyio.sleep(0.3)
                    assert (
                        await direct.decide(not_none(await direct.find(name)), Vote("page", True, time.time()), "page")
                        is not None
                    )

            tasks.start_soon(decide)
            if meanwhile == "a replica is killed":
                await open_requests(direct, "other")
                command = [sys.executable, __file__, slow]
                paths = {"PYTHONPATH": os.pathsep.join(sys.path)}
                other = await anyio.open_process(command, env={**os.environ, **paths})
                assert other.stdout is not None
                assert await other.stdout.receive() == b"waiting\n"

                async def kill() -> None:
                    await anyio.sleep(2)
                    other.kill()
                    await other.aclose()

                tasks.start_soon(kill)
            answers = await waits(ledger, "one", decided)
    assert answers == {name: name in decided for name in names("one")}
    assert len(proxy.seen) < CALLS / 10


async def main(url: str) -> None:
    async with ledger_at(url) as ledger:
        sys.stdout.write("waiting\n")
        sys.stdout.flush()
        await waits(ledger, "other")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
