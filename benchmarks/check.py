"""Whether a start, a call or an answer has become dearer than what is committed in expected.json, by a quarter or more.

No times: instructions, counted by valgrind (callgrind), beside those of the bare SDK server for the same work, so that
neither the machine nor the build of Python matters; modules that are loaded; bytes that are allocated. `--write` takes
what is measured for what is expected from now on. Without valgrind the instructions are left out, and this is said.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import harness
from harness import CALLS, HELLO, HERE, KEY, PROJECT, Api, Server, environment, own
from within import Rows, client_of, within

from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.policy.asker import Asker
from fastn_mcp.server.rendering import render
from fastn_mcp.tools.customers import ListCustomers

EXPECTED = HERE / "expected.json"
CALLS_COUNTED = {"get": 12, "list": 4, "create": 8}
WARM = 5
"""Calls of each kind that are not counted: the first ones import, build validators and connect."""

ANSWER, CALL = "start to the first answer", "start to the first call"

PATIENCE = 300.0
"""Seconds for one reply: under valgrind all takes fifty times as long."""


class Counted:
    """A server under callgrind, from its first instruction on."""

    def __init__(self, command: list[str], env: dict[str, str], folder: Path) -> None:
        valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/callgrind.out", "--quiet"]
        fixed = {"PYTHONHASHSEED": "0", "TMPDIR": str(folder)}
        self.server = Server([*valgrind, f"--vgdb-prefix={folder}/vgdb", *command], env | fixed, folder / "stderr.log")
        self._folder = folder

    def control(self, *what: str) -> None:
        pid = str(self.server.process.pid)
        told = ["callgrind_control", f"--vgdb-prefix={self._folder}/vgdb", *what, pid]
        subprocess.run(told, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=PATIENCE)

    def instructions(self) -> int:
        """Those since the start, or since the last look."""
        self.control("--dump")
        (dumped,) = self._folder.glob("callgrind.out.*")
        lines = dumped.read_text(encoding="utf-8", errors="replace").splitlines()
        dumped.unlink()
        return int(next(line for line in lines if line.startswith(("totals:", "summary:"))).split()[1])

    def end(self) -> None:
        self.server.process.stdin.close()  # type: ignore[union-attr]
        self.server.process.wait(PATIENCE)
        self.server.process.stdout.close()  # type: ignore[union-attr]


def counted(command: list[str], env: dict[str, str]) -> dict[str, float]:
    """The instructions up to the first answer, up to the first call, and of a call of each kind in a warm server."""
    with tempfile.TemporaryDirectory() as folder:
        program = Counted(command, own(env, folder), Path(folder))
        server = program.server
        server.request("initialize", HELLO)
        answer = program.instructions()
        os.write(server.input, b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        server.request("tools/list", {})
        server.call("get")
        costs: dict[str, float] = {ANSWER: answer, CALL: answer + program.instructions()}
        program.control("--instr=off")
        for kind in CALLS:
            repeat(server, kind, WARM)
        program.control("--instr=on")
        for kind, many in CALLS_COUNTED.items():
            repeat(server, kind, 2)
            program.control("--zero")
            repeat(server, kind, many)
            costs[kind] = program.instructions() / many
        program.end()
        return costs


def repeat(server: Server, kind: str, many: int) -> None:
    for _ in range(many):
        server.call(kind)


def counts(work: Path) -> dict[str, float]:
    """Instructions, in shares of the bare SDK server's for the same."""
    api = Api()
    try:
        command = [sys.executable, str(HERE / "openapi.py"), str(PROJECT / "tools"), str(work), api.url]
        path = os.pathsep.join((str(PROJECT), str(PROJECT / "packaging" / "generate")))
        subprocess.run(command, check=True, env=environment({"PYTHONPATH": path}))
        floor = [sys.executable, str(HERE / "peers" / "sdk_static.py")]
        floor_env = {"BASE_URL": api.url, "KEY": KEY, "STATIC": str(work / "static.json")}
        ours = [sys.executable, "-m", "fastn_mcp"]
        ours_env = {"FASTN_API_KEY": KEY, "FASTN_BASE_URL": api.url}
        with ThreadPoolExecutor(2) as pool:  # instructions are the same, however many run at once
            programs = pool.submit(counted, ours, ours_env), pool.submit(counted, floor, floor_env)
        mine, bare = (program.result() for program in programs)
        # The bare server has all that it needs once it can answer a call.
        shares = {what: mine[what] / bare[CALL] for what in (ANSWER, CALL)}
        shares |= {f"a call of {tool}": mine[kind] / bare[kind] for kind, (tool, _, _) in CALLS.items()}
        return shares
    finally:
        api.close()


