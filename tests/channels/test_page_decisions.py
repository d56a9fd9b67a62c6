"""What a decision on the page does to the ledger, and what the page says of it."""

import html
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from approval_desk import Desk, Visitor, let_in, question, update_of_workflow
from deciding import answered, moved
from pydantic import JsonValue
from typing_extensions import override

from fastn_mcp.channels.page.app import LONGEST_NOTE
from fastn_mcp.guard.ledger.ledger import ApprovalRequest, RequestState, TemporaryApproval, Vote
from fastn_mcp.guard.ledger.sqlite import SqliteLedger

pytestmark = pytest.mark.anyio


async def found(desk: Desk, grant: str = "grant-1") -> ApprovalRequest:
    there = await desk.ledger.find(grant)
    assert there is not None
    return there


def change(desk: Desk, statement: str) -> None:
    """Change the ledger behind everybody's back."""
    desk.ledger._database.execute(statement)  # pyright: ignore[reportPrivateUsage]


def words(page: str) -> str:
    """A page as it reads."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


async def test_approving_opens_the_way_for_one_call(desk: Desk, visitor: Visitor) -> None:
    """Ours: by whom and when is recorded, and the declines before it no longer count."""
    await desk.ask(question())
    await answered(desk.ledger, "local", 1.0)
    answer = await visitor.decide("approve", "grant-1")
    assert (answer.status_code, answer.headers["location"]) == (303, visitor.room)
    grant = await found(desk)
    assert (grant.state, grant.by, grant.note) == (RequestState.APPROVED, "local_page", None)
    assert await desk.ledger.declines("local") == (0, 0.0)
    assert await desk.ledger.temporary_approvals(0.0) == []
    page = words(await visitor.look())
    assert "Approved: Delete customer. It is sent when the agent makes the call again." in page
    assert "Nothing waits for you" in page
    assert "Approved, not used yet Delete customer" in page
    assert "Approved: Delete customer." not in words(await visitor.look())  # said once


async def test_declining_gives_the_note_to_the_agent(desk: Desk, visitor: Visitor) -> None:
    """Ours: the note is recorded as it was written, and the decline is counted."""
    await desk.ask(question())
    answer = await visitor.decide("decline", "grant-1", note=" Pause it instead.\r\nThey come back. ")
    assert answer.status_code == 303
    grant = await found(desk)
    assert (grant.state, grant.by, grant.note) == (
        RequestState.DECLINED,
        "local_page",
        "Pause it instead.\nThey come back.",
    )
    count, last = await desk.ledger.declines("local")
    assert (count, last) == (1, grant.decided)
    page = words(await visitor.look())
    assert (
        "Declined: Delete customer. Nothing is sent. The agent gets your note. The same call stays declined for" in page
    )
    assert 'Note: "Pause it instead. They come back."' in page


async def test_declining_needs_no_note(desk: Desk, visitor: Visitor) -> None:
    """Ours: an empty note is none."""
    await desk.ask(question())
    await visitor.decide("decline", "grant-1", note=" \r\n ")
    assert (await found(desk)).note is None
    assert "The agent gets your note" not in await visitor.look()


async def test_a_note_that_is_too_long_decides_nothing_and_is_not_lost(desk: Desk, visitor: Visitor) -> None:
    """Ours: 500 characters, whatever they are; what was written stands there to be cut."""
    await desk.ask(question())
    note = "ü" * (LONGEST_NOTE + 1)
    answer = await visitor.decide("decline", "grant-1", note=note)
    assert answer.status_code == 422
    assert "the note has 501 characters, and 500 is the limit" in answer.text
    assert note in answer.text
    assert (await found(desk)).state is RequestState.OPEN
    assert (await visitor.decide("decline", "grant-1", note=note[1:])).status_code == 303


@pytest.mark.parametrize("typed", ["", "globex", "Globex ", " Globex", "Glob", "Globex\x00", "GLOBEX", "G\u0131obex"])
async def test_another_name_approves_nothing(typed: str, desk: Desk, visitor: Visitor) -> None:
    """Ours: letter by letter, checked here and not in the browser."""
    await desk.ask(question(expected="Globex"))
    before = await desk.snapshot()
    answer = await visitor.decide("approve", "grant-1", name=typed)
    assert answer.status_code == 422
    assert "the text you typed does not match exactly" in answer.text
    assert 'aria-invalid="true" autofocus' in answer.text
    assert await desk.snapshot() == before
    assert (await visitor.decide("approve", "grant-1", name="Globex")).status_code == 303
    assert (await found(desk)).state is RequestState.APPROVED


async def test_a_missing_name_approves_nothing(desk: Desk, visitor: Visitor) -> None:
    """Ours: a form without the field is no empty name that could match."""
    await desk.ask(question(expected="Globex"))
    assert (await visitor.decide("approve", "grant-1")).status_code == 422
    assert (await found(desk)).state is RequestState.OPEN


@pytest.mark.parametrize(
    ("expected", "typed"),
    [
        ("हिन्दी", "हिन्दी"),
        ("A\u202eB", "A\\u{202e}B"),
        ("two\nlines", "two\\u{a}lines"),
        ('with "quotes" \\', 'with "quotes" \\'),
        ("  spaces  ", "  spaces  "),
    ],
)
async def test_a_name_that_no_keyboard_has_is_typed_as_it_is_shown(
    expected: str, typed: str, desk: Desk, visitor: Visitor
) -> None:
    """Ours: nothing that exists is impossible to approve, and what is to be typed can be read."""
    await desk.ask(question(expected=expected))
    assert (await visitor.decide("approve", "grant-1", name=typed)).status_code == 303


async def test_approving_for_a_while_covers_this_tool_on_this_target(desk: Desk, visitor: Visitor) -> None:
    """Ours: 15 minutes, to the second, visible with the right to revoke it, and only where the guard offers it."""
    await desk.ask(update_of_workflow())
    assert (await visitor.decide("approve", "grant-2", extent="while")).status_code == 303
    grant = await found(desk, "grant-2")
    (scope,) = await desk.ledger.temporary_approvals(desk.clock.now().timestamp())
    assert (grant.state, grant.by) == (RequestState.APPROVED, "local_page")
    since = grant.decided or 0.0
    wanted = TemporaryApproval(
        scope.id, "local", grant.account, "update_workflow", "wf_31", since, since + 900, "local_page"
    )
    assert scope == wanted
    page = words(await visitor.look())
    assert "and more such calls on its target for 15 minutes" in page
    assert 'update_workflow on "wf_31" asked by local , account default at live.fastn.ai , 1' in page
    assert (await visitor.decide("revoke", scope.id)).status_code == 303
    assert await desk.ledger.temporary_approvals(desk.clock.now().timestamp()) == []
    assert "Revoked. Such calls need approval again." in await visitor.look()


async def test_a_scope_that_ended_says_so(desk: Desk, visitor: Visitor) -> None:
    """Ours: revoking twice changes nothing the second time."""
    await desk.ask(update_of_workflow())
    await visitor.decide("approve", "grant-2", extent="while")
    (scope,) = await desk.ledger.temporary_approvals(0.0)
    form = await visitor.form("revoke", scope.id)
    await desk.ledger.revoke_temporary(scope.id)
    answer = await visitor.send("revoke", form)
    assert answer.status_code == 409
    assert "has already ended" in answer.text


@pytest.mark.parametrize("changes", [{"allows_temporary": False}, {"target": None}, {"expected": "Orders"}], ids=str)
async def test_a_while_is_not_to_be_had_where_it_is_not_offered(
    changes: dict[str, Any], desk: Desk, visitor: Visitor
) -> None:
    """Ours: the form does not offer it, and a form that was changed does not get it."""
    # Made here: a request of when the tests were collected has expired ten minutes later.
    await desk.ask(update_of_workflow("grant-1", **changes))
    assert "for 15 minutes" not in await visitor.look()
    answer = await visitor.decide("approve", "grant-1", extent="while", name="Orders")
    assert answer.status_code == 400
    assert (await found(desk)).state is RequestState.OPEN
    assert await desk.ledger.temporary_approvals(0.0) == []


async def test_an_approval_without_an_extent_is_none(desk: Desk, visitor: Visitor) -> None:
    """Ours: what is approved is said by the button that was pressed."""
    await desk.ask(update_of_workflow())
    for extent in ("", "always", "While"):
        assert (await visitor.decide("approve", "grant-2", extent=extent)).status_code == 400
    assert (await found(desk, "grant-2")).state is RequestState.OPEN


@pytest.mark.parametrize(
    ("state", "became"),
    [
        (RequestState.APPROVED, "was approved already"),
        (RequestState.USED, "the call was made"),
        (RequestState.DECLINED, "was declined already"),
        (RequestState.STALE, "its target changed"),
        (RequestState.UNANSWERED, "was left unanswered"),
    ],
)
@pytest.mark.parametrize("action", ["approve", "decline"])
async def test_what_was_decided_elsewhere_is_not_decided_again(
    state: RequestState, became: str, action: str, desk: Desk, visitor: Visitor
) -> None:
    """Ours: whoever is second is told what became of it."""
    await desk.ask(question())
    form = await visitor.form(action, "grant-1")
    await moved(desk.ledger, "grant-1", [RequestState.OPEN], state, desk.clock.now().timestamp(), by="terminal")
    before = await desk.snapshot()
    answer = await visitor.send(action, form | {"extent": "once"})
    assert answer.status_code == 409
    assert became in answer.text
    assert await desk.snapshot() == before


async def test_what_ran_out_or_never_was_is_not_decided(desk: Desk, visitor: Visitor) -> None:
    """Ours: expiry is the ledger's; an unknown grant and one that a form asks about are no question of this page."""
    await desk.ask(question(), question("grant-3"))
    forms = [await visitor.form("approve", "grant-1"), await visitor.form("decline", "grant-3")]
    desk.clock.passed += 3600
    for action, form in zip(("approve", "decline"), forms, strict=True):
        answer = await visitor.send(action, form | {"extent": "once"})
        assert answer.status_code == 409
        assert "has expired" in answer.text
    assert (await found(desk)).state is RequestState.OPEN
    assert await desk.ledger.declines("local") == (0, 0.0)


