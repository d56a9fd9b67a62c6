"""Run an application until the process is told to stop, then shut down in order.

What is in flight has its time; what then still is gets cancelled, and a change among it is recorded as unknown.
"""

import asyncio
import signal
import socket
import sys
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn
from typing_extensions import override

from fastn_mcp.hosted.app import ALIVE, READY, Health
from fastn_mcp.hosted.request_limits import bounded
from fastn_mcp.server.log import announce


@dataclass(frozen=True, slots=True)
class ShutdownConfig:
    """Seconds of each step, and the bounds of the socket."""

    drain: float = 0.0
    """Between not being ready and taking no more requests."""
    grace: float = 5.0
    """For what is in flight."""
    connections: int | None = None
    head: int = 65_536


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, health: Health, drain: float, announced: str) -> None:
        super().__init__(config)
        self._health = health
        self._drain = drain
        self._announced = announced
        self._told = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            announce(self._announced)

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Told once, it stops being ready, and ends a while later. Told again, it ends at once."""
        first, self._told = not self._told, True
        self._health.leave()
        if first and self._drain > 0 and self._loop is not None:
            later = self._loop.call_later
            self._loop.call_soon_threadsafe(later, self._drain, super().handle_exit, sig, frame)
        else:
            super().handle_exit(sig, frame)


def run(app: Any, host: str, port: int, health: Health, ending: ShutdownConfig, announced: str) -> None:
    """Serve until SIGINT or SIGTERM; half-open clients do not keep the process alive.

    `announced` is written to stderr once it listens.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=bounded(ending.head, always=(ALIVE.encode(), READY.encode()), leaving=lambda: health.leaving),
        ws="none",
        log_config=None,  # its lines are lines of our log, of the level that ours has
        log_level=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=ending.connections,
        timeout_graceful_shutdown=round(ending.grace),
        timeout_keep_alive=30,
    )
    # Once it has ended, uvicorn raises the signal again, which would kill the process before anything is cleaned up.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    _Server(config, health, ending.drain, announced).run()


def _leave(*_: object) -> None:
    sys.exit(0)
