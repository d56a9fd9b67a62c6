"""What every store of the ledger promises."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from support import stores
from support.begun import claimed, counted, rated, used
from support.decisions import moved
from support.memory_store import memory_store
from support.questions import a_question
from support.stores import NOW, add_temporary, change, grant, permit, race, temporary_approval
from support.values import not_none
from valkey import Valkey

from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, SealedSecret, ShownCall, Vote
from fastn_mcp.ledger.change import NEVER_REPEATED as OVER
from fastn_mcp.ledger.change_start import BudgetLimit, StartResult, rate_free_at
from fastn_mcp.ledger.identity import account_name, bound_account
from fastn_mcp.ledger.ledger import MAX_WAITING, Ledger, TooManyWaiting
from fastn_mcp.ledger.store import LedgerLost, LedgerUnusable

shared_stores = pytest.mark.parametrize("where", stores.SHARED, indirect=True)
"""For tests with several processes."""

FINAL = [state for state in RequestState if state not in (RequestState.OPEN, RequestState.APPROVED)]


@pytest.mark.parametrize("hostile", ["'; DROP TABLE requests; --\x00\u202e", "}:request:g1\r\n*1\r\n\x00\u202e{x}"])
async def test_text_stays_text(ledger: Ledger, hostile: str) -> None:
    """A name is never part of a statement, a script or another key."""
    asked = a_question(title=hostile, arguments={hostile: hostile})
    await ledger.open(replace(grant(hostile, principal=hostile), target=hostile, question=asked, expected=""))
    request = not_none(await ledger.find(hostile))
    assert (request.principal, request.target, request.question, request.expected) == (hostile, hostile, asked, "")
    assert await ledger.find("g1") is None
    assert await counted(ledger, BudgetLimit("a", "b c", 1))
    assert await counted(ledger, BudgetLimit("a b", "c", 1))


@shared_stores
async def test_approval_is_used_once_among_processes(where: str, ledger: Ledger) -> None:
    await ledger.open(grant())
    assert await moved(ledger, "g1", [RequestState.OPEN], RequestState.APPROVED, NOW)
    assert sum(race(where, "burn")) == 1
    assert not_none(await ledger.find("g1")).state is RequestState.USED


@pytest.mark.long
@shared_stores
async def test_declines_are_counted_among_processes(where: str, ledger: Ledger) -> None:
    # Fewer than may wait at once: all of them can be open together.
    assert race(where, "decline", 15) == [15, 15]
    assert await ledger.declines("local") == (30, NOW)


@pytest.mark.long
@shared_stores
async def test_two_processes_can_create_a_store(where: str) -> None:
    assert race(where, "decline", 5) == [5, 5]


async def test_every_change_of_a_request_wakes_its_waiters(ledger: Ledger, other: Ledger) -> None:

    async def changed(seen: str, seconds: float = 5) -> str:
        with anyio.fail_after(30):
            return await ledger.wait_for_change(seen, seconds, anyio.sleep)

    seen = await changed("")
    assert seen
    assert await changed(seen, 0.01) == seen
    for name in ("g1", "g2"):
        await other.open(grant(name))
    seen = await changed("")
    for name in ("g1", "g2"):
        assert await other.void(name, RequestState.STALE, NOW) is not None
        newer = await changed(seen)
        assert newer != seen
        seen = newer
    await other.open(grant("g3"))
    seen = await changed("")

    async def decide() -> None:
        await anyio.sleep(0.3)
        assert await other.decide(grant("g3"), Vote("local_page", True, NOW), "local_page") is not None

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(decide)
        newer = seen
        with anyio.fail_after(30):
            while newer == seen:
                newer = await changed(seen)
    assert not_none(await ledger.find("g3")).state is RequestState.APPROVED


async def test_still_open_returns_the_open_requests(ledger: Ledger, other: Ledger) -> None:
    for name in ("open", "decided", "not asked for"):
        await ledger.open(grant(name))
    assert await moved(other, "decided", [RequestState.OPEN], RequestState.APPROVED, NOW)
    assert await ledger.still_open({"open", "decided", "unknown"}) == {"open"}
    assert await ledger.still_open(set()) == set()


def typed(approver: str, text: str = "sealed", lifetime: float = 600) -> SealedSecret:
    return SealedSecret(approver, text, lifetime)


async def test_typed_secret_is_stored_only_with_a_counted_vote(ledger: Ledger, other: Ledger) -> None:
    await ledger.open(grant())
    votes = [("dana", ledger), ("kim", other)]
    counted: dict[str, ApprovalRequest | None] = {}

    async def vote(approver: str, at: Ledger) -> None:
        counted[approver] = await at.decide(
            grant(), Vote(approver, True, NOW), "page", secret=typed(approver, approver)
        )

    async with anyio.create_task_group() as tasks:
        for approver, at in votes:
            tasks.start_soon(vote, approver, at)
    (winner,) = [approver for approver, request in counted.items() if request is not None]
    kept = {approver: await other.sealed("g1", approver, NOW) for approver in counted}
    assert kept == {"dana": None, "kim": None} | {winner: winner}
    late = await ledger.decide(grant(), Vote("sam", True, NOW + 601), "page", secret=typed("sam"))
    assert (late, await ledger.sealed("g1", "sam", NOW)) == (None, None)


async def test_typed_secret_counts_only_with_the_votes_that_it_was_compared_with(ledger: Ledger) -> None:
    asked = replace(grant(), required="four_eyes")
    await ledger.open(asked)
    first = not_none(await ledger.decide(asked, Vote("dana", True, NOW), "four_eyes", secret=typed("dana")))
    assert await ledger.decide(asked, Vote("kim", True, NOW), "four_eyes", secret=typed("kim")) is None
    assert await ledger.sealed("g1", "kim", NOW) is None
    assert await ledger.decide(first, Vote("kim", True, NOW), "four_eyes", secret=typed("kim")) is not None
    assert [await ledger.sealed("g1", approver, NOW) for approver in ("dana", "kim")] == ["sealed", "sealed"]


@pytest.mark.parametrize("ending", ["used", "declined", "withdrawn", "void", "expired", "left unused"])
async def test_typed_secret_is_deleted_once_its_request_is_over(
    ledger: Ledger, where: str, request: pytest.FixtureRequest, ending: str
) -> None:
    """Checked in the file and its log, and in all keys of the server."""
    canary, needs = "kAnar13nvogel", {"declined": "four_eyes", "expired": "four_eyes"}.get(ending, "typed")
    lifetime = 0.3 if ending in ("expired", "left unused") else 600
    asked = replace(grant(expires=NOW + lifetime), required=needs)
    await ledger.open(asked)
    approved = not_none(
        await ledger.decide(asked, Vote("dana", True, NOW), "page", secret=typed("dana", canary, lifetime))
    )
    assert canary in everything(where, request)
    match ending:
        case "used":
            assert await used(ledger, "g1", "call 1", NOW)
        case "declined":
            assert await ledger.decide(approved, Vote("kim", False, NOW), "page") is not None
        case "withdrawn":
            assert await ledger.withdraw("g1", Vote("dana", False, NOW), "page") is not None
        case "void":
            assert await ledger.void("g1", RequestState.STALE, NOW) is not None
        case _:
            assert await ledger.sealed("g1", "dana", NOW + 0.2) == canary
            await anyio.sleep(0.4)  # the server forgets it by its own clock
            assert len(await ledger.expire(asked.account, NOW + 0.4)) == (ending == "expired")
    assert await ledger.sealed("g1", "dana", NOW + 0.4) is None
    assert canary not in everything(where, request)


def everything(where: str, request: pytest.FixtureRequest) -> str:
    """Return all that a store holds."""
    if where.startswith("memory:"):
        return repr(vars(memory_store(where)))
    if where.startswith(("sqlite:", "jsonfile:")):
        files = Path(where.partition(":")[2]).parent.iterdir()
        return "".join(file.read_bytes().decode("latin-1") for file in files)
    client: Any = Valkey(port=request.getfixturevalue("valkey").port, decode_responses=True)
    reads: dict[str, Callable[[str], object]] = {
        "hash": client.hgetall,
        "string": client.get,
        "stream": client.xrange,
        "zset": lambda key: client.zrange(key, 0, -1),
    }
    keys: list[str] = [*client.scan_iter(match=f"*{where.split('name=')[1]}*")]
    found = {key: reads[client.type(key)](key) for key in keys}
    client.close()
    return repr(found)


async def test_look_at_requests_forgets_no_history(ledger: Ledger) -> None:
    """A person may look by a clock that is wrong."""
    await ledger.begin(change())
    await ledger.open(grant())
    assert len(await ledger.expire(grant().account, NOW + 1e9)) == 1
    assert await ledger.change(ACCOUNT, "c1") == change()
    assert await ledger.find("g1") is not None


async def test_expired_request_is_closed_once(ledger: Ledger, other: Ledger) -> None:
    form = replace(grant("form"), out_of_band=False)
    for asked in (grant("page"), form, grant("answered"), grant("later", expires=NOW + 900)):
        await ledger.open(asked)
    await ledger.open(replace(grant("others"), account="acme at live.fastn.ai"))
    await moved(ledger, "answered", [RequestState.OPEN], RequestState.APPROVED, NOW, by="local_page")
    assert await ledger.expire(form.account, NOW + 599) == []
    closed = [*await ledger.expire(form.account, NOW + 600), *await other.expire(form.account, NOW + 600)]
    assert sorted(one.id for one in closed) == ["form", "page"]
    request = [await other.find(one.id) for one in closed]
    assert [one and (one.state, one.by, one.decided) for one in request] == [
        (RequestState.UNANSWERED, None, NOW + 600)
    ] * 2
    assert {one.id for one in await other.decided(9)} == {"form", "page", "answered"}
    assert [one.id for one in await ledger.expire("acme at live.fastn.ai", NOW + 600)] == ["others"]
    assert [one.id for one in await ledger.waiting(NOW + 600)] == ["later"]


async def test_request_changes_only_from_its_current_state(ledger: Ledger) -> None:
    assert await ledger.void("g1", RequestState.STALE, NOW) is None, "it is unknown"
    assert not await used(ledger, "g1", "call 1", NOW)
    await ledger.open(grant())
    assert not await used(ledger, "g1", "call 1", NOW)
    assert await moved(ledger, "g1", [RequestState.OPEN], RequestState.APPROVED, NOW + 1, by="terminal")
    assert await ledger.decide(grant(), Vote("local_page", False, NOW + 2), "local_page", "no") is None
    approved = not_none(await ledger.find("g1"))
    assert (approved.state, approved.by, approved.note, approved.decided) == (
        RequestState.APPROVED,
        "terminal",
        None,
        NOW + 1,
    )
    assert await moved(ledger, "g1", [RequestState.OPEN, RequestState.APPROVED], RequestState.USED, NOW + 3)
    burnt = not_none(await ledger.find("g1"))
    assert (burnt.by, burnt.state) == ("terminal", RequestState.USED)


async def test_final_state_never_changes(ledger: Ledger) -> None:
    for final in FINAL:
        await ledger.open(grant(final.value))
        assert await moved(ledger, final.value, [RequestState.OPEN], final, NOW)
        for after in (RequestState.APPROVED, *FINAL):
            assert not await moved(ledger, final.value, list(RequestState), after, NOW), (final, after)
        assert not_none(await ledger.find(final.value)).state is final


async def test_cap_counts_waiting_requests_of_one_principal(ledger: Ledger) -> None:
    for number in range(MAX_WAITING):
        await ledger.open(grant(f"g{number}"))
    with pytest.raises(TooManyWaiting) as refused:
        await ledger.open(grant("more"))
    assert refused.value.what == "32 calls are already waiting for approval."
    assert refused.value.next_step == "Let a person decide on them first."
    assert await ledger.find("more") is None
    await ledger.open(grant("another's", principal="other"))
    assert await moved(ledger, "g0", [RequestState.OPEN], RequestState.DECLINED, NOW)
    await ledger.open(grant("more"))
    # Those that ran out wait no longer.
    await ledger.open(grant("later", created=NOW + 601, expires=NOW + 1201))


async def test_request_id_is_opened_once(ledger: Ledger) -> None:
    await ledger.open(grant())
    with pytest.raises(Exception, match=r"(?i)unique|exists"):
        await ledger.open(replace(grant(), expected="Globex"))
    assert await ledger.find("g1") == grant()


async def test_waiting_requests_are_listed_oldest_first(ledger: Ledger) -> None:
    """Only those decided out-of-band."""
    await ledger.open(grant("late", created=NOW + 2))
    await ledger.open(grant("early", created=NOW + 1))
    await ledger.open(replace(grant("form"), out_of_band=False))
    assert [found.id for found in await ledger.waiting(NOW + 3)] == ["early", "late"]
    assert await moved(ledger, "early", [RequestState.OPEN], RequestState.APPROVED, NOW + 3)
    assert [found.id for found in await ledger.waiting(NOW + 3)] == ["late"]


async def test_latest_returns_the_newest_unused_request_of_a_call(ledger: Ledger) -> None:
    first = replace(grant("first"), call="call")
    await ledger.open(first)
    await ledger.open(replace(grant("second", created=NOW + 1), call="call"))
    await ledger.open(replace(grant("form", created=NOW + 2), call="call", out_of_band=False))
    assert not_none(await ledger.latest("call", NOW + 3)).id == "second"
    assert await moved(ledger, "second", [RequestState.OPEN], RequestState.USED, NOW + 3)
    assert await ledger.latest("call", NOW + 3) == first
    assert await moved(ledger, "first", [RequestState.OPEN], RequestState.DECLINED, NOW + 3, note="not today")
    declined = not_none(await ledger.latest("call", NOW + 3))
    assert (declined.state, declined.note) == (RequestState.DECLINED, "not today")
    assert await ledger.latest("another call", NOW + 3) is None


async def list_approval(ledger: Ledger, name: str, created: float = NOW) -> ApprovalRequest:
    """Open a request for a list of two calls, and approve it."""
    shown = {f"call {number}": ShownCall(f"binding {number}", {}) for number in (1, 2)}
    asked = replace(grant(name, created=created), call="call", calls=shown)
    await ledger.open(asked)
    return not_none(await ledger.decide(asked, Vote("dana", True, NOW), "local_page"))


@pytest.mark.parametrize("later", [5.0, 0.0, -5.0])
@pytest.mark.parametrize(("used_first", "asked_again"), [("a", "b"), ("b", "a")])
async def test_latest_prefers_the_request_for_the_rest_of_a_list(
    ledger: Ledger, used_first: str, asked_again: str, later: float
) -> None:
    """The rest is asked about because the first approval no longer covers it, whatever the clocks of replicas say."""
    await list_approval(ledger, used_first)
    assert await used(ledger, used_first, "call 1", NOW)
    again = await list_approval(ledger, asked_again, NOW + later)
    assert await ledger.latest("call", NOW + 1) == again
    assert await ledger.withdraw(asked_again, Vote("dana", False, NOW), "local_page")
    assert not_none(await ledger.latest("call", NOW + 1)).state is RequestState.WITHDRAWN


async def test_latest_returns_a_list_approval_that_was_used_in_part(ledger: Ledger) -> None:
    await list_approval(ledger, "list")
    assert await used(ledger, "list", "call 1", NOW)
    assert not_none(await ledger.latest("call", NOW + 1)).used == ("call 1",)


@pytest.mark.parametrize("names", [("a", "b", "c"), ("c", "b", "a")])
async def test_latest_prefers_a_refusal_then_an_approval_among_requests_of_one_time(
    ledger: Ledger, names: tuple[str, str, str]
) -> None:
    """Replicas that see different states of a target can each ask about one call at one time."""
    declined, approved, waiting = (
        replace(grant(name), call="call", calls={"call 1": ShownCall(f"binding of {name}", {})}) for name in names
    )
    for request in (waiting, approved, declined):
        await ledger.open(request)
    assert await ledger.decide(approved, Vote("dana", True, NOW), "local_page")
    assert not_none(await ledger.latest("call", NOW + 1)).id == approved.id
    assert await ledger.decide(declined, Vote("dana", False, NOW), "local_page")
    assert not_none(await ledger.latest("call", NOW + 1)).id == declined.id


async def test_decided_requests_are_listed_newest_first(ledger: Ledger) -> None:
    for number, state in enumerate(FINAL):
        await ledger.open(grant(state.value))
        assert await moved(ledger, state.value, [RequestState.OPEN], state, NOW + number)
    await ledger.open(grant("open"))
    assert [found.id for found in await ledger.decided(3)] == [state.value for state in FINAL[:-4:-1]]


async def test_temporary_approval_holds_for_its_caller_until_it_ends(ledger: Ledger, other: Ledger) -> None:
    holder = temporary_approval().holder
    await add_temporary(ledger, temporary_approval())
    assert await other.permits_of(holder, NOW) == [temporary_approval()]
    assert await other.temporary_approvals(NOW) == [temporary_approval()]
    assert await other.permits_of(f"{holder} another", NOW) == []
    assert await other.permits_of(replace(grant(), account=bound_account("default", "ab12")).holder, NOW) == []
    assert await other.permits_of(holder, NOW + 900) == []
    assert await other.temporary_approvals(NOW + 900) == []
    assert await other.revoke_temporary("s1")
    assert not await ledger.revoke_temporary("s1")
    assert await ledger.permits_of(holder, NOW) == []


async def test_temporary_approval_begins_with_the_first_use_if_all_approvers_gave_it(
    ledger: Ledger, other: Ledger
) -> None:
    calls = {f"call {number}": ShownCall(f"binding {number}", {}) for number in (1, 2)}
    asked = replace(grant(), required="four_eyes", expected=None, permit=permit(), calls=calls)
    votes = {"all": (True, True), "one of two": (True, False)}
    for name, given in votes.items():
        request = replace(asked, id=name)
        await ledger.open(replace(request, call=name))
        for approver, is_temporary in zip(("dana", "kim"), given, strict=True):
            assert await ledger.decide(request, Vote(approver, True, NOW, is_temporary=is_temporary), "four_eyes")
        assert name not in [held.id for held in await other.permits_of(asked.holder, NOW)]
        assert await used(other, name, "call 2", NOW + 5)
    (held,) = await ledger.permits_of(asked.holder, NOW + 5)
    assert (held.id, held.permit_until) == ("all", NOW + 905)
    assert await used(ledger, "all", "call 1", NOW + 60)
    assert not_none(await ledger.find("all")).permit_until == NOW + 905, "a later use does not make it longer"
    assert await other.revoke_temporary("all") is not None
    assert await ledger.revoke_temporary("one of two") is None
    assert await ledger.permits_of(asked.holder, NOW + 60) == []


async def test_temporary_approvals_are_listed_oldest_first(ledger: Ledger) -> None:
    for name, expires in (("b", 60), ("c", 90), ("a", 10)):
        await add_temporary(ledger, temporary_approval(name, NOW + expires))
    assert [found.id for found in await ledger.temporary_approvals(NOW)] == ["a", "b", "c"]


async def test_budget_is_spent_per_period_up_to_the_current_limit(ledger: Ledger) -> None:
    assert await ledger.spent("destroy", "monday") == 0
    assert [await counted(ledger, BudgetLimit("destroy", "monday", 2)) for _ in range(3)] == [True, True, False]
    assert await counted(ledger, BudgetLimit("destroy", "tuesday", 2))
    assert await counted(ledger, BudgetLimit("external", "monday", 2))
    assert not await counted(ledger, BudgetLimit("trash", "monday", 0))
    assert not await counted(ledger, BudgetLimit("destroy", "monday", 1))
    assert await counted(ledger, BudgetLimit("destroy", "monday", 3))
    assert await ledger.spent("destroy", "monday") == 3


async def test_rate_limits_uses_in_a_sliding_window(ledger: Ledger, other: Ledger) -> None:
    assert await ledger.rate_uses("destroy", 300, NOW) == []
    assert await rated(ledger, "destroy", 2, 300, NOW)
    assert await rated(other, "destroy", 2, 300, NOW + 100)
    assert not await rated(ledger, "destroy", 2, 300, NOW + 200)
    assert rate_free_at(await other.rate_uses("destroy", 300, NOW + 200), 2, 300) == NOW + 300
    assert await other.rate_uses("destroy", 300, NOW + 200) == [NOW, NOW + 100]
    assert await rated(other, "another", 2, 300, NOW + 200)
    assert await rated(other, "destroy", 2, 300, NOW + 300)
    assert not await rated(ledger, "destroy", 2, 300, NOW + 301)
    assert await ledger.rate_uses("destroy", 300, NOW + 301) == [NOW + 100, NOW + 300]
    assert rate_free_at([NOW + 100, NOW + 300], 1, 300) == NOW + 600
    assert rate_free_at([NOW + 100, NOW + 300], 3, 300) == 0


async def test_approval_resets_the_declines_of_its_principal(ledger: Ledger, other: Ledger) -> None:
    assert await ledger.declines("local") == (0, 0.0)
    for name, at in (("g1", NOW), ("g2", NOW + 5)):
        await ledger.open(grant(name))
        assert await moved(other, name, [RequestState.OPEN], RequestState.DECLINED, at)
    assert await ledger.declines("local") == (2, NOW + 5)
    assert await ledger.declines("another") == (0, 0.0)
    await ledger.open(grant("g3"))
    assert await moved(other, "g3", [RequestState.OPEN], RequestState.APPROVED, NOW + 6)
    assert await ledger.declines("local") == (0, 0.0)


async def test_only_decisions_and_uses_change_the_declines(ledger: Ledger) -> None:
    """A form's approval counts only when it is used, since a client can answer by itself."""
    form = replace(grant("form"), out_of_band=False)
    for asked in (grant("declined"), form, grant("moved"), replace(grant("offered"), out_of_band=False)):
        await ledger.open(asked)
    assert await ledger.decide(grant("declined"), Vote("local_page", False, NOW), "local_page") is not None
    await ledger.decide(form, Vote("client_form", True, NOW + 1), "client_form")
    await ledger.offer("offered", NOW + 900)
    await ledger.void("moved", RequestState.STALE, NOW + 2)
    assert await ledger.declines("local") == (1, NOW)
    assert await used(ledger, "form", "call 1", NOW + 3)
    assert await ledger.declines("local") == (0, 0.0)
    await ledger.open(grant("approved"))
    await ledger.decide(grant("approved"), Vote("local_page", True, NOW), "local_page")
    await ledger.void("approved", RequestState.DECLINED, NOW)
    assert await ledger.declines("local") == (0, 0.0)


