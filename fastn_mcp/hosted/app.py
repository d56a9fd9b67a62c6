"""The HTTP application: MCP, metadata for sign-in, and the paths of health probes; and the server that runs it.

Told to stop, what is in flight has its time; what then still is gets cancelled, and a change among it is recorded as
unknown.
"""

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, TypeVar
from urllib.parse import urlsplit

import anyio
import uvicorn
from mcp.server import Server
from mcp.server.auth.routes import build_resource_metadata_url
from mcp.server.auth.settings import AuthSettings
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import BaseRoute, Route
from typing_extensions import override

from fastn_mcp.config.keys import HttpToken
from fastn_mcp.guard.approval.quorum import READ
from fastn_mcp.hosted.authentication import OWN_KEY, Admission, LocalAccess
from fastn_mcp.hosted.oidc import IssuerKeys
from fastn_mcp.hosted.rejection import Challenger, Edge
from fastn_mcp.hosted.request_limits import bounded
from fastn_mcp.hosted.response_mode import answered, within
from fastn_mcp.hosted.team_config import Team, origin_of
from fastn_mcp.hosted.tenants import TenantAccount, Tenants
from fastn_mcp.hosted.tokens import Tokens
from fastn_mcp.runtime import System
from fastn_mcp.server.log import announce

ALIVE = "/healthz"
READY = "/readyz"

_PATIENCE = 5.0
_HEADERS = {"Cache-Control": "no-store"}

Check = Callable[[], Awaitable[bool]]


class Health:
    """`needed` has to hold for a request to be answered, by the names that a probe is told; `told` is told alone."""

    def __init__(self, needed: Mapping[str, Check] | None = None, told: Mapping[str, Check] | None = None) -> None:
        self._needed = dict(needed or {})
        self._told = dict(told or {})
        self._leaving = False

    def leave(self) -> None:
        """Ready no more: what comes from now on should go elsewhere."""
        self._leaving = True

    @property
    def leaving(self) -> bool:
        """Whether it is to end."""
        return self._leaving

    def routes(self) -> list[Route]:
        """The two paths of probes."""
        return [Route(ALIVE, self._alive, methods=["GET"]), Route(READY, self._ready, methods=["GET"])]

    async def _alive(self, _: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"}, headers=_HEADERS)

    async def _ready(self, _: Request) -> JSONResponse:
        if self._leaving:
            return JSONResponse({"status": "leaving"}, 503, _HEADERS)
        checks = self._needed | self._told
        found = {name: "ok" if await _holds(check) else "unreachable" for name, check in checks.items()}
        ready = all(found[name] == "ok" for name in self._needed)
        return JSONResponse({"status": "ready" if ready else "not ready"} | found, 200 if ready else 503, _HEADERS)


async def _holds(check: Check) -> bool:
    try:
        with anyio.fail_after(_PATIENCE):
            return await check()
    except Exception:
        return False


PATH = "/mcp"

T = TypeVar("T", bound=TenantAccount)


def application(
    server: Server[Any], hosts: Sequence[str], token: HttpToken, head: int, health: Health,
    more: Sequence[BaseRoute] = (),
) -> Starlette:  # fmt: skip
    """For this machine alone, by exactly these `host:port`, for whoever has the token.

    The probes need no token; nor do `more`, routes beside MCP whose requests are signed.
    """
    origins = [f"http://{host}" for host in hosts]
    security = TransportSecuritySettings(allowed_hosts=list(hosts), allowed_origins=origins)
    app = server.streamable_http_app(streamable_http_path=PATH, stateless_http=True, transport_security=security)
    answered(app, server, security)
    open_routes = [*health.routes(), *more]
    app.router.routes.extend(open_routes)
    app.add_middleware(LocalAccess, token, hosts, origins, head, open_routes)
    return app


def team_application(
    server: Server[Any], team: Team, tenants: Tenants[T], keys: IssuerKeys, health: Health, system: System,
    more: Sequence[BaseRoute] = (),
) -> Starlette:  # fmt: skip
    """For a team: an OAuth 2.1 resource server, whose tenants serve who signs in. `more` are routes beside MCP."""
    path, own = urlsplit(team.url).path, origin_of(team.url)
    tokens = Tokens(team.trust, keys, system)
    security = TransportSecuritySettings(allowed_hosts=list(team.hosts), allowed_origins=[own, *team.origins])
    app = server.streamable_http_app(
        streamable_http_path=path,
        stateless_http=True,
        max_request_body_size=team.bounds.body,
        transport_security=security,
        # From texts, so that an issuer without a path gets no slash, which would make it another one (RFC 8414).
        auth=AuthSettings.model_validate(
            {
                "issuer_url": team.trust.issuer,
                "resource_server_url": team.url,
                "validate_token_resource": True,
                "required_scopes": [READ],  # what to ask for first; what more a call needs is said when it is made
            }
        ),
        token_verifier=tokens,
    )
    answered(app, server, security)
    app.router.routes.extend([*health.routes(), *more])
    challenger = Challenger(str(build_resource_metadata_url(AnyHttpUrl(team.url))))
    # The innermost: who is calling is known there.
    app.user_middleware.append(Middleware(Admission, path, team, tokens, tenants, challenger))
    if team.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(team.origins),
            allow_methods=["POST"],
            allow_headers=["Authorization", "Content-Type", OWN_KEY, "MCP-Protocol-Version", "Mcp-Method", "Mcp-Name"],
            expose_headers=["WWW-Authenticate", "Retry-After"],
        )
    page = [] if team.approvals is None else [origin_of(team.approvals.url)]
    app.add_middleware(Edge, team.hosts, [own, *team.origins, *page], team.bounds.head, (ALIVE, READY))
    within(app, partial(_kept, tenants, keys))
    return app


@asynccontextmanager
async def _kept(tenants: Tenants[T], keys: IssuerKeys) -> AsyncGenerator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keys.refresh)
        tasks.start_soon(tenants.stay)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await tenants.aclose()
                await keys.aclose()


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
