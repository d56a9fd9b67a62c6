"""An answer counts only if an approver signed it, recently, once, and for this request."""

import hmac
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.webhook_world import Signer, WebhookWorld
from support.world import FormNow, yes

from fastn_mcp.channels.approvers import MAX_REJECTIONS, REJECTION_SPAN
from fastn_mcp.channels.webhook.answers import WINDOW, WebhookAnswers, signed_text
from fastn_mcp.errors import Declined
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.ledger.store import LedgerLost


@pytest.fixture
def world(tmp_path: Path) -> WebhookWorld:
    return WebhookWorld(tmp_path)


async def sent(world: WebhookWorld, question: dict[str, Any], body: object, signer: Signer, **other: Any) -> int:
    """Return the status of a handmade answer. `path` is what is signed, `to` where it is sent."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    path = other.get("path", f"/approvals/{question['grant']}")
    signature = other["signature"] if "signature" in other else signer.signature(path, data)
    reply = await world.deciding(other.get("to", question["grant"]), signature, other.get("instead", data))
    assert reply.body["decided"] is False
    return reply.status


async def nothing_decided(world: WebhookWorld, question: dict[str, Any], call: Any) -> None:
    grant = await world.request(question)
    assert grant.state is RequestState.OPEN
    assert grant.votes == ()
    assert not isinstance(await world.call(call), Done)
    assert world.changes == []
    assert world.audited("answer_refused")


async def test_approved_call_is_sent_once_when_repeated(world: WebhookWorld) -> None:
    call, question = await world.asked_about(world.deletion())
    reply = await world.answer(world.dana, question)
    assert (reply.status, reply.body["state"]) == (200, "approved")
    assert isinstance(await world.call(call), Done)
    assert [heard.method for heard in world.changes] == ["DELETE"]
    grant = await world.request(question)
    assert grant.approvers == ["dana"]
    (approved,), (intent,) = world.audited("approved"), world.audited("intent")
    assert (approved["approver"], approved["approved_by"], intent["approved_by"]) == ("dana", "verified", "verified")


async def test_decline_is_final_and_its_note_reaches_the_agent(world: WebhookWorld) -> None:
    call, question = await world.asked_about(world.deletion())
    reply = await world.answer(world.kim, question, "decline", note="ask me on Monday")
    assert (reply.status, reply.body["state"]) == (200, "declined")
    refused = await world.call(call, FormNow(yes, world.clock))
    assert isinstance(refused, Declined)
    assert refused.data()["note"] == "ask me on Monday"
    assert (await world.answer(world.dana, question)).status == 409
    assert (world.changes, await world.ledger.declines("local")) == ([], (1, world.clock.at.timestamp()))
    (declined,) = world.audited("declined")[:1]
    assert (declined["approver"], declined["message"]) == ("kim", "ask me on Monday")


async def test_signed_answer_withdraws_an_unused_approval(world: WebhookWorld) -> None:
    call, question = await world.asked_about(world.deletion())
    assert (await world.answer(world.dana, question, "withdraw")).status == 409  # not approved yet
    assert (await world.answer(world.dana, question)).status == 200
    assert await sent(world, question, world.stranger.body(world, question, "withdraw"), world.stranger) == 401
    reply = await world.answer(world.kim, question, "withdraw", note="the wrong customer")
    assert (reply.status, reply.body["state"], reply.body["decided"]) == (200, "withdrawn", True)
    refused = await world.call(call)
    assert isinstance(refused, Declined)
    assert refused.data()["note"] == "the wrong customer"
    assert world.changes == []
    (entry,) = world.audited("withdrawn")
    assert (entry["approver"], entry["message"]) == ("kim", "the wrong customer")
    again = await world.answer(world.kim, question, "withdraw")
    assert (again.status, again.body["message"]) == (
        409,
        "This request was approved, but the approval was withdrawn. Your answer was not recorded.",
    )


async def test_used_approval_is_not_withdrawn_by_an_answer(world: WebhookWorld) -> None:
    call, question = await world.asked_about(world.deletion())
    await world.answer(world.dana, question)
    await world.expect(Done, call)
    reply = await world.answer(world.dana, question, "withdraw")
    assert (reply.status, reply.body["message"]) == (409, "Too late: the call was already sent.")


async def test_approver_withdraws_only_what_they_may_approve(tmp_path: Path) -> None:
    only_kim = '[dana]\npublic_key = "DANA"\neffects = ["TRASH"]\n[kim]\npublic_key = "KIM"'
    world = WebhookWorld(tmp_path, approvers=only_kim)
    _, question = await world.asked_about(world.deletion())
    assert (await world.answer(world.kim, question)).status == 200
    assert (await world.answer(world.dana, question, "withdraw")).status == 403
    answered = await world.request(question)
    assert answered.state is RequestState.APPROVED


async def test_forged_answer_decides_nothing(world: WebhookWorld) -> None:
    call, question = await world.asked_about(world.deletion())
    good = world.dana.body(world, question, "approve")
    path = f"/approvals/{question['grant']}"
    edited = json.dumps(good | {"typed": "Globex Exports "}).encode()
    no = world.dana.body(world, question, "decline")
    forged = [
        await sent(world, question, good, world.dana, signature=None),
        await sent(world, question, good, world.dana, signature=""),
        await sent(world, question, good, world.dana, signature="v1=zz"),
        await sent(world, question, good, world.dana, signature="v2" + world.dana.signature(path, edited)[2:]),
        await sent(world, question, good, world.stranger),
        await sent(world, question, good, world.kim),
        await sent(world, question, good, world.dana, path="/approvals/other"),
        await sent(world, question, good, world.dana, instead=edited),
        await sent(world, question, no, world.dana, instead=json.dumps(no | {"decision": "approve"}).encode()),
    ]
    assert forged == [401] * len(forged)
    await nothing_decided(world, question, call)


async def test_unlisted_approver_decides_and_learns_nothing(world: WebhookWorld) -> None:
    call, question = await world.asked_about(world.deletion())
    replies = [
        await world.answer(world.stranger, question),
        await world.answer(world.stranger, {**question, "grant": "none"}),
        await world.answer(world.stranger, question, approver="dana"),
    ]
    assert {(reply.status, str(reply.body)) for reply in replies} == {(401, str(replies[0].body))}
    assert "mallory" not in world.audit_path.read_text()
    await nothing_decided(world, question, call)


@pytest.mark.parametrize("seconds", [-3600, -301, 301, 3600])
async def test_answer_outside_the_time_window_decides_nothing(world: WebhookWorld, seconds: int) -> None:
    call, question = await world.asked_about(world.deletion())
    at = int(world.clock.at.timestamp()) + seconds
    assert (await world.answer(world.dana, question, timestamp=at)).status == 401
    await nothing_decided(world, question, call)
    near = at + (299 if abs(seconds) > 301 else 1) * (1 if seconds < 0 else -1)
    assert (await world.answer(world.dana, question, timestamp=near)).status == (200 if abs(seconds) < 302 else 401)


async def test_replayed_answer_decides_nothing(world: WebhookWorld) -> None:
    """The same bytes, or the same nonce with other bytes, also at another replica."""
    call, question = await world.asked_about(world.run())
    wrong = json.dumps(world.dana.body(world, question, "approve", question="0" * 64)).encode()
    assert await sent(world, question, wrong, world.dana) == 409
    right = {key: value for key, value in json.loads(wrong).items() if key != "question"}
    assert await sent(world, question, wrong, world.dana) == 409
    assert await sent(world, question, right, world.dana) == 409
    other = WebhookAnswers(world.approvers, world.answers())
    data = json.dumps(right).encode()
    reply = await other(question["grant"], world.dana.signature(f"/approvals/{question['grant']}", data), data)
    assert reply.status == 409
    await nothing_decided(world, question, call)
    # Nonces of different approvers are independent.
    assert (await world.answer(world.kim, question, nonce=right["nonce"])).status == 200


async def test_nonce_is_stored_while_its_answer_could_count(world: WebhookWorld) -> None:
    """An answer from a clock that is ahead can be replayed for twice the window."""
    question = await world.asked(world.run())
    ahead = int(world.clock.at.timestamp()) + WINDOW
    data = json.dumps(world.dana.body(world, question, "approve", timestamp=ahead, question="0" * 64)).encode()
    assert await sent(world, question, data, world.dana) == 409
    for _ in range(2):
        world.clock.pass_(WINDOW - 1)
        await world.answer(world.kim, question, question="0" * 64)  # which drops expired nonces
        reply = await world.deciding(
            question["grant"], world.dana.signature(f"/approvals/{question['grant']}", data), data
        )
        assert "nonce" in str(reply.body["message"])


async def test_answer_for_another_request_decides_neither(world: WebhookWorld) -> None:
    one, two = world.run(), world.deletion()
    first, second = await world.asked(one), await world.asked(two)
    body = world.dana.body(world, first, "approve")
    swapped = f"/approvals/{second['grant']}"
    assert await sent(world, first, body, world.dana, to=second["grant"]) == 401
    assert await sent(world, first, body, world.dana, to=second["grant"], path=swapped) == 400
    assert (await world.answer(world.dana, {**first, "grant": "no-such-grant"})).status == 404
    await nothing_decided(world, first, one)
    await nothing_decided(world, second, two)


async def test_wrong_typed_text_approves_nothing(world: WebhookWorld) -> None:
    call, question = await world.asked_about(world.deletion())
    assert question["expected"] == "Globex Exports"
    for typed in (None, "", "globex exports", "Globex Exports ", "approve"):
        assert (await world.answer(world.dana, question, typed=typed)).status == 422, typed
    await nothing_decided(world, question, call)


async def test_expired_request_is_not_decided(world: WebhookWorld) -> None:
    call, question = await world.asked_about(world.run())
    world.clock.pass_(601)
    assert (await world.answer(world.dana, question)).status == 410
    assert (await world.asked(call))["grant"] != question["grant"]
    assert world.changes == []


async def test_requests_of_forms_and_other_accounts_are_unknown(world: WebhookWorld) -> None:
    """A ledger can contain requests of several accounts and tenants, each with its own approvers."""
    question = await world.asked(world.run())
    grant = await world.request(question)
    for changes in ({"id": "form", "out_of_band": False}, {"id": "a", "account": "other"}, {"id": "t", "tenant": "b"}):
        await world.ledger.open(replace(grant, **changes))
        assert (await world.answer(world.dana, {**question, "grant": changes["id"]})).status == 404


async def test_approver_cannot_approve_their_own_call(tmp_path: Path) -> None:
    text = '[dana]\npublic_key = "DANA"\nprincipal = "local"\n[kim]\npublic_key = "KIM"\n'
    world = WebhookWorld(tmp_path, approvers=text)
    call, question = await world.asked_about(world.run())
    assert (await world.answer(world.dana, question)).status == 403
    await nothing_decided(world, question, call)
    grant = await world.request(question)
    for signer, principal in ((world.kim, "Kim"), (world.dana, "Dana")):
        await world.ledger.open(replace(grant, id=principal, principal=principal))
        assert (await world.answer(signer, {**question, "grant": principal})).status == 403
    assert (await world.answer(world.kim, question)).status == 200


@pytest.mark.parametrize(
    ("requester", "login_names", "status"),
    [
        ("https://id.example|0001", (), 403),
        ("https://id.example|0001", ("dana7",), 403),
        ("https://id.example|0001", ("kim@x.example",), 200),
        ("https://id.example|kim@x.example", (), 200),
        ("https://ci.example|0001", (), 200),
    ],
)
async def test_approver_named_by_email_decides_only_if_the_requesters_is_known(
    tmp_path: Path, requester: str, login_names: tuple[str, ...], status: int
) -> None:
    """An access token often has a subject alone, by which an e-mail address cannot be recognised as the requester's."""
    world = WebhookWorld(
        tmp_path, approvers='[dana]\npublic_key = "DANA"\nprincipal = "https://id.example|dana@x.example"\n'
    )
    _, question = await world.asked_about(world.run())
    request = await world.request(question)
    await world.ledger.open(replace(request, id="of_a_team", principal=requester, login_names=login_names))
    assert (await world.answer(world.dana, {**question, "grant": "of_a_team"})).status == status


