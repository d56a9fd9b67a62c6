"""Servers as forks of one process that has imported `fastn_mcp`: a tenth of the time of a start.

The command that `forked` returns behaves as `python -m fastn_mcp`: a process of its own, with the arguments,
environment, folder, streams, signals and exit code of the command. To kill it, send SIGUSR1 to the command. Tests of
how a process starts, or answers a signal, start a real one.
"""

import atexit
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

from support import fork_command


def can_fork() -> bool:
    """Return whether there are forks: not on Windows, nor where processes are measured, which begins at a start."""
    return sys.platform != "win32" and "COVERAGE_PROCESS_CONFIG" not in os.environ


def forked(*arguments: str) -> list[str]:
    """Return the command that runs `fastn-mcp` with these arguments as a fork, or as a process where it cannot fork."""
    if not can_fork():
        return [sys.executable, "-m", "fastn_mcp", *arguments]
    return [sys.executable, "-I", "-S", fork_command.__file__, _started(), *arguments]


@cache
def _started() -> str:
    """Start the process that is forked, which ends with this one. Returns the path of its socket."""
    path = Path(tempfile.mkdtemp(prefix="fork-")) / "socket"
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    program = [sys.executable, "-c", f"from support import forkserver; forkserver.serve({str(path)!r})"]
    server = subprocess.Popen(program, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert server.stdout is not None
    assert server.stdout.read(1), "it has ended"
    atexit.register(_end, server)
    return str(path)


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End the process by the end of its standard input."""
    for pipe in (server.stdin, server.stdout):
        if pipe is not None:
            pipe.close()
    with suppress(subprocess.TimeoutExpired):
        server.wait(10)


_IMPORTED = (
    "anyio._backends._asyncio",
    "fastn_mcp.build.composition",
    "fastn_mcp.channels.page.app",
    "fastn_mcp.cli.approvals",
    "fastn_mcp.cli.call",
    "fastn_mcp.cli.serve",
    "fastn_mcp.server.http.app",
    "fastn_mcp.ledger.sqlite_store",
    "fastn_mcp.extensions.sandbox.server",
    "fastn_mcp.server.handlers",
    "fastn_mcp.server.stdio",
)
"""What most forks would import."""


def serve(path: str) -> None:
    """Fork for each connection, until the end of the standard input."""
    from fastn_mcp.cli.program import main
    from fastn_mcp.procedures.catalog import TOOLS
    from fastn_mcp.server.tool_list import input_schema

    for module in _IMPORTED:
        importlib.import_module(module)
    for tool in TOOLS:
        input_schema(tool)  # or each fork would build it
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        os.write(1, b".")
        while listener in select.select([0, listener], [], [])[0]:
            connection, _ = listener.accept()
            command, streams, _, _ = socket.recv_fds(connection, 1 << 16, 3)
            if not command.endswith(b"\n"):
                command += connection.makefile("rb").readline()
            if os.fork() == 0:
                listener.close()
                _become(streams, *json.loads(command))
                connection.sendall(os.getpid().to_bytes(4, "big"))
                try:
                    main()
                except SystemExit as ended:
                    connection.sendall(bytes([ended.code if isinstance(ended.code, int) else 1]))
                    raise
            for stream in streams:
                os.close(stream)
            connection.close()
    shutil.rmtree(Path(path).parent)
    os.killpg(0, signal.SIGTERM)


def _become(streams: list[int], arguments: list[str], env: dict[str, str], folder: str) -> None:
    """Take on the streams, arguments, environment and folder of a command."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    if os.isatty(0):  # it becomes the controlling one, as by a login
        import fcntl  # which Windows does not have
        import termios

        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.argv = ["fastn-mcp", *arguments]
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
