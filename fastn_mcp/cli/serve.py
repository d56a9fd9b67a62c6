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
    # The HTTP server is not needed, nor loaded, for stdio.
    from fastn_mcp.hosted.application import application
    from fastn_mcp.hosted.health import Health
    from fastn_mcp.hosted.serving import Ending, run

    host, port = place(address)
    if not is_loopback(host):
        raise SettingsError(
            "--http serves this machine only, since nobody signs in.",
            "Use 127.0.0.1; or name a team file, by --team, where others are to reach it: docs/hosting.md.",
        )
    hosts = sorted({f"{name}:{port}" for name in (host, "localhost", "127.0.0.1")})
    health = Health()
    app = application(_server(parts), hosts, health)
    if parts.webhook is not None:
        app.router.routes.extend(parts.webhook.mounted(f"http://{address}"))
    with reported(parts):
        run(app, host, port, health, Ending())


def place(address: str) -> tuple[str, int]:
    """The host and the port of `HOST:PORT`. Raises `SettingsError`."""
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not port.isascii() or not 0 < int(port) < 65536 or not host:
        raise SettingsError("--http is not HOST:PORT.", "As in: --http 127.0.0.1:8080")
    return host.strip("[]"), int(port)
