"""Build one server for many people, each served by their own account."""

import logging
import os
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
from mcp.server import ServerRequestContext
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from fastn_mcp.build.account import (
    Instrumentation,
    Sandboxed,
    TenantContext,
    account_of,
    assemble,
    bound_account_of,
    not_instrumented,
    policy_of,
)
from fastn_mcp.build.ledger import ledger_at
from fastn_mcp.build.startup import SANDBOX_KEY, http_address, must_be_free, seal_keys
from fastn_mcp.build.telemetry import instrumentation_of
from fastn_mcp.config.command_line import kept_in, this_program
from fastn_mcp.config.load import load
from fastn_mcp.config.model import Settings, is_shared
from fastn_mcp.config.paths import TENANTS
from fastn_mcp.errors import FastnError, SettingsError
from fastn_mcp.fastn.names import counted
from fastn_mcp.guard.approval.flow import OutOfBandChannel
from fastn_mcp.guard.ledger.ledger import Ledger
from fastn_mcp.hosted.app import Health, ShutdownConfig, run, team_application
from fastn_mcp.hosted.approval_page import mounted
from fastn_mcp.hosted.approvers import TenantInbox
from fastn_mcp.hosted.authentication import request_context
from fastn_mcp.hosted.oidc import IssuerKeys
from fastn_mcp.hosted.response_mode import within
from fastn_mcp.hosted.sign_in import SignIn
from fastn_mcp.hosted.team_config import Team, Tenant, load_team, origin_of
from fastn_mcp.hosted.tenants import CallerAccount, ConcurrencyLimit, TenantAccount, Tenants
from fastn_mcp.runtime import System
from fastn_mcp.server import log as logs
from fastn_mcp.server.context import AccountContext, RequestContext
from fastn_mcp.server.handlers import build_for

log = logging.getLogger(__name__)


class TenantBuilder:
    """Opens accounts, as the team file and the environment say."""

    def __init__(
        self, team: Team, process: Settings, environment: Mapping[str, str], config: Path | None, state: Path,
        log: logs.JsonLines, system: System, *, sandboxed: bool,
        instrumentation: Callable[[str], Instrumentation] = not_instrumented,
    ) -> None:  # fmt: skip
        """`process` holds what all tenants share: a ledger that is a server, and what questions are sealed with.

        `instrumentation` makes the parts of a tenant of this name.
        """
        self.instrumentation = instrumentation
        self._ours = {"ledger": process.ledger, "state_secret": process.state_secret}
        self.sealed_with = seal_keys(process)
        self._team = team
        self._environment = environment
        self._config = config
        self._state = state
        self._log = log
        self._system, self._run = system, system.token()
        self.ledger = ledger_at(process.ledger, state, system)
        """Of the process: what was used once on the page is noted there."""
        self._sandbox = Sandboxed() if sandboxed else None

    def __call__(self, tenant: Tenant, own: CallerAccount | None) -> TenantAccount:
        """Raises `SettingsError`."""
        settings = self.settings(tenant, own)
        program = this_program(self._environment)
        policy = policy_of(settings, self._environment, program)
        folder = self._state / TENANTS / tenant.name
        if own is not None:
            folder = folder / "callers" / own.folder
        parts = assemble(
            settings,
            self._sandbox,
            policy,
            folder,
            self._environment,
            browser=False,
            tally=None,
            tenant=TenantContext(tenant.name, self._run, self._inbox(tenant), self._system),
            instrumentation=self.instrumentation(tenant.name),
            program=kept_in(program, folder),
        )
        answers = None
        if parts.webhook is not None and own is None:
            answers = Router(parts.webhook.mounted(f"{origin_of(self._team.url)}{_answers_path(tenant.name)}"))
        self._log.hide(*settings.secrets)

        async def close() -> None:
            await parts.aclose()
            self._log.forget(*settings.secrets)

        limits = self._team.limits
        return TenantAccount(
            AccountContext(parts.dispatch, parts.offered, parts.label),
            parts.ledger,
            parts.audit,
            bound_account_of(settings),
            ConcurrencyLimit(limits.calls, limits.queue, limits.queue_seconds),
            close,
            answers,
            None if own is None else own.principal,
        )

    def _inbox(self, tenant: Tenant) -> Callable[[Ledger], OutOfBandChannel] | None:
        if self._team.approvals is None or tenant.caller_keys:
            return None
        return partial(TenantInbox, self._team, tenant.name)

    def page(self, tenants: Tenants, keys: IssuerKeys, health: Health) -> Mount | None:
        """The approval page; None where there is none. Raises `SettingsError`."""
        team, approvals, url = self._team, self._team.approvals, self._team.page_url
        if approvals is None or url is None:
            return None
        if not self.sealed_with:
            raise SettingsError(
                "The team file has [approvals] but state_secret is not set, which seals sign-ins.",
                "Set FASTN_STATE_SECRET to the same 32 characters or more on each replica.",
            )
        secret = approvals.secret(self._environment)
        self._log.hide(secret)
        system = self._system
        sign_in = SignIn(team.trust, keys, approvals.client_id, secret, approvals.scopes, f"{url}/callback", system)
        return mounted(
            team, url, sign_in, self.sealed_with, tenants, self.ledger, lambda: health.is_leaving, system,
            shares_ledger=is_shared(self._ours["ledger"]),
        )  # fmt: skip

    def settings(self, tenant: Tenant, own: CallerAccount | None = None) -> Settings:
        """Raises `SettingsError`."""
        settings = tenant.settings(self._environment, self._config, own.key if own else None)
        settings = settings.model_copy(update=self._ours)
        if own is not None:
            settings = settings.model_copy(update={"profile": f"{tenant.name} {own.account}"})
        if self._sandbox is not None:
            there = {"api_key": SANDBOX_KEY, "base_url": "http://localhost", "auth": "header"}
            settings = settings.model_copy(update=there)
        return settings

    def approval_lifetime(self) -> float:
        """The longest of all tenants, in seconds: each ledger says how long its own requests can be answered."""
        return max(self.settings(tenant).approval_minutes for tenant in self._team.tenant) * 60.0

    def check(self) -> None:
        """All that can be wrong before somebody calls. Raises `SettingsError`."""
        seen: dict[str, str] = {}
        for tenant in self._team.tenant:
            settings = self.settings(tenant)
            policy_of(settings, self._environment, this_program(self._environment))
            account = account_of(settings)
            if not tenant.caller_keys and account in seen:
                raise SettingsError(
                    f"The tenants {seen[account]} and {tenant.name} use the same account, {account}.",
                    "Merge them into one tenant, or give each its own profile or env.",
                )
            seen[account] = tenant.name


