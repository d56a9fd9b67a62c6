"""A process that ends records what it left behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest
from support.server_process import Upstream, environment

pytestmark = pytest.mark.measured

INITIALIZE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}


def line(id_: int | None, method: str, params: dict[str, Any]) -> bytes:
    message = {"jsonrpc": "2.0", "method": method, "params": params} | ({} if id_ is None else {"id": id_})
    return json.dumps(message).encode() + b"\n"


@pytest.mark.parametrize("ending", ["SIGTERM", "end of input"])
def test_write_in_flight_is_recorded_as_unknown_on_exit(upstream: Upstream, ending: str) -> None:
    fault = {"kind": "hang", "method": "POST", "path": "*", "moment": "after"}
    httpx2.post(f"{upstream.url}/__sandbox/faults", json=fault).raise_for_status()
    env = {**os.environ, **environment(upstream)}
    with subprocess.Popen(
        [sys.executable, "-m", "fastn_mcp"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(line(1, "initialize", INITIALIZE))
        server.stdin.write(line(None, "notifications/initialized", {}))
        server.stdin.write(line(2, "tools/call", {"name": "create_customer", "arguments": {"name": "Initech"}}))
        server.stdin.flush()
        server.stdout.readline()
        assert any(upstream.changes() for _ in range(5_000))  # the request is in flight
        if ending == "SIGTERM":
            server.send_signal(signal.SIGTERM)
        else:
            server.stdin.close()
        assert server.wait(10) == 0
    entries = [json.loads(text) for text in (Path(env["FASTN_STATE_DIR"]) / "audit.jsonl").read_text().splitlines()]
    assert [(entry["event"], entry.get("outcome")) for entry in entries] == [
        ("intent", None),
        ("outcome", "unknown_outcome"),
    ]
    assert upstream.changes() == ["POST /api/v1/customers"]