@pytest.mark.parametrize("action", ["approve", "decline"])
async def test_a_question_in_the_clients_own_form_is_not_answered_here(
    action: str, desk: Desk, visitor: Visitor
) -> None:
    """Ours: it is not shown, and neither it nor one that never was is decided by a form that was made for it."""
    await desk.ask(question(), question("grant-3"))
    forms = [await visitor.form(action, id_) | {"extent": "once"} for id_ in ("grant-1", "grant-3")]
    change(desk, "UPDATE requests SET out_of_band = 0 WHERE id = 'grant-1'")
    change(desk, "DELETE FROM requests WHERE id = 'grant-3'")
    assert "Delete customer" not in await visitor.look()
    for form in forms:
        answer = await visitor.send(action, form)
        assert answer.status_code == 409
        assert "There is no such approval request. Nothing was decided." in answer.text
    assert (await found(desk)).state is RequestState.OPEN


async def test_two_people_cannot_be_told_apart_here(desk: Desk, visitor: Visitor) -> None:
    """Ours: a call that needs four eyes can only be declined on a page of one person."""
    await desk.ask(question(), update_of_workflow())
    form = await visitor.form("approve", "grant-1")
    change(desk, "UPDATE requests SET required = 'four_eyes' WHERE id = 'grant-1'")
    page = await visitor.look()
    assert "Two different people have to approve this call" in page
    assert page.count("Approve this one call") == 1
    answer = await visitor.send("approve", form | {"extent": "once"})
    assert answer.status_code == 403
    assert (await found(desk)).state is RequestState.OPEN
    assert (await visitor.decide("decline", "grant-1")).status_code == 303


