"""Receipts: what changed, who approved it, what undo restores and what it cannot."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import JsonValue
from support.values import not_none
from support.world import FormNow, World

from fastn_mcp.guard.approval.use import Approval
from fastn_mcp.guard.approval_form import APPROVE_TEMPORARILY, BY_SEVERAL, VERIFIED, Submitted
from fastn_mcp.guard.batch import Done
from fastn_mcp.guard.undo import NotUndoable, Undo, approver, changed_fields, receipt, undo_of
from fastn_mcp.ledger.approval_request import Vote
from fastn_mcp.ledger.change import Change
from fastn_mcp.records.platform import PEOPLE
from fastn_mcp.tools.customers import CreateCustomer, UpdateCustomer
from fastn_mcp.tools.workflows import UpdateWorkflow

pytestmark = pytest.mark.anyio

UPDATE = Change("chg_1", "local", "test", "update_customer", {}, "c1", "Acme", {}, {}, 0.0, "done")


def update(before: dict[str, JsonValue], sent: dict[str, JsonValue]) -> Change:
    return replace(UPDATE, before=before, sent=sent)


def test_receipt_of_an_update_lists_values_and_losses() -> None:
    change = update({"plan": "Free", "adminEmail": "a@b.example"}, {"plan": "Growth", "adminEmail": "c@d.example"})
    assert receipt(replace(change, approved_by="client_form")) == {
        "change_id": "chg_1",
        "name": "Acme",
        "changed": {
            "plan": {"from": "Free", "to": "Growth"},
            "adminEmail": {"from": "a@b.example", "to": "c@d.example"},
        },
        "approved_by": "a person in the client's form",
        "undo": "undo_change",
        "restores": "The earlier values can be restored with undo_change.",
        "lost": "An invitation that was sent to an administrator cannot be taken back.",
    }
    assert "name" not in receipt(replace(change, name=None))
    assert "approved_by" not in receipt(change)


def test_receipt_of_a_deletion_names_the_fields_that_undo_does_not_restore() -> None:
    before: dict[str, JsonValue] = {"id": "c1", "name": "Acme", "region": "EU", "quotaOverrides": {"events.day": 1}}
    card = receipt(replace(UPDATE, tool="delete_customer", before=before))
    assert card["not_restored"] == ["quotaOverrides", "region"]
    assert card["lost"] == "Its connections, credentials and secrets are lost. Its triggers stay off."


def test_receipt_of_an_invitation_says_that_it_was_sent() -> None:
    card = receipt(replace(UPDATE, tool="invite_user", before=None))
    assert "undo" not in card
    assert card["why"] == f"The invitation is sent. {PEOPLE}"


def test_hidden_earlier_value_is_neither_shown_nor_restored() -> None:
    """A field that its answers leave out is not known to be null; undo would clear it."""
    change = update({"id": "c1", "plan": "Free"}, {"plan": "Growth", "externalRef": "x"})
    assert changed_fields(change) == {"plan": {"from": "Free", "to": "Growth"}, "externalRef": {"to": "x"}}
    undo = undo_of(change)
    assert isinstance(undo, Undo)
    assert undo.call.arguments() == {"customer_id": "c1", "plan": "Free"}
    assert undo.not_restored == ("externalRef",)
    assert undo.lost == "Values that Fastn did not show before cannot be restored."
    assert isinstance(undo_of(update({"id": "c1"}, {"externalRef": "x"})), NotUndoable)
    known = undo_of(update({"id": "c1", "externalRef": None}, {"externalRef": "x"}))
    assert isinstance(known, Undo)
    assert (known.call.arguments(), known.not_restored, known.lost) == (
        {"customer_id": "c1", "extra": {"externalRef": None}},
        (),
        "",
    )


@pytest.mark.parametrize(
    ("recorded", "words"),
    [
        ("policy", "the policy; no person was asked"),
        ("plan", "a signed plan; no person was asked"),
        ("local_page", "a person on the approval page"),
        ("temporary_approval", "a temporary approval"),
        ("temporary_approval: client_form", "a temporary approval, given by a person in the client's form"),
        ("verified: Dana", "Dana: a person with a credential of their own"),
        (
            "four_eyes: Dana, D. <dana@fastn.example> (https://id.example/x|auth0|7)\nEve",
            "Dana, D. <dana@fastn.example> (auth0|7) and Eve: two people with credentials of their own",
        ),
        ("from_the_future", "from_the_future"),
        ("from_the_future: x", "x: from_the_future"),
    ],
)
def test_receipt_names_the_approver(recorded: str, words: str) -> None:
    assert approver(recorded) == words


async def test_people_are_named_only_by_a_channel_that_identifies_them(world: World) -> None:
    assert not isinstance(await world.call(admin(world, "a@b.example")), Done)
    (id_,) = world.desk.shown
    opened = not_none(await world.ledger.find(id_))
    votes = (Vote("https://id.example|7", True, 0.0, "Dana <d@x>"), Vote("Zoe", False, 0.0), Vote("Eve", True, 0.0))
    votes = (*votes, Vote("https://id.example|kim", True, 0.0, "kim"))
    request = replace(opened, votes=votes)
    assert (
        Approval(BY_SEVERAL, request).detail
        == Approval(VERIFIED, request).detail
        == "Dana <d@x> (https://id.example|7)\nEve\nhttps://id.example|kim"
    )
    assert Approval("local_page", request).detail == Approval("policy").detail == ""


async def test_approver_is_journalled(world: World) -> None:
    assert await approved_by(world, CreateCustomer(name="Initech")) == "policy"
    assert await approved_by(world, admin(world, "a@b.example")) == "client_form"
    flow = str(world.sandbox.state.named("workflows", "process-new-orders")["id"])
    later = FormNow(
        lambda question: Submitted("accept", {"decision": APPROVE_TEMPORARILY}).answer(question), world.clock
    )
    assert await approved_by(world, UpdateWorkflow(workflow_id=flow, code="1"), later) == "client_form"
    assert await approved_by(world, UpdateWorkflow(workflow_id=flow, code="2")) == "temporary_approval: client_form"


async def test_name_of_the_approver_is_journalled(world: World) -> None:
    call = admin(world, "a@b.example")
    await world.call(call)
    assert await world.ledger.decide(
        not_none(await world.ledger.find(world.desk.shown[0])),
        Vote("Dana", approves=True, at=world.timestamp),
        VERIFIED,
    )
    assert await approved_by(world, call) == "verified: Dana"


def admin(world: World, email: str) -> UpdateCustomer:
    """A call that needs approval."""
    key = world.id_of("customers", "Katana")
    return UpdateCustomer(customer_id=key, admin_email=email)


async def approved_by(world: World, call: Any, form: FormNow | None = None) -> str:
    outcome = await world.call(call, form or world.form())
    assert isinstance(outcome, Done), outcome
    assert outcome.change is not None
    (kept,) = await world.ledger.changes("test", 1, 1e12)
    assert kept.approved_by == outcome.change.approved_by
    return outcome.change.approved_by
