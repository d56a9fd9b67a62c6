"""Several changes by one question: none unapproved, none twice, none left out. Ours, unless a test says otherwise."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from support.behaviour import Behaviour, Paging
from support.decisions import Killed, allowed, moved
from support.faulty_sandbox import FaultMoment, Reset, Status
from support.values import not_none
from support.webhook_world import WebhookWorld
from support.world import FormLater, FormNow, World, batch_of, failing

from fastn_mcp.errors import (
    Conflict,
    FastnError,
    Incomplete,
    NotFound,
    NotSent,
    Refused,
    TargetChanged,
    UnknownOutcome,
)
from fastn_mcp.extensions.slack.blocks import message
from fastn_mcp.guard.approval_form import Approve, NoAnswer, PendingApproval, form_text
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import RequestState, Vote
from fastn_mcp.ledger.store import LedgerLost
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.policy import Policy
from fastn_mcp.procedures.apply_changes import MAX_CALLS, ApplyChanges
from fastn_mcp.procedures.catalog import TOOLS, parse
from fastn_mcp.server.rendering import BUDGET, render
from fastn_mcp.tools.access import CreateSecret
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, UpdateCustomer
from fastn_mcp.tools.workflows import RunWorkflow, UpdateWorkflow

NAMES = ("Globex Exports", "Katana", "Acme Corp")


def deletions(world: World, *names: str, **more: Any) -> ApplyChanges:
    """Of customers that have connections, so that each would have to be typed."""
    return batch_of(*(world.deletion(name) for name in names or NAMES), **more)


def creations(*names: str, **more: Any) -> ApplyChanges:
    """Which the policy allows by itself."""
    return batch_of(*(CreateCustomer(name=name) for name in names), **more)


def updates(world: World, **more: Any) -> ApplyChanges:
    """The same, of what can be done again."""
    return batch_of(*(plan_of(world, name) for name in NAMES[:2]), **more)


def plan_of(world: World, name: str) -> UpdateCustomer:
    return UpdateCustomer(customer_id=world.id_of("customers", name), plan="Free")


def there(world: World, names: str) -> list[str]:
    """The customers of these names of one letter, as often as they were made."""
    return [str(row["name"]) for row in world.sandbox.state.all("customers") if str(row["name"]) in names]


def rows(outcome: object) -> list[dict[str, Any]]:
    """What is told of each call."""
    told = outcome.result.model_dump() if isinstance(outcome, Done) else cast(FastnError, outcome).facts
    return cast("list[dict[str, Any]]", told["calls"])


def outcomes(outcome: object) -> list[str]:
    return [row["outcome"] for row in rows(outcome)]


def again(world: World, folder: Path) -> World:
    """A new process on the same state folder and the same account."""
    other = World(folder, world.policy, world.clock, tokens="again")
    other.sandbox.state = world.sandbox.state
    return other


async def killed(world: World, call: ApplyChanges, before: str = "") -> None:
    """Run a batch in a process that ends before the call whose progress begins with this text."""

    async def report(message: str, *_: object) -> None:
        if message.startswith(before):
            raise Killed

    with pytest.raises(Killed):
        await world.dispatch(call, Caller(Asker(), world.form()), report)


async def stopped(
    world: World, call: ApplyChanges, before: str, act: Callable[[], object], person: FormNow | None = None
) -> Incomplete:
    """Run a batch that stops because of something before the call whose progress begins with this text."""

    async def report(message: str, *_: object) -> None:
        if message.startswith(before):
            act()

    with pytest.raises(Incomplete) as caught:
        await world.dispatch(call, Caller(Asker(), person or world.form()), report)
    return caught.value


def upgrade_katana(world: World) -> None:
    row = world.sandbox.state.rows["customers"][str(world.deletion("Katana").target)]
    world.sandbox.state.put("customers", {**row, "plan": "Enterprise"})


WRONG: list[tuple[Any, str]] = [
    ([{"tool": "create_customer", "arguments": {"name": "A"}}, {"tool": "delete_custmer"}], "call 2: there is no tool"),
    ([{"tool": "delete_custmer"}], "(did you mean 'delete_customer'?)"),
    ([{"tool": "create_customer", "arguments": {}}], "call 1, create_customer: name: is required"),
    ([{"tool": "create_customer", "arguments": {"nme": "A"}}], "unknown argument 'nme' (did you mean 'name'?)"),
    ([{"tool": "create_customer", "arguments": {"name": "A", "dry_run": True}}], "unknown argument 'dry_run'"),
    ([{"tool": "create_customer", "arguments": "{"}], "call 1, create_customer: its arguments are not an object"),
    ([{"tool": "create_customer", "argument": {}}], "call 1: unknown 'argument' (did you mean 'arguments'?)"),
    ([{"arguments": {}}], "call 1: its tool is missing"),
    ([{"tool": "list_customers"}], "call 1, list_customers: changes nothing"),
    ([{"tool": "undo_change", "arguments": {"change_id": "c"}}], "call 1: there is no tool 'undo_change'"),
    ([{"tool": "apply_changes", "arguments": {"changes": []}}], "call 1: there is no tool 'apply_changes'"),
    ([{"tool": "create_api_key", "arguments": {"name": "a", "permissions": "x"}}], "its key is shown once"),
    ([{"tool": "ai_chat", "arguments": {"message": "a"}}], "its reply has to be read"),
    ([{"tool": "run_workflow", "arguments": {"workflow_id": "w", "wait_seconds": 3}}], "wait_seconds: a batch"),
    ([{"tool": "delete_customer", "arguments": {"customer_id": "a"}}] * 2, "call 2, delete_customer: is the same"),
    (
        [
            {"tool": "update_customer", "arguments": {"customer_id": "a", "name": "B"}},
            {"tool": "delete_customer", "arguments": {"customer_id": "a"}},
        ],
        "call 2, delete_customer: has the same target as call 1",
    ),
    ([], "changes: "),
    ([{"tool": "create_customer", "arguments": {"name": f"N{n}"}} for n in range(MAX_CALLS + 1)], "changes: "),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), WRONG, ids=[words for _, words in WRONG])
def test_invalid_call_refuses_the_batch_and_is_named(changes: Any, words: str) -> None:
    """The number of the call, the field and the reason, and never a value."""
    with pytest.raises(NotSent) as refused:
        parse(TOOLS, "apply_changes", {"changes": changes})
    assert words in refused.value.what


def test_disabled_tool_is_disabled_in_a_batch() -> None:
    offered = {"apply_changes": ApplyChanges, "create_customer": TOOLS["create_customer"]}
    changes = [
        {"tool": "create_customer", "arguments": {"name": "A"}},
        {"tool": "delete_customer", "arguments": {"customer_id": "a"}},
    ]
    with pytest.raises(NotSent, match=r"Call 2: delete_customer is disabled here"):
        parse(offered, "apply_changes", {"changes": changes})
    assert parse(offered, "apply_changes", {"changes": json.dumps(changes[:1])})


def test_runs_of_one_workflow_with_different_inputs_are_a_batch() -> None:
    assert len(batch_of(*(RunWorkflow(workflow_id="w", input={"n": n}) for n in range(3))).inner_calls) == 3


async def test_list_that_a_form_left_unanswered_is_approved_for_its_own_lifetime(world: World) -> None:
    await world.expect(PendingApproval, deletions(world), world.form(NoAnswer("it was closed"), seconds=590))
    request = await world.open_request()
    assert request.created == world.timestamp
    world.clock.pass_(590)
    approved = not_none(await world.ledger.decide(request, Vote("page", approves=True, at=world.timestamp), "page"))
    assert approved.expires == world.timestamp + 600


async def test_three_deletions_need_one_approval_and_run_in_order(world: World) -> None:
    call, person = deletions(world), world.form()
    outcome = await world.expect(Done, call, person)
    assert outcome.change is None
    assert outcomes(outcome) == ["done"] * 3
    (question,) = person.asked
    assert question.expected == "3 deletions"
    lines = form_text(question).split("\n")
    assert lines[0].startswith(
        "Make 3 changes. Calls 1, 2 and 3 cannot be fully undone. The calls are sent in this order."
    )
    assert all(line.startswith(f'{n}. Delete customer "') for n, line in enumerate(lines[1:4], 1))
    assert all(name in line for name, line in zip(NAMES, lines[1:4], strict=True))
    assert lines[-1] == 'Type "3 deletions" to approve these 3 calls.'
    targets = [part.target for part in call.inner_calls]
    assert [heard.path.rpartition("/")[2] for heard in world.changes] == targets
    decided = await world.ledger.decided(10)
    assert [(grant.tool, grant.state, grant.used) for grant in decided] == [
        ("apply_changes", RequestState.USED, world.judge.list_ids(call, Asker())[1])
    ]
    assert all(row["change_id"] for row in rows(outcome))


@pytest.mark.parametrize(
    ("rules", "asks"),
    [
        ("", "typed"),
        ('[[rule]]\ntool = "create_customer"\nthen = "out_of_band"\n', "out_of_band"),
        ('[defaults]\ndestroy = "confirm"\n', "confirm"),
    ],
)
async def test_batch_needs_the_strictest_decision_of_its_calls(tmp_path: Path, rules: str, asks: str) -> None:
    world = World.with_rules(tmp_path, rules)
    calls = CreateCustomer(name="Initech"), plan_of(world, "Acme Corp"), world.deletion("Katana")
    await world.call(batch_of(*calls), FormLater())
    requests = [grant for n in range(1, 6) if (grant := await world.ledger.find(f"ap_t{n}")) is not None]
    assert [(grant.tool, grant.required) for grant in requests] == [("apply_changes", asks)]
    assert requests[0].expected == (None if asks == "confirm" else "Katana")
    assert world.changes == []


async def test_missing_target_refuses_the_batch(world: World) -> None:
    missing = DeleteCustomer(customer_id="00000000-0000-4000-8000-000000000000")
    outcome = await world.expect(NotFound, batch_of(CreateCustomer(name="Initech"), missing), world.form())
    assert outcome.what.startswith("Call 2, delete_customer: ")
    assert world.changes == []


async def test_dry_run_lists_all_calls_and_sends_nothing(world: World) -> None:
    call = deletions(world)
    previewed = await world.preview(call)
    assert [(row["number"], row["target"]["id"]) for row in previewed.data_for_agent()["calls"]] == [
        (number, part.target) for number, part in enumerate(call.inner_calls, 1)
    ]
    person = world.form(lambda _: NoAnswer("away"))
    await world.call(call, person)
    assert form_text(person.asked[0]).startswith("\n".join(previewed.lines()))
    assert world.changes == []


async def test_dry_run_names_the_call_that_would_be_refused(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, '[[protect]]\ncustomer = "Katana"\nreason = "pays most"\n')
    shown = (await world.preview(deletions(world))).data_for_agent()
    assert [("refused" in row) for row in shown["calls"]] == [False, True, False]


async def test_secret_in_a_batch_is_redacted_everywhere(world: World, tmp_path: Path) -> None:
    call = batch_of(*(CreateSecret(name=name, value="hunter2") for name in "AB"))
    person = world.form()
    previewed = await world.preview(call)
    outcome = await world.call(call, person)
    assert outcomes(outcome) == ["done", "done"]
    world.close()
    kept = _kept(tmp_path)
    told = [
        form_text(person.asked[0]),
        str(previewed.data_for_agent()),
        kept,
        repr(call),
        str(call.shown()),
        str(rows(outcome)),
    ]
    assert not any("hunter2" in text for text in told)
    with pytest.raises(NotSent) as refused:
        batch_of(CreateSecret.model_construct(name="A", value="hunter2", value_from_env="hunter2"))
    assert "hunter2" not in str(refused.value)


def _kept(folder: Path) -> str:
    return "".join(path.read_bytes().decode(errors="ignore") for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("budget", ["[budget]", "[budget.run]"])
async def test_batch_over_a_budget_is_refused_before_its_first_call(tmp_path: Path, budget: str) -> None:
    world = World.with_rules(tmp_path, f"{budget}\nwrite = 2\n")
    outcome = await world.expect(Refused, creations("A", "B", "C"))
    assert outcome.what.startswith("Call 3, create_customer: ")
    assert "The list needs more than the 2 of 2 write calls left" in outcome.what
    assert world.changes == []
    assert outcomes(await world.call(creations("A", "B"))) == ["done", "done"]
    await world.expect(Refused, creations("C"))


async def test_batch_calls_that_a_person_approved_count_in_the_budget(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, "[budget]\ndestroy = 2\n")
    assert outcomes(await world.call(deletions(world, *NAMES[:2]), world.form())) == ["done", "done"]
    person = world.form()
    await world.expect(Refused, deletions(world, NAMES[2]), person)
    assert (person.asked, len(world.changes)) == ([], 2)


@pytest.mark.parametrize(
    "second",
    [
        {"name": "Northwind", "plan": "Free"},
        {"name": "Other", "slug": "northwind"},
        {"name": "Other", "external_ref": "crm-1"},
    ],
)
async def test_create_is_compared_with_what_its_list_has_just_created(tmp_path: Path, second: dict[str, str]) -> None:
    """It would be an update then, which this policy refuses."""
    world = World.with_rules(tmp_path, '[[rule]]\ntool = "update_customer"\nthen = "deny"\n')
    first = {"name": "Northwind", "external_ref": "crm-1"}
    calls = [CreateCustomer.model_validate(each) for each in (first, {"name": "Wide"}, second)]
    outcome = await world.expect(Incomplete, batch_of(*calls))
    assert outcomes(outcome) == ["done", "done", "refused"]


async def test_list_stops_at_the_first_failure(world: World) -> None:
    world.sandbox.faults.add(Status(method="DELETE", path=f"*/{world.deletion('Katana').target}", status=409))
    outcome = await world.expect(Incomplete, deletions(world), world.form())
    assert outcomes(outcome) == ["done", Conflict.outcome, "left"]
    assert "1 of 3 calls succeeded. Call 2, delete_customer" in outcome.what
    assert outcome.what.endswith("1 was not attempted.")
    assert len(world.changes) == 2
    (row,) = [row for row in cast(Any, outcome.facts["calls"]) if "fastn" in row]
    assert row["fastn"]["status"] == 409
    assert "leave the completed calls out" in outcome.next_step


async def test_target_that_changed_before_its_call_is_not_touched(world: World) -> None:
    call = deletions(world)
    error = await stopped(world, call, "2 of 3: delete_customer", lambda: upgrade_katana(world))
    assert outcomes(error) == ["done", TargetChanged.outcome, "left"]
    assert len(world.changes) == 1
    person = world.form()
    assert outcomes(await world.call(call, person)) == ["done"] * 3
    assert person.asked[0].expected == "2 deletions"


async def test_approval_of_the_rest_of_a_list_is_used_at_the_same_instant(world: World) -> None:
    """The clock stands still: both approvals of the list were asked for at one time."""
    call = deletions(world)
    await world.approve_outside(call)
    error = await stopped(world, call, "2 of 3: delete_customer", lambda: upgrade_katana(world))
    assert outcomes(error) == ["done", TargetChanged.outcome, "left"]
    await world.approve_outside(call)
    assert outcomes(await world.call(call)) == ["done"] * 3


async def test_call_that_now_needs_an_approval_is_not_sent(world: World) -> None:
    flow = next(str(row["id"]) for row in world.sandbox.state.all("workflows") if row["status"] == "draft")
    call = batch_of(CreateCustomer(name="A"), UpdateWorkflow(workflow_id=flow, description="x"))
    row, person = world.sandbox.state.rows["workflows"][flow], world.form()
    publish = partial(world.sandbox.state.put, "workflows", {**row, "status": "live"})
    assert outcomes(await stopped(world, call, "", publish, person)) == ["done", TargetChanged.outcome]
    assert person.asked == []
    assert len(world.changes) == 1


def add_customer(world: World, name: str, created: str, status: str = "Active") -> None:
    row = {**world.sandbox.state.all("customers")[0], "externalRef": None, "status": status, "createdAt": created}
    world.sandbox.state.put("customers", row | {"id": f"id-{name}", "name": name, "slug": name.casefold()})


def add_older_customers(world: World, count: int) -> None:
    """Add customers, so that their list has several pages."""
    for number in range(count):
        add_customer(world, f"Older{number}", "2025-01-01T00:00:00.000Z")


async def test_creates_of_a_list_read_again_what_the_others_added(world: World) -> None:
    """Each looks for what it may overwrite in the whole list; after the first one, on its first page."""
    add_older_customers(world, 250)
    world.sandbox.requests.clear()
    assert outcomes(await world.call(creations("Hooli", "Initech", "Initrode"))) == ["done"] * 3
    assert [request.tool for request in world.sandbox.requests] == [
        *("list_customers",) * 3, "create_customer", *("list_customers", "create_customer") * 2
    ]  # fmt: skip


@pytest.mark.parametrize("removed", [(), ("id-Older7",)])
async def test_create_sees_what_was_made_elsewhere_during_its_list(world: World, removed: Sequence[str]) -> None:
    add_older_customers(world, 250)

    def elsewhere() -> None:
        add_customer(world, "Initech", "2026-11-25T09:00:01.000Z")
        for id_ in removed:
            del world.sandbox.state.rows["customers"][id_]

    error = await stopped(world, creations("Hooli", "Initech"), "2 of 2", elsewhere)
    assert outcomes(error) == ["done", TargetChanged.outcome]


@pytest.mark.parametrize(
    ("behaviour", "count"),
    [(Behaviour(paging=Paging.CURSOR), 11), (Behaviour(fields={"createdAt": "made"}), 6)],
    ids=["no totals", "no times"],
)
async def test_creates_of_a_list_read_it_whole_where_the_first_page_does_not_tell(
    world: World, behaviour: Behaviour, count: int
) -> None:
    """Without a total, filters are tried first."""
    add_older_customers(world, 250)
    world.sandbox.behaviour = behaviour
    world.sandbox.requests.clear()
    await world.call(creations("Hooli", "Initech"))
    assert [request.tool for request in world.sandbox.requests].count("list_customers") == count


async def test_approval_that_expires_during_the_batch_sends_nothing_more(world: World) -> None:
    call, expire = deletions(world), partial(world.clock.pass_, Policy().approval_lifetime + 1)
    assert outcomes(await stopped(world, call, "3 of 3", expire)) == ["done", "done", Refused.outcome]
    assert len(world.changes) == 2
    person = world.form()
    assert outcomes(await world.call(call, person)) == ["done"] * 3
    assert person.asked[0].expected == NAMES[2]


async def test_lost_response_is_named_and_its_call_not_repeated(world: World) -> None:
    world.sandbox.faults.add(Reset(method="POST", moment=FaultMoment.AFTER))
    call = creations("A", "B", "C")
    outcome = await world.expect(UnknownOutcome, call)
    assert outcomes(outcome) == ["unknown_outcome", "left", "left"]
    assert rows(outcome)[0]["settle"]["tool"] == "list_customers"
    outcome = await world.expect(UnknownOutcome, call)
    assert outcomes(outcome) == ["unknown_outcome", "done", "done"]
    assert rows(outcome)[0]["settle"]["tool"] == "list_customers"
    outcome = await world.call(call)
    assert outcomes(outcome) == ["unknown_outcome", "done", "done"]
    assert there(world, "ABC") == ["A", "B", "C"]


@pytest.mark.parametrize("at", [1, 2, 3])
async def test_interrupted_batch_resumes_with_its_approval(world: World, tmp_path: Path, at: int) -> None:
    call = deletions(world)
    await killed(world, call, f"{at} of")
    assert len(world.changes) == at - 1
    other = again(world, tmp_path)
    person = other.form()
    assert outcomes(await other.call(call, person)) == ["done"] * 3
    assert person.asked == []
    made = [heard.path.rpartition("/")[2] for heard in (*world.changes, *other.changes)]
    assert made == [part.target for part in call.inner_calls]


async def test_call_begun_by_an_ended_process_has_an_unknown_outcome(world: World) -> None:
    call = creations("A", "B")
    list_id, call_ids = world.judge.list_ids(call, Asker())
    await world.begin(allowed(call.inner_calls[0], call_ids[0]), list_id=list_id)
    outcome = await world.expect(UnknownOutcome, call)
    assert outcomes(outcome) == ["unknown_outcome", "done"]
    assert "no answer was recorded" in rows(outcome)[0]["message"]
    assert len(world.changes) == 1


async def test_finished_batch_is_reported_and_not_repeated(world: World) -> None:
    call = updates(world)
    first = await world.call(call)
    second = await world.expect(Done, call)
    assert "nothing was sent now" in second.result.model_dump()["note"]
    assert [row["change_id"] for row in rows(second)] == [row["change_id"] for row in rows(first)]
    assert len(world.changes) == 2
    assert outcomes(await world.call(updates(world, batch="once more"))) == ["done", "done"]
    assert len(world.changes) == 4


async def test_batch_belongs_to_one_caller(world: World) -> None:
    for principal in ("ana", "ben", "ana"):
        await world.dispatch(updates(world), Caller(Asker(principal), None))
    assert len(world.changes) == 4


async def test_concurrent_copies_of_a_batch_send_each_call_once(world: World) -> None:
    call = creations(*"ABCDEF")
    async with anyio.create_task_group() as group:
        for _ in range(5):
            group.start_soon(world.call, call)
    made = there(world, "ABCDEF")
    assert sorted(made) == sorted(set(made))
    for _ in range(6):
        if len(world.changes) < 6:
            assert isinstance(await world.call(call), (Done, Incomplete))
    assert outcomes(await world.call(call)) == ["done"] * 6


async def test_batch_approval_does_not_cover_a_single_call(world: World) -> None:
    call = deletions(world)
    await killed(world, call)
    await world.expect(PendingApproval, call.inner_calls[0])
    assert world.changes == []


async def test_each_call_of_a_batch_can_be_undone(world: World) -> None:
    person = world.form()
    outcome = await world.call(creations("A", "B"), person)
    assert person.asked == [], "the policy allows them"
    assert all(row["made"] for row in rows(outcome))
    undo = parse(TOOLS, "undo_change", {"change_id": rows(outcome)[0]["change_id"]}).call
    await world.expect(Done, undo, world.form())
    assert there(world, "AB") == ["B"]


async def test_later_round_form_approves_the_batch(world: World) -> None:
    """The MCP specification of 2026-07-28: the call ends with the question and comes again with the answer."""
    call = deletions(world)
    asked = await world.first_round(call)
    other = FormLater(submitted=(asked.id, Approve("3 deletions")))
    await world.expect(Refused, deletions(world, "Katana", "Acme Corp"), other)
    assert world.changes == []
    outcome = await world.call(call, FormLater(submitted=(asked.id, Approve(asked.expected))))
    assert outcomes(outcome) == ["done"] * 3


async def test_approver_needs_every_effect_of_the_batch(tmp_path: Path) -> None:
    approvers = (
        '[dana]\npublic_key = "DANA"\neffects = ["destroy"]\n[kim]\npublic_key = "KIM"\neffects = ["destroy", "write"]'
    )
    far = WebhookWorld(tmp_path, "", approvers)
    call = batch_of(CreateCustomer(name="A"), far.deletion("Katana"))
    await far.expect(PendingApproval, call)
    question = far.receiver.questions[-1]
    assert (await far.answer(far.dana, question)).status == 403
    assert (await far.answer(far.kim, question)).status == 200
    assert outcomes(await far.call(call)) == ["done", "done"]


async def test_batch_of_fifty_fits_a_slack_message_and_a_result(world: World) -> None:
    call = batch_of(*(CreateSecret(name=f"SECRET_{n:02}", value="hunter2") for n in range(MAX_CALLS)))
    await world.expect(PendingApproval, call)
    grant = await world.open_request()
    blocks = cast("list[Any]", message(grant, (), world.timestamp, "")["blocks"])
    text = "\n".join(block["text"]["text"] for block in blocks[:-1])
    assert all(f'{n + 1}. Store secret "SECRET_{n:02}"' in text for n in range(MAX_CALLS))
    await moved(world.ledger, grant.id, [RequestState.OPEN], RequestState.APPROVED, world.timestamp, by="local_page")
    outcome = await world.expect(Done, call)
    answer = render(call, outcome.result, {"profile": "default", "host": "live.fastn.ai"})
    assert len(json.dumps(answer)) <= BUDGET * 1.1
    assert len(cast("dict[str, Any]", answer["data"])["calls"]) == MAX_CALLS


async def test_failing_ledger_sends_nothing(world: World) -> None:
    for name in ("changes_of", "begin"):
        setattr(world.ledger, name, failing)
        outcome = await world.call(deletions(world), world.form())
        assert isinstance(outcome, (Refused, Incomplete))
        delattr(world.ledger, name)
    assert world.changes == []


async def test_lost_ledger_is_named_with_the_number_of_its_call(world: World) -> None:
    async def lost(*_: object) -> tuple[int, float]:
        raise LedgerLost("ConnectionError")

    world.ledger.declines = lost  # type: ignore[method-assign]
    outcome = await world.expect(LedgerLost, deletions(world), world.form())
    assert str(outcome).startswith("Call 1, delete_customer: The shared ledger cannot be used (ConnectionError).")
    assert world.changes == []


async def test_reader_of_procedures_cannot_send_a_change(world: World) -> None:
    with pytest.raises(Refused, match="create_customer is not a reading tool"):
        await world.guard.read(CreateCustomer(name="A"), Caller(Asker(), None))
    assert world.changes == []


async def test_first_call_of_a_list_that_takes_long_to_evaluate_is_evaluated_again(world: World) -> None:
    """Here a pending customer becomes active while the target of the second call is read."""
    first, second = (world.sandbox.state.named("customers", slug) for slug in ("acme-customer", "globex-exports"))
    changes = batch_of(
        UpdateCustomer(customer_id=first["id"], name="New"), UpdateCustomer(customer_id=second["id"], plan="Free")
    )
    send: Any = world.client.send

    async def slow(call: Any, *more: Any) -> Any:
        if call.target == second["id"]:
            world.clock.pass_(6)
            first["status"] = "Active"
        return await send(call, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.client, "send", slow)
        patch.setattr(world.judge, "_read", slow)
        stopped = await world.expect(Incomplete, changes)
    assert "now needs an approval" in stopped.what
    assert world.changes == []
