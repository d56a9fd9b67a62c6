"""Build the ledger and the webhook that the settings ask for."""

import logging
import platform
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import JsonValue

from fastn_mcp import install_extra
from fastn_mcp.channels.webhook.answers import WebhookAnswers
from fastn_mcp.channels.webhook.approvers import ApproverSecret, load_approvers
from fastn_mcp.channels.webhook.payloads import generic, slack
from fastn_mcp.channels.webhook.webhook import Door, Webhook, WebhookSender
from fastn_mcp.config.model import Settings, host_and_port, is_shared
from fastn_mcp.errors import SettingsError
from fastn_mcp.guard.audit.files import Keeping
from fastn_mcp.guard.audit.log import FILE as AUDIT
from fastn_mcp.guard.audit.log import Audit, AuditFile
from fastn_mcp.guard.ledger.ledger import Ledger
from fastn_mcp.runtime import System

log = logging.getLogger(__name__)

_SQLITE = "sqlite:"


def ledger_at(setting: str | None, state: Path, system: System) -> Ledger:
    """The ledger that the setting names, by default a file in the folder `state`. Raises `SettingsError`.

    Nothing is opened yet.
    """
    if is_shared(setting):
        return _shared(str(setting), system)
    from fastn_mcp.guard.ledger.sqlite import SqliteLedger

    return SqliteLedger(str(file_of(setting, state)))


def audit_at(
    ledger: Ledger,
    setting: str | None,
    state: Path,
    system: System,
    keeping: Keeping | None = None,
    told: Callable[[Mapping[str, JsonValue]], object] | None = None,
) -> AuditFile:
    """The audit log in the folder `state`, whose place `ledger` keeps."""
    return AuditFile(state / AUDIT, system, told, ledger=ledger, name=audit_name(setting, state), keeping=keeping)


def audit_name(setting: str | None, state: Path) -> str:
    """What the ledger calls the audit log in the folder `state`: replicas have one each, on machines of their own."""
    path = str((state / AUDIT).resolve())
    return f"{platform.node()}:{path}" if is_shared(setting) else path


def file_of(setting: str | None, state: Path) -> Path:
    """The file of a ledger that is one."""
    from fastn_mcp.guard.ledger.sqlite import FILE

    if setting is None:
        return state / FILE
    return Path(setting.removeprefix(_SQLITE)).expanduser()


def _shared(url: str, system: System) -> Ledger:
    try:
        from fastn_mcp.guard.ledger.valkey.ledger import ValkeyLedger  # only where a server is named: it is an extra
        from fastn_mcp.guard.ledger.valkey.server import parse
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "valkey":
            raise
        raise SettingsError(
            "The setting ledger names a server, and the library for it is not installed.",
            f"Run: {install_extra('valkey')}",
        ) from None
    try:
        address = parse(url)
        if (weakness := address.weakness) is not None:
            log.warning("The shared ledger at %s: %s", address.shown, weakness)
        return ValkeyLedger(address, system)
    except ValueError as error:
        raise SettingsError(f"The setting ledger (environment FASTN_LEDGER) {error}.", "See docs/hosting.md.") from None


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
        raise SettingsError("webhook_secret is the secret of an approver too.", "Give each of them its own.")
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
            "approval_listen is every address of this machine, and approval_url is not set.",
            "Set approval_url to where approvers reach it.",
        )
    return Door(host, port, settings.approval_url)
