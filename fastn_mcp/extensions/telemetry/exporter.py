"""Export by OTLP over HTTP, configured by OpenTelemetry's own variables: traces, metrics, logs, and audit logs.

A slow or missing collector delays no call: data waits in bounded queues with their own threads, and is dropped when
they are full. At the end of the process, export may take `SHUTDOWN_SECONDS`. At most `_MAX_BODY_BYTES` of a response
are read, within `_MAX_BODY_SECONDS`.

Audit logs are exported at least once, by one thread of this process. Each record has the exact line as its body, so
that its hash can be computed wherever it is stored. What the collector has not accepted stays in the outbox of its log
(`audit.outbox`), and is sent after the next start at the latest.
"""

import io
import logging
import re
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import requests
from google.protobuf.message import DecodeError
from opentelemetry._logs import LoggerProvider as AnyLoggerProvider
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import get_current
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import NoOpTracerProvider
from requests.adapters import HTTPAdapter
from typing_extensions import override

from fastn_mcp import __version__
from fastn_mcp.audit.files import parsed
from fastn_mcp.audit.log_copy import LOG, SCOPE
from fastn_mcp.audit.outbox import Outbox, Unsent
from fastn_mcp.extensions.telemetry.instruments import Instruments
from fastn_mcp.server.log import JsonLines

SHUTDOWN_SECONDS = 2.0
"""Seconds for which shutdown waits for a collector."""

_MAX_BODY_BYTES = 65_536
_MAX_BODY_SECONDS = 5.0

log = logging.getLogger(__name__)

_BATCH = 200
"""Maximum number of records in a request. An entry has at most some 70 KB."""

_GATHER_SECONDS = 0.2
"""Time in which the entries of a call come together before they are sent."""

_SEARCH_SECONDS = 10.0
"""How often the folder is searched for entries of other processes and of accounts that are not open."""

_PAUSES = (1.0, 30.0)
"""Shortest and longest pause in seconds after a failure. It doubles each time."""


class BoundedAdapter(HTTPAdapter):
    """Read the beginning of a body, so that the connection is reusable, and close it if there is more."""

    @override
    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        response = super().send(request, *args, **{**options, "stream": True})
        body = b""
        until = time.monotonic() + _MAX_BODY_SECONDS
        try:
            while piece := response.raw.read1(_MAX_BODY_BYTES - len(body)):
                body += piece
                if len(body) >= _MAX_BODY_BYTES or time.monotonic() > until:
                    response.raw.close()
                    break
        except Exception:  # the status has arrived and tells whether the data was accepted
            response.raw.close()
        response.raw.release_conn()
        response.raw = io.BytesIO(body)
        return response


def session(adapter: type[BoundedAdapter] = BoundedAdapter) -> requests.Session:
    """Return a session whose requests all pass an adapter of this kind."""
    http = requests.Session()
    for scheme in ("http://", "https://"):
        http.mount(scheme, adapter())
    return http


def export(
    of: Collection[str], environment: Mapping[str, str], lines: JsonLines
) -> tuple[Instruments, Callable[[], None]]:
    """Begin to export the signals in `of`: `traces`, `metrics` and `logs`. Return the instruments, and the end of it.

    The end sends the remaining data, for at most `SHUTDOWN_SECONDS`.
    """
    resource = Resource.create(resource_attributes(environment))
    shutdowns: list[Callable[[], object]] = []
    tracers = NoOpTracerProvider()
    meters = NoOpMeterProvider()
    # Not registered globally: spans of libraries would hold more than we export.
    if "traces" in of:
        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(session=session())))
        shutdowns.append(tracers.shutdown)
    if "metrics" in of:
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(session=session()))
        meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
        shutdowns.append(meters.shutdown)
    if "logs" in of:
        loggers = LoggerProvider(resource=resource, shutdown_on_exit=False)
        loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(session=session())))
        shutdowns.append(loggers.shutdown)
        logging.getLogger().addHandler(LogRecordHandler(loggers, lines))

    def end() -> None:
        until = time.monotonic() + SHUTDOWN_SECONDS
        threads = [threading.Thread(target=shutdown, daemon=True) for shutdown in shutdowns]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    return Instruments(tracers, meters), end


def resource_attributes(environment: Mapping[str, str]) -> dict[str, str]:
    """Return resource attributes that the operator did not set."""
    named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return {"service.version": __version__} | ({} if named else {"service.name": "fastn-mcp"})


_SEVERITY = (
    (logging.CRITICAL, SeverityNumber.FATAL),
    (logging.ERROR, SeverityNumber.ERROR),
    (logging.WARNING, SeverityNumber.WARN),
    (logging.INFO, SeverityNumber.INFO),
    (logging.NOTSET, SeverityNumber.DEBUG),
)
_EXPORTING = ("opentelemetry", "urllib3", "requests")
"""Packages that export. Their own records are not exported, to avoid an endless loop."""


class LogRecordHandler(logging.Handler):
    """Exports log records.

    Texts of exceptions and messages of libraries may hold data of Fastn or of a client. They are not exported.
    """

    def __init__(self, provider: AnyLoggerProvider, lines: JsonLines) -> None:
        super().__init__()
        self._logger = provider.get_logger("fastn_mcp", __version__)
        self._lines = lines

    @override
    def emit(self, record: logging.LogRecord) -> None:
        package, _, _ = record.name.partition(".")
        if package in _EXPORTING:
            return
        try:
            body = f"A message of {record.name}: see the log of this process."
            if package == "fastn_mcp":
                body = self._lines.safe(record.getMessage())
            self._logger.emit(
                LogRecord(
                    timestamp=int(record.created * 1e9),
                    context=get_current(),
                    severity_number=next(number for least, number in _SEVERITY if record.levelno >= least),
                    severity_text=record.levelname,
                    body=body,
                    attributes=_attributes(record),
                )
            )
        except Exception:
            self.handleError(record)


