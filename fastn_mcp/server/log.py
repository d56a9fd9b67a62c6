"""Server log, on stderr or in a file, never on stdout, which carries the protocol: a JSON line per event, and text on
a terminal.

Known secrets are redacted by value everywhere. The text of an exception can contain data of a client or of Fastn, so it
is logged only for classes whose text is known to contain none. Others are logged by class and traceback.
"""

import json
import logging
import os
import sqlite3
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

from typing_extensions import override

from fastn_mcp.errors import SettingsError, os_reason
from fastn_mcp.redaction import Redactor, redact_text, sanitize, shorten

_MAX_TEXT = 8_000
"""Maximum characters of one text in a line."""

_DATA_FREE = ("fastn_mcp", "asyncio", "httpcore2.connection")
"""Loggers whose debug messages are known to contain no arguments, results or headers. Others start at info."""

_WITH_TEXT = (OSError, sqlite3.Error)
"""Exceptions of other packages whose text contains no data, only a file, an address or a table."""

_MAX_CAUSE_DEPTH = 4
_MAX_CAUSES = 4
"""Limits of logged causes of an exception: depth, and number at each level."""


class JsonLines(logging.Formatter):
    """Formatter of records as one line of ASCII JSON, which is safe on a terminal."""

    converter = time.gmtime

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S")
        self._counts = Counter[str]()
        self._redactor = Redactor(())
        self.add_secrets(*secrets)

    def add_secrets(self, *secrets: str) -> None:
        """Redact these secrets until each is forgotten as often as it was added."""
        self._update(Counter(secrets))

    def remove_secrets(self, *secrets: str) -> None:
        """Stop redacting secrets that are no longer used."""
        self._update(Counter({text: -1 for text in secrets if self._counts[text]}))

    def _update(self, change: Counter[str]) -> None:
        self._counts.update(change)
        self._counts += Counter()  # drops counts of zero
        self._redactor = Redactor(self._counts)

    @override
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.fields(record))

    def fields(self, record: logging.LogRecord) -> dict[str, str]:
        """Return time, level, logger, message and error of a record, without secrets."""
        line = {
            "time": f"{self.formatTime(record, self.datefmt)}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.safe(_message(record)),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = self.safe("\n".join(_describe(record.exc_info[1])))
        return line

    def safe(self, text: str) -> str:
        return shorten(redact_text(self._redactor.text(text)), _MAX_TEXT)


class TerminalLines(JsonLines):
    """Formatter of records as text for the person at a terminal: level and message, then the error."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        fields = self.fields(record)
        error = fields.get("error", "").splitlines()  # indented, so that no text in it looks like a line of ours
        lines = [f"fastn-mcp {fields['level']}: {fields['message']}", *(f"  {line}" for line in error)]
        return "\n".join(sanitize(line) for line in lines)


def _message(record: logging.LogRecord) -> str:
    """Return the message. In messages of other packages, the class of an exception replaces its text."""
    message = record.getMessage()
    if _is_of(record.name, ("fastn_mcp",)):
        return message
    values = record.args if isinstance(record.args, tuple) else ()
    for error in (*values, record.exc_info[1] if record.exc_info else None):
        if isinstance(error, BaseException) and not _has_harmless_text(error):
            for text in (repr(error), str(error)):
                message = message.replace(text, type(error).__qualname__) if text else message
    return message


def _describe(error: BaseException, depth: int = _MAX_CAUSE_DEPTH) -> Iterator[str]:
    """Yield the lines of a traceback, causes first."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    causes = [*([cause] if cause else []), *_members(error)]
    for each in causes[:_MAX_CAUSES] if depth else []:
        yield from _describe(each, depth - 1)
    yield from (line.rstrip() for line in traceback.format_tb(error.__traceback__))
    name = f"{type(error).__module__}.{type(error).__qualname__}"
    yield f"{name}: {error}" if _has_harmless_text(error) else name


def _members(error: BaseException) -> tuple[BaseException, ...]:
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).exceptions
    return ()


def _has_harmless_text(error: BaseException) -> bool:
    return isinstance(error, _WITH_TEXT) or _is_of(type(error).__module__, ("fastn_mcp",))


def _is_of(name: str, packages: Iterable[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


class LogFile(logging.FileHandler):
    """Log file. If it cannot be written, as on a full disk, stderr says so once, in one line."""

    _has_failed = False

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._has_failed:
            self._has_failed = True
            with suppress(OSError):
                sys.stderr.write(
                    f"fastn-mcp: The log file {sanitize(self.baseFilename)} cannot be written ({os_reason(error)})."
                    " Lines are missing in it from now on.\n"
                )
                sys.stderr.flush()

    @override
    def close(self) -> None:
        with suppress(OSError):
            super().close()


def _is_logged(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.INFO or _is_of(record.name, _DATA_FREE)


def begin(level: str, file: Path | None, secrets: Iterable[str]) -> JsonLines:
    """Start logging. Return the formatter, which takes further secrets. Raises `SettingsError` for the file."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
            handler = LogFile(file, encoding="utf-8")
        except OSError as error:
            raise SettingsError(f"The log file {file} cannot be written ({type(error).__name__}).") from None
    lines = TerminalLines(secrets) if file is None and sys.stderr.isatty() else JsonLines(secrets)
    handler.setFormatter(lines)
    handler.addFilter(_is_logged)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    return lines


def announce(text: str) -> None:
    """Announce that the server listens, at any log level: text on a terminal, else a log event on stderr.

    With a log file, write the text to stderr and the event to the file.
    """
    handler = logging.getLogger().handlers[0]
    to_file = isinstance(handler, logging.FileHandler)
    if to_file or sys.stderr.isatty():
        sys.stderr.write(f"fastn-mcp: {text}\n")
        sys.stderr.flush()
    if to_file or not sys.stderr.isatty():
        handler.handle(logging.LogRecord("fastn_mcp", logging.INFO, __file__, 0, text, None, None))
