"""What operators read: one line of JSON for each event, on stderr or in a file, whatever the event holds.

Never on stdout, which belongs to the protocol. Secrets that are known are hidden by their value, wherever they stand.
"""

import json
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from typing_extensions import override

from fastn_mcp.errors import SettingsError
from fastn_mcp.redaction import Redactor, redact_text

LEVELS = ("debug", "info", "warning", "error")

_LONGEST = 8_000
"""Characters of one text in a line."""

_HOLD_ANSWERS = ("sse_starlette", "mcp")
"""Libraries whose debug messages hold what a client sends or is answered: arguments, or a key that was just created."""


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
            "message": self.safe(record.getMessage()),
        }
        if record.exc_info:
            line["error"] = self.safe(self.formatException(record.exc_info))
        return json.dumps(line)

    def safe(self, text: str) -> str:
        """A text without secrets, and not too long."""
        text = redact_text(self._redactor.text(text))
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} [{len(text) - _LONGEST} more characters]"


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
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for library in _HOLD_ANSWERS:
        logging.getLogger(library).setLevel(max(root.level, logging.INFO))
    logging.captureWarnings(True)
    return lines