async def test_decision_on_one_call_keeps_its_expiry(ledger: Ledger) -> None:
    form = replace(grant("form"), call="call", out_of_band=False)
    for asked, approves in ((form, True), (grant("page"), True), (grant("declined"), False)):
        await ledger.open(asked)
        decided = not_none(await ledger.decide(asked, Vote("person", approves, NOW + 500), "local_page", "a note"))
        assert (decided.expires, decided.decided, decided.note) == (NOW + 600, NOW + 500, "a note")
    assert await ledger.latest("call", NOW + 501) is None
    assert await ledger.latest("call of page", NOW + 501) is not None
    batch = replace(grant("batch"), calls={"call 1": ShownCall("a", {}), "call 2": ShownCall("b", {})})
    await ledger.open(batch)
    declined = not_none(await ledger.decide(batch, Vote("person", False, NOW + 500), "local_page"))
    assert (declined.expires, declined.note) == (NOW + 600, None)
    assert await used(ledger, "page", "call 1", NOW + 502)
    page = not_none(await ledger.find("page"))
    assert (page.by, page.note, page.decided) == ("local_page", "a note", NOW + 502)


async def test_void_request_keeps_its_approver_unless_another_is_given(ledger: Ledger) -> None:
    for name in ("kept", "changed"):
        await ledger.open(grant(name))
        await ledger.decide(grant(name), Vote("local_page", True, NOW), "local_page", "a note")
    assert await ledger.void("kept", RequestState.STALE, NOW + 600) is None
    kept = await ledger.void("kept", RequestState.STALE, NOW + 1)
    changed = await ledger.void("changed", RequestState.STALE, NOW + 2, by="terminal", note="another")
    assert kept is not None
    assert changed is not None
    assert (kept.by, kept.note, kept.decided) == ("local_page", "a note", NOW + 1)
    assert (changed.by, changed.note, changed.decided) == ("terminal", "another", NOW + 2)


