"""Export of the audit log to a collector over OTLP: at least once, whatever happens on the way."""

import json
import threading
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from support.otlp_receiver import Receiver, values

from fastn_mcp.audit.log import AuditEvent, AuditFile, about
from fastn_mcp.audit.outbox import Outbox, Unsent
from fastn_mcp.build.extensions import SECTIONS, audit_outboxes
from fastn_mcp.config.load import load
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import SettingsError
from fastn_mcp.extensions.telemetry import exporter
from fastn_mcp.extensions.telemetry.exporter import AuditExport
from fastn_mcp.policy.asker import Asker
from fastn_mcp.runtime import System
from fastn_mcp.tools.customers import DeleteCustomer

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
INTENT = about(AuditEvent.INTENT, DeleteCustomer(customer_id="cus_1"), Asker(), "default at live.fastn.ai")
Exporting = Callable[..., AuditExport]
ENDPOINT = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def exporting(path: Path, collector: Receiver, monkeypatch: pytest.MonkeyPatch) -> Generator[Exporting]:
    """The export as a new process begins it."""
    monkeypatch.setenv(ENDPOINT, f"{collector.url}/v1/logs")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "0.5")  # less than the first pause of the SDK's own retries
    begun: list[AuditExport] = []

    def exporting(*paths: Path) -> AuditExport:
        begun.append(AuditExport(lambda: paths or [path], lambda log: f"node:{log.name}", {}, None))
        return begun[-1]

    yield exporting
    for export in begun:
        export.end()


def recorded(path: Path, count: int = 1) -> None:
    log = AuditFile(path, System(trace=lambda: f"00-{TRACE}-00f067aa0ba902b7-01"))
    for _ in range(count):
        log.record(INTENT)
    log.close()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def bodies(collector: Receiver) -> list[str]:
    return [record.body.string_value for record in collector.records]


def test_entry_is_exported_with_its_place_in_the_chain(path: Path, collector: Receiver, exporting: Exporting) -> None:
    """The body is the exact line, so that its hash can be computed; the attributes are for queries."""
    recorded(path, 3)
    assert exporting().send_all()
    assert bodies(collector) == lines(path)
    entries = [json.loads(line) for line in lines(path)]
    for record, entry in zip(collector.records, entries, strict=True):
        assert values(record.attributes) == {
            "fastn_mcp.audit.log": "node:audit.jsonl",
            "fastn_mcp.audit.n": entry["n"],
            "fastn_mcp.audit.hash": entry["hash"],
            "fastn_mcp.audit.previous": entry["prev"],
            "fastn_mcp.audit.event": "intent",
        }
        assert record.event_name == "fastn_mcp.audit"
        assert record.trace_id.hex() == TRACE
        assert abs(record.time_unix_nano - record.observed_time_unix_nano) < 60e9
    assert collector.services == {"fastn-mcp"}
    assert exporting().send_all()
    assert len(collector.requests) == 1


