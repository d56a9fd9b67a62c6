"""Many calls at once while the upstream misbehaves: no answer is lost, none is another's, and memory does not grow.

Every call asks for an id of its own. Of the upstream's answers some are errors, resets, garbage or cut short; a call
that such a fault outlives has to end in an honest outcome. Exits with 1 where any of this does not hold. Linux only.
"""

import argparse
import asyncio
import http.client
import json
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import upstream
from harness import Server, environment
from upstream import KEY

HTTP_TOKEN = "a-token-of-the-benchmarks-that-nobody-guesses"
BEARER = {"authorization": f"Bearer {HTTP_TOKEN}"}

EARLY = 2_000
"""Calls after which memory is measured the first time."""
GROWTH = 1.10
HONEST = frozenset({"failed", "rate_limited"})
"""Outcomes that a read may have after the faults below."""
ID = re.compile(r"cus_\d{6}")


class Faulty(upstream.Upstream):
    """The upstream, with faults at random; the seed is fixed."""

    share = 0.05
    chance = random.Random(1)
    faults = Counter[str]()  # noqa: RUF012 - one for all connections

    def answer(self, method: str, target: str, head: str, body: bytes) -> tuple[int, bytes]:
        if target == "/faults":
            return 200, json.dumps(Faulty.faults).encode()
        status, right = super().answer(method, target, head, body)
        if target == "/count" or self.chance.random() >= self.share:
            return status, right
        fault = self.chance.choice(("503", "500", "429", "reset", "cut", "garbage", "nan"))
        Faulty.faults[fault] += 1
        match fault:
            case "503" | "500" | "429":
                return int(fault), b'{"error":{"code":"FAULT","message":"Something went wrong"}}'
            case "reset":
                self.transport.abort()
            case "cut":
                self.transport.write(b"HTTP/1.1 200 -\r\ncontent-length: %d\r\n\r\n%b" % (len(right), right[:20]))
                self.transport.close()
            case "garbage":
                return status, b"\x00\xff{not json"
            case _:
                return status, right[:-1] + b',"ratio":NaN}'
        return status, b""


