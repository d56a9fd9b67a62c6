"""What a decision on the page does to the ledger, and what the page then shows."""

import html
import re
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue
from support.begun import given
from support.decisions import answered
from support.page_visitor import Visitor, words
from support.page_world import UPDATE, Desk, deletion_of_customer, let_in, update_of_workflow
from support.questions import a_question
from support.stores import add_temporary, database_of, put, with_question, with_temporary
from support.values import not_none
from typing_extensions import override

from fastn_mcp.account.typed_argument import TypedArgument, TypedField
from fastn_mcp.guard.approval_form import MAX_NOTE
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, Vote
from fastn_mcp.ledger.documents import Unreadable, deletion
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.tools.access import CreateSecret

VALUE = TypedArgument("value", (TypedField("value"),))


async def test_approval_allows_one_call(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer())
    await answered(desk.ledger, "local", 1.0)
    answer = await visitor.decide("approve", "grant-1")
    assert (answer.status_code, answer.headers["location"]) == (303, visitor.room)
    grant = await desk.request("grant-1")
    assert (grant.state, grant.by, grant.note) == (RequestState.APPROVED, "local_page", None)
    assert await desk.ledger.declines("local") == (0, 0.0)
    assert await desk.ledger.temporary_approvals(0.0) == []
    assert ['id="said"' in await visitor.look() for _ in range(2)] == [True, False]  # the message is shown once


async def test_secret_is_typed_with_the_approval_and_shown_nowhere(desk: Desk, visitor: Visitor) -> None:
    asked = deletion_of_customer(
        tool="create_secret", expected=None, question=a_question(tool="create_secret"), typed=VALUE
    )
    await desk.ask(asked)
    page = await visitor.look()
    assert re.search(r'<input [^>]*name="secret.value" type="password" required autocomplete="one-time-code"', page)
    refused = await visitor.decide("approve", "grant-1")
    assert refused.status_code == 422
    answer = await visitor.decide("approve", "grant-1", **{"secret.value": "canary-typed"})
    assert answer.status_code == 303
    assert (await desk.request("grant-1")).state is RequestState.APPROVED
    assert "canary" not in await visitor.look()
    assert "canary" not in repr(await desk.ledger.find("grant-1"))
    filled = await desk.typed.fill(CreateSecret(name="A"), VALUE, await desk.request("grant-1"))
    assert filled.value == "canary-typed"


@pytest.mark.parametrize(
    ("typed", "sent", "problem"),
    [
        ((TypedField("user"), TypedField("key")), {"user": "u"}, "type the key."),
        (
            (TypedField("credentials"),),
            {"credentials": '{"token": "canary-typed"'},
            "the credentials have to be a JSON",
        ),
        ((TypedField("credentials"),), {"credentials": "[]"}, "the credentials have to be a JSON object such"),
    ],
)
async def test_incomplete_credentials_approve_nothing(
    desk: Desk, visitor: Visitor, typed: tuple[TypedField, ...], sent: dict[str, str], problem: str
) -> None:
    asked = deletion_of_customer(tool="create_connection", expected=None, question=a_question(tool="create_connection"))
    await desk.ask(replace(asked, typed=TypedArgument("credentials", typed)))
    refused = await visitor.decide("approve", "grant-1", **{f"secret.{name}": text for name, text in sent.items()})
    assert refused.status_code == 422
    assert f"Nothing was approved: {problem}" in words(refused.text)
    assert "canary" not in refused.text
    assert (await desk.request("grant-1")).state is RequestState.OPEN
    assert await desk.ledger.sealed("grant-1", "local_page", 0.0) is None


async def test_secret_that_no_request_asks_for_is_not_kept(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer())
    assert (await visitor.decide("approve", "grant-1", **{"secret.value": "canary-typed"})).status_code == 303
    assert await desk.ledger.sealed("grant-1", "local_page", 0.0) is None


async def test_decline_stores_the_note(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer())
    answer = await visitor.decide("decline", "grant-1", note=" Pause it instead.\r\nThey come back. ")
    assert answer.status_code == 303
    grant = await desk.request("grant-1")
    note = "Pause it instead.\nThey come back."
    assert (grant.state, grant.by, grant.note) == (RequestState.DECLINED, "local_page", note)
    count, last = await desk.ledger.declines("local")
    assert (count, last) == (1, grant.decided)
    assert 'Note: "Pause it instead. They come back."' in await visitor.read()


async def test_decline_needs_no_note(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer())
    await visitor.decide("decline", "grant-1", note=" \r\n ")
    assert (await desk.request("grant-1")).note is None
    assert "The agent gets your note" not in await visitor.look()