@pytest.mark.parametrize("name", ["default at live.fastn.ai", "a key: of acme"])
def test_account_is_bound_to_its_key_and_shown_without_it(name: str) -> None:
    bound = bound_account(name, "ab12")
    assert (account_name(bound), replace(grant(), account=bound).holder) == (name, "ab12 local")
    assert bound_account("default", "") == account_name("default") == "default"
    assert replace(grant(), account="default").holder == "local"


def test_only_an_open_request_expires() -> None:
    assert grant().expired(NOW + 599) is None
    assert replace(grant(), state=RequestState.APPROVED).expired(NOW + 600) is None
    assert grant().expired(NOW + 700) == replace(grant(), state=RequestState.UNANSWERED, decided=NOW + 600)


def test_request_needs_one_person_or_two() -> None:
    assert [replace(grant(), required=required).needed for required in ("confirm", "typed", "out_of_band")] == [1] * 3
    assert replace(grant(), required="four_eyes").needed == 2


def test_ledger_errors_have_complete_messages() -> None:
    assert str(LedgerLost("TimeoutError")) == (
        "The shared ledger cannot be used (TimeoutError). Nothing was sent. Reading still works. Call again later;"
        " an approval in use may have to be given again."
    )
    assert str(LedgerUnusable("ledger.sqlite", "the disk is full", "free space on its disk.")) == (
        "The ledger ledger.sqlite cannot be used: the disk is full. Nothing was sent. Reading still works."
        " To fix it: free space on its disk."
    )


