"""Free ports for the servers of tests."""

import secrets
import socket
from contextlib import suppress


def free_port() -> int:
    """A port that is free, and below those that the system gives to connections that others open meanwhile."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)  # not `random`, which has the same seed in each worker
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
