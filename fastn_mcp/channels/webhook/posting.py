"""Posts a question to a receiver. The only module that speaks HTTP to anybody but Fastn.

Not through `client`, which is Fastn's alone: no key of Fastn's is known here, and Fastn's rate limits do not count.
No redirects, no proxy, no cookies; of an answer the status counts, and its body is not read.
"""

from functools import cached_property
from urllib.parse import urlsplit

import anyio
import httpx2

from fastn_mcp.channels.webhook import signing
from fastn_mcp.errors import Refused
from fastn_mcp.system import System

ATTEMPTS = 4
DEADLINE = 10.0
"""Seconds of one attempt."""

_FIRST_PAUSE = 0.5
_TRANSIENT = {408, 425, 429}


class Posting:
    """Signs each attempt anew: a receiver that remembers nonces takes what it has lost."""

    def __init__(
        self, url: str, secret: str, system: System, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._url = httpx2.URL(url)
        self._secret = secret
        self._system = system
        self._given = transport
        self.host = urlsplit(url).netloc
        """As people may see it: the rest of an address can be a secret."""

    @cached_property
    def _transport(self) -> httpx2.AsyncBaseTransport:
        if self._given is not None:
            return self._given
        return httpx2.AsyncHTTPTransport(
            verify=False if self._url.scheme == "http" else httpx2.create_ssl_context(),
            limits=httpx2.Limits(max_connections=8, max_keepalive_connections=2, keepalive_expiry=5.0),
        )

    async def __call__(self, body: bytes) -> None:
        """Raises `Refused` where the receiver does not take it."""
        attempts, problem = 0, ""
        while attempts < ATTEMPTS:
            if attempts:
                await self._system.sleep(_FIRST_PAUSE * 2 ** (attempts - 1) * (0.5 + 0.5 * self._system.share()))
            attempts += 1
            status = await self._sent(body)
            if isinstance(status, int) and 200 <= status < 300:
                return
            problem = status if isinstance(status, str) else f"it answered {status}"
            if isinstance(status, int) and status not in _TRANSIENT and status < 500:
                break
        tries = "1 attempt" if attempts == 1 else f"{attempts} attempts, the last one"
        raise Refused(
            f"Nobody could be asked: the webhook at {self.host} did not take the question ({tries}: {problem}).",
            "Tell the operator that the receiver is down or misconfigured; call again once it is up.",
        )

    async def _sent(self, body: bytes) -> int | str:
        """The status, or what went wrong on the way."""
        signed = signing.headers(self._secret, int(self._system.now().timestamp()), self._system.token(), body)
        request = httpx2.Request(
            "POST",
            self._url,
            headers={"Content-Type": "application/json", "User-Agent": "fastn-mcp"} | signed,
            content=body,
            extensions={"timeout": {"connect": DEADLINE, "read": DEADLINE, "write": DEADLINE, "pool": DEADLINE}},
        )
        late = f"no answer within {DEADLINE:.0f} seconds"
        with anyio.move_on_after(DEADLINE):
            try:
                response = await self._transport.handle_async_request(request)
            except httpx2.TimeoutException:
                return late
            except httpx2.ConnectError:
                return "no connection could be made"
            except httpx2.TransportError:
                return "the connection broke"
            await response.aclose()
            return response.status_code
        return late

    async def aclose(self) -> None:
        if "_transport" in self.__dict__:
            await self._transport.aclose()
