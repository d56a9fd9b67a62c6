"""Export by OTLP over HTTP, configured by OpenTelemetry's own variables.

A collector that is slow or away costs no call anything: what is to be sent waits in bounded queues, in threads of its
own, and is dropped when they are full. At the end it has two seconds. Of its responses only the head is used; of a body
at most `_BODY` bytes are read, in at most `_BODY_SECONDS`.
"""

import io
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import requests
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
from fastn_mcp.telemetry.log_records import LogRecordHandler

SECONDS = 2.0
"""How long the end waits for a collector."""

_BODY = 65_536
_BODY_SECONDS = 5.0


class _BoundedAdapter(HTTPAdapter):
    """Reads the beginning of a body, so that the connection can be used again, and closes it if there is more."""

    @override
    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        response = super().send(request, *args, **{**options, "stream": True})
        body, until = b"", time.monotonic() + _BODY_SECONDS
        try:
            while piece := response.raw.read1(_BODY - len(body)):
                body += piece
                if len(body) >= _BODY or time.monotonic() > until:
                    response.raw.close()
                    break
        except Exception:  # the status has arrived: it says whether the data was taken
            response.raw.close()
        response.raw.release_conn()
        response.raw = io.BytesIO(body)
        return response


def _session() -> requests.Session:
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _BoundedAdapter())
    return session


class Export:
    """What is sent, from now on, of `traces`, `metrics` and `logs`."""

    def __init__(self, of: Collection[str], environment: Mapping[str, str], lines: JsonLines) -> None:
        resource = Resource.create(_own(environment))
        self._endings: list[Callable[[], object]] = []
        tracers, meters = NoOpTracerProvider(), NoOpMeterProvider()
        # Nowhere registered as the process's own: what libraries would say holds more than we tell.
        if "traces" in of:
            tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
            tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(session=_session())))
            self._endings.append(tracers.shutdown)
        if "metrics" in of:
            reader = PeriodicExportingMetricReader(OTLPMetricExporter(session=_session()))
            meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
            self._endings.append(meters.shutdown)
        self.signals = Instruments(tracers, meters)
        self.records: LogRecordHandler | None = None
        if "logs" in of:
            loggers = LoggerProvider(resource=resource, shutdown_on_exit=False)
            loggers.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter(session=_session())))
            self._endings.append(loggers.shutdown)
            self.records = LogRecordHandler(loggers, lines)

    def end(self) -> None:
        """Send what is left, for as long as that may take."""
        until = time.monotonic() + SECONDS
        threads = [threading.Thread(target=ending, daemon=True) for ending in self._endings]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))


def _own(environment: Mapping[str, str]) -> dict[str, str]:
    """What we say of this process where the operator does not."""
    named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return {"service.version": __version__} | ({} if named else {"service.name": "fastn-mcp"})