async def test_too_long_note_decides_nothing_and_is_kept(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer())
    note = "ü" * (MAX_NOTE + 1)
    answer = await visitor.decide("decline", "grant-1", note=note)
    assert answer.status_code == 422
    assert note in answer.text
    assert (await desk.request("grant-1")).state is RequestState.OPEN
    assert (await visitor.decide("decline", "grant-1", note=note[1:])).status_code == 303


async def test_wrong_or_missing_name_approves_nothing(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer(expected="Globex"))
    before = await desk.snapshot()
    for typed in (None, "", "globex", "Globex ", " Globex", "Glob", "Globex\x00", "GLOBEX", "G\u0131obex"):
        answer = await visitor.decide("approve", "grant-1", **({} if typed is None else {"name": typed}))
        assert answer.status_code == 422, typed
        assert 'aria-invalid="true" autofocus' in answer.text
        assert await desk.snapshot() == before
    assert (await visitor.decide("approve", "grant-1", name="Globex")).status_code == 303
    assert (await desk.request("grant-1")).state is RequestState.APPROVED


async def test_untypable_name_is_typed_sanitized(desk: Desk, visitor: Visitor) -> None:
    names = {
        "हिन्दी": "हिन्दी",
        "A\u202eB": "A\\u{202e}B",
        "two\nlines": "two\\u{a}lines",
        'with "quotes" \\': 'with "quotes" \\',
        "  spaces  ": "  spaces  ",
    }
    for number, (expected, typed) in enumerate(names.items()):
        await desk.ask(deletion_of_customer(f"grant-{number}", expected=expected))
        assert (await visitor.decide("approve", f"grant-{number}", name=typed)).status_code == 303, expected


