"""The webhook channel: signed requests to a receiver, with retries. Imported only if a webhook is configured.

A lost request is sent again when the agent repeats its call, at most once per `RESEND_AFTER` seconds.

It does not use `client`: it must not know Fastn's keys, and Fastn's rate limits do not apply. No redirects, proxies or
cookies. Only the status of a response counts; its body is not read.
"""

import logging
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urlsplit

import anyio
import httpx2
from pydantic import JsonValue
from pydantic_core import to_json
from standardwebhooks import Webhook as StandardWebhook
from starlette.applications import Starlette
from starlette.routing import Route

from fastn_mcp.channels.approvers import (
    Approver,
    ApproverAnswers,
    ApproverSecret,
    able_approvers,
    digest,
    load_approvers,
)
from fastn_mcp.channels.http_server import BackgroundServer
from fastn_mcp.channels.webhook.answers import WebhookAnswers, path_of
from fastn_mcp.config.addresses import host_and_port, url_host
from fastn_mcp.config.model import Settings
from fastn_mcp.errors import Refused, SettingsError, os_reason
from fastn_mcp.guard.approval_form import approved_elsewhere
from fastn_mcp.guard.channel import Announcement, Channel, ChannelCapabilities, NobodyAble
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.identity import account_name
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.runtime import System

log = logging.getLogger(__name__)

ATTEMPTS = 4
ATTEMPT_TIMEOUT = 10.0
"""Timeout of one attempt in seconds."""

_FIRST_PAUSE = 0.5
_RETRIED_STATUSES = {408, 425, 429}


def payload(request: ApprovalRequest, url: str) -> dict[str, JsonValue]:
    """Return the payload for any receiver: untruncated plain text, which it does not interpret.

    Answers go to the server at `url`. Times are in Unix seconds.
    """
    lines = request.question.lines()
    return {
        "kind": "fastn-mcp approval",
        "version": 1,
        "grant": request.id,
        "requester": request.principal,
        "requester_name": request.asked_by,
        "account": account_name(request.account),
        "asks": request.required,
        "expected": request.expected,
        "lines": [*lines],
        "question": digest(lines),
        "preview": request.question.data(),
        "approvals": {"needed": request.needed, "by": list(request.approvers)},
        "callback": url + path_of(request.id),
        "path": path_of(request.id),
        "created": int(request.created),
        "expires": int(request.expires),
    }


def signature_headers(secret: str, at: datetime, id_: str, body: bytes) -> dict[str, str]:
    """Return the Standard Webhooks headers of a body. A secret without `whsec_` is used as the key itself."""
    key = StandardWebhook(secret if secret.startswith("whsec_") else secret.encode())
    signature = key.sign(id_, at.astimezone(UTC), body.decode())
    return {"webhook-id": id_, "webhook-timestamp": str(int(at.timestamp())), "webhook-signature": signature}


class WebhookSender:
    """Posts messages with retries. All attempts share one id; each is signed at its own time."""

    def __init__(
        self, url: str, secret: str, system: System, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._url = httpx2.URL(url)
        self._secret = secret
        self._system = system
        self._transport = transport
        self.host = urlsplit(url).netloc
        """Displayed host. The rest of the address can be a secret."""

    @cached_property
    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            headers={"Content-Type": "application/json", "User-Agent": "fastn-mcp"},
            timeout=ATTEMPT_TIMEOUT,
            verify=False if self._url.scheme == "http" else httpx2.create_ssl_context(),
            limits=httpx2.Limits(max_connections=8, max_keepalive_connections=2, keepalive_expiry=5.0),
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # no cookies are stored
            transport=self._transport,
        )

    async def __call__(self, body: bytes) -> None:
        """Send a message. Raises `Refused` if the receiver does not accept it."""
        attempts = 0
        problem = ""
        id_ = self._system.token()
        while attempts < ATTEMPTS:
            if attempts:
                await self._system.sleep(_FIRST_PAUSE * 2 ** (attempts - 1) * (0.5 + 0.5 * self._system.share()))
            attempts += 1
            status = await self._attempt(body, id_)
            if isinstance(status, int) and 200 <= status < 300:
                return
            problem = status if isinstance(status, str) else f"it answered {status}"
            if isinstance(status, int) and status not in _RETRIED_STATUSES and status < 500:
                break
        tries = "1 attempt" if attempts == 1 else f"{attempts} attempts, the last one"
        raise Refused(
            f"The webhook at {self.host} did not accept the request ({tries}: {problem}).",
            "Tell the operator that the receiver is down or misconfigured; call again once it is up.",
        )

    async def _attempt(self, body: bytes, id_: str) -> int | str:
        """Send one attempt. Return the status, or a description of the network error."""
        signed = signature_headers(self._secret, self._system.now(), id_, body)
        try:
            with anyio.fail_after(ATTEMPT_TIMEOUT):
                async with self._client.stream("POST", self._url, content=body, headers=signed) as response:
                    return response.status_code
        except (TimeoutError, httpx2.TimeoutException):
            return f"no answer within {ATTEMPT_TIMEOUT:.0f} seconds"
        except httpx2.ConnectError:
            return "no connection could be made"
        except httpx2.TransportError:
            return "the connection broke"

    async def aclose(self) -> None:
        if "_client" in self.__dict__:
            await self._client.aclose()


