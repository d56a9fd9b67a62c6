"""HTTP/1.1 connections on asyncio's transports: opened directly or through a proxy, with one exchange at a time.

httptools parses the responses with llhttp, the parser of Node.js. httpcore2 parses them in Python, with a lock and five
traces for each request: a `get_customer` call takes 45 % more instructions with it (`make bench-check`). This
module can be removed once httpcore2 has a backend for asyncio and a compiled parser.
"""

import asyncio
import base64
import select
import socket
import ssl
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import cast

from aiohappyeyeballs import start_connection  # pyright: ignore[reportUnknownVariableType] - a bare tuple
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from typing_extensions import override

from fastn_mcp.client.account import Proxy
from fastn_mcp.config.addresses import url_host
from fastn_mcp.errors import os_reason

IDLE = 30.0
"""Seconds for which an idle connection is kept."""

MAX_BODY_BYTES = 10 * 1024 * 1024
"""Maximum size of an unpacked body in bytes. No more is read."""

_MAX_UNCOUNTED_BYTES = 100 * 1024
"""Maximum size of what has no declared length: the header, chunk extensions and trailers."""

_FRAMING = 32
"""Bytes around a chunk that are not counted for that: its size and line breaks."""

_CONNECT_SECONDS = 5.0
_TUNNEL_SECONDS = 15.0
"""Timeouts of a connection and of its TLS handshake, and of a proxy's answer."""

_HEAD_START = 0.25
"""Seconds before the next address is tried too (RFC 8305), so that broken IPv6 does not use up the deadline."""


class UnreadableBody(Enum):
    """Why a body cannot be used."""

    BROKEN = "it was cut off"
    TOO_LARGE = f"it is larger than {MAX_BODY_BYTES // 1024 // 1024} MiB"
    PACKED = "unexpected Content-Encoding"
    NO_JSON = "it is not JSON"
    UNFAMILIAR = "the response does not match the expected schema"


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, lower-cased headers, and the body or the reason why it cannot be used."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    unreadable: UnreadableBody | None = None


class ResponseLost(Exception):
    """The request may have arrived; no complete status was received."""


class RefusedByProxy(Exception):
    """The proxy opened no tunnel. The text is its status."""


class _ResponseParser:
    """What has arrived of a response. httptools calls the methods that begin with `on_`."""

    def __init__(self, *, is_tunnel: bool = False) -> None:
        """`is_tunnel`: of CONNECT, whose response ends with its headers."""
        self._parser = HttpResponseParser(self)
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.is_reusable = False
        self._is_tunnel = is_tunnel
        self._headers: dict[str, str] = {}
        self._uncounted = 0
        self._has_head = False
        self._body = bytearray()
        self._unpack = None

    def feed(self, data: bytes) -> None:
        """Parse what arrived. Afterwards `answer` is set if the response is complete or cannot be used."""
        self._uncounted += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade):
            self.end("it is not HTTP")
        if self._uncounted > _MAX_UNCOUNTED_BYTES:
            self.end("its header is too long")

    def end(self, problem: str | None) -> None:
        """End a response that is not complete: because of a problem, or else at the end of the stream."""
        self.is_reusable = False
        if self.answer.done():
            return
        if not self._has_head:
            self.answer.set_exception(ResponseLost(problem or "closed"))
        elif problem is None and not self._headers.keys() & {"content-length", "transfer-encoding"}:
            self._complete()  # the end of the stream ends its body
        else:
            self._set(UnreadableBody.BROKEN)

    def on_message_begin(self) -> None:
        self.is_reusable = False  # there is more than one response, or it follows an informational one

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # a trailer must not replace a header
            self._headers[name.decode("latin-1").lower()] = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.answer.done() or 100 <= status < 200:
            self._headers = {}
            return
        if status < 100:
            self.end("it is not HTTP")
            return
        self._has_head = True
        encoding = self._headers.get("content-encoding", "identity").lower()
        if self._is_tunnel:
            self._set(None)
        elif encoding in ("gzip", "deflate"):
            self._unpack = zlib.decompressobj(wbits=47)
        elif encoding not in ("identity", ""):
            self._set(UnreadableBody.PACKED)

    def on_body(self, data: bytes) -> None:
        self._uncounted -= len(data)
        if self.answer.done():
            return
        if self._unpack is not None and self._unpack.eof:
            self._set(UnreadableBody.BROKEN)
            return
        room = MAX_BODY_BYTES + 1 - len(self._body)
        self._body += self._unpack.decompress(data, room) if self._unpack else data
        if len(self._body) > MAX_BODY_BYTES:
            self._set(UnreadableBody.TOO_LARGE)

    def on_chunk_header(self) -> None:
        self._uncounted = max(0, self._uncounted - _FRAMING)

    def on_message_complete(self) -> None:
        if self._has_head and not self.answer.done():
            self.is_reusable = self._parser.should_keep_alive()
            self._complete()

    def _complete(self) -> None:
        is_cut = self._unpack is not None and not self._unpack.eof
        self._set(UnreadableBody.BROKEN if is_cut else None)

    def _set(self, unreadable: UnreadableBody | None) -> None:
        body = b"" if unreadable else bytes(self._body)
        self.answer.set_result(Answer(self._parser.get_status_code(), self._headers, body, unreadable))


