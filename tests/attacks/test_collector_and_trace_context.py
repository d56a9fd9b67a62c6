"""Attacks by a telemetry collector on this process, and by a client on the collector. docs/observability.md."""

import resource
import socket
import threading
from contextlib import closing

import pytest

from fastn_mcp.extensions.telemetry.exporter import export
from fastn_mcp.extensions.telemetry.instruments import incoming
from fastn_mcp.server.log import JsonLines

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
CANARY = "kanarienvogel-41"


class Endless:
    """A collector on loopback that answers every request with an endless body, up to 512 MiB."""

    def __init__(self, head: bytes) -> None:
        self.sent = 0
        self._head = head
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(20)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        with connection:
            connection.settimeout(20)
            connection.recv(65_536)
            connection.sendall(self._head)
            piece = b"10000\r\n" + b"a" * 65_536 + b"\r\n"
            try:
                while self.sent < 512 * 1024**2:
                    connection.sendall(piece)
                    self.sent += len(piece)
            except OSError:
                return

    def close(self) -> None:
        self._listener.close()
        self.thread.join(20)


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
    ],
)
def test_endless_response_of_a_collector_is_not_read(monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    with closing(Endless(head)) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        instruments, end = export(["traces"], {}, JsonLines(()))
        with instruments.span("one", {}):
            pass
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        end()
        collector.thread.join(20)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    # The socket buffers of both sides are filled and never read.
    assert collector.sent < 64 * 1024**2
    assert grown < 64 * 1024


@pytest.mark.parametrize("name", ["tracestate", "baggage"])
def test_trace_state_of_a_client_does_not_reach_the_collector(name: str) -> None:
    """W3C Trace Context allows to drop `tracestate`, into which a client can write 512 characters of anything."""
    context = incoming({"traceparent": PARENT, name: f"vendor={CANARY}"})
    assert context is not None
    assert CANARY not in repr(context)