def serve(
    file: Path, address: str, flags: Mapping[str, object], config: Path | None, state: Path, *, sandboxed: bool
) -> None:
    """Serve a team at `HOST:PORT`, until told to stop. Raises `SettingsError`."""
    host, port = http_address(address)
    must_be_free(host, port, "Name another port: --http HOST:PORT")
    team, system = load_team(file), System()
    process = _process(flags, os.environ)
    lines = logs.begin(process.log_level, process.log_file, process.secrets)
    with ExitStack() as closing:
        instrumentation = instrumentation_of(os.environ, lines, closing.callback)
        opening = TenantBuilder(
            team,
            process,
            os.environ,
            config,
            state,
            lines,
            system,
            sandboxed=sandboxed,
            instrumentation=instrumentation,
        )
        opening.check()
        keys = IssuerKeys(team.issuer, system)
        # Without the ledger reads go on: were it needed, a balancer would leave nobody to answer them.
        health = Health({"issuer": keys.reached}, {"ledger": partial(_reachable, opening.ledger)})
        limits = team.limits
        shutdown = ShutdownConfig(limits.drain_seconds, limits.grace_seconds, limits.connections, limits.header_bytes)
        served = f"{counted(len(team.tenant), 'tenant')} of {file}"
        said = f"Serving {served} at http://{address}. Clients connect to {team.url} and sign in at {team.issuer}."
        run(application(team, opening, keys, health, system), host, port, health, shutdown, said)


def application(team: Team, opening: TenantBuilder, keys: IssuerKeys, health: Health, system: System) -> Starlette:
    """The application, with the tenants that it opens."""
    tenants = Tenants(opening, team.limits, system)
    more = [Mount(_answers_path("{tenant}"), _answers(team, tenants))]
    if (page := opening.page(tenants, keys, health)) is not None:
        more.append(page)
    server = build_for(_resolve, opening.approval_lifetime(), opening.sealed_with)
    opening.instrumentation("").observe(server)
    app = team_application(server, team, tenants, keys, health, system, more)
    within(app, partial(_closed_at_the_end, opening.ledger))
    return app


@asynccontextmanager
async def _closed_at_the_end(ledger: Ledger) -> AsyncGenerator[None]:
    try:
        yield
    finally:
        with anyio.CancelScope(shield=True):
            await ledger.aclose()


_OF_THE_PROCESS = ("FASTN_LOG_LEVEL", "FASTN_LOG_FILE", "FASTN_LEDGER", "FASTN_STATE_SECRET")


def _process(flags: Mapping[str, object], environment: Mapping[str, str]) -> Settings:
    """What no tenant has a part in. Raises `SettingsError`."""
    variables = {name: environment[name] for name in _OF_THE_PROCESS if name in environment}
    return load({**flags, "api_key": "of-no-account"}, variables, None)


async def _reachable(ledger: Ledger) -> bool:
    await ledger.revision()
    return True


def _resolve(ctx: ServerRequestContext[Any]) -> RequestContext:
    assert ctx.request is not None  # noqa: S101 - this server is reached over HTTP alone
    return request_context(ctx.request)


def _answers_path(tenant: str) -> str:
    return f"/tenants/{tenant}"


def _answers(team: Team, tenants: Tenants) -> ASGIApp:
    """Answers of approvers, each to the tenant whose request it is. Who sent one is for the webhook to tell."""

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
