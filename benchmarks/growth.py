"""What a unit of work costs, by how much work there is: rows, calls in flight, clients, the account, what is kept.

Nothing may grow faster than its work, so that no curve may rise. All costs are CPU time of the server alone; each is
the least of several rounds, made in turn. Draws docs/images/growth.svg, and writes the table into
docs/contributing/measured.md. Linux only.
"""

import argparse
import asyncio
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from drawing import Panel, svg
from harness import HELLO, KEY, Api, Server, environment, own
from load import BEARER, HTTP_TOKEN, asked_of, ready
from pydantic_core import to_json
from report import put
from support.policy_files import CONFIRMING
from within import ACCOUNT, Elsewhere, Rows, client_of, within

from fastn_mcp.audit.log import AuditEvent, AuditFile, LogEntry
from fastn_mcp.config.load import load
from fastn_mcp.extensions.team.team_config import Team, Tenant
from fastn_mcp.extensions.team.tenants import TenantAccount, Tenants
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.policy import Policy
from fastn_mcp.procedures.dispatch import Dispatcher
from fastn_mcp.procedures.find import Find
from fastn_mcp.procedures.overview.get_overview import GetOverview
from fastn_mcp.procedures.undo_change import ListChanges
from fastn_mcp.runtime import System
from fastn_mcp.server.rendering import render
from fastn_mcp.tools.customers import CreateCustomer, ListCustomers
from fastn_mcp.tools.tool import Tool

PICTURE = Path(__file__).parent.parent / "docs" / "images" / "growth.svg"
RISES = 1.5
"""What a unit may cost at the most of what it costs with less work. Less than half as much again is noise."""

CALLER = Caller(Asker(), None)
Costs = dict[int, float]


class Growth(NamedTuple):
    """What was measured, and the words for it: cost of a `unit`, in milliseconds, by size and by curve."""

    title: str
    across: str
    unit: str
    curves: dict[str, Costs]

    def panel(self) -> Panel:
        return Panel(self.title, self.across, f"ms of CPU for {self.unit}", self.curves)


def rises(costs: Costs) -> float:
    """How many times the cheapest before it the largest costs."""
    sizes = sorted(costs)
    return costs[sizes[-1]] / min(costs[size] for size in sizes[:-1])


async def measured(
    cases: Mapping[int, Callable[[], Awaitable[object]]], rounds: int, least: float = 0.03
) -> dict[int, float]:
    """Milliseconds of CPU for one turn of each, the least of the rounds; a round lasts at least so many seconds."""
    best = dict.fromkeys(cases, float("inf"))
    for case in cases.values():
        await case()
    gc.collect()
    gc.freeze()  # as the server does once it has started
    gc.set_threshold(50_000)
    for _ in range(rounds):
        for size, case in cases.items():
            gc.collect()
            turns, began = 0, time.process_time()
            while turns == 0 or time.process_time() - began < least:
                await case()
                turns += 1
            best[size] = min(best[size], (time.process_time() - began) * 1000 / turns)
    return best


def each(costs: Costs, units: Callable[[int], float]) -> Costs:
    return {size: cost / units(size) for size, cost in costs.items()}


async def read_by(dispatch: Dispatcher, call: Tool[Any]) -> bytes:
    """The call as an agent makes it, up to the text of its result."""
    done = await dispatch(call, CALLER)
    if not isinstance(done, Done):
        raise TypeError("it is asked about")
    return to_json(render(call, done.result, {"profile": "bench"}))


async def rows(folder: Path, rounds: int) -> Growth:
    """An answer of so many rows, from Fastn's bytes to ours; Fastn ignores the limit where there are more than 100."""
    sizes = (10, 100, 1_000, 10_000, 100_000)
    dispatchers = {
        size: within(client_of(Rows(size, ignores=True)), Ledger(SqliteStore(":memory:")), folder) for size in sizes
    }
    curves: dict[str, Costs] = {}
    for detail in ("concise", "full"):
        call = ListCustomers(limit=100, detail=detail)
        cases = {size: partial(read_by, dispatch, call) for size, dispatch in dispatchers.items()}
        curves[detail] = each(await measured(cases, rounds), lambda size: size / 1000)
    return Growth("Rows in Fastn's answer", "rows", "1,000 rows", curves)


