"""What a shared ledger holds: keys and bytes of an approval, a change and a temporary approval, and for how long.

One replica serves callers who make changes and have runs approved, over HTTP as a team does. What Valkey holds is read
from Valkey: each key with its kind, its size (MEMORY USAGE) and the rest of its lifetime. Then what each further tenant
costs a replica: memory, and connections to Valkey.
"""

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from replicas import memory
from support.fleet import Fleet, a_fastn, a_fleet
from support.team_world import META, Caller, modern, request
from support.valkey_server import ValkeyServer, valkey_for
from valkey.asyncio import Valkey

from fastn_mcp.audit.log import AuditFile
from fastn_mcp.build.stores import ledger_at
from fastn_mcp.extensions.sandbox.auth import KEY
from fastn_mcp.guard.approval.votes import TerminalApprovals
from fastn_mcp.runtime import System

NO_FORMS: dict[str, Any] = {**META, "io.modelcontextprotocol/clientCapabilities": {}}
DAY = 86_400
KEPT_DAYS = 30
SHARE = 0.5
"""Part of a server's memory that is planned for. The rest is for buffers and for rewriting the append-only file."""
TENANTS = (1, 10, 50)


@dataclass(frozen=True)
class Work:
    """Commands that Valkey has run, and the seconds of processor time that it has used."""

    commands: int
    seconds: float


async def work_of(client: Any) -> Work:
    stats = await client.info("all")
    return Work(stats["total_commands_processed"], stats["used_cpu_user"] + stats["used_cpu_sys"])


@dataclass
class Held:
    """What Valkey holds, by kind of key."""

    keys: Counter[str] = field(default_factory=Counter[str])
    bytes: Counter[str] = field(default_factory=Counter[str])
    days: dict[str, float] = field(default_factory=dict[str, float])
    """Longest rest of a lifetime; infinite for a key that stays."""
    began: "Work" = field(default_factory=lambda: Work(0, 0.0))
    """What Valkey had done before this was read, and after."""
    ended: "Work" = field(default_factory=lambda: Work(0, 0.0))
    clients: int = 0


async def held(client: Any) -> Held:
    all_keys = Held(began=await work_of(client))
    all_keys.clients = (await client.info("clients"))["connected_clients"] - 1
    async for key in client.scan_iter(count=100_000):
        kind = key.decode().partition("}:")[2].partition(" ")[0]
        seconds = await client.ttl(key)
        all_keys.keys[kind] += 1
        all_keys.bytes[kind] += await client.memory_usage(key, samples=0) or 0
        all_keys.days[kind] = max(all_keys.days.get(kind, 0.0), float("inf") if seconds < 0 else seconds / DAY)
    all_keys.ended = await work_of(client)
    return all_keys


@dataclass
class Office:
    """One replica's callers, and a person at a terminal on the same ledger."""

    fleet: Fleet
    caller: Caller
    person: TerminalApprovals
    workflow: str
    tenant: str

    async def change(self, name: str) -> None:
        result = await self.caller.result(self.fleet.token(self.tenant), "create_customer", name=name)
        assert result["done"] == "create_customer", result

    async def run(self, name: str, *, is_temporary: bool = False) -> None:
        """Have a run approved at the terminal, for once or for a while, and make it."""
        token = self.fleet.token(self.tenant, name)
        assert (await self._run(token, name))["status"] == "approval_required"
        for grant in await self.person.ledger.waiting(self.person.system.timestamp()):
            assert "Approved" in await self.person.approve(grant, is_temporary=is_temporary)
        assert "done" in await self._run(token, name)

    async def ask(self, name: str) -> None:
        assert (await self._run(self.fleet.token(self.tenant, name), name))["status"] == "approval_required"

    async def _run(self, token: str, name: str) -> dict[str, Any]:
        body = request("run_workflow", {"workflow_id": self.workflow, "input": {"of": name}}, _meta=NO_FORMS)
        answer = (await self.caller.ask(token, body, **modern("run_workflow"))).json()
        return answer["result"]["structuredContent"]