class HttpConnection(asyncio.Protocol):
    """A connection, for one request at a time."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.is_open = True
        self._response: _ResponseParser | None = None
        self._expires_at = 0.0

    async def exchange(self, request: bytes, *, is_tunnel: bool = False) -> Answer:
        """Send a request and return its response. Raises `ResponseLost`.

        Closes the connection unless the next request may follow.
        """
        if not self.is_open:
            raise ResponseLost("closed")
        response = self._response = _ResponseParser(is_tunnel=is_tunnel)
        try:
            self.transport.write(request)
            answer = await response.answer
        except BaseException:
            self.close()  # a cancelled exchange must not leave it open and half read
            raise
        self._response = None
        # After an early response, the rest of its request must not stand before the next one.
        if response.is_reusable and not self.transport.get_write_buffer_size():
            self._expires_at = asyncio.get_running_loop().time() + IDLE
        elif not is_tunnel:
            self.close()
        return answer

    @property
    def is_idle(self) -> bool:
        """Whether another request may be sent, unless something arrived since."""
        return self.is_open and asyncio.get_running_loop().time() < self._expires_at

    @property
    def has_unread_input(self) -> bool:
        """Whether bytes, or the end of the stream, arrived that the event loop has not read yet.

        Between two requests that is a response nobody asked for, which must not become the next one's.
        """
        sock = cast("socket.socket | None", self.transport.get_extra_info("socket"))
        return sock is None or _is_readable(sock.fileno())

    def close(self) -> None:
        # Closing TLS properly waits up to 30 s for the peer, and the loop may end before.
        self.is_open = False
        self.transport.abort()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        if self._response is not None:
            self._response.feed(data)
        else:
            self.close()  # nothing was asked for

    @override
    def eof_received(self) -> None:
        self.connection_lost(None)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        if self._response is not None:
            self._response.end(exc and os_reason(exc))


def _is_readable(descriptor: int) -> bool:
    if sys.platform == "win32":  # which has no poll; its select takes any number
        return bool(select.select([descriptor], [], [], 0)[0])
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


async def connect(host: str, port: int, tls: ssl.SSLContext | None, proxy: Proxy | None) -> HttpConnection:
    """Open a connection, with TLS unless `tls` is None.

    Raises `OSError` (also `TimeoutError`, and `ssl.SSLError`), and `ResponseLost` or `RefusedByProxy` for a proxy.
    """
    connection = await _connected(host, port) if proxy is None else await _tunnel(proxy, host, port)
    if tls is None:
        return connection
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            transport = await loop.start_tls(connection.transport, connection, tls, server_hostname=host)
        if transport is None:
            raise ConnectionResetError
    except BaseException:
        connection.close()
        raise
    connection.transport = transport
    if not connection.is_open:
        raise ConnectionResetError
    return connection


async def _connected(host: str, port: int) -> HttpConnection:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(_CONNECT_SECONDS):
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        sock = await start_connection(addresses, happy_eyeballs_delay=_HEAD_START, interleave=1, loop=loop)
        return (await loop.create_connection(HttpConnection, sock=sock))[1]


async def _tunnel(proxy: Proxy, host: str, port: int) -> HttpConnection:
    connection = await _connected(proxy.host, proxy.port)
    target = f"{url_host(host)}:{port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.credentials is not None:
        lines.append(f"Proxy-Authorization: Basic {base64.b64encode(proxy.credentials.encode()).decode()}")
    async with asyncio.timeout(_TUNNEL_SECONDS):
        answer = await connection.exchange("\r\n".join([*lines, "", ""]).encode(), is_tunnel=True)
    if not 200 <= answer.status < 300:
        connection.close()
        raise RefusedByProxy(answer.status)
    return connection
