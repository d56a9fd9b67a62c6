"""The audit log at a collector: real processes, which are killed, and the command that proves one side by the other."""

import subprocess
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from support.collector_process import CollectorProcess
from support.command_line import run_command
from support.otlp_receiver import Receiver
from support.ports import free_port, listening
from support.server_process import ERAS, Upstream, body, environment, stdio

from fastn_mcp.audit.log import AuditEvent, AuditFile, about
from fastn_mcp.policy.asker import Asker
from fastn_mcp.runtime import System
from fastn_mcp.tools.customers import CreateCustomer

pytestmark = pytest.mark.extension("telemetry")


@pytest.fixture
def collector(tmp_path: Path) -> Generator[CollectorProcess]:
    collector = CollectorProcess(tmp_path / "collected.jsonl")
    yield collector
    collector.kill()


@pytest.fixture
def env(upstream: Upstream, collector: CollectorProcess) -> dict[str, str]:
    return environment(upstream) | {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_TIMEOUT": "0.5",
        "OTEL_TRACES_EXPORTER": "none",
        "OTEL_METRICS_EXPORTER": "none",
        "FASTN_TELEMETRY_AUDIT_EXPORT": "fail-open",
        "BROWSER": "true",
    }


async def change(client: Client, name: str) -> dict[str, Any]:
    return body(await client.call_tool("create_customer", {"name": name}))


def call(env: dict[str, str], name: str) -> "subprocess.CompletedProcess[str]":
    return run_command(["call", "create_customer", "--name", name], env)


def verify(env: dict[str, str], *files: Path) -> tuple[int, list[str]]:
    """Verify the log by these copies. Return the exit code and the lines about them."""
    copies = [str(file) for file in files]
    result = run_command(["audit", "verify", *copies], env)
    lines = result.stdout.splitlines()
    return result.returncode, lines[next(n for n, line in enumerate(lines) if "copy" in line) :]


def test_unsent_entries_are_exported_by_the_next_process(env: dict[str, str], collector: CollectorProcess) -> None:
    assert call(env, "Without Collector").returncode == 0
    assert not collector.file.exists()
    collector.start()
    assert call(env, "With Collector").returncode == 0
    assert verify(env, collector.file) == (0, ["Identical in the copy: entries 1 to 4."])
    (Path(env["FASTN_STATE_DIR"]) / "audit.sent").unlink()  # as an operator does who wants all of it sent again
    assert call(env, "Again").returncode == 0
    again = "4 records arrived more than once, which is fine."
    assert verify(env, collector.file) == (0, ["Identical in the copy: entries 1 to 6.", again])


async def test_fail_closed_refuses_changes_while_entries_are_overdue(
    env: dict[str, str], collector: CollectorProcess, upstream: Upstream
) -> None:
    env = env | {"FASTN_TELEMETRY_AUDIT_EXPORT": "fail-closed"}
    earlier = System(now=lambda: datetime.now(UTC) - timedelta(seconds=61))
    log = AuditFile(Path(env["FASTN_STATE_DIR"]) / "audit.jsonl", earlier)
    log.record(about(AuditEvent.REFUSED, CreateCustomer(name="Earlier"), Asker(), "default at live.fastn.ai"))
    log.close()
    async with Client(stdio(env), mode=ERAS["2026-07-28"]) as client:
        refused = await change(client, "Late")
        assert refused["outcome"] == "refused"
        assert refused["message"].startswith("The audit log has not been accepted by the collector for ")
        assert "Nothing was sent." in refused["message"]
        assert body(await client.call_tool("list_customers", {"search": "Late"}))["data"] == []
        assert upstream.changes() == []
        collector.start()
        while not (collector.file.exists() and collector.file.stat().st_size):  # noqa: ASYNC110 - another process
            await anyio.sleep(0.05)
        while "done" not in (answer := await change(client, "In Time")):  # the export tries again by itself
            assert answer["outcome"] == "refused"
    assert len(upstream.changes()) == 1


def test_copy_shows_changes_on_either_side(env: dict[str, str], collector: CollectorProcess, tmp_path: Path) -> None:
    """A log that was rewritten as a whole is intact in itself, and its ledger can be rewritten with it."""
    collector.start()
    for name in ("One", "Two"):
        call(env, name)
    log = Path(env["FASTN_STATE_DIR"]) / "audit.jsonl"
    assert verify(env, collector.file) == (0, ["Identical in the copy: entries 1 to 4."])
    kept, copy = log.read_bytes(), collector.file.read_bytes()
    log.write_bytes(b"".join(kept.splitlines(keepends=True)[:2]))
    code, lines = verify(env, collector.file)
    assert code == 1
    assert "In the copy but missing here: entries 3 to 4. They were cut off or removed here." in lines
    log.write_bytes(kept)
    lossy = tmp_path / "lossy.jsonl"
    lossy.write_bytes(copy.replace(b"Two", b"Too"))
    code, lines = verify(env, lossy)
    assert code == 1
    assert lines == [
        "Identical in the copy: entries 1 to 2, 4.",
        "Missing from the copy: entry 3. They were lost there, or written after the copy was made.",
        "Altered in the copy: 1 record of this log.",
    ]
    lossy.write_bytes(b"".join(line for line in copy.splitlines(keepends=True) if b"Two" not in line))
    assert verify(env, lossy)[0] == 1
    assert verify(env, lossy, collector.file)[0] == 0
    lossy.write_bytes(b"not of a collector\n")
    result = run_command(["audit", "verify", str(lossy)], env)
    assert result.returncode == 2
    assert f"{lossy} has a line that is neither OTLP as JSON nor an audit entry." in result.stderr


def test_entries_pass_through_another_makers_collector(env: dict[str, str], tmp_path: Path) -> None:
    """Rotel is a collector in Rust, whose reading and writing of OTLP is not that of the SDK."""
    rotel = str(Path(str(pytest.importorskip("rotel").__file__)).with_name("rotel-agent"))
    http, grpc = free_port(), free_port()
    target = Receiver(file=tmp_path / "passed-on.jsonl")
    options = {
        "--otlp-http-endpoint": f"127.0.0.1:{http}",
        "--otlp-grpc-endpoint": f"127.0.0.1:{grpc}",
        "--exporter": "otlp",
        "--otlp-exporter-endpoint": target.url,
        "--otlp-exporter-protocol": "http",
        "--pid-file": str(tmp_path / "pid"),
    }
    command = [rotel, "start", *(part for option in options.items() for part in option)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        listening(http, process)
        call(env | {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{http}"}, "Passed On")
        process.terminate()  # it passes on what it has
        assert process.wait(20) == 0
    target.close()
    assert verify(env, tmp_path / "passed-on.jsonl") == (0, ["Identical in the copy: entries 1 to 2."])
