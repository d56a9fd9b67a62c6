"""Free ports for the servers of tests, and programs that listen at them."""

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any


def free_port() -> int:
    """A port that is free, and below those that the system gives to connections that others open meanwhile."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)  # not `random`, which has the same seed in each worker
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.bind(("127.0.0.1", port))
        return True
    return False


def listening(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Wait until the process listens at this port."""
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("it does not listen")


@contextmanager
def running_program(
    command: Sequence[str], port: int, env: Mapping[str, str] | None = None, stderr: Any = None
) -> Generator["subprocess.Popen[bytes]"]:
    """Run a program, with these variables besides those of this process; yields once it listens at this port."""
    variables = {**os.environ, **(env or {})}
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=stderr) as process:
        try:
            listening(port, process)
            yield process
        finally:
            process.terminate()
            process.wait(15)
