"""Notifications of approval requests by Apprise, which decide nothing. Imported only if `notify` is set.

A message has the tool, who asks, the account, where the request is decided and until when. It has no argument, no name
of a target, no sentence of the request and no e-mail address.

Apprise blocks, so each message is sent by a thread in the background: a service that is slow or down never delays a
call. Its URLs are secrets: whatever is logged or shown names a service, and the number of its URL.
"""

import asyncio
import logging
import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import cast

import anyio
from apprise import Apprise, AppriseAsset, AppriseAttachment, NotifyBase, NotifyFormat, NotifyType

from fastn_mcp.channels.background import BackgroundTasks
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import FastnError
from fastn_mcp.guard.approval_form import Answer, asker
from fastn_mcp.guard.channel import Announcement, Channel, ChannelCapabilities
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.identity import account_name
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.records.formats import stamp
from fastn_mcp.runtime import System

log = logging.getLogger(__name__)

TITLE = "A call waits for an approval"

_STEP_TIMEOUT = 10.0
"""Seconds for connecting to a service, and for each of its answers."""

_ATTEMPT_TIMEOUT = 45.0
"""Seconds for one message, which takes several steps by SMTP. What is given up too early is delivered twice."""

_RETRY_INTERVAL = 60.0
"""Seconds between two attempts while the request is open. No attempt takes longer."""

_MAX_THREADS = 16
"""Messages that are being sent at a time."""

_MAX_NAME = 80

_ADDRESS = re.compile(r"[^\s<>()\"',;:|]+@[^\s<>()\"',;:|]+")
_HIDDEN_ADDRESS = "[e-mail address]"
_HTTP_STATUS = re.compile(r"\berror=([1-5]\d\d)\b")

_ASSET = AppriseAsset(
    app_id="fastn-mcp",
    app_desc="fastn-mcp",
    app_url="",
    image_url_mask="",
    image_url_logo="",
    image_path_mask=False,
    storage_mode="memory",  # nothing is written to disk
    pgp_autogen=False,
    pem_autogen=False,
    async_mode=False,  # in this thread
    service_timeout=0,
    language="en",
)

# What Apprise and the libraries below it log can hold a URL. Its results have what is needed of it.
for _name in ("apprise", "oauthlib", "requests_oauthlib", "urllib3"):
    logging.getLogger(_name).addHandler(logging.NullHandler())
    logging.getLogger(_name).propagate = False
logging.getLogger("apprise").setLevel(logging.WARNING)


@dataclass(frozen=True, slots=True)
class Service:
    """Service of one URL in `notify`."""

    name: str
    """Apprise's name of it, with a number if it is not the first of this name."""
    number: int
    """Number of its URL, from 1."""
    url: str = field(repr=False)


def services_of(settings: Settings) -> list[Service]:
    """Return the services in `notify`. Raises `SettingsError` for a URL that cannot be used."""
    services: list[Service] = []
    known = Counter[str]()
    for number, url in enumerate(settings.notify or (), 1):
        try:
            name = str(_load(url).service_name)
        except ValueError as problem:
            raise settings.error("notify", f"URL {number} ({url.partition('://')[0]}) {problem}") from None
        known[name] += 1
        services.append(Service(name if known[name] == 1 else f"{name} {known[name]}", number, url))
    return services


def _load(url: str) -> NotifyBase:
    """Return what Apprise sends by. Raises `ValueError` that says what is wrong with a URL, and does not show it."""
    service = Apprise.instantiate(url, asset=_ASSET)  # pyright: ignore[reportUnknownMemberType] - untyped in part
    if service is None:
        raise ValueError("is incomplete, or names a service that Apprise does not know or that needs another library")
    templates = cast("Sequence[str]", service.templates)
    if "{schema}://" in templates or service.category != "native":  # it names neither a host nor an account
        raise ValueError("is for notifications on this machine, not for a service")
    if not service.verify_certificate:
        raise ValueError("has verify=no, but certificates are always verified")
    template = getattr(service, "template", None)
    if getattr(service, "attach", None) or (isinstance(template, AppriseAttachment) and len(template)):
        raise ValueError("has an attachment or a template, but the text of a message is fixed")
    service.redirects = False
    service.retry = 0  # the channel tries again
    service.socket_connect_timeout = min(service.socket_connect_timeout, _STEP_TIMEOUT)
    service.socket_read_timeout = min(service.socket_read_timeout, _STEP_TIMEOUT)
    return service


def message(request: ApprovalRequest, where: str) -> str:
    """Return the text about a request; `where` is the sentence that says where it is decided."""
    until = stamp(datetime.fromtimestamp(request.expires, UTC))
    lines = [
        f'{request.tool}, asked by "{requester(request)}" in the account {account_name(request.account)}.',
        f"Open until {until}.",
        where,
    ]
    return _ADDRESS.sub(_HIDDEN_ADDRESS, "\n".join(lines))


def requester(request: ApprovalRequest) -> str:
    """Return who asks, in words of letters, digits and hyphens. E-mail addresses are left out.

    People and clients choose their names, and many services show text as Markdown or with mentions and links of their
    own. They interpret nothing in such words.
    """
    parts = _ADDRESS.split(asker(request)[:_MAX_NAME])
    return f" {_HIDDEN_ADDRESS} ".join(map(_plain_words, parts)).strip()