async def test_mark_holds_until_the_latest_time(ledger: Ledger, other: Ledger) -> None:
    await ledger.mark("form", NOW + 900, NOW)
    await other.mark("form", NOW + 600, NOW)
    assert await other.marked("form") == NOW + 900
    assert await other.marked("another") == 0
    assert await ledger.use_nonce("form", NOW + 60, NOW)


async def test_revision_changes_with_every_write(ledger: Ledger, other: Ledger) -> None:
    seen = [await ledger.revision()]
    assert await ledger.revision() == seen[0]
    await ledger.open(grant())
    seen.append(await ledger.revision())
    await other.open(grant("g2"))
    seen.append(await ledger.revision())
    await moved(other, "g1", [RequestState.OPEN], RequestState.APPROVED, NOW)
    seen.append(await ledger.revision())
    for changed in (
        add_temporary(ledger, temporary_approval()),
        ledger.revoke_temporary(temporary_approval().id),
        counted(ledger, BudgetLimit("destroy", "2026-11-26", 5)),
        rated(ledger, "destroy", 5, 60, NOW),
        ledger.use_nonce("n1", NOW + 60, NOW),
        ledger.mark("form", NOW + 60, NOW),
    ):
        await changed
        seen.append(await ledger.revision())
    assert len(set(seen)) == len(seen)
    assert await ledger.revision() == seen[-1]


