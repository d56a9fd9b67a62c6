"""A question goes out signed, is tried again, asked again when it was lost, and its failure is said. Issue 6."""

import base64
import hmac
from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from test_webhook_answers import asked, deletion, run
from webhook_world import SECRET, URL, Receiver, WebhookWorld, signed_headers
from world import FormNow, yes

from fastn_mcp.channels.webhook.payloads import WebhookRequest, headers, slack
from fastn_mcp.channels.webhook.webhook import ATTEMPTS
from fastn_mcp.errors import Refused
from fastn_mcp.guard.approval.request import PendingApproval
from fastn_mcp.guard.changes import Done
from fastn_mcp.tools.account import CreateSecret
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer

pytestmark = pytest.mark.anyio


@pytest.fixture
def world(tmp_path: Path) -> Generator[WebhookWorld]:
    made = WebhookWorld(tmp_path)
    yield made
    made.close()


async def test_a_question_says_all_that_is_known_and_where_the_answer_goes(world: WebhookWorld) -> None:
    """Issue 6: the preview, what has to be typed, until when, and the callback."""
    call = await deletion(world)
    question = await asked(world, call)
    assert question["preview"]["target"] == {"id": call.customer_id, "name": "Globex Exports"}
    assert (question["expected"], question["requester"], question["account"]) == ("Globex Exports", "local", "test")
    assert question["callback"] == f"https://approvals.example.com/approvals/{question['grant']}"
    assert question["path"] == f"/approvals/{question['grant']}"
    assert question["expires"] - question["created"] == 600
    assert question["approvals"] == {"needed": 1, "by": []}
    assert str(world.receiver.came[0].url) == URL


async def test_a_question_is_signed_for_this_moment_once(world: WebhookWorld) -> None:
    """Standard Webhooks: HMAC over id, time and body. Written out here, as a receiver without the library would do."""
    await asked(world, await run(world))
    (request,) = world.receiver.came
    timestamp, id_, signature = signed_headers(request)
    assert int(timestamp) == int(world.clock.at.timestamp())
    text = f"{id_}.{timestamp}.".encode() + request.content
    assert signature == "v1," + base64.b64encode(hmac.digest(SECRET.encode(), text, "sha256")).decode()


