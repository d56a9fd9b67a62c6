"""Build the multi-tenant server, which serves each caller from the account of their tenant."""

import logging
import os
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from mcp.server import ServerRequestContext
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Mount, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from fastn_mcp.build.composition import account_of, assemble, begin_log, plan_files, policy_of
from fastn_mcp.build.startup import (
    SANDBOX_KEY,
    Process,
    Sandboxed,
    TenantContext,
    http_address,
    must_be_free,
    require_known_tools,
    seal_keys,
)
from fastn_mcp.build.stores import ledger_at
from fastn_mcp.build.telemetry import audit_outboxes, instruments_of, observe_requests
from fastn_mcp.config.addresses import url_host
from fastn_mcp.config.command_line import kept_in, this_program
from fastn_mcp.config.load import load
from fastn_mcp.config.model import Settings
from fastn_mcp.config.paths import TENANTS, file_identity
from fastn_mcp.errors import FastnError, SettingsError, extra
from fastn_mcp.guard.channel import Channel
from fastn_mcp.guard.seal import Seal
from fastn_mcp.hosted.app import Health, ProcessParts, run, team_application
from fastn_mcp.hosted.approval_page import TeamPageAccess
from fastn_mcp.hosted.approvers import TenantPage
from fastn_mcp.hosted.authentication import request_context
from fastn_mcp.hosted.claim_match import MachineIdentity
from fastn_mcp.hosted.oidc import IssuerKeys
from fastn_mcp.hosted.sign_in import SignIn
from fastn_mcp.hosted.team_config import Team, Tenant, load_team, origin_of
from fastn_mcp.hosted.tenants import CallerAccount, ConcurrencyLimit, TenantAccount, Tenants
from fastn_mcp.hosted.tokens import Tokens
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.policy.policy import Policy
from fastn_mcp.records.formats import counted
from fastn_mcp.runtime import System
from fastn_mcp.server import log as logs
from fastn_mcp.server.context import AccountContext, RequestContext
from fastn_mcp.server.handlers import build_for

if TYPE_CHECKING:
    from fastn_mcp.channels.slack.blocks import Reference
    from fastn_mcp.channels.slack.client import Payload, SlackSocket

log = logging.getLogger(__name__)


