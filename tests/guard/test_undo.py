"""The call that undoes a change, from what the journal keeps of it, and the receipt that says what it restores."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import JsonValue

from fastn_mcp.guard.undo import (
    RULES,
    NotUndoable,
    Undo,
    already,
    approver,
    changed_fields,
    drift,
    foreseen,
    receipt,
    undo_of,
)
from fastn_mcp.ledger.change import Change
from fastn_mcp.records.platform import PEOPLE
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.redaction import REDACTED
from fastn_mcp.tools.customers import CreateCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.triggers import DeleteTrigger
from fastn_mcp.tools.workflows import DeleteWorkflow, RunWorkflow

Row = dict[str, JsonValue]

LIST_TOOL = "find it with the list tool."
NOT_SHOWN = "Values that Fastn did not show before cannot be restored."


def change(
    tool: str, sent: Row | None = None, before: Row | None = None, *, target: str | None = "c1", outcome: str = "done"
) -> Change:
    return Change("chg_1", "ana", "test", tool, {}, target, None, before, sent or {}, 0.0, outcome)


def undone(change: Change) -> Undo:
    undo = undo_of(change)
    assert isinstance(undo, Undo)
    return undo


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (change("delete_customer", outcome="not_sent"), "The change was not made (not_sent)."),
        (change("no_such_tool"), "How to undo it is unknown."),
        (change("list_customers"), "How to undo it is unknown."),
        (change("revoke_api_key"), RULES["revoke_api_key"].lost),
        (change("invite_user"), f"The invitation e-mail has already gone out. {PEOPLE}"),
        (change("update_customer", {"plan": "Growth"}), "Its earlier state could not be read."),
        (change("delete_customer"), "Its earlier state could not be read."),
        (change("delete_customer", before={"id": "c1"}), "Too little is known to create it again."),
        (change("create_customer", {"name": "A"}, target=None), f"What it created is unknown; {LIST_TOOL}"),
        (change("create_customer", {"name": "A"}, {}), f"Whether it overwrote something is unknown; {LIST_TOOL}"),
        (
            change("create_secret", {"name": "A"}, {"id": "c1", "name": "A"}),
            "The secret of this name was overwritten: its earlier value is lost, and has to be entered again.",
        ),
        (
            change("update_workflow", {"code": "new()"}, {"id": "c1", "code": REDACTED}),
            "None of the changed fields can be set to its earlier value.",
        ),
    ],
    ids=lambda given: given.tool if isinstance(given, Change) else "",
)
def test_change_that_cannot_be_undone_says_why(made: Change, why: str) -> None:
    assert undo_of(made) == NotUndoable(why)
    assert "undo" not in receipt(made)
    assert receipt(made)["why"] == why


@pytest.mark.parametrize("outcome", ["done", "applied_unreadable", "unknown_outcome"])
def test_undo_deletes_what_was_or_may_have_been_created(outcome: str) -> None:
    undo = undo_of(change("create_trigger", {"name": "A"}, target="t1", outcome=outcome))
    assert undo == Undo(
        DeleteTrigger(trigger_id="t1"),
        "The trigger can be deleted with undo_change.",
        "Runs that the trigger has already started are not undone.",
    )


def test_undo_is_predicted_before_the_call_is_sent() -> None:
    update = UpdateCustomer.model_construct(customer_id="c1")
    assert foreseen(update, None) == Undo(update, RULES["update_customer"].restores, RULES["update_customer"].lost)
    target = FastnObject.model_validate({"id": "w1", "name": "n", "status": "draft"})
    moved = foreseen(DeleteWorkflow(workflow_id="w1"), target)
    assert isinstance(moved, Undo | NotUndoable)
    made = foreseen(CreateCustomer(name="A"), None)
    assert isinstance(made, Undo)
    assert made.call.tool_name() == "delete_customer"
    assert foreseen(ListCustomers(), None) == NotUndoable("How to undo it is unknown.")
    run = foreseen(RunWorkflow(workflow_id="w1"), None)
    assert run == NotUndoable(RULES["run_workflow"].lost)


def test_update_is_undone_with_the_earlier_values() -> None:
    """Hidden, secret and unsupported fields are named; null clears a field."""
    before: Row = {"id": "c1", "name": "Acme", "externalRef": None, "plan": 7, "slug": REDACTED}
    sent: Row = {"name": "B", "externalRef": "r", "plan": "Growth", "slug": "x", "seats": 3}
    undo = undone(change("update_customer", sent, before))
    assert undo.call == UpdateCustomer(customer_id="c1", name="Acme", extra={"externalRef": None})
    assert undo.lost == f"Secrets are not kept in the journal. {NOT_SHOWN}"
    assert undo.not_restored == ("plan", "seats", "slug")
    made = receipt(change("update_customer", sent, before))
    assert made["not_restored"] == ["plan", "seats", "slug"]


def test_field_named_like_an_own_argument_is_not_that_argument() -> None:
    """`extra`, `dry_run` and the like are not Fastn's."""
    undo = undone(change("update_customer", {"extra": "b", "dry_run": True}, {"id": "c1", "extra": "a", "dry_run": 1}))
    assert undo.call == UpdateCustomer(customer_id="c1", extra={"extra": "a", "dry_run": 1})


def test_deletion_is_undone_without_fields_that_fastn_sets() -> None:
    before: Row = {
        "id": "c1", "name": "Acme", "plan": "Free", "externalRef": None, "slug": REDACTED, "createdAt": "x",
        "seats": 3, "owner": None,
    }  # fmt: skip
    undo = undone(change("delete_customer", before=before))
    assert undo.call == CreateCustomer(name="Acme", plan="Free")
    assert (undo.restores, undo.lost) == (RULES["delete_customer"].restores, RULES["delete_customer"].lost)
    assert "seats" in undo.not_restored
    assert not {"owner", "createdAt", "id", "externalRef", "name"} & {*undo.not_restored}