async def account(folder: Path, rounds: int) -> Growth:
    """Finding a name among so many of each kind: the first time, when all are read, and the next."""
    sizes = (10, 100, 1_000, 3_000)
    query = Find(query="the oakport group customer")
    curves: dict[str, Costs] = {}
    for name, seconds in (("first question", 0.0), ("the next", 3600.0)):
        ledger = Ledger(SqliteStore(":memory:"))
        dispatchers = {size: within(client_of(Rows(size)), ledger, folder, snapshot_seconds=seconds) for size in sizes}
        cases = {size: partial(read_by, dispatch, query) for size, dispatch in dispatchers.items()}
        # Nine kinds.
        curves[name] = each(await measured(cases, rounds), lambda size: size * 9 / 1000)
    return Growth("find, by the size of the account", "rows of each of nine kinds", "1,000 names", curves)


async def overview(folder: Path, rounds: int) -> Growth:
    """An overview reads within bounds: its unit is a request."""
    upstreams = {size: Rows(size) for size in (100, 1_000, 10_000, 100_000)}
    dispatchers = {
        size: within(client_of(rows), Ledger(SqliteStore(":memory:")), folder) for size, rows in upstreams.items()
    }
    cases = {size: partial(read_by, dispatch, GetOverview()) for size, dispatch in dispatchers.items()}
    for case in cases.values():
        await case()
    requests = {size: upstream.requests for size, upstream in upstreams.items()}
    costs = each(await measured(cases, rounds), requests.__getitem__)
    return Growth("get_overview", "rows of each kind", "a request that it makes", {"": costs})


async def kept(folder: Path, rounds: int) -> Growth:
    """A change and a list of changes, where so many were made before: in the journal and in the audit."""
    dispatchers: dict[int, Dispatcher] = {}
    for size in (10, 100, 1_000, 10_000):
        subfolder = folder / f"kept-{size}"
        dispatchers[size] = within(client_of(Rows(0)), await _filled(subfolder, size), subfolder)
    curves: dict[str, Costs] = {}
    for name, call in (("create_customer", CreateCustomer(name="Initech")), ("list_changes", ListChanges())):
        cases = {size: partial(read_by, dispatch, call) for size, dispatch in dispatchers.items()}
        curves[name] = await measured(cases, rounds)
    return Growth("What was changed before", "changes that are kept", "a call", curves)


async def _filled(folder: Path, size: int) -> Ledger:
    """A ledger and an audit of as many changes."""
    system, path = System(), folder / "ledger.sqlite"
    ledger, audit = Ledger(SqliteStore(str(path))), AuditFile(folder / "audit.jsonl", system)
    now = system.now().timestamp()
    row = {"name": "Initech"}
    for number in range(size):
        at, id_ = now - 86_400 - number, f"kept {number}"
        await ledger.begin(
            Change(id_, "local", ACCOUNT, "create_customer", row, "c1", "Initech", None, row, at, "done")
        )
        audit.record(LogEntry(AuditEvent.INTENT, "local", ACCOUNT, "create_customer", arguments=row))
    audit.close()
    return ledger


async def waiting(folder: Path, rounds: int) -> Growth:
    """A second of so many calls that wait for a person, and a read beside them."""
    best: dict[str, Costs] = {"a second of one waiting call": {}, "a read beside them": {}}
    idle, read = best.values()
    for size in (10, 100, 1_000):
        ledger, policy = (
            Ledger(SqliteStore(str(folder / f"waiting-{size}.sqlite"))),
            Policy(rules=CONFIRMING, approval_wait=3600),
        )
        dispatch = within(client_of(Rows(3)), ledger, folder, policy, Elsewhere())
        async with anyio.create_task_group() as tasks:
            for number in range(size):
                tasks.start_soon(dispatch, CreateCustomer(name="Initech"), Caller(Asker(f"agent {number}"), None))
            while len(await ledger.waiting(time.time())) < size:  # noqa: ASYNC110 - the ledger says when
                await anyio.sleep(0.1)
            for _ in range(min(rounds, 3)):
                before = time.process_time()
                await anyio.sleep(3)
                cost = (time.process_time() - before) * 1000 / 3 / size
                idle[size] = min(idle.get(size, cost), cost)
            read |= await measured({size: partial(read_by, dispatch, ListCustomers())}, rounds)
            tasks.cancel_scope.cancel()
    return Growth("Calls that wait for a person", "calls that wait", "it", best)


