"""A small HTTP server that runs beside everything else in this process.

Imported only by what listens: a server that never asks pays for no HTTP server.
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
"""Seconds that open requests have when it ends."""

_MOST = 64
"""Connections at the same time. Beyond it the oldest that waits for a request is closed, not the newest refused."""


class _BoundedConnection(H11Protocol):
    """One connection, which makes room for a newer one unless a request of it is being answered.

    Any program of this machine can open connections and send nothing. It must not keep a person's browser out.
    """

    since = 0.0

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.since = self.loop.time()
        # The server makes connections of this class alone.
        known = [one for one in cast("set[_BoundedConnection]", self.connections) if not one.transport.is_closing()]
        waiting = [one for one in known if not one.is_answering]
        if len(known) >= _MOST and waiting:
            min(waiting, key=lambda one: one.since).transport.close()
        super().connection_made(transport)

    @property
    def is_answering(self) -> bool:
        """Whether a request has arrived whole and has no whole answer yet."""
        last = cast("RequestResponseCycle | None", self.cycle)  # none before the first, whatever its type says
        return last is not None and not (last.response_complete or last.more_body)


def server_config(app: ASGIApp, http: type[asyncio.Protocol], **more: Any) -> uvicorn.Config:
    """What every HTTP server of this package has: its lines are lines of our log, at the level of ours."""
    return uvicorn.Config(
        app,
        http=http,
        ws="none",
        log_config=None,
        log_level=None,
        access_log=False,  # an address can hold a key
        server_header=False,
        proxy_headers=False,
        **more,
    )


class _BackgroundServer(uvicorn.Server):
    """Signals stay with the process that it is a part of."""

    def capture_signals(self) -> nullcontext[None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return nullcontext()


class BackgroundServer:
    """An application, served at a socket that listens already, from now on."""

    def __init__(self, app: ASGIApp, listening: socket.socket, name: str) -> None:
        config = server_config(
            app,
            _BoundedConnection,
            lifespan="off",
            limit_concurrency=4 * _MOST,  # those that are closing are counted
            timeout_keep_alive=5,
            timeout_graceful_shutdown=_GRACE,
        )
        config.load()
        self._server = _BackgroundServer(config)
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
