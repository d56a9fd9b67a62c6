"""Tests of the journal, receipts, list_changes and undo_change."""

import json
import re
from dataclasses import replace
from typing import Any

import anyio
import pytest
from pydantic import JsonValue
from support.decisions import allowed
from support.direct_sandbox import Fastn
from support.faulty_sandbox import FaultMoment, NotANumber, Reset, Status
from support.sensible_calls import sensible
from support.values import not_none
from support.world import World

from fastn_mcp.errors import (
    AppliedUnreadable,
    Conflict,
    Declined,
    Forbidden,
    NotFound,
    NotSent,
    TargetChanged,
    UnknownOutcome,
)
from fastn_mcp.guard.approval_form import Decline, PendingApproval, form_text
from fastn_mcp.guard.permission import Permission, new_change
from fastn_mcp.guard.result import Done
from fastn_mcp.guard.undo import RULES, NotUndoable, receipt, undo_of
from fastn_mcp.ledger.approval_request import ApprovalRequest
from fastn_mcp.ledger.change import Change
from fastn_mcp.ledger.change_start import StartResult
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.procedures.undo_change import ListChanges, UndoChange
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.server.rendering import render
from fastn_mcp.tools.access import CreateApiKey, CreateSecret
from fastn_mcp.tools.catalog import CATALOG, OPERATIONS
from fastn_mcp.tools.connectors import CreateConnection, CreateConnector, UpdateConnector
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, UpdateCustomer
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.tool import Effect
from fastn_mcp.tools.triggers import DeleteTrigger
from fastn_mcp.tools.workflows import DeleteWorkflow, UpdateWorkflow

_BY_ITSELF = {"version", "updatedAt", "updatedBy", "nextRun", "statusHistory", "stage"}


async def done(world: World, call: Any) -> Done:
    return await world.expect(Done, call, world.form())


async def changed(world: World, call: Operation[Any]) -> Change:
    change = (await done(world, call)).change
    assert change is not None
    return change


async def undone(world: World, change: Change) -> dict[str, Any]:
    return (await done(world, UndoChange(change_id=change.id))).result.model_dump()


def row(world: World, collection: str, key: object) -> dict[str, JsonValue]:
    found = world.sandbox.state.get(collection, key)
    assert found is not None
    return {name: value for name, value in found.items() if name not in _BY_ITSELF and value is not None}


async def acme_on_free(world: World) -> tuple[str, Change]:
    """Move Acme Corp from the plan Growth to Free. Return its id and the change."""
    key = world.id_of("customers", "acme-corp")
    return key, await changed(world, UpdateCustomer(customer_id=key, plan="Free"))


UPDATES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "a name and an empty field": ("update_customer", "acme-corp", {"name": "Acme Ltd", "external_ref": "x-1"}),
    "a field that is cleared": ("update_customer", "acme-corp", {"extra": {"externalRef": None}}),
    "a description": ("update_connector", "gamma", {"description": "Decks", "domain": "gamma.example"}),
    "code": ("update_workflow", "process-new-orders", {"code": "export default async () => 1", "timeout_ms": 500}),
    "a status": ("update_workflow", "process-new-orders", {"status": "inactive"}),
}


@pytest.mark.parametrize("what", UPDATES)
async def test_undo_of_an_update_restores_the_state_before(world: World, what: str) -> None:
    tool, slug, arguments = UPDATES[what]
    operation = OPERATIONS[tool]
    collection = operation.toolset()
    key = world.id_of(collection, slug)
    before = row(world, collection, key)
    change = await changed(world, operation.model_validate({operation.route.parameters[0]: key} | arguments))
    assert row(world, collection, key) != before
    answer = await undone(world, change)
    assert row(world, collection, key) == before
    assert answer["undone"] == change.id
    assert "stays" not in answer


async def test_undo_can_be_undone(world: World) -> None:
    key, change = await acme_on_free(world)
    again = (await done(world, UndoChange(change_id=change.id))).change
    assert again is not None
    await undone(world, again)
    assert row(world, "customers", key)["plan"] == "Free"