async def test_approver_decides_only_their_effects(tmp_path: Path) -> None:
    text = '[dana]\npublic_key = "DANA"\neffects = ["TRASH", "external"]\n[kim]\npublic_key = "KIM"\n'
    world = WebhookWorld(tmp_path, approvers=text)
    call, question = await world.asked_about(world.deletion())
    assert (await world.answer(world.dana, question)).status == 403
    await nothing_decided(world, question, call)
    assert (await world.answer(world.dana, await world.asked(world.run()))).status == 200


async def test_answer_to_other_lines_approves_nothing(world: WebhookWorld) -> None:
    call, question = await world.asked_about(world.run())
    assert (await world.answer(world.dana, question, question="0" * 64)).status == 409
    await nothing_decided(world, question, call)
    assert (await world.answer(world.dana, question, question=question["question"])).status == 200


INVALID: tuple[dict[str, Any] | bytes, ...] = (
    {"decision": "yes"},
    {"decision": True},
    {"timestamp": "now"},
    {"timestamp": 1.5},
    {"timestamp": "1795597200"},
    {"nonce": "short"},
    {"nonce": "n" * 129},
    {"nonce": "a nonce with spaces"},
    {"note": "n" * 501},
    {"approver": ["dana"]},
    {"confirm": True},
    {"grant": None},
    *(b"", b"approve", b"[]", b"\xff", b"[" * 20_000, b'{"grant": NaN}'),
)


