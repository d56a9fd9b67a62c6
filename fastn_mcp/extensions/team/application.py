"""The HTTP application for a team: an OAuth 2.1 resource server, with sign-in metadata and health probes."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import anyio
from mcp.server import Server
from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.routes import build_resource_metadata_url, create_protected_resource_routes
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyHttpUrl, ConfigDict, TypeAdapter
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from fastn_mcp.extensions.team.authentication import OWN_KEY, TeamAccess
from fastn_mcp.extensions.team.oidc import IssuerKeys
from fastn_mcp.extensions.team.team_config import Team, origin_of
from fastn_mcp.extensions.team.tenants import Tenants
from fastn_mcp.extensions.team.tokens import Tokens
from fastn_mcp.server.http.access import HostCheck
from fastn_mcp.server.http.app import ALIVE, READY_PATH, ProcessParts, lifespan
from fastn_mcp.server.http.mcp_endpoint import STREAM_PROBE, McpEndpoint, stream_probe


def team_application(
    server: Server[Any], team: Team, tenants: Tenants, keys: IssuerKeys, tokens: Tokens, process: ProcessParts
) -> Starlette:
    """Return the application for a team: an OAuth 2.1 resource server."""
    path = urlsplit(team.url).path
    origins = [origin_of(team.url), *team.origins]
    security = TransportSecuritySettings(allowed_hosts=team.served_hosts, allowed_origins=origins)
    endpoint = McpEndpoint(server, security, team.limits.body_bytes)
    page = [] if team.page_url is None else [origin_of(team.page_url)]
    middleware = [
        Middleware(
            HostCheck,
            team.served_hosts,
            [*origins, *page],
            head=team.limits.header_bytes,
            open_paths=(ALIVE, READY_PATH),
        ),
        *_cross_origin(team.origins),
    ]
    metadata = str(build_resource_metadata_url(AnyHttpUrl(team.url)))
    return Starlette(
        routes=[
            *_resource_metadata(team),
            Route(
                path, TeamAccess(AuthContextMiddleware(endpoint.app), team, tokens, tenants=tenants, metadata=metadata)
            ),
            *process.health.routes(),
            Route(f"{path}{STREAM_PROBE}", stream_probe, methods=["GET"]),
            *process.routes,
        ],
        middleware=middleware,
        lifespan=lifespan(process.resources, partial(_refresh_and_sweep, tenants, keys, tokens), endpoint.run),
    )


def _cross_origin(origins: Sequence[str]) -> list[Middleware]:
    """Return the middleware that lets browser applications of other origins call MCP."""
    if not origins:
        return []
    headers = ["Authorization", "Content-Type", OWN_KEY, "MCP-Protocol-Version", "Mcp-Method", "Mcp-Name"]
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["POST"],
            allow_headers=headers,
            expose_headers=["WWW-Authenticate", "Retry-After"],
        )
    ]


def _resource_metadata(team: Team) -> list[Route]:
    """Return the route of the protected resource metadata (RFC 9728), which names the scopes to request at first."""
    address = TypeAdapter(AnyHttpUrl, config=ConfigDict(url_preserve_empty_path=True)).validate_python
    scopes = team.requested_scopes(team.initial_scopes)
    return create_protected_resource_routes(address(team.url), [address(team.issuer)], scopes)


@asynccontextmanager
async def _refresh_and_sweep(tenants: Tenants, keys: IssuerKeys, tokens: Tokens) -> AsyncGenerator[None]:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keys.refresh)
        tasks.start_soon(tenants.sweep_forever)
        try:
            yield
        finally:
            tasks.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await tenants.aclose()
                await tokens.aclose()
