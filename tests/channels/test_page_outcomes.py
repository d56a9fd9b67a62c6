"""What became of each decided request on the page: outcome, receipt, withdrawal and undo, by a real guard."""

import re
from collections.abc import AsyncGenerator
from dataclasses import replace
from html import unescape
from importlib.resources import files
from pathlib import Path

import pytest
from support.audit_entries import entries
from support.begun import used
from support.page_visitor import Visitor, words
from support.page_world import Desk, deletion_of_customer, desk_of, let_in, made, update_of_workflow
from support.stores import grant
from support.world import World

from fastn_mcp.channels.page.inbox import LOCAL
from fastn_mcp.channels.page.view import STATES
from fastn_mcp.guard.approval.votes import why_closed
from fastn_mcp.guard.approval_form import PendingApproval
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import RequestState, ShownCall
from fastn_mcp.tools.customers import UpdateCustomer


async def approved(desk: Desk, name: str, *uses: int, calls: int = 1) -> float:
    now = desk.clock.now().timestamp()
    shown = {f"call {number}": ShownCall(f"binding {number}", {}) for number in range(1, calls + 1)}
    await desk.ask(update_of_workflow(name, calls=shown))
    await desk.becomes(name, RequestState.APPROVED, by="local_page")
    for number in uses:
        assert await used(desk.ledger, name, f"call {number}", now)
    return now


async def row(visitor: Visitor) -> str:
    """Return the words of the first decided request."""
    return words((await visitor.look()).partition('data-list="decided">')[2].partition("<footer")[0])


@pytest.mark.parametrize("state", [state for state in RequestState if state is not RequestState.OPEN])
def test_state_has_words_on_the_page_in_the_chat_and_for_a_late_vote(state: RequestState) -> None:
    app = (files("fastn_mcp") / "channels/page/static/approval_app.html").read_text(encoding="utf-8")
    in_chat = app.partition("const SAYS = {")[2].partition("};")[0]
    assert state in {*STATES, RequestState.APPROVED, RequestState.USED}
    assert f" {state.value}: " in in_chat
    assert "Your answer was not recorded" in why_closed(replace(grant(), state=state))


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        ("done", "Done Update workflow Orders"),
        ("applied_unreadable", "Done Update workflow Orders"),
        ("unknown_outcome", "Unknown Update workflow Orders"),
        ("begun", "Being sent Update workflow Orders"),
        ("failed", "Failed Update workflow Orders"),
        ("not_sent", "Failed Update workflow Orders"),
    ],
)
async def test_used_approval_shows_the_outcome_of_its_call(
    outcome: str, said: str, desk: Desk, visitor: Visitor
) -> None:
    now = await approved(desk, "grant-2", 1)
    await desk.ledger.begin(made("c1", now, approval="grant-2", outcome=outcome))
    page = await row(visitor)
    assert page.startswith(said)
    assert ("The change may or may not have been made. Check in Fastn before you repeat it." in page) is (
        outcome in ("unknown_outcome", "begun")
    )
    assert ("Orders → Orders v2" in page) is (outcome not in ("failed", "not_sent"))


async def test_receipt_says_what_was_stopped(desk: Desk, visitor: Visitor) -> None:
    now = await approved(desk, "grant-2", 1)
    await desk.ledger.begin(made("c1", now, approval="grant-2", stopped_triggers=("Nightly (t1)", 'a "b"')))
    assert 'Triggers stopped: Nightly (t1) , a "b" .' in await row(visitor)


async def test_call_that_began_long_ago_is_unknown(desk: Desk, visitor: Visitor) -> None:
    now = await approved(desk, "grant-2", 1)
    await desk.ledger.begin(made("c1", now - 301, approval="grant-2", outcome="begun"))
    assert (await row(visitor)).startswith("Unknown")


async def test_list_says_how_many_of_its_calls_were_done(desk: Desk, visitor: Visitor) -> None:
    now = await approved(desk, "grant-2", 1, 2, calls=3)
    await desk.ledger.begin(made("c1", now, approval="grant-2", list_id="b", call_id="call 1", number=1))
    await desk.ledger.begin(
        made("c2", now, approval="grant-2", list_id="b", call_id="call 2", number=2, outcome="failed")
    )
    page = await row(visitor)
    assert page.startswith("1 of 3 done")
    assert "Done 1. Update workflow Orders" in page
    assert "Failed 2. Update workflow Orders" in page
    assert (await visitor.decide("withdraw", "grant-2")).status_code == 303
    page = await visitor.look()
    assert "2 of 3 calls were already sent; the others will not be sent." in words(page)
    assert "1 of 3 done, withdrawn" in words(page)


