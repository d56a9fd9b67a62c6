"""Build the webhook that the settings ask for. Imported only where one is set up: it brings Starlette and OpenSSL."""

from fastn_mcp.channels.webhook.answers import WebhookAnswers
from fastn_mcp.channels.webhook.approvers import ApproverSecret, load_approvers
from fastn_mcp.channels.webhook.payloads import generic, slack
from fastn_mcp.channels.webhook.webhook import Door, Webhook, WebhookSender
from fastn_mcp.config.addresses import host_and_port
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import SettingsError
from fastn_mcp.guard.audit.log import Audit
from fastn_mcp.guard.ledger.ledger import Ledger
from fastn_mcp.runtime import System

_ANYWHERE = ("0.0.0.0", "::")  # noqa: S104 - nothing is bound to it here


def webhook_of(
    settings: Settings, account: str, ledger: Ledger, audit: Audit, system: System, *, stays: bool
) -> Webhook | None:
    """The webhook; None where none is set up. Raises `SettingsError`.

    `stays` says whether this process is there to hear an answer. One that is not leaves it to another on the same
    state, and cannot ask where no address of that one is set.
    """
    if settings.webhook_url is None:
        return None
    if settings.webhook_secret is None or settings.approvers is None:
        missing = "webhook_secret" if settings.webhook_secret is None else "approvers"
        raise SettingsError(
            f"webhook_url is set, and {missing} is not.", f"Set FASTN_{missing.upper()}: docs/approvals.md."
        )
    approvers = load_approvers(settings.approvers)
    if any(one.credential == ApproverSecret(settings.webhook_secret) for one in approvers.values()):
        raise SettingsError("webhook_secret is also the secret of an approver.", "Give each of them its own.")
    door = _door(settings)
    if not stays:
        if door.url is None and not door.port:
            return None
        door = Door(None, 0, door.url or f"http://{settings.approval_listen}")
    posting = WebhookSender(settings.webhook_url, settings.webhook_secret, system)
    deciding = WebhookAnswers(approvers, account, ledger, audit, system)
    body = slack if settings.webhook_style == "slack" else generic
    return Webhook(posting, body, approvers, deciding, ledger, system, door)


def _door(settings: Settings) -> Door:
    host, port = host_and_port(settings.approval_listen or "127.0.0.1:0", lowest=0)
    if host in _ANYWHERE and settings.approval_url is None:
        raise SettingsError(
            "approval_listen is every address of this machine, but approval_url is not set.",
            "Set approval_url to the address that approvers can reach.",
        )
    return Door(host, port, settings.approval_url)
