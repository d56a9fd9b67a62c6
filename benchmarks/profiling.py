"""Where a start and a call spend their time, as the tables of docs/contributing/measured.md.

A start: what each package takes to be imported, as `-X importtime` has it, least of several rounds. A call: CPU time by
layer, from cProfile in a running server; built-in functions count for whoever calls them, but for JSON, validation and
the system's own calls, which stand apart. A profiler makes Python look dearer than C, so read the shares. Linux only.
"""

import argparse
import os
import pstats
import re
import signal
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from growth import account_of, cpu
from harness import CALLS, HELLO, Api, Server
from report import put

CALLS_EACH = {"get": 400, "list": 150, "create": 300}
LEAST = 0.01
"""What is less than this share of all is told together."""

_IMPORT = re.compile(r"^import time:\s+(\d+) \|\s+\d+ \| \s*(\S+)$")

PROGRAM = """
import cProfile, signal, sys, time
profiler = cProfile.Profile(time.process_time)
signal.signal(signal.SIGUSR1, lambda *_: profiler.enable())
def done(*_):
    profiler.disable()
    profiler.dump_stats(sys.argv[1])
    profiler.clear()
    open(sys.argv[1] + ".done", "w").close()
signal.signal(signal.SIGUSR2, done)
from fastn_mcp.cli.program import cli
cli.main(args=[], prog_name="fastn-mcp")
"""

LAYERS: tuple[tuple[str, str], ...] = (
    ("HTTP client", r"/(httptools|h11|httpx2)/|fastn_mcp/client/(exchange|transport)"),
    ("retries, deadlines, outcomes", r"fastn_mcp/client/"),
    ("guard, journal, audit", r"fastn_mcp/(guard|policy|ledger|audit|procedures/dispatch)"),
    ("arguments and operations", r"fastn_mcp/(tools/|procedures/catalog)"),
    ("what the model reads", r"fastn_mcp/(redaction|server/rendering|records|account|procedures)"),
    ("our side of MCP", r"fastn_mcp/"),
    ("MCP SDK", r"/(mcp|mcp_types|opentelemetry|pydantic)/"),
    ("event loop", r"/(asyncio|anyio)/|selectors"),
)
JSON_OR_MODELS, SYSTEM, REST = "JSON and validation", "system calls", "standard library"
_JSON = re.compile(r"pydantic_core|_json|json\.|scanner")
_SYSTEM = re.compile(r"socket|posix|select|sqlite3|fcntl|epoll")


