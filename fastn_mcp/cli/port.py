"""Whether a port can be listened at, asked before anything else is begun."""

import errno
import os
import socket

from fastn_mcp.errors import SettingsError


def must_be_free(host: str, port: int, instead: str) -> None:
    """Raises `SettingsError`, with what to write `instead`, where another program has it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has just ended is no hindrance
        try:
            probe.bind((host, port))
        except OSError as error:
            why = (
                "another program listens there"
                if error.errno == errno.EADDRINUSE
                else error.strerror or "no such address"
            )
            raise SettingsError(f"Nothing can be served at {host}:{port}: {why}.", instead) from None
