"""Connections to Fastn, kept open between requests.

httpcore2 makes and drives them, with proxies and TLS. Its own pool looks at all of them twice for each request, so that
a call costs the more the more were once in flight. Here the one used last is taken, however many there are; how many
requests there are at once is the client's to limit.
"""

import httpcore2

from fastn_mcp.client.transport import AsyncioBackend
from fastn_mcp.client.way import Way, context, proxy_of

IDLE = 30.0
"""Seconds for which a connection that nobody uses is kept."""


class Connections:
    """Those to one origin. What is trusted is read for the first one: a start needs none."""

    def __init__(self, origin: httpcore2.Origin, way: Way) -> None:
        self._origin = origin
        self._way = way
        self._maker: httpcore2.AsyncConnectionPool | None = None
        self._idle: list[httpcore2.AsyncConnectionInterface] = []

    async def take(self) -> httpcore2.AsyncConnectionInterface:
        """One that nobody else uses. Raises `OSError` where what is trusted cannot be read."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.has_expired():
                return connection
            await connection.aclose()
        self._maker = self._maker or self._made()
        return self._maker.create_connection(self._origin)

    def _made(self) -> httpcore2.AsyncConnectionPool:
        """What knows how a connection is made, and holds none."""
        if self._origin.scheme != b"https":
            # Plain http is for this machine: it needs no certificates, and a proxy would be shown the key.
            return httpcore2.AsyncConnectionPool(keepalive_expiry=IDLE, network_backend=AsyncioBackend())
        tls = context(self._way)
        if self._way.proxy is None:
            return httpcore2.AsyncConnectionPool(tls, keepalive_expiry=IDLE, network_backend=AsyncioBackend())
        url, auth = proxy_of(self._way.proxy)
        return httpcore2.AsyncHTTPProxy(url, auth, None, tls, keepalive_expiry=IDLE, network_backend=AsyncioBackend())

    async def give_back(self, connection: httpcore2.AsyncConnectionInterface) -> None:
        """Keep one whose answer is closed, where it can be used again; close one that nobody used for long."""
        if connection.is_idle():
            self._idle.append(connection)
        if self._idle and self._idle[0].has_expired():
            await self._idle.pop(0).aclose()

    async def aclose(self) -> None:
        while self._idle:
            await self._idle.pop().aclose()
