"""Choose the channel by which people decide about the approval requests of an account."""

import webbrowser
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastn_mcp.build.ledger import AccountStores
from fastn_mcp.build.process import Process
from fastn_mcp.channels.page.inbox import InboxAccount
from fastn_mcp.channels.page.page import PAGE_FILE, ApprovalPage
from fastn_mcp.channels.terminal import TerminalChannel
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import extra
from fastn_mcp.guard.budgets import Limits
from fastn_mcp.guard.channel import ApprovalChannel

if TYPE_CHECKING:
    from fastn_mcp.channels.approver_answers import ApproverAnswers
    from fastn_mcp.channels.notification import NotifyingChannel
    from fastn_mcp.channels.slack.channel import SlackChannel
    from fastn_mcp.channels.webhook.webhook import Webhook


@dataclass(frozen=True, slots=True)
class ChosenChannel:
    channel: ApprovalChannel
    webhook: "Webhook | None"
    slack: "SlackChannel | None"
    opened: "Sequence[ApprovalPage | Webhook | SlackChannel | NotifyingChannel]"
    """What is closed with the account, the webhook and Slack included."""

    @property
    def page(self) -> ApprovalPage | None:
        return next((each for each in self.opened if isinstance(each, ApprovalPage)), None)


def choose_channel(settings: Settings, stores: AccountStores, process: Process, limits: Limits) -> ChosenChannel:
    """Return the channel for requests that no elicitation form can show. Raises `SettingsError`.

    That is the channel of the tenant, else the webhook, else the approval page if a browser can show it, else
    `fastn-mcp approvals` at a terminal. Each of them can be combined with Slack and with notifications.
    """
    webhook, tenant = _webhook(settings, stores, process), process.tenant
    opened: list[ApprovalPage | Webhook | SlackChannel | NotifyingChannel] = [] if webhook is None else [webhook]
    channel: ApprovalChannel
    if tenant is not None and tenant.channel is not None:
        channel = tenant.channel(webhook)
    elif webhook is not None:
        channel = webhook
    elif process.has_browser:
        record = stores.recorder.decided
        account = InboxAccount(stores.account, stores.ledger, record, stores.typed, limits=limits)
        channel = ApprovalPage(account, stores.system, webbrowser.open, stores.folder / PAGE_FILE, process.program)
        opened.append(channel)
    elif tenant is not None:
        channel = TerminalChannel(f"{process.program.to('approvals')}, for the tenant {tenant.name}", "on the server")
    else:
        channel = TerminalChannel(process.program.to("approvals"))
    if (slack := _slack(settings, channel, stores, process)) is not None:
        channel = slack
        opened.append(slack)
    if settings.notify_url is not None or settings.remind_after is not None:
        from fastn_mcp.channels.notification import notifying  # deferred import: only if configured

        channel = notifying(channel, settings, stores.ledger, stores.system)
        opened.append(channel)
    return ChosenChannel(channel, webhook, slack, opened)


def _webhook(settings: Settings, stores: AccountStores, process: Process) -> "Webhook | None":
    if settings.webhook_url is None:
        return None
    from fastn_mcp.channels.webhook.webhook import webhook_of  # deferred import: only if configured

    issuer = process.tenant.issuer if process.tenant else None
    return webhook_of(settings, _answers(stores, process), issuer, stays=process.stays)


def _answers(stores: AccountStores, process: Process) -> "ApproverAnswers":
    from fastn_mcp.channels.approver_answers import ApproverAnswers  # deferred import: only if configured

    tenant = process.tenant.name if process.tenant else ""
    return ApproverAnswers(stores.account, tenant, stores.ledger, stores.audit, stores.system)


def _slack(
    settings: Settings, channel: ApprovalChannel, stores: AccountStores, process: Process
) -> "SlackChannel | None":
    if not any(settings.slack_tokens) or not process.stays:
        return None
    with extra("slack", "Slack is set up"):
        # Deferred import: only if configured.
        from fastn_mcp.channels.slack.channel import SlackChannel, slack_approvers

    approvers = slack_approvers(settings, process.tenant and process.tenant.issuer)
    return SlackChannel(
        settings, channel, approvers, _answers(stores, process), process.tenant.name if process.tenant else ""
    )
