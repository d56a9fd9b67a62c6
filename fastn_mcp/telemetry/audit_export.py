"""Export of audit logs as OTLP log records, at least once, by one thread of this process.

Each record has the exact line as its body, so that its hash can be computed wherever it is stored. What the collector
has not accepted stays in the outbox of its log (`audit.outbox`), and is sent after the next start at the latest.
"""

import logging
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import requests
from google.protobuf.message import DecodeError
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from typing_extensions import override

from fastn_mcp import __version__
from fastn_mcp.audit.files import parsed
from fastn_mcp.audit.outbox import Outbox, Unsent
from fastn_mcp.audit.remote import LOG, SCOPE
from fastn_mcp.telemetry.exporter import SHUTDOWN_SECONDS, BoundedAdapter, resource_attributes, session

log = logging.getLogger(__name__)

_BATCH = 200
"""Maximum number of records in a request. An entry has at most some 70 KB."""

_GATHER_SECONDS = 0.2
"""Time in which the entries of a call come together before they are sent."""

_SEARCH_SECONDS = 10.0
"""How often the folder is searched for entries of other processes and of accounts that are not open."""

_PAUSES = (1.0, 30.0)
"""Shortest and longest pause in seconds after a failure. It doubles each time."""


class _AcceptedAdapter(BoundedAdapter):
    """Count a response as success only if it is that of a collector which took all records."""

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
        if rejected := answer.partial_success.rejected_log_records:
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
        fields, nanoseconds = parsed(entry.line) or {}, int(entry.time.timestamp() * 1000) * 1_000_000
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
        if re.fullmatch("[0-9a-f]{32}", trace := str(fields.get("trace"))):
            record.trace_id = int(trace, 16)
        return ReadableLogRecord(record, self._resource, self._scope)