@pytest.mark.long
@shared_stores
async def test_approval_is_used_or_withdrawn_among_processes(where: str, ledger: Ledger) -> None:
    """25 uses in one process against 25 withdrawals in another: one of all of them counts."""
    await ledger.open(grant())
    assert await moved(ledger, "g1", [RequestState.OPEN], RequestState.APPROVED, NOW)
    uses, withdrawals = race(where, "withdraw or use")
    state = not_none(await ledger.find("g1")).state
    assert (uses, withdrawals, state) in ((1, 0, RequestState.USED), (0, 1, RequestState.WITHDRAWN))


async def test_withdrawn_approval_is_found_like_a_decline(ledger: Ledger, other: Ledger) -> None:
    await ledger.open(grant())
    dana = Vote("dana", False, NOW + 1, "Dana")
    assert await ledger.withdraw("g1", dana, "verified") is None  # it is not approved yet
    assert await ledger.decide(grant(), Vote("dana", True, NOW), "verified") is not None
    taken_back = not_none(await other.withdraw("g1", dana, "verified", "the wrong one"))
    assert (taken_back.state, taken_back.note, taken_back.votes) == (RequestState.WITHDRAWN, "the wrong one", (dana,))
    assert await ledger.withdraw("g1", dana, "verified") is None
    assert not await used(ledger, "g1", "call 1", NOW + 1)
    assert await ledger.latest("call of g1", NOW + 599) == taken_back
    assert await ledger.latest("call of g1", NOW + 600) is None
    assert await ledger.decided(10) == [taken_back]
    assert await ledger.declines("local") == (0, 0.0)