async def test_undo_refuses_to_overwrite_later_changes(world: World) -> None:
    key, change = await acme_on_free(world)
    world.sandbox.state.put("customers", {**world.sandbox.state.rows["customers"][key], "plan": "Enterprise"})
    sent = len(world.changes)
    error = await world.expect(TargetChanged, UndoChange(change_id=change.id), world.form())
    assert "plan" in str(error)
    assert error.facts["now"] == {"plan": "Enterprise"}
    assert len(world.changes) == sent


async def test_undo_keeps_later_changes_of_other_fields(world: World) -> None:
    key, change = await acme_on_free(world)
    world.sandbox.state.put("customers", {**world.sandbox.state.rows["customers"][key], "region": "APAC"})
    await undone(world, change)
    assert row(world, "customers", key)["region"] == "APAC"
    assert row(world, "customers", key)["plan"] == "Growth"


async def test_change_is_undone_only_once(world: World) -> None:
    _, change = await acme_on_free(world)
    await undone(world, change)
    sent = len(world.changes)
    await world.expect(NotSent, UndoChange(change_id=change.id))
    assert len(world.changes) == sent


async def test_undo_by_a_disabled_tool_is_refused(world: World) -> None:
    update = await changed(world, UpdateCustomer(customer_id=world.id_of("customers", "acme-corp"), plan="Free"))
    deletion = await changed(world, DeleteCustomer(customer_id=world.id_of("customers", "globex-exports")))
    world.disabled |= {"update_customer": "exclude_tools", "delete_customer": "exclude_tools"}
    sent = len(world.changes)
    error = await world.expect(NotSent, UndoChange(change_id=update.id), world.form())
    assert "Disabled here by the setting exclude_tools. Nothing was sent. It needs update_customer" in str(error)
    assert len(world.changes) == sent
    assert (await undone(world, deletion))["by"] == "create_customer"
    world.disabled.clear()
    await undone(world, update)


async def test_batch_with_a_disabled_tool_is_refused(world: World) -> None:
    """Also where its calls were parsed with other tools than those of this server."""
    world.disabled["update_customer"] = "tools"
    call: dict[str, JsonValue] = {
        "tool": "update_customer",
        "arguments": {"customer_id": world.id_of("customers", "acme-corp"), "plan": "Free"},
    }
    error = await world.expect(NotSent, ApplyChanges(changes=[call]), world.form())
    assert "by the setting tools" in error.what
    assert world.changes == []


async def test_undo_of_a_deletion_names_new_id_and_losses(world: World) -> None:
    key = world.id_of("customers", "globex-exports")
    before = row(world, "customers", key)
    change = await changed(world, DeleteCustomer(customer_id=key))
    answer = await undone(world, change)
    created = row(world, "customers", answer["new_id"])
    assert answer["new_id"] != key
    assert [created[name] for name in ("name", "slug", "plan")] == [before[name] for name in ("name", "slug", "plan")]
    assert "credentials" in answer["stays"]
    assert {"quotaOverrides", "region"} <= set(answer["not_restored"])


async def test_undo_whose_response_is_unreadable_is_not_made_again(world: World) -> None:
    """It was done: a second one would create the trigger twice."""
    key = world.id_of("triggers", "Hourly Slack sync")
    change = await changed(world, DeleteTrigger(trigger_id=key))
    world.sandbox.faults.add(NotANumber(method="POST", path="/api/v1/triggers"))
    await world.expect(AppliedUnreadable, UndoChange(change_id=change.id), world.form())
    sent = len(world.changes)
    again = await world.call(UndoChange(change_id=change.id), world.form())
    assert "This change has already been undone" in str(again)
    assert len(world.changes) == sent


async def test_denied_undo_can_be_repeated(world: World) -> None:
    change = await changed(world, CreateConnector(name="Initech", slug="initech"))
    await world.expect(Declined, UndoChange(change_id=change.id), world.form(Decline()))
    await undone(world, change)


