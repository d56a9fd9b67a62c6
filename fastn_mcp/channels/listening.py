"""A small HTTP server beside everything else in this process: it outlives the call that first needed it.

Imported only by what listens: a server that never asks pays for no HTTP server.
"""

import asyncio
import socket
from contextlib import nullcontext
from contextvars import Context

import anyio
import uvicorn
from starlette.types import ASGIApp

_GRACE = 2
"""Seconds that open requests have when it ends."""


class _Server(uvicorn.Server):
    """Signals stay with the process that it is a part of."""

    def capture_signals(self) -> nullcontext[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return nullcontext()


class Listening:
    """An application, served at a socket that listens already, from now on."""

    def __init__(self, app: ASGIApp, listening: socket.socket, name: str) -> None:
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level=None,
            access_log=False,  # an address can hold a key
            server_header=False,
            proxy_headers=False,
            limit_concurrency=64,
            timeout_keep_alive=5,
            timeout_graceful_shutdown=_GRACE,
        )
        config.load()
        self._server = _Server(config)
        # In a context of its own: nothing of the call that asked first is known to those who look later.
        self._task = asyncio.create_task(self._server.serve([listening]), name=name, context=Context())

    @property
    def ended(self) -> bool:
        return self._task.done()

    async def stop(self) -> None:
        """End it, once open requests are answered or have had their time."""
        self._server.should_exit = True
        with anyio.CancelScope(shield=True):  # the process may be ending already; this ends by itself
            await self._task