async def test_rest_of_a_list_is_withdrawn(ledger: Ledger) -> None:
    calls = {f"call {number}": ShownCall(f"binding {number}", {}) for number in (1, 2, 3)}
    asked = replace(grant(), calls=calls)
    await ledger.open(asked)
    await ledger.decide(asked, Vote("dana", True, NOW), "verified")
    assert await used(ledger, "g1", "call 1", NOW)
    taken_back = not_none(await ledger.withdraw("g1", Vote("kim", False, NOW), "verified"))
    assert (taken_back.used, [vote.approver for vote in taken_back.votes]) == (("call 1",), ["dana", "kim"])
    assert not await used(ledger, "g1", "call 2", NOW)


async def test_expired_approval_is_not_withdrawn(ledger: Ledger) -> None:
    await ledger.open(grant())
    assert await moved(ledger, "g1", [RequestState.OPEN], RequestState.APPROVED, NOW)
    assert await ledger.withdraw("g1", Vote("dana", False, NOW + 600), "terminal") is None


async def test_changes_are_read_by_their_approval_requests(ledger: Ledger, other: Ledger) -> None:
    made = [
        replace(change(f"c{number}", at=NOW - number), approval=by) for number, by in enumerate(("g1", "", "g2", "g1"))
    ]
    for each in made:
        await ledger.begin(each)
    assert [each.id for each in await other.changes_by(["g1", "g3", "g2"])] == ["c3", "c2", "c0"]
    assert await other.changes_by(["g1"]) == [made[3], made[0]]
    assert await other.changes_by([]) == await other.changes_by(["g3", ""]) == []


ACCOUNT = "default at live.fastn.ai"


async def test_change_id_is_begun_once_and_belongs_to_one_account(ledger: Ledger) -> None:
    await ledger.begin(change())
    with pytest.raises(Exception, match=r"(?i)unique|a change of this id already exists"):
        await ledger.begin(replace(change(), tool="delete_customer"))
    assert await ledger.change(ACCOUNT, "c1") == change()
    assert await ledger.change("another account", "c1") is None
    assert await ledger.changes("another account", 10, NOW + 1) == []


async def test_changes_are_listed_newest_first_in_pages(ledger: Ledger) -> None:
    for number in range(5):
        await ledger.begin(change(f"c{number}", at=NOW + number))
    first = await ledger.changes(ACCOUNT, 2, NOW + 10)
    assert [found.id for found in first] == ["c4", "c3"]
    assert [found.id for found in await ledger.changes(ACCOUNT, 10, first[-1].at)] == ["c2", "c1", "c0"]


async def test_settled_change_keeps_outcome_and_target(ledger: Ledger, other: Ledger) -> None:
    await ledger.begin(replace(change(), target=None, name=None))
    await ledger.settle(replace(change(), outcome="done", target="cus_2", name="Acme", sent={"plan": "growth"}))
    assert await other.change(ACCOUNT, "c1") == replace(
        change(), outcome="done", target="cus_2", sent={"plan": "growth"}
    )
    await ledger.settle(replace(change(), outcome="unknown_outcome", target=None, name=None))
    found = not_none(await other.change(ACCOUNT, "c1"))
    assert (found.target, found.name) == ("cus_2", "Acme")


async def test_unsettled_changes_are_listed_by_call(ledger: Ledger, other: Ledger) -> None:
    for name, call, until in (("c1", "a", NOW + 1), ("c2", "a", NOW + 2.5), ("c3", "b", NOW + 1), ("c4", "", 0.0)):
        await ledger.begin(replace(change(name), repeat_id=call, unsettled_until=until))
    assert await other.unsettled("a", NOW) == {"c1": NOW + 1, "c2": NOW + 2.5}
    assert await other.unsettled("a", NOW + 1) == {"c2": NOW + 2.5}
    await ledger.settle(replace(change("c1"), repeat_id="a", outcome="unknown_outcome", unsettled_until=NOW + 3))
    await ledger.settle(replace(change("c2"), repeat_id="a", outcome="done", unsettled_until=NOW + 4))
    assert await other.unsettled("a", NOW) == {"c1": NOW + 3, "c2": NOW + 4}
    found = not_none(await other.change(ACCOUNT, "c2"))
    assert (found.outcome, found.unsettled_until) == ("done", NOW + 4)
    await ledger.settle(replace(change("c2"), repeat_id="a", outcome="done"))
    assert await other.unsettled("a", NOW) == {"c1": NOW + 3}