async def test_change_is_not_undone_while_its_undo_waits_for_a_person(world: World) -> None:
    change = await changed(world, CreateConnector(name="Initech", slug="initech"))
    form, answer, undone_then = world.form(), world.form().ask, list[bool]()

    async def looking(asked: ApprovalRequest) -> Any:
        undone_then.append(not_none(await world.ledger.change("test", change.id)).undone)
        return await answer(asked)

    form.ask = looking  # type: ignore[method-assign]
    await world.expect(Done, UndoChange(change_id=change.id), form)
    assert undone_then == [False]
    assert not_none(await world.ledger.change("test", change.id)).undone


async def test_refused_undo_can_be_repeated(world: World) -> None:
    change = await changed(world, CreateConnector(name="Initech", slug="initech"))
    world.sandbox.faults.add(Status(status=409, method="DELETE"))
    await world.expect(Conflict, UndoChange(change_id=change.id), world.form())
    await undone(world, change)


async def test_cancelled_undo_can_be_repeated(world: World) -> None:
    change = await changed(world, UpdateCustomer(customer_id=world.id_of("customers", "acme-corp"), name="A"))
    form = world.form()
    form.ask = lambda _: anyio.sleep_forever()  # type: ignore[method-assign, assignment, return-value]
    with anyio.move_on_after(0.05):
        await world.call(UndoChange(change_id=change.id), form)
    assert (await undone(world, change))["undone"] == change.id


async def test_pending_undo_runs_when_it_is_repeated(world: World) -> None:
    change = await changed(world, CreateCustomer(name="Initech"))
    await world.expect(PendingApproval, UndoChange(change_id=change.id))
    await world.approve_open_request()
    await world.expect(Done, UndoChange(change_id=change.id))
    assert world.sandbox.state.get("customers", change.target) is None


NEVER: list[tuple[str, dict[str, Any], str]] = [
    ("delete_workflow", {"workflow_id": "wf_e5047fb2a8c3"}, "Trash"),
    ("revoke_api_key", {"api_key_id": "4"}, "never works again"),
    ("run_workflow", {"workflow_id": "wf_0d93ee5b1f62"}, "cannot be undone"),
    ("invite_user", {"email": "kim@fastn.example", "role": "Operator"}, "dashboard"),
    ("ai_chat", {"message": "How are my workflows?"}, "credits have been spent"),
]


@pytest.mark.parametrize(("tool", "arguments", "why"), NEVER, ids=lambda value: value if isinstance(value, str) else "")
async def test_change_without_undo_says_why(world: World, tool: str, arguments: dict[str, Any], why: str) -> None:
    change = await changed(world, OPERATIONS[tool].model_validate(arguments))
    fields = receipt(change)
    assert "undo" not in fields
    assert why in str(fields["why"])
    sent = len(world.changes)
    error = await world.expect(NotSent, UndoChange(change_id=change.id))
    assert why in str(error)
    assert len(world.changes) == sent


INVITED = "An invitation that was sent to an administrator cannot be recalled."

KINDS = ("customers", "connectors", "connections", "workflows", "triggers", "users", "roles", "api_keys", "secrets")


def account(world: World) -> dict[str, dict[str, Any]]:
    """Return every resource by kind and id, without the fields that Fastn updates by itself."""
    return {kind: {key: row(world, kind, key) for key in world.sandbox.state.rows.get(kind, {})} for kind in KINDS}