async def test_temporary_approval_is_recorded_with_the_vote(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(update_of_workflow())
    assert (await visitor.decide("approve", "grant-2", extent="while")).status_code == 303
    grant, since = await desk.request("grant-2"), desk.clock.now().timestamp()
    assert await desk.ledger.temporary_approvals(since) == []
    assert (grant.state, grant.by, grant.gives_permit) == (RequestState.APPROVED, "local_page", True)
    await given(desk.ledger, grant.id, since + 900)
    assert (await visitor.decide("revoke", grant.id)).status_code == 303
    assert await desk.ledger.temporary_approvals(desk.clock.now().timestamp()) == []


async def test_ended_temporary_approval_says_so(desk: Desk, visitor: Visitor) -> None:
    scope = with_temporary(update_of_workflow(), desk.clock.now().timestamp() + 900)
    await add_temporary(desk.ledger, scope)
    form = await visitor.form("revoke", scope.id)
    await desk.ledger.revoke_temporary(scope.id)
    answer = await visitor.send("revoke", form)
    assert answer.status_code == 409
    assert "has already ended" in answer.text


@pytest.mark.parametrize("changes", [{"permit": None}, {"expected": "Orders"}], ids=str)
async def test_disallowed_temporary_approval_is_refused(changes: dict[str, Any], desk: Desk, visitor: Visitor) -> None:
    # Created here: a request created at collection would expire ten minutes later.
    await desk.ask(update_of_workflow("grant-1", **changes))
    assert "for 15 minutes" not in await visitor.look()
    answer = await visitor.decide("approve", "grant-1", extent="while", name="Orders")
    assert answer.status_code == 400
    assert (await desk.request("grant-1")).state is RequestState.OPEN
    assert await desk.ledger.temporary_approvals(0.0) == []


async def test_approval_without_an_extent_is_rejected(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(update_of_workflow())
    for extent in ("", "always", "While"):
        assert (await visitor.decide("approve", "grant-2", extent=extent)).status_code == 400
    assert (await desk.request("grant-2")).state is RequestState.OPEN


@pytest.mark.parametrize(
    ("state", "became"),
    [
        (RequestState.APPROVED, "has already been approved"),
        (RequestState.USED, "the call was made"),
        (RequestState.DECLINED, "has already been declined"),
        (RequestState.STALE, "its target changed"),
        (RequestState.UNANSWERED, "was left unanswered"),
    ],
)
async def test_decided_request_is_not_decided_again(
    state: RequestState, became: str, desk: Desk, visitor: Visitor
) -> None:
    await desk.ask(deletion_of_customer())
    forms = {action: await visitor.form(action, "grant-1") for action in ("approve", "decline")}
    await desk.becomes("grant-1", state, by="terminal")
    before = await desk.snapshot()
    for action, form in forms.items():
        answer = await visitor.send(action, form | {"extent": "once"})
        assert answer.status_code == 409
        assert became in answer.text
        assert await desk.snapshot() == before


async def test_expired_or_unknown_request_is_not_decided(desk: Desk, visitor: Visitor) -> None:
    """The ledger decides expiry. Requests shown in an elicitation form are unknown here."""
    await desk.ask(deletion_of_customer(), deletion_of_customer("grant-3"))
    forms = [await visitor.form("approve", "grant-1"), await visitor.form("decline", "grant-3")]
    desk.clock.passed += 3600
    for action, form in zip(("approve", "decline"), forms, strict=True):
        answer = await visitor.send(action, form | {"extent": "once"})
        assert answer.status_code == 409
    assert (await desk.request("grant-1")).state is RequestState.OPEN
    assert await desk.ledger.declines("local") == (0, 0.0)


async def test_request_in_a_client_form_is_not_decided_here(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer(), deletion_of_customer("grant-3"))
    forms = [
        (action, await visitor.form(action, id_) | {"extent": "once"})
        for action in ("approve", "decline")
        for id_ in ("grant-1", "grant-3")
    ]
    await desk.ledger.change_request("grant-1", lambda request: replace(request, out_of_band=False))
    await put(desk.ledger, deletion(ApprovalRequest, "grant-3"))
    assert "Delete customer" not in await visitor.look()
    for action, form in forms:
        answer = await visitor.send(action, form)
        assert answer.status_code == 409
        assert "This approval request does not exist. Nothing was decided." in answer.text
    assert (await desk.request("grant-1")).state is RequestState.OPEN


async def test_four_eyes_request_can_only_be_declined_here(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer(), update_of_workflow())
    form = await visitor.form("approve", "grant-1")
    await desk.ledger.change_request("grant-1", lambda request: replace(request, required="four_eyes"))
    assert (await visitor.look()).count('class="go') == 1
    answer = await visitor.send("approve", form | {"extent": "once"})
    assert answer.status_code == 403
    assert (await desk.request("grant-1")).state is RequestState.OPEN
    assert (await visitor.decide("decline", "grant-1")).status_code == 303


class Overtaken(Ledger):
    """A ledger in which a terminal decides right before the page does."""

    @override
    async def find(self, approval_id: str) -> ApprovalRequest | None:
        there = await super().find(approval_id)
        if there is not None:
            await self.decide(there, Vote("terminal", approves=False, at=0.0), "terminal")
        return there


@pytest.mark.parametrize("action", ["approve", "decline"])
async def test_later_decision_is_rejected(action: str, tmp_path: Path) -> None:
    desk = Desk(tmp_path / "page.json", ledger=Overtaken(SqliteStore(":memory:")))
    visitor = await let_in(desk)
    await desk.ask(update_of_workflow("grant-1"))
    answer = await visitor.decide(action, "grant-1", extent="while")
    assert answer.status_code == 409
    assert await desk.ledger.temporary_approvals(0.0) == []
    assert await desk.ledger.declines("local") == (1, 0.0)
    (grant,) = await desk.ledger.decided(5)
    assert (grant.state, grant.by) == (RequestState.DECLINED, "terminal")
    await visitor.http.aclose()
    await desk.aclose()


async def test_failing_ledger_approves_nothing(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer())
    form = await visitor.form("approve", "grant-1")
    database_of(desk.ledger).execute("ALTER TABLE documents RENAME TO lost")
    answer = await visitor.send("approve", form | {"extent": "once"})
    assert answer.status_code == 500
    assert "lost" not in answer.text
    assert answer.headers["x-frame-options"] == "DENY"


async def test_oldest_request_is_first_and_its_id_is_shown_once(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer(), update_of_workflow())
    page = await visitor.read()
    assert page.index("Globex") < page.index("Orders")
    assert page.count("cus_8fQ2") == 1


async def test_requester_is_shown_by_the_name_it_gave(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer(asked_by="Claude Desktop"), update_of_workflow())
    page = await visitor.read()
    assert page.count('Requested by "Claude Desktop"') == 1
    assert page.count("Requested by an unnamed caller") == 1


async def test_only_permanent_losses_are_red(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(update_of_workflow())
    page = await visitor.look()
    assert not re.search('class="[^"]*(red|lost)', page)
    await desk.ask(deletion_of_customer())
    page = await visitor.look()
    assert page.count('class="go red"') == 1
    assert page.count('class="means lost"><svg') == 1


async def test_three_requests_are_listed_with_one_open(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer(), update_of_workflow())
    assert 'class="queue"' not in await visitor.look()
    await desk.ask(deletion_of_customer("grant-3", question=UPDATE))
    page = await visitor.look()
    assert len(re.findall(r"<h1\b", page)) == 1
    assert page.count('aria-current="true"') == 1
    assert "checkbox" not in page
    assert len(re.findall(r'<li data-key="grant-\d"><a href="[^"]+\?request=grant-\d#request"', page)) == 3
    assert page.count("Cannot be fully undone") == 1
    for wanted, opened in (("grant-2", "grant-2"), ("grant-3", "grant-3"), ("unknown", "grant-1"), ("", "grant-1")):
        page = (await visitor.http.get(visitor.room, params={"request": wanted})).text
        assert re.findall(r'<article class="card" data-key="([^"]+)"', page) == [opened]
        assert re.findall(r'request=([^"]+)#request" aria-current', page) == [opened]
        part = (await visitor.http.get(f"{visitor.room}now", params={"request": wanted})).text
        assert re.findall(r'<article class="card" data-key="([^"]+)"', part) == [opened]


async def test_wrong_name_keeps_its_request_open_in_a_list(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer(), update_of_workflow(), deletion_of_customer("grant-3", expected="Globex"))
    fields = await visitor.form("approve", "grant-3", place="?request=grant-3")
    answer = await visitor.send("approve", fields | {"extent": "once", "name": "globex"})
    assert answer.status_code == 422
    assert re.findall(r'<article class="card" data-key="([^"]+)"', answer.text) == ["grant-3"]


async def test_values_are_never_truncated(desk: Desk, visitor: Visitor) -> None:
    grant = update_of_workflow()
    long = "x" * 5000 + "the end"
    question = replace(
        UPDATE,
        arguments={
            "input": {"orders": [{"id": 1, "note": long}]},
            "count": 3,
            "none": None,
            "empty": [],
            "text": "y" * 5000 + "its end",
        },
        more_changes=7,
        pending=("Publish to production?",),
        used_by=({"kind": "triggers", "count": 300, "at_least": True, "examples": []},),
    )
    await desk.ask(replace(grant, question=question))
    page = html.unescape(await visitor.look())
    assert long in page
    assert "y" * 5000 + 'its end"' in page
    assert '{\n  "orders": [\n    {\n      "id": 1,' in page
    assert "7 more fields would change: see the exact call." in page
    assert "at least 300 triggers" in page
    assert "pending" in page
    assert '"Publish to production?"' in page


@pytest.mark.parametrize("damaged", [{}, {"title": "Delete it."}, None])
async def test_request_whose_question_cannot_be_read_is_left_out_and_not_decided(
    desk: Desk, visitor: Visitor, damaged: JsonValue
) -> None:
    """Without the expected parts it gets no reassuring color, and no button."""
    now = desk.clock.now().timestamp()
    await desk.ask(deletion_of_customer(), update_of_workflow(), deletion_of_customer("grant-3"))
    fields = await visitor.form("approve", "grant-1")
    await desk.becomes("grant-3", RequestState.DECLINED, at=now)
    for id_ in ("grant-1", "grant-3"):
        await put(desk.ledger, with_question(not_none(await desk.ledger.find(id_)), damaged))
    page = await visitor.look()
    assert re.findall(r'<article class="card" data-key="([^"]+)"', page) == ["grant-2"]
    assert "Delete" not in page
    answer = await visitor.send("approve", fields | {"extent": "once"})
    assert answer.status_code >= 400
    with pytest.raises(Unreadable):
        await desk.ledger.find("grant-1")


async def test_history_shows_each_outcome(desk: Desk, visitor: Visitor) -> None:
    now = desk.clock.now().timestamp()
    became = {
        "burnt": (RequestState.USED, "client_form", "Used"),
        "stale": (RequestState.STALE, "local_page", "Void"),
        "nobody": (RequestState.UNANSWERED, "client_form", "Nobody answered"),
        "no": (RequestState.DECLINED, "terminal", "Declined"),
        "waits": (RequestState.APPROVED, "another way", "Not used yet"),
    }
    for number, (id_, (state, by, _)) in enumerate(became.items()):
        await desk.ask(deletion_of_customer(id_))
        await desk.becomes(id_, state, at=now - 7200 + number, by=by)
    page = await visitor.read()
    order = [page.index(outcome) for _, _, outcome in reversed(became.values())]
    assert order == sorted(order)
    assert "in the client's form" in page
    assert "at a terminal" in page
    assert "another way" in page
    assert "a person on the approval page" not in page  # who approved it has not made it void
    assert page.count('delete_customer customer_id="cus_8fQ2". Account: default at live.fastn.ai.') == 5
    assert "1 hour ago" in page
    desk.clock.passed += 3600
    assert "Not used" in await visitor.look()
    assert "Not used yet" not in await visitor.look()


async def test_times_are_machine_and_human_readable(desk: Desk, visitor: Visitor) -> None:
    await desk.ask(deletion_of_customer(created=desk.clock.now().timestamp() - 3 * 86_400))
    times = re.findall(r'<time datetime="([^"]+)"[^>]*>([^<]+)</time>', await visitor.look())
    assert [told for _, told in times] == ["3 days ago", "7 minutes"]
    assert all(datetime.fromisoformat(exact).tzinfo is not None for exact, _ in times)
