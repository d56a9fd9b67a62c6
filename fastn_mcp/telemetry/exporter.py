"""Export by OTLP over HTTP, configured by OpenTelemetry's own variables.

A slow or missing collector delays no call: data waits in bounded queues with their own threads, and is dropped when
they are full. At the end of the process, export may take `SHUTDOWN_SECONDS`. At most `_MAX_BODY_BYTES` of a response
are read, within `_MAX_BODY_SECONDS`.
"""

import io
import logging
import threading
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from typing import Any

import requests
from opentelemetry._logs import LoggerProvider as AnyLoggerProvider
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import get_current
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import NoOpTracerProvider
from requests.adapters import HTTPAdapter
from typing_extensions import override

from fastn_mcp import __version__
from fastn_mcp.server.log import JsonLines
from fastn_mcp.telemetry.instruments import Instruments

SHUTDOWN_SECONDS = 2.0
"""Seconds for which shutdown waits for a collector."""

_MAX_BODY_BYTES = 65_536
_MAX_BODY_SECONDS = 5.0


class BoundedAdapter(HTTPAdapter):
    """Read the beginning of a body, so that the connection is reusable, and close it if there is more."""

    @override
    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        response = super().send(request, *args, **{**options, "stream": True})
        body, until = b"", time.monotonic() + _MAX_BODY_SECONDS
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
    tracers, meters = NoOpTracerProvider(), NoOpMeterProvider()
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
            body = f"A message of {record.name}: it stands in the log of this process."
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
