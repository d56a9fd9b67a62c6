"""One HTTP request and its response: connections, body limits, envelopes and field names.

There are no redirects, cookies or retries here, and the size of a body is limited.

httpcore2 opens and drives the connections, with proxies and TLS. Its own pool scans all of them twice per request, so
that the cost of a call grows with their number. `Connections` takes the one used last, in constant time. The client
limits how many requests are in flight.

Fastn was seen to wrap one resource as {data}, {data: {data}} or not at all. Lists keep the fields around their rows.
"""

import zlib
from collections.abc import AsyncIterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol, cast
from urllib.parse import urlencode, urlsplit

import anyio
import httpcore2
from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.client.account import TransportOptions, proxy_of, tls_context
from fastn_mcp.client.error_mapping import CHECK_CA_FILE, unreachable
from fastn_mcp.client.transport import AsyncioBackend
from fastn_mcp.fastn.targets import Call
from fastn_mcp.tools.operation import Request
from fastn_mcp.tools.paging import List, rows_of

IDLE = 30.0
"""Seconds for which an idle connection is kept."""


class Connections:
    """Connections to one origin. Certificates are loaded with the first one, not at startup."""

    def __init__(self, origin: httpcore2.Origin, options: TransportOptions) -> None:
        self._origin = origin
        self._options = options
        self._factory: httpcore2.AsyncConnectionPool | None = None
        self._idle: list[httpcore2.AsyncConnectionInterface] = []

    async def take(self) -> httpcore2.AsyncConnectionInterface:
        """Return a connection that is not in use. Raises `OSError` if the trusted certificates cannot be read."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.has_expired():
                return connection
            await connection.aclose()
        self._factory = self._factory or self._new_factory()
        return self._factory.create_connection(self._origin)

    def _new_factory(self) -> httpcore2.AsyncConnectionPool:
        """Return a pool that only creates connections, and holds none."""
        if self._origin.scheme != b"https":
            # Plain http is for this machine: it needs no certificates, and a proxy would see the key.
            return httpcore2.AsyncConnectionPool(keepalive_expiry=IDLE, network_backend=AsyncioBackend())
        tls = tls_context(self._options)
        if self._options.proxy is None:
            return httpcore2.AsyncConnectionPool(tls, keepalive_expiry=IDLE, network_backend=AsyncioBackend())
        url, auth = proxy_of(self._options.proxy)
        return httpcore2.AsyncHTTPProxy(url, auth, None, tls, keepalive_expiry=IDLE, network_backend=AsyncioBackend())

    async def give_back(self, connection: httpcore2.AsyncConnectionInterface) -> None:
        """Keep a connection with a closed response if it is reusable. Closes the oldest idle one if it has expired."""
        if connection.is_idle():
            self._idle.append(connection)
        if self._idle and self._idle[0].has_expired():
            await self._idle.pop(0).aclose()

    async def aclose(self) -> None:
        while self._idle:
            await self._idle.pop().aclose()


MAX_BODY_BYTES = 10 * 1024 * 1024
"""Maximum size of an unpacked body in bytes. No more is read."""

_CONNECT_SECONDS = 5.0


class NotSentError(Exception):
    """No byte of the request was sent. `next_step` tells what to do, if that is known."""

    def __init__(self, reason: str, next_step: str = "") -> None:
        super().__init__(reason)
        self.next_step = next_step


class ResponseLost(Exception):
    """The request may have arrived; no complete status was received."""


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


class Exchange(Protocol):
    """Sends one request."""

    async def __call__(self, request: Request) -> Answer: ...

    async def aclose(self) -> None: ...


class HttpExchange:
    """An exchange over HTTP/1.1 with persistent connections."""

    def __init__(self, base_url: str, headers: Mapping[str, str], options: TransportOptions | None = None) -> None:
        base = httpcore2.URL(base_url)
        self._scheme, self._host, self._port = base.scheme, base.host, base.port
        self._prefix = base.target.rstrip(b"/")
        self._headers = [(b"Host", urlsplit(base_url).netloc.encode()), *_encoded(headers)]
        self._options = options or TransportOptions()
        self._connections = Connections(base.origin, self._options)

    async def __call__(self, request: Request) -> Answer:
        """Send the request. Raises `NotSentError` or `ResponseLost`."""
        try:
            connection = await self._connections.take()
        except OSError as error:
            raise NotSentError(
                f"the trusted certificates cannot be read: {type(error).__name__}", CHECK_CA_FILE
            ) from error
        try:
            response = await connection.handle_async_request(self._built(request))
        except _NOT_SENT as error:
            with anyio.CancelScope(shield=True):
                await connection.aclose()  # behind a proxy it may be open already
            proxied = self._scheme == b"https" and self._options.proxy is not None
            raise NotSentError(*unreachable(error, self._options if proxied else None)) from error
        except _BROKEN as error:
            raise ResponseLost(type(error).__name__) from error
        try:
            answer = await _read(response)
            await response.aclose()
            await self._connections.give_back(connection)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await connection.aclose()  # a cancelled read must not leave it open and half read
            raise
        return answer

    def _built(self, request: Request) -> httpcore2.Request:
        target = self._prefix + request.path.encode()
        if request.query:
            query = {name: _text(value) for name, value in request.query.items()}
            target += b"?" + urlencode(query).encode()
        own = _encoded(request.headers)
        content = None
        if request.body is not None:
            content = to_json(request.body)
            own.append((b"Content-Type", b"application/json"))
        if request.method != "GET":
            own.append((b"Content-Length", str(len(content or b"")).encode()))
        overridden = {name.lower() for name, _ in own}
        return httpcore2.Request(
            request.method,
            httpcore2.URL(scheme=self._scheme, host=self._host, port=self._port, target=target),
            # A call's own header, such as the environment of a run, replaces the account's.
            headers=[pair for pair in self._headers if pair[0].lower() not in overridden] + own,
            content=content,
            extensions={"timeout": {"connect": _CONNECT_SECONDS}},
        )

    async def aclose(self) -> None:
        await self._connections.aclose()


_NOT_SENT = (
    httpcore2.ConnectError,
    httpcore2.ConnectTimeout,
    httpcore2.ProxyError,
    httpcore2.LocalProtocolError,
    httpcore2.UnsupportedProtocol,
)
_BROKEN = (httpcore2.NetworkError, httpcore2.TimeoutException, httpcore2.ProtocolError)


def _encoded(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode()) for name, value in headers.items()]


async def _read(response: httpcore2.Response) -> Answer:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "deflate"):
        return Answer(response.status, headers, b"", UnreadableBody.PACKED)
    unpack = zlib.decompressobj(wbits=47) if encoding in ("gzip", "deflate") else None
    body = bytearray()
    try:
        async for chunk in cast("AsyncIterable[bytes]", response.stream):
            body += unpack.decompress(chunk, MAX_BODY_BYTES + 1 - len(body)) if unpack else chunk
            if len(body) > MAX_BODY_BYTES:
                return Answer(response.status, headers, b"", UnreadableBody.TOO_LARGE)
    except (*_BROKEN, zlib.error):
        return Answer(response.status, headers, b"", UnreadableBody.BROKEN)
    if unpack is not None and not unpack.eof:
        return Answer(response.status, headers, b"", UnreadableBody.BROKEN)
    return Answer(response.status, headers, bytes(body))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else to_json(value).decode()


_WRAPPERS = ("data", "result", "results", "item", "items")


def unwrap(body: JsonValue) -> JsonValue:
    """Return the resource or the list inside the envelopes."""
    for _ in range(3):
        if not isinstance(body, dict) or "id" in body:
            return body
        inner = next((body[name] for name in _WRAPPERS if isinstance(body.get(name), dict)), None)
        if inner is None:
            return body
        body = inner
    return body


Names = Mapping[str, str]
"""Our field names, and those of the account."""


def to_wire(request: Request, names: Names) -> Request:
    """Return the request with the account's field names in its body."""
    if request.body is None:
        return request
    body = {name: value for name, value in request.body.items() if name not in names}
    return replace(request, body=body | {names[name]: request.body[name] for name in names if name in request.body})


def from_wire(call: Call, body: JsonValue, names: Names) -> None:
    """Add our field names to each row, beside the account's."""
    rows = rows_of(body)[0] if isinstance(call, List) else [body] if isinstance(body, dict) else []
    for row in rows:
        for our, their in names.items():
            if our not in row and their in row:
                row[our] = row[their]