async def test_invalid_answer_body_decides_nothing(world: WebhookWorld) -> None:
    call, question = await world.asked_about(world.run())
    for change in INVALID:
        if isinstance(change, bytes):
            assert await sent(world, question, change, world.dana, signature="v1=00") == 400, change[:40]
        else:
            body = world.dana.body(world, question, "approve") | change
            assert await sent(world, question, body, world.dana) == 400, change
    await nothing_decided(world, question, call)


async def test_flood_of_answers_does_not_fill_the_audit_log(world: WebhookWorld) -> None:
    question = await world.asked(world.run())
    for _ in range(500):
        await world.answer(world.stranger, question)
    assert len(world.audited("answer_refused")) == MAX_REJECTIONS
    await world.answer(world.dana, question, question="0" * 64)
    assert world.audited("answer_refused")[-1]["approver"] == "dana"
    world.clock.pass_(REJECTION_SPAN)
    await world.answer(world.stranger, question)
    assert f"{500 - MAX_REJECTIONS} more" in world.audited("answer_refused")[-1]["message"]
    assert len(world.audited("answer_refused")) == MAX_REJECTIONS + 2


async def test_shared_secret_works_as_a_credential(tmp_path: Path) -> None:
    secret = "a secret that dana shares with this server"
    world = WebhookWorld(tmp_path, approvers=f'[dana]\nsecret = "{secret}"\n')
    question = await world.asked(world.run())
    data = json.dumps(world.dana.body(world, question, "approve")).encode()
    body = json.loads(data)
    text = signed_text(question["path"], body["timestamp"], body["nonce"], data)
    others = "v1=" + _hmac("another secret that is long enough", text)
    for wrong in (others, "v1=é", "v1=", "v2=" + _hmac(secret, text), _hmac(secret, text)):
        assert (await world.deciding(question["grant"], wrong, data)).status == 401
    assert (await world.deciding(question["grant"], "v1=" + _hmac(secret, text), data)).status == 200


async def test_lost_ledger_leaves_an_answer_undecided(world: WebhookWorld) -> None:
    """It may have counted, so the approver is told to send it again with a new nonce."""
    question = await world.asked(world.deletion())

    async def lost(nonce: str, until: float, now: float) -> bool:
        raise LedgerLost(f"{nonce and until and now and 'TimeoutError'}")

    world.ledger.use_nonce = lost
    reply = await world.answer(world.dana, question)
    assert reply.status == 503
    assert reply.body == {
        "message": (
            "The shared ledger cannot be used (TimeoutError). Your answer may have counted: send it again, with another"
            " nonce."
        )
    }


def _hmac(secret: str, text: bytes) -> str:
    return hmac.new(secret.encode(), text, "sha256").hexdigest()