@pytest.mark.parametrize(
    "tool", [op.tool_name() for op in CATALOG if op.effect is not Effect.READ and op.toolset() != "ai"]
)
async def test_undo_restores_all_but_the_announced_losses(world: World, tool: str) -> None:
    """Preview, approval request and receipt agree, and whatever they do not call lost is restored."""
    (call,) = (call for call in sensible(Fastn(world.sandbox)) if call.tool_name() == tool)
    if tool == "delete_customer":
        call = DeleteCustomer(customer_id=world.id_of("customers", "globex-exports"))
    if tool == "delete_trigger":
        call = DeleteTrigger(trigger_id=world.id_of("triggers", "Hourly Slack sync"))
    previewed = await world.preview(call)
    undo_text, before = str(previewed.data_for_agent()["undo"]), account(world)
    form = world.form()
    outcome = await world.expect(Done, call, form)
    assert outcome.change is not None
    assert all(previewed.title in form_text(question) for question in form.asked)
    assert all(previewed.summary()[1] in form_text(question) for question in form.asked)
    rendered = "\n".join([*previewed.lines(), *(form_text(question) for question in form.asked)])
    assert re.findall(r"(?<![\w.,*/])1 (?:more )?[a-z]+s\b", rendered) == []
    fields = receipt(outcome.change)
    assert undo_text == str(fields.get("why") or f"{fields['restores']} {fields.get('lost', '')}".strip())
    sent = len(world.changes)
    if "undo" not in fields:
        error = await world.expect(NotSent, UndoChange(change_id=outcome.change.id), world.form())
        assert undo_text in str(error)
        assert len(world.changes) == sent
        return
    await undone(world, outcome.change)
    after, own = account(world), call.toolset()
    lost = {kind for kind in KINDS if kind != own and before[kind] != after[kind]}
    assert {kind for kind in lost if kind not in undo_text} == set()
    if tool == "delete_customer":
        assert lost == {"connections", "secrets", "triggers"}
    if "under a new id" in undo_text:
        (old,), (new,) = before[own].keys() - after[own].keys(), after[own].keys() - before[own].keys()
        for name in ("name", "slug", "plan", "schedule", "routes"):
            assert before[own][old].get(name) == after[own][new].get(name), name
    elif tool == "create_api_key":
        assert after[own].keys() >= before[own].keys()
    else:
        assert after[own] == before[own]


def test_every_change_can_be_undone_or_says_why_not() -> None:
    """The table has every operation that changes something, and its undo is a change too."""
    for operation in (operation for operation in CATALOG if operation.effect is not Effect.READ):
        change = Change(
            "c", "local", "test", operation.tool_name(), {}, "x1", "X", {"id": "x2", "name": "X"}, {"name": "Y"}, 0
        )
        undo = undo_of(replace(change, outcome="done"))
        assert operation.tool_name() in RULES
        if RULES[operation.tool_name()].by is None:
            assert isinstance(undo, NotUndoable)
        assert isinstance(undo, NotUndoable) or undo.call.effect is not Effect.READ


async def test_undo_does_not_delete_an_overwritten_secret(world: World) -> None:
    change = await changed(world, CreateSecret(name="GOOGLE_SA", value="{}", type="JSON", environment="live"))
    assert change.before
    assert "earlier value is lost" in str(receipt(change)["why"])
    await world.expect(NotSent, UndoChange(change_id=change.id), world.form())
    assert world.id_of("secrets", "GOOGLE_SA") == change.target


async def test_receipt_is_sanitized(world: World) -> None:
    """A name or a value of Fastn's cannot hide or reorder what is read beside it."""
    key = world.id_of("customers", "acme-corp")
    world.sandbox.state.rows["customers"][key] |= {"name": "Acme\u202eCorp", "plan": "Gr\u200bowth"}
    outcome = await done(world, UpdateCustomer(customer_id=key, plan="Free"))
    receipt = world.dispatch.receipt(outcome.change)
    answer: Any = render(UpdateCustomer(customer_id=key, plan="Free"), outcome.result, {}, receipt)
    assert answer["receipt"]["name"] == r"Acme\u{202e}Corp"
    assert answer["receipt"]["changed"]["plan"]["from"] == r"Gr\u{200b}owth"


