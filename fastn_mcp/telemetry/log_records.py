"""Log records for a collector.

The text of an exception can hold what Fastn or a client sent, and so can the messages of libraries: they stay in the
log of this process.
"""

import logging
import traceback

from opentelemetry._logs import LoggerProvider, LogRecord, SeverityNumber
from opentelemetry.context import get_current
from typing_extensions import override

from fastn_mcp import __version__
from fastn_mcp.server.log import JsonLines

_SEVERITY = (
    (logging.CRITICAL, SeverityNumber.FATAL),
    (logging.ERROR, SeverityNumber.ERROR),
    (logging.WARNING, SeverityNumber.WARN),
    (logging.INFO, SeverityNumber.INFO),
)
_EXPORTING = ("opentelemetry", "urllib3", "requests")
"""What those say who send the records would be sent by them in turn."""


class LogRecordHandler(logging.Handler):
    """Hands records on."""

    def __init__(self, provider: LoggerProvider, lines: JsonLines) -> None:
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
                    severity_number=_severity(record.levelno),
                    severity_text=record.levelname,
                    body=body,
                    attributes=_attributes(record),
                )
            )
        except Exception:
            self.handleError(record)


def _severity(level: int) -> SeverityNumber:
    return next((number for least, number in _SEVERITY if level >= least), SeverityNumber.DEBUG)


def _attributes(record: logging.LogRecord) -> dict[str, str | int]:
    found: dict[str, str | int] = {
        "logger.name": record.name,
        "code.function.name": record.funcName or "",
        "code.line.number": record.lineno,
    }
    if record.exc_info and record.exc_info[0] is not None:
        found["exception.type"] = record.exc_info[0].__qualname__
        found["exception.stacktrace"] = "".join(traceback.format_tb(record.exc_info[2]))
    return found