def _plain_words(text: str) -> str:
    letters = (letter if _is_plain(letter) else " " for letter in unicodedata.normalize("NFC", text))
    words = (word.strip("-") for word in "".join(letters).split())
    return " ".join(filter(None, words))


def _is_plain(letter: str) -> bool:
    return letter == "-" or letter.isalnum() or unicodedata.category(letter) in ("Mn", "Mc")


def send(url: str, text: str) -> str | None:
    """Send a message to the service of a URL. Return why the service did not take it; None if it did."""
    try:
        apprise = Apprise(_load(url), asset=_ASSET)
        result = apprise.notify(  # pyright: ignore[reportUnknownMemberType] - untyped in part
            text,
            TITLE,
            notify_type=NotifyType.WARNING,  # with less, services for incidents open none
            body_format=NotifyFormat.TEXT,
        )
    except Exception as error:  # of one of many plugins; its text can hold the URL
        return f"Apprise failed ({type(error).__name__})"
    attempts = [attempt for each in result.results for attempt in each.attempts]
    if any(attempts):  # `result` also counts a failure as a success where the URL has `optional=yes`
        return None
    status = _HTTP_STATUS.search(" ".join(entry.message for entry in result.logs()))
    return f"HTTP {status[1]}" if status else "no connection, or it was refused"


class NotifyingChannel(Channel):
    """Channel whose approvers are notified of each request once."""

    def __init__(self, channel: Channel, services: Sequence[Service], ledger: Ledger, system: System) -> None:
        self.name = channel.name
        self._channel = channel
        self._services = services
        self._ledger = ledger
        self._system = system
        self._tasks = BackgroundTasks()
        self._threads = threading.Semaphore(_MAX_THREADS)
        self._notifying = set[str]()
        """Ids of the requests that this process is notifying people of."""

    @property
    def capabilities(self) -> ChannelCapabilities:
        return replace(self._channel.capabilities, notifies=True)

    async def ask(self, request: ApprovalRequest) -> Answer | Announcement | None:
        """Publish a request on the channel, and begin to notify its approvers."""
        announced = await self._channel.ask(request)
        if not isinstance(announced, Announcement):
            return announced
        if request.id not in self._notifying:
            self._notifying.add(request.id)
            self._tasks.begin(self._notify(request.id, announced.sentence(request)))
        names = ", ".join(service.name for service in self._services)
        told = " ".join(request.told) or f"A notification goes to {names}."
        return replace(announced, notes=(*announced.notes, told))

    async def update(self, request: ApprovalRequest, changes: Sequence[Change]) -> bool:
        return await self._channel.update(request, changes)

    async def aclose(self) -> None:
        """Give up what was not delivered yet."""
        await self._tasks.aclose()

    async def _notify(self, approval_id: str, where: str) -> None:
        """Notify by each service once, whichever process comes first, and try again while the request is open."""
        try:
            await asyncio.gather(*(self._notify_by(service, approval_id, where) for service in self._services))
        finally:
            self._notifying.discard(approval_id)

    async def _notify_by(self, service: Service, approval_id: str, where: str) -> None:
        try:
            while not await self._attempt(service, approval_id, where):
                await self._system.sleep(_RETRY_INTERVAL)
        except FastnError as lost:  # the ledger: the call itself says so
            log.warning("a notification was given up: %s", lost.what)

    async def _attempt(self, service: Service, approval_id: str, where: str) -> bool:
        """Notify by a service, unless that was done or is no longer needed. Return whether nothing is left to do."""
        now = self._system.timestamp()
        request = await self._ledger.find(approval_id)
        if request is None or not request.is_open(now) or request.is_notified_by(service.name):
            return True
        # For one attempt only, so that another process goes on if this one ends.
        nonce = f"notification {service.name} {approval_id}"
        if not await self._ledger.use_nonce(nonce, now + _RETRY_INTERVAL - 1, now):
            return False
        problem = await self._send_in_thread(service.url, message(request, where))
        if problem is not None:
            log.warning("%s (URL %s) did not take a notification: %s", service.name, service.number, problem)
            return False
        minute = f"{self._system.now():%H:%M}"
        notified = partial(ApprovalRequest.with_notification, service=service.name, minute=minute)
        await self._ledger.change_request(approval_id, notified)
        return True

    async def _send_in_thread(self, url: str, text: str) -> str | None:
        if not self._threads.acquire(blocking=False):
            return "too many notifications are being sent"
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[str | None] = loop.create_future()

        def settle(problem: str | None) -> None:
            if not outcome.done():
                outcome.set_result(problem)

        def work() -> None:
            try:
                problem = send(url, text)
            finally:
                self._threads.release()
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(settle, problem)

        # A daemon, as a thread of anyio is not: while it waits for a service, the process can end.
        threading.Thread(target=work, name="notification", daemon=True).start()
        with anyio.move_on_after(_ATTEMPT_TIMEOUT):
            return await outcome
        return f"no answer within {_ATTEMPT_TIMEOUT:.0f} seconds"