async def test_each_call_of_a_list_has_its_receipt(world: World) -> None:
    acme, katana = (world.id_of("customers", slug) for slug in ("acme-corp", "katana-customer"))
    flow = world.id_of("workflows", "update-inventory")
    calls = [
        {"tool": "update_customer", "arguments": {"customer_id": acme, "plan": "Free"}},
        {"tool": "create_customer", "arguments": {"name": "Initech", "admin_email": "bill@initech.example"}},
        {"tool": "delete_workflow", "arguments": {"workflow_id": flow}},
        {"tool": "update_customer", "arguments": {"customer_id": katana, "plan": "Free"}},
    ]
    answer = (await done(world, ApplyChanges.model_validate({"changes": calls}))).result.model_dump()
    by = {"approved_by": "a person in the client's form"}
    restores = "The earlier values can be restored with undo_change."
    assert answer["receipts"] == [
        {"calls": [1, 4], **by, "restores": restores},
        {"calls": [2], **by, "restores": RULES["create_customer"].restores, "lost": INVITED},
        {"calls": [3], **by, "why": RULES["delete_workflow"].lost},
    ]
    first, second, third, _ = answer["calls"]
    assert (first["name"], first["changed"]) == ("Acme Corp", {"plan": {"from": "Growth", "to": "Free"}})
    assert [sorted(row.keys() & {"change_id", "made", "name"}) for row in (second, third)] == [
        ["change_id", "made", "name"],
        ["name"],
    ]
    undone = (await done(world, UndoChange(change_id=second["change_id"]))).result.model_dump()
    assert undone["stays"] == INVITED


async def test_list_changes_shows_fields_and_undo(world: World) -> None:
    _, change = await acme_on_free(world)
    world.clock.pass_(7_200)
    await undone(world, change)
    (second, first) = (await world.ask(ListChanges()))["changes"]
    assert first["changed"] == {"plan": {"from": "Growth", "to": "Free"}}
    assert first["at"].endswith("(2 hours ago)")
    assert first["undo"] == "undone"
    assert (second["tool"], second["undo"]) == ("update_customer", "undo_change")


async def test_list_changes_has_pages(world: World) -> None:
    for number in range(5):
        world.clock.pass_(1)
        await changed(world, CreateCustomer(name=f"Customer {number}"))
    answers = await world.pages("list_changes", limit=2)
    seen = [change["name"] for answer in answers for change in answer["data"]["changes"]]
    assert seen == [f"Customer {number}" for number in (4, 3, 2, 1, 0)]


async def test_unknown_outcome_is_listed_and_can_be_undone(world: World) -> None:
    key = world.id_of("customers", "acme-corp")
    world.sandbox.faults.add(Reset(method="PUT", path=UpdateCustomer.route.path, moment=FaultMoment.AFTER, times=3))
    call = UpdateCustomer(customer_id=key, plan="Free")
    await world.expect(UnknownOutcome, call)
    world.sandbox.faults.clear()
    (only,) = (await world.ask(ListChanges()))["changes"]
    assert only["outcome"] == "unknown_outcome"
    assert row(world, "customers", key)["plan"] == "Free"
    await done(world, UndoChange(change_id=only["change_id"]))
    assert row(world, "customers", key)["plan"] == "Growth"


@pytest.mark.parametrize("moment", FaultMoment)
async def test_undo_of_a_deletion_makes_nothing_beside_what_is_still_there(world: World, moment: FaultMoment) -> None:
    trigger = world.id_of("triggers", "Hourly Slack sync")
    world.sandbox.faults.add(Reset(method="DELETE", moment=moment, times=1 if moment is FaultMoment.AFTER else None))
    await world.call(DeleteTrigger(trigger_id=trigger), world.form())
    (change,) = await world.ledger.changes("test", 1, 1e12)
    person = world.form()
    undone = await world.call(UndoChange(change_id=change.id), person)
    if moment is FaultMoment.AFTER:
        assert isinstance(undone, Done)
    else:
        assert str(undone) == "There is nothing to undo: it is still there. Nothing was sent."
        assert person.asked == []