def test_a_secret_of_standard_webhooks_is_base64() -> None:
    """Standard Webhooks: `whsec_` and the key in base64. The example that its specification signs."""
    at = datetime.fromtimestamp(1614265330, UTC)
    signed = headers(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", at, "msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}'
    )
    assert signed["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


async def test_no_secret_goes_out(world: WebhookWorld) -> None:
    """THREATS T4: neither a value that the agent gave nor a key of ours."""
    secret = CreateSecret.model_validate({"name": "STRIPE", "value": "hunter2-canary"})
    await asked(world, secret)
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
async def test_what_was_lost_on_the_way_is_sent_again_with_backoff(world: WebhookWorld, lost: list[Any]) -> None:
    """Standard Webhooks: the same question under the same id, later and later."""
    call = await run(world)
    world.receiver.does = list(lost)
    began = world.clock.at
    question = await asked(world, call)
    assert len(world.receiver.came) == len(lost) + 1
    assert {str(sent) for sent in world.receiver.questions} == {str(question)}
    assert len({signed_headers(request)[1] for request in world.receiver.came}) == 1
    assert not any("cookie" in request.headers for request in world.receiver.came)
    paused = (world.clock.at - began).total_seconds()
    assert paused == pytest.approx(sum(0.375 * 2**n for n in range(len(lost))))


@pytest.mark.parametrize(
    ("does", "attempts", "said"),
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
async def test_a_receiver_that_is_down_ends_in_a_refusal_that_says_so(
    world: WebhookWorld, does: list[Any], attempts: int, said: str
) -> None:
    """Issue 6: nobody was asked, nothing was sent, it is audited; and a redirect is followed nowhere."""
    call = await run(world)
    world.receiver.does = list(does)
    refused = await world.call(call)
    assert isinstance(refused, Refused)
    assert "Nobody could be asked: the webhook at hooks.example.com did not accept the request" in str(refused)
    assert said in str(refused)
    assert "Nothing was sent." in str(refused)
    assert "XyZ" not in str(refused)  # the rest of a webhook's address is its key
    assert len(world.receiver.came) == attempts
    assert world.changes == []
    assert "Nobody could be asked" in world.audited("refused")[-1]["message"]
    # Once it is up, the same question is asked by the next call.
    world.receiver.does = []
    question = await asked(world, call)
    assert (await world.answer(world.dana, question)).status == 200
    assert isinstance(await world.call(call), Done)


async def test_a_question_without_an_answer_is_asked_again_once_a_minute(world: WebhookWorld) -> None:
    """Issue 6: a lost one is asked again, the same grant, and a busy agent does not ring all the time."""
    call = await run(world)
    first = await asked(world, call)
    for _ in range(5):
        world.clock.pass_(11)
        assert isinstance(await world.call(call), PendingApproval)
    assert len(world.receiver.came) == 1
    world.clock.pass_(5)
    second = await asked(world, call)
    assert isinstance(await world.call(call), PendingApproval)
    assert len(world.receiver.came) == 2
    assert second == first
    assert signed_headers(world.receiver.came[0])[1] != signed_headers(world.receiver.came[1])[1]
    assert (await world.answer(world.dana, first)).status == 200
    assert isinstance(await world.call(call), Done)


async def test_a_process_that_has_just_started_asks_what_is_open(world: WebhookWorld) -> None:
    """Ours: it cannot know whether the one before was heard."""
    question = await asked(world, await run(world))
    other = Receiver()
    await world.asking(other).show(question["grant"])
    assert other.questions == [question]


async def test_calls_at_once_ask_once(world: WebhookWorld) -> None:
    """Ours: an agent that repeats itself in parallel."""
    call = await run(world)
    question = await asked(world, call)
    world.clock.pass_(61)
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(world.call, call)
    assert len(world.receiver.came) == 2
    assert world.receiver.questions[1] == question


async def test_calls_at_once_fail_once(world: WebhookWorld) -> None:
    """Ours (THREATS T18): those that waited for an attempt that failed do not each try for themselves."""
    call = await run(world)
    await asked(world, call)
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


async def test_a_form_that_can_ask_is_still_used(world: WebhookWorld) -> None:
    """Ours: the webhook is for what no form can ask."""
    assert isinstance(await world.call(await run(world), FormNow(yes, world.clock)), Done)
    assert world.receiver.came == []


async def test_what_the_policy_wants_out_of_band_goes_to_the_webhook(tmp_path: Path) -> None:
    """Ours (DESIGN 5.5): whatever the client can do; and what is destroyed is typed there as well."""
    world = WebhookWorld(tmp_path, '[defaults]\ndestroy = "out_of_band"\n')
    call = await deletion(world)
    form = FormNow(yes, world.clock)
    assert isinstance(await world.call(call, form), PendingApproval)
    assert form.asked == []
    assert (world.receiver.questions[0]["asks"], world.receiver.questions[0]["expected"]) == (
        "out_of_band",
        "Globex Exports",
    )
    world.close()


async def test_where_no_approver_may_decide_the_call_is_refused_and_nobody_disturbed(tmp_path: Path) -> None:
    """Ours: a question that nobody can answer is not asked."""
    world = WebhookWorld(tmp_path, approvers='[dana]\npublic_key = "DANA"\neffects = ["TRASH"]\n')
    refused = await world.call(await deletion(world))
    assert isinstance(refused, Refused)
    assert "It takes 1 approver, and 0 of those on the list may decide" in str(refused)
    assert world.receiver.came == []
    world.close()


async def test_no_name_speaks_for_us_in_slack(world: WebhookWorld) -> None:
    """THREATS T15: a name that would be a link, a mention or a button of ours stays text in a text."""
    name = '<!channel> <https://evil.example|Approve> & *bold* :tada: `code`\n"]}'
    made = await world.call(CreateCustomer(name=name))
    assert isinstance(made, Done)
    question = await asked(world, DeleteCustomer(customer_id=str(made.result.model_dump()["id"])))
    grant = await world.ledger.find(question["grant"])
    assert grant is not None
    message: Any = slack(WebhookRequest(grant, [], 1, question["callback"], question["path"]))
    *texts, buttons = message["blocks"]
    assert all(block["text"]["type"] == "plain_text" and block["text"]["emoji"] is False for block in texts)
    shown = "".join(block["text"]["text"] for block in texts)
    assert "&lt;!channel&gt;" in shown
    assert not set("<>") & set(shown)
    assert message["text"] == "A call waits for an approval."
    assert [button["action_id"] for button in buttons["elements"]] == ["fastn_mcp_approve", "fastn_mcp_decline"]
    assert all(question["grant"] in button["value"] and len(button["value"]) < 2000 for button in buttons["elements"])
    assert all(len(block["text"]["text"]) <= 3000 for block in texts)


async def test_what_does_not_fit_slack_whole_is_not_asked_there(world: WebhookWorld) -> None:
    """Ours: nobody approves what they could not read."""
    question = await asked(world, await run(world))
    grant = await world.ledger.find(question["grant"])
    assert grant is not None
    long = replace(grant, text=("<" * 30_000,))
    with pytest.raises(Refused, match="longer than Slack accepts"):
        slack(WebhookRequest(long, [], 1, "c", "p"))
