"""TCP and TLS streams for httpcore2 on asyncio's own transports.

httpcore2's default backend uses anyio's streams. This one saves a ninth of the instructions of a whole `get_customer`
call (`make bench-check`): it adds no stream, timer or task switch to the event loop, as the client has one deadline for
the whole call. It can be removed once httpcore2 has a backend for asyncio.
"""

import asyncio
import socket
import ssl
from collections.abc import Iterable
from typing import Any, cast

import httpcore2
from aiohappyeyeballs import start_connection  # pyright: ignore[reportUnknownVariableType] - a bare tuple
from typing_extensions import override

_HEAD_START = 0.25
"""Seconds before the next address is tried too (RFC 8305), so that broken IPv6 does not use up the deadline."""


class AsyncioBackend(httpcore2.AsyncNetworkBackend):
    """Opens TCP connections on asyncio's transports."""

    @override
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
                sock = await start_connection(addresses, happy_eyeballs_delay=_HEAD_START, interleave=1, loop=loop)
                _, pipe = await loop.create_connection(_Pipe, sock=sock)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore2.ConnectError(str(error)) from error
        return _ConnectionStream(pipe)


_MAX_UNREAD_BYTES = 256 * 1024
"""Maximum number of unread bytes before reading from the socket is paused."""


class _Pipe(asyncio.Protocol):
    """Buffer of unread bytes, and whether more can be written."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.arrived = bytearray()
        self.ended = False
        self.error: Exception | None = None
        self.reader: asyncio.Future[None] | None = None
        self.writable = asyncio.Event()
        self.writable.set()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        self.arrived += data
        if len(self.arrived) > _MAX_UNREAD_BYTES:
            self.transport.pause_reading()
        self._wake()

    @override
    def eof_received(self) -> None:
        self.ended = True
        self._wake()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.ended, self.error = True, exc
        self.writable.set()
        self._wake()

    @override
    def pause_writing(self) -> None:
        self.writable.clear()

    @override
    def resume_writing(self) -> None:
        self.writable.set()

    def _wake(self) -> None:
        if self.reader is not None and not self.reader.done():
            self.reader.set_result(None)


class _ConnectionStream(httpcore2.AsyncNetworkStream):
    """One connection."""

    def __init__(self, pipe: _Pipe) -> None:
        self._pipe = pipe

    @override
    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return the buffered bytes, or else the next ones; empty at the end of the stream."""
        pipe = self._pipe
        if not pipe.arrived and not pipe.ended:
            pipe.reader = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout):
                    await pipe.reader
            except TimeoutError as error:
                raise httpcore2.ReadTimeout from error
        if pipe.error is not None and not pipe.arrived:
            raise httpcore2.ReadError(str(pipe.error)) from pipe.error
        data = bytes(pipe.arrived)
        pipe.arrived.clear()
        if len(data) > _MAX_UNREAD_BYTES:
            pipe.transport.resume_reading()
        return data

    @override
    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        pipe = self._pipe
        if pipe.error is not None:
            raise httpcore2.WriteError(str(pipe.error)) from pipe.error
        pipe.transport.write(buffer)
        if not pipe.writable.is_set():
            try:
                async with asyncio.timeout(timeout):
                    await pipe.writable.wait()
            except TimeoutError as error:
                raise httpcore2.WriteTimeout from error

    @override
    async def aclose(self) -> None:
        # Abort: closing TLS properly waits up to 30 s for the peer, and the loop may end before.
        self._pipe.transport.abort()

    @override
    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.AsyncNetworkStream:
        pipe, loop = self._pipe, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout):
                secured = await loop.start_tls(pipe.transport, pipe, ssl_context, server_hostname=server_hostname)
        except TimeoutError as error:
            pipe.transport.abort()
            raise httpcore2.ConnectTimeout from error
        except OSError as error:  # includes ssl.SSLError
            pipe.transport.abort()
            raise httpcore2.ConnectError(str(error)) from error
        if secured is None:
            raise httpcore2.ConnectError("it was closed")
        pipe.transport = secured
        return self

    @override
    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # of an idle connection: closed by the peer, or with unexpected data
            return self._pipe.ended or bool(self._pipe.arrived)
        return self._pipe.transport.get_extra_info(info)