def _attributes(record: logging.LogRecord) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "logger.name": record.name,
        "code.function.name": record.funcName or "",
        "code.line.number": record.lineno,
    }
    if record.exc_info and record.exc_info[0] is not None:
        attributes["exception.type"] = record.exc_info[0].__qualname__
        attributes["exception.stacktrace"] = "".join(traceback.format_tb(record.exc_info[2]))
    return attributes


class _AcceptedAdapter(BoundedAdapter):
    """Count a response as success only if it comes from a collector that took all records."""

    @override
    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        response = super().send(request, *args, **options)
        if not 200 <= response.status_code < 400:
            return response
        if response.status_code >= 300:
            raise requests.RequestException("it answered with a redirect")
        try:
            answer = ExportLogsServiceResponse.FromString(response.content)
        except DecodeError:
            raise requests.RequestException("it did not answer as an OTLP collector does") from None
        rejected = answer.partial_success.rejected_log_records
        if rejected:
            raise requests.RequestException(f"it rejected {rejected} records")
        return response


class AuditExport:
    """Exports audit logs. `start` begins, `end` sends what is left for a moment."""

    def __init__(
        self,
        find: Callable[[], Iterable[Path]],
        name_of: Callable[[Path], str],
        environment: Mapping[str, str],
        limit: float | None,
    ) -> None:
        """`find` returns the audit logs, also of other processes; `name_of` returns a log's name for readers elsewhere.

        `limit`: seconds for which an entry may wait before changes are refused; None if they never are.
        """
        self._find = find
        self._name_of = name_of
        self._limit = limit
        self._exporter = OTLPLogExporter(session=session(_AcceptedAdapter))
        self._resource = Resource.create(resource_attributes(environment))
        self._scope = InstrumentationScope(SCOPE, __version__)
        self._outboxes: dict[Path, Outbox] = {}
        self._due: set[Path] = set()
        self._is_due = threading.Event()
        self._is_ending = threading.Event()
        self._failed: Path | None = None
        """The log that was not accepted last, until it is. Others are sent before it."""
        self._thread = threading.Thread(target=self._run, name="audit export", daemon=True)

    def outbox(self, path: Path) -> Outbox:
        """Return the outbox of a log, in this process the only one."""
        return self._outboxes.setdefault(path, Outbox(path, self._limit, self._added))

    def start(self) -> None:
        """Send what earlier processes left, then each entry after it was written."""
        self._thread.start()

    def end(self) -> None:
        """Send the remaining entries, for at most `SHUTDOWN_SECONDS`. What is left stays in the outbox."""
        self._is_ending.set()
        self._is_due.set()
        if self._thread.is_alive():
            self._thread.join(SHUTDOWN_SECONDS)
        self._exporter.shutdown()

    def send_all(self) -> bool:
        """Send what waits in all logs. False if something was not accepted."""
        return self._send({*self._find(), *self._outboxes})

    def _added(self, path: Path) -> None:
        self._due.add(path)
        self._is_due.set()

    def _run(self) -> None:
        pause = 0.0
        while not self._is_ending.is_set():
            self._is_due.clear()
            due = {self._due.pop() for _ in range(len(self._due))}
            if self._send(due) if due and not pause else self.send_all():
                pause = 0.0
                if self._is_due.wait(_SEARCH_SECONDS):
                    self._is_ending.wait(_GATHER_SECONDS)
            else:
                pause = min(max(2 * pause, _PAUSES[0]), _PAUSES[1])
                self._is_ending.wait(pause)
        self.send_all()

    def _send(self, paths: Iterable[Path]) -> bool:
        """Send what waits in these logs, until something is not accepted; then False."""
        for path in sorted(paths, key=lambda path: (path == self._failed, path)):
            try:
                is_accepted = self._send_log(self.outbox(path))
            except OSError as error:
                log.error("%s cannot be exported: %s", path, error.strerror or error)
                is_accepted = False
            if not is_accepted:
                if self._failed is None:
                    log.error("the collector does not accept %s: its entries are kept, and sent again", path)
                self._failed = path
                return False
            if path == self._failed:
                self._failed = None
                log.warning("the collector accepts %s again", path)
        return True

    def _send_log(self, outbox: Outbox) -> bool:
        """Send what waits in one log, unless another process does so now. False if it was not accepted."""
        name = self._name_of(outbox.path)
        with outbox.claimed() as is_ours:
            while is_ours and (entries := outbox.unsent(_BATCH)):
                outbox.sync()
                result = self._exporter.export([self._record(name, entry) for entry in entries])
                if result is not LogRecordExportResult.SUCCESS:
                    return False
                outbox.accepted(entries[-1])
        return True

    def _record(self, log_name: str, entry: Unsent) -> ReadableLogRecord:
        fields = parsed(entry.line) or {}
        nanoseconds = int(entry.time.timestamp() * 1000) * 1_000_000
        record = LogRecord(
            timestamp=nanoseconds,
            severity_number=SeverityNumber.INFO,
            body=entry.line.decode(errors="backslashreplace"),
            attributes={
                LOG: log_name,
                "fastn_mcp.audit.n": entry.end.n,
                "fastn_mcp.audit.hash": entry.end.head,
                "fastn_mcp.audit.previous": entry.before.head,
                "fastn_mcp.audit.event": str(fields.get("event")),
            },
            event_name=SCOPE,
        )
        trace = str(fields.get("trace"))
        if re.fullmatch("[0-9a-f]{32}", trace):
            record.trace_id = int(trace, 16)
        return ReadableLogRecord(record, self._resource, self._scope)
