"""Notifications of approval requests, which decide nothing: a signed POST, for any receiver, Slack or Teams.

They are sent in the background: a receiver that is slow or down never delays a call. Imported only if configured.
"""

import logging
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.channels.webhook.payloads import pieces, plain
from fastn_mcp.channels.webhook.webhook import WebhookSender
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import FastnError, SettingsError
from fastn_mcp.guard.approval_form import asker
from fastn_mcp.guard.channel import Announcement, ApprovalChannel
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState
from fastn_mcp.ledger.identity import account_name
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.records.formats import stamp
from fastn_mcp.runtime import System

log = logging.getLogger(__name__)

_ADDRESS = re.compile(r"[^\s<>()\"',;:|]+@[^\s<>()\"',;:|]+")

_PAUSE = 30.0
"""Seconds between two tries, each of several attempts, while the request is open."""


def _until(request: ApprovalRequest) -> str:
    return stamp(datetime.fromtimestamp(request.expires, UTC))


def _requester(request: ApprovalRequest) -> str:
    """Return who asks. People of some identity providers are named by their e-mail address, which is left out."""
    return _ADDRESS.sub("[e-mail address]", asker(request))


def _lines(request: ApprovalRequest, where: str) -> list[str]:
    asked = f"{request.tool}, asked by {_requester(request)} in the account {account_name(request.account)}."
    return ["A call waits for an approval.", asked, f"Open until {_until(request)}.", where]


def generic(request: ApprovalRequest, where: str) -> dict[str, JsonValue]:
    return {
        "kind": "fastn-mcp approval waits",
        "version": 1,
        "tool": request.tool,
        "account": account_name(request.account),
        "requester": _requester(request),
        "where": where,
        "until": _until(request),
    }


def slack(request: ApprovalRequest, where: str) -> dict[str, JsonValue]:
    """Return the body for an incoming webhook of Slack. Its texts are plain: Slack interprets nothing in them."""
    title, *lines = _lines(request, where)
    return {
        "text": title,
        "blocks": [{"type": "section", "text": plain(next(pieces(line, 3000)))} for line in (title, *lines)],
    }


def teams(request: ApprovalRequest, where: str) -> dict[str, JsonValue]:
    """Return an adaptive card for a workflow of Teams. In a RichTextBlock, Teams interprets no Markdown."""
    title, *lines = _lines(request, where)
    card: dict[str, JsonValue] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            {"type": "TextBlock", "text": title, "weight": "Bolder", "wrap": True},
            *({"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": line}]} for line in lines),
        ],
    }
    attachment: JsonValue = {"contentType": "application/vnd.microsoft.card.adaptive", "content": card}
    return {"type": "message", "attachments": [attachment]}


_STYLES: dict[str, Callable[[ApprovalRequest, str], dict[str, JsonValue]]] = {
    "generic": generic,
    "slack": slack,
    "teams": teams,
}
"""Bodies by style, of a request and the sentence that says where it is decided.

No body has arguments, names of targets or e-mail addresses, nor anything by which the request could be decided. The
sentences of a request contain all of these.
"""


class NotifyingChannel:
    """Approval channel whose approvers are told of each request once."""

    def __init__(
        self, channel: ApprovalChannel, sender: WebhookSender, style: str, ledger: Ledger, system: System
    ) -> None:
        self.capabilities = replace(channel.capabilities, notifies=True)
        self._channel = channel
        self._sender = sender
        self._body = _STYLES[style]
        self._ledger = ledger
        self._system = system

    @property
    def url(self) -> str | None:
        return self._channel.url

    async def announce(self, request: ApprovalRequest) -> Announcement:
        """Publish a request on the channel, and begin to tell its approvers."""
        announced = await self._channel.announce(request)
        self._sender.begin(self._notify(request, announced.where))
        return announced

    async def aclose(self) -> None:
        """Give up what was not delivered yet."""
        await self._sender.aclose()

    async def _notify(self, request: ApprovalRequest, where: str) -> None:
        with suppress(FastnError):  # a ledger that is lost: the call itself says so
            # Once for a request, whichever process or repetition of the call comes first.
            if await self._ledger.use_nonce(f"notified {request.id}", request.expires, self._system.timestamp()):
                await self._deliver(request, where)

    async def _deliver(self, request: ApprovalRequest, where: str) -> None:
        body = to_json(self._body(request, where))
        current: ApprovalRequest | None = request
        while current is not None and current.state is RequestState.OPEN and self._system.timestamp() < current.expires:
            try:
                await self._sender(body)
                break
            except FastnError as problem:
                log.warning("a notification was not delivered: %s", problem.what)
            await self._system.sleep(_PAUSE)
            current = await self._ledger.find(request.id)


def notifying(channel: ApprovalChannel, settings: Settings, ledger: Ledger, system: System) -> NotifyingChannel:
    """Return the channel with the configured notifications. Raises `SettingsError` if the secret is missing."""
    if settings.notify_url is None or settings.notify_secret is None:
        raise SettingsError(
            "notify_url is set, and notify_secret is not.", "Set FASTN_NOTIFY_SECRET: docs/approvals.md."
        )
    sender = WebhookSender(settings.notify_url, settings.notify_secret, system)
    return NotifyingChannel(channel, sender, settings.notify_style, ledger, system)