async def test_change_is_claimed_once_until_released(ledger: Ledger, other: Ledger) -> None:
    await ledger.begin(change())
    await ledger.begin(change("c2"))
    assert await claimed(ledger, "c1", NOW)
    assert not await claimed(other, "c1", NOW)
    assert await other.change(ACCOUNT, "c1") == replace(change(), undone_at=NOW)
    assert await other.change(ACCOUNT, "c2") == change("c2")
    await other.release("c1")
    assert await ledger.change(ACCOUNT, "c1") == change()
    assert await claimed(other, "c1", NOW)
    assert not await claimed(ledger, "no such change", NOW)
    await ledger.release("no such change")
    assert await ledger.change(ACCOUNT, "no such change") is None


EYES = replace(grant(), required="four_eyes")


async def vote(
    ledger: Ledger, approver: str, *, approves: bool = True, at: float = NOW, of: ApprovalRequest = EYES
) -> RequestState | None:
    note = None if approves else "not now"
    decided = await ledger.decide(of, Vote(approver, approves, at), "four_eyes", note)
    return None if decided is None else decided.state


async def test_four_eyes_needs_two_different_approvers(ledger: Ledger, other: Ledger) -> None:
    await ledger.open(EYES)
    assert await vote(ledger, "dana") is RequestState.OPEN
    assert await vote(other, "dana") is None
    assert not_none(await other.find("g1")).votes == (Vote("dana", True, NOW),)
    assert await vote(other, "kim", at=NOW + 5) is RequestState.APPROVED
    request = not_none(await ledger.find("g1"))
    assert (request.state, request.by, request.note, request.decided) == (
        RequestState.APPROVED,
        "four_eyes",
        None,
        NOW + 5,
    )
    assert request.approvers == ["dana", "kim"]


async def test_approver_may_still_decline_after_approving(ledger: Ledger) -> None:
    await ledger.open(EYES)
    assert await vote(ledger, "dana") is RequestState.OPEN
    assert await vote(ledger, "dana", approves=False, at=NOW + 1) is RequestState.DECLINED
    assert await vote(ledger, "kim") is None
    assert await vote(ledger, "dana") is None
    request = not_none(await ledger.find("g1"))
    assert (request.state, request.note) == (RequestState.DECLINED, "not now")
    assert request.votes == (Vote("dana", False, NOW + 1),)


async def test_vote_counts_only_on_an_open_request_of_its_channel(ledger: Ledger) -> None:
    assert await vote(ledger, "dana") is None
    await ledger.open(EYES)
    assert await vote(ledger, "dana", at=NOW + 600) is None
    await moved(ledger, "g1", [RequestState.OPEN], RequestState.STALE, NOW)
    assert await vote(ledger, "dana") is None
    form = replace(grant("g2"), out_of_band=False)
    await ledger.open(form)
    assert await vote(ledger, "dana", of=replace(form, out_of_band=True)) is None
    for name in ("g1", "g2"):
        assert not_none(await ledger.find(name)).votes == ()


async def test_form_request_moves_out_of_band_once(ledger: Ledger, other: Ledger) -> None:
    """A late answer of the form decides nothing."""
    form = replace(grant(), out_of_band=False)
    await ledger.open(form)
    assert await other.waiting(NOW) == []
    offered = not_none(await ledger.offer("g1", NOW + 900))
    assert offered == replace(form, out_of_band=True, created=NOW + 300, expires=NOW + 900)
    assert await other.waiting(NOW + 800) == [offered]
    assert await other.latest(form.call, NOW + 800) == offered
    assert await other.offer("g1", NOW + 900) is None
    assert await vote(ledger, "client_form", of=form) is None
    assert await vote(other, "local_page", of=offered) is RequestState.APPROVED
    assert await ledger.offer("g1", NOW + 900) is None
    assert await ledger.offer("no such request", NOW + 900) is None


async def test_batch_approval_is_used_once_per_call(ledger: Ledger, other: Ledger) -> None:
    """Its time begins with the decision."""
    shown = {f"call {number}": ShownCall(f"binding {number}", {}) for number in (1, 2)}
    batch = replace(grant(), calls=shown, out_of_band=False)
    await ledger.open(batch)
    assert not await used(other, "g1", "call 1", NOW)
    approved = not_none(await ledger.decide(batch, Vote("client_form", True, NOW + 500), "client_form"))
    assert (approved.state, approved.expires) == (RequestState.APPROVED, NOW + 1100)
    assert await other.latest(batch.call, NOW + 600) == approved
    assert await used(other, "g1", "call 2", NOW + 600)
    once = not_none(await other.find("g1"))
    assert (once.state, once.used) == (RequestState.APPROVED, ("call 2",))
    assert not await used(ledger, "g1", "call 2", NOW + 600)
    assert not await used(ledger, "g1", "call 3", NOW + 600)
    assert not await used(ledger, "g1", "call 1", NOW + 1100)
    assert await used(ledger, "g1", "call 1", NOW + 601)
    over = not_none(await ledger.find("g1"))
    assert (over.state, over.used, over.decided) == (RequestState.USED, ("call 2", "call 1"), NOW + 601)
    assert await other.latest(batch.call, NOW + 602) is None
    assert await other.decided(5) == [over]


