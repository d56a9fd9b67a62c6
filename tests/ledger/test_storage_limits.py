"""What is stored for one caller is bounded, in every store."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.begun import claimed, given
from support.decisions import moved
from support.questions import a_question
from support.stores import NOW, change, grant, permit, put
from support.values import not_none
from support.world import World

from fastn_mcp.errors import NotSent
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.result import Done
from fastn_mcp.guard.undo import STATE_DROPPED, NotUndoable, undo_of
from fastn_mcp.ledger import change_start, documents
from fastn_mcp.ledger import ledger as ledger_module
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, Vote
from fastn_mcp.ledger.change import KEPT_DAYS, Change
from fastn_mcp.ledger.change_start import BudgetLimit, StartResult, UsageRate
from fastn_mcp.ledger.documents import CallerState, load, write
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.storage_limits import (
    BARE_BYTES,
    MAX_JOURNAL_BYTES,
    MAX_OPEN_BYTES,
    MAX_REQUEST_BYTES,
    JournalFull,
    RequestsFull,
    StoredBytes,
    stored_bytes,
)
from fastn_mcp.ledger.store import Commit, Document, Write
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.undo_change import ListChanges, UndoChange
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, UpdateCustomer
from fastn_mcp.tools.workflows import RunWorkflow

LARGE = 900_000
MORE = "x" * LARGE
ACCOUNT = "default at live.fastn.ai"
DAY = 86_400.0


def large_request(name: str, principal: str = "local", at: float = NOW) -> ApprovalRequest:
    return replace(grant(name, principal, at, at + 600), question=a_question(arguments={"extra": MORE}))


def large_change(name: str, at: float, **more: Any) -> Change:
    values: dict[str, Any] = {"outcome": "done", "before": {"id": "cus_1", "plan": MORE}} | more
    return replace(change(name, at), **values)


def stored_size(record: ApprovalRequest | Change) -> int:
    return stored_bytes(write(record, record.id).value)


async def opened_requests(ledger: Ledger, requests: Sequence[ApprovalRequest]) -> list[str]:
    names = list[str]()
    for request in requests:
        try:
            names.append(await ledger.open(request))
        except RequestsFull:
            continue
    return names


async def requests_kept(ledger: Ledger, names: Sequence[str]) -> list[str]:
    return [name for name in names if await ledger.find(name) is not None]


async def states_kept(ledger: Ledger) -> list[str]:
    """Return the changes whose state before is kept, oldest first."""
    changes = await ledger.changes(ACCOUNT, 1000, 1e12)
    return [each.id for each in reversed(changes) if not each.is_state_dropped]


async def test_open_requests_of_a_caller_are_bounded_by_bytes(ledger: Ledger, other: Ledger) -> None:
    stores = [ledger, other]
    opened = [
        name
        for number in range(31)
        for name in await opened_requests(stores[number % 2], [large_request(f"g{number}")])
    ]
    assert opened == ["g0", "g1"]
    with pytest.raises(RequestsFull) as refused:
        await other.open(large_request("more"))
    assert str(refused.value) == (
        "With this call, this caller's waiting calls would take more than 2 MB of the ledger."
        " Nothing was sent. Let a person decide on the waiting calls first, or send less in one call."
    )
    assert await ledger.find("more") is None
    await other.open(grant("small"))
    assert await other.open(large_request("another's", "other")) == "another's"
    assert await moved(ledger, "g0", [RequestState.OPEN], RequestState.DECLINED, NOW)
    assert await ledger.open(large_request("more")) == "more"


async def test_request_that_grew_counts_as_it_is(ledger: Ledger, other: Ledger) -> None:
    await ledger.open(grant("g0"))
    await ledger.change_request("g0", lambda current: replace(current, told=("x" * (MAX_OPEN_BYTES - 2_000),)))
    with pytest.raises(RequestsFull):
        await other.open(replace(grant("g1"), told=("x" * 2_000,)))
    await ledger.void("g0", RequestState.STALE, NOW)
    await ledger.change_request("g0", lambda current: replace(current, told=("x" * (MAX_REQUEST_BYTES - 2_000),)))
    with pytest.raises(RequestsFull):
        await other.open(replace(grant("g1"), told=("x" * 2_000,)))
    await ledger.change_request("g0", lambda current: replace(current, told=()))
    await other.open(replace(grant("g1"), told=("x" * 2_000,)))


async def test_oldest_past_decisions_of_a_caller_are_deleted_first(ledger: Ledger, other: Ledger) -> None:
    names = [f"g{number}" for number in range(12)]
    await ledger.open(large_request("another's", "other"))
    for number, name in enumerate(names):
        await ledger.open(large_request(name, at=NOW + number * 1000))
        await ledger.expire(ACCOUNT, NOW + number * 1000 + 600)
    kept = await requests_kept(other, names)
    assert kept == names[-(MAX_REQUEST_BYTES // stored_size(large_request("g0"))) :]
    assert await requests_kept(other, ["another's"])


async def test_request_that_still_decides_something_is_not_deleted(ledger: Ledger, other: Ledger) -> None:
    """A decline refuses the same call until it would have expired, and a temporary approval covers others."""
    await ledger.open(replace(large_request("temporary", at=NOW - 1), permit=permit()))
    await given(ledger, "temporary", NOW + 5000)
    assert await moved(ledger, "temporary", [RequestState.OPEN], RequestState.USED, NOW)
    declined = [f"g{number}" for number in range(20)]
    opened = list[str]()
    for name in declined:
        opened += await opened_requests(ledger, [large_request(name)])
        await moved(ledger, name, [RequestState.OPEN], RequestState.DECLINED, NOW)
    assert opened == declined[:7]
    assert await requests_kept(other, ["temporary", *declined]) == ["temporary", *opened]
    with pytest.raises(RequestsFull) as refused:
        await other.open(large_request("more"))
    assert "unexpired approval requests would take more than 8 MB of the ledger. Nothing was sent." in str(
        refused.value
    )
    await other.open(large_request("later", at=NOW + 601))
    assert await requests_kept(other, ["temporary", *opened, "later"]) == ["temporary", *opened[1:], "later"]


async def test_states_before_the_oldest_settled_changes_are_dropped_first(ledger: Ledger, other: Ledger) -> None:
    stores = [ledger, other]
    await ledger.begin(replace(large_change("another's", NOW), principal="other"))
    for number in range(25):
        assert await stores[number % 2].begin(large_change(f"c{number}", NOW + number)) is StartResult.STARTED
    kept = await states_kept(ledger)
    assert kept == ["another's", *(f"c{number}" for number in range(25 - len(kept) + 1, 25))]
    assert len(kept) == 1 + MAX_JOURNAL_BYTES // stored_size(large_change("c0", NOW))
    first = not_none(await other.change(ACCOUNT, "c0"))
    assert (first.arguments, first.before, first.sent, first.is_state_dropped) == ({}, {}, {}, True)
    assert (first.target, first.name, first.outcome, first.at) == ("cus_1", "Acme", "done", NOW)
    assert undo_of(first) == NotUndoable(STATE_DROPPED)


@pytest.mark.parametrize(
    "kept",
    [
        {"outcome": "begun"},
        {"outcome": "unknown_outcome"},
        {"unsettled_until": NOW + 600, "repeat_id": "call"},
    ],
    ids=lambda kept: next(iter(kept)) + str(next(iter(kept.values()))),
)
async def test_state_of_what_is_not_settled_is_kept(ledger: Ledger, other: Ledger, kept: dict[str, Any]) -> None:
    await ledger.begin(large_change("c0", NOW, **kept))
    for number in range(1, 20):
        await other.begin(large_change(f"c{number}", NOW + number))
    states = await states_kept(other)
    assert states[0] == "c0"
    assert "c1" not in states


async def test_state_of_what_is_being_undone_is_kept(ledger: Ledger, other: Ledger) -> None:
    await ledger.begin(large_change("c0", NOW))
    assert await claimed(ledger, "c0", NOW + 1)
    for number in range(1, 20):
        await other.begin(large_change(f"c{number}", NOW + number))
    assert (await states_kept(other))[0] == "c0"
    await other.begin(large_change("later", NOW + DAY))
    assert "c0" not in await states_kept(ledger)


async def test_journal_full_of_unsettled_changes_refuses_its_caller_only(ledger: Ledger, other: Ledger) -> None:
    begun = [f"c{number}" for number in range(MAX_JOURNAL_BYTES // stored_size(large_change("c0", NOW)))]
    for number, name in enumerate(begun):
        await ledger.begin(large_change(name, NOW + number, outcome="begun"))
    with pytest.raises(JournalFull) as refused:
        await ledger.begin(large_change("more", NOW + 50, outcome="begun"))
    assert str(refused.value) == (
        "This caller's journal is full: with this call, its unsettled changes would take more than"
        " 16 MB of the ledger. Nothing was sent. See list_changes. Check in Fastn what the changes with"
        " an unknown outcome did, and tell the operator: each change is kept for 30 days."
    )
    assert await states_kept(other) == begun
    assert await other.begin(replace(large_change("another's", NOW), principal="other")) is StartResult.STARTED
    await ledger.settle(large_change("c0", NOW, outcome="done"))
    assert await other.begin(large_change("more", NOW + 100)) is StartResult.STARTED
    assert await states_kept(ledger) == ["another's", *begun[1:], "more"]


async def test_refused_change_drops_nothing(ledger: Ledger, other: Ledger) -> None:
    await ledger.begin(large_change("c0", NOW))
    with pytest.raises(JournalFull):
        await other.begin(large_change("too large", NOW + 1, before={"plan": "x" * MAX_JOURNAL_BYTES}))
    assert await states_kept(other) == ["c0"]
    assert await ledger.change(ACCOUNT, "too large") is None


async def test_change_that_grew_with_its_outcome_counts_as_it_is(ledger: Ledger, other: Ledger) -> None:
    await ledger.begin(change("c0"))
    await ledger.settle(replace(change("c0"), outcome="unknown_outcome", sent={"plan": "x" * MAX_JOURNAL_BYTES}))
    with pytest.raises(JournalFull):
        await other.begin(change("c1"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal of 30 kB, of which nothing is spared."""
    monkeypatch.setattr(change_start, "MAX_JOURNAL_BYTES", 30_000)
    monkeypatch.setattr(ledger_module, "SPARE_BYTES", 0)


