"""Measures this server and its peers from outside, in turn and alike, against one upstream on this machine.

The client is raw JSON-RPC over pipes, so that no SDK's cost is counted. Each round starts every server anew, in another
order; ratios are taken within a round, and then their median, so that a machine that slows down does not favour one.
"""

import argparse
import json
import os
import platform
import select
import socket
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from upstream import KEY

HERE = Path(__file__).parent
PROJECT = HERE.parent
OURS, FLOOR, BRIDGE = "fastn-mcp", "sdk-static", "fastmcp"
CALLS: dict[str, tuple[str, dict[str, Any], str]] = {  # what is measured: tool, arguments, what the answer must hold
    "get": ("get_customer", {"customer_id": "cus_000001"}, "cus_000001"),
    "list": ("list_customers", {"limit": 100}, "customer_000001"),
    "create": ("create_customer", {"name": "Acme Ltd"}, "Acme Ltd"),
}
REST = {  # the same calls, made of the upstream directly
    "get": ("GET", "/api/v1/customers/cus_000001", b""),
    "list": ("GET", "/api/v1/customers?limit=100", b""),
    "create": ("POST", "/api/v1/customers", b'{"name":"Acme Ltd"}'),
}
IN_FLIGHT = (1, 8, 64)
PATIENCE = 30.0  # seconds for any one reply
HELLO: dict[str, Any] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "bench", "version": "1"},
}


class Aim(NamedTuple):
    """A row of the table: how it is named, and what it should be at most of the floor's."""

    label: str
    of_floor: float | None
    more_is_better: bool = False


ROWS = {
    "cold": Aim("cold start to tools/list, ms", 1.15),
    "memory": Aim("memory when listed, MB", 1.15),
    "memory_after": Aim("memory after all calls, MB", 1.15),
    **{f"added_{kind}": Aim(f"added latency, {CALLS[kind][0]}, ms", 1.5) for kind in CALLS},
    **{f"rate_{n}": Aim(f"calls per second, {n} in flight", None, more_is_better=True) for n in IN_FLIGHT},
}


class Api:
    """The upstream and a connection to it: the cheapest client there is."""

    def __init__(self) -> None:
        command = [sys.executable, str(HERE / "upstream.py")]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment({}))
        port = int(self.process.stdout.readline())  # type: ignore[union-attr]
        self.url = f"http://127.0.0.1:{port}"
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE)

    def call(self, method: str, path: str, body: bytes = b"") -> bytes:
        head = f"{method} {path} HTTP/1.1\r\nhost: upstream\r\nx-fastn-api-key: {KEY}\r\ncontent-length: {len(body)}"
        self.socket.sendall(head.encode() + b"\r\n\r\n" + body)
        answer = b""
        while True:
            answer += self.socket.recv(1 << 20)
            head_end = answer.find(b"\r\n\r\n")
            if head_end >= 0 and len(answer) - head_end - 4 == int(answer[:head_end].rpartition(b": ")[2]):
                return answer[head_end + 4 :]

    def count(self) -> int:
        return int(self.call("GET", "/count"))

    def close(self) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait(5)