NOW: list[tuple[Row, list[str], bool]] = [
    ({"name": "B", "plan": "Growth"}, [], False),
    ({"name": "Acme", "plan": "Free"}, [], True),
    ({"name": "Acme", "plan": "Growth"}, [], False),
    ({"name": "C", "plan": "Scale"}, ["name", "plan"], False),
    ({"plan": "Growth"}, ["name"], False),
]


@pytest.mark.parametrize(("now", "changed_since", "restored"), NOW)
def test_fields_that_were_changed_since_are_named(now: Row, changed_since: list[str], restored: bool) -> None:
    made = change("update_customer", {"plan": "Growth", "name": "B"}, {"plan": "Free", "name": "Acme", "seats": 1})
    assert drift(made, now | {"seats": 2}) == changed_since
    assert already(made, now | {"seats": 2}) is restored


def test_secret_cannot_tell_whether_it_was_changed_since() -> None:
    made = change("update_customer", {"token": REDACTED, "name": "B"}, {"token": REDACTED, "name": "A"})
    assert drift(made, {"token": "hunter2", "name": "C"}) == ["name"]


def test_fields_of_a_change_without_an_earlier_state() -> None:
    made = change("create_customer", {"name": "A"})
    assert drift(made, {"name": "A"}) == []
    assert drift(made, {"name": "B"}) == ["name"]
    assert not already(made, {"name": "A"})
    assert changed_fields(made) == {}


def test_update_to_the_same_values_offers_no_undo() -> None:
    made = change("update_customer", {"plan": "Free"}, {"name": "A", "plan": "Free"})
    assert undo_of(made) == NotUndoable("It had these values already: there is nothing to undo.")
    assert "undo" not in receipt(made)
    unknown = change("update_customer", {"plan": "Free"}, {"name": "A"})
    other = change("update_customer", {"plan": "Free"}, {"name": "A", "plan": "Growth"})
    assert undo_of(made) not in (undo_of(unknown), undo_of(other))


def test_run_changes_no_field_of_its_workflow() -> None:
    assert changed_fields(change("run_workflow", {"input": {}}, {"id": "w1", "name": "Nightly import"})) == {}


@pytest.mark.parametrize(
    ("value", "shown"),
    [("x" * 198, "x" * 198), ("x" * 199, "[201 characters]"), ([1] * 99, [1] * 99), ([1] * 100, "[201 characters]")],
)
def test_long_value_is_given_by_its_size(value: Any, shown: Any) -> None:
    made = change("update_customer", {"name": value, "plan": "Free"}, {"name": "A", "plan": "Free"})
    assert changed_fields(made) == {"name": {"from": "A", "to": shown}}


def test_receipt_of_an_update_lists_values_and_losses() -> None:
    made = change(
        "update_customer",
        {"plan": "Growth", "adminEmail": "c@d.example"},
        {"plan": "Free", "adminEmail": "a@b.example"},
    )
    assert receipt(replace(made, name="Acme", approved_by="client_form")) == {
        "change_id": "chg_1",
        "name": "Acme",
        "changed": {
            "plan": {"from": "Free", "to": "Growth"},
            "adminEmail": {"from": "a@b.example", "to": "c@d.example"},
        },
        "approved_by": "a person in the client's form",
        "undo": "undo_change",
        "restores": "The earlier values can be restored with undo_change.",
        "lost": "An invitation that was sent to an administrator cannot be recalled.",
    }
    assert not {"name", "approved_by"} & receipt(made).keys()


def test_receipt_of_a_deletion_names_the_fields_that_undo_does_not_restore() -> None:
    before: Row = {"id": "c1", "name": "Acme", "region": "EU", "quotaOverrides": {"events.day": 1}}
    card = receipt(change("delete_customer", before=before))
    assert card["not_restored"] == ["quotaOverrides", "region"]
    assert card["lost"] == "Its connections, credentials and secrets are lost. Its triggers stay off."
    assert "lost" not in receipt(change("create_workflow", {"name": "A"}))


def test_hidden_earlier_value_is_neither_shown_nor_restored() -> None:
    """A field that its answers leave out is not known to be null; undo would clear it."""
    made = change("update_customer", {"plan": "Growth", "externalRef": "x"}, {"id": "c1", "plan": "Free"})
    assert changed_fields(made) == {"plan": {"from": "Free", "to": "Growth"}, "externalRef": {"to": "x"}}
    undo = undone(made)
    assert undo.call.arguments() == {"customer_id": "c1", "plan": "Free"}
    assert undo.not_restored == ("externalRef",)
    assert undo.lost == NOT_SHOWN
    assert isinstance(undo_of(change("update_customer", {"externalRef": "x"}, {"id": "c1"})), NotUndoable)
    known = undone(change("update_customer", {"externalRef": "x"}, {"id": "c1", "externalRef": None}))
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
        ("verified: Dana", "Dana, authenticated"),
        (
            "four_eyes: Dana, D. <dana@fastn.example> (https://id.example/x|auth0|7)\nEve",
            "Dana, D. <dana@fastn.example> (auth0|7) and Eve, both authenticated",
        ),
        ("from_the_future", "from_the_future"),
        ("from_the_future: x", "x: from_the_future"),
    ],
)
def test_receipt_names_the_approver(recorded: str, words: str) -> None:
    assert approver(recorded) == words
