"""What the journal keeps of a change, so that it can be undone and is not repeated unasked."""

from dataclasses import replace
from typing import Any

import pytest
from support.decisions import allowed
from support.faulty_sandbox import FaultMoment, Reset
from support.policy_files import ALLOWING
from support.values import not_none
from support.world import FormNow, World, failing

from fastn_mcp.errors import Conflict, Refused, TargetChanged, UnknownOutcome
from fastn_mcp.guard.approval_form import APPROVE_TEMPORARILY, BY_SEVERAL, VERIFIED, PendingApproval, read_answer
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.journal import UNSETTLED
from fastn_mcp.guard.permission import Permission
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import Vote
from fastn_mcp.ledger.change import BEGUN, Change
from fastn_mcp.ledger.change_start import StartResult
from fastn_mcp.ledger.store import LedgerLost
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.policy import Policy
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, ListCustomers, UpdateCustomer
from fastn_mcp.tools.triggers import UpdateTrigger
from fastn_mcp.tools.workflows import UpdateWorkflow


def row(world: World, kind: str, name: str) -> dict[str, Any]:
    return dict(world.sandbox.state.named(kind, name, by="name"))


async def newest(world: World) -> Change:
    return (await world.ledger.changes("test", 1, 1e12))[0]


@pytest.mark.parametrize("judged_first", [True, False])
async def test_update_is_journalled_with_the_whole_state_before(world: World, judged_first: bool) -> None:
    before = row(world, "customers", "Katana")
    admin = "a@example.com" if judged_first else None
    call = UpdateCustomer(customer_id=before["id"], plan="Free", admin_email=admin)
    assert isinstance(await world.dispatch(call, Caller(Asker("ana"), world.form())), Done)
    kept = await newest(world)
    assert kept.id.startswith("chg_")
    assert (kept.principal, kept.account, kept.tool) == ("ana", "test", "update_customer")
    assert kept.arguments == call.shown()
    assert (kept.target, kept.name, kept.outcome) == (before["id"], "Katana", "done")
    assert kept.before is not None
    assert {name: before[name] for name in kept.before if name in before} == {
        name: value for name, value in kept.before.items() if name in before
    }
    assert kept.before["plan"] == before["plan"]
    assert kept.sent["plan"] == "Free"
    assert kept.at == world.timestamp
    assert kept.repeat_id == ""


async def test_creation_is_journalled_with_its_id_and_name(world: World) -> None:
    call = CreateCustomer(name="Initech")
    await world.expect(Done, call)
    kept = await newest(world)
    assert (kept.target, kept.name) == (row(world, "customers", "Initech")["id"], "Initech")
    assert (kept.before, kept.sent) == (None, {"name": "Initech"})
    assert kept.repeat_id == world.judge.call_id(call, Asker())


async def test_journal_prefers_the_response_over_the_request(world: World, monkeypatch: pytest.MonkeyPatch) -> None:

    async def brief(*_: object) -> FastnObject:
        return FastnObject.model_validate({"id": "c1", "name": "INITECH"})

    monkeypatch.setattr(world.client, "send", brief)
    await world.expect(Done, CreateCustomer(name="Initech", plan="Free"))
    (change,) = await world.ledger.changes("test", 1, 1e12)
    assert change.sent == {"name": "INITECH", "plan": "Free"}


async def test_failed_change_is_journalled_and_repeatable(world: World) -> None:
    for _ in range(2):
        await world.expect(Conflict, CreateCustomer(name="Katana"), world.form())
        assert (await newest(world)).outcome == "conflict"
        assert (await newest(world)).target is None


async def test_reads_are_not_journalled(world: World) -> None:
    await world.expect(Done, ListCustomers())
    assert await world.ledger.changes("test", 9, 1e12) == []


