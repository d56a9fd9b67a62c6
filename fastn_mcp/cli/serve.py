"""`fastn-mcp`: serve agents, over stdio or HTTP."""

from typing import Any

import anyio
from mcp.server import Server

from fastn_mcp import stdio
from fastn_mcp.cli.reporting import reported
from fastn_mcp.cli.wiring import Parts
from fastn_mcp.errors import SettingsError
from fastn_mcp.served import Served, alone
from fastn_mcp.server import build
from fastn_mcp.settings import is_loopback


def _server(parts: Parts) -> Server[Any]:
    return build(alone(Served(parts.dispatch, parts.offered, parts.label)))


def over_stdio(parts: Parts) -> None:
    """Serve one client on this process's pipes, until they close."""

    async def serve() -> None:
        try:
            if parts.webhook is not None:
                parts.webhook.begin()
            await stdio.serve(_server(parts))
        finally:
            with anyio.CancelScope(shield=True):
                await parts.aclose()

    with reported(parts):
        anyio.run(serve)


def over_http(parts: Parts, address: str) -> None:
    """Serve at `HOST:PORT`, until told to stop. Raises `SettingsError` for an address that anybody could reach."""
    from fastn_mcp import hosted  # the HTTP server is not needed, nor loaded, for stdio

    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not 0 < int(port) < 65536 or not host:
        raise SettingsError("--http is not HOST:PORT.", "As in: --http 127.0.0.1:8080")
    if not is_loopback(host.strip("[]")):
        raise SettingsError(
            "--http serves this machine only: who calls is not checked yet.",
            "Use 127.0.0.1, and a proxy that authenticates where others are to reach it.",
        )
    hosts = sorted({f"{name}:{port}" for name in (host, "localhost", "127.0.0.1")})
    app = hosted.application(_server(parts), hosts)
    if parts.webhook is not None:
        app.router.routes.extend(parts.webhook.mounted(f"http://{address}"))
    with reported(parts):
        hosted.run(app, host.strip("[]"), int(port))
