"""A small HTTP server that runs as a background task of this process.

It is imported only when a channel listens, so that a server without approval requests does not load uvicorn.
"""

import asyncio
import socket
from contextlib import nullcontext
from contextvars import Context

import anyio
import uvicorn
from starlette.types import ASGIApp

from fastn_mcp.channels.connections import ConnectionLimits

_GRACE = 2
"""Seconds for open requests to finish on shutdown."""

_MAX_CONNECTIONS = 64
"""Maximum connections. Any program on this machine can open idle ones; they must not lock out a person's browser."""

_HEAD = 16_384
"""Bytes of a request's head."""


class _BackgroundServer(uvicorn.Server):
    """Server that leaves signal handling to its process."""

    def capture_signals(self) -> nullcontext[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return nullcontext()


class BackgroundServer:
    """Application served by a background task on a socket that already listens."""

    def __init__(self, app: ASGIApp, listening: socket.socket, name: str) -> None:
        config = ConnectionLimits(app, _MAX_CONNECTIONS).config(
            _HEAD,
            lifespan="off",
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
