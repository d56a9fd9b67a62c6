"""HTTP/1.1 transport (`httpx2.AsyncBaseTransport`) on asyncio. No retries or redirects.

`ConnectError`, `ConnectTimeout` and `ProxyError` mean that nothing was sent. After any other `TransportError` the
request may have arrived. Bytes that follow a response close the connection: httpx2's own transport (httpcore2 2.16)
takes them for the response to the next request.

Gain over httpx2's own: a `get_customer` call takes 43 % fewer instructions (callgrind, as in `make bench-check`; both
with kept connections), as llhttp, the parser of Node.js, parses responses. Below a quarter it goes: delete this module,
and let `HttpExchange` use httpx2's as the tests do (tests/support/library_transport.py).
"""

import asyncio
import select
import socket
import ssl
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from typing import cast

import httpx2
from aiohappyeyeballs import start_connection  # pyright: ignore[reportUnknownVariableType] - a bare tuple
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from typing_extensions import override

from fastn_mcp.client.proxy_and_tls import tunnel_request

KEEP_ALIVE = 30.0
"""Seconds for which an idle connection is kept."""

_MAX_UNCOUNTED_BYTES = 100 * 1024
"""Maximum size of what has no declared length: the header, chunk extensions and trailers."""

_FRAMING = 32
"""Bytes around a chunk that are not counted for that: its size and line breaks."""

_MAX_UNREAD_BYTES = 1024 * 1024
"""Size of the unread part of a body from which on no more is received."""

_TUNNEL_SECONDS = 15.0
"""Timeout of a proxy's answer."""

_HEAD_START = 0.25
"""Seconds before the next address is tried too (RFC 8305), so that broken IPv6 does not use up the deadline."""

Origin = tuple[str, str, int]
"""Scheme, host and port."""


class HttpTransport(httpx2.AsyncBaseTransport):
    """Pool of connections, for one request at a time each. Of the idle ones, the one used last is taken first.

    `tls` is for https. `proxy` opens a tunnel for it by CONNECT.
    """

    def __init__(self, tls: ssl.SSLContext | None = None, proxy: httpx2.Proxy | None = None) -> None:
        self._tls = tls
        self._proxy = proxy
        self._idle = defaultdict[Origin, list["HttpConnection"]](list)

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        url = request.url
        origin = url.scheme, url.raw_host.decode(), url.port or (443 if url.scheme == "https" else 80)
        target: bytes = request.extensions.get("target") or url.raw_path
        head = [b"%b %b HTTP/1.1" % (request.method.encode(), target)]
        head += [b"%b: %b" % header for header in request.headers.raw]
        is_whole = isinstance(request.stream, httpx2.ByteStream)
        message = b"\r\n".join([*head, b"", request.read() if is_whole else await request.aread()])
        idle = self._idle[origin]
        connection = _reused(idle) or await self._connected(origin, request.extensions.get("timeout", {}))
        response = _Response(connection, idle, has_body=request.method != "HEAD")
        await connection.send(message, response)
        if idle and not idle[0].is_usable:
            idle.pop(0).close()
        return httpx2.Response(response.status, headers=response.headers, stream=response)

    async def _connected(self, origin: Origin, timeouts: dict[str, float | None]) -> "HttpConnection":
        seconds = timeouts.get("connect")
        scheme, host, port = origin
        is_tls = scheme == "https"
        try:
            if is_tls and self._proxy is not None:
                connection = await _tunnel(self._proxy, host, port, seconds)
            else:
                connection = await _connect(host, port, seconds)
            if is_tls and self._tls is not None:
                await connection.start_tls(self._tls, host, seconds)
        except TimeoutError as error:
            raise httpx2.ConnectTimeout("not connected in time") from error
        except (OSError, UnicodeError, httpx2.ReadError, httpx2.RemoteProtocolError) as error:
            raise httpx2.ConnectError("not connected") from error
        return connection

    @override
    async def aclose(self) -> None:
        for idle in self._idle.values():
            while idle:
                idle.pop().close()


def _reused(idle: list["HttpConnection"]) -> "HttpConnection | None":
    while idle:
        connection = idle.pop()
        if connection.is_usable and not connection.has_unread_input:
            return connection
        connection.close()
    return None


async def _connect(host: str, port: int, seconds: float | None) -> "HttpConnection":
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(seconds):
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        sock = await start_connection(addresses, happy_eyeballs_delay=_HEAD_START, interleave=1, loop=loop)
        return (await loop.create_connection(HttpConnection, sock=sock))[1]


async def _tunnel(proxy: httpx2.Proxy, host: str, port: int, seconds: float | None) -> "HttpConnection":
    connection = await _connect(proxy.url.raw_host.decode(), proxy.url.port or 80, seconds)
    response = _Response(connection, [], has_body=False)
    async with asyncio.timeout(_TUNNEL_SECONDS):
        await connection.send(tunnel_request(proxy, host, port), response)
    if not 200 <= response.status < 300:
        connection.close()
        raise httpx2.ProxyError(str(response.status))
    connection.response = None
    return connection