@pytest.mark.usefixtures("small")
async def test_whole_changes_are_deleted_only_after_every_state(ledger: Ledger, other: Ledger) -> None:
    """A change that takes no less without its state keeps it for as long as it is kept."""
    bare = [replace(change(f"bare {number}", NOW + number), outcome="done") for number in range(10)]
    states = [
        replace(change(f"state {number}", NOW + 10 + number), outcome="done", before={"plan": "x" * 3_400})
        for number in range(3)
    ]
    assert {stored_size(each) for each in bare} == {BARE_BYTES}
    assert {stored_size(each) for each in states} == {4_500}
    for each in (*bare, *states):
        assert await ledger.begin(each) is StartResult.STARTED  # 28.5 kB
    assert await states_kept(other) == [each.id for each in (*bare, *states)]
    history = list[tuple[list[str], list[str]]]()
    for number in range(20, 30):
        assert await other.begin(replace(change(f"new {number}", NOW + number), outcome="done")) is StartResult.STARTED
        kept = [each.id for each in await ledger.changes(ACCOUNT, 1000, 1e12)]
        with_state = await states_kept(ledger)
        dropped = [each.id for each in states if each.id not in with_state]
        deleted = [each.id for each in (*bare, *states) if each.id not in kept]
        history.append((dropped, deleted))
    names = [each.id for each in states]
    assert history == [
        *(([], []), (names[:1], []), (names[:1], []), (names[:2], []), (names[:2], [])),
        *((names, []), (names, []), (names, [])),
        (names, ["bare 0"]),
        (names, ["bare 0", "bare 1"]),
    ]


