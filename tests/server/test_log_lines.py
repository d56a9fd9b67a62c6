"""Lines of the server's log."""

import errno
import io
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from fastn_mcp.server.log import JsonLines, LogFile, TerminalLines


def test_text_of_an_error_cannot_pose_as_a_line_of_the_log() -> None:
    try:
        raise OSError("not found\nfastn-mcp info: all is well\x1b[2J")
    except OSError:
        record = logging.LogRecord(
            "fastn_mcp", logging.ERROR, "", 0, "it failed\nfastn-mcp info: x", None, sys.exc_info()
        )
    first, *rest = TerminalLines(()).format(record).splitlines()
    assert first == "fastn-mcp error: it failed\\u{a}fastn-mcp info: x"
    assert rest
    assert all(line.startswith("  ") and "\x1b" not in line for line in rest)


def test_secret_is_redacted_until_it_is_removed_as_often_as_it_was_added() -> None:
    """By its value: it looks like any other word."""
    log = JsonLines(["correct-horse"])
    record = logging.LogRecord("fastn_mcp", logging.INFO, "", 0, "They wrote correct-horse.", None, None)
    log.add_secrets("correct-horse")
    log.remove_secrets("correct-horse")
    assert "correct-horse" not in log.format(record)
    log.remove_secrets("correct-horse")
    assert "correct-horse" in log.format(record)


def test_full_disk_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class FullDisk(io.StringIO):
        @override
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    handler = LogFile(tmp_path / "server.log", encoding="utf-8")
    disk: Any = FullDisk()
    replaced = handler.setStream(disk)
    assert replaced is not None
    replaced.close()
    for number in range(3):
        handler.handle(logging.LogRecord("fastn_mcp", logging.INFO, __file__, 0, f"event {number}", None, None))
    handler.close()
    file = tmp_path / "server.log"
    assert capsys.readouterr().err == (
        f"fastn-mcp: The log file {file} cannot be written (No space left on device)."
        " Lines are missing in it from now on.\n"
    )
