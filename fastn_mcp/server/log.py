"""The server's log: one JSON line for each event, on stderr or in a file.

Never on stdout, which belongs to the protocol. Secrets that are known are hidden by their value, wherever they stand.
The text of an exception can hold what a client or Fastn sent, so only classes that are known to hold no such data are
logged with their text; of all others the log has the class and where they were raised.
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
from pathlib import Path
from typing import cast

from typing_extensions import override

from fastn_mcp.errors import SettingsError
from fastn_mcp.redaction import Redactor, redact_text, shorten

LEVELS = ("debug", "info", "warning", "error")

_LONGEST = 8_000
"""Characters of one text in a line."""

_HARMLESS = ("fastn_mcp", "asyncio", "httpcore2.connection")
"""Loggers whose debug messages are known to hold no data: neither arguments, results nor headers. All other loggers
start at info."""

_WITH_TEXT = (OSError, sqlite3.Error)
"""Exceptions of other packages whose text names a file, an address or a table, and no data."""

_DEEPEST = 4
_WIDEST = 4
"""Causes of an exception that are logged: how far back, and how many of a group."""


class JsonLines(logging.Formatter):
    """A record as one line of JSON, in ASCII: what a terminal cannot misread."""

    converter = time.gmtime

    def __init__(self, secrets: Iterable[str]) -> None:
        super().__init__(datefmt="%Y-%m-%dT%H:%M:%S")
        self._held = Counter[str]()
        self._redactor = Redactor(())
        self.hide(*secrets)

    def hide(self, *secrets: str) -> None:
        """Hide these from now on, until each is forgotten as often."""
        self._hold(Counter(secrets))

    def forget(self, *secrets: str) -> None:
        """They are used no more."""
        self._hold(Counter({text: -1 for text in secrets if self._held[text]}))

    def _hold(self, change: Counter[str]) -> None:
        self._held.update(change)
        self._held += Counter()  # drops what is held no more
        self._redactor = Redactor(self._held)

    @override
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": f"{self.formatTime(record, self.datefmt)}.{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.safe(_message(record)),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = self.safe("\n".join(_described(record.exc_info[1])))
        return json.dumps(line)

    def safe(self, text: str) -> str:
        """A text without secrets, and not too long."""
        return shorten(redact_text(self._redactor.text(text)), _LONGEST)


def _message(record: logging.LogRecord) -> str:
    """The message; where another package has put an exception's text into it, that text is its class instead."""
    message = record.getMessage()
    if _is_of(record.name, ("fastn_mcp",)):
        return message
    values = record.args if isinstance(record.args, tuple) else ()
    for error in (*values, record.exc_info[1] if record.exc_info else None):
        if isinstance(error, BaseException) and not _has_harmless_text(error):
            for text in (repr(error), str(error)):
                message = message.replace(text, type(error).__qualname__) if text else message
    return message


def _described(error: BaseException, depth: int = _DEEPEST) -> Iterator[str]:
    """Lines of a traceback, causes first."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    causes = [*([cause] if cause else []), *_members(error)]
    for each in causes[:_WIDEST] if depth else []:
        yield from _described(each, depth - 1)
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


def _is_logged(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.INFO or _is_of(record.name, _HARMLESS)


def begin(level: str, file: Path | None, secrets: Iterable[str]) -> JsonLines:
    """Log from now on; what is returned hides secrets that come later. Raises `SettingsError` for the file."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600))
            handler = logging.FileHandler(file, encoding="utf-8")
        except OSError as error:
            raise SettingsError(f"The log file {file} cannot be written ({type(error).__name__}).") from None
    lines = JsonLines(secrets)
    handler.setFormatter(lines)
    handler.addFilter(_is_logged)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)
    return lines


def announce(text: str) -> None:
    """Write to stderr once the server listens, whatever the level: as an event, or as text at a terminal.

    Where the log goes to a file, it is an event there as well.
    """
    handler = logging.getLogger().handlers[0]
    to_file = isinstance(handler, logging.FileHandler)
    if to_file or sys.stderr.isatty():
        sys.stderr.write(f"fastn-mcp: {text}\n")
        sys.stderr.flush()
    if to_file or not sys.stderr.isatty():
        handler.handle(logging.LogRecord("fastn_mcp", logging.INFO, __file__, 0, text, None, None))