@pytest.mark.usefixtures("small")
async def test_state_of_the_change_that_is_about_to_be_undone_is_kept(ledger: Ledger) -> None:
    for number in range(6):
        await ledger.begin(replace(change(f"c{number}", NOW + number), outcome="done", before={"plan": "x" * 3_700}))
    assert await states_kept(ledger) == [f"c{number}" for number in range(6)]
    undo = replace(change("undo", NOW + 10), before={"plan": "x" * 3_700})
    assert await ledger.begin(undo, undoes="c0") is StartResult.STARTED
    assert await states_kept(ledger) == ["c0", "c3", "c4", "c5", "undo"]


@pytest.mark.usefixtures("small")
async def test_late_outcome_does_not_bring_a_dropped_state_back(ledger: Ledger, other: Ledger) -> None:
    first = replace(change("c0"), outcome="done", before={"plan": "x" * 20_000}, repeat_id="call")
    await ledger.begin(first)
    await other.begin(replace(change("c1", NOW + 1), before={"plan": "x" * 20_000}))
    assert await states_kept(ledger) == ["c1"]
    await ledger.settle(replace(first, target="cus_9", sent={"plan": "x" * 20_000}))
    found = not_none(await other.change(ACCOUNT, "c0"))
    assert (found.target, found.sent, found.before, found.is_state_dropped) == ("cus_9", {}, {}, True)


