"""What comes with a vote counts with it and not before: a temporary approval, and the sentence where it does not."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support import stores
from support.decisions import moved
from support.stores import NOW, grant, opened, permit
from support.valkey_server import ValkeyServer
from support.values import not_none
from support.world import Call, FormLater, FormNow, World

from fastn_mcp.channels.page.inbox import Inbox, InboxAccount
from fastn_mcp.errors import TargetChanged
from fastn_mcp.guard.approval.votes import NotCounted, TerminalApprovals, count_vote, unrecorded
from fastn_mcp.guard.approval_form import Approve, Decline, PendingApproval, form_choices, used_up
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, Vote
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.tools.workflows import RunWorkflow


@pytest.fixture(params=stores.KINDS)
async def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Ledger]:
    server: ValkeyServer | None = request.getfixturevalue("valkey") if request.param == "valkey" else None
    store = opened(f"sqlite:{tmp_path / 'ledger'}" if server is None else server.url())
    yield store
    await store.aclose()


def change_target(world: World, call: RunWorkflow) -> None:
    world.sandbox.state.named("workflows", call.workflow_id, by="id")["description"] = "Changed meanwhile."


async def by_page(world: World) -> None:
    inbox = Inbox(world.system, InboxAccount(None, world.ledger, unrecorded, world.typed))
    (pending,) = await inbox.waiting(world.timestamp)
    assert isinstance(await inbox.approve(pending, world.timestamp, is_temporary=True), str)


async def by_terminal(world: World) -> None:
    terminal = TerminalApprovals(world.ledger, world.audit, world.system)
    assert "Approved." in await terminal.approve(await world.open_request(), is_temporary=True)


Answer = Callable[[World], Awaitable[None]]
CHANNELS: dict[str, Answer] = {"page": by_page, "terminal": by_terminal}


@pytest.mark.parametrize("channel", [*CHANNELS, "form now", "form later"])
@pytest.mark.parametrize("changes", [True, False])
async def test_temporary_approval_opens_when_the_approval_is_used(
    ledger: Ledger, tmp_path: Path, channel: str, changes: bool
) -> None:
    """In every channel. If the target changes before, nothing is sent, and there is none."""
    world = World(tmp_path, ledger=ledger)
    call, form = world.run(), None

    def answered(_: object) -> Approve:
        if changes:
            change_target(world, call)
        return Approve(is_temporary=True)

    if channel == "form now":
        form = FormNow(answered, world.clock)
    elif channel == "form later":
        asked = await world.first_round(call)
        content = {"decision": form_choices(asked)[2]}
        form = FormLater(submitted=(asked.id, ("accept", content)))
    else:
        await world.expect(PendingApproval, call)
        await CHANNELS[channel](world)
    assert await ledger.temporary_approvals(world.timestamp) == []
    if changes and channel != "form now":
        change_target(world, call)
    result = await world.call(call, form)
    opened = await ledger.temporary_approvals(world.timestamp)
    if changes:
        assert isinstance(result, TargetChanged)
        assert (opened, world.changes) == ([], [])
        return
    assert isinstance(result, Done)
    by = channel if channel == "terminal" else "local_page" if channel == "page" else "client_form"
    assert [(each.by, each.permit_until - (each.decided or 0)) for each in opened] == [(by, 900)]
    await world.expect(Done, call)
    assert len(world.changes) == 2


@pytest.mark.parametrize(("wishes", "opens"), [((True, True), True), ((True, False), False), ((), False)], ids=str)
def test_temporary_approval_needs_every_approver(wishes: tuple[bool, ...], opens: bool) -> None:
    votes = tuple(Vote(f"person {n}", True, NOW, is_temporary=wish) for n, wish in enumerate(wishes))
    asked = replace(grant(), votes=votes, permit=permit(), expected=None)
    assert asked.gives_permit is opens
    assert not replace(asked, permit=None).gives_permit
    assert not replace(asked, expected="Acme").gives_permit


@pytest.mark.parametrize("channel", CHANNELS)
async def test_temporary_approval_that_was_not_offered_is_not_stored(
    ledger: Ledger, channel: str, tmp_path: Path
) -> None:
    world = World(tmp_path, ledger=ledger)
    await ledger.open(replace(grant(), created=NOW, expires=world.timestamp + 600))
    await CHANNELS[channel](world)
    assert [(vote.approves, vote.is_temporary) for vote in not_none(await ledger.find("g1")).votes] == [(True, False)]


CLOSED = {
    RequestState.APPROVED: "This request has already been approved. Your answer was not recorded.",
    RequestState.USED: "This request has already been approved, and the call was made. Your answer was not recorded.",
    RequestState.DECLINED: "This request has already been declined. Your answer was not recorded.",
    RequestState.STALE: "This request is void, since its target changed. Your answer was not recorded.",
}


@pytest.mark.parametrize("approves", [True, False])
@pytest.mark.parametrize("state", CLOSED, ids=lambda state: state.value)
async def test_vote_on_a_closed_request_says_what_became_of_it(
    ledger: Ledger, state: RequestState, approves: bool
) -> None:
    await ledger.open(grant())
    assert await moved(ledger, "g1", [RequestState.OPEN], state, NOW, by="kim")
    before = await ledger.find("g1")
    counted = await count_vote(Vote("dana", approves, NOW), grant(), ledger, "verified")
    assert counted == NotCounted(CLOSED[state])
    assert await ledger.find("g1") == before


@pytest.mark.parametrize("approves", [True, False])
async def test_vote_after_expiry_says_so(ledger: Ledger, approves: bool) -> None:
    await ledger.open(grant())
    for _ in range(2):  # before and after it is closed
        counted = await count_vote(Vote("dana", approves, NOW + 600), grant(), ledger, "verified")
        assert counted == NotCounted("This request has expired. Your answer was not recorded; the agent can ask again.")
        await ledger.expire(grant().account, NOW + 600)
    assert await ledger.declines("local") == (0, 0.0)


async def test_second_vote_of_one_approver_says_that_somebody_else_has_to(ledger: Ledger) -> None:
    asked = replace(grant(), required="four_eyes")
    await ledger.open(asked)
    assert isinstance(await count_vote(Vote("dana", True, NOW), asked, ledger, "verified"), ApprovalRequest)
    again = await count_vote(Vote("Dana", True, NOW + 1), asked, ledger, "verified")
    assert again == NotCounted(
        "You have already approved. One more person has to approve. Your answer was not recorded."
    )


async def test_late_decline_in_a_form_says_that_it_does_not_count(world: World) -> None:
    call: Call = world.run()
    asked = await world.first_round(call)
    find, now = world.ledger.find, world.timestamp

    async def overtaken(approval_id: str) -> ApprovalRequest | None:
        """Approve it right after it was read."""
        world.ledger.find = find
        current = not_none(await find(approval_id))
        assert await world.ledger.decide(current, Vote("client_form", True, now), "client_form") is not None
        return current

    world.ledger.find = overtaken
    answer = await world.call(call, FormLater(submitted=(asked.id, Decline())))
    assert str(answer) == str(used_up())
    assert world.changes == []
