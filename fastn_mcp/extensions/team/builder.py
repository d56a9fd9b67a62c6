"""Open the accounts of tenants."""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from starlette.routing import Mount, Router

from fastn_mcp.build.composition import account_of, assemble, plan_files, policy_of
from fastn_mcp.build.extensions import OWN, PROCESS_SECTIONS, channel_door
from fastn_mcp.build.startup import (
    SANDBOX_KEY,
    Process,
    ServedAccount,
    require_known_tools,
    seal_keys,
)
from fastn_mcp.build.stores import ledger_at
from fastn_mcp.config.command_line import kept_in, this_program
from fastn_mcp.config.load import load, read_file
from fastn_mcp.config.model import Settings
from fastn_mcp.config.paths import TENANTS, file_identity
from fastn_mcp.config.sections import EXTENSIONS, ChannelSection
from fastn_mcp.errors import SettingsError
from fastn_mcp.extensions.team.approval_page import TeamPageAccess
from fastn_mcp.extensions.team.approvers import TenantPage
from fastn_mcp.extensions.team.claim_match import MachineIdentity
from fastn_mcp.extensions.team.oidc import IssuerKeys
from fastn_mcp.extensions.team.sign_in import SignIn
from fastn_mcp.extensions.team.team_config import Team, Tenant, origin_of
from fastn_mcp.extensions.team.tenants import CallerAccount, ConcurrencyLimit, TenantAccount, Tenants
from fastn_mcp.extensions.team.tokens import Tokens
from fastn_mcp.guard.channel import Channel
from fastn_mcp.guard.seal import Seal
from fastn_mcp.policy.policy import Policy
from fastn_mcp.runtime import System
from fastn_mcp.server import log as logs
from fastn_mcp.server.context import AccountContext

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
        served = ServedAccount(tenant.name, self._run, self.team.issuer, page=self._page(tenant), system=self.system)
        process = replace(self.process, program=kept_in(program, folder), served=served, stops=self.ledger)
        parts = assemble(settings, policy, folder, process)
        parts.guard.decisions.is_leaving = self.is_leaving
        parts.client.stored_key = lambda: self.settings(tenant, own).api_key
        parts.client.key_hint = tenant.key_hint
        parts.client.on_new_key = "Call again: the new key is used from now on."
        answers = None
        webhook = parts.channels.webhook
        if webhook is not None and own is None:
            answers = Router(webhook.mounted(f"{origin_of(self.team.url)}{answers_path(tenant.name)}"))
        parts.channels.group.begin()
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
            decisions={extension: channel.decisions for extension, channel in parts.channels.external.items()},
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
        asks_nobody = tenant.machine is not None or tenant.caller_keys
        foreign = {
            name: section
            for name, section in self.shared.extensions.items()
            if name not in OWN and not (asks_nobody and isinstance(section, ChannelSection))
        }
        settings = settings.model_copy(update={EXTENSIONS: {**foreign, **settings.extensions}})
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
        for extension in settings.external_channels:
            channel_door(extension).check_settings(settings, self.team.issuer)
        account = account_of(settings)
        if not tenant.caller_keys and account in seen:
            raise SettingsError(
                f"The tenants {seen[account]} and {tenant.name} use the same account, {account}.",
                "Merge them into one tenant, or give each its own profile or env.",
            )
        seen[account] = tenant.name
        return settings


def _version(file: Path) -> tuple[int, ...] | None:
    """Return what changes with a file; None if there is none."""
    try:
        return file_identity(file.stat())
    except OSError:
        return None


def answers_path(tenant: str) -> str:
    return f"/tenants/{tenant}"


_OF_THE_PROCESS = ("FASTN_LOG_LEVEL", "FASTN_LOG_FILE", "FASTN_LEDGER", "FASTN_STATE_SECRET")


def process_settings(flags: Mapping[str, object], environment: Mapping[str, str], config: Path | None) -> Settings:
    """Load the settings of the process, which all tenants share. Raises `SettingsError` if invalid.

    Of the configuration file it has the tables of extensions, without our own channels: these are a tenant's.
    """
    variables = {name: environment[name] for name in _OF_THE_PROCESS if name in environment}
    file = read_file(config)
    place = partial(file.place_in_extension, profile=None)
    sections = PROCESS_SECTIONS.read(file.tables_of_extensions(None), environment, place)
    shared = {
        name: section
        for name, section in sections.items()
        if name not in OWN or not isinstance(section, ChannelSection)
    }
    return load({**flags, "api_key": "of-no-account", EXTENSIONS: shared}, variables, None)
