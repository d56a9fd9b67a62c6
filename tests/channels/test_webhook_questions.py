"""Webhook requests are signed, retried, and sent again if lost; failures are reported."""

import base64
import hmac
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from support.webhook_world import SECRET, URL, Receiver, WebhookWorld, signed_headers
from support.world import FormNow, yes

from fastn_mcp.channels.webhook.webhook import ATTEMPTS, signature_headers
from fastn_mcp.errors import Refused
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.result import Done
from fastn_mcp.tools.access import CreateSecret


@pytest.fixture
def world(tmp_path: Path) -> WebhookWorld:
    return WebhookWorld(tmp_path)


async def test_payload_has_the_preview_and_the_callback(world: WebhookWorld) -> None:
    call, question = await world.asked_about(world.deletion())
    assert question["preview"]["target"] == {"id": call.customer_id, "name": "Globex Exports"}
    assert (question["expected"], question["requester"], question["account"]) == ("Globex Exports", "local", "test")
    assert question["callback"] == f"https://approvals.example.com/approvals/{question['grant']}"
    assert question["path"] == f"/approvals/{question['grant']}"
    assert question["expires"] - question["created"] == 600
    assert question["approvals"] == {"needed": 1, "by": []}
    assert str(world.receiver.came[0].url) == URL


async def test_request_is_signed_with_id_and_timestamp(world: WebhookWorld) -> None:
    """Standard Webhooks: HMAC over id, time and body, computed as a receiver without the library would."""
    await world.asked(world.run())
    (request,) = world.receiver.came
    timestamp, id_, signature = signed_headers(request)
    assert int(timestamp) == int(world.clock.at.timestamp())
    text = f"{id_}.{timestamp}.".encode() + request.content
    assert signature == "v1," + base64.b64encode(hmac.digest(SECRET.encode(), text, "sha256")).decode()


def test_whsec_secret_is_base64() -> None:
    """Standard Webhooks: `whsec_` and the key in base64, with the specification's example."""
    at = datetime.fromtimestamp(1614265330, UTC)
    signed = signature_headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", at, "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}'
    )
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_payload_contains_no_secret(world: WebhookWorld) -> None:
    secret = CreateSecret.model_validate({"name": "STRIPE", "value": "hunter2-canary"})
    await world.asked(secret)
    (request,) = world.receiver.came
    sent = request.content + str(request.headers.raw).encode()
    assert b"hunter2-canary" not in sent
    assert b"fsk_" not in sent
    assert SECRET.encode() not in sent


@pytest.mark.parametrize(
    "lost",
    [[500, 500], [503, 429, 408], [httpx2.ConnectError("x"), 502], [httpx2.ReadTimeout("x")], [httpx2.ReadError("x")]],
    ids=str,
)
async def test_lost_request_is_retried_with_backoff(world: WebhookWorld, lost: list[Any]) -> None:
    """Standard Webhooks: the same request with the same id, at growing intervals."""
    call = world.run()
    world.receiver.does = list(lost)
    began = world.clock.at
    question = await world.asked(call)
    assert len(world.receiver.came) == len(lost) + 1
    assert {str(sent) for sent in world.receiver.questions} == {str(question)}
    assert len({signed_headers(request)[1] for request in world.receiver.came}) == 1
    assert not any("cookie" in request.headers for request in world.receiver.came)
    paused = (world.clock.at - began).total_seconds()
    assert paused == pytest.approx(sum(0.375 * 2**n for n in range(len(lost))))


@pytest.mark.parametrize(
    ("does", "attempts", "reason"),
    [
        ([500] * 9, ATTEMPTS, "it answered 500"),
        ([httpx2.ConnectError("x")] * 9, ATTEMPTS, "no connection could be made"),
        ([httpx2.ReadTimeout("x")] * 9, ATTEMPTS, "no answer within 10 seconds"),
        ([404], 1, "it answered 404"),
        ([302], 1, "it answered 302"),
        ([307], 1, "it answered 307"),
    ],
    ids=str,
)
async def test_unreachable_receiver_is_an_error(
    world: WebhookWorld, does: list[Any], attempts: int, reason: str
) -> None:
    call = world.run()
    world.receiver.does = list(does)
    refused = await world.call(call)
    assert isinstance(refused, Refused)
    assert "Nobody could be asked. The webhook at hooks.example.com did not accept the request" in str(refused)
    assert reason in str(refused)
    assert "Nothing was sent." in str(refused)
    assert "XyZ" not in str(refused)  # the rest of a webhook's address is secret
    assert len(world.receiver.came) == attempts
    assert world.changes == []
    assert "Nobody could be asked" in world.audited("refused")[-1]["message"]
    # Once it is up, the next call sends the same request.
    world.receiver.does = []
    question = await world.asked(call)
    assert (await world.answer(world.dana, question)).status == 200
    assert isinstance(await world.call(call), Done)


async def test_unanswered_request_is_resent_once_a_minute(world: WebhookWorld) -> None:
    call = world.run()
    first = await world.asked(call)
    for _ in range(5):
        world.clock.pass_(11)
        assert isinstance(await world.call(call), PendingApproval)
    assert len(world.receiver.came) == 1
    world.clock.pass_(5)
    second = await world.asked(call)
    assert isinstance(await world.call(call), PendingApproval)
    assert len(world.receiver.came) == 2
    assert second == first
    assert signed_headers(world.receiver.came[0])[1] != signed_headers(world.receiver.came[1])[1]
    assert (await world.answer(world.dana, first)).status == 200
    assert isinstance(await world.call(call), Done)


async def test_new_process_resends_an_open_request(world: WebhookWorld) -> None:
    """It cannot know whether the last process delivered it."""
    question = await world.asked(world.run())
    other = Receiver()
    request = await world.request(question)
    await world.asking(other).ask(request)
    assert other.questions == [question]


async def test_concurrent_calls_send_one_request(world: WebhookWorld) -> None:
    call, question = await world.asked_about(world.run())
    world.clock.pass_(61)
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(world.call, call)
    assert len(world.receiver.came) == 2
    assert world.receiver.questions[1] == question


async def test_concurrent_calls_share_one_failure(world: WebhookWorld) -> None:
    call = world.run()
    await world.asked(call)
    world.clock.pass_(61)
    world.receiver.does = [500] * 1000
    outcomes: list[object] = []

    async def repeat() -> None:
        outcomes.append(await world.call(call))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(repeat)
    assert len(world.receiver.came) == 1 + ATTEMPTS
    assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 20


async def test_elicitation_form_is_preferred(world: WebhookWorld) -> None:
    """The webhook is for requests that no form can show."""
    assert isinstance(await world.call(world.run(), FormNow(yes, world.clock)), Done)
    assert world.receiver.came == []


async def test_out_of_band_policy_uses_the_webhook(tmp_path: Path) -> None:
    world = WebhookWorld(tmp_path, '[defaults]\ndestroy = "out_of_band"\n')
    call = world.deletion()
    form = FormNow(yes, world.clock)
    assert isinstance(await world.call(call, form), PendingApproval)
    assert form.asked == []
    assert (world.receiver.questions[0]["asks"], world.receiver.questions[0]["expected"]) == (
        "out_of_band",
        "Globex Exports",
    )


async def test_call_without_approver_is_refused_unsent(tmp_path: Path) -> None:
    world = WebhookWorld(tmp_path, approvers='[dana]\npublic_key = "DANA"\neffects = ["TRASH"]\n')
    refused = await world.call(world.deletion())
    assert isinstance(refused, Refused)
    assert "This call needs 1 approver, and 0 of the listed approvers may decide" in str(refused)
    assert world.receiver.came == []
