"""One request to Fastn and its answer, by the types of httpx2. No redirects, cookies or retries.

Fastn's pages disagree on the headers: the specification names x-fastn-api-key, newer documentation a bearer token, and
older pages require a space and a tenant as well. Each is therefore a setting, and so are names of fields.

`HttpTransport` sends the request. `httpx2.AsyncClient` is not used: it keeps cookies, logs
addresses, and unpacks bodies without a limit.
"""

import re
import ssl
import zlib
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import islice
from typing import Protocol, cast
from urllib.parse import urlencode, urlsplit

import httpx2
from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp import __version__
from fastn_mcp.client.error_mapping import CHECK_CA_FILE, lost_reason, unreachable
from fastn_mcp.client.proxy_and_tls import TransportOptions, proxy_of, tls_context
from fastn_mcp.client.transport import HttpTransport
from fastn_mcp.config.model import Settings
from fastn_mcp.tools.operation import Call, Request
from fastn_mcp.tools.paging import List, rows_of

MAX_BODY_BYTES = 10 * 1024 * 1024
"""Maximum size of an unpacked body in bytes. No more is read."""

MAX_VALUES = 250_000
"""Maximum number of values in a body. Parsing more would hold up every thread for longer than 50 ms."""

_STRUCTURE = re.compile(rb'"(?:[^"\\]++|\\.)*+"|([,\[{])', re.DOTALL)
"""A string of JSON, which is passed, or a character that begins a value."""

_TIMEOUTS = {"connect": 5.0}
"""Timeout in seconds of a connection, and of its TLS handshake. The deadline of the call limits everything else."""

_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError, httpx2.PoolTimeout)
"""Errors of a transport after which nothing was sent. After any other, the request may have arrived."""

_TARGET = re.compile(r"[\x21-\x7e]+")
_VALUES = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")

CHECK_ADDRESS = "Check FASTN_BASE_URL: it may name a website, such as the dashboard."
"""Next step where the body of a response is not Fastn's."""


class UnreadableBody(Enum):
    """Why a body cannot be used."""

    BROKEN = "it was cut off"
    TOO_LARGE = f"it is larger than {MAX_BODY_BYTES // 1024 // 1024} MiB"
    TOO_MANY = f"it has more than {MAX_VALUES:,} values"
    PACKED = "unexpected Content-Encoding"
    NO_JSON = "it is not valid JSON"
    FOREIGN = "it is not JSON at all, so it may be from a proxy or a sign-in page"
    UNFAMILIAR = "the response does not match the expected schema"


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, lower-cased headers, and the body or the reason why it cannot be used."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    unreadable: UnreadableBody | None = None

    @property
    def is_foreign(self) -> bool:
        """Whether the body is not even the beginning of a JSON object or array, such as a web page."""
        return not self.body.lstrip().startswith((b"{", b"["))


def has_too_many_values(body: bytes) -> bool:
    """Return whether a JSON body has more than `MAX_VALUES` values."""
    if len(body) <= MAX_VALUES or sum(map(body.count, (b",", b"[", b"{"))) <= MAX_VALUES:
        return False
    begun = (1 for found in _STRUCTURE.finditer(body) if found.lastindex)
    return next(islice(begun, MAX_VALUES, None), None) is not None


class NotSentError(Exception):
    """No byte of the request was sent. `next_step` tells what to do, if that is known."""

    def __init__(self, reason: str, next_step: str = "") -> None:
        super().__init__(reason)
        self.next_step = next_step


class ResponseLost(Exception):
    """The request may have arrived; no complete status was received."""


def headers(settings: Settings) -> dict[str, str]:
    """Return the headers of every request."""
    key = settings.api_key
    sent = {
        "Accept": "application/json",
        "Accept-Encoding": "identity",  # so that the body limit applies to the unpacked size
        "User-Agent": f"fastn-mcp/{__version__}",
    }
    sent |= {"Authorization": f"Bearer {key}"} if settings.auth == "bearer" else {"x-fastn-api-key": key}
    if settings.test_mode == "on" or (settings.test_mode == "auto" and settings.key_kind == "test"):
        sent["X-fastn-Test-Mode"] = "true"
    optional = {
        "x-fastn-space-id": settings.space_id,
        "x-fastn-space-tenantid": settings.tenant_id,
        "x-end-org-id": settings.end_org_id,
        "x-fastn-env": settings.env,
    }
    return sent | {name: value for name, value in optional.items() if value}


def to_wire(request: Request, names: Mapping[str, str]) -> Request:
    """Return the request with the account's field names in its body. `names` are ours, each with the account's."""
    if request.body is None:
        return request
    body = {name: value for name, value in request.body.items() if name not in names}
    return replace(request, body=body | {names[name]: request.body[name] for name in names if name in request.body})


def from_wire(call: Call, body: JsonValue, names: Mapping[str, str]) -> None:
    """Add our field names to each row, beside the account's."""
    rows: list[dict[str, JsonValue]] = []
    if isinstance(call, List):
        rows = rows_of(body)[0]
    elif isinstance(body, dict):
        rows = [body]
    for row in rows:
        for our, their in names.items():
            if our not in row and their in row:
                row[our] = row[their]