class HttpConnection(asyncio.Protocol):
    """A connection, for one request at a time."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.response: _Response | None = None
        self._is_open = True
        self._expires_at = 0.0

    async def start_tls(self, tls: ssl.SSLContext, host: str, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds):
                start = asyncio.get_running_loop().start_tls
                transport = await start(self.transport, self, tls, server_hostname=host)
            if transport is None or not self._is_open:
                raise ConnectionResetError
        except BaseException:
            self.close()
            raise
        self.transport = transport

    async def send(self, message: bytes, response: "_Response") -> None:
        """Send a request and receive the head of its response. Closes the connection if that fails."""
        if not self._is_open:
            raise httpx2.ConnectError("closed")
        self.response = response
        try:
            self.transport.write(message)
            await response.head
        except BaseException:
            self.close()  # a cancelled call must not leave it open and half read
            raise

    def keep(self, idle: list["HttpConnection"]) -> None:
        """Keep the connection for another request, unless a part of the last one was not sent yet.

        After an early response, that part would stand before the next request.
        """
        if self.transport.get_write_buffer_size():
            self.close()
            return
        self.response = None
        self._expires_at = asyncio.get_running_loop().time() + KEEP_ALIVE
        idle.append(self)

    @property
    def is_usable(self) -> bool:
        """Whether another request may be sent, unless something arrived since."""
        return self._is_open and asyncio.get_running_loop().time() < self._expires_at

    @property
    def has_unread_input(self) -> bool:
        """Whether bytes, or the end of the stream, arrived that the event loop has not read yet.

        Between two requests that is a response nobody asked for, which must not become the next one's.
        """
        sock = cast("socket.socket | None", self.transport.get_extra_info("socket"))
        return sock is None or _is_readable(sock.fileno())

    def close(self) -> None:
        # Closing TLS properly waits up to 30 s for the peer, and the loop may end before.
        self._is_open = False
        self.transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        if self.response is not None:
            self.response.feed(data)
        else:
            self.close()  # nothing was asked for

    @override
    def eof_received(self) -> None:
        self.connection_lost(None)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._is_open = False
        if self.response is not None:
            self.response.end(exc)


def _is_readable(descriptor: int) -> bool:
    if sys.platform == "win32":  # which has no poll; its select takes any number
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


class _Response(httpx2.AsyncByteStream):
    """What has arrived of a response; the stream of its body. httptools calls the methods that begin with `on_`."""

    def __init__(self, connection: HttpConnection, idle: list[HttpConnection], *, has_body: bool) -> None:
        self.head: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self._connection = connection
        self._idle = idle
        self._has_body = has_body
        self._parser = HttpResponseParser(self)
        self._uncounted = 0
        self._chunks: list[bytes] = []
        self._unread = 0
        self._is_complete = self._is_reusable = self._is_read = False
        self._error: httpx2.TransportError | None = None
        self._change: asyncio.Future[None] | None = None
        """Done at the next change, while the reader waits for one."""

    @override
    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._error is not None:
                raise self._error
            if self._is_complete:
                self._is_read = True
                raise StopAsyncIteration
            self._change = asyncio.get_running_loop().create_future()
            await self._change
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._unread = 0
        if len(data) > _MAX_UNREAD_BYTES:
            self._connection.transport.resume_reading()
        return data

    @override
    async def aclose(self) -> None:
        if self._connection.response is not self:
            return
        if self._is_read and self._is_reusable:
            self._connection.keep(self._idle)
        else:
            self._connection.close()

    def feed(self, data: bytes) -> None:
        """Parse what arrived."""
        self._uncounted += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self._end(httpx2.RemoteProtocolError("it is not HTTP"))
        if self._uncounted > _MAX_UNCOUNTED_BYTES:
            self._end(httpx2.RemoteProtocolError("its header is too long"))

    def end(self, cause: Exception | None) -> None:
        """End the response with its connection. Only an orderly end (without `cause`) ends a body without a length."""
        lengths = (b"content-length", b"transfer-encoding")
        if self.head.done() and cause is None and not any(name.lower() in lengths for name, _ in self.headers):
            self._is_complete = self._is_complete or self._error is None
        error = httpx2.ReadError("closed")
        error.__cause__ = cause
        self._end(error)

    def _end(self, error: httpx2.TransportError) -> None:
        self._is_reusable = False
        if not self.head.done():
            self.head.set_exception(error)
        elif not self._is_complete:
            self._error = self._error or error
        self._wake()

    def _wake(self) -> None:
        if self._change is not None and not self._change.done():
            self._change.set_result(None)

    def on_message_begin(self) -> None:
        self._is_reusable = False  # there is more than one response, or it follows an informational one

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.head.done():  # a trailer must not replace a header
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.head.done():
            return
        if status < 100:
            self._end(httpx2.RemoteProtocolError("it is not HTTP"))
        elif status < 200:
            self.headers = []
        else:
            self.status = status
            self._is_complete = not self._has_body
            self.head.set_result(None)

    def on_body(self, data: bytes) -> None:
        self._uncounted -= len(data)
        if self._is_complete or self._error is not None:
            return
        self._chunks.append(data)
        self._unread += len(data)
        if self._unread > _MAX_UNREAD_BYTES:
            self._connection.transport.pause_reading()
        self._wake()

    def on_chunk_header(self) -> None:
        self._uncounted = max(0, self._uncounted - _FRAMING)

    def on_message_complete(self) -> None:
        if self.status and not self._is_complete and self._error is None:
            self._is_reusable = self._parser.should_keep_alive()
            self._is_complete = True
            self._wake()
