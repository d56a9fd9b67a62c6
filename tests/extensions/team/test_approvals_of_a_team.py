"""Out-of-band approvals of tenants: by their own webhook, beside the page or alone, and safe from guessing."""

import json
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from support.approval_world import PAGE
from support.audit_entries import entries
from support.identity_provider import ISSUER, listening
from support.team_world import ALL, HEAD, NO_FORMS, TeamWorld, modern, request, tenant
from support.webhook_world import WebhookWorld, approvers_file, public, signed_approval

from fastn_mcp.errors import SettingsError
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.tools.customers import DeleteCustomer, ListCustomers

GUESSES = 10_000


def with_webhook(name: str, hook: str) -> str:
    webhook = {"webhook_url": f"{hook}/{name}", "webhook_secret_env": "HOOK", "approvers": f"{name}/approvers.toml"}
    return tenant(name, subjects=[f"of-{name}"], api_key_env="ACME_KEY", mode="guarded", **webhook)


def listed(key: Ed25519PrivateKey, name: str = "dana") -> str:
    return f'[dana]\npublic_key = "{public(key)}"\nprincipal = "{ISSUER}|{name}"\n'


OWN_IS_REFUSED = """own = false

[[approvals.approver]]
groups = ["approvers"]
effects = ["ACCESS", "WRITE", "TRASH"]
"""
TEXT = PAGE + OWN_IS_REFUSED


@dataclass
class PageAndWebhook:
    """A page and a webhook, both in this process, whose receiver answers with `status`.

    Agents call one replica, and `http` leads to another.
    """

    folder: Path
    tenants: tuple[str, ...] = ("acme",)
    keys: dict[str, Ed25519PrivateKey] = field(default_factory=dict[str, Ed25519PrivateKey])
    asked: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    status: int = 204

    async def _receive(self, sent: Request) -> Response:
        self.asked.append(json.loads(await sent.body()))
        return Response(status_code=self.status)

    @asynccontextmanager
    async def called(self, text: str = TEXT) -> AsyncGenerator[Callable[..., Awaitable[dict[str, Any]]]]:
        """Return what calls a tool of the first tenant, in a client without forms."""
        for name in self.tenants:
            (self.folder / name).mkdir()
            self.keys[name] = Ed25519PrivateKey.generate()
            approvers_file(self.folder / name, listed(self.keys[name]))
        variables = {"ACME_KEY": "fsk_test_1", "HOOK": "h" * 32, "PAGE_SECRET": "egap", "FASTN_STATE_SECRET": "s" * 32}
        routes = [Route("/{tenant}", self._receive, methods=["POST"])]
        with listening(Starlette(routes=routes)) as hook:
            text = HEAD + text + "".join(with_webhook(name, hook) for name in self.tenants)
            team, other = (TeamWorld(self.folder, text, environment=variables) for _ in range(2))
            token = team.provider.token(sub="of-acme", scope=ALL)
            async with team.served() as caller, other.served() as there:
                self.http = there.http

                async def call(tool: str, **arguments: Any) -> dict[str, Any]:
                    body = request(tool, arguments, _meta=NO_FORMS)
                    return (await caller.ask(token, body, **modern(tool))).json()["result"]["structuredContent"]

                yield call

    async def answer(self, to: str, by: str = "acme", typed: str | None = None) -> httpx2.Response:
        """Approve a request at its address, with the key of a tenant's approver."""
        return await self.http.post(to, **signed_approval(self.keys[by], to.rpartition("/")[2], typed=typed))

    async def question(self) -> dict[str, Any]:
        """Return the first request that came, which is sent in the background."""
        with anyio.fail_after(20):
            while not self.asked:
                await anyio.lowlevel.checkpoint()
        return self.asked[0]


AT = "A person has to approve at https://fastn-mcp.example.com/approvals/, where approvers sign in"


async def test_page_and_webhook_are_both_named_and_asked_and_decide_at_another_replica(tmp_path: Path) -> None:
    world = PageAndWebhook(tmp_path)
    async with world.called() as call:
        workflow = (await call("list_workflows"))["data"][0]["id"]
        message = (await call("delete_workflow", workflow_id=workflow))["message"]
        assert f"{AT}, or by the webhook at 127.0.0.1:" in message
        question = await world.question()
        assert (await world.answer(question["callback"])).status_code == 200
        assert (await call("delete_workflow", workflow_id=workflow))["done"] == "delete_workflow"
    lines = [dict(line) for line in entries(tmp_path / "tenants" / "acme" / "audit.jsonl")]
    (line,) = (line for line in lines if line["event"] == "approved")
    assert (line["approver"], line["approver_name"], line["approved_by"]) == (f"{ISSUER}|dana", "dana", "verified")
    # The sign-in tells no name, and what a client calls itself is not one.
    assert [line["event"] for line in lines if "principal_name" in line] == []
    assert len(world.asked) == 1