@pytest.mark.parametrize("fault", ["503", "400", "redirect", "page", "rejected"])
def test_rejected_batch_is_sent_again(
    path: Path, collector: Receiver, exporting: Exporting, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    recorded(path, 2)
    collector.faults = [fault] * 3
    export = exporting()
    assert not export.send_all()
    assert not export.send_all()
    assert [each.message for each in caplog.records if each.name == exporter.__name__] == [
        f"the collector does not accept {path}: its entries are kept, and sent again"
    ]
    assert bodies(collector) == []
    collector.faults = []
    recorded(path)
    assert exporting().send_all()
    assert bodies(collector) == lines(path)
    assert export.send_all()
    assert f"the collector accepts {path} again" in caplog.text


def test_batch_whose_response_was_lost_is_sent_again(path: Path, collector: Receiver, exporting: Exporting) -> None:
    recorded(path, 2)
    collector.faults = ["lost"] * 2  # the SDK repeats a broken connection once by itself
    export = exporting()
    assert not export.send_all()
    recorded(path)
    assert export.send_all()
    assert set(bodies(collector)) == set(lines(path))
    assert len(bodies(collector)) > 3


def test_many_entries_are_sent_in_batches_each_once(
    path: Path, collector: Receiver, exporting: Exporting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "_BATCH", 2)
    recorded(path, 5)
    collector.faults = ["200", "503"]
    export = exporting()
    assert not export.send_all()
    assert export.send_all()
    assert bodies(collector) == lines(path)
    assert [len(request.resource_logs[0].scope_logs[0].log_records) for request in collector.requests] == [2, 2, 1]


def test_rejected_log_does_not_block_other_logs(tmp_path: Path, collector: Receiver, exporting: Exporting) -> None:
    first, second = tmp_path / "a" / "audit.jsonl", tmp_path / "b" / "audit.jsonl"
    for path in (first, second):
        recorded(path)
    export = exporting(first, second)
    collector.faults = ["400"]
    assert not export.send_all()
    collector.faults = ["200", "400"]
    assert not export.send_all()
    assert bodies(collector) == lines(second)


def test_log_claimed_by_another_process_is_skipped(path: Path, collector: Receiver, exporting: Exporting) -> None:
    """Several processes can share a log; one of them sends."""
    recorded(path)
    with Outbox(path).claimed():
        assert exporting().send_all()
    assert collector.requests == []
    assert exporting().send_all()
    assert bodies(collector) == lines(path)


@pytest.fixture
def accepted(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Released for each batch that was accepted."""
    told, accept = threading.Semaphore(0), Outbox.accepted

    def accepted(outbox: Outbox, entry: Unsent) -> None:
        accept(outbox, entry)
        told.release()

    monkeypatch.setattr(Outbox, "accepted", accepted)
    return told


def test_thread_sends_each_new_entry_and_the_rest_at_the_end(
    path: Path, collector: Receiver, exporting: Exporting, accepted: threading.Semaphore
) -> None:
    recorded(path)
    export = exporting()
    export.start()
    assert accepted.acquire(timeout=30)
    log = AuditFile(path, System(), outbox=export.outbox(path))
    log.record(INTENT)
    assert accepted.acquire(timeout=30)
    assert bodies(collector) == lines(path)
    log.record(INTENT)
    export.end()
    log.close()
    assert bodies(collector) == lines(path)


def test_thread_tries_again_by_itself(
    path: Path,
    collector: Receiver,
    exporting: Exporting,
    accepted: threading.Semaphore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporter, "_PAUSES", (0.001, 0.002))
    recorded(path)
    collector.faults = ["400"] * 4
    exporting().start()
    assert accepted.acquire(timeout=30)
    assert bodies(collector) == lines(path)


def settings(mode: str) -> Settings:
    environment = {"FASTN_API_KEY": "fsk_test_x", "FASTN_TELEMETRY_AUDIT_EXPORT": mode}
    return load({}, environment, None, sections=SECTIONS)


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({}, f"no collector is named. Set {ENDPOINT} or OTEL_EXPORTER_OTLP_ENDPOINT."),
        ({ENDPOINT: ""}, "no collector is named"),
        ({ENDPOINT: "http://x", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "only http/protobuf is supported"),
        ({ENDPOINT: "http://x", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/json"}, "only http/protobuf is supported"),
    ],
)
def test_export_that_cannot_work_stops_the_start(tmp_path: Path, environment: dict[str, str], reason: str) -> None:
    with pytest.raises(SettingsError) as error:
        audit_outboxes(settings("fail-open"), tmp_path, environment, lambda _: None)
    assert reason in str(error.value)


def test_collector_for_traces_gets_no_audit_log_unless_it_is_asked_for(tmp_path: Path) -> None:
    """The audit log names people and accounts."""
    for mode in ("", "off"):
        assert audit_outboxes(settings(mode), tmp_path, {ENDPOINT: "http://127.0.0.1:1"}, lambda _: None) is None