async def costs(office: Office, client: Valkey, count: int) -> dict[str, tuple[float, float, float, float]]:
    """Keys, bytes, commands and milliseconds of Valkey's processor, of one piece of each kind of work."""

    async def change(name: str) -> None:
        await office.change(name)

    async def approved(name: str) -> None:
        await office.run(name)

    async def temporary(name: str) -> None:
        await office.run(name, is_temporary=True)

    async def waiting(name: str) -> None:
        await office.ask(name)

    by_work: dict[str, tuple[float, float, float, float]] = {}
    for what, work in (
        ("a change that needs no approval", change),
        ("a change that a person approved", approved),
        ("the same, with a temporary approval", temporary),
        ("a request that waits", waiting),
    ):
        await work(f"first {what}")  # what there is once
        before = await held(client)
        for n in range(count):
            await work(f"{what} {n}")
        after = await held(client)
        keys, size = (after.keys - before.keys).total(), after.bytes.total() - before.bytes.total()
        commands, seconds = after.began.commands - before.ended.commands, after.began.seconds - before.ended.seconds
        by_work[what] = (keys / count, size / count, commands / count, seconds / count * 1000)
    return by_work


async def measure(work: Path, valkey: ValkeyServer, count: int) -> float:
    """Print what an approved change costs. Returns its bytes."""
    with a_fleet(Path(tempfile.mkdtemp(dir=work)), valkey.url(), 1) as fleet:
        folder = Path(tempfile.mkdtemp(dir=work))
        ledger = ledger_at(fleet.ledger, folder, System())
        audit = AuditFile(folder / "audit.jsonl", System())
        client = Valkey(port=valkey.port)
        async with fleet.caller() as caller:
            listed = await caller.result(fleet.token("acme"), "list_workflows", search="process-new-orders")
            person = TerminalApprovals(ledger, audit, System())
            office = Office(fleet, caller, person, listed["data"][0]["id"], "acme")
            by_work = await costs(office, client, count)
        for what, (keys, size, commands, ms) in by_work.items():
            print(f"{what}: {keys:.1f} keys, {size / 1024:.1f} KB, {commands:.0f} commands, {ms:.2f} ms")
        everything = await held(client)
        for kind, number in sorted(everything.keys.items()):
            size, days = everything.bytes[kind] / number, everything.days[kind]
            print(f"  {kind}: {number} keys, {size:,.0f} bytes each, at most {days:.2f} days")
        log = fleet.replicas[0].log("acme")
        print(f"audit log: {log.stat().st_size / sum(1 for _ in log.open('rb')):,.0f} bytes for each entry")
        await client.aclose()
        await ledger.aclose()
    return by_work["a change that a person approved"][1]


async def tenants(work: Path, valkey: ValkeyServer) -> None:
    """Print what each further tenant costs a replica."""
    names = [f"tenant-{n}" for n in range(max(TENANTS))]
    env = {f"KEY_OF_{name}": KEY for name in names}
    with (
        a_fastn() as fastn,
        a_fleet(
            Path(tempfile.mkdtemp(dir=work)), valkey.url(), 1, fastns=dict.fromkeys(names, fastn), env=env
        ) as fleet,
    ):
        client = Valkey(port=valkey.port)
        process = fleet.replicas[0].process
        assert process is not None
        async with fleet.caller() as caller:
            opened = 0
            for count in TENANTS:
                for name in names[opened:count]:
                    for n in range(5):
                        await caller.result(fleet.token(name), "create_customer", name=f"{name} {n}")
                opened = count
                state = await held(client)
                print(f"{count} tenants: {memory(process.pid):.1f} MB, {state.clients} connections to Valkey")
        await client.aclose()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=25, help="pieces of each kind of work")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        tempfile.TemporaryDirectory() as data,
        valkey_for(Path(data)) as valkey,
    ):
        size = asyncio.run(measure(Path(folder), valkey, options.count))
        asyncio.run(tenants(Path(folder), valkey))
    for gigabytes in (1, 4, 16):
        changes = SHARE * gigabytes * 1024**3 / size
        print(f"Valkey with {gigabytes} GB: {changes:,.0f} approved changes, {changes / KEPT_DAYS:,.0f} a day")
    return 0


if __name__ == "__main__":
    sys.exit(main())