@pytest.mark.usefixtures("small")
async def test_change_that_cannot_be_read_is_kept(ledger: Ledger, other: Ledger) -> None:
    large = replace(change("c0"), outcome="done", before={"plan": "x" * 20_000})
    await ledger.begin(large)
    await put(other, replace(write(large, "c0"), value="{"))
    with pytest.raises(JournalFull):
        await ledger.begin(replace(large, id="c1", at=NOW + 1))
    assert (await other.store.read(["change c0"]))["change c0"].value == "{"


@pytest.mark.usefixtures("small")
async def test_limit_holds_for_changes_that_begin_at_once(ledger: Ledger, other: Ledger) -> None:
    begun = replace(change(), before={"plan": "x" * 6_500})

    async def begin(number: int) -> bool:
        try:
            return await (ledger, other)[number % 2].begin(replace(begun, id=f"c{number}")) is StartResult.STARTED
        except JournalFull:
            return False

    assert sum(await asyncio.gather(*map(begin, range(10)))) == 4
    assert len(await ledger.changes(ACCOUNT, 100, 1e12)) == 4


@pytest.mark.usefixtures("small")
async def test_full_journal_uses_and_counts_nothing(ledger: Ledger, other: Ledger) -> None:
    await ledger.begin(replace(change("c0"), outcome="unknown_outcome", before={"plan": "x" * 20_000}))
    await ledger.open(grant())
    assert await moved(other, "g1", [RequestState.OPEN], RequestState.APPROVED, NOW)
    limit = BudgetLimit("destroy", "monday", 5)
    large = replace(change("c1"), call_id="call 1", list_id="b1", before={"plan": "x" * 20_000})
    with pytest.raises(JournalFull):
        await ledger.begin(large, approval_id="g1", limits=[limit], rate=UsageRate("destroy", 5, 60), undoes="c0")
    assert not_none(await other.find("g1")).used == ()
    assert (await other.spent("destroy", "monday"), await other.rate_uses("destroy", 60, NOW)) == (0, [])
    assert not not_none(await other.change(ACCOUNT, "c0")).undone
    assert await other.change(ACCOUNT, "c1") is None
    small = replace(change("c1"), call_id="call 1", list_id="b1")
    assert await ledger.begin(small, approval_id="g1", limits=[limit]) is StartResult.STARTED
    assert await other.begin(replace(large, id="c2"), approval_id="g1") is StartResult.STARTED_BEFORE, (
        "it is no matter of room then"
    )


@pytest.mark.usefixtures("small")
async def test_changes_count_until_they_are_forgotten(ledger: Ledger, other: Ledger) -> None:
    begun = replace(change("c0"), outcome="unknown_outcome", before={"plan": "x" * 20_000})
    await ledger.begin(begun)
    with pytest.raises(JournalFull):
        await other.begin(replace(begun, id="c1", at=NOW + KEPT_DAYS * DAY - 1))
    assert await other.begin(replace(begun, id="c1", at=NOW + (KEPT_DAYS + 1) * DAY)) is StartResult.STARTED
    caller = (await ledger.store.read(["caller local"]))["caller local"]
    assert len(load(CallerState, caller).changes.by_day) == 1


@pytest.mark.usefixtures("small")
async def test_no_more_is_dropped_than_the_change_needs(ledger: Ledger) -> None:
    for number in range(20):
        await ledger.begin(replace(change(f"c{number:02}", NOW + number), outcome="done"))
    assert not_none(await ledger.change(ACCOUNT, "c00")).before  # 30 kB are stored
    await ledger.begin(replace(change("state", NOW + 30), before={"plan": "x" * 900}, outcome="done"))
    await ledger.begin(replace(change("new", NOW + 40), before={"plan": "x" * 2_500}))
    kept = sorted(each.id for each in await ledger.changes(ACCOUNT, 1000, 1e12))
    assert kept == [*(f"c{number:02}" for number in range(3, 20)), "new", "state"]
    assert not_none(await ledger.change(ACCOUNT, "state")).is_state_dropped


