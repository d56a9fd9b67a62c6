"""Notifications of approval requests, which decide nothing: a signed POST, for any receiver, Slack or Teams.

They are sent in the background: a receiver that is slow or down never delays a call. Imported only if configured.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.channels.slack.blocks import pieces, plain
from fastn_mcp.channels.webhook.webhook import WebhookSender
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import FastnError, SettingsError
from fastn_mcp.guard.approval_form import asker
from fastn_mcp.guard.caller import Announcement, ApprovalChannel
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.identity import account_name
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.records.formats import stamp
from fastn_mcp.runtime import System

log = logging.getLogger(__name__)

_ADDRESS = re.compile(r"[^\s<>()\"',;:|]+@[^\s<>()\"',;:|]+")

_RETRY_INTERVAL = 60.0
"""Seconds between two tries, each of several attempts, while the request is open. None of them takes longer."""


def _until(request: ApprovalRequest) -> str:
    return stamp(datetime.fromtimestamp(request.expires, UTC))


def _requester(request: ApprovalRequest) -> str:
    """Return who asks. People of some identity providers are named by their e-mail address, which is left out."""
    return _ADDRESS.sub("[e-mail address]", asker(request))


def _lines(request: ApprovalRequest, where: str) -> list[str]:
    requested = f"{request.tool}, asked by {_requester(request)} in the account {account_name(request.account)}."
    title = "A call still waits for an approval." if request.told else "A call waits for an approval."
    return [title, requested, f"Open until {_until(request)}.", where]


def generic(request: ApprovalRequest, where: str) -> dict[str, JsonValue]:
    return {
        "kind": "fastn-mcp approval waits",
        "reminder": bool(request.told),
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


_PAYLOADS: dict[str, Callable[[ApprovalRequest, str], dict[str, JsonValue]]] = {
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
        self,
        channel: ApprovalChannel,
        sender: WebhookSender,
        style: str,
        ledger: Ledger,
        system: System,
        remind_after: float | None = None,
    ) -> None:
        """`remind_after`: seconds after which they are told once more of a request that is still open."""
        self.capabilities = replace(channel.capabilities, notifies=True)
        self._channel = channel
        self._sender = sender
        self._body = _PAYLOADS[style]
        self._ledger = ledger
        self._system = system
        self._remind_after = remind_after
        self._telling = set[str]()
        self._receiver = f"{sender.host} ({style})"

    @property
    def url(self) -> str | None:
        return self._channel.url

    async def announce(self, request: ApprovalRequest) -> Announcement:
        """Publish a request on the channel, and begin to tell its approvers."""
        announced = await self._channel.announce(request)
        if request.id not in self._telling:
            self._sender.tasks.begin(self._tell(request, announced.where))
        recipients = " ".join(request.told) or f"A notification goes to {self._receiver}."
        return replace(announced, where=f"{announced.where} {recipients}")

    async def aclose(self) -> None:
        """Give up what was not delivered yet."""
        await self._sender.aclose()

    async def _tell(self, request: ApprovalRequest, where: str) -> None:
        """Notify, and remind if nobody has decided by then: each once, whichever process or repetition comes first."""
        self._telling.add(request.id)
        try:
            await self._deliver(1, request, where)
            if self._remind_after is not None:
                await self._system.sleep(max(0.0, request.created + self._remind_after - self._system.timestamp()))
                await self._deliver(2, request, where)
        except FastnError as lost:  # the ledger: the call itself says so
            log.warning("a notification was given up: %s", lost.what)
        finally:
            self._telling.discard(request.id)

    async def _deliver(self, number: int, request: ApprovalRequest, where: str) -> None:
        """Deliver the message of this number about a request that is open, until some process has delivered it."""
        while (current := await self._ledger.find(request.id)) and len(current.told) < number:
            if not current.is_open(now := self._system.timestamp()):
                return
            # For one try only, so that another process goes on if this one ends.
            if await self._ledger.use_nonce(f"notification {number} {request.id}", now + _RETRY_INTERVAL - 1, now):
                try:
                    await self._sender(to_json(self._body(current, where)))
                except FastnError as problem:
                    log.warning("a notification was not delivered: %s", problem.what)
                else:
                    done = "Reminded" if current.told else "Notified"
                    entry = f"{done} at {self._system.now():%H:%M} UTC: {self._receiver}."
                    await self._ledger.change_request(request.id, partial(ApprovalRequest.noted, told=entry))
                    return
            await self._system.sleep(_RETRY_INTERVAL)


def notifying(channel: ApprovalChannel, settings: Settings, ledger: Ledger, system: System) -> NotifyingChannel:
    """Return the channel with the configured notifications. Raises `SettingsError` if the secret is missing."""
    if settings.notify_url is None or settings.notify_secret is None:
        missing = "notify_url" if settings.notify_url is None else "notify_secret"
        setting = "remind_after" if settings.notify_url is None else "notify_url"
        raise SettingsError(
            f"{setting} is set, and {missing} is not.", f"Set FASTN_{missing.upper()}: docs/waiting.md."
        )
    if (settings.remind_after or 0) >= settings.approval_minutes * 60:
        raise SettingsError(
            f"remind_after is {settings.remind_after} seconds, after which a request has expired already.",
            f"Requests are open for {settings.approval_minutes} minutes: name fewer seconds.",
        )
    sender = WebhookSender(settings.notify_url, settings.notify_secret, system)
    return NotifyingChannel(channel, sender, settings.notify_style, ledger, system, settings.remind_after)
