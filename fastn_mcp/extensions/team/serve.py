"""Serve a team over HTTP: each caller from the account of their tenant."""

import logging
import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from mcp.server import ServerRequestContext
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from fastn_mcp.build.composition import begin_log
from fastn_mcp.build.extensions import Receiver, audit_outboxes, begin_telemetry, channel_door
from fastn_mcp.build.startup import Process, Sandboxed, http_address, must_be_free
from fastn_mcp.channels.external import Handle
from fastn_mcp.config.addresses import url_host
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import FastnError, SettingsError
from fastn_mcp.extensions.team.application import team_application
from fastn_mcp.extensions.team.authentication import request_context
from fastn_mcp.extensions.team.builder import TenantBuilder, answers_path, process_settings
from fastn_mcp.extensions.team.oidc import IssuerKeys
from fastn_mcp.extensions.team.team_config import Team, load_team
from fastn_mcp.extensions.team.tenants import Tenants
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.records.formats import counted
from fastn_mcp.runtime import System
from fastn_mcp.server.context import RequestContext
from fastn_mcp.server.handlers import build_for
from fastn_mcp.server.http.app import Health, ProcessParts, ServerLimits, run

log = logging.getLogger(__name__)


def serve(
    file: Path, address: str, flags: Mapping[str, object], config: Path | None, state: Path, *, sandboxed: bool
) -> None:
    """Serve a team at `HOST:PORT` until stopped by a signal. Raises `SettingsError` if it cannot start."""
    host, port = http_address(address)
    must_be_free(host, port, "Choose another port: --http HOST:PORT")
    team = load_team(file)
    system = System()
    refusal = team.unserved_by_issuer(url_host(host))
    if refusal is not None:
        raise SettingsError(f"{refusal}.", "To serve only this machine: --http 127.0.0.1:PORT")
    shared = process_settings(flags, os.environ, config)
    lines = begin_log(shared)
    with ExitStack() as closing:
        process = Process(
            os.environ,
            Sandboxed() if sandboxed else None,
            telemetry=begin_telemetry(os.environ, lines, closing.callback),
            outbox_of=audit_outboxes(shared, state, os.environ, closing.callback),
        )
        builder = TenantBuilder(team, shared, process, config=config, state=state, log=lines, system=system)
        builder.check()
        keys = IssuerKeys(team.issuer, system)
        # Reads work without the ledger. If it were required, a load balancer would take every replica out of service.
        health = Health({"issuer": keys.reached}, {"ledger": partial(_reachable, builder.ledger)})
        served = f"{counted(len(team.tenant), 'tenant')} of {file}"
        ready = f"Serving {served} at http://{address}. Clients connect to {team.url} and sign in at {team.issuer}."
        app = application(builder, keys, health)
        run(app, host, port, health=health, limits=_server_limits(team), announcement=ready)


def _server_limits(team: Team) -> ServerLimits:
    limits = team.limits
    return ServerLimits(
        header_bytes=limits.header_bytes,
        connections=limits.connections,
        drain_seconds=limits.drain_seconds,
        grace_seconds=limits.grace_seconds,
    )


def application(builder: TenantBuilder, keys: IssuerKeys, health: Health) -> Starlette:
    """Return the application, with the tenants that the builder opens."""
    team = builder.team
    builder.is_leaving = lambda: health.is_leaving
    tenants = Tenants(builder, team.limits, builder.system)
    routes = [Mount(answers_path("{tenant}"), _answers(team, tenants))]
    page = builder.page(tenants, keys)
    if page is not None:
        routes.append(page)
    server = build_for(_resolve, builder.approval_lifetime(), builder.state_secrets)
    if builder.process.telemetry is not None:
        builder.process.telemetry.observe(server)
    beside = ProcessParts(health, routes, partial(_beside, builder, tenants))
    return team_application(server, team, tenants, keys=keys, tokens=builder.tokens(keys), process=beside)


@asynccontextmanager
async def _beside(builder: TenantBuilder, tenants: Tenants) -> AsyncGenerator[None]:
    """Receive decisions from services while the application serves, and close the ledger after it."""
    receivers = list(_receivers(builder, tenants))
    try:
        for receiver in receivers:
            receiver.begin()
        yield
    finally:
        with anyio.CancelScope(shield=True):
            for receiver in receivers:
                await receiver.aclose()
            await builder.ledger.aclose()


def _receivers(builder: TenantBuilder, tenants: Tenants) -> Iterator[Receiver]:
    """Yield the connections of all services by which people decide for tenants."""
    accounts: dict[str, dict[str, Settings]] = {}
    for tenant in builder.team.tenant:
        settings = builder.settings(tenant)
        for extension in () if tenant.caller_keys else settings.external_channels:
            accounts.setdefault(extension, {})[tenant.name] = settings
    for extension, of_tenants in accounts.items():
        yield from channel_door(extension).receivers(of_tenants, partial(_handler_of, builder.team, tenants, extension))


@asynccontextmanager
async def _handler_of(team: Team, tenants: Tenants, extension: str, name: str) -> AsyncGenerator[Handle | None]:
    """Open the account of a tenant, and return what handles the answers that a service delivers for it."""
    tenant = team.named(name)
    if tenant is None:
        yield None
        return
    async with tenants.lease(tenant) as account:
        yield account.decisions.get(extension)


async def _reachable(ledger: Ledger) -> bool:
    await ledger.revision()
    return True


def _resolve(ctx: ServerRequestContext[Any]) -> RequestContext:
    assert ctx.request is not None  # noqa: S101 - always set over HTTP
    return request_context(ctx.request)


def _answers(team: Team, tenants: Tenants) -> ASGIApp:
    """Route webhook answers to the tenant in their path. The webhook authenticates the approver."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        tenant = team.named(scope["path_params"]["tenant"])
        try:
            if tenant is not None and not tenant.caller_keys:
                async with tenants.lease(tenant) as account:
                    if account.answers is not None:
                        return await account.answers(scope, receive, send)
        except FastnError as error:
            log.error("a webhook answer could not be processed: %s", error)
            return await JSONResponse({"decided": False}, 503)(scope, receive, send)
        return await JSONResponse({"decided": False}, 404)(scope, receive, send)

    return answer