@pytest.mark.usefixtures("small")
async def test_many_small_records_are_dropped_together_and_a_limited_number_in_one_step(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "SPARE_BYTES", 9_000)
    monkeypatch.setattr(ledger_module, "MAX_DROPPED", 4)
    for number in range(20):
        await ledger.begin(replace(change(f"c{number:02}", NOW + number), outcome="done"))
    sizes = list[int]()
    commit = ledger.store.commit

    async def recorded(expected: Mapping[str, int], writes: Sequence[Write], *, is_news: bool = False) -> Commit:
        sizes.append(len(writes))
        return await commit(expected, writes, is_news=is_news)

    monkeypatch.setattr(ledger.store, "commit", recorded)
    await ledger.begin(change("new", NOW + 30))
    assert sizes == [5, 2]  # four and what is counted; then the change and what is counted
    monkeypatch.setattr(ledger_module, "MAX_DROPPED", 99)
    await ledger.begin(replace(change("more", NOW + 31), before={"plan": "x" * 6_000}))
    assert sizes[2:] == [9, 2]  # 2.5 kB and 9 kB to spare


@pytest.mark.usefixtures("small")
async def test_records_are_dropped_only_as_they_are_then(
    ledger: Ledger, other: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may use one between the look for the oldest and the step that drops them."""
    acts = list[Callable[[], Awaitable[object]]]()
    scan = ledger.store.scan

    async def interrupted(*arguments: Any, **more: Any) -> list[Document]:
        found = await scan(*arguments, **more)
        while acts and found:
            await acts.pop()()
        return found

    for number in range(2):
        large = replace(change(f"c{number}", NOW + number), outcome="done", before={"plan": "x" * 13_000})
        await ledger.begin(large)
    monkeypatch.setattr(ledger.store, "scan", interrupted)
    acts.append(lambda: claimed(other, "c0", NOW + 5))
    assert await ledger.begin(replace(change("new", NOW + 5), before={"plan": "x" * 5_000})) is StartResult.STARTED
    assert "c0" in await states_kept(other)

    monkeypatch.setattr(documents, "MAX_REQUEST_BYTES", 32_000)
    for number in range(3):
        asked = replace(grant(f"g{number}", created=NOW + number, expires=NOW + 10 + number), told=("x" * 8_000,))
        await ledger.open(replace(asked, permit=permit()))
        await moved(ledger, asked.id, [RequestState.OPEN], RequestState.DECLINED, NOW)
    acts.append(lambda: given(other, "g0", NOW + 900))
    await ledger.open(replace(grant("new", created=NOW + 60, expires=NOW + 600), told=("x" * 8_000,)))
    assert await requests_kept(other, ["g0", "g1", "g2"]) == ["g0", "g2"]


async def test_past_decisions_are_kept_if_they_make_no_room(ledger: Ledger, other: Ledger) -> None:
    await ledger.open(replace(grant("past", expires=NOW + 1), question=a_question(arguments={"extra": "x" * 100_000})))
    assert await moved(ledger, "past", [RequestState.OPEN], RequestState.DECLINED, NOW)
    large = [large_request(f"g{number}", at=NOW + 60) for number in range(2)]
    more = replace(grant("more", created=NOW + 60), question=a_question(arguments={"extra": "x" * 250_000}))
    assert await opened_requests(ledger, [*large, more]) == ["g0", "g1"]
    assert await requests_kept(other, ["past", "g0", "g1", "more"]) == ["past", "g0", "g1"]


def test_bytes_are_counted_as_stored_in_blocks() -> None:
    assert [stored_bytes(text) for text in (None, "", "x" * 488, "x" * 489, "\u00e9" * 244, "\u00e9" * 245)] == [
        *(0, 1_000, 1_000, 1_500, 1_000, 1_500)
    ]
    none = StoredBytes()
    one = none.added("x", NOW)
    assert (one.total(NOW), one.removed("x", NOW)) == (1_000, none)
    assert one.removed("x" * 9_000, NOW).total(NOW) == 0


async def test_count_is_the_sum_of_what_is_stored(ledger: Ledger, other: Ledger) -> None:
    """Whatever is opened, voted on, used, begun and settled, and whether it grows or shrinks."""
    await ledger.open(asked := replace(grant(), required="four_eyes", told=("x" * 3_000,)))
    await other.open(replace(grant("form"), out_of_band=False))
    for number in range(3):
        await other.decide(asked, Vote(f"{number} {'x' * 700}", True, NOW), "page", "a note " * 100)
    await other.change_request("form", lambda request: replace(request, expires=NOW + 2 * DAY, told=()))
    await ledger.begin(replace(change("c0"), call_id="call 1"), approval_id="g1")
    for sent in ({"plan": "x" * 5_000}, {"plan": "x" * 100}):
        await ledger.settle(replace(change("c0"), outcome="done", sent=sent))
    await other.begin(change("c1", at=NOW + DAY))
    caller = load(CallerState, (await other.store.read(["caller local"]))["caller local"])
    requests = [stored_size(not_none(await ledger.find(name))) for name in ("g1", "form")]
    changes = [stored_size(not_none(await ledger.change(ACCOUNT, name))) for name in ("c0", "c1")]
    assert sorted(caller.requests.by_day.values()) == sorted(requests)
    assert sorted(caller.changes.by_day.values()) == sorted(changes)
    assert [(name, each.size) for name, each in caller.open.items()] == [("form", requests[1])]


async def test_requests_count_until_they_are_forgotten(ledger: Ledger) -> None:
    for days in (0, KEPT_DAYS + 2):
        await ledger.open(grant(f"g{days}", created=NOW + days * DAY, expires=NOW + days * DAY + 600))
    caller = load(CallerState, (await ledger.store.read(["caller local"]))["caller local"])
    assert (len(caller.requests.by_day), len(caller.open)) == (1, 1)


async def test_changes_without_states_are_deleted_last(ledger: Ledger, other: Ledger) -> None:
    """What is left of a change counts too, here because of its long names."""
    many = ("x" * LARGE,)
    for number in range(20):
        await ledger.begin(replace(change(f"c{number}", NOW + number), outcome="done", stopped_triggers=many))
    found = [each.id for each in reversed(await other.changes(ACCOUNT, 100, 1e12))]
    assert found == [f"c{number}" for number in range(20 - len(found), 20)]
    assert len(found) in (16, 17)


async def test_guard_refuses_a_caller_whose_room_is_full_and_nobody_else(tmp_path: Path, ledger: Ledger) -> None:
    world = World(tmp_path, ledger=ledger)
    ana, ben = Caller(Asker("ana"), None), Caller(Asker("ben"), None)

    def run(number: int) -> RunWorkflow:
        return RunWorkflow(workflow_id=world.run().workflow_id, input={"number": number, "text": MORE})

    asked = [await world.dispatch(run(number), ana) for number in range(2)]
    assert [type(each) for each in asked] == [PendingApproval] * 2
    with pytest.raises(RequestsFull):
        await world.dispatch(run(3), ana)
    assert "would take more than 2 MB of the ledger." in world.audited("refused")[-1]["message"]
    assert isinstance(await world.dispatch(run(3), ben), PendingApproval)

    at = world.timestamp
    for number in range(4):
        begun = large_change(
            f"c{number}", at, outcome="unknown_outcome", principal="ana", account="test", before={"plan": ""}
        )
        plan = "x" * (MAX_JOURNAL_BYTES // 4 - stored_size(begun))
        await ledger.begin(replace(begun, before={"plan": plan}))
    create = CreateCustomer(name="Initech")
    with pytest.raises(JournalFull):
        await world.dispatch(create, ana)
    assert "This caller's journal is full" in world.audited("refused")[-1]["message"]
    assert world.changes == []
    assert isinstance(await world.dispatch(create, ben), Done)
    world.close()


async def test_change_whose_state_was_dropped_says_so(tmp_path: Path, ledger: Ledger) -> None:
    world = World(tmp_path, ledger=ledger)
    customer = world.id_of("customers", "Katana")
    done = await world.expect(Done, UpdateCustomer(customer_id=customer, name="Katana Two"), world.form())
    changed = not_none(done.change)
    at = world.timestamp + 1
    for number in range(18):
        await ledger.begin(replace(large_change(f"c{number}", at), principal=changed.principal, account="test"))
    refused = await world.expect(NotSent, UndoChange(change_id=changed.id))
    assert str(refused) == f"undo_change cannot undo this. Nothing was sent. {STATE_DROPPED}"
    listed = (await world.ask(ListChanges()))["changes"]
    (row,) = [row for row in listed if row["change_id"] == changed.id]
    assert (row["undo"], row["name"]) == (STATE_DROPPED, "Katana")
    assert "changed" not in row
    (heading, fact), *_ = await world.journalling.history(
        (await world.judge.judge_call(DeleteCustomer(customer_id=customer), Asker())).resolved
    )
    assert (heading, fact) == (
        "Not checked",
        "a change of the customer by this server just now, whose details are no longer kept",
    )
    world.close()
