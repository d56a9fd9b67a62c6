"""The places Stop and Allow: only a form of the page stops changes or allows them, and every page says so."""

import re
from typing import Any

import httpx2
import pytest
from support.audit_entries import entries
from support.page_visitor import Visitor, words
from support.page_world import Desk, deletion_of_customer, update_of_workflow
from support.stores import add_temporary, with_temporary

from fastn_mcp.channels.page.access import MAX_BODY
from fastn_mcp.ledger.approval_request import RequestState
from fastn_mcp.ledger.stop import Stop
from fastn_mcp.ledger.store import LedgerLost

PLACES = ("", "activity", "limits", "stop", "allow")


async def stop(visitor: Visitor, **fields: str) -> httpx2.Response:
    return await visitor.send("stop", await visitor.form("stop", place="stop") | fields)


async def holding(desk: Desk) -> list[Stop]:
    return [each for each in await desk.ledger.stops() if each.lifted is None]


async def test_stop_ends_requests_and_approvals(desk: Desk, visitor: Visitor) -> None:
    now = desk.clock.now().timestamp()
    await desk.ask(deletion_of_customer(), deletion_of_customer("grant-2"), deletion_of_customer("grant-3"))
    await desk.becomes("grant-3", RequestState.APPROVED)
    await add_temporary(desk.ledger, with_temporary(update_of_workflow("grant-4"), now + 900))
    answer = await stop(visitor, reason="cursor renames customers")
    assert (answer.status_code, answer.headers["location"]) == (303, visitor.room)
    (order,) = await holding(desk)
    assert (order.whom, order.reason, order.by) == (
        "everybody", "cursor renames customers", "a person on the approval page",
    )  # fmt: skip
    for id_ in ("grant-1", "grant-2", "grant-3"):
        assert (await desk.request(id_)).state is RequestState.STOPPED
    assert await desk.ledger.temporary_approvals(now) == []
    (entry,) = entries(desk.audit)
    assert (entry["event"], entry["message"]) == ("stopped", "cursor renames customers")


async def test_every_page_says_that_changes_are_stopped(visitor: Visitor) -> None:
    for path in PLACES:
        assert 'class="band"' not in await visitor.look(path), path
    await stop(visitor, reason="<b>\u202eit renames")
    for path in PLACES:
        page = await visitor.look(path)
        assert re.search(r"A person on the approval page stopped all changes at ", words(page)), path
        assert "&lt;b&gt;\\u{202e}it renames" in page, path
        assert "<b>it" not in page, path
    (row,) = re.findall(r"<li><a.*?</li>", await visitor.look("activity"))
    assert words(row).endswith("a person on the approval page , <b>\\u{202e}it renames")


async def test_changes_are_allowed_again_by_a_form_only(desk: Desk, visitor: Visitor) -> None:
    await stop(visitor)
    fields = await visitor.form("allow", place="allow")
    for method in ("GET", "HEAD", "PUT"):
        await visitor.http.request(method, f"{visitor.room}allow", params=fields)
    assert len(await holding(desk)) == 1
    assert (await visitor.send("allow", fields)).status_code == 303
    assert await holding(desk) == []
    assert [entry["event"] for entry in entries(desk.audit)] == ["stopped", "allowed_again"]
    assert words("".join(re.findall(r"<li><a.*?</li>", await visitor.look("activity")))).count("Allowed again") == 1


BAD_TOKENS = ("", "made up", "nonce.0000")


@pytest.mark.parametrize("action", ["stop", "allow"])
async def test_form_token_is_needed_and_single_use(action: str, desk: Desk, visitor: Visitor) -> None:
    if action == "allow":
        await stop(visitor)
    fields, before = await visitor.form(action, place=action), await desk.ledger.stops()
    of_another = await visitor.form("stop", place="stop")
    tokens = [*BAD_TOKENS, *([of_another["token"]] if action == "allow" else [])]
    for token in tokens:
        answer = await visitor.send(action, fields | {"token": token})
        assert (answer.status_code, await desk.ledger.stops()) == (403, before), token
        assert "Nothing was decided" in answer.text
    for origin in ("null", "http://evil.example"):
        assert (await visitor.send(action, fields, Origin=origin)).status_code == 403
    assert await desk.ledger.stops() == before
    assert (await visitor.send(action, fields)).status_code == 303
    after = await desk.ledger.stops()
    assert (await visitor.send(action, fields)).status_code == 403
    assert await desk.ledger.stops() == after != before


async def test_second_stop_of_the_same_adds_nothing(desk: Desk, visitor: Visitor) -> None:
    await stop(visitor, reason="one")
    await stop(visitor, reason="two")
    assert [each.reason for each in await holding(desk)] == ["one"]


async def test_long_reason_is_refused(desk: Desk, visitor: Visitor) -> None:
    answer = await stop(visitor, reason="x" * 201)
    assert answer.status_code == 422
    huge = await visitor.http.post(
        f"{visitor.room}stop", data={"reason": "x" * MAX_BODY}, headers={"Origin": visitor.origin}
    )
    assert huge.status_code == 413
    assert await desk.ledger.stops() == []


async def test_unknown_stop_cannot_be_allowed(desk: Desk, visitor: Visitor) -> None:
    await stop(visitor)
    fields = await visitor.form("allow", place="allow")
    assert (await visitor.send("allow", fields | {"stop": "another"})).status_code == 403
    await desk.ledger.lift_stop((await holding(desk))[0].lift("a person at the terminal", 1.0))
    answer = await visitor.send("allow", fields)
    assert answer.status_code == 409
    assert "Nothing was changed: this stop does not exist, or you may not lift it." in answer.text


async def test_stop_holds_where_the_audit_log_cannot_be_written(desk: Desk, visitor: Visitor) -> None:
    desk.audit.mkdir(parents=True)
    assert (await stop(visitor)).status_code == 303
    assert len(await holding(desk)) == 1


async def test_nothing_is_said_to_be_stopped_without_the_ledger(
    desk: Desk, visitor: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = await visitor.form("stop", place="stop")

    async def lost(_: Any) -> None:
        raise LedgerLost("it is gone")

    monkeypatch.setattr(desk.ledger, "add_stop", lost)
    assert (await visitor.send("stop", fields)).status_code == 503