class Overtaken(SqliteLedger):
    """Somebody at a terminal is quicker, by as little as can be."""

    @override
    async def find(self, request: str) -> ApprovalRequest | None:
        there = await super().find(request)
        if there is not None:
            await self.decide(there, Vote("terminal", approves=False, at=0.0), "terminal")
        return there


@pytest.mark.parametrize("action", ["approve", "decline"])
async def test_whoever_is_overtaken_is_told(action: str, tmp_path: Path) -> None:
    """Ours: the ledger decides who was first, and the second decision leaves no trace."""
    desk = Desk(tmp_path / "page.json", ledger=Overtaken(":memory:"))
    visitor = await let_in(desk)
    await desk.ask(update_of_workflow("grant-1"))
    answer = await visitor.decide(action, "grant-1", extent="while")
    assert answer.status_code == 409
    assert "This question was declined already. Nothing was decided now." in answer.text
    assert await desk.ledger.temporary_approvals(0.0) == []
    assert await desk.ledger.declines("local") == (1, 0.0)
    (grant,) = await desk.ledger.decided(5)
    assert (grant.state, grant.by) == (RequestState.DECLINED, "terminal")
    await visitor.http.aclose()
    await desk.aclose()


async def test_one_of_many_clicks_decides(desk: Desk, visitor: Visitor) -> None:
    """Ours: approve and decline at once, and the ledger takes the first."""
    await desk.ask(question())
    approve, decline = await visitor.form("approve", "grant-1"), await visitor.form("decline", "grant-1")
    assert (await visitor.send("approve", approve | {"extent": "once"})).status_code == 303
    assert (await visitor.send("decline", decline)).status_code == 409
    assert (await found(desk)).state is RequestState.APPROVED
    assert await desk.ledger.declines("local") == (0, 0.0)


async def test_a_ledger_that_fails_approves_nothing_and_tells_nothing(desk: Desk, visitor: Visitor) -> None:
    """Ours: the page says that something failed, without its inside."""
    await desk.ask(question())
    form = await visitor.form("approve", "grant-1")
    change(desk, "ALTER TABLE requests RENAME TO lost")
    answer = await visitor.send("approve", form | {"extent": "once"})
    assert answer.status_code == 500
    assert "Something failed here" in answer.text
    assert "lost" not in answer.text
    assert answer.headers["x-frame-options"] == "DENY"


