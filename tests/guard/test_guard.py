"""Nothing that needs a consent leaves without one, and a consent is good for one call on one state."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from support.decisions import Killed
from support.world import FormLater, FormNow, World, failing

from fastn_mcp.audit.log import Unwritten
from fastn_mcp.errors import Declined, Refused
from fastn_mcp.guard.approval_form import Answer, Approve, Decline, NoAnswer, PendingApproval, form_text
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState
from fastn_mcp.ledger.ledger import MAX_WAITING
from fastn_mcp.policy.asker import Asker
from fastn_mcp.procedures.undo_change import ListChanges
from fastn_mcp.tools.access import CreateApiKey
from fastn_mcp.tools.customers import CreateCustomer, ListCustomers, UpdateCustomer


async def test_guarded_mode_sends_reads_and_writes_without_approval(world: World) -> None:
    """A read opens no ledger."""
    await world.expect(Done, ListCustomers())
    assert not (world.audit_path.parent / "ledger.sqlite3").exists()
    await world.expect(Done, CreateCustomer(name="Initech"))
    assert [heard.tool for heard in world.changes] == ["create_customer"]


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [(Decline(), 0.01), (NoAnswer("the form was closed without a choice"), 0.01), (NoAnswer("closed"), 30.0)],
    ids=["declined in 10 ms", "cancelled in 10 ms", "cancelled by nobody"],
)
async def test_unattended_form_falls_back_to_the_next_channel(world: World, answer: Answer, seconds: float) -> None:
    form = world.form(answer, seconds)
    waiting = await world.expect(PendingApproval, world.run(), form)
    assert "on the desk" in waiting.where
    await world.expect(PendingApproval, world.deletion(), form)
    assert len(form.asked) == (1 if seconds < 1 else 2)
    assert world.changes == []


async def test_unanswered_form_joins_an_open_request_of_the_same_call(world: World) -> None:
    call = world.run()

    class Meanwhile(FormNow):
        async def ask(self, request: ApprovalRequest) -> Answer:
            await world.call(call)
            return await super().ask(request)

    waiting = await world.expect(PendingApproval, call, Meanwhile(lambda _: NoAnswer("closed"), world.clock))
    assert waiting.where.startswith("No person answered: closed. ")
    assert len(await world.ledger.waiting(world.timestamp)) == 1
    (ended,) = await world.ledger.decided(10)
    assert (ended.state, ended.note) == (RequestState.UNANSWERED, "closed")


async def test_later_round_is_used_once(world: World) -> None:
    """MCP 2026-07-28 leaves single use to the server."""
    call = world.run()
    form = FormLater()
    asking = await world.asked_in_form(call, form)
    world.clock.pass_(5)
    answers: list[object] = []
    again = FormLater(submitted=(asking.id, Approve()))

    async def repeat() -> None:
        answers.append(await world.call(call, again))

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(repeat)
    assert sum(isinstance(answer, Done) for answer in answers) == 1
    assert len(world.changes) == 1
    assert await world.burnt() == 1


async def test_repeated_answer_creates_no_temporary_approval(world: World) -> None:
    call = world.run()
    asking = await world.first_round(call)
    again = FormLater(submitted=(asking.id, Approve(is_temporary=True)))
    await world.expect(Done, call, again)
    (scope,) = await world.temporary_approvals()
    assert await world.ledger.revoke_temporary(scope.id)
    assert not isinstance(await world.call(call, again), Done)
    declined = await world.first_round(call)
    await world.call(call, FormLater(submitted=(declined.id, Decline())))
    assert not isinstance(await world.call(call, FormLater(submitted=(declined.id, Approve(is_temporary=True)))), Done)
    late = await world.asked_in_form(call, FormLater())
    world.clock.pass_(601)
    assert not isinstance(await world.call(call, FormLater(submitted=(late.id, Approve(is_temporary=True)))), Done)
    assert await world.temporary_approvals() == []
    assert len(world.changes) == 1


@pytest.mark.parametrize("broken", ["find", "open", "decide", "begin", "latest", "declines", "stops"])
async def test_failing_ledger_refuses_the_call(world: World, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world.ledger, broken, failing)
    form: FormNow | FormLater = world.form()
    if broken == "find":
        form = FormLater(submitted=("ap_t1", Approve()))
    await world.expect(Refused, world.run(), form)
    assert world.changes == []


@pytest.mark.posix
async def test_unwritable_audit_log_stops_changes(tmp_path: Path) -> None:
    full = World(tmp_path)
    full.audit_path.symlink_to("/dev/full")
    for call in (CreateCustomer(name="Initech"), full.run()):
        refused = await full.expect(Unwritten, call, full.form())
        assert "Nothing was sent." in str(refused)
    assert full.changes == []
    await full.expect(Done, ListCustomers())


@pytest.mark.parametrize("error", [RuntimeError("x"), Killed()], ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(("is_sent", "outcome"), [(True, "unknown_outcome"), (False, "cancelled")])
async def test_interruption_is_recorded_as_unsent_or_unknown(
    world: World, monkeypatch: pytest.MonkeyPatch, error: BaseException, is_sent: bool, outcome: str
) -> None:
    anchors, anchor = iter([True, is_sent]), world.recorder.anchor

    async def interrupted(*_: object) -> None:
        raise error

    async def anchored() -> None:
        await (anchor() if next(anchors) else interrupted())

    monkeypatch.setattr(world.recorder, "anchor", anchored)
    monkeypatch.setattr(world.client, "send", interrupted)
    with pytest.raises(type(error)):
        await world.dispatch(CreateCustomer(name="Initech"), Caller(Asker(), None))
    last = json.loads(world.audit_path.read_text().splitlines()[-1])
    assert (last["outcome"], last["message"]) == (outcome, type(error).__name__ if is_sent else "")
    (change,) = await world.ledger.changes("test", 10, 1e12)
    assert change.outcome == outcome
    monkeypatch.undo()
    again = await world.call(CreateCustomer(name="Initech"))
    assert isinstance(again, PendingApproval if is_sent else Done)


async def _hanging(world: World, *calls: Any) -> None:
    """Make calls at once, and cancel all of them when the last one is being sent."""
    left, last = [*calls], anyio.Event()

    async def hang(_: Any) -> None:
        left.pop()
        if not left:
            last.set()
        await anyio.sleep_forever()

    with world.act_before_changes(hang):
        async with anyio.create_task_group() as tasks:
            for call in calls:
                tasks.start_soon(world.call, call)
            with anyio.fail_after(20):
                await last.wait()
            tasks.cancel_scope.cancel()


async def test_concurrent_identical_calls_need_no_approval(world: World) -> None:
    await _hanging(world, *[CreateCustomer(name="Initech")] * 2)
    assert [change.outcome for change in await world.ledger.changes("test", 10, 1e12)] == ["unknown_outcome"] * 2
    await world.expect(PendingApproval, CreateCustomer(name="Initech"))


async def test_call_begun_by_another_process_needs_an_approval(tmp_path: Path) -> None:
    """It may have been killed. An update is repeated without loss."""
    world, other = World(tmp_path), World(tmp_path, tokens="u")
    customer = (await world.rows(ListCustomers()))[0].id
    update = UpdateCustomer(customer_id=customer, plan="Growth")
    seen: list[object] = []

    async def ask(call: Any) -> None:
        seen.append(await other.call(call))

    with world.act_before_changes(ask):
        await world.expect(Done, CreateCustomer(name="Initech"))
        await world.expect(Done, update)
    first, second = seen
    assert isinstance(first, PendingApproval)
    assert isinstance(second, Done)


async def test_temporary_approval_does_not_cover_an_unknown_outcome(world: World) -> None:
    call = world.run()
    await world.expect(Done, call, world.form(Approve(is_temporary=True)))
    await world.expect(Done, call)
    await _hanging(world, call)
    form = world.form(Decline())
    await world.expect(Declined, call, form)
    assert "it may have happened" in form_text(form.asked[0])
    assert len(world.changes) == 2


@pytest.mark.parametrize("is_readable", [True, False])
async def test_deleting_a_customer_needs_typing_unless_it_certainly_has_no_dependents(
    world: World, is_readable: bool
) -> None:
    await world.call(CreateCustomer(name="Initech"))
    call, form = world.deletion("Initech"), world.form()
    if not is_readable:
        world.refuse("*/connections*")
    await world.expect(Done, call, form)
    assert form.asked[0].expected == (None if is_readable else "Initech")


@pytest.mark.posix
async def test_new_key_is_written_to_its_own_file(world: World) -> None:
    """Mode 0600; neither the result nor the audit log holds it."""
    done = await world.expect(Done, CreateApiKey(name="BI"), world.form())
    (file,) = (world.audit_path.parent / "keys").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    key = next(line.partition("=")[2] for line in file.read_text().splitlines() if "fsk_" in line)
    shown = done.result.model_dump_json()
    assert (key in shown, str(file) in shown, key in world.audit_path.read_text()) == (False, True, False)


async def test_repeats_of_one_approval_use_the_budget_once(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, "[budget]\nexternal = 2\n")
    call = world.run()
    asking = await world.first_round(call)
    for _ in range(20):
        await world.call(call, FormLater(submitted=(asking.id, Approve())))
    assert len(world.changes) == 1
    await world.expect(Done, call, world.form())
    await world.expect(Refused, call, world.form())
    assert len(world.changes) == 2


async def test_two_keys_of_one_account_name_share_nothing_in_a_ledger(tmp_path: Path) -> None:
    rules = "[budget]\nexternal = 2\n"
    one = World.with_rules(tmp_path, rules, tokens="one", bound="a" * 64)
    two = World.with_rules(tmp_path, rules, tokens="two", bound="b" * 64)
    call = one.run()
    await one.expect(Done, call, one.form(Approve(is_temporary=True)))
    await one.expect(Done, call)
    await one.expect(Refused, call)
    await two.expect(PendingApproval, call)
    delete = one.deletion()
    for _ in range(5):
        await one.expect(Declined, delete, one.form(Decline()))
    await one.expect(Refused, delete, one.form(Decline()))
    await two.expect(Declined, delete, two.form(Decline()))
    one.clock.pass_(601)
    two.clock.pass_(601)
    for number in range(MAX_WAITING):
        await one.expect(PendingApproval, CreateApiKey(name=f"key {number}"))
    await one.expect(Refused, CreateApiKey(name="one more"))
    await two.expect(PendingApproval, CreateApiKey(name="one more"))
    listed: Any = await two.call(ListChanges())
    assert listed.result.model_dump()["changes"] == []
    both: Any = await one.call(ListChanges())
    assert len(both.result.model_dump()["changes"]) == 2
