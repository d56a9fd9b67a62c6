"""Notifications: what approvers are told, once, and that it neither decides nor delays anything."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest
from standardwebhooks import Webhook as Signature
from support.decisions import moved
from support.webhook_world import Receiver
from support.world import World

from fastn_mcp.channels.notification import NotifyingChannel, notifying
from fastn_mcp.channels.webhook.webhook import WebhookSender
from fastn_mcp.config.load import load
from fastn_mcp.errors import SettingsError
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.caller import ALL_SCOPES, Caller
from fastn_mcp.guard.key_files import SecretValues
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.policy.asker import Asker
from fastn_mcp.tools.access import CreateApiKey, CreateRole, InviteUser
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.workflows import RunWorkflow

SECRET = "a secret of the receiver, of a good length"
URL = "https://hooks.example.com/services/T0/B0/XyZ"
CANARY = "canary-in-the-arguments"


@asynccontextmanager
async def told(
    folder: Path, receiver: Any, style: str = "generic", remind_after: float | None = None
) -> AsyncGenerator[World]:
    """An account whose approvers are told by this receiver."""
    world = World(folder)
    sender = WebhookSender(URL, SECRET, world.system, receiver)
    channel = NotifyingChannel(world.desk, sender, style, world.ledger, world.system, remind_after)
    world.desk = channel
    world.dispatch = world.dispatching(SecretValues({}, []), None)
    yield world
    await channel.aclose()


def run(world: World) -> RunWorkflow:
    workflow = world.sandbox.state.named("workflows", "process-new-orders", by="name")
    return RunWorkflow(workflow_id=str(workflow["id"]), input={"text": CANARY})


async def settled(receiver: Receiver, count: int) -> None:
    """Wait until this many messages came, and no more."""
    with anyio.fail_after(30):
        while len(receiver.came) < count:  # noqa: ASYNC110 - it is sent in the background
            await anyio.sleep(0.01)
    for _ in range(20):
        await anyio.lowlevel.checkpoint()
    assert len(receiver.came) == count


async def test_each_request_is_notified_once(tmp_path: Path) -> None:
    receiver = Receiver()
    async with told(tmp_path, receiver) as world:
        for _ in range(3):
            waiting = await world.call(run(world))
            assert isinstance(waiting, PendingApproval)
            await settled(receiver, 1)
        (request,) = await world.ledger.waiting(world.clock.at.timestamp())
    (sent,) = receiver.came
    at = datetime.fromtimestamp(int(sent.headers["webhook-timestamp"]), UTC)
    signed = Signature(SECRET.encode()).sign(sent.headers["webhook-id"], at, sent.content.decode())
    assert sent.headers["webhook-signature"] == signed
    assert json.loads(sent.content) == {
        "kind": "fastn-mcp approval waits",
        "reminder": False,
        "version": 1,
        "tool": "run_workflow",
        "account": "test",
        "requester": "local",
        "where": "It lies on the desk.",
        "until": "2026-11-25T09:10:00Z",
    }
    assert CANARY not in sent.content.decode()
    assert request.id not in sent.content.decode()


async def test_two_processes_notify_of_a_request_once(tmp_path: Path) -> None:
    receiver = Receiver()
    async with told(tmp_path, receiver) as one, told(tmp_path, receiver) as two:
        assert isinstance(await one.call(run(one)), PendingApproval)
        await settled(receiver, 1)
        assert isinstance(await two.call(run(two)), PendingApproval)
        await settled(receiver, 1)


async def test_other_process_delivers_what_one_that_ended_did_not(tmp_path: Path) -> None:
    hanging, receiver = Hanging(), Receiver()
    async with told(tmp_path, hanging) as one:
        assert isinstance(await one.call(run(one)), PendingApproval)
        with anyio.fail_after(30):
            await hanging.asked.wait()
    async with told(tmp_path, receiver) as two:
        assert isinstance(await two.call(run(two)), PendingApproval)
        await settled(receiver, 1)


@pytest.mark.parametrize("does", [500, 404, httpx2.ConnectError("refused")], ids=str)
async def test_failed_notification_is_retried_while_the_request_is_open(
    tmp_path: Path, does: Any, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver([does] * 6)
    async with told(tmp_path, receiver) as world:
        assert isinstance(await world.call(run(world)), PendingApproval)
        await settled(receiver, 7)
    assert "a notification was not delivered" in caplog.text
    assert CANARY not in caplog.text


async def test_notification_is_not_retried_after_the_request(tmp_path: Path) -> None:
    receiver = Receiver([404] * 100)
    async with told(tmp_path, receiver) as world:
        assert isinstance(await world.call(run(world)), PendingApproval)
        (request,) = await world.ledger.waiting(world.clock.at.timestamp())
        await settled(receiver, 10)  # every minute of its ten
        assert world.clock.at.timestamp() == request.expires


async def test_open_request_is_reminded_of_once_among_processes(tmp_path: Path) -> None:
    receiver = Receiver()
    async with told(tmp_path, receiver, remind_after=300) as one, told(tmp_path, receiver, remind_after=300) as two:
        waiting = await one.call(run(one))
        assert isinstance(waiting, PendingApproval)
        assert waiting.where.endswith("It lies on the desk. A notification goes to hooks.example.com (generic).")
        await settled(receiver, 2)
        assert isinstance(await two.call(run(two)), PendingApproval)
        again = await one.call(run(one))
        assert isinstance(again, PendingApproval)
        assert again.where.endswith(
            "Notified at 09:00 UTC: hooks.example.com (generic). Reminded at 09:05 UTC: hooks.example.com (generic)."
        )
        await settled(receiver, 2)
        (request,) = await one.ledger.waiting(one.timestamp)
        assert len(request.told) == 2
    assert [question["reminder"] for question in receiver.questions] == [False, True]


async def test_decided_request_is_not_reminded_of(tmp_path: Path) -> None:
    class Deciding(Receiver):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            await world.approve_open_request()
            return await super().handle_async_request(request)

    receiver = Deciding()
    async with told(tmp_path, receiver, remind_after=300) as world:
        assert isinstance(await world.call(run(world)), PendingApproval)
        await settled(receiver, 1)


class Hanging(httpx2.AsyncBaseTransport):
    def __init__(self) -> None:
        self.asked = anyio.Event()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:  # noqa: ARG002
        self.asked.set()
        await anyio.sleep_forever()
        raise AssertionError


async def test_hanging_receiver_delays_no_call_and_no_decision(tmp_path: Path) -> None:
    with anyio.fail_after(60):
        async with told(tmp_path, Hanging()) as world:
            assert isinstance(await world.call(run(world)), PendingApproval)
            now = world.clock.at.timestamp()
            (request,) = await world.ledger.waiting(now)
            await moved(world.ledger, request.id, [RequestState.OPEN], RequestState.APPROVED, now, by="local_page")
            assert isinstance(await world.call(run(world)), Done)


@pytest.mark.parametrize("style", ["generic", "slack", "teams"])
async def test_notification_holds_no_address_and_no_argument(tmp_path: Path, style: str) -> None:
    """The sentences of a request hold the person who is invited, the role, and what Fastn's AI is told."""
    receiver = Receiver()
    calls = [
        InviteUser(email="canary@example.com", role="canary"),
        CreateRole(name="canary", permissions=["canary:read"]),
        AiChat(message="canary"),
        CreateApiKey(name="canary"),
    ]
    async with told(tmp_path, receiver, style) as world:
        for number, call in enumerate(calls, 1):
            caller = Caller(Asker("https://login.example.com|ana@example.com", "Ana"), None, frozenset(ALL_SCOPES))
            assert isinstance(await world.dispatch(call, caller), PendingApproval)
            await settled(receiver, number)
        texts = [request.question.title for request in await world.ledger.waiting(world.clock.at.timestamp())]
    assert all("canary" in text for text in texts)
    for sent, call in zip(receiver.came, calls, strict=True):
        content = sent.content.decode()
        assert call.tool_name() in content
        assert "canary" not in content
        assert "ana@" not in content


