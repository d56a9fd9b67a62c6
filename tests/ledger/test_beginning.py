"""A change begins with all that permits it, or nothing is used, counted, claimed or recorded. In every store."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from support import stores
from support.begun import claimed, counted, given, rated, used
from support.memory_store import MemoryStore
from support.stores import NOW, add_temporary, change, grant, permit, put, race, temporary_approval
from support.values import not_none

from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, ShownCall, Vote
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.change_start import BudgetLimit, StartResult, UsageRate
from fastn_mcp.ledger.documents import BudgetUse, CallerState, ListedCalls, RateUses, Unreadable, write
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.store import LedgerLost
from fastn_mcp.policy.decision import PLANNED

ACCOUNT = change().account
DAY = BudgetLimit("destroy", "2026-11-25", 2)
ENTRY = BudgetLimit("plan 1", PLANNED, 2)
RATE = UsageRate("destroy", 2, 300)
ALL: dict[str, Any] = {
    "undoes": "c0",
    "limits": [DAY, ENTRY],
    "rate": RATE,
    "approval_id": "g1",
    "temporary_approval_id": "s1",
}
"""Everything that can permit a change at once."""


def listed(change_id: str = "c1", call: int = 1, at: float = NOW, list_id: str = "b1") -> Change:
    """Return a change of a list."""
    return replace(change(change_id, at=at), list_id=list_id, call_id=f"call {call}", number=call)


async def approve(ledger: Ledger, name: str, calls: int = 2) -> ApprovalRequest:
    """Store the approval of a list."""
    shown = {f"call {number}": ShownCall(f"binding {number}", {}) for number in range(1, calls + 1)}
    asked = replace(grant(name), calls=shown)
    await ledger.open(asked)
    return not_none(await ledger.decide(asked, Vote("dana", True, NOW), "terminal"))


async def prepare(ledger: Ledger) -> None:
    """Store what `ALL` names."""
    await approve(ledger, "g1")
    await add_temporary(ledger, temporary_approval("s1"))
    await ledger.begin(replace(change("c0"), outcome="done"))


async def stored(ledger: Ledger) -> dict[str, object]:
    """Return all that the beginning of a change with `ALL` may write."""
    return {
        "approvals": [await ledger.find(name) for name in ("g1", "s1")],
        "declines": await ledger.declines(grant().holder),
        "budgets": [await ledger.spent(each.budget, each.period) for each in (DAY, ENTRY)],
        "rate": await ledger.rate_uses(RATE.budget, RATE.seconds, NOW),
        "changes": sorted([each.id for each in await ledger.changes(ACCOUNT, 99, NOW + 1)]),
        "undone": not_none(await ledger.change(ACCOUNT, "c0")).undone,
        "list": [each.id for each in await ledger.changes_of("b1")],
        "under way": [each.id for each in await ledger.under_way(0.0)],
        "permits": [each.id for each in await ledger.permits_of(grant().holder, NOW)],
    }


async def test_change_begins_with_all_that_permits_it(ledger: Ledger, other: Ledger) -> None:
    await prepare(ledger)
    await ledger.open(declined := replace(grant("declined"), out_of_band=False))
    await ledger.decide(declined, Vote("client_form", False, NOW), "client_form")
    assert await other.declines(grant().holder) == (1, NOW)
    assert await ledger.begin(listed(), **ALL) is StartResult.STARTED
    after = await stored(other)
    (approval, _) = [await other.find(name) for name in ("g1", "s1")]
    assert approval is not None
    assert (approval.used, approval.state, approval.decided) == (("call 1",), RequestState.APPROVED, NOW)
    assert after | {"approvals": ()} == {
        "approvals": (),
        "declines": (0, 0.0),
        "budgets": [1, 1],
        "rate": [NOW],
        "changes": ["c0", "c1"],
        "undone": True,
        "list": ["c1"],
        "under way": ["c1"],
        "permits": ["s1"],
    }


Obstacle = Callable[[Ledger], Awaitable[object]]

OBSTACLES: dict[StartResult, Obstacle] = {
    StartResult.STARTED_BEFORE: lambda ledger: ledger.begin(listed("before")),
    StartResult.UNDONE: lambda ledger: claimed(ledger, "c0"),
    StartResult.NO_PERMIT: lambda ledger: ledger.revoke_temporary("s1"),
    StartResult.NO_APPROVAL: lambda ledger: ledger.withdraw("g1", Vote("kim", False, NOW), "terminal"),
    StartResult.NO_LIMIT: lambda ledger: counted(ledger, replace(ENTRY, limit=9), replace(ENTRY, limit=9)),
    StartResult.NO_RATE: lambda ledger: asyncio.gather(*(rated(ledger, RATE.budget, 9, 300) for _ in range(2))),
}
"""What another process did since the call was judged, by why the call may not begin then."""


def test_each_reason_has_an_obstacle() -> None:
    assert OBSTACLES.keys() | {StartResult.STARTED} == {*StartResult}


@pytest.mark.parametrize("why", OBSTACLES)
async def test_change_that_may_not_begin_changes_nothing(ledger: Ledger, other: Ledger, why: StartResult) -> None:
    await prepare(ledger)
    await stored(ledger)  # what it knows now is old once the other process has acted
    assert await OBSTACLES[why](other)
    before = await stored(other)
    for each in (ledger, other):
        assert await each.begin(listed(), **ALL) is why
        assert await stored(ledger) == before
    assert await ledger.change(ACCOUNT, "c1") is None


async def test_first_reason_in_order_is_returned(ledger: Ledger) -> None:
    """Whoever repeats a call of a list is told that it was made, whatever else has ended meanwhile."""
    await prepare(ledger)
    for obstacle in OBSTACLES.values():
        await obstacle(ledger)
    assert await ledger.begin(listed(), **ALL) is StartResult.STARTED_BEFORE
    assert await ledger.begin(listed(list_id="b2"), **ALL) is StartResult.UNDONE


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ({"undoes": "none"}, StartResult.UNDONE),
        ({"temporary_approval_id": "none"}, StartResult.NO_PERMIT),
        ({"temporary_approval_id": "g1"}, StartResult.NO_PERMIT),
        ({"approval_id": "none"}, StartResult.NO_APPROVAL),
    ],
)
async def test_what_does_not_exist_permits_nothing(ledger: Ledger, missing: dict[str, Any], why: StartResult) -> None:
    await prepare(ledger)
    before = await stored(ledger)
    assert await ledger.begin(listed(), **ALL | missing) is why
    assert await stored(ledger) == before


async def test_change_that_exists_is_not_begun_again(ledger: Ledger, other: Ledger) -> None:
    await prepare(ledger)
    await ledger.begin(change("c1"))
    before = await stored(ledger)
    for each in (ledger, other):
        with pytest.raises(ValueError, match="a change of this id already exists"):
            await each.begin(listed(), **ALL)
    assert await stored(ledger) == before


async def test_limits_count_together_or_not_at_all(ledger: Ledger, other: Ledger) -> None:
    more = replace(ENTRY, limit=3)
    assert [await counted(each, DAY, more) for each in (ledger, other, ledger)] == [True, True, False]
    assert not await counted(other, more, DAY)
    assert await other.spent(ENTRY.budget, ENTRY.period) == 2
    assert await counted(ledger, more)


@pytest.mark.parametrize("ended", ["expired", "revoked", "its request is void"])
async def test_permit_that_ended_since_the_call_was_judged_permits_nothing(
    ledger: Ledger, other: Ledger, ended: str
) -> None:
    await add_temporary(ledger, temporary_approval("s1", NOW + 900))
    assert [each.id for each in await ledger.permits_of(grant().holder, NOW)] == ["s1"]
    assert (
        await ledger.begin(change("c1", at=NOW + 899), temporary_approval_id="s1", limits=[DAY]) is StartResult.STARTED
    )
    if ended == "revoked":
        assert await other.revoke_temporary("s1")
    at = NOW + 900 if ended == "expired" else NOW + 1
    if ended == "its request is void":
        await other.change_request("s1", lambda request: replace(request, permit=None))
    assert await ledger.begin(change("c2", at=at), temporary_approval_id="s1", limits=[DAY]) is StartResult.NO_PERMIT
    assert await ledger.spent(DAY.budget, DAY.period) == 1
    await given_again(other, "s1", at + 1)
    assert await ledger.begin(change("c2", at=at), temporary_approval_id="s1", limits=[DAY]) is StartResult.STARTED


async def given_again(ledger: Ledger, approval_id: str, until: float) -> None:
    await ledger.change_request(approval_id, lambda request: replace(request, permit=permit()))
    await given(ledger, approval_id, until)


async def test_first_use_of_a_list_counts_once_in_the_rate(ledger: Ledger, other: Ledger) -> None:
    once = replace(RATE, most=1)
    await approve(ledger, "g1", calls=3)
    await approve(ledger, "g2")
    for number, each in enumerate((ledger, other, ledger), start=1):
        assert (
            await each.begin(listed(f"c{number}", number, NOW + number), rate=once, approval_id="g1")
            is StartResult.STARTED
        )
    assert await ledger.rate_uses(RATE.budget, RATE.seconds, NOW + 9) == [NOW + 1]
    assert await other.begin(listed("c4", list_id="b2"), rate=once, approval_id="g2") is StartResult.NO_RATE
    assert await other.begin(change("c5"), rate=once) is StartResult.NO_RATE
    assert not_none(await ledger.find("g2")).used == ()


async def test_concurrent_uses_of_a_list_count_once_in_the_rate(ledger: Ledger, other: Ledger) -> None:
    await approve(ledger, "g1", calls=6)
    begun = await asyncio.gather(
        *(
            each.begin(listed(f"c{number}", number), rate=replace(RATE, most=1), approval_id="g1")
            for number, each in enumerate((ledger, other) * 3, start=1)
        )
    )
    assert begun == [StartResult.STARTED] * 6
    assert await ledger.rate_uses(RATE.budget, RATE.seconds, NOW) == [NOW]
    assert not_none(await other.find("g1")).state is RequestState.USED


@pytest.mark.parametrize("what", ["begin all", "begin listed"])
@pytest.mark.parametrize("where", stores.SHARED, indirect=True)
async def test_change_begins_once_under_two_processes(where: str, ledger: Ledger, what: str) -> None:
    """25 attempts in each: with an approval, a budget, a rate and an undo, of one call or of one call of a list."""
    await approve(ledger, "g1")
    await ledger.begin(replace(change("c0"), outcome="done"))
    assert sum(race(where, what)) == 1
    assert not_none(await ledger.find("g1")).used == ("call 1",)
    assert await ledger.spent("destroy", "2026-11-25") == 1
    assert await ledger.rate_uses("destroy", 300, NOW) == [NOW]
    assert len(await ledger.changes(ACCOUNT, 99, NOW + 1)) == 2


@pytest.mark.parametrize("where", stores.SHARED, indirect=True)
async def test_rate_holds_under_two_processes(where: str, ledger: Ledger) -> None:
    assert sum(race(where, "rate")) == 7
    assert await ledger.rate_uses("destroy", 300, NOW) == [NOW] * 7


UNREADABLE: dict[str, tuple[Any, tuple[str, ...]]] = {
    "approval": (replace(grant("g1"), state=RequestState.APPROVED), ("g1",)),
    "caller": (CallerState(), (grant().holder,)),
    "temporary approval": (temporary_approval("s1"), ("s1",)),
    "undone change": (change("c0"), ("c0",)),
    "list": (ListedCalls(), ("b1",)),
    "budget": (BudgetUse(), (DAY.budget, DAY.period)),
    "plan entry": (BudgetUse(), (ENTRY.budget, ENTRY.period)),
    "rate": (RateUses(), (RATE.budget,)),
}


@pytest.mark.parametrize("kind", UNREADABLE)
async def test_document_that_cannot_be_read_refuses_the_change(ledger: Ledger, other: Ledger, kind: str) -> None:
    await prepare(ledger)
    record, id_ = UNREADABLE[kind]
    good = write(record, *id_)
    text = json.loads(not_none(good.value))
    text["record"]["added_later"] = 1
    await put(other, replace(good, value=json.dumps(text)))
    revision = await other.revision()
    for each in (ledger, other):
        with pytest.raises(Unreadable, match="cannot be read"):
            await each.begin(listed(), **ALL)
    assert await other.revision() == revision
    assert await other.change(ACCOUNT, "c1") is None


async def test_unconfirmed_beginning_counts_as_made() -> None:
    """The call is not sent, and all that permitted it is used: whether it is known to the store is not known."""
    store = MemoryStore()
    ledger, other = Ledger(store), Ledger(store)
    await prepare(ledger)
    store.lost, store.commits = "after", 0
    with pytest.raises(LedgerLost):
        await ledger.begin(listed(), **ALL)
    assert store.commits == 1, "nothing is sent a second time"
    store.lost = ""
    for each in (ledger, other):
        assert await each.begin(listed("c2"), **ALL) is StartResult.STARTED_BEFORE
        assert not await used(each, "g1", "call 1")
        assert not await claimed(each, "c0")
    made = await stored(other)
    assert (made["budgets"], made["rate"], made["changes"]) == ([1, 1], [NOW], ["c0", "c1"])


async def test_lost_store_begins_nothing() -> None:
    store = MemoryStore()
    ledger = Ledger(store)
    await prepare(ledger)
    before = await stored(ledger)
    for lost in ("before", "reads"):
        store.lost = lost
        with pytest.raises(LedgerLost):
            await ledger.begin(listed(), **ALL)
        store.lost = ""
        assert await stored(ledger) == before
    assert await ledger.begin(listed(), **ALL) is StartResult.STARTED