async def test_list_that_a_stop_ended_is_not_said_to_be_withdrawn(desk: Desk, visitor: Visitor) -> None:
    now = await approved(desk, "grant-2", 1, calls=2)
    await desk.ledger.begin(made("c1", now, approval="grant-2", list_id="b", call_id="call 1", number=1))
    assert await desk.ledger.void("grant-2", RequestState.STOPPED, now, by="dana", note="enough") is not None
    assert (await row(visitor)).startswith("1 of 2 done, stopped")


async def test_calls_under_a_temporary_approval_are_told_apart(desk: Desk, visitor: Visitor) -> None:
    now = await approved(desk, "grant-2", 1)
    await desk.ledger.begin(made("c1", now, approval="grant-2"))
    await desk.ledger.begin(
        made("c2", now + 1, approval="grant-2", approved_by="temporary_approval: local_page", outcome="failed")
    )
    page = await row(visitor)
    assert page.startswith("Done Update workflow Orders")
    assert "1 more call ran under its temporary approval." in page
    assert page.count(", under the temporary approval") == 1


async def test_unused_approval_is_withdrawn_by_one_click(desk: Desk, visitor: Visitor) -> None:
    await approved(desk, "grant-2")
    answer = await visitor.decide("withdraw", "grant-2", note="the wrong one")
    assert (answer.status_code, answer.headers["location"]) == (303, visitor.room)
    request = await desk.request("grant-2")
    assert (request.state, request.note) == (RequestState.WITHDRAWN, "the wrong one")
    assert 'Note: "the wrong one"' in await visitor.read()


async def test_withdrawing_after_the_use_is_too_late(desk: Desk, visitor: Visitor) -> None:
    await approved(desk, "grant-2")
    form = await visitor.form("withdraw", "grant-2")
    assert await used(desk.ledger, "grant-2", "call 1", desk.clock.now().timestamp())
    answer = await visitor.send("withdraw", form)
    assert answer.status_code == 409
    assert "Too late: the call was already sent." in words(answer.text)
    assert "withdraw" not in (await visitor.look()).replace("withdraw it", "")


async def test_replayed_or_foreign_withdrawal_changes_nothing(desk: Desk, visitor: Visitor) -> None:
    await approved(desk, "grant-2")
    await desk.ask(deletion_of_customer())
    form, before = await visitor.form("withdraw", "grant-2"), await desk.snapshot()
    other = await visitor.form("decline", "grant-1")
    assert (await visitor.send("withdraw", form | {"token": other["token"]})).status_code == 403
    assert (await visitor.send("withdraw", form, Origin="https://evil.example")).status_code == 403
    assert (await visitor.http.get(visitor.room + "withdraw", params=form)).status_code == 303
    stranger = await let_in(desk)
    assert (await stranger.send("withdraw", form)).status_code == 403
    await stranger.http.aclose()
    assert await desk.snapshot() == before
    assert (await visitor.send("withdraw", form)).status_code == 303
    assert (await visitor.send("withdraw", form)).status_code == 403


async def test_several_are_declined_with_one_note(desk: Desk, visitor: Visitor) -> None:
    for number in range(1, 8):
        asked_by = "cursor" if number > 5 else "claude-code"
        await desk.ask(deletion_of_customer(f"grant-{number}", asked_by=asked_by))
    page = await visitor.look()
    assert [words(head) for head in re.findall(r"<h2>(<label.*?)</h2>", page)] == [
        "Select all 5 requests from claude-code claude-code 5",
        "Select all 2 requests from cursor cursor 2",
    ]
    picks = dict(re.findall(r'<input type="checkbox" name="(pick-[\w-]+)" value="([^"]+)"', page))
    assert len(picks) == 9
    sent = {name: picks[name] for name in ("pick-1-1", "pick-all-2")} | {"note": "ask me first"}
    foreign = {"pick-1-2": picks["pick-1-2"].replace("grant-2", "grant-3")}  # the token of another request
    assert (await visitor.send("decline-several", foreign)).status_code == 409
    assert (await visitor.send("decline-several", {"note": "x"})).status_code == 422
    assert (await visitor.send("decline-several", sent, Origin="https://evil.example")).status_code == 403
    assert len(await desk.ledger.waiting(desk.clock.now().timestamp())) == 7
    assert (await visitor.send("decline-several", sent)).status_code == 303
    left = [request.id for request in await desk.ledger.waiting(desk.clock.now().timestamp())]
    assert left == ["grant-2", "grant-3", "grant-4", "grant-5"]
    assert {request.note for request in await desk.ledger.decided(10)} == {"ask me first"}
    assert (await visitor.send("decline-several", sent)).status_code == 409


