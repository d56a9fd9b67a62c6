"""Build the client, guard, dispatcher and approval channel of one account from its settings."""

import hashlib
import json
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
from pydantic import JsonValue

from fastn_mcp.account.answer_reads import SharedReads
from fastn_mcp.account.resolved_call import Surroundings
from fastn_mcp.account.snapshot import AccountSnapshot
from fastn_mcp.audit.files import Keeping
from fastn_mcp.audit.log import FILE as AUDIT
from fastn_mcp.audit.log import foreign_code
from fastn_mcp.build.extensions import ChannelOpening, channel_door, foreign_in, sandbox_door
from fastn_mcp.build.startup import Process, Sandboxed, policy_file, require_known_tools, typed_seal
from fastn_mcp.build.stores import AccountStores, audit_at, ledger_at
from fastn_mcp.channels.external import ExternalChannel
from fastn_mcp.channels.group import ChannelGroup
from fastn_mcp.channels.page.inbox import InboxAccount
from fastn_mcp.channels.page.page import PAGE_FILE, ApprovalPage
from fastn_mcp.channels.terminal import TerminalChannel
from fastn_mcp.client.client import FastnClient
from fastn_mcp.client.exchange import Exchange, HttpExchange, headers
from fastn_mcp.client.proxy_and_tls import TransportOptions
from fastn_mcp.config.command_line import PROGRAM, CommandLine
from fastn_mcp.config.model import Settings
from fastn_mcp.config.paths import config_dir
from fastn_mcp.errors import NoKey, Refused, SettingsError, extra
from fastn_mcp.guard.approval.obtain import Approvals
from fastn_mcp.guard.budgets import Budgets, Limits
from fastn_mcp.guard.channel import Channel
from fastn_mcp.guard.guard import Guard
from fastn_mcp.guard.guarded_account import GuardedAccount
from fastn_mcp.guard.journal import ChangeJournal
from fastn_mcp.guard.judge import Judge
from fastn_mcp.guard.key_files import CallSecrets, KeyFileWriter, SecretValues, TypedSecrets
from fastn_mcp.guard.recorder import Recorder, record_fact
from fastn_mcp.guard.stops import Stops
from fastn_mcp.ledger.identity import bound_account
from fastn_mcp.policy.plan import PlanAccount
from fastn_mcp.policy.policy import Policy
from fastn_mcp.policy.rules import NO_RULES
from fastn_mcp.procedures.catalog import ALL_TOOLS
from fastn_mcp.procedures.dispatch import Dispatcher
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.redaction import is_own_key
from fastn_mcp.report.writer import About
from fastn_mcp.runtime import System
from fastn_mcp.server import log
from fastn_mcp.tools.operation import Call, Send
from fastn_mcp.tools.selection import EnabledTools
from fastn_mcp.tools.tool import AnyTool, Effect

if TYPE_CHECKING:
    from fastn_mcp.channels.approvers import ApproverAnswers
    from fastn_mcp.channels.notification import NotifyingChannel
    from fastn_mcp.channels.webhook.webhook import Webhook

_MAX_LOG_BYTES = 64 * 1024**2
"""Size at which the audit log is rotated."""


@dataclass(frozen=True, slots=True)
class AccountChannels:
    """Channels by which people decide about the approval requests of an account."""

    channel: Channel
    """Asks by all of them, and notifies people."""
    group: ChannelGroup
    webhook: "Webhook | None"
    page: ApprovalPage | None
    external: Mapping[str, ExternalChannel]
    """Channels of extensions, by the extension."""
    notifying: "NotifyingChannel | None"

    def begin(self) -> None:
        """Receive answers, and go on with the requests of earlier processes."""
        self.group.begin()
        if self.webhook is not None:
            self.webhook.begin()
        for each in self.external.values():
            each.begin()

    async def aclose(self) -> None:
        for each in (self.group, self.webhook, self.page, *self.external.values(), self.notifying):
            if each is not None:
                await each.aclose()


