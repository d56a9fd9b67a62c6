"""The HTTP application with MCP and health probes for this machine, and the server that runs an application.

On a stop signal, calls in flight get a grace period. Calls still running after it are cancelled, and a cancelled change
is recorded as unknown.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from types import FrameType
from typing import Any

import anyio
import uvicorn
from mcp.server import Server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Lifespan, Receive, Scope, Send
from typing_extensions import override

from fastn_mcp.channels.http_server import ConnectionLimits
from fastn_mcp.config.keys import HttpToken
from fastn_mcp.server.http.access import HostCheck, LocalAccess
from fastn_mcp.server.http.mcp_endpoint import McpEndpoint
from fastn_mcp.server.log import announce

ALIVE = "/healthz"
READY_PATH = "/readyz"
PATH = "/mcp"

_CHECK_TIMEOUT = 5.0
_HEADERS = {"Cache-Control": "no-store"}

Check = Callable[[], Awaitable[bool]]


class Health:
    """Health probes. A failed `required` check makes the process not ready; `reported` checks are only reported."""

    def __init__(
        self, required: Mapping[str, Check] | None = None, reported: Mapping[str, Check] | None = None
    ) -> None:
        self._required = dict(required or {})
        self._reported = dict(reported or {})
        self.is_leaving = False
        """Whether the process is shutting down, so that new requests should go to another."""

    def routes(self) -> list[Route]:
        return [Route(ALIVE, self._alive, methods=["GET"]), Route(READY_PATH, self._ready, methods=["GET"])]

    async def _alive(self, _: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    async def _ready(self, _: Request) -> JSONResponse:
        if self.is_leaving:
            return JSONResponse({"status": "leaving"}, 503, _HEADERS)
        checks = self._required | self._reported
        results = {name: "ok" if await _passes(check) else "unreachable" for name, check in checks.items()}
        ready = all(results[name] == "ok" for name in self._required)
        return JSONResponse({"status": "ready" if ready else "not ready"} | results, 200 if ready else 503, _HEADERS)


async def _passes(check: Check) -> bool:
    try:
        with anyio.fail_after(_CHECK_TIMEOUT):
            return await check()
    except Exception:
        return False


@dataclass(frozen=True, slots=True)
class ProcessParts:
    """What this process serves beside MCP."""

    health: Health
    routes: Sequence[BaseRoute] = ()
    resources: Callable[[], AbstractAsyncContextManager[object]] = nullcontext
    """Open while the application serves: they open before it and close after it."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits of an HTTP server. The defaults are of a server for this machine."""

    header_bytes: int = 65_536
    connections: int = 1000
    drain_seconds: float = 0.0
    """Time between the stop signal, when the process reports not ready, and refusing new requests."""
    grace_seconds: float = 5.0
    """Time for calls in flight after that."""


LOCAL_LIMITS = ServerLimits()


def application(server: Server[Any], hosts: Sequence[str], token: HttpToken, process: ProcessParts) -> ASGIApp:
    """Return the application for this machine: exactly these `host:port`, and a bearer token.

    The probes need no token, nor do the other routes of the process, whose requests are signed. Requests to MCP do not
    pass through Starlette, which saves 7 % of the CPU of a short call (`make bench`): its router and the middleware
    around it do nothing for them, and uvicorn answers 500 to what fails.
    """
    origins = [f"http://{host}" for host in hosts]
    endpoint = McpEndpoint(server, TransportSecuritySettings(allowed_hosts=list(hosts), allowed_origins=origins))
    protected = HostCheck(
        LocalAccess(endpoint.app, token), hosts, origins, head=LOCAL_LIMITS.header_bytes, open_paths=()
    )
    others = Starlette(
        routes=[*process.health.routes(), *process.routes], lifespan=lifespan(process.resources, endpoint.run)
    )
    others.router.redirect_slashes = False  # a redirect would name whatever host a request claims

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        is_mcp = scope["type"] == "http" and scope["path"] == PATH
        await (protected if is_mcp else others)(scope, receive, send)

    return app


def lifespan(*resources: Callable[[], AbstractAsyncContextManager[object]]) -> Lifespan[Starlette]:
    """Return a lifespan that opens these resources in order, and closes them in reverse."""

    @asynccontextmanager
    async def opened(_: Starlette) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for each in resources:
                await stack.enter_async_context(each())
            yield

    return opened


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, health: Health, drain: float, announcement: str) -> None:
        super().__init__(config)
        self._health = health
        self._drain = drain
        self._announcement = announcement
        self._loop: asyncio.AbstractEventLoop | None = None

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            announce(self._announcement)

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Report not ready on the first signal and exit after the drain time. Exit at once on the second."""
        is_first = not self._health.is_leaving
        self._health.is_leaving = True
        if is_first and self._drain > 0 and self._loop is not None:
            later = self._loop.call_later
            self._loop.call_soon_threadsafe(later, self._drain, super().handle_exit, sig, frame)
        else:
            super().handle_exit(sig, frame)


def run(app: Any, host: str, port: int, health: Health, limits: ServerLimits, announcement: str) -> None:
    """Serve until SIGINT or SIGTERM. Half-open clients do not keep the process alive.

    `announcement` is written to stderr once the server listens.
    """
    connections = ConnectionLimits(
        app, limits.connections, always=(ALIVE, READY_PATH), is_leaving=lambda: health.is_leaving
    )
    config = connections.config(
        limits.header_bytes,
        host=host,
        port=port,
        timeout_graceful_shutdown=round(limits.grace_seconds),
        timeout_keep_alive=30,
    )
    # After shutdown uvicorn raises the signal again, which would kill the process before cleanup.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    _Server(config, health, limits.drain_seconds, announcement).run()


def _leave(*_: object) -> None:
    sys.exit(0)