async def test_many_requests_are_listed_up_to_a_limit(desk: Desk, visitor: Visitor) -> None:
    for number in range(110):
        await desk.ask(
            deletion_of_customer(f"grant-{number:03}", principal=f"local {number % 5}", created=float(number + 1))
        )
    page = await visitor.look()
    assert len(re.findall(r'<li data-key="grant-\d+">', page)) == 100
    assert "The 100 oldest of 110 requests." in words(page)
    assert "110 requests waiting" in words(page)


@pytest.fixture
async def page(world: World, tmp_path: Path) -> AsyncGenerator[Visitor]:
    desk = desk_of(world, tmp_path)
    visitor = await let_in(desk)
    yield visitor
    await visitor.http.aclose()
    await desk.page.aclose()


async def test_revocation_of_a_temporary_approval_is_audited(world: World, page: Visitor) -> None:
    call = world.run()
    await world.expect(PendingApproval, call)
    id_ = (await world.open_request()).id
    assert (await page.decide("approve", id_, extent="while")).status_code == 303
    await world.expect(Done, call)
    assert (await page.decide("revoke", id_)).status_code == 303
    *_, last = entries(world.audit_path)
    assert (last["event"], last["tool"], last["approved_by"]) == ("temporary_approval_revoked", call.tool_name(), LOCAL)


async def renamed(world: World, name: str = "Initech") -> str:
    """Let an agent rename a customer that is in use, with a person's approval. Return its id."""
    id_ = world.id_of("customers", "Globex Exports")
    call = UpdateCustomer(customer_id=id_, name=name)
    await world.expect(PendingApproval, call)
    await world.approve_open_request()
    await world.expect(Done, call)
    return id_


def undo_link(shown: str) -> str:
    (link,) = re.findall(r'href="([^"]+/undo\?[^"]+)"', shown)
    return unescape(link)


def name_of(world: World, id_: str) -> str:
    return str(world.sandbox.state.named("customers", id_, by="id")["name"])


async def test_undo_is_approved_on_its_own_card_and_runs_by_itself(world: World, page: Visitor) -> None:
    id_ = await renamed(world)
    assert name_of(world, id_) == "Initech"
    sent = len(world.changes)
    shown = await page.look()
    link = undo_link(shown)
    before = await world.ledger.revision()
    asked = await page.http.get(link)
    assert "Globex Exports" in asked.text
    assert await world.ledger.revision() == before  # a GET changes nothing
    form = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', asked.text))
    assert (await page.send("undo", form, Origin="https://evil.example")).status_code == 403
    answer = await page.send("undo", form)
    assert answer.status_code == 303
    assert (await page.send("undo", form)).status_code == 403  # the token works once
    assert (name_of(world, id_), len(world.changes)) == ("Initech", sent)
    request = await world.open_request()
    assert request.principal == "local"
    assert (await page.decide("approve", request.id)).status_code == 303
    assert (name_of(world, id_), len(world.changes)) == ("Globex Exports", sent + 1)
    rows = await page.read()
    assert "Undone" in rows
    assert '"undone"' not in rows
    assert (await page.http.get(link)).status_code == 409


async def test_undo_of_what_changed_since_says_so(world: World, page: Visitor) -> None:
    id_ = await renamed(world)
    link = undo_link(await page.look())
    world.sandbox.state.named("customers", id_, by="id")["name"] = "Somebody else's"
    asked = await page.http.get(link)
    assert (asked.status_code, "The target has been changed since" in words(asked.text)) == (409, True)


async def test_undo_is_offered_only_for_changes_of_that_request(world: World, page: Visitor) -> None:
    await renamed(world)
    link = undo_link(await page.look())
    for wrong in (link.replace("request=", "request=x"), link.replace("change=", "change=x"), link.partition("?")[0]):
        answer = await page.http.get(wrong)
        assert (answer.status_code, "You may not undo this change, or it does not exist." in words(answer.text)) == (
            409,
            True,
        )
