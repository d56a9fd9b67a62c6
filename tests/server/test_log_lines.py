"""The server's log as a person at a terminal sees it."""

import logging
import sys

from fastn_mcp.server.log import TerminalLines


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
