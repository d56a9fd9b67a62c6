"""MCP over streamable HTTP, stateless: any replica can answer any request."""

import signal
import sys
from collections.abc import Sequence
from typing import Any

import uvicorn
from mcp.server import Server
from mcp.server.transport_security import TransportSecuritySettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

PATH = "/mcp"
GRACE = 5
"""Seconds that requests in flight have once the process is told to stop."""


def application(server: Server[Any], hosts: Sequence[str]) -> Starlette:
    """The HTTP application. `hosts` are the exact `host:port` by which it may be called: no wildcard, no rebinding."""
    app = server.streamable_http_app(
        streamable_http_path=PATH,
        stateless_http=True,
        transport_security=TransportSecuritySettings(
            allowed_hosts=list(hosts), allowed_origins=[f"http://{host}" for host in hosts]
        ),
    )
    app.router.routes.append(Route("/healthz", _healthy, methods=["GET"]))
    return app


async def _healthy(_: Request) -> JSONResponse:
    return JSONResponse({"status": "ok"})


def run(app: Any, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM; half-open clients do not keep the process alive."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,  # its lines are lines of our log, of the level that ours has
        log_level=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE,
        timeout_keep_alive=30,
    )
    # Once it has ended, uvicorn raises the signal again, which would kill the process before anything is cleaned up.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _leave)
    uvicorn.Server(config).run()


def _leave(*_: object) -> None:
    sys.exit(0)