async def test_unwritable_journal_stops_the_change(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(world.ledger, "begin", failing)
        refused = await world.call(CreateCustomer(name="Initech"))
    assert isinstance(refused, Refused)
    assert "The journal could not be written (OSError)." in refused.what
    assert "create_customer could not be journalled" in caplog.text
    assert world.changes == []
    await world.expect(Done, CreateCustomer(name="Initech"))


@pytest.mark.parametrize("error", [OSError("disk full"), LedgerLost("away")])
async def test_half_written_journal_entry_ends_as_not_sent(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    begin, call = world.ledger.begin, CreateCustomer(name="Initech")

    async def half_way(change: Change, **permits: Any) -> StartResult:
        await begin(change, **permits)
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(world.ledger, "begin", half_way)
        refused = await world.call(call)
    assert isinstance(refused, LedgerLost if isinstance(error, LedgerLost) else Refused)
    kept = await newest(world)
    assert (kept.outcome, kept.unsettled_until, kept.target, kept.number) == ("not_sent", 0.0, None, 0)
    assert world.changes == []
    await world.expect(Done, call)


async def test_deletion_is_journalled_with_target_and_state_before_it_is_sent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is idempotent, so its repeat needs no approval."""
    begin, begun = world.ledger.begin, list[Change]()

    async def seen(change: Change, **permits: Any) -> StartResult:
        begun.append(change)
        return await begin(change, **permits)

    monkeypatch.setattr(world.ledger, "begin", seen)
    before = row(world, "customers", "Globex Exports")
    await world.expect(Done, DeleteCustomer(customer_id=before["id"]), world.form())
    assert [(change.target, change.repeat_id, change.unsettled_until, change.outcome) for change in begun] == [
        (before["id"], "", 0.0, BEGUN)
    ]
    kept = await newest(world)
    assert (kept.target, kept.name, kept.sent, kept.outcome) == (before["id"], "Globex Exports", {}, "done")
    assert kept.before is not None
    assert kept.before["name"] == "Globex Exports"


async def test_unjournalled_outcome_counts_as_unknown(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    call = CreateCustomer(name="Initech")
    with monkeypatch.context() as patched:
        patched.setattr(world.ledger, "settle", failing)
        await world.expect(Done, call)
    await world.expect(PendingApproval, call)
    await world.expect(Done, CreateCustomer(name="Umbrella"))
    assert len(world.changes) == 2


async def test_repeat_after_a_lost_response_needs_an_approval_for_ten_minutes(world: World) -> None:
    """Only of a call that could happen twice, and also if the ledger forgot it."""
    world.sandbox.faults.add(Reset(method="POST", moment=FaultMoment.AFTER))
    call = CreateCustomer(name="Initech")
    await world.expect(UnknownOutcome, call)

    async def forgotten(*_: object) -> dict[str, float]:
        return {}

    world.ledger.unsettled = forgotten  # type: ignore[method-assign, assignment]
    await world.expect(PendingApproval, call)
    world.clock.pass_(599)
    await world.expect(PendingApproval, call)
    assert (await world.judged(call))[0].rule == "outcome unknown"
    world.clock.pass_(1)
    await world.expect(Conflict, call)
    trigger = next(one for one in world.sandbox.state.all("triggers") if str(one["status"]).casefold() == "active")
    pause = UpdateTrigger(trigger_id=str(trigger["id"]), status="Disabled")
    world.sandbox.faults.add(Reset(method="PUT", moment=FaultMoment.AFTER))
    assert isinstance(await world.call(pause), Done | UnknownOutcome)
    await world.expect(Done, pause)


async def test_order_of_names_does_not_make_a_repeat_another_call(tmp_path: Any) -> None:
    world = World(tmp_path, Policy(rules=ALLOWING))
    world.sandbox.faults.add(Reset(method="POST", moment=FaultMoment.AFTER))
    call = world.run().model_copy(update={"input": {"order": {"id": 7, "note": "paid"}, "notify": True}})
    await world.expect(UnknownOutcome, call)
    again = call.model_copy(update={"input": {"notify": True, "order": {"note": "paid", "id": 7}}})
    await world.expect(PendingApproval, again)
    assert len(world.changes) == 1


@pytest.mark.parametrize("is_told", [True, False])
async def test_approval_of_a_repeat_holds_once_the_earlier_call_is_settled(world: World, is_told: bool) -> None:
    """People who were not told that the call may have been made have not approved a repeat."""
    call = world.run()
    if is_told:
        world.sandbox.faults.add(Reset(method="POST", moment=FaultMoment.AFTER))
        await world.expect(UnknownOutcome, call, world.form())
        world.clock.pass_(UNSETTLED - 60)
    await world.approve_outside(call)
    if is_told:
        world.clock.pass_(61)
        await world.expect(Done, call)
    else:

        async def may_be_made(*_: object) -> str:
            return "It may have been made."

        world.journalling.unsettled = may_be_made  # type: ignore[method-assign, assignment]
        await world.expect(TargetChanged, call)


async def test_repeat_of_a_done_call_names_its_time_and_result(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await world.expect(Done, CreateCustomer(name="Initech"))
    assert made.change is not None
    change = replace(made.change, unsettled_until=world.timestamp + 600)
    await world.ledger.settle(change)
    for target, shown in ((change.target, f'{change.id}, "{change.target}"'), (None, change.id)):

        async def kept(*_: object, target: str | None = target) -> Change:
            return replace(change, target=target)

        monkeypatch.setattr(world.ledger, "change", kept)
        world.clock.pass_(30)
        why = await world.journalling.unsettled(CreateCustomer(name="Initech"), change.repeat_id)
        seconds = round(world.timestamp - change.at)
        assert (
            why == f"The same call was made {seconds} seconds ago and was done ({shown}); you may not have received the"
            " response."
        )


async def test_call_is_begun_with_its_own_deadline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, begin = list[Change](), world.ledger.begin

    async def noted(change: Change, **permits: Any) -> StartResult:
        begun.append(change)
        return await begin(change, **permits)

    monkeypatch.setattr(world.ledger, "begin", noted)
    await world.expect(Done, AiChat(message="Hello"), world.form())
    assert [change.unsettled_until - change.at for change in begun] == [300 + 600]


async def test_repeat_after_a_crash_needs_an_approval_for_ten_minutes_after_the_deadline(tmp_path: Any) -> None:
    """Fastn's AI may take five minutes, and may still act when the process that asked is long gone."""
    world, call = World(tmp_path, Policy(rules=ALLOWING)), AiChat(message="Hello")
    digest = world.judge.call_id(call, Asker())
    await world.begin(allowed(call, digest))
    assert world.client.deadline(call) == 300
    later = World(tmp_path, Policy(rules=ALLOWING), clock=world.clock, tokens="u")
    later.clock.pass_(899)
    await later.expect(PendingApproval, call)
    assert later.changes == []
    later.clock.pass_(1)
    await later.expect(Done, call)


async def test_people_are_named_only_by_a_channel_that_identifies_them(world: World) -> None:
    assert not isinstance(await world.call(admin(world, "a@b.example")), Done)
    (id_,) = world.desk.shown
    opened = not_none(await world.ledger.find(id_))
    votes = (Vote("https://id.example|7", True, 0.0, "Dana <d@x>"), Vote("Zoe", False, 0.0), Vote("Eve", True, 0.0))
    votes = (*votes, Vote("https://id.example|kim", True, 0.0, "kim"))
    request = replace(opened, votes=votes)
    assert (
        Permission(BY_SEVERAL, request).detail
        == Permission(VERIFIED, request).detail
        == "Dana <d@x> (https://id.example|7)\nEve\nhttps://id.example|kim"
    )
    assert Permission("local_page", request).detail == Permission("policy").detail == ""


async def test_approver_is_journalled(world: World) -> None:
    assert await approved_by(world, CreateCustomer(name="Initech")) == "policy"
    assert await approved_by(world, admin(world, "a@b.example")) == "client_form"
    flow = str(world.sandbox.state.named("workflows", "process-new-orders")["id"])
    later = FormNow(lambda request: read_answer(request, "accept", {"decision": APPROVE_TEMPORARILY}), world.clock)
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
    assert (await newest(world)).approved_by == outcome.change.approved_by
    return outcome.change.approved_by
