"""An approval that was taken back: nothing is sent because of it, and the agent hears that a person said no."""

import pytest
from support.begun import used
from support.world import World, batch_of

from fastn_mcp.errors import Declined, Incomplete
from fastn_mcp.guard.approval.votes import NotCounted, why_not_withdrawn, withdraw
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.evaluation import Evaluation
from fastn_mcp.guard.permission import Permission
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, Vote


async def taken_back(world: World, request: str, note: str | None = None) -> ApprovalRequest | NotCounted:
    current = await world.ledger.find(request)
    assert current is not None
    vote = Vote("local_page", approves=False, at=world.timestamp)
    return await withdraw(vote, current, world.ledger, "local_page", note, world.recorder.decided)


async def test_withdrawal_is_recorded_and_the_repeated_call_declined_with_its_note(world: World) -> None:
    call = world.run()
    request = await world.approve_outside(call)
    assert isinstance(await taken_back(world, request.id, "the wrong workflow"), ApprovalRequest)
    (entry,) = world.audited("withdrawn")
    assert (entry["grant"], entry["approved_by"], entry["message"]) == (
        request.id, "local_page", "the wrong workflow",
    )  # fmt: skip
    for _ in range(2):
        refused = await world.expect(Declined, call)
        assert str(refused).startswith(
            "A person withdrew their approval. Nothing was sent. The same call stays declined"
        )
        assert refused.data()["note"] == "the wrong workflow"
    assert world.changes == []
    world.clock.pass_(601)
    await world.expect(PendingApproval, call)  # asked anew


async def test_withdrawal_between_the_checks_and_the_use_sends_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call has found its approval already when a person takes it back."""
    call = world.run()
    request = await world.approve_outside(call)
    permissions = world.approvals.permissions
    still_covers = permissions.still_covers

    async def check_then_withdraw(permission: Permission, evaluation: Evaluation) -> bool:
        covers = await still_covers(permission, evaluation)
        await taken_back(world, request.id)
        return covers

    monkeypatch.setattr(permissions, "still_covers", check_then_withdraw)
    refused = await world.expect(Declined, call)
    assert "A person withdrew their approval." in str(refused)
    assert world.changes == []


async def test_rest_of_a_list_is_declined_and_says_what_was_sent(world: World) -> None:
    call = batch_of(*(world.run().model_copy(update={"input": {"n": number}}) for number in (1, 2, 3)))
    request = await world.approve_outside(call)
    assert await used(world.ledger, request.id, next(iter(request.calls)), world.timestamp)
    withdrawn = await taken_back(world, request.id)
    assert isinstance(withdrawn, ApprovalRequest)
    refused = await world.expect(Declined, call)
    assert "1 of 3 calls were already sent; the others will not be sent." in str(refused)
    assert "Nothing was sent." not in str(refused)
    assert world.changes == []


async def test_list_whose_approval_is_withdrawn_meanwhile_is_not_to_be_repeated(world: World) -> None:
    call = batch_of(*(world.run().model_copy(update={"input": {"n": number}}) for number in (1, 2)))
    request = await world.approve_outside(call)
    with world.act_before_changes(lambda _: taken_back(world, request.id)):
        error = await world.expect(Incomplete, call)
    assert error.what.startswith("1 of 2 calls succeeded. ")
    assert error.next_step == "Do not repeat it; ask what to do instead."
    assert len(world.changes) == 1


async def test_temporary_approval_that_came_with_it_is_not_given(world: World) -> None:
    call = world.run()
    await world.expect(PendingApproval, call)
    request = await world.open_request()
    vote = Vote("local_page", approves=True, at=world.timestamp, is_temporary=True)
    assert await world.ledger.decide(request, vote, "local_page") is not None
    await taken_back(world, request.id)
    await world.expect(Declined, call)
    assert await world.temporary_approvals() == []


async def test_reasons_why_nothing_is_withdrawn(world: World) -> None:
    await world.expect(PendingApproval, world.run())
    request = await world.open_request()
    assert await taken_back(world, request.id) == NotCounted("This request is not approved. Nothing was withdrawn.")
    await world.approve_open_request()
    world.clock.pass_(601)
    assert await taken_back(world, request.id) == NotCounted("This approval expired unused. Nothing was withdrawn.")
    assert why_not_withdrawn(None) == "This approval request does not exist. Nothing was decided."
    declined = await world.ledger.find(request.id)
    assert declined is not None
    assert declined.state is RequestState.APPROVED
