"""A client without the SDK: JSON-RPC messages, and the pipes of a server in its own process."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from support.forkserver import forked

PATIENCE = 60.0
HTTP_HEADERS = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
"""Headers of every request over HTTP."""
META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "bytes", "version": "1"},
}


def message(id_: object, method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params}).encode()


def in_era(text: str | bytes, era: str) -> bytes:
    """Put what a protocol version adds to a request in place of META."""
    meta = f'"_meta":{json.dumps(META)},' if era == "2026-07-28" else ""
    return (text if isinstance(text, bytes) else text.encode()).replace(b"META", meta.encode())


def call(id_: object, tool: str = "list_customers", **arguments: Any) -> bytes:
    return message(id_, "tools/call", name=tool, arguments=arguments)


def search(value: str, id_: str = "7", name: str = '"search"') -> str:
    """Return a call with exactly this JSON in it, for `in_era`."""
    return (
        f'{{"jsonrpc":"2.0","id":{id_},"method":"tools/call",'
        f'"params":{{META"name":"list_customers","arguments":{{{name}:{value}}}}}}}'
    )


def introducing(version: str = "2025-11-25", name: str = "bytes") -> tuple[bytes, bytes]:
    """Return the handshake of a client of this name, by which versions before 2026-07-28 begin."""
    client = {"name": name, "version": "1"}
    hello = message("hello", "initialize", protocolVersion=version, capabilities={}, clientInfo=client)
    return hello, b'{"jsonrpc":"2.0","method":"notifications/initialized"}'


HELLO, READY = introducing()
PING = message("ping", "ping")


def checked(line: bytes) -> dict[str, Any]:
    """Parse a line of stdout, which must be a JSON-RPC message."""
    parsed = json.loads(line)
    assert parsed["jsonrpc"] == "2.0"
    assert ("method" in parsed) + ("result" in parsed) + ("error" in parsed) == 1
    return parsed


def answers_to(
    *lines: bytes, flags: Sequence[str] = (), env: dict[str, str]
) -> tuple[dict[Any, dict[str, Any]], "subprocess.CompletedProcess[bytes]"]:
    """Run a server as a fork with these lines as its whole input. Return its answers by their ids, and all it wrote."""
    done = subprocess.run(
        forked(*flags),
        input=b"".join(line + b"\n" for line in lines),
        env={**os.environ, **env},
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    )
    return {answer.get("id"): answer for answer in map(checked, done.stdout.splitlines())}, done


class Server:
    """A server whose pipes the test controls. A thread reads, so that no test blocks forever."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.process = process
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def listen(self) -> None:
        self._reader.start()

    def send(self, *lines: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"".join(line + b"\n" for line in lines))
        self.process.stdin.flush()

    def heard(self) -> dict[str, Any]:
        return checked(self._lines.get(timeout=PATIENCE))

    def rest(self) -> list[dict[str, Any]]:
        """Read to the end of its output."""
        return [checked(line) for line in iter(lambda: self._lines.get(timeout=PATIENCE), b"")]

    def asked(self, *lines: bytes) -> dict[str, Any]:
        self.send(*lines)
        return self.heard()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()


def ended(process: "subprocess.Popen[bytes]", within: float = PATIENCE) -> int:
    try:
        return process.wait(within)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"it has not ended within {within} seconds") from None


@contextmanager
def started(
    *flags: str,
    env: dict[str, str],
    command: Sequence[str] = (sys.executable, "-m", "fastn_mcp"),
    stdin: Any = subprocess.PIPE,
    stdout: Any = subprocess.PIPE,
    stderr: Any = None,
    own_terminal: bool = False,
) -> Generator["subprocess.Popen[bytes]"]:
    with subprocess.Popen(
        [*command, *flags],
        env={**os.environ, **env},
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        start_new_session=own_terminal,
    ) as process:
        try:
            yield process
        finally:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                with suppress(BrokenPipeError):
                    pipe.close() if pipe else None


@contextmanager
def serving(
    env: dict[str, str], *flags: str, command: Sequence[str] | None = None, stderr: Any = None
) -> Generator[Server]:
    """Run an initialized server of the legacy protocol, as a fork unless a command is named."""
    with started(*flags, env=env, command=command or forked(), stderr=stderr) as process:
        server = Server(process)
        server.listen()
        assert server.asked(HELLO, READY)["result"]["serverInfo"]["name"] == "fastn-mcp"
        yield server