async def test_undo_of_a_change_that_did_not_happen_is_refused(world: World) -> None:
    key = world.id_of("customers", "acme-corp")
    world.sandbox.faults.add(Reset(method="PUT", path=UpdateCustomer.route.path, moment=FaultMoment.BEFORE, times=3))
    await world.call(UpdateCustomer(customer_id=key, plan="Free"))
    world.sandbox.faults.clear()
    (only,) = (await world.ask(ListChanges()))["changes"]
    error = await world.expect(NotSent, UndoChange(change_id=only["change_id"]))
    assert "it already has its earlier state" in str(error)


async def test_refused_change_is_listed_without_fields_and_triggers(world: World) -> None:
    world.sandbox.faults.add(Status(method="PUT", status=409), Status(method="DELETE", status=409))
    workflow = "wf_b5880b29eb25"
    await world.expect(Conflict, UpdateWorkflow(workflow_id=workflow, description="d"), world.form())
    await world.expect(Conflict, DeleteWorkflow(workflow_id=workflow), world.form())
    for row in (await world.ask(ListChanges()))["changes"]:
        assert row["outcome"] == "conflict"
        assert not row.keys() & {"changed", "stopped_triggers"}


async def test_change_of_another_account_is_not_found(world: World) -> None:
    await world.expect(NotFound, UndoChange(change_id="chg_nobody"))


async def test_refused_call_is_not_journalled(world: World) -> None:
    await world.call(CreateCustomer(name="Acme", slug="acme-corp"), world.form())
    assert (await world.ask(ListChanges()))["changes"][0]["undo"].startswith("The change was not made")


async def test_no_secret_is_journalled(world: World) -> None:
    canary = "hunter2-canary"
    gamma = world.id_of("connectors", "gamma")
    methods: Any = [{"type": "API_KEY", "title": "Key", "isDefault": True, "config": {"clientSecret": canary}}]
    await changed(world, UpdateConnector(connector_id=gamma, auth_methods=methods))
    last = await changed(world, UpdateConnector(connector_id=gamma, domain="x.example"))
    await changed(world, CreateSecret(name="NEW_ONE", value=canary))
    await changed(world, CreateConnection(connector_id=gamma, credentials={"apiKey": canary}))
    await changed(world, CreateApiKey(name="BI"))
    changes = await world.ledger.changes("test", 100, 1e12)
    assert len(changes) == 5
    for where in ("arguments", "before", "sent"):
        assert canary not in json.dumps([getattr(change, where) for change in changes], default=dict), where
    assert last.before is not None


async def test_overwritten_secrets_are_named_as_lost(world: World) -> None:
    gamma = world.id_of("connectors", "gamma")
    methods: Any = [{"type": "API_KEY", "title": "Key", "isDefault": True, "config": {"clientSecret": "hunter2"}}]
    await changed(world, UpdateConnector(connector_id=gamma, auth_methods=methods))
    other: Any = [{"type": "BASIC", "title": "Basic", "isDefault": True, "config": {}}]
    change = await changed(world, UpdateConnector(connector_id=gamma, auth_methods=other, domain="x.example"))
    answer = await undone(world, change)
    assert answer["not_restored"] == ["authMethods"]
    assert "Secrets" in answer["stays"]
    assert row(world, "connectors", gamma)["domain"] == "gamma.app"


async def test_revoked_key_is_not_said_to_be_usable(world: World) -> None:
    answer = await undone(world, await changed(world, CreateApiKey(name="BI")))
    assert (answer["by"], answer["stays"]) == ("revoke_api_key", "Calls already made with it are not undone.")


async def test_change_of_an_unreadable_target_cannot_be_undone(world: World) -> None:
    """An allowed change does not need the read; its undo does."""

    async def read(_: Operation[Any]) -> FastnObject:
        raise Forbidden("Fastn answered 403.")

    call = UpdateCustomer(customer_id="x", plan="Free")
    change = await new_change(
        allowed(call), Permission("policy"), list_id="", asker=Asker(), account=world.journalling.account, read=read,
        deadline=0.0, system=world.system,
    )  # fmt: skip
    assert await world.journalling.begin(change) is StartResult.STARTED
    change = await world.journalling.end(change, "done")
    assert receipt(change)["why"] == "Its earlier state could not be read."