@dataclass(eq=False, repr=False)
class TenantBuilder:
    """Opens the accounts of tenants, as configured by the team file and the environment."""

    team: Team
    shared: Settings
    """Settings that all tenants share: the ledger setting and the state secret."""
    process: Process
    config: Path | None
    state: Path
    log: logs.JsonLines
    system: System

    def __post_init__(self) -> None:
        self.is_leaving: Callable[[], bool] = lambda: False
        """Whether the process is shutting down. Its application sets it."""
        self.state_secrets = seal_keys(self.shared)
        self.ledger = ledger_at(self.shared.ledger, self.state, self.system)
        """Ledger of the process, for the single-use tokens of the approval page."""
        self.workload_keys = {issuer: IssuerKeys(issuer, self.system) for issuer in self.team.workloads}
        self._run = self.system.token()

    def __call__(self, tenant: Tenant, own: CallerAccount | None) -> TenantAccount:
        """Open an account. Raises `SettingsError` if its settings are invalid."""
        settings = self.settings(tenant, own)
        program = this_program(self.process.environment)
        # Before they are read, so that a later change is noticed.
        plan = plan_files(settings, self.process.environment) if tenant.machine else ()
        versions = list(map(_version, plan))
        policy = self._policy(settings)
        folder = self.state / TENANTS / tenant.name
        if own is not None:
            folder = folder / "callers" / own.folder
        context = TenantContext(tenant.name, self._run, self.team.issuer, page=self._page(tenant), system=self.system)
        process = replace(self.process, program=kept_in(program, folder), tenant=context, stops=self.ledger)
        parts = assemble(settings, policy, folder, process)
        parts.guard.decisions.is_leaving = self.is_leaving
        parts.client.stored_key = lambda: self.settings(tenant, own).api_key
        parts.client.key_hint = tenant.key_hint
        parts.client.on_new_key = "Call again: the new key is used from now on."
        answers = None
        webhook = parts.channels.webhook
        if webhook is not None and own is None:
            answers = Router(webhook.mounted(f"{origin_of(self.team.url)}{_answers_path(tenant.name)}"))
        parts.channels.group.begin()
        slack = parts.channels.slack  # the process receives decisions, for all accounts of an app
        self.log.add_secrets(*settings.secrets)

        async def close() -> None:
            await parts.aclose()
            self.log.remove_secrets(*settings.secrets)

        limits = self.team.limits
        return TenantAccount(
            AccountContext(parts.dispatch, parts.tools, parts.label),
            parts.inbox,
            parts.stores.audit,
            limit=ConcurrencyLimit(limits.calls, limits.queue, limits.queue_seconds),
            close=close,
            answers=answers,
            owner=own,
            is_outdated=lambda: parts.client.is_outdated or versions != list(map(_version, plan)),
            decide=slack and slack.decisions,
        )

    def _page(self, tenant: Tenant) -> Channel | None:
        if self.team.page is None or tenant.caller_keys or tenant.machine is not None:
            return None
        return TenantPage(self.team, tenant.name)

    def tokens(self, keys: IssuerKeys) -> Tokens:
        """Return the verifier of access tokens: of the team's issuer, whose keys these are, and of workloads."""
        trusts = self.team.workloads.items()
        workloads = {issuer: Tokens(trust, self.workload_keys[issuer], self.system) for issuer, trust in trusts}
        return Tokens(self.team.trust, keys, self.system, workloads)

    def page(self, tenants: Tenants, keys: IssuerKeys) -> Mount | None:
        """Return the approval page, or None if there is none. Raises `SettingsError` if it lacks a secret."""
        sign_in = self.sign_in(keys)
        if sign_in is None:
            return None
        seal = Seal(self.state_secrets, self.system)
        shared = self.ledger if self.shared.shares else None
        access = TeamPageAccess(
            self.team, sign_in, seal, tenants=tenants, ledger=self.ledger, shared=shared, system=self.system
        )
        return access.mounted(self.is_leaving)

    def sign_in(self, keys: IssuerKeys) -> SignIn | None:
        """Return the sign-in of the approval page, or None if there is none. Raises `SettingsError`."""
        team = self.team
        approvals = self.team.page
        url = self.team.page_url
        if approvals is None or url is None:
            return None
        if not self.state_secrets:
            raise SettingsError(
                "The team file has [approvals], but state_secret, which seals sign-ins, is not set.",
                "Set FASTN_STATE_SECRET to the same 32 characters or more on each replica.",
            )
        secret = approvals.secret(self.process.environment)
        self.log.add_secrets(secret)
        trust = replace(team.trust, subject_claim=approvals.subject_claim or team.subject_claim)
        machines = team.machines_of(team.issuer)
        return SignIn(
            trust, keys, approvals, secret=secret, redirect=f"{url}/callback", system=self.system, machines=machines
        )

    def settings(self, tenant: Tenant, own: CallerAccount | None = None) -> Settings:
        """Return the settings of a tenant, with the caller's key if `own`. Raises `SettingsError` if invalid."""
        settings = tenant.settings(self.process.environment, self.config, own.key if own else None)
        shared_settings = {"ledger": self.shared.ledger, "state_secret": self.shared.state_secret}
        settings = settings.model_copy(update=shared_settings)
        if own is not None:
            settings = settings.model_copy(update={"profile": f"{tenant.name} {own.short_digest}"})
        if self.process.sandbox is not None:
            sandbox_settings = {"api_key": SANDBOX_KEY, "base_url": "http://localhost", "auth": "header"}
            settings = settings.model_copy(update=sandbox_settings)
        return settings

    def _policy(self, settings: Settings) -> Policy:
        environment = self.process.environment
        policy = policy_of(settings, environment, this_program(environment), self.system)
        return replace(policy, step_up=self.team.step_up)

    def approval_lifetime(self) -> float:
        """Longest approval lifetime of any tenant, in seconds. Each request expires by its own ledger."""
        return max(self.settings(tenant).approval_minutes for tenant in self.team.tenant) * 60.0

    def check(self) -> None:
        """Check every tenant at startup. Raises `SettingsError` on the first error."""
        for _, result in self.checks():
            if isinstance(result, SettingsError):
                raise result
        for machine, result in self.machine_checks():
            if isinstance(result, SettingsError):
                log.warning("the machine %s is refused: %s", machine.name, result)

    def checks(self) -> Iterator[tuple[Tenant, Settings | SettingsError]]:
        """Yield each tenant with its settings, or with what is wrong with them, its policy or its webhook."""
        seen: dict[str, str] = {}
        for tenant in self.team.tenant:
            try:
                yield tenant, self._checked(tenant, seen)
            except SettingsError as error:
                yield tenant, error

    def machine_checks(self) -> Iterator[tuple[MachineIdentity, Policy | SettingsError]]:
        """Yield each machine with its policy, or with why it cannot run: that stops nobody else."""
        for machine in self.team.machine:
            try:
                yield machine, self._policy(self.settings(self.team.tenant_for(machine)))
            except SettingsError as error:
                yield machine, error

    def _checked(self, tenant: Tenant, seen: dict[str, str]) -> Settings:
        settings = self.settings(tenant)
        try:
            require_known_tools(settings)
        except SettingsError as error:
            raise SettingsError(f"The tenant {tenant.name} cannot be served. {error.what}") from None
        self._policy(settings)
        if settings.webhook_url is not None:
            # Deferred import: only if configured.
            from fastn_mcp.channels.webhook.webhook import secret_and_approvers

            secret_and_approvers(settings, self.team.issuer)
        if any(settings.slack_tokens):
            with extra("slack", "Slack is set up"):
                from fastn_mcp.channels.slack.channel import slack_approvers  # deferred import: only if configured

            slack_approvers(settings, self.team.issuer)
        account = account_of(settings)
        if not tenant.caller_keys and account in seen:
            raise SettingsError(
                f"The tenants {seen[account]} and {tenant.name} use the same account, {account}.",
                "Merge them into one tenant, or give each its own profile or env.",
            )
        seen[account] = tenant.name
        return settings


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
    shared = process_settings(flags, os.environ)
    lines = begin_log(shared)
    with ExitStack() as closing:
        process = Process(
            os.environ,
            Sandboxed() if sandboxed else None,
            instruments=instruments_of(os.environ, lines, closing.callback),
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
        run(app, host, port, health=health, limits=team.limits, announcement=ready)


def application(builder: TenantBuilder, keys: IssuerKeys, health: Health) -> Starlette:
    """Return the application, with the tenants that the builder opens."""
    team = builder.team
    builder.is_leaving = lambda: health.is_leaving
    tenants = Tenants(builder, team.limits, builder.system)
    routes = [Mount(_answers_path("{tenant}"), _answers(team, tenants))]
    page = builder.page(tenants, keys)
    if page is not None:
        routes.append(page)
    server = build_for(_resolve, builder.approval_lifetime(), builder.state_secrets)
    observe_requests(server, builder.process.instruments)
    beside = ProcessParts(health, routes, partial(_beside, builder, tenants))
    return team_application(server, team, tenants, keys=keys, tokens=builder.tokens(keys), process=beside)


@asynccontextmanager
async def _beside(builder: TenantBuilder, tenants: Tenants) -> AsyncGenerator[None]:
    """Receive decisions from Slack while the application serves, and close the ledger after it."""
    sockets = list(_slack_sockets(builder, tenants))
    try:
        for socket in sockets:
            socket.begin()
        yield
    finally:
        with anyio.CancelScope(shield=True):
            for socket in sockets:
                await socket.aclose()
            await builder.ledger.aclose()


def _slack_sockets(builder: TenantBuilder, tenants: Tenants) -> "Iterator[SlackSocket]":
    """Yield a connection for each Slack app. What comes by it decides for the tenants of that app only."""
    apps: dict[tuple[str, str], set[str]] = {}
    for tenant in builder.team.tenant:
        settings = builder.settings(tenant)
        if settings.slack_app_token is not None and not tenant.caller_keys:
            apps.setdefault((settings.slack_app_token, settings.slack_url), set()).add(tenant.name)
    for (token, url), names in apps.items():
        from fastn_mcp.channels.slack.client import SlackSocket  # deferred import: only if configured

        yield SlackSocket(token, url, partial(_decide_in_slack, builder.team, tenants, names))


async def _decide_in_slack(
    team: Team, tenants: Tenants, names: set[str], payload: "Payload", about: "Reference"
) -> dict[str, Any] | None:
    """Handle what came by the connection of an app, for the tenants of these `names`."""
    from fastn_mcp.channels.slack.blocks import notice  # deferred import: only if configured

    tenant = team.named(about.tenant)
    if tenant is not None and tenant.name in names and not tenant.caller_keys:
        async with tenants.lease(tenant) as account:
            if account.decide is not None:
                return await account.decide(payload, about)
    log.warning("a message from Slack names no tenant of its app")
    return notice("This request belongs to no tenant that decides through this app. Nothing was decided.")


_OF_THE_PROCESS = (
    *("FASTN_LOG_LEVEL", "FASTN_LOG_FILE", "FASTN_LEDGER", "FASTN_STATE_SECRET"),
    "FASTN_AUDIT_EXPORT",
)


def process_settings(flags: Mapping[str, object], environment: Mapping[str, str]) -> Settings:
    """Load the settings of the process, which all tenants share. Raises `SettingsError` if invalid."""
    variables = {name: environment[name] for name in _OF_THE_PROCESS if name in environment}
    return load({**flags, "api_key": "of-no-account"}, variables, None)


async def _reachable(ledger: Ledger) -> bool:
    await ledger.revision()
    return True


def _resolve(ctx: ServerRequestContext[Any]) -> RequestContext:
    assert ctx.request is not None  # noqa: S101 - always set over HTTP
    return request_context(ctx.request)


def _version(file: Path) -> tuple[int, ...] | None:
    """Return what changes with a file; None if there is none."""
    try:
        return file_identity(file.stat())
    except OSError:
        return None


def _answers_path(tenant: str) -> str:
    return f"/tenants/{tenant}"


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