def imports(api: Api, folder: Path, *, calls: bool) -> dict[str, float]:
    """Milliseconds for each package, and for each part of ours, in one start."""
    env = account_of(api, folder)
    log = folder / "imports.log"
    log.unlink(missing_ok=True)
    server = Server([sys.executable, "-X", "importtime", "-m", "fastn_mcp"], env, log)
    server.request("initialize", HELLO)
    if calls:
        os.write(server.input, b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        server.request("tools/list", {})
        server.call("get")
    server.close()
    costs: defaultdict[str, float] = defaultdict(float)
    for line in log.read_text(encoding="utf-8").splitlines():
        if took := _IMPORT.match(line):
            costs[package(took[2])] += int(took[1]) / 1000
    return costs


def package(module: str) -> str:
    top, _, rest = module.partition(".")
    if top == "fastn_mcp":
        return f"fastn_mcp.{rest.partition('.')[0]}" if rest else top
    return "standard library" if top in sys.stdlib_module_names or top.startswith("_") else top


def starts(api: Api, folder: Path, rounds: int) -> str:
    """The table of a start."""
    stages = {"first answer": False, "first call": True}
    best: dict[str, dict[str, float]] = {}
    for _ in range(rounds):
        for stage, calls in stages.items():
            took = imports(api, folder, calls=calls)
            earlier = best.setdefault(stage, took)
            best[stage] = {name: min(took.get(name, cost), cost) for name, cost in earlier.items()}
    total = {stage: sum(costs.values()) for stage, costs in best.items()}
    names = sorted(best["first call"], key=lambda name: -best["first call"][name])
    lines = ["| imported | first answer, ms | first call, ms | share |", "|---|--:|--:|--:|"]
    small = [name for name in names if best["first call"][name] < LEAST * total["first call"]]
    lines += [
        row(name, [best[stage].get(name, 0.0) for stage in stages], total["first call"])
        for name in names
        if name not in small
    ]
    rest = [sum(best[stage].get(name, 0.0) for name in small) for stage in stages]
    lines.append(row(f"{len(small)} others", rest, total["first call"]))
    return "\n".join([*lines, row("**all imports**", list(total.values()), total["first call"])])


def row(name: str, costs: list[float], whole: float) -> str:
    label = name if " " in name or name.startswith("*") else f"`{name}`"
    return f"| {label} | {' | '.join(f'{cost:.1f}' for cost in costs)} | {costs[-1] / whole:.0%} |"


def layer(file: str, function: str) -> str | None:
    """Whose work a function is; None where it is its caller's."""
    if file == "~":
        return JSON_OR_MODELS if _JSON.search(function) else SYSTEM if _SYSTEM.search(function) else None
    if "/json/" in file:
        return JSON_OR_MODELS
    return next((name for name, pattern in LAYERS if re.search(pattern, file)), REST)


def by_layer(dumped: Path) -> dict[str, float]:
    """Shares of the CPU time."""
    costs: defaultdict[str, float] = defaultdict(float)
    profile: dict[Any, Any] = vars(pstats.Stats(str(dumped)))["stats"]
    for (file, _, function), (_, _, own_time, _, callers) in profile.items():
        if (whose := layer(file, function)) is not None:
            costs[whose] += own_time
            continue
        for (caller_file, _, caller), (_, _, part, _) in callers.items():
            costs[layer(caller_file, caller) or REST] += part
    total = sum(costs.values())
    return {name: took / total for name, took in costs.items()}


def profiled(server: Server, kind: str, dumped: Path) -> dict[str, float]:
    done = Path(f"{dumped}.done")
    done.unlink(missing_ok=True)
    server.process.send_signal(signal.SIGUSR1)
    for _ in range(CALLS_EACH[kind]):
        server.call(kind)
    server.process.send_signal(signal.SIGUSR2)
    while not done.exists():
        server.request("ping", {})
    return by_layer(dumped)


def calls(api: Api, folder: Path, rounds: int) -> str:
    """The table of calls."""
    env = account_of(api, folder)
    dumped = folder / "profile"
    plain = Server([sys.executable, "-m", "fastn_mcp"], env, folder / "stderr.log")
    watched = Server([sys.executable, "-c", PROGRAM, str(dumped)], env, folder / "stderr.log")
    costs: dict[str, float] = {}
    shares: dict[str, list[dict[str, float]]] = defaultdict(list)
    try:
        for server in (plain, watched):
            server.request("initialize", HELLO)
            os.write(server.input, b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
            for kind in CALLS:
                for _ in range(20):
                    server.call(kind)
        for _ in range(rounds):
            for kind, many in CALLS_EACH.items():
                before = cpu(plain.process.pid)
                for _ in range(many):
                    plain.call(kind)
                cost = (cpu(plain.process.pid) - before) / many
                costs[kind] = min(costs.get(kind, cost), cost)
                shares[kind].append(profiled(watched, kind, dumped))
    finally:
        plain.close()
        watched.close()
    middle = {
        kind: {
            name: sorted(share.get(name, 0.0) for share in of_rounds)[rounds // 2]
            for name in set[str]().union(*of_rounds)
        }
        for kind, of_rounds in shares.items()
    }
    names = sorted(middle["get"], key=lambda name: -middle["get"][name])
    tools = [CALLS[kind][0] for kind in CALLS_EACH]
    head = f"| layer | {' | '.join(f'`{tool}`' for tool in tools)} |\n|---|{'--:|' * len(tools)}"
    lines = [f"| {name} | {' | '.join(f'{middle[kind].get(name, 0):.0%}' for kind in CALLS_EACH)} |" for name in names]
    whole = (
        f"| **CPU of a call, without the profiler** | {' | '.join(f'{costs[kind]:.2f} ms' for kind in CALLS_EACH)} |"
    )
    return "\n".join([head, *lines, whole])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--write", action="store_true", help="write the tables into docs/contributing/measured.md")
    options = parser.parse_args()
    api = Api()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name, measure in (("start", starts), ("call", calls)):
                table = measure(api, Path(folder), options.rounds)
                print(f"{table}\n", flush=True)
                if options.write:
                    put(name, table)
    finally:
        api.close()


if __name__ == "__main__":
    main()
