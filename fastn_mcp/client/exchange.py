"""One request, one answer. The only module that speaks HTTP to Fastn.

No redirects, no cookies, no retries: the transport is read directly, with a cap. Certificates and proxy are `way.py`'s.
"""

import ssl
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, cast

import httpx2
from pydantic_core import to_json

from fastn_mcp.client.way import Way, connecting
from fastn_mcp.operation import Request

CAP = 10 * 1024 * 1024
"""Bytes of a body, unpacked. More is not read."""

_CONNECT_SECONDS = 5.0


class Unsent(Exception):
    """No byte of the request can have left."""


class Lost(Exception):
    """The request may have arrived; no complete status came back."""


class Unreadable(Enum):
    """Why a body cannot be used."""

    BROKEN = "it broke off"
    TOO_LARGE = f"it is larger than {CAP // 1024 // 1024} MiB"
    PACKED = "it is packed in a way that was not asked for"
    NO_JSON = "it is not JSON"
    UNFAMILIAR = "its fields are not what they were thought to be"


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, lower-cased headers, and the body, or why there is none."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    unreadable: Unreadable | None = None


class Exchange(Protocol):
    """Sends one request."""

    async def __call__(self, request: Request) -> Answer: ...

    async def aclose(self) -> None: ...


class HttpExchange:
    """Over HTTP, with pooled connections that stay open for the life of the server."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        transport: httpx2.AsyncBaseTransport | None = None,
        way: Way | None = None,
    ) -> None:
        self._base = httpx2.URL(base_url)
        self._prefix = self._base.raw_path.rstrip(b"/")
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._transport = transport
        self._way = way or Way()

    async def __call__(self, request: Request) -> Answer:
        """Raises `Unsent` or `Lost`."""
        if self._transport is None:  # made for the first request: a start reads no certificates
            try:
                self._transport = connecting(str(self._base), self._way)
            except OSError as error:
                raise Unsent(f"the trusted certificates cannot be read: {type(error).__name__}") from error
        try:
            response = await self._transport.handle_async_request(self._built(request))
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError) as error:
            raise Unsent(_why(error)) from error
        except (httpx2.LocalProtocolError, httpx2.UnsupportedProtocol) as error:
            raise Unsent(type(error).__name__) from error
        except httpx2.TransportError as error:
            raise Lost(type(error).__name__) from error
        try:
            return await _read(response)
        finally:
            await response.aclose()

    def _built(self, request: Request) -> httpx2.Request:
        path = self._prefix + request.path.encode()
        if request.query:
            query = httpx2.QueryParams({name: _text(value) for name, value in request.query.items()})
            path += b"?" + str(query).encode()
        extra = [(name.encode(), value.encode()) for name, value in request.headers.items()]
        content = None
        if request.body is not None:
            content = to_json(request.body)
            extra.append((b"Content-Type", b"application/json"))
        named = {name.lower() for name, _ in extra}
        return httpx2.Request(
            request.method,
            self._base.copy_with(raw_path=path),
            # A call's own header, as the environment of a run, replaces the account's.
            headers=[pair for pair in self._headers if pair[0].lower() not in named] + extra,
            content=content,
            extensions={"timeout": {"connect": _CONNECT_SECONDS}},
        )

    async def aclose(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()


def _why(error: httpx2.TransportError) -> str:
    """In words, where there is something to do about it. What a proxy says is not ours: its status alone."""
    if isinstance(error, httpx2.ProxyError):
        return f"the proxy refused: {str(error)[:3]}"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted: {cause.verify_message}"
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__


async def _read(response: httpx2.Response) -> Answer:
    headers = {name.lower(): value for name, value in response.headers.items()}
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", "", "gzip", "deflate"):
        return Answer(response.status_code, headers, b"", Unreadable.PACKED)
    unpack = zlib.decompressobj(wbits=47) if encoding in ("gzip", "deflate") else None
    body = bytearray()
    try:
        async for chunk in cast(httpx2.AsyncByteStream, response.stream):
            body += unpack.decompress(chunk, CAP + 1 - len(body)) if unpack else chunk
            if len(body) > CAP:
                return Answer(response.status_code, headers, b"", Unreadable.TOO_LARGE)
    except (httpx2.TransportError, zlib.error):
        return Answer(response.status_code, headers, b"", Unreadable.BROKEN)
    if unpack is not None and not unpack.eof:
        return Answer(response.status_code, headers, b"", Unreadable.BROKEN)
    return Answer(response.status_code, headers, bytes(body))


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else to_json(value).decode()