RESEND_AFTER = 60.0
"""Seconds after which a repeated call sends its request again."""


@dataclass(slots=True)
class _Delivery:
    """Delivery state of a request: its last success and failure, and the lock of the sender."""

    expires: float
    sent: float = float("-inf")
    failed: float = float("-inf")
    problem: Refused | None = None
    """Its last failure; None once it was delivered."""
    sending: anyio.Lock = field(default_factory=anyio.Lock)


@dataclass(frozen=True, slots=True)
class AnswerAddress:
    """Address for answers: where this server listens, and the public `url` if it differs.

    Without a `host` it does not listen, because another server on the same state or an outer application does.
    """

    host: str | None
    port: int
    url: str | None = None


class Webhook(Channel):
    """Approval channel by webhook.

    Unless it is the `only` one that tells people apart, other approvers of a call may decide on another channel.
    """

    name = "webhook"

    def __init__(
        self,
        sender: WebhookSender,
        approvers: Mapping[str, Approver],
        answers: WebhookAnswers,
        ledger: Ledger,
        system: System,
        address: AnswerAddress,
        *,
        only: bool = True,
    ) -> None:
        self._sender = sender
        self._approvers = approvers
        self._answers = answers
        self._ledger = ledger
        self._system = system
        self._address = address
        self._url = address.url
        self._server: BackgroundServer | None = None
        self._deliveries: dict[str, _Delivery] = {}
        self._only = only

    @property
    def capabilities(self) -> ChannelCapabilities:
        return ChannelCapabilities(identifies_people=True, notifies=True)

    async def ask(self, request: ApprovalRequest) -> Announcement:
        """Send the request unless it was just sent. Raises `Refused` if the receiver does not take it."""
        elsewhere = approved_elsewhere(request)
        if elsewhere is not None:
            raise NobodyAble(elsewhere, "A person has to make the change in the dashboard.")
        able_approvers(self._approvers.values(), request, enough=self._only)
        await self._deliver(request)
        return Announcement((f"by the webhook at {self._sender.host}",))

    def begin(self) -> None:
        """Start listening if the port is fixed, so that approvers can already know the address."""
        if self._address.port:
            self._listen()

    def mounted(self, url: str) -> list[Route]:
        """Return the routes of answers for an application at `url`, and do not listen."""
        self._address = AnswerAddress(None, 0, self._address.url)
        self._url = self._address.url or url
        return self._answers.routes()

    async def aclose(self) -> None:
        """Stop listening. Open requests stay in the ledger."""
        server = self._server
        self._server = None
        if server is not None:
            await server.stop()
        await self._sender.aclose()

    async def _deliver(self, request: ApprovalRequest) -> None:
        url = self._listen()
        now = self._system.timestamp()
        known = self._deliveries.items()
        self._deliveries = {id_: each for id_, each in known if each.expires > now or each.sending.locked()}
        delivery = self._deliveries.setdefault(request.id, _Delivery(request.expires))
        began = self._system.monotonic()
        async with delivery.sending:  # concurrent calls share one delivery and its failure
            if self._system.monotonic() - delivery.sent < RESEND_AFTER:
                return
            if delivery.problem is not None and delivery.failed > began:
                raise Refused(delivery.problem.what, delivery.problem.next_step)
            try:
                await self._sender(to_json(payload(request, url)))
            except Refused as problem:
                delivery.failed = self._system.monotonic()
                delivery.problem = problem
                raise
            delivery.sent = self._system.monotonic()
            delivery.problem = None

    def _listen(self) -> str:
        """Return the address for answers, listening if needed. Raises `Refused` if this server cannot listen."""
        address = self._address
        if address.host is None or (self._server is not None and not self._server.ended):
            return self._url or ""
        family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
        try:
            listener = socket.create_server((address.host, address.port), family=family, backlog=64)
        except OSError as error:
            if not address.port or not _is_listening(address.host, address.port):
                raise Refused(
                    f"Answers to the webhook cannot be received at port {address.port} ({os_reason(error)}).",
                    "Tell the operator to correct the setting approval_listen.",
                ) from error
            # Another server of the same person, on the same ledger, which receives the answers for this one too.
            log.warning("port %s is taken: answers are left to the server that has it", address.port)
            return self._url or f"http://{url_host(address.host)}:{address.port}"
        self._server = BackgroundServer(Starlette(routes=self._answers.routes()), listener, "approval endpoint")
        self._url = address.url or f"http://{url_host(address.host)}:{listener.getsockname()[1]}"
        return self._url


