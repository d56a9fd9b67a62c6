"""Connections to Fastn, kept open between requests.

httpcore2 makes and drives them, with proxies and TLS. Its own pool looks at all of them twice for each request, so that
a call costs the more the more were once in flight. Here the one used last is taken, however many there are; how many
requests there are at once is the client's to limit.
"""

import ssl

import httpcore2

from fastn_mcp.client.transport import AsyncioBackend

IDLE = 30.0
"""Seconds for which a connection that nobody uses is kept."""


class Connections:
    """Those to one origin."""

    def __init__(self, origin: httpcore2.Origin, tls: ssl.SSLContext | None) -> None:
        self._origin = origin
        # It knows how a connection is made, and holds none.
        self._maker = httpcore2.AsyncConnectionPool(tls, keepalive_expiry=IDLE, network_backend=AsyncioBackend())
        self._idle: list[httpcore2.AsyncConnectionInterface] = []

    async def take(self) -> httpcore2.AsyncConnectionInterface:
        """One that nobody else uses."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.has_expired():
                return connection
            await connection.aclose()
        return self._maker.create_connection(self._origin)

    async def give_back(self, connection: httpcore2.AsyncConnectionInterface) -> None:
        """Keep one whose answer is closed, where it can be used again; close one that nobody used for long."""
        if connection.is_idle():
            self._idle.append(connection)
        if self._idle and self._idle[0].has_expired():
            await self._idle.pop(0).aclose()

    async def aclose(self) -> None:
        while self._idle:
            await self._idle.pop().aclose()
