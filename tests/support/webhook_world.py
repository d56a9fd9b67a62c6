"""An account whose questions go to a receiver in this process, and approvers who sign with keys of their own."""

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import anyio.lowlevel
import httpx2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from typing_extensions import override

from fastn_mcp.channels.approvers import Approver, ApproverAnswers, load_approvers
from fastn_mcp.channels.group import ChannelGroup
from fastn_mcp.channels.webhook.answers import AnswerResponse, WebhookAnswers
from fastn_mcp.channels.webhook.webhook import AnswerAddress, Webhook, WebhookSender
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.key_files import SecretValues
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.policy.policy import Policy
from support.policy_files import rules_of
from support.values import not_none
from support.world import World

C = TypeVar("C")
SECRET = "a secret of our receiver, of a good length"
URL = "https://hooks.example.com/services/T0/B0/XyZ"
ELSEWHERE = AnswerAddress(None, 0, "https://approvals.example.com")
"""Answers are received by another server."""


def public(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()


def _signature(key: Ed25519PrivateKey, path: str, data: bytes) -> str:
    body = json.loads(data)
    text = f"v1:POST:{path}:{body['timestamp']}:{body['nonce']}:{hashlib.sha256(data).hexdigest()}"
    return "v1=" + key.sign(text.encode()).hex()


def signed_approval(
    key: Ed25519PrivateKey, request: str, approver: str = "dana", typed: str | None = None, at: float | None = None
) -> dict[str, Any]:
    """Return the content and the headers that approve a request."""
    answer = {"grant": request, "decision": "approve", "approver": approver, "typed": typed}
    answer |= {"timestamp": int(at or time.time()), "nonce": secrets.token_urlsafe(16)}
    data = json.dumps(answer).encode()
    return {"content": data, "headers": {"x-fastn-mcp-signature": _signature(key, f"/approvals/{request}", data)}}


def approvers_file(folder: Path, text: str) -> Path:
    path = folder / "approvers.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


@dataclass
class Receiver(httpx2.AsyncBaseTransport):
    """Answers with these statuses, or fails so, and from then on takes everything; what came is kept."""

    does: list[int | Exception] = field(default_factory=list[int | Exception])
    came: list[httpx2.Request] = field(default_factory=list[httpx2.Request])

    @override
    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.came.append(request)
        await anyio.lowlevel.checkpoint()  # others go on meanwhile, as over a network
        does = self.does.pop(0) if self.does else 204
        if isinstance(does, Exception):
            raise does
        return httpx2.Response(does, headers={"Location": "https://elsewhere.example/", "Set-Cookie": "kept=1"})

    @property
    def questions(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.came]


@dataclass
class Signer:
    """An approver with a private key, and what they send unless told otherwise."""

    name: str
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    sent: int = 0

    def body(self, world: "WebhookWorld", question: dict[str, Any], decision: str, /, **more: Any) -> dict[str, Any]:
        self.sent += 1
        typed = {"typed": question["expected"]} if decision == "approve" and question["expected"] else {}
        body = {
            "grant": question["grant"],
            "decision": decision,
            "approver": self.name,
            "timestamp": int(world.clock.at.timestamp()),
            "nonce": f"{self.name}-{self.sent:020}",
        }
        return body | typed | more

    def signature(self, path: str, data: bytes) -> str:
        return _signature(self.key, path, data)


class WebhookWorld(World):
    """`dana` and `kim` may approve everything, unless `approvers` says otherwise, where DANA and KIM are their keys."""

    def __init__(self, folder: Path, policy: str = "", approvers: str | None = None) -> None:
        super().__init__(folder, Policy(rules=rules_of(folder, policy)) if policy else None)
        self.dana, self.kim, self.stranger = Signer("dana"), Signer("kim"), Signer("mallory")
        text = (
            approvers or f'[dana]\npublic_key = "{public(self.dana.key)}"\n[kim]\npublic_key = "{public(self.kim.key)}"'
        )
        text = text.replace('"DANA"', f'"{public(self.dana.key)}"').replace('"KIM"', f'"{public(self.kim.key)}"')
        self.approvers: dict[str, Approver] = load_approvers(approvers_file(folder, text))
        self.receiver = Receiver()
        self.deciding = WebhookAnswers(self.approvers, self.answers())
        self.desk = ChannelGroup(self.ledger, self.system, "test", "")
        self.desk.add(self.asking())
        self.dispatch = self.dispatching(SecretValues({}, []), None)

    def answers(self, tenant: str = "") -> ApproverAnswers:
        return ApproverAnswers("test", tenant, self.ledger, self.audit, self.system)

    def asking(self, receiver: Receiver | None = None, address: AnswerAddress = ELSEWHERE) -> Webhook:
        """The webhook, as a process that has just started has it."""
        posting = WebhookSender(URL, SECRET, self.system, receiver or self.receiver)
        return Webhook(posting, self.approvers, self.deciding, self.ledger, self.system, address)

    async def answer(
        self, signer: Signer, question: dict[str, Any], decision: str = "approve", /, **more: Any
    ) -> AnswerResponse:
        """What becomes of an answer that is signed as it should be."""
        data = json.dumps(signer.body(self, question, decision, **more)).encode()
        path = f"/approvals/{question['grant']}"
        return await self.deciding(question["grant"], signer.signature(path, data), data)

    async def asked(self, call: Any) -> dict[str, Any]:
        """Return the pending request as its receiver has it."""
        assert isinstance(await self.call(call), PendingApproval)
        return self.receiver.questions[-1]

    async def request(self, question: dict[str, Any]) -> ApprovalRequest:
        """Return the request that the receiver was asked about."""
        return not_none(await self.ledger.find(question["grant"]))

    async def asked_about(self, call: C) -> tuple[C, dict[str, Any]]:
        """Return the call with its pending request."""
        return call, await self.asked(call)


def signed_headers(request: httpx2.Request) -> Sequence[str]:
    return [request.headers[f"webhook-{name}"] for name in ("timestamp", "id", "signature")]
