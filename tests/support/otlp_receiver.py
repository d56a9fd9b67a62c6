"""A collector: OTLP over HTTP on loopback, which keeps what it is sent.

As a program (`python otlp_receiver.py PORT FILE`) it also stores it, before it answers, as the file exporter of the
OpenTelemetry Collector does.
"""

import gzip
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToJson
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_KINDS: dict[str, Any] = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}
_ANSWERS = {
    "page": b"<html>Welcome</html>",
    "rejected": ExportLogsServiceResponse(
        partial_success=ExportLogsPartialSuccess(rejected_log_records=1)
    ).SerializeToString(),
}


class Receiver:
    """Listens from now on, until `close`."""

    def __init__(self, port: int = 0, file: Path | None = None) -> None:
        self.requests: list[Any] = []
        self.faults: list[str] = []
        """What happens to the next requests: a status, `lost` (kept, no answer), `redirect`, `page` or `rejected`."""
        receiver = self
        stored = None if file is None else os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = self.rfile.read(length)
                if len(body) < length:  # the sender was killed
                    self.close_connection = True
                    return
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                fault = receiver.faults.pop(0) if receiver.faults else "200"
                if fault in ("200", "lost"):
                    sent = _KINDS[self.path].FromString(body)
                    receiver.requests.append(sent)
                    if stored is not None:
                        os.write(stored, MessageToJson(sent, indent=None).encode() + b"\n")
                if fault == "lost":
                    self.close_connection = True
                    return
                answer = _ANSWERS.get(fault, b"")
                self.send_response({"redirect": 302, "page": 200, "rejected": 200}.get(fault) or int(fault))
                self.send_header("Location", "/")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - likewise
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self._of(ExportTraceServiceRequest)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def metrics(self) -> set[str]:
        return {
            metric.name
            for request in self._of(ExportMetricsServiceRequest)
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    @property
    def records(self) -> list[LogRecord]:
        return [
            record
            for request in self._of(ExportLogsServiceRequest)
            for resource in request.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]

    @property
    def services(self) -> set[str]:
        """How those who sent something name themselves."""
        names: set[str] = set()
        for request in self.requests:
            for name in ("resource_spans", "resource_metrics", "resource_logs"):
                for one in getattr(request, name, ()):
                    names.add(values(one.resource.attributes)["service.name"])
        return names

    def everything(self) -> str:
        """All that was sent, as text."""
        return "\n".join(MessageToJson(request) for request in self.requests)

    def _of(self, kind: type[Any]) -> list[Any]:
        return [request for request in self.requests if isinstance(request, kind)]


def values(attributes: Any) -> dict[str, Any]:
    """Attributes as they are meant."""
    pairs: list[KeyValue] = list(attributes)
    return {pair.key: getattr(pair.value, str(pair.value.WhichOneof("value"))) for pair in pairs}


if __name__ == "__main__":
    Receiver(int(sys.argv[1]), Path(sys.argv[2]))