async def test_a_question_shows_all_that_it_takes_to_decide(desk: Desk, visitor: Visitor) -> None:
    """Ours: who asks, the account, the exact call, the target, what uses it, what is unknown, what cannot be undone."""
    await desk.ask(question(), update_of_workflow())
    page = words(await visitor.look())
    for part in (
        "2 calls wait for you",
        'Destroys asked 2 minutes ago , 7 minutes left to answer Delete customer "Globex"',
        "Asked by local Account default at live.fastn.ai",
        'Target "Globex" id "cus_8fQ2"',
        'The exact call delete_customer customer_id "cus_8fQ2"',
        '2 connections : "Shopify" , "Slack"',
        "Could not be checked: triggers .",
        "Its connections, credentials and secrets are lost",
        'Field Now Afterwards name Now "Orders" Afterwards "Orders v2" status Now "Draft" Afterwards "Live"',
        "Approve update_workflow on this target for 15 minutes",
    ):
        assert part in page
    assert page.index("Globex") < page.index("Orders")  # the oldest first
    assert page.index("Its connections, credentials and secrets are lost") < page.index("Your decision")


async def test_nothing_is_cut_that_is_to_be_approved(desk: Desk, visitor: Visitor) -> None:
    """Ours: a long value, a deep one, and what the page has no name for are shown whole."""
    grant = update_of_workflow()
    long = "x" * 5000 + "the end"
    more: dict[str, JsonValue] = {
        "arguments": {
            "input": {"orders": [{"id": 1, "note": long}]},
            "count": 3,
            "none": None,
            "empty": [],
            "text": "y" * 5000 + "its end",
        },
        "more_changes": 7,
        "environment": "production",
        "used_by": [{"kind": "triggers", "count": 300, "at_least": True, "as": []}],
    }
    await desk.ask(replace(grant, preview={**grant.preview, **more}))
    page = html.unescape(await visitor.look())
    assert long in page
    assert "y" * 5000 + 'its end"' in page
    assert '{\n  "orders": [\n    {\n      "id": 1,' in page
    assert "7 more fields would change: they are in the call above." in page
    assert "at least 300 triggers" in page
    assert "environment" in page
    assert '"production"' in page


async def test_an_effect_that_is_not_known_is_shown_as_the_worst(desk: Desk, visitor: Visitor) -> None:
    """Ours: a card without what was expected is no reason for calm."""
    await desk.ask(question(preview={}))
    page = await visitor.look()
    assert "Unknown effect" in page
    assert 'class="question unknown"' in page


async def test_the_history_says_what_became_of_each_question(desk: Desk, visitor: Visitor) -> None:
    """Ours: the newest first, by whom, with the exact call."""
    now = desk.clock.now().timestamp()
    became = {
        "burnt": (RequestState.USED, "client_form", "Approved and used"),
        "stale": (RequestState.STALE, None, "Void: the target changed"),
        "nobody": (RequestState.UNANSWERED, "client_form", "Nobody answered"),
        "no": (RequestState.DECLINED, "terminal", "Declined"),
        "waits": (RequestState.APPROVED, "another way", "Approved, not used yet"),
    }
    for number, (id_, (state, by, _)) in enumerate(became.items()):
        await desk.ask(question(id_))
        await moved(desk.ledger, id_, [RequestState.OPEN], state, now - 7200 + number, by=by)
    page = words(await visitor.look())
    order = [page.index(outcome) for _, _, outcome in reversed(became.values())]
    assert order == sorted(order)
    assert "in the client's form" in page
    assert "at a terminal" in page
    assert "another way" in page
    assert page.count('delete_customer customer_id="cus_8fQ2" Account: default at live.fastn.ai.') == 5
    assert "1 hour ago" in page
    desk.clock.passed += 3600
    assert "Approved, expired unused" in await visitor.look()


async def test_empty_lists_say_what_will_stand_there(desk: Desk, visitor: Visitor) -> None:
    """Ours: an empty page explains itself."""
    page = words(await visitor.look())
    assert "Nothing waits for you When an agent asks for something that needs a person, it appears here." in page
    assert "None. Every call that needs you asks on its own." in page
    assert "Nothing yet." in page
    assert await desk.ledger.waiting(0.0) == []


async def test_times_are_for_programs_and_for_people(desk: Desk, visitor: Visitor) -> None:
    """Ours: each has its exact moment and its words."""
    await desk.ask(question(created=desk.clock.now().timestamp() - 3 * 86_400))
    times = re.findall(r'<time datetime="([^"]+)"[^>]*>([^<]+)</time>', await visitor.look())
    assert [told for _, told in times] == ["3 days ago", "7 minutes"]
    assert all(datetime.fromisoformat(exact).tzinfo is not None for exact, _ in times)
