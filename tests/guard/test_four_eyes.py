"""Two different approvers, neither of them the requester, or nothing is sent."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.decisions import moved
from support.page_world import deletion_of_customer
from support.stores import NOW, grant
from support.values import not_none
from support.webhook_world import WebhookWorld

from fastn_mcp.audit.log import AuditEvent
from fastn_mcp.errors import TargetChanged
from fastn_mcp.guard.approval.votes import NotCounted, count_vote, why_not
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, Vote
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.policy.decision import StepUp
from fastn_mcp.tools.customers import DeleteCustomer

POLICY = '[defaults]\ndestroy = "four_eyes"\n'


@pytest.fixture
def world(tmp_path: Path) -> WebhookWorld:
    return WebhookWorld(tmp_path, POLICY)


async def waiting(world: WebhookWorld, call: DeleteCustomer) -> str:
    """Where it waits, as the agent reads it."""
    outcome = await world.expect(PendingApproval, call, world.form())
    return outcome.where


async def asked(world: WebhookWorld, call: DeleteCustomer) -> dict[str, Any]:
    await waiting(world, call)
    return world.receiver.questions[-1]


async def test_two_approvers_are_needed(world: WebhookWorld) -> None:
    """The agent is told how far it is; no form is asked, whatever the client can do."""
    call = world.deletion()
    question = await asked(world, call)
    assert (question["asks"], question["approvals"]) == ("four_eyes", {"needed": 2, "by": []})
    assert "2 people other than the requester have to approve this call. Approvals so far: 0." in await waiting(
        world, call
    )
    reply = await world.answer(world.dana, question)
    assert (reply.status, reply.body["state"], reply.body["approvals"]) == (200, "waiting", 1)
    for _ in range(3):
        assert "have to approve this call. Approvals so far: 1." in await waiting(world, call)
    assert world.changes == []
    assert (await world.answer(world.kim, question)).body["state"] == "approved"
    await world.expect(Done, call)
    assert [heard.method for heard in world.changes] == ["DELETE"]
    assert [entry["approver"] for entry in world.audited("approved")] == ["dana", "kim"]
    assert world.audited("intent")[-1]["approved_by"] == "four_eyes"


async def test_both_approvers_type_the_name(world: WebhookWorld) -> None:
    question = await asked(world, world.deletion())
    assert question["expected"] == "Globex Exports"
    assert (await world.answer(world.dana, question, typed=None)).status == 422
    assert (await world.answer(world.dana, question)).status == 200
    assert (await world.answer(world.kim, question, typed="Globex")).status == 422
    assert (await world.answer(world.kim, question)).status == 200


async def test_notification_of_the_second_approver_names_the_first(world: WebhookWorld) -> None:
    call = world.deletion()
    await world.answer(world.dana, await asked(world, call))
    world.clock.pass_(61)
    assert (await asked(world, call))["approvals"] == {"needed": 2, "by": ["dana"]}
    assert len(world.receiver.came) == 2


async def test_state_without_two_votes_is_not_four_eyes(world: WebhookWorld) -> None:
    call = world.deletion()
    question = await asked(world, call)
    await world.answer(world.dana, question)
    now = world.timestamp
    approved = await world.ledger.change_request(
        question["grant"], lambda grant: replace(grant, state=RequestState.APPROVED, by="terminal", decided=now)
    )
    assert approved is not None
    await world.expect(TargetChanged, call)
    assert world.changes == []
    assert not_none(await world.ledger.find(question["grant"])).state is RequestState.STALE


async def test_approval_of_one_is_void_once_the_policy_wants_two(tmp_path: Path) -> None:
    rule = '[[rule]]\ntool = "delete_customer"\nwhen = { dependents = { min = 1 } }\nthen = "four_eyes"\n'
    world = WebhookWorld(tmp_path, rule)
    call = world.deletion()
    question = await asked(world, call)
    assert question["asks"] == "four_eyes"
    grant = not_none(await world.ledger.find(question["grant"]))
    now = world.timestamp
    await moved(world.ledger, grant.id, [RequestState.OPEN], RequestState.STALE, now)
    await world.ledger.open(replace(grant, id="lesser", required="typed", created=now + 1))
    assert (await world.answer(world.dana, {**question, "grant": "lesser"})).body["state"] == "approved"
    await world.expect(TargetChanged, call)
    assert world.changes == []


YES, NO = True, False


@pytest.mark.parametrize(
    ("asks", "votes", "by", "events"),
    [
        ("typed", [("dana", YES, "fine")], ("verified", None), ["approved: fine"]),
        ("typed", [("dana", NO, "no")], ("verified", "no"), ["declined: no"]),
        ("four_eyes", [("dana", YES, None)], (None, None), ["approved: 1 of 2 approvers"]),
        ("four_eyes", [("kim", NO, None)], ("four_eyes", None), ["declined: None"]),
        (
            "four_eyes", [("dana", YES, None), ("kim", YES, None)], ("four_eyes", None),
            ["approved: 1 of 2 approvers", "approved: 2 of 2 approvers"],
        ),
        (
            "four_eyes", [("dana", YES, "fine"), ("kim", NO, "stop")], ("four_eyes", "stop"),
            ["approved: fine", "declined: stop"],
        ),
    ],
)  # fmt: skip
async def test_each_vote_is_recorded_with_its_note_or_how_far_it_is(
    asks: str, votes: list[tuple[str, bool, str | None]], by: tuple[str | None, str | None], events: list[str]
) -> None:
    ledger, asked_for = Ledger(SqliteStore(":memory:")), replace(grant(), required=asks)
    await ledger.open(asked_for)
    recorded: list[str] = []

    def record(event: AuditEvent, _: ApprovalRequest, note: str | None) -> None:
        recorded.append(f"{event.value}: {note}")

    for approver, approves, note in votes:
        vote = Vote(approver, approves, NOW + 1)
        counted = await count_vote(vote, asked_for, ledger, "verified", note, record)
        assert isinstance(counted, ApprovalRequest)
    closed = not_none(await ledger.find("g1"))
    assert ((closed.by, closed.note), recorded) == (by, events)
    gone = await count_vote(Vote("dana", YES, NOW), replace(asked_for, id="gone"), ledger, "x", None, record)
    assert gone == NotCounted("This approval request does not exist. Nothing was decided.")
    assert recorded == events


def test_vote_that_does_not_count_says_what_it_lacks() -> None:
    """A step-up names the page and the sign-in that it takes; otherwise it is the second vote of one person."""
    step_up = StepUp("https://page.example", ("destroy",), max_age=300)
    request = deletion_of_customer(step_up=step_up)
    vote = Vote("dana", approves=True, at=request.created + 100)
    elsewhere = "Approving it needs a sign-in at most 5 minutes old, at https://page.example and nowhere else."
    again = "You have already approved. One more person has to approve. Your answer was not recorded."
    assert why_not(request, vote, request) == f"{elsewhere} Nothing was decided."
    assert why_not(request, replace(vote, auth_time=vote.at - 10), request) == again
    assert why_not(replace(request, step_up=None), vote, request) == again