async def faulty(share: float) -> None:
    Faulty.share = share
    server = await asyncio.get_running_loop().create_server(Faulty, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.sleep(upstream.LIFETIME)


class Tally:
    """What became of the calls, by id; and memory, early and at the end."""

    def __init__(self, process: int, calls: int) -> None:
        self.process = process
        self.calls = calls
        self.fates: dict[int, str] = {}
        self.wrong: list[str] = []
        self.early = 0.0
        self.lock = threading.Lock()

    def heard(self, number: int, result: dict[str, Any]) -> None:
        """An answer to the call `number`. `result` is the tool's."""
        content = cast("dict[str, Any]", result.get("structuredContent") or {})
        outcome = str(content.get("outcome", "failed")) if result.get("isError") else "answered"
        ids = set(ID.findall(json.dumps(result)))
        honest = ids == {name(number)} if outcome == "answered" else outcome in HONEST and ids <= {name(number)}
        with self.lock:
            if not honest or number in self.fates:
                self.wrong.append(f"{name(number)}: {json.dumps(result)[:300]}")
            self.fates[number] = outcome
            if len(self.fates) == min(EARLY, self.calls):
                self.early = memory(self.process)


def name(number: int) -> str:
    return f"cus_{number:06d}"


def memory(process: int) -> float:
    """Resident megabytes."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def over_stdio(env: dict[str, str], log: Path, calls: int, in_flight: int) -> tuple[Tally, float]:
    server = Server([sys.executable, "-m", "fastn_mcp"], env, log)
    try:
        server.open()
        tally = Tally(server.process.pid, calls)
        numbers: dict[int, int] = {}  # by the message's id

        def send(number: int) -> None:
            arguments = {"customer_id": name(number)}
            numbers[server.send("tools/call", {"name": "get_customer", "arguments": arguments})] = number

        waiting: Iterator[int] = iter(range(calls))
        for _ in range(min(calls, in_flight)):
            send(next(waiting))
        while numbers:
            reply = server.receive()
            tally.heard(numbers.pop(reply["id"]), reply.get("result", {"isError": True, **reply}))
            if (number := next(waiting, None)) is not None:
                send(number)
        return tally, memory(server.process.pid)
    finally:
        server.close()


def over_http(env: dict[str, str], log: Path, calls: int, in_flight: int) -> tuple[Tally, float]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    command = [sys.executable, "-m", "fastn_mcp", "--http", f"127.0.0.1:{port}"]
    env |= {"FASTN_HTTP_TOKEN": HTTP_TOKEN}
    with log.open("ab") as errors:
        process = subprocess.Popen(command, env=environment(env), stdout=subprocess.DEVNULL, stderr=errors)
    try:
        ready(port)
        tally = Tally(process.pid, calls)
        waiting = iter(range(calls))
        lock = threading.Lock()

        def work() -> None:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            while True:
                with lock:
                    number = next(waiting, None)
                if number is None:
                    connection.close()
                    return
                tally.heard(number, asked(connection, number))

        threads = [threading.Thread(target=work) for _ in range(in_flight)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return tally, memory(process.pid)
    finally:
        process.terminate()
        process.wait(15)


def ready(port: int) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("it does not listen")


def asked_of(number: int) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a call of the newest protocol."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "load", "version": "1"},
    }
    params = {"name": "get_customer", "arguments": {"customer_id": name(number)}, "_meta": meta}
    headers = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": "get_customer",
    }
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode(), headers


def asked(connection: http.client.HTTPConnection, number: int) -> dict[str, Any]:
    """One call over HTTP; what is no answer to it is told as an error that nobody expects."""
    try:
        body, headers = asked_of(number)
        connection.request("POST", "/mcp", body, headers | BEARER)
        reply = json.loads(connection.getresponse().read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        connection.close()
        return {"isError": True, "structuredContent": {"outcome": f"lost: {error!r}"}}
    if reply.get("id") != number or "result" not in reply:
        return {"isError": True, "structuredContent": {"outcome": f"no answer: {str(reply)[:200]}"}}
    return reply["result"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000, help="calls over each transport")
    parser.add_argument("--in-flight", type=int, default=64)
    parser.add_argument("--faults", type=float, default=0.05, help="share of the upstream's answers")
    parser.add_argument("--upstream", action="store_true", help="be the upstream")
    options = parser.parse_args()
    if options.upstream:
        asyncio.run(faulty(options.faults))
        return 0
    command = [sys.executable, __file__, "--upstream", "--faults", str(options.faults)]
    held = True
    print(f"{options.calls} calls, {options.in_flight} in flight, {options.faults:.0%} faults")
    print(
        f"{'':8}{'answered':>10}{'errors':>8}{'lost':>6}{'wrong':>7}{'MB early':>10}{'MB end':>8}{'growth':>8}{'s':>7}"
    )
    for transport, run in (("stdio", over_stdio), ("http", over_http)):
        with tempfile.TemporaryDirectory() as state, subprocess.Popen(command, stdout=subprocess.PIPE) as api:
            port = int(api.stdout.readline())  # type: ignore[union-attr]
            env = {
                "FASTN_BASE_URL": f"http://127.0.0.1:{port}",
                "FASTN_API_KEY": KEY,
                "FASTN_CONFIG": os.devnull,
                "FASTN_CONFIG_DIR": state,
                "FASTN_STATE_DIR": state,
            }
            log = Path(state, "stderr.log")
            try:
                began = time.monotonic()
                tally, end = run(env, log, options.calls, options.in_flight)
                seconds = time.monotonic() - began
                control = http.client.HTTPConnection("127.0.0.1", port)
                control.request("GET", "/faults")
                faults = json.loads(control.getresponse().read())
                control.close()
            finally:
                api.terminate()
            errors = Counter(fate for fate in tally.fates.values() if fate != "answered")
            lost = options.calls - len(tally.fates)
            answered = len(tally.fates) - errors.total()
            growth = end / tally.early
            print(
                f"{transport:8}{answered:10}{errors.total():8}{lost:6}{len(tally.wrong):7}"
                f"{tally.early:10.1f}{end:8.1f}{growth:8.2f}{seconds:7.1f}"
            )
            print(f"{'':8}faults: {faults}; errors: {dict(errors)}")
            for wrong in tally.wrong[:5]:
                print(f"{'':8}{wrong}")
            errors_logged = log.read_bytes()
            if errors_logged:
                print(f"{'':8}its log: {errors_logged[:500].decode(errors='replace')}")
            held = held and not lost and not tally.wrong and growth <= GROWTH
    print("It held." if held else "It did NOT hold.")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