def _is_listening(host: str, port: int) -> bool:
    with suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


_WILDCARD_HOSTS = ("0.0.0.0", "0", "::")  # noqa: S104 - nothing is bound to it here


def webhook_of(
    settings: Settings, answers: ApproverAnswers, issuer: str | None = None, *, stays: bool, only: bool = True
) -> Webhook | None:
    """Return the configured webhook, or None. Raises `SettingsError` if its settings are invalid.

    `issuer` is the issuer of a team's sign-ins. `stays` says whether this process runs long enough to receive an
    answer. If not, another process on the same state has to receive it, and without a configured address the webhook
    is not used. `only`: see `Webhook`.
    """
    if settings.webhook_url is None:
        return None
    secret, approvers = secret_and_approvers(settings, issuer)
    host, port = host_and_port(settings.approval_listen or "127.0.0.1:0", lowest=0)
    if host in _WILDCARD_HOSTS and settings.approval_url is None:
        raise SettingsError(
            "approval_listen is every address of this machine, but approval_url is not set.",
            "Set approval_url to the address that approvers can reach.",
        )
    address = AnswerAddress(host, port, settings.approval_url)
    if not stays:
        if address.url is None and not port:
            return None
        address = AnswerAddress(None, 0, address.url or f"http://{settings.approval_listen}")
    sender = WebhookSender(settings.webhook_url, secret, answers.system)
    return Webhook(
        sender,
        approvers,
        WebhookAnswers(approvers, answers),
        ledger=answers.ledger,
        system=answers.system,
        address=address,
        only=only,
    )


def secret_and_approvers(settings: Settings, issuer: str | None) -> tuple[str, Mapping[str, Approver]]:
    """Return the webhook's secret and approvers. Raises `SettingsError` if one is missing or invalid."""
    if settings.webhook_secret is None or settings.approvers is None:
        missing = "webhook_secret" if settings.webhook_secret is None else "approvers"
        raise SettingsError(
            f"webhook_url is set, but {missing} is not.", f"Set FASTN_{missing.upper()}: docs/webhook.md."
        )
    approvers = load_approvers(settings.approvers, issuer)
    if not settings.external_channels:
        approvers = {name: each for name, each in approvers.items() if each.credential is not None}
    if any(approver.credential == ApproverSecret(settings.webhook_secret) for approver in approvers.values()):
        raise SettingsError(
            "webhook_secret is also the secret of an approver.",
            "Give the webhook and each approver a secret of their own.",
        )
    return settings.webhook_secret, approvers
