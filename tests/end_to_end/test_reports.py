"""The report of a process, however it ends."""

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from support.audit_entries import entries
from support.forkserver import forked
from support.ports import free_port
from support.raw_client import call, ended, serving
from support.server_process import Upstream, environment, over_http, running

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX")


def tools(report: Any) -> dict[str, list[str]]:
    return {group: [each["tool"] for each in calls] for group, calls in report["calls"].items() if calls}


def created(name: str) -> str:
    return json.dumps({"tool": "create_customer", "arguments": {"name": name}}) + "\n"


def linked(report: Any, env: dict[str, str]) -> bool:
    """Whether all hashes of the report are those of the audit log's lines."""
    lines = (Path(env["FASTN_STATE_DIR"]) / "audit.jsonl").read_text().splitlines()
    hashes = {entry["n"]: entry["hash"] for entry in map(json.loads, lines)}
    links = [link for calls in report["calls"].values() for each in calls for link in each["audit"]]
    return {link["n"]: link["hash"] for link in links} == hashes


def start(*arguments: str, env: dict[str, str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        forked(*arguments),
        env={**os.environ, **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def running_script(
    folder: Path, env: dict[str, str], *calls: str, more: tuple[str, ...] = ()
) -> "subprocess.Popen[bytes]":
    script = folder / "script.jsonl"
    script.write_text("".join(calls))
    return start("run", str(script), *more, "--report", str(folder / "r.json"), env=env)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stopped_run_reports_unknown_and_left_calls(upstream: Upstream, tmp_path: Path, number: signal.Signals) -> None:
    upstream.fault(kind="hang", method="POST", path="*", moment="after")
    env = environment(upstream)
    with running_script(tmp_path, env, created("Initech"), created("Hooli")) as run:
        assert any(upstream.changes() for _ in range(5_000))
        run.send_signal(number)
        _, stderr = run.communicate(timeout=30)
    assert run.returncode == 4, stderr
    report = json.loads((tmp_path / "r.json").read_text())
    assert tools(report) == {"unknown": ["create_customer"], "left": ["create_customer"]}
    assert linked(report, env)


def test_run_stopped_during_a_read_exits_by_the_signal(upstream: Upstream, tmp_path: Path) -> None:
    upstream.fault(kind="hang", method="GET", path="/api/v1/customers")
    env = environment(upstream)
    with running_script(tmp_path, env, '{"tool": "list_customers"}\n', created("Hooli")) as run:
        assert any(upstream.requests() for _ in range(5_000))
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=30)
    assert run.returncode == 128 + signal.SIGTERM
    report = json.loads((tmp_path / "r.json").read_text())
    assert tools(report) == {"left": ["list_customers", "create_customer"]}


@pytest.mark.measured
@pytest.mark.parametrize("ending", ["SIGTERM", "end of input"])
def test_stdio_server_records_its_calls_on_exit(upstream: Upstream, tmp_path: Path, ending: str) -> None:
    env = environment(upstream) | {"FASTN_REPORT": str(tmp_path / "r.json")}
    with serving(env) as server:
        server.send(call(2), call(3, "create_customer", name="Initech"))
        assert {server.heard()["id"], server.heard()["id"]} == {2, 3}
        upstream.fault(kind="hang", method="POST", path="*", moment="after")
        server.send(call(4, "create_customer", name="Hooli"))
        assert any(len(upstream.changes()) == 2 for _ in range(5_000))
        assert not (tmp_path / "r.json").exists()
        if ending == "SIGTERM":
            server.process.send_signal(signal.SIGTERM)
        else:
            server.close()
        assert ended(server.process, 15) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert tools(report) == {"done": ["create_customer"], "unknown": ["create_customer"]}
    assert report["counts"]["reads"] == 1
    assert linked(report, env)
    assert (tmp_path / "r.json").stat().st_mode & 0o777 == 0o600
    audited = [
        (entry["event"], entry.get("outcome")) for entry in entries(Path(env["FASTN_STATE_DIR"]) / "audit.jsonl")
    ]
    assert audited[-2:] == [("intent", None), ("outcome", "unknown_outcome")]
    assert upstream.changes() == ["POST /api/v1/customers"] * 2


async def test_http_server_reports_all_callers(upstream: Upstream, tmp_path: Path) -> None:
    port, env = free_port(), environment(upstream)
    with running("--http", f"127.0.0.1:{port}", "--report", str(tmp_path / "r.json"), port=port, env=env) as server:
        for name in ("Initech", "Hooli"):
            async with Client(over_http(f"http://127.0.0.1:{port}/mcp")) as client:
                await client.call_tool("create_customer", {"name": name})
        server.send_signal(signal.SIGTERM)
        assert server.wait(15) == 0
    report = json.loads((tmp_path / "r.json").read_text())
    assert [each["target"]["name"] for each in report["calls"]["done"]] == ["Initech", "Hooli"]
    assert linked(report, env)


def test_audit_log_gives_the_same_report(upstream: Upstream, tmp_path: Path) -> None:
    env = environment(upstream)
    with running_script(tmp_path, env, created("Initech"), created("Hooli")) as run:
        run.communicate(timeout=30)
    report = json.loads((tmp_path / "r.json").read_text())
    with start("audit", "report", "--since", "1h", "--json", env=env) as reporting:
        output, _ = reporting.communicate(timeout=30)
    again = json.loads(output)
    same = [{**each, "step": None} for each in report["calls"]["done"]]
    assert again["calls"]["done"] == same
    assert again["audit"] == report["audit"]
    with start("audit", "report", "--since", "2099-01-01", env=env) as reporting:
        output, _ = reporting.communicate(timeout=30)
    assert b"No calls." in output
