"""Out-of-band approvals of tenants: by their own webhook, and safe from guessing."""

import hashlib
import json
import secrets
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from identity_provider import listening
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from team_world import HEAD, META, Caller, TeamWorld, modern, request
from webhook_world import WebhookWorld, approvers_file, public
from world import Clock

from fastn_mcp.channels.page.sessions import PageSessions
from fastn_mcp.guard.approval.request import PendingApproval
from fastn_mcp.guard.ledger.ledger import RequestState
from fastn_mcp.tools.customers import DeleteCustomer, ListCustomers

pytestmark = pytest.mark.anyio

GUESSES = 10_000
ALL = "fastn:read fastn:write fastn:destroy fastn:admin"
NO_FORMS: dict[str, Any] = {**META, "io.modelcontextprotocol/clientCapabilities": {}}


def tenant(name: str, hook: str) -> str:
    return f"""
[[tenant]]
name = "{name}"
approval_wait_seconds = 0
subjects = ["of-{name}"]
api_key_env = "ACME_KEY"
mode = "guarded"
webhook_url = "{hook}/{name}"
webhook_secret_env = "HOOK"
approvers = "{name}/approvers.toml"
"""


def signed(key: Ed25519PrivateKey, question: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
    """Return an approver's signed approval of a request."""
    answer = {
        "grant": question["grant"], "decision": "approve", "approver": "dana", "typed": question["expected"],
        "timestamp": int(time.time()), "nonce": secrets.token_urlsafe(16),
    }  # fmt: skip
    data = json.dumps(answer).encode()
    text = f"v1:POST:{question['path']}:{answer['timestamp']}:{answer['nonce']}:{hashlib.sha256(data).hexdigest()}"
    return data, {"x-fastn-mcp-signature": "v1=" + key.sign(text.encode()).hex()}


async def test_webhook_answer_counts_only_for_its_tenant(tmp_path: Path) -> None:
    """Ours: each tenant has its own approvers. Those of another, and its request ids, are unknown."""
    keys = {name: Ed25519PrivateKey.generate() for name in ("acme", "globex")}
    for name, key in keys.items():
        (tmp_path / name).mkdir()
        approvers_file(tmp_path / name, f'[dana]\npublic_key = "{public(key)}"\n')
    asked: list[dict[str, Any]] = []

    async def receive(sent: Request) -> Response:
        asked.append(json.loads(await sent.body()))
        return Response(status_code=204)

    with listening(Starlette(routes=[Route("/{tenant}", receive, methods=["POST"])])) as hook:
        text = HEAD + tenant("acme", hook) + tenant("globex", hook)
        team = TeamWorld(tmp_path, text, environment={"ACME_KEY": "fsk_test_1", "HOOK": "h" * 32})
        token = team.provider.token(sub="of-acme", scope=ALL)
        async with team.served() as caller:
            found = await caller.result(token, "list_customers", search="Globex")
            target = {"customer_id": found["data"][0]["id"]}

            async def delete(caller: Caller) -> dict[str, Any]:
                body = request("delete_customer", target, _meta=NO_FORMS)
                answered = await caller.ask(token, body, **modern("delete_customer"))
                return answered.json()["result"]["structuredContent"]

            assert "An approver was asked by the webhook" in (await delete(caller))["message"]
            (question,) = asked
            at = question["callback"]
            assert at == f"https://fastn-mcp.example.com/tenants/acme/approvals/{question['grant']}"

            async def answer(to: str, by: str) -> httpx2.Response:
                data, headers = signed(keys[by], question)
                return await caller.http.post(to, content=data, headers=headers)

            assert (await answer(at, "globex")).status_code == 401
            other = at.replace("/acme/", "/globex/")
            assert [(await answer(other, by)).status_code for by in ("globex", "acme")] == [404, 401]
            for nowhere in (at.replace("/acme/", "/nobody/"), at.replace("/acme/approvals", "/own/approvals")):
                assert (await answer(nowhere, "acme")).status_code == 404
            assert (await delete(caller))["status"] == "approval_required"
            assert (await answer(at, "acme")).json()["decided"] is True
            assert (await delete(caller))["done"] == "delete_customer"
            assert (await answer(at, "acme")).status_code == 409


async def test_guessing_request_ids_finds_nothing(tmp_path: Path) -> None:
    """Ours: each of ten thousand guesses gets the same response, and pending requests stay pending."""
    world = WebhookWorld(tmp_path, '[defaults]\ndestroy = "out_of_band"\n')
    (row, *_) = await world.rows(ListCustomers(search="Globex"))
    assert isinstance(await world.call(DeleteCustomer(customer_id=row.id)), PendingApproval)
    (question,) = world.receiver.questions
    body = json.dumps(world.stranger.body(world, question, "approve")).encode()
    replies: set[tuple[int, str]] = set()
    for _ in range(GUESSES):
        guess = secrets.token_urlsafe(24)
        reply = await world.deciding(guess, "v1=" + secrets.token_hex(64), body)
        replies.add((reply.status, json.dumps(reply.body)))
        assert await world.ledger.find(guess) is None
    assert len(replies) == 1
    assert {status for status, _ in replies} == {401}
    grant = await world.ledger.find(question["grant"])
    assert grant is not None
    assert grant.state is RequestState.OPEN
    assert (await world.answer(world.dana, question)).body["decided"] is True
    world.close()


def test_guessing_page_keys_finds_nothing() -> None:
    """Ours: ten thousand guesses find no key, and the right key still works."""
    entry = PageSessions(Clock().system("k"))
    right = entry.key()
    assert not [1 for _ in range(GUESSES) if entry.enter(secrets.token_urlsafe(24)) is not None]
    assert entry.enter(right) is not None