async def profiles(folder: Path, rounds: int) -> Growth:
    """The settings of one account out of a file with so many."""
    cases: dict[int, Callable[[], Awaitable[object]]] = {}
    for size in (1, 10, 100, 1_000):
        path = folder / f"config-{size}.toml"
        tables = [
            f'[profiles.account{number}]\nbase_url = "http://localhost:{8000 + number}"\napi_key_env = "KEY{number}"\n'
            for number in range(size)
        ]
        path.write_text("\n".join(tables), encoding="utf-8")
        path.chmod(0o600)

        async def case(path: Path = path) -> None:
            load({"profile": "account0"}, {"KEY0": "bench-key"}, path)

        cases[size] = case
    return Growth("Accounts", "profiles", "a profile", {"": each(await measured(cases, rounds), float)})


def _opened(*_: object) -> TenantAccount:
    unused: Any = None
    return TenantAccount(unused, unused, unused, unused, unused)


async def tenants(_folder: Path, rounds: int) -> Growth:
    """Letting a request in, whose sign-in is for the last of so many tenants that are open."""
    cases: dict[int, Callable[[], Awaitable[object]]] = {}
    for size in (1, 10, 100):
        served = [Tenant(name=f"t{number}", groups=[f"team-{number}"], claims={"hd": ["*"]}) for number in range(size)]
        team = Team(url="https://here.example/mcp", issuer="https://issuer.example", tenant=served)
        house = Tenants(_opened, team.limits, System())
        for tenant in served:
            async with house.lease(tenant):
                pass

        async def case(team: Team = team, house: Tenants = house, group: str = f"team-{size - 1}") -> None:
            tenant = team.tenant_of({"sub": "ann", "groups": ["all", group], "hd": "example.com"})
            if tenant is None:
                raise RuntimeError("nobody serves it")
            async with house.lease(tenant):
                pass

        cases[size] = case
    return Growth("Tenants of a team", "tenants", "a request that is let in", {"": await measured(cases, rounds)})


def cpu(pid: int) -> float:
    """Milliseconds of CPU that a process has used; the kernel counts them in tens."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1000 / os.sysconf("SC_CLK_TCK")


def account_of(api: Api, folder: Path) -> dict[str, str]:
    return own({"FASTN_API_KEY": KEY, "FASTN_BASE_URL": api.url}, str(folder))


def in_flight(api: Api, folder: Path, rounds: int) -> Growth:
    best: Costs = {}
    server = Server([sys.executable, "-m", "fastn_mcp"], account_of(api, folder), folder / "stderr.log")
    try:
        server.request("initialize", HELLO)
        server.burst("get", 300, 256)
        for _ in range(rounds):
            for many in (1, 4, 16, 64, 256):
                before = cpu(server.process.pid)
                server.burst("get", 768, many)
                cost = (cpu(server.process.pid) - before) / 768
                best[many] = min(best.get(many, cost), cost)
    finally:
        server.close()
    return Growth("Calls in flight, over stdio", "calls", "a call", {"": best})


def tools(api: Api, folder: Path, rounds: int) -> Growth:
    """`tools/list`, with more and more of the toolsets."""
    sets = ("roles", "customers", "workflows", "procedures", "triggers", "connections,executions", "ai,secrets,users")
    servers: dict[int, Server] = {}
    best: Costs = {}
    try:
        for many in (1, 3, len(sets)):
            chosen = account_of(api, folder) | {"FASTN_TOOLSETS": ",".join(sets[:many])}
            server = Server([sys.executable, "-m", "fastn_mcp"], chosen, folder / "stderr.log")
            server.request("initialize", HELLO)
            os.write(server.input, b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
            servers[len(server.request("tools/list", {})["tools"])] = server
        whole = Server([sys.executable, "-m", "fastn_mcp"], account_of(api, folder), folder / "stderr.log")
        whole.request("initialize", HELLO)
        servers[len(whole.request("tools/list", {})["tools"])] = whole
        for server in servers.values():
            server.call("get") if server is whole else server.request("prompts/list", {})  # so that the SDK is there
        for _ in range(rounds):
            for size, server in servers.items():
                before = cpu(server.process.pid)
                for _ in range(100):
                    server.request("tools/list", {})
                cost = (cpu(server.process.pid) - before) / 100 / size
                best[size] = min(best.get(size, cost), cost)
    finally:
        for server in servers.values():
            server.close()
    return Growth("Tools that are listed", "tools", "a tool in tools/list", {"": best})


def clients(api: Api, folder: Path, rounds: int) -> Growth:
    """So many clients over HTTP, each with a connection of its own and a call in flight."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "fastn_mcp", "--http", f"127.0.0.1:{port}"]
    env = environment(account_of(api, folder) | {"FASTN_HTTP_TOKEN": HTTP_TOKEN})
    best: Costs = {}
    with (folder / "stderr.log").open("ab") as errors:
        process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=errors)
    try:
        ready(port)
        for _ in range(rounds):
            for many in (1, 10, 100, 1_000):
                cost = asyncio.run(calling(process.pid, port, many, max(many, 1_000)))
                best[many] = min(best.get(many, cost), cost)
    finally:
        process.terminate()
        process.wait(15)
    return Growth("Clients, over HTTP", "clients", "a call", {"": best})