async def test_slack_and_teams_messages_are_plain_text(tmp_path: Path) -> None:
    for style in ("slack", "teams"):
        receiver = Receiver()
        async with told(tmp_path / style, receiver, style) as world:
            name = "<!channel> [x](https://evil.example) *b*"
            assert isinstance(await world.dispatch(run(world), Caller(Asker(client_name=name), None)), PendingApproval)
            await settled(receiver, 1)
            (body,) = receiver.questions
        if style == "slack":
            assert body["text"] == "A call waits for an approval."
            assert {block["text"]["type"] for block in body["blocks"]} == {"plain_text"}
            assert "&lt;!channel&gt;" in body["blocks"][1]["text"]["text"]
        else:
            (attachment,) = body["attachments"]
            assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
            title, *lines = attachment["content"]["body"]
            assert title["text"] == "A call waits for an approval."
            assert {line["type"] for line in lines} == {"RichTextBlock"}
            assert name in lines[0]["inlines"][0]["text"]


def test_notify_url_needs_a_secret(tmp_path: Path) -> None:
    world, environment = World(tmp_path), {"FASTN_API_KEY": "k", "FASTN_NOTIFY_URL": URL}
    with pytest.raises(SettingsError, match="notify_url is set, and notify_secret is not"):
        notifying(world.desk, load({}, environment, None), world.ledger, world.system)
    settings = load({}, environment | {"FASTN_NOTIFY_SECRET": SECRET, "FASTN_NOTIFY_STYLE": "teams"}, None)
    channel = notifying(world.desk, settings, world.ledger, world.system)
    assert (channel.capabilities.notifies, channel.capabilities.identifies_people, channel.url) == (True, False, None)
    world.desk.url = "https://mcp.example/approvals/"
    assert channel.url == world.desk.url
    assert {URL, SECRET} <= set(settings.secrets)
    assert SECRET not in repr(settings)
    assert "XyZ" not in repr(settings)
    reminding = environment | {"FASTN_NOTIFY_SECRET": SECRET, "FASTN_REMIND_AFTER": "600"}
    with pytest.raises(SettingsError, match="remind_after is 600 seconds, after which a request has expired already"):
        notifying(world.desk, load({}, reminding, None), world.ledger, world.system)
    alone = {"FASTN_API_KEY": "k", "FASTN_REMIND_AFTER": "300"}
    with pytest.raises(SettingsError, match="remind_after is set, and notify_url is not"):
        notifying(world.desk, load({}, alone, None), world.ledger, world.system)
    for wrong in ("http://hooks.example.com/x", "nonsense"):
        with pytest.raises(SettingsError, match="notify_url"):
            load({}, environment | {"FASTN_NOTIFY_URL": wrong}, None)