class Server:
    """One started server, spoken to over its pipes."""

    def __init__(self, command: list[str], env: dict[str, str], log: Path) -> None:
        self.last = 0
        self.buffer = b""
        self.arrived = 0.0
        with log.open("ab") as errors:
            self.started = time.perf_counter()
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment(env), bufsize=0
            )
        self.input, self.output = self.process.stdin.fileno(), self.process.stdout.fileno()  # type: ignore[union-attr]

    def send(self, method: str, params: dict[str, Any]) -> int:
        self.last += 1
        message = {"jsonrpc": "2.0", "id": self.last, "method": method, "params": params}
        os.write(self.input, json.dumps(message).encode() + b"\n")
        return self.last

    def receive(self) -> dict[str, Any]:
        """The next reply; notifications are passed over."""
        while True:
            line, newline, rest = self.buffer.partition(b"\n")
            if not newline:
                if not select.select([self.output], [], [], PATIENCE)[0]:
                    raise TimeoutError(f"no reply in {PATIENCE:.0f} s")
                data = os.read(self.output, 1 << 20)
                if not data:
                    raise ConnectionError(f"the server ended with {self.process.wait(5)}")
                self.buffer += data
                continue
            self.buffer = rest
            self.arrived = time.perf_counter()  # before it is read, so that the client's own work is not counted
            message = json.loads(line)
            if "method" not in message:
                return message

    def request(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        self.send(method, params)
        reply = self.receive()
        if "result" not in reply:
            raise RuntimeError(f"{method}: {reply}")
        return reply["result"]

    def open(self) -> float:
        """Shakes hands and lists the tools. The seconds since the start of the process."""
        self.request("initialize", HELLO)
        os.write(self.input, b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n')
        tools = self.request("tools/list", {})["tools"]
        if len(tools) < 42:  # one for each operation
            raise RuntimeError(f"{len(tools)} tools")
        return self.arrived - self.started

    def params(self, kind: str) -> dict[str, Any]:
        """A call of this kind. Each creates another customer: the same change waits until the first is settled."""
        tool, arguments, _ = CALLS[kind]
        return {
            "name": tool,
            "arguments": arguments | {"name": f"Acme Ltd {self.last}"} if kind == "create" else arguments,
        }

    def call(self, kind: str) -> float:
        """One call, whose answer is looked at. Its seconds."""
        start = time.perf_counter()
        check(self.request("tools/call", self.params(kind)), CALLS[kind][2])
        return self.arrived - start

    def burst(self, kind: str, count: int, in_flight: int) -> float:
        """`count` calls with `in_flight` of them at any time. Calls per second."""
        start = time.perf_counter()
        waiting = {self.send("tools/call", self.params(kind)) for _ in range(min(count, in_flight))}
        sent = len(waiting)
        while waiting:
            reply = self.receive()
            waiting.remove(reply["id"])
            check(reply.get("result", {}), CALLS[kind][2])
            if sent < count:
                waiting.add(self.send("tools/call", self.params(kind)))
                sent += 1
        return count / (time.perf_counter() - start)

    def memory(self) -> float:
        """Resident megabytes, with all child processes. Linux only."""
        family, total = [self.process.pid], 0.0
        for pid in family:
            status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
            total += int(status.partition("VmRSS:")[2].split()[0]) / 1024
            for task in Path(f"/proc/{pid}/task").iterdir():
                family += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
        return total

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(5)
        self.process.stdout.close()  # type: ignore[union-attr]


def environment(more: dict[str, str]) -> dict[str, str]:
    """Without what would configure a server under test or keep Python from using its byte code."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("FASTN_") and k != "PYTHONDONTWRITEBYTECODE"}
    return kept | more


def own(env: dict[str, str], folder: str) -> dict[str, str]:
    """An environment whose settings and state lie in `folder`."""
    return env | {"FASTN_CONFIG": os.devnull, "FASTN_CONFIG_DIR": folder, "FASTN_STATE_DIR": folder}


def check(result: dict[str, Any], holds: str) -> None:
    text = json.dumps(result)
    if result.get("isError") or holds not in text:
        raise RuntimeError(f"not an answer: {text[:400]}")


def measure(server: Server, api: Api, calls: int) -> dict[str, float]:
    """Everything that is measured of one started server."""
    values = {"cold": server.open() * 1000, "memory": server.memory()}
    before, made = api.count(), 0
    for kind in CALLS:
        for _ in range(10):  # the first calls import, build validators and connect
            server.call(kind)
        through: list[float] = []
        direct: list[float] = []
        for number in range(calls):
            through.append(server.call(kind))
            if number % 10 == 0:
                start = time.perf_counter()
                api.call(*REST[kind])
                direct.append(time.perf_counter() - start)
        values[f"added_{kind}"] = (statistics.median(through) - statistics.median(direct)) * 1000
        made += 10 + calls + len(direct)
    for in_flight in IN_FLIGHT:
        values[f"rate_{in_flight}"] = server.burst("get", calls * 3, in_flight)
        made += calls * 3
    values["memory_after"] = server.memory()
    values["requests_per_call"] = (api.count() - before) / made
    return values


def table(rounds: list[dict[str, dict[str, float]]], names: list[str]) -> str:
    """The medians side by side, the ratios to the floor, and whether the aims are met."""
    lines = ["{:38}".format("") + "".join(f"{name:>12}" for name in names) + f"{'/ ' + FLOOR:>14}   aims"]
    for key, aim in ROWS.items():
        middle = {name: statistics.median(measured[name][key] for measured in rounds) for name in names}
        line = f"{aim.label:38}" + "".join(f"{middle[name]:12.{0 if aim.more_is_better else 2}f}" for name in names)
        if OURS in names:
            ratio = statistics.median(measured[OURS][key] / measured[FLOOR][key] for measured in rounds)
            line += f"{ratio:14.2f}   "
            if aim.of_floor is not None:
                line += f"<= {aim.of_floor} {verdict(ratio <= aim.of_floor)}; "
            if BRIDGE in names:
                better = statistics.median(measured[OURS][key] / measured[BRIDGE][key] for measured in rounds)
                line += f"better than {BRIDGE} {verdict(better > 1 if aim.more_is_better else better < 1)}"
        lines.append(line)
    for name in names:
        per_call = statistics.median(measured[name]["requests_per_call"] for measured in rounds)
        if per_call != 1:
            lines.append(f"{name} makes {per_call:.2f} upstream requests for a call.")
    return "\n".join(lines)


def verdict(met: bool) -> str:
    return "met" if met else "MISSED"


def servers(api: Api, work: Path, fastmcp: Path) -> dict[str, tuple[list[str], dict[str, str]]]:
    """The command and the environment of each server."""
    peer = {"BASE_URL": api.url, "KEY": KEY}
    static = {**peer, "STATIC": str(work / "static.json")}
    bridge = {**peer, "OPENAPI": str(work / "openapi.json")}
    ours = own({"FASTN_API_KEY": KEY, "FASTN_BASE_URL": api.url}, str(work))
    return {
        OURS: ([str(Path(sys.executable).with_name("fastn-mcp"))], ours),
        FLOOR: ([sys.executable, str(HERE / "peers" / "sdk_static.py")], static),
        BRIDGE: ([str(fastmcp), str(HERE / "peers" / "fastmcp_bridge.py")], bridge),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fastmcp", type=Path, required=True, help="a Python that has FastMCP")
    parser.add_argument("--work", type=Path, required=True, help="a folder for what the peers are given, and for logs")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=150, help="sequential calls of each kind in each round")
    parser.add_argument("--json", type=Path, help="write every round's values here")
    parser.add_argument(
        "--only", action="append", help="only this server (may be repeated); the ratios need sdk-static"
    )
    options = parser.parse_args()
    api = Api()
    rounds: list[dict[str, dict[str, float]]] = []
    try:
        command = [sys.executable, str(HERE / "openapi.py"), str(PROJECT / "tools"), str(options.work), api.url]
        path = os.pathsep.join((str(PROJECT), str(PROJECT / "packaging" / "generate")))
        subprocess.run(command, check=True, env=environment({"PYTHONPATH": path}))
        chosen = {n: s for n, s in servers(api, options.work, options.fastmcp).items() if n in (options.only or [n])}
        names = list(chosen)
        print(f"{options.rounds} rounds over stdio, Python {platform.python_version()}, mcp {version('mcp')}")
        print(f"{FLOOR}: the SDK's low-level server, the same 42 tools as plain data, nothing checked")
        print(f"{BRIDGE}: FastMCP.from_openapi over the same operations", flush=True)
        for number in range(options.rounds):
            measured: dict[str, dict[str, float]] = {}
            for name in names[number % len(names) :] + names[: number % len(names)]:
                server = Server(*chosen[name], options.work / f"{name}.log")
                try:
                    measured[name] = measure(server, api, options.calls)
                finally:
                    server.close()
            rounds.append(measured)
            colds = ", ".join(f"{name} {measured[name]['cold']:.0f} ms" for name in names)
            print(f"round {number + 1}: cold start {colds}", flush=True)
    finally:
        api.close()
    print(table(rounds, names))
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