@dataclass(frozen=True, slots=True)
class AccountParts:
    """Everything that is open for one account."""

    settings: Settings
    client: FastnClient
    dispatch: Dispatcher
    guard: Guard
    stores: AccountStores
    inbox: InboxAccount
    channels: AccountChannels
    tools: tuple[AnyTool, ...]
    about: About
    process: Process
    """The process that opened it."""

    async def aclose(self) -> None:
        """Close everything, also while the task is cancelled."""
        with anyio.CancelScope(shield=True):
            await self.channels.aclose()
            await self.dispatch.aclose()
            await self.stores.audit.settle()
            await self.stores.ledger.aclose()
            self.stores.audit.close()

    @property
    def label(self) -> dict[str, JsonValue]:
        """Profile, host and environment of the account, for results."""
        return {name: each for name, each in self.settings.identity.items() if name != "key_ends"}


def policy_of(
    settings: Settings, environment: Mapping[str, str], program: CommandLine = PROGRAM, system: System | None = None
) -> Policy:
    """Build the policy from the mode, the policy file and the signed plan.

    Raises `SettingsError`, whose next step is a command of `program` that checks the file.
    """
    rules = NO_RULES
    plan = None
    file = policy_file(settings, environment)
    if file is not None:
        from fastn_mcp.policy.policy_file import load_rules  # deferred import: only if there is a file

        rules = load_rules(file, program)
    if settings.plan is not None:
        from fastn_mcp.policy.plan_file import signed  # deferred import: only if there is a plan

        *_, keys = plan_files(settings, environment)
        plan = signed(settings.plan, keys, plan_account_of(settings), now=(system or System()).now(), program=program)
    lifetime = settings.approval_minutes * 60.0
    wait = float(settings.approval_wait_seconds)
    live = settings.key_kind != "test"
    return Policy(settings.mode, rules, plan, live=live, approval_lifetime=lifetime, approval_wait=wait)