async def calling(pid: int, port: int, many: int, calls: int) -> float:
    """The cost of one of `calls` calls by `many` clients that are connected. Raises where one is not answered."""
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(many)]

    async def call(numbers: Iterator[int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in numbers:
            body, headers = asked_of(number)
            head = "".join(f"{name}: {value}\r\n" for name, value in (headers | BEARER).items())
            writer.write(f"POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{head}".encode())
            writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
            answer = await _answer(reader)
            if "result" not in answer or answer["result"].get("isError"):
                raise RuntimeError(f"not an answer: {answer}")

    async def all_of(numbers: Iterator[int]) -> None:
        async with asyncio.TaskGroup() as group:
            for connection in connections:
                group.create_task(call(numbers, *connection))

    await all_of(iter(range(many * 2)))  # whoever is connected has made a call
    before = cpu(pid)
    await all_of(iter(range(calls)))
    cost = (cpu(pid) - before) / calls
    for _, writer in connections:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return cost


async def _answer(reader: asyncio.StreamReader) -> dict[str, Any]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    if "content-length: " not in head:
        raise RuntimeError(f"not an answer: {head}")
    length = int(head.partition("content-length: ")[2].partition("\r")[0])
    return json.loads(await reader.readexactly(length))


def table(measurements: Sequence[Growth]) -> str:
    lines = ["| what | by | a unit | costs, ms of CPU | the largest, of the cheapest |", "|---|---|---|---|--:|"]
    for growth in measurements:
        for name, costs in growth.curves.items():
            shown = ", ".join(f"{size:,}: {costs[size]:.3g}" for size in sorted(costs))
            what = f"{growth.title}: {name}" if name else growth.title
            lines.append(f"| {what} | {growth.across} | {growth.unit} | {shown} | {rises(costs):.2f} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", help="only this (may be repeated), as: rows")
    options = parser.parse_args()
    inside = {
        "rows": rows,
        "account": account,
        "overview": overview,
        "kept": kept,
        "waiting": waiting,
        "profiles": profiles,
        "tenants": tenants,
    }
    outside = {"in_flight": in_flight, "clients": clients, "tools": tools}
    measurements: list[Growth] = []
    api = Api()
    try:
        for name in inside | outside:
            if name not in (options.only or [name]):
                continue
            with tempfile.TemporaryDirectory() as folder:
                if name in inside:
                    measurements.append(anyio.run(inside[name], Path(folder), options.rounds))
                else:
                    measurements.append(outside[name](api, Path(folder), options.rounds))
            print(table(measurements[-1:]).partition("--:|\n")[2], flush=True)
    finally:
        api.close()
    if not options.only:
        PICTURE.write_text(svg([growth.panel() for growth in measurements]), encoding="utf-8")
        put("growth", table(measurements))
    over = [growth.title for growth in measurements if any(rises(costs) > RISES for costs in growth.curves.values())]
    print(f"GROWS FASTER THAN ITS WORK: {'; '.join(over)}" if over else "Nothing grows faster than its work.")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
