"""Lines of the server's log."""

import logging
import sys

from fastn_mcp.server.log import JsonLines, TerminalLines


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