def plan_files(settings: Settings, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return the plan, its signatures and the keys of its signers; nothing without a plan."""
    if settings.plan is None:
        return ()
    from fastn_mcp.policy.plan_file import KEYS, signatures_of  # deferred import: only if there is a plan

    return settings.plan, signatures_of(settings.plan), settings.plan_keys or config_dir(environment) / KEYS


def account_parts(settings: Settings) -> dict[str, str]:
    """Return what selects a part of the account of the key, by its name for people."""
    parts = {
        "environment": settings.env,
        "space": settings.space_id,
        "tenant": settings.tenant_id,
        "organisation": settings.end_org_id,
    }
    return {what: value for what, value in parts.items() if value}


def account_of(settings: Settings) -> str:
    """Return the readable name of the account, which a plan names."""
    parts = [f"{what} {value}" for what, value in account_parts(settings).items()]
    return ", ".join([f"{settings.profile} at {settings.host}", *parts])


def plan_account_of(settings: Settings) -> PlanAccount:
    return PlanAccount(account_of(settings), _account_digest(settings))


def begin_log(settings: Settings) -> log.JsonLines:
    """Start logging as configured. Raises `SettingsError` if the log file cannot be written."""
    return log.begin(settings.log_level, settings.log_file, settings.secrets)


def assemble(
    settings: Settings, policy: Policy, state: Path, process: Process, no_key: NoKey | None = None
) -> AccountParts:
    """Build everything between a tool call and Fastn. `state` is the folder of the ledger and the audit log.

    With `no_key`, every call fails with that error.
    """
    system = _system_of(settings, process)
    stores = _stores(settings, state, process, system)
    foreign = [each.distribution for each in foreign_in(settings)]
    if foreign:
        record_fact(stores.audit, foreign_code(foreign))
    client = FastnClient(
        settings,
        exchange_of(settings, process.sandbox, system)(headers(settings)),
        system,
        store=stores.ledger if settings.shares else None,
        no_key=no_key,
    )
    journal = ChangeJournal(stores.ledger, stores.account, system, system.timestamp() if process.begins_anew else 0.0)
    budgets = Budgets(
        policy,
        stores.ledger,
        system,
        bound_account=stores.account,
        run=process.served.run if process.served else None,
    )
    stops = Stops(process.stops or stores.ledger, system)
    key_folder = state / "keys" if settings.reveal == "file" else None
    judge = Judge(
        _guarded_account(settings, key_folder, foreign),
        policy,
        budgets,
        ledger=stores.ledger,
        journal=journal,
        stops=stops,
        system=system,
        read=_read_only(client),
    )
    channels = channels_of(settings, stores, process)
    approvals = Approvals(
        judge,
        stores.ledger,
        journal,
        recorder=stores.recorder,
        system=system,
        channel=channels.channel,
        typed=stores.typed,
        stops=stops,
    )
    values = SecretValues(process.environment, settings.secret_env or [], settings.secrets)
    guard = Guard(
        judge,
        approvals,
        stores.recorder,
        journal=journal,
        client=client,
        secrets=CallSecrets(values, stores.typed, KeyFileWriter(key_folder) if key_folder else None),
        system=system,
    )
    snapshot = AccountSnapshot(system, settings.snapshot_seconds)
    client.changed = snapshot.forget
    dispatch = Dispatcher(
        SharedReads(client, snapshot, system),
        guard,
        stores.recorder,
        changes=journal,
        secrets=values,
    )
    inbox = InboxAccount(
        stores.account,
        stores.ledger,
        stores.recorder.decided,
        typed=stores.typed,
        tenant=process.served.name if process.served else "",
        limits=Limits(policy, budgets, stores.audit),
        dispatch=dispatch,
        presence=guard.decisions.presence,
    )
    if channels.page is not None:
        channels.page.connect(inbox)
    return AccountParts(
        settings=settings,
        client=client,
        dispatch=dispatch,
        guard=guard,
        stores=stores,
        inbox=inbox,
        channels=channels,
        tools=enabled_tools(settings),
        about=_about(settings, policy, state),
        process=process,
    )


def _system_of(settings: Settings, process: Process) -> System:
    """Return the clock and randomness of the process or tenant; with telemetry, also its spans."""
    served = process.served
    system = served.system if served else System()
    if process.telemetry is None:
        return system
    return process.telemetry.of_account(system, served.name if served else settings.profile)


def _guarded_account(settings: Settings, key_folder: Path | None, foreign: Sequence[str]) -> GuardedAccount:
    folder = str(key_folder) if key_folder else None
    return GuardedAccount(
        account_of(settings),
        may_own(settings.api_key),
        _account_digest(settings),
        surroundings=Surroundings(settings.env, folder, settings.end_org_id),
        tools=EnabledTools(disabled_tools(settings)),
        foreign_code=tuple(foreign),
    )


def _stores(settings: Settings, state: Path, process: Process, system: System) -> AccountStores:
    ledger = ledger_at(settings.ledger, state, system)
    tally = process.tally
    keeping = Keeping(_MAX_LOG_BYTES, settings.audit_keep_days)
    outbox = process.outbox_of(state / AUDIT) if process.outbox_of else None
    audit = audit_at(
        ledger,
        settings.ledger,
        state,
        system=system,
        keeping=keeping,
        on_entry=tally.entry if tally else None,
        outbox=outbox,
    )
    recorder = Recorder(audit, account_of(settings), system, tally)
    typed = TypedSecrets(ledger, partial(typed_seal, settings.state_secrets, state, system), system)
    account = bound_account(account_of(settings), _account_digest(settings))
    return AccountStores(account, state, ledger, audit=audit, recorder=recorder, typed=typed, system=system)


def channels_of(settings: Settings, stores: AccountStores, process: Process) -> AccountChannels:
    """Return the channels for requests that no elicitation form can show. Raises `SettingsError`.

    These are the page of the tenant and the webhook; without both, the approval page if a browser can show it, else
    `fastn-mcp approvals` at a terminal. Slack and notifications come besides.
    """
    served = process.served
    group = ChannelGroup(stores.ledger, stores.system, stores.account, served.name if served else "")
    tenant_page = served.page if served else None
    if tenant_page is not None:
        group.add(tenant_page)
    webhook = _webhook(settings, stores, process)
    if webhook is not None:
        group.add(webhook)
    page = None
    if tenant_page is None and webhook is None:
        if process.has_browser:
            file = stores.folder / PAGE_FILE
            page = ApprovalPage(stores.ledger, stores.system, webbrowser.open, page_file=file, program=process.program)
            group.add(page)
        elif served is not None:
            command = f"{process.program.to('approvals')}, for the tenant {served.name}"
            group.add(TerminalChannel(command, "on the server"))
        else:
            group.add(TerminalChannel(process.program.to("approvals")))
    external: dict[str, ExternalChannel] = {}
    for extension in settings.external_channels if process.stays else ():
        opening = _opening(extension, group, stores, process)
        external[extension] = channel_door(extension).open_channel(settings, opening)
        group.add(external[extension])
    channel: Channel = group
    notifying = None
    if settings.notify:
        with extra("notify", "notify is set"):
            # Deferred import: only if configured.
            from fastn_mcp.channels.notification import NotifyingChannel, services_of

        channel = notifying = NotifyingChannel(group, services_of(settings), stores.ledger, stores.system)
    return AccountChannels(channel, group, webhook, page=page, external=external, notifying=notifying)


def _webhook(settings: Settings, stores: AccountStores, process: Process) -> "Webhook | None":
    if settings.webhook_url is None:
        return None
    from fastn_mcp.channels.webhook.webhook import webhook_of  # deferred import: only if configured

    issuer = process.served.issuer if process.served else None
    is_only = process.served is None or process.served.page is None
    return webhook_of(settings, _answers(stores, process), issuer, stays=process.stays, only=is_only)


def _answers(stores: AccountStores, process: Process) -> "ApproverAnswers":
    from fastn_mcp.channels.approvers import ApproverAnswers  # deferred import: only if configured

    tenant = process.served.name if process.served else ""
    return ApproverAnswers(stores.account, tenant, stores.ledger, audit=stores.audit, system=stores.system)


def _opening(extension: str, group: ChannelGroup, stores: AccountStores, process: Process) -> ChannelOpening:
    """Return what the channel of an extension gets, to be asked beside those of the group."""
    return ChannelOpening(
        _answers(stores, process),
        partial(stores.recorder.decided, by=extension),
        process.served.issuer if process.served else None,
        tenant=process.served.name if process.served else "",
        follow=group.follow,
        only=not group.capabilities.identifies_people,
    )


def _about(settings: Settings, policy: Policy, state: Path) -> About:
    plan = policy.plan.digest if policy.plan else None
    return About(account_of(settings), policy.mode, policy.rules.digest or None, audit=str(state / AUDIT), plan=plan)


def _read_only(client: FastnClient) -> Send:
    """Return a `Send` that allows reads only, for previews. Raises `Refused` for any other effect."""

    async def read(call: Call) -> FastnObject:
        if call.effect is not Effect.READ:
            raise Refused(f"{call.tool_name()} is not a reading tool.")
        return await client.send(call)

    return read


def may_own(key: str) -> Callable[[FastnObject], bool]:
    """Return a check whether an API key record may belong to `key`: False only if the record rules it out."""
    return lambda record: is_own_key(key, record.model_dump()) is not False


def _account_digest(settings: Settings) -> str:
    """Digest of the key and its destination. An approval for one key does not hold for another."""
    parts = [settings.base_url, settings.api_key, settings.space_id, settings.tenant_id, settings.end_org_id]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def exchange_of(
    settings: Settings, sandbox: Sandboxed | None, system: System
) -> Callable[[Mapping[str, str]], Exchange]:
    """Return a factory of HTTP exchanges for given headers, with Fastn or with the in-process sandbox."""
    if sandbox is None:
        options = TransportOptions(settings.ca_file, settings.proxy, settings.proxy_from)
        return lambda sent: HttpExchange(settings.base_url, sent, options)
    return sandbox_door().exchanges(system.now, sandbox.file)


def disabled_tools(settings: Settings) -> dict[str, str]:
    """Return the disabled tools by name, each with the setting that disables it."""
    by = {
        tool.tool_name(): settings.disabled_by(tool.tool_name(), tool.toolset(), reads=tool.effect is Effect.READ)
        for tool in ALL_TOOLS
    }
    return {name: setting for name, setting in by.items() if setting is not None}


def enabled_tools(settings: Settings) -> tuple[AnyTool, ...]:
    """Return the tools that the settings enable. Raises `SettingsError` if none is left, or for an unknown name."""
    require_known_tools(settings)
    disabled = disabled_tools(settings)
    enabled = tuple(tool for tool in ALL_TOOLS if tool.tool_name() not in disabled)
    if not enabled:
        raise SettingsError(
            "The settings tools, exclude_tools and mode leave no tool.",
            "To list all tools, run without these settings: fastn-mcp tools",
        )
    return enabled