class Exchange(Protocol):
    """Sends one request."""

    async def __call__(self, request: Request) -> Answer: ...

    async def aclose(self) -> None: ...


TransportFactory = Callable[[ssl.SSLContext | None, httpx2.Proxy | None], httpx2.AsyncBaseTransport]


class HttpExchange:
    """An exchange over HTTP/1.1."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        options: TransportOptions | None = None,
        transport_factory: TransportFactory | None = None,
    ) -> None:
        base = urlsplit(base_url)
        self._base_url = base_url
        self._prefix = base.path.rstrip("/")
        self._headers = {"host": base.netloc, **_lower_cased(headers)}
        self._options = options or TransportOptions()
        # Plain http is for this machine: it needs no certificates, and a proxy would see the key.
        self._is_tls = base.scheme == "https"
        self._transport_factory = transport_factory or HttpTransport
        self._url = httpx2.URL()
        self._transport: httpx2.AsyncBaseTransport | None = None

    async def __call__(self, request: Request) -> Answer:
        """Send the request. Raises `NotSentError` or `ResponseLost`."""
        if self._transport is None:
            self._url, self._transport = self._opened()
        message = self._message(request)
        try:
            response = await self._transport.handle_async_request(message)
        except (*_NOT_SENT, UnicodeError) as error:  # UnicodeError: of an impossible host name
            through = self._options if self._is_tls and self._options.proxy else None
            raise NotSentError(*unreachable(error, through)) from error
        except httpx2.TransportError as error:
            raise ResponseLost(lost_reason(error)) from error
        return await _answer(response)

    def _opened(self) -> tuple[httpx2.URL, httpx2.AsyncBaseTransport]:
        """Create the transport. Certificates are loaded for the first request, not at startup."""
        try:
            url = httpx2.URL(self._base_url)
            tls = tls_context(self._options) if self._is_tls else None
        except httpx2.InvalidURL as error:
            raise NotSentError("it is not a valid address", "Check FASTN_BASE_URL.") from error
        except OSError as error:
            reason = f"the trusted certificates cannot be read: {type(error).__name__}"
            raise NotSentError(reason, CHECK_CA_FILE) from error
        proxy = proxy_of(self._options.proxy) if self._is_tls and self._options.proxy is not None else None
        return url, self._transport_factory(tls, proxy)

    def _message(self, request: Request) -> httpx2.Request:
        """Return the request to send. Raises `NotSentError` for a character that HTTP does not allow."""
        target = self._prefix + request.path
        if request.query:
            target += "?" + urlencode({name: _text(value) for name, value in request.query.items()})
        # A call's own header, such as the environment of a run, replaces the account's.
        headers = self._headers | _lower_cased(request.headers)
        body = b"" if request.body is None else to_json(request.body)
        if request.body is not None:
            headers["content-type"] = "application/json"
        if request.method != "GET":
            headers["content-length"] = str(len(body))
        if not _TARGET.fullmatch(target) or not _VALUES.fullmatch("".join(headers.values())):
            raise NotSentError("a header or the path holds a character that HTTP does not allow", "Check the settings.")
        return httpx2.Request(
            request.method,
            self._url,
            headers=[(name.encode(), value.encode()) for name, value in headers.items()],
            stream=httpx2.ByteStream(body),
            extensions={"target": target.encode(), "timeout": _TIMEOUTS},  # the target is sent as it is, unparsed
        )

    async def aclose(self) -> None:
        if self._transport is not None:
            await self._transport.aclose()


async def _answer(response: httpx2.Response) -> Answer:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1").strip() for name, value in response.headers.raw}
    body = await _body(response, headers.get("content-encoding", "identity").lower())
    if isinstance(body, UnreadableBody):
        return Answer(response.status_code, headers, b"", body)
    return Answer(response.status_code, headers, body)


async def _body(response: httpx2.Response, encoding: str) -> bytes | UnreadableBody:
    """Read a body up to the maximum size, and unpack it while it arrives."""
    if encoding not in ("identity", "", "gzip", "deflate"):
        await response.aclose()
        return UnreadableBody.PACKED
    unpack = zlib.decompressobj(wbits=47) if encoding in ("gzip", "deflate") else None
    chunks = aiter(cast("httpx2.AsyncByteStream", response.stream))  # `aiter_raw` takes twice the time
    body = list[bytes]()
    size = 0
    try:
        async for data in chunks:
            if unpack is not None and unpack.eof:
                return UnreadableBody.BROKEN
            body.append(unpack.decompress(data, MAX_BODY_BYTES + 1 - size) if unpack else data)
            size += len(body[-1])
            if size > MAX_BODY_BYTES:
                return UnreadableBody.TOO_LARGE
    except (httpx2.TransportError, zlib.error):
        return UnreadableBody.BROKEN
    finally:
        if isinstance(chunks, AsyncGenerator):
            await chunks.aclose()
        await response.aclose()
    is_cut = unpack is not None and not unpack.eof
    return UnreadableBody.BROKEN if is_cut else b"".join(body)


def _lower_cased(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else to_json(value).decode()