async def test_failed_webhook_leaves_the_request_on_the_page(tmp_path: Path) -> None:
    world = PageAndWebhook(tmp_path, status=400)
    async with world.called() as call:
        workflow = (await call("list_workflows"))["data"][0]["id"]
        message = (await call("delete_workflow", workflow_id=workflow))["message"]
    assert f"{AT}. The webhook at 127.0.0.1:" in message
    assert "did not accept the request (1 attempt: it answered 400)." in message


async def test_webhook_is_used_alone_without_approvers_on_the_page(tmp_path: Path) -> None:
    world = PageAndWebhook(tmp_path)
    async with world.called(TEXT.replace('"ACCESS", ', "")) as call:
        customer = (await call("list_customers"))["data"][0]["id"]
        assert (
            "A person has to approve by the webhook at"
            in (await call("delete_customer", customer_id=customer))["message"]
        )
        refused = await call("create_secret", name="TOKEN")
        assert refused["message"].startswith("Nobody may approve this call")
    assert [question["lines"][0][:15] for question in world.asked] == ["Delete customer"]


async def test_typed_secret_is_requested_on_the_page_only(tmp_path: Path) -> None:
    world = PageAndWebhook(tmp_path)
    async with world.called() as call:
        assert f"{AT}." in (await call("create_secret", name="TOKEN"))["message"]
        (row,) = (
            dict(line) for line in entries(tmp_path / "tenants" / "acme" / "audit.jsonl") if line["event"] == "asked"
        )
        answered = await world.answer(f"/tenants/acme/approvals/{row['grant']}")
        assert (answered.status_code, answered.json()["message"]) == (
            422,
            "The approver types the value on the page.",
        )
    assert world.asked == []


@pytest.mark.parametrize("name", ["of-acme", "OF-Acme"])
async def test_requester_cannot_approve_by_webhook(tmp_path: Path, name: str) -> None:
    world = PageAndWebhook(tmp_path)
    async with world.called() as call:
        approvers_file(tmp_path / "acme", listed(world.keys["acme"], name))
        workflow = (await call("list_workflows"))["data"][0]["id"]
        assert f"{AT}." in (await call("delete_workflow", workflow_id=workflow))["message"]
    assert world.asked == []


def test_approver_without_principal_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    approvers_file(tmp_path / "acme", f'[dana]\npublic_key = "{public(Ed25519PrivateKey.generate())}"\n')
    text = HEAD + with_webhook("acme", "https://hooks.example.com")
    team = TeamWorld(tmp_path, text, environment={"ACME_KEY": "fsk_test_1", "HOOK": "h" * 32})
    with pytest.raises(SettingsError, match=r"approvers\.toml, line 1: dana needs principal"):
        team.opening.check()


async def test_webhook_answer_counts_only_for_its_tenant(tmp_path: Path) -> None:
    world = PageAndWebhook(tmp_path, ("acme", "globex"))
    async with world.called("") as call:
        target = (await call("list_customers", search="Globex"))["data"][0]["id"]
        assert (
            "A person has to approve by the webhook at"
            in (await call("delete_customer", customer_id=target))["message"]
        )
        question = await world.question()
        at = question["callback"]
        assert at == f"https://fastn-mcp.example.com/tenants/acme/approvals/{question['grant']}"
        answer = partial(world.answer, typed=question["expected"])
        assert (await answer(at, "globex")).status_code == 401
        other = at.replace("/acme/", "/globex/")
        assert [(await answer(other, by)).status_code for by in ("globex", "acme")] == [404, 401]
        for nowhere in (at.replace("/acme/", "/nobody/"), at.replace("/acme/approvals", "/own/approvals")):
            assert (await answer(nowhere)).status_code == 404
        assert (await call("delete_customer", customer_id=target))["status"] == "approval_required"
        assert (await answer(at)).json()["decided"] is True
        assert (await call("delete_customer", customer_id=target))["done"] == "delete_customer"
        assert (await answer(at)).status_code == 409


async def test_guessing_request_ids_finds_nothing(tmp_path: Path) -> None:
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