# What a start over stdio has no use for; the SDK itself brings its HTTP server along, once it is loaded.
UNWANTED = (
    "rich",
    "valkey",
    "rapidfuzz",
    "keyring",
    "multipart",
    "fastn_mcp.extensions.sandbox",
    "fastn_mcp.extensions.team",
)
HTTP = ("httpcore2", "httptools", "httpx2", "starlette", "uvicorn")
UNWANTED_FIRST = (*UNWANTED, *HTTP, "mcp", "sqlite3", "cryptography")


def modules() -> tuple[dict[str, float], list[str]]:
    """How many modules are loaded for the first answer and for the first call, and those that ought not to be."""
    listing = "lambda: print('\\n'.join(sys.modules), file=sys.stderr)"
    program = f"import sys, atexit; atexit.register({listing}); from fastn_mcp.cli.program import main; main()"
    tool, arguments, _ = CALLS["get"]
    first = [{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": HELLO}]
    more: list[dict[str, Any]] = [
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": tool, "arguments": arguments}},
    ]
    counts: dict[str, float] = {}
    wrong: list[str] = []
    for what, messages, unwanted in (("answer", first, UNWANTED_FIRST), ("call", first + more, UNWANTED)):
        with tempfile.TemporaryDirectory() as folder:
            env = environment(own({"FASTN_API_KEY": KEY, "FASTN_BASE_URL": "http://127.0.0.1:9"}, folder))
            lines = "".join(json.dumps(message) + "\n" for message in messages)
            ran = subprocess.run(
                [sys.executable, "-c", program], input=lines, capture_output=True, text=True, env=env, check=True
            )
        loaded = ran.stderr.split()
        counts[f"modules for the first {what}"] = len(loaded)
        wrong += [name for name in loaded if any(f"{name}.".startswith(f"{bad}.") for bad in unwanted)]
    return counts, wrong


async def allocated(folder: Path) -> float:
    """The most that a call with 100 rows holds at once, in shares of what reading and writing their JSON holds."""
    upstream = Rows(100)
    dispatch = within(client_of(upstream), Ledger(SqliteStore(":memory:")), folder)
    call = ListCustomers(limit=100)
    body = (await upstream(call.request())).body

    async def ours() -> None:
        done = await dispatch(call, Caller(Asker(), None))
        assert isinstance(done, Done)
        json.dumps(render(call, done.result, {}))

    async def plain() -> None:
        json.dumps(json.loads(body))

    peaks: list[int] = []
    for work in (ours, plain):
        await work()
        tracemalloc.start()
        await work()
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return peaks[0] / peaks[1]


def table(measured: dict[str, float], expected: dict[str, float], tolerance: float) -> tuple[str, list[str]]:
    lines = [f"{'':32}{'measured':>10}{'expected':>10}{'change':>9}"]
    lost: list[str] = []
    for name, value in measured.items():
        known = expected.get(name)
        change = None if known is None else value / known - 1
        verdict = ""
        if change is None:
            verdict = "  not in expected.json"
        elif change > tolerance:
            verdict = "  LOST"
        if verdict:
            lost.append(name)
        shown = f"{known:10.3f}{change:+9.1%}" if known is not None else f"{'':19}"
        lines.append(f"{name:32}{value:10.3f}{shown}{verdict}")
    return "\n".join(lines), lost


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="take what is measured for what is expected")
    options = parser.parse_args()
    harness.PATIENCE = PATIENCE
    measured, unwanted = modules()
    with tempfile.TemporaryDirectory() as folder:
        measured["memory of a list of 100"] = asyncio.run(allocated(Path(folder)))
        counted = shutil.which("valgrind") is not None
        if counted:
            measured |= counts(Path(folder))
    known: dict[str, Any] = json.loads(EXPECTED.read_text(encoding="utf-8"))
    if options.write:
        known["values"] |= {name: round(value, 4) for name, value in measured.items()}
        EXPECTED.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    text, lost = table(measured, known["values"], known["tolerance"])
    print(text)
    if not counted:
        print("SKIPPED: instructions were not counted, since valgrind is not there (apt-get install valgrind).")
    if unwanted:
        print(f"A start over stdio loads what it has no use for: {', '.join(unwanted)}")
    print(f"LOST more than {known['tolerance']:.0%}: {', '.join(lost)}" if lost else "Nothing was lost.")
    return 1 if lost or unwanted else 0


if __name__ == "__main__":
    sys.exit(main())
