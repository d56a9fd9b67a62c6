"""Output while Fastn fails: JSON-RPC on stdout, JSON lines on stderr, and the key in neither."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from mcp import Client
from support.forkserver import forked
from support.ports import free_port
from support.raw_client import HTTP_HEADERS, PATIENCE, answers_to, call, introducing
from support.server_process import BEARER, ERAS, HTTP_TOKEN, KEY, Upstream, each_era, environment, over_http, running

LEVELS = ("debug", "info", "warning", "error")
each_level = pytest.mark.parametrize("level", ["debug", pytest.param("error", marks=pytest.mark.long)])
HOSTILE = 'two\nlines\r\n{"level": "error", "message": "forged"}\u2028and\u0085more\x1b[31m'
ACCEPTED = HOSTILE.replace("\u0085", "").replace("\x1b", "")
"""What of it an argument may hold."""

FAULTS: dict[str, dict[str, Any]] = {
    "customers": {"kind": "status", "status": 500, "message": f"{HOSTILE} {KEY}"},
    "workflows": {"kind": "reset"},
    "connections": {"kind": "garbage"},
    "users": {"kind": "echo_key", "status": 401},
    "secrets": {"kind": "huge"},
    "roles": {"kind": "truncate"},
    "triggers": {"kind": "redirect", "to": "http://sink.invalid/"},
    "executions": {"kind": "deep_nesting"},
    "billing": {"kind": "hang"},
    "connectors": {"kind": "lone_surrogate"},
    "audit": {"kind": "status", "status": 400, "retry_after": "soon\u0085forged"},
}
TOOLS = {name: f"list_{name}" for name in FAULTS} | {"billing": "get_billing", "audit": "query_audit_log"}
WRITE = "create_customer"


def disturb(upstream: Upstream) -> str:
    """Set a fault for each tool, a lost write and a hostile customer name. Return the customer's id."""
    row = upstream.ask("POST", "customers", name=ACCEPTED, slug="hostile")
    faults = [{**fault, "method": "GET", "path": f"/api/v1/{name}", "times": None} for name, fault in FAULTS.items()]
    for fault in [*faults, {"kind": "reset", "moment": "after", "method": "POST", "path": "/api/v1/customers"}]:
        upstream.fault(**fault)
    return str(row["id"])


def session(customer: str) -> list[bytes]:
    """Return the input of a session with every fault, the hostile row and an unknown tool."""
    calls: list[tuple[str, dict[str, Any]]] = [(tool, {}) for tool in TOOLS.values()]
    calls += [("get_customer", {"customer_id": customer}), (WRITE, {"name": ACCEPTED}), (HOSTILE, {})]
    asked = [call(number, tool, **arguments) for number, (tool, arguments) in enumerate(calls, 1)]
    return [*introducing(name=HOSTILE), *asked, b"no JSON"]


def logged(output: bytes) -> list[dict[str, Any]]:
    """Return the events of a log. Every line must be one event, whatever line breaks are split at."""
    text = output.decode("ascii")
    assert text == "" or text.endswith("\n")
    events = [cast("dict[str, Any]", json.loads(line)) for line in text.splitlines()]
    assert len(events) == text.count("\n")
    assert all(event.keys() - {"error"} == {"time", "level", "logger", "message"} for event in events)
    return events


def enough(events: Iterable[dict[str, Any]], level: str) -> bool:
    return all(LEVELS.index(event["level"]) >= LEVELS.index(level) for event in events)


@pytest.mark.parametrize("to_file", [False, pytest.param(True, marks=pytest.mark.long)], ids=["stderr", "file"])
@each_level
def test_every_line_is_json_under_faults(level: str, to_file: bool, upstream: Upstream, tmp_path: Path) -> None:
    customer = disturb(upstream)
    log = tmp_path / "logs" / "server.log"
    env = environment(upstream) | {"FASTN_LOG_LEVEL": level, "FASTN_DEADLINE": "3"}
    answers, done = answers_to(*session(customer), flags=("--log-file", str(log)) if to_file else (), env=env)
    assert set(answers) == {None, "hello", *range(1, len(FAULTS) + 4)}
    assert answers[len(FAULTS) + 1]["result"]["structuredContent"]["data"]["name"].startswith("two")
    assert not [number for number in range(1, len(FAULTS) + 1) if not answers[number]["result"]["isError"]]
    assert KEY.encode() not in done.stdout
    written = log.read_bytes() if to_file else done.stderr
    assert KEY.encode() not in written + done.stderr
    assert not (to_file and done.stderr)
    events = logged(written)
    assert enough(events, level)
    assert "forged" not in [event["message"] for event in events]
    assert not to_file or log.stat().st_mode & 0o777 == 0o600
    # No level logs headers, one of which is hostile here.
    assert not any("forged" in event["message"] for event in events)


@each_level
def test_http_server_log_is_json_lines(level: str, upstream: Upstream) -> None:
    disturb(upstream)
    port = free_port()
    with subprocess.Popen(
        forked("--http", f"127.0.0.1:{port}"),
        env={**os.environ, **environment(upstream), "FASTN_LOG_LEVEL": level, "FASTN_DEADLINE": "3"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            with httpx2.Client(transport=httpx2.HTTPTransport(retries=8)) as client:
                assert client.get(f"{url}/healthz").status_code == 200
                headers = BEARER | HTTP_HEADERS
                for tool in (TOOLS["customers"], TOOLS["workflows"], HOSTILE):
                    answer = client.post(f"{url}/mcp", content=call(1, tool), headers=headers, timeout=PATIENCE)
                    assert KEY not in answer.text
            with socket.create_connection(("127.0.0.1", port), 5) as stranger:
                stranger.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
                stranger.recv(4096)
        finally:
            process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=PATIENCE)
    assert HTTP_TOKEN.encode() not in output + errors
    assert KEY.encode() not in errors
    events = logged(errors)
    announced = [event["message"] for event in events if event["message"].startswith("Serving ")]
    place = "the setting http_token (FASTN_HTTP_TOKEN) of the server"
    assert announced == [f"Serving {url}/mcp. The bearer token for clients is in {place}."]
    assert output == b""
    assert enough([event for event in events if event["message"] not in announced], level)
    assert level == "error" or "uvicorn.error" in [event["logger"] for event in events]


@pytest.mark.long
@each_era
async def test_log_never_contains_response_data(era: str, tmp_path: Path) -> None:
    async def progresses(progress: float, total: float | None, message: str | None) -> None:
        """Ignore progress. Asking for it makes the response a stream."""

    folder, port = str(tmp_path), free_port()
    env = dict.fromkeys(("FASTN_CONFIG_DIR", "FASTN_STATE_DIR"), folder) | {"FASTN_CONFIG": os.devnull}
    env |= {"FASTN_HTTP_TOKEN": HTTP_TOKEN, "FASTN_LOG_LEVEL": "debug", "FASTN_LOG_FILE": f"{folder}/log"}
    with running("--sandbox", "--http", f"127.0.0.1:{port}", port=port, env=env):
        async with Client(over_http(f"http://127.0.0.1:{port}/mcp"), mode=ERAS[era]) as client:
            for callback in (None, progresses):
                result = await client.call_tool("list_customers", {"search": "Globex"}, progress_callback=callback)
                assert result.structured_content is not None
                customer = str(result.structured_content["data"][0]["id"])
    logged_ = (tmp_path / "log").read_text()
    assert '"level": "debug"' in logged_
    assert customer not in logged_
    assert "Globex" not in logged_
