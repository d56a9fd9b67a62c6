"""One request to Fastn and its response: the bytes of the request, and connections that are reused.

There are no redirects, cookies or retries here, and the size of a body is limited.
"""

import re
import ssl
from collections.abc import Mapping
from typing import Protocol
from urllib.parse import urlencode, urlsplit

from pydantic_core import to_json

from fastn_mcp.client.account import TransportOptions, proxy_of, tls_context
from fastn_mcp.client.connection import Answer, HttpConnection, RefusedByProxy, ResponseLost, connect
from fastn_mcp.client.error_mapping import CHECK_CA_FILE, unreachable
from fastn_mcp.tools.operation import Request


class NotSentError(Exception):
    """No byte of the request was sent. `next_step` tells what to do, if that is known."""

    def __init__(self, reason: str, next_step: str = "") -> None:
        super().__init__(reason)
        self.next_step = next_step


class Exchange(Protocol):
    """Sends one request."""

    async def __call__(self, request: Request) -> Answer: ...

    async def aclose(self) -> None: ...


class HttpExchange:
    """An exchange over HTTP/1.1. Of the idle connections, the one used last is taken first."""

    def __init__(self, base_url: str, headers: Mapping[str, str], options: TransportOptions | None = None) -> None:
        base = urlsplit(base_url)
        self._host, self._is_tls = base.hostname or "", base.scheme == "https"
        self._port = base.port or (443 if self._is_tls else 80)
        self._prefix = base.path.rstrip("/")
        self._headers = {"Host": base.netloc, **headers}
        self._options = options or TransportOptions()
        self._proxy = proxy_of(self._options.proxy) if self._is_tls and self._options.proxy else None
        self._tls: ssl.SSLContext | None = None
        self._idle: list[HttpConnection] = []

    async def __call__(self, request: Request) -> Answer:
        """Send the request. Raises `NotSentError` or `ResponseLost`."""
        message = self._message(request)
        connection = self._reused() or await self._connected()
        answer = await connection.exchange(message)
        if connection.is_idle:
            self._idle.append(connection)
        if self._idle and not self._idle[0].is_idle:
            self._idle.pop(0).close()
        return answer

    def _reused(self) -> HttpConnection | None:
        while self._idle:
            if (connection := self._idle.pop()).is_idle and not connection.has_unread_input:
                return connection
            connection.close()
        return None

    async def _connected(self) -> HttpConnection:
        if self._is_tls and self._tls is None:
            # Certificates are loaded with the first connection, not at startup.
            try:
                self._tls = tls_context(self._options)
            except OSError as error:
                reason = f"the trusted certificates cannot be read: {type(error).__name__}"
                raise NotSentError(reason, CHECK_CA_FILE) from error
        try:
            # Plain http is for this machine: it needs no certificates, and a proxy would see the key.
            return await connect(self._host, self._port, self._tls, self._proxy)
        except (OSError, UnicodeError, ResponseLost, RefusedByProxy) as error:
            raise NotSentError(*unreachable(error, self._options if self._proxy else None)) from error

    def _message(self, request: Request) -> bytes:
        """Return the bytes of a request. Raises `NotSentError` for a character that HTTP does not allow."""
        target = self._prefix + request.path
        if request.query:
            target += "?" + urlencode({name: _text(value) for name, value in request.query.items()})
        # A call's own header, such as the environment of a run, replaces the account's.
        overridden = {name.lower() for name in request.headers}
        headers = {name: value for name, value in self._headers.items() if name.lower() not in overridden}
        headers |= request.headers
        body = b"" if request.body is None else to_json(request.body)
        if request.body is not None:
            headers["Content-Type"] = "application/json"
        if request.method != "GET":
            headers["Content-Length"] = str(len(body))
        if not _TARGET.fullmatch(target) or not all(map(_VALUE.fullmatch, headers.values())):
            raise NotSentError("a header or the path holds a character that HTTP does not allow", "Check the settings.")
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{request.method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body

    async def aclose(self) -> None:
        while self._idle:
            self._idle.pop().close()


_TARGET = re.compile(r"[\x21-\x7e]+")
_VALUE = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]*")


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else to_json(value).decode()
