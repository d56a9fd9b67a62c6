"""A small HTTP server that runs as a background task of this process.

It is imported only when a channel listens, so that a server without approval requests does not load uvicorn.
"""

import asyncio
import socket
from contextlib import nullcontext
from contextvars import Context
from typing import Any, cast

import anyio
import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

_GRACE = 2
"""Seconds for open requests to finish on shutdown."""

_MAX_CONNECTIONS = 64
"""Maximum connections. Beyond it the oldest idle one is closed, so that a new one is not refused."""


class _BoundedConnection(H11Protocol):
    """Connection that is closed in favor of a newer one unless it is answering a request.

    Any program on this machine can open idle connections. They must not lock out a person's browser.
    """

    since = 0.0

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.since = self.loop.time()
        # Every connection of the server has this class.
        current = [
            each for each in cast("set[_BoundedConnection]", self.connections) if not each.transport.is_closing()
        ]
        idle = [each for each in current if not each.is_answering]
        if len(current) >= _MAX_CONNECTIONS and idle:
            min(idle, key=lambda connection: connection.since).transport.close()
        super().connection_made(transport)

    @property
    def is_answering(self) -> bool:
        """Whether a complete request has no complete response yet."""
        last = cast("RequestResponseCycle | None", self.cycle)  # None before the first request, despite its type
        return last is not None and not (last.response_complete or last.more_body)


def server_config(app: ASGIApp, http: type[asyncio.Protocol], **options: Any) -> uvicorn.Config:
    """Return the uvicorn settings that all HTTP servers of this package share. They log through our log."""
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        log_config=None,
        log_level=None,
        access_log=False,  # an address can contain a key
        server_header=False,
        proxy_headers=False,
        **options,
    )


class _BackgroundServer(uvicorn.Server):
    """Server that leaves signal handling to its process."""

    def capture_signals(self) -> nullcontext[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return nullcontext()


class BackgroundServer:
    """Application served by a background task on a socket that already listens."""

    def __init__(self, app: ASGIApp, listening: socket.socket, name: str) -> None:
        config = server_config(
            app,
            _BoundedConnection,
            lifespan="off",
            limit_concurrency=4 * _MAX_CONNECTIONS,  # closing connections count too
            timeout_keep_alive=5,
            timeout_graceful_shutdown=_GRACE,
        )
        config.load()
        self._server = _BackgroundServer(config)
        # In an empty context, so that requests do not inherit the context variables of the call that started it.
        self._task = asyncio.create_task(self._server.serve([listening]), name=name, context=Context())

    @property
    def ended(self) -> bool:
        return self._task.done()

    async def stop(self) -> None:
        """Stop once open requests are answered or the grace period is over."""
        self._server.should_exit = True
        with anyio.CancelScope(shield=True):  # the process may be shutting down; the grace period bounds this
            await self._task