async def test_nonce_is_kept_until_it_expires(ledger: Ledger, other: Ledger) -> None:
    assert await ledger.use_nonce("n1", NOW + 60, NOW)
    assert not await other.use_nonce("n1", NOW + 600, NOW + 60)
    assert await other.use_nonce("n2", NOW + 600, NOW + 61)
    assert await ledger.use_nonce("n1", NOW + 600, NOW + 61)


async def test_later_clock_does_not_expire_marks_of_others(ledger: Ledger, other: Ledger) -> None:
    await ledger.mark("key", NOW + 10, NOW)
    assert await ledger.use_nonce("n1", NOW + 10, NOW)
    await other.mark("another key", NOW + 300, NOW + 290)
    assert await other.use_nonce("n2", NOW + 300, NOW + 290)
    assert await ledger.marked("key") == NOW + 10
    assert not await ledger.use_nonce("n1", NOW + 10, NOW + 5)


async def test_batch_call_is_begun_again_only_after_a_failure(ledger: Ledger, other: Ledger) -> None:
    first = replace(change("c1"), list_id="b1", call_id="call 1", number=1)
    assert await ledger.begin(first) is StartResult.STARTED
    assert await other.begin(replace(first, id="c2")) is StartResult.STARTED_BEFORE
    assert await other.change(ACCOUNT, "c2") is None
    assert await other.changes_of("b1") == [first]
    await ledger.settle(replace(first, outcome="conflict"))
    assert await other.changes_of("b1") == []
    assert await other.begin(replace(first, id="c3")) is StartResult.STARTED
    for number, outcome in enumerate(OVER):
        await ledger.settle(replace(first, id="c3", outcome=outcome))
        assert await other.begin(replace(first, id=f"d{number}")) is StartResult.STARTED_BEFORE
    assert await ledger.begin(replace(first, id="e1", call_id="call 2", number=2)) is StartResult.STARTED
    assert await ledger.begin(replace(first, id="e2", list_id="b2")) is StartResult.STARTED
    assert [(found.number, found.id) for found in await other.changes_of("b1")] == [(1, "c3"), (2, "e1")]
    assert await other.changes_of("no such batch") == []
    assert await other.begin(change("e3")) is StartResult.STARTED
    assert await other.begin(change("e4")) is StartResult.STARTED
    assert await other.changes_of("") == []


async def test_same_request_is_open_once(ledger: Ledger, other: Ledger) -> None:
    """Another state of the target is another request."""
    assert await ledger.open(grant("g1")) == "g1"
    again = replace(grant("g2", created=NOW + 1), call="call of g1", calls=grant("g1").calls)
    assert await other.open(again) == "g1"
    assert await other.find("g2") is None
    assert [one.id for one in await other.waiting(NOW)] == ["g1"]
    assert await other.open(replace(again, id="g3", calls={"call 1": ShownCall("another state", {})})) == "g3"
    assert await other.open(replace(again, id="g4", principal="another")) == "g4"
    assert await other.open(replace(again, id="g5", out_of_band=False)) == "g5"
    assert await other.open(replace(again, id="g6", created=NOW + 601, expires=NOW + 1201)) == "g6"
    assert await moved(ledger, "g1", [RequestState.OPEN], RequestState.DECLINED, NOW)
    assert await other.open(replace(again, id="g7", created=NOW + 2)) in ("g6", "g7")


@pytest.mark.long
@pytest.mark.parametrize(
    ("step", "most"),
    [("ask", 1), ("vote", 1), ("step", 1), ("claim", 1), ("nonce", 1), ("spend", 7), ("open", MAX_WAITING)],
)
@shared_stores
async def test_bound_of_a_step_holds_among_processes(where: str, ledger: Ledger, step: str, most: int) -> None:
    """2 processes, 25 attempts at once in each: of one call, the second vote, one change, one nonce, or one budget."""
    if step == "vote":
        await ledger.open(EYES)
    if step == "claim":
        await ledger.begin(change())
    assert sum(race(where, step)) == most
    assert await ledger.spent("destroy", "2026-11-25") == (most if step == "spend" else 0)
    assert len(await ledger.waiting(NOW)) == {"ask": 1, "open": most}.get(step, 0)


async def test_audit_mark_keeps_the_greatest_number_of_each_log(ledger: Ledger, other: Ledger) -> None:
    assert await ledger.audit_mark("one") is None
    await ledger.mark_audit("one", 7, "a" * 64)
    await other.mark_audit("one", 6, "b" * 64)
    await other.mark_audit("two", 100, "c" * 64)
    assert await other.audit_mark("one") == (7, "a" * 64)
    await other.mark_audit("one", 10, "d" * 64)
    assert [await ledger.audit_mark(log) for log in ("one", "two")] == [(10, "d" * 64), (100, "c" * 64)]


async def test_open_requests_of_one_account_include_forms(ledger: Ledger, other: Ledger) -> None:
    form = replace(grant("form"), out_of_band=False, call="a")
    declined = replace(grant("declined"), call="b")
    for request in (form, declined, replace(grant("page"), call="c"), replace(grant("old", expires=NOW + 1), call="d")):
        await ledger.open(request)
    await ledger.open(replace(grant("others"), account="acme at live.fastn.ai", call="e"))
    await moved(ledger, "declined", [RequestState.OPEN], RequestState.DECLINED, NOW, by="local_page")
    requests = await other.open_requests(form.account, NOW + 2)
    assert sorted(request.id for request in requests) == ["form", "page"]
