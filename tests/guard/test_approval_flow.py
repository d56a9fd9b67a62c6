"""What an approval needs, what it covers, what it costs, and what is recorded of it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support import stores
from support.audit_entries import entries
from support.policy_files import CONFIRMING
from support.values import not_none
from support.world import FormLater, FormNow, World, batch_of, plan_of, planned, yes

from fastn_mcp.account.resolve import by_arguments
from fastn_mcp.errors import Declined, FastnError, Incomplete, Refused, TargetChanged
from fastn_mcp.guard.approval.votes import TerminalApprovals
from fastn_mcp.guard.approval_form import Answer, Approve, Decline, PendingApproval, extent, form_text, typed_noun
from fastn_mcp.guard.caller import DESTROY, WRITE, Caller, InsufficientScope
from fastn_mcp.guard.evaluation import Evaluation
from fastn_mcp.guard.permission import covers
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, ShownCall
from fastn_mcp.ledger.ledger import Ledger
from fastn_mcp.ledger.sqlite_store import SqliteStore
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import Decision, PolicyDecision
from fastn_mcp.policy.policy import Policy
from fastn_mcp.tools.access import CreateRole, ListApiKeys, RevokeApiKey
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, UpdateCustomer
from fastn_mcp.tools.tool import Effect
from fastn_mcp.tools.triggers import CreateTrigger
from fastn_mcp.tools.workflows import RunWorkflow


def temporary_approval(question: ApprovalRequest) -> Approve:
    return Approve(question.expected, is_temporary=True)


OUTSIDE = {
    "out_of_band": "The policy requires approval outside the client. A person has to approve on the desk.",
    "four_eyes": "The policy requires two people to approve it. A person has to approve on the desk. "
    "2 people other than the requester have to approve this call. Approvals so far: 0.",
}


@pytest.mark.parametrize("then", OUTSIDE)
async def test_refusal_says_why_the_policy_uses_no_form(tmp_path: Path, then: str) -> None:
    world = World.with_rules(tmp_path, f'[[rule]]\ntool = "delete_customer"\nthen = "{then}"\n')
    world.desk.identifies_people = True
    answered = world.form()
    waits = await world.expect(PendingApproval, world.deletion(), answered)
    assert (waits.where, answered.asked) == (OUTSIDE[then], [])


async def test_refusal_says_why_a_form_is_not_used(world: World) -> None:
    """The call is too long for it, or a program answers it."""
    wide = CreateRole(name="R", permissions=[f"orders:{n}:write" for n in range(400)])
    long = await world.expect(PendingApproval, wide, world.form())
    assert (
        long.where
        == "Its arguments must be shown in full and are too long for a form. A person has to approve on the desk."
    )
    await world.call(world.run(), world.form(seconds=0.5))
    left = await world.expect(PendingApproval, world.deletion(), world.form())
    assert left.where == (
        "This client's form was recently answered faster than a person can read, so it is not used for now. "
        "A person has to approve on the desk."
    )


@pytest.mark.parametrize(
    ("seconds", "seen", "counts"), [(0.99, False, False), (1.0, False, True), (0.01, True, True), (0.99, True, True)]
)
async def test_instant_yes_counts_only_if_it_is_typed(world: World, seconds: float, seen: bool, counts: bool) -> None:
    answered = world.form(seconds=seconds)
    answered.is_terminal = seen
    outcome = await world.call(world.run(), answered)
    assert isinstance(outcome, Done if counts else PendingApproval)
    assert len(world.changes) == int(counts)


async def test_form_that_closes_by_itself_is_not_used_for_15_minutes(world: World) -> None:
    call, quick, slow = world.run(), world.form(seconds=0.5), world.form(Decline())
    await world.call(call, quick)
    other = await world.dispatch(world.deletion(), Caller(Asker("another"), world.form()))
    assert isinstance(other, Done)
    world.clock.pass_(894)  # another's form took five seconds
    await world.expect(PendingApproval, world.deletion("Katana"), slow)
    assert slow.asked == []
    world.clock.pass_(2)
    await world.expect(Declined, world.deletion("Acme Corp"), slow)


@pytest.mark.parametrize(
    ("rules", "destroys", "expected"),
    [
        ("", True, "Globex Exports"),
        ("", False, None),
        ('[defaults]\ndestroy = "out_of_band"', True, "Globex Exports"),
        ('[defaults]\ndestroy = "four_eyes"', True, "Globex Exports"),
        ('[defaults]\ndestroy = "confirm"', True, None),
        ('[defaults]\nexternal = "out_of_band"', False, None),
        ('[defaults]\nexternal = "four_eyes"', False, None),
        ('[defaults]\nexternal = "typed"', False, "process-new-orders"),
    ],
)
async def test_typed_name_is_required_by_the_policy_and_for_out_of_band_deletions(
    tmp_path: Path, rules: str, destroys: bool, expected: str | None
) -> None:
    world = World.with_rules(tmp_path, rules)
    world.desk.identifies_people = True
    call = world.deletion() if destroys else world.run()
    await world.expect(PendingApproval, call)
    grant = await world.open_request()
    assert grant.expected == expected
    at = world.timestamp
    assert (grant.principal, grant.account, grant.tool, grant.target) == (
        "local",
        "test",
        call.tool_name(),
        call.target,
    )
    assert (grant.out_of_band, grant.created, grant.expires) == (True, at, at + 600)
    assert grant.question.title.startswith(f"{call.title()} ")
    assert grant.question.tool == call.tool_name()


async def test_wrong_name_declines_for_good(world: World) -> None:
    call = world.deletion()
    refused = await world.expect(Declined, call, world.form(Approve("Globex")))
    assert refused.what == 'The typed text was not "Globex Exports". That counts as declined.'
    assert refused.next_step == "If the person wants it after all, call again for a new approval request."
    (grant,) = await world.ledger.decided(9)
    assert (grant.state, grant.by, grant.note) == (RequestState.DECLINED, "client_form", "another text was typed")
    assert await world.ledger.declines("local") == (1, world.timestamp)


OFFERED: dict[str, tuple[Callable[[World], Any], bool]] = {
    "run": (World.run, True),
    "delete": (lambda world: world.deletion("Initech"), False),
    "administrator": (
        lambda world: UpdateCustomer(customer_id=world.id_of("customers", "Katana"), admin_email="a@example.com"),
        False,
    ),
    "create": (
        lambda world: CreateTrigger(name="n", type="webhook", routes=[{"routeId": world.run().workflow_id}]),
        False,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", OFFERED)
async def test_temporary_approval_is_offered_only_for_one_target_and_an_undoable_call(world: World, what: str) -> None:
    """Never for a deletion or for access."""
    make, offered = OFFERED[what]
    await world.expect(Done, CreateCustomer(name="Initech"))
    call: Any = make(world)
    answered = world.form(temporary_approval)
    await world.expect(Done, call, answered)
    assert (answered.asked[0].can_be_temporary, typed_noun(answered.asked[0])) == (offered, "name")
    assert ("further runs of this workflow with" in form_text(answered.asked[0])) is offered
    assert len(await world.temporary_approvals()) == int(offered)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "without arguments"),
        ({"environment": "test"}, "with the same environment"),
        ({"input": {"n": 1}}, "with any input and nothing else"),
        (
            {"environment": "test", "input": {}, "customer_id": "c"},
            "with the same customer and environment and any input",
        ),
    ],
)
def test_temporary_approval_says_what_stays_the_same_and_what_may_differ(given: dict[str, Any], words: str) -> None:
    assert extent(RunWorkflow.model_validate({"workflow_id": "w", **given})) == f"runs of this workflow {words}"


async def test_decline_holds_despite_a_temporary_approval_of_the_same_target(world: World) -> None:
    """Two requests about one workflow are open; after a yes for 15 minutes to one, the other is declined."""
    workflow = world.run().workflow_id
    declined, other = (RunWorkflow.model_validate({"workflow_id": workflow, "input": {"n": n}}) for n in (1, 2))
    asking = await world.asked_in_form(declined, FormLater())
    await world.expect(Done, other, world.form(Approve(is_temporary=True)))
    await world.expect(Declined, declined, FormLater(submitted=(asking.id, Decline())))
    assert len(world.changes) == 1
    await world.expect(Done, declined, FormLater())


async def test_call_denied_by_a_policy_change_during_the_form_is_not_sent(world: World) -> None:
    row = (await world.rows(ListApiKeys()))[0]

    def answer(question: ApprovalRequest) -> Approve:
        world.own = lambda record: getattr(record, "id", None) == row.id
        return Approve(question.expected)

    refused = await world.expect(Refused, RevokeApiKey(api_key_id=str(row.id)), world.form(answer))
    assert refused.facts["rule"] == "own key"
    assert world.changes == []


class Busy(FormNow):
    """A form whose person declines five other calls before they answer it."""

    def __init__(self, world: World) -> None:
        super().__init__(yes, world.clock)
        self._world = world
        self._declining = world.form(Decline())

    async def ask(self, request: ApprovalRequest) -> Answer:
        for n in range(5):
            other = CreateTrigger(name=f"n{n}", type="webhook", routes=[{"routeId": self._world.run().workflow_id}])
            await self._world.expect(Declined, other, self._declining)
        return await super().ask(request)


@pytest.mark.parametrize("tool", ["run_workflow", "apply_changes"])
async def test_declines_during_the_form_trip_the_breaker(world: World, tool: str) -> None:
    """Checked again between the approval and the request, in a batch as well."""
    call: Any = world.run()
    outcome = await world.expect(Refused, batch_of(call) if tool == "apply_changes" else call, Busy(world))
    assert outcome.facts["rule"] == "breaker"
    assert world.changes == []


async def test_breaker_ends_at_the_time_that_it_names(world: World) -> None:
    call = world.run()
    for _ in range(5):
        await world.expect(Declined, call, world.form(Decline()))
    await world.expect(Refused, CreateCustomer(name="Initech"))
    await world.expect(Done, ListApiKeys())
    world.clock.pass_(599.5)
    assert "until 09:10:25 UTC." in str(await world.call(call, world.form()))
    world.clock.pass_(0.5)
    await world.expect(Done, call, world.form())


@pytest.mark.parametrize("differs", ["principal", "tenant", "key", "policy", "tool", "arguments", "nothing"])
async def test_approval_is_bound_to_caller_key_policy_tool_and_arguments(tmp_path: Path, differs: str) -> None:
    world = World(tmp_path, bound="key 1")
    call = world.run()
    await world.approve_outside(call)
    policy = Policy(rules=CONFIRMING) if differs == "policy" else Policy()
    bound = "key 2" if differs == "key" else "key 1"
    other = World(tmp_path, policy, world.clock, "u", bound=bound)
    asker = Asker("another" if differs == "principal" else "local", tenant="globex" if differs == "tenant" else "")
    if differs == "arguments":
        call = call.model_copy(update={"environment": "live"})
    made: Any = other.deletion() if differs == "tool" else call
    try:
        outcome: object = await other.dispatch(made, Caller(asker, None))
    except FastnError as error:
        outcome = error
    assert isinstance(outcome, {"policy": TargetChanged, "nothing": Done}.get(differs, PendingApproval))
    assert len(other.changes) == int(differs == "nothing")


@pytest.mark.parametrize(
    ("now", "shown", "holds"),
    [
        ({}, {}, True),
        ({"connections": 1}, {"connections": 1}, True),
        ({"connections": 1}, {"connections": 2}, True),
        ({}, {"connections": 2}, True),
        ({"connections": 3}, {"connections": 2}, False),
        ({"connections": 1}, {}, False),
        ({"connections": 1}, {"connections": 0}, False),
        ({"connections": 0}, {}, True),
        ({"connections": None}, {"connections": 2}, False),
        ({"connections": None}, {}, False),
        ({"connections": None}, {"connections": None}, True),
        ({"connections": 9}, {"connections": None}, True),
        ({"connections": 1, "triggers": 2}, {"connections": 2, "triggers": 1}, False),
        ({"executions": 900}, {"executions": 1}, True),
        ({"executions": 1}, {"executions": 0}, False),
        ({"executions": 1}, {}, False),
        ({"executions": None}, {"executions": 1}, False),
    ],
)
def test_approval_covers_no_more_dependents_of_a_kind_than_were_shown(
    now: dict[str, float | None], shown: dict[str, float | None], holds: bool
) -> None:
    """Unchecked dependents may be any number; past runs may grow."""
    approval = replace(stores.grant(), calls={"call 1": ShownCall("binding", shown)})
    assert covers(approval, [evaluated(now)]) is holds
    assert not covers(approval, [evaluated(now, "another")])
    assert not covers(approval, [replace(evaluated(now), id="call 2")])
    assert not covers(replace(approval, used=("call 1",)), [evaluated(now)])


def evaluated(
    dependents: Mapping[str, float | None], binding: str = "binding", wanted: Decision = Decision.TYPED
) -> Evaluation:
    """A call by what an approval of it is compared with."""
    dependence: Any = SimpleNamespace(counts=lambda: dependents)
    call = DeleteCustomer(customer_id="cus_1")
    resolved = replace(by_arguments(call), dependence=dependence)
    return Evaluation(
        tool=call,
        id="call 1",
        effect=call.effective,
        verdict=PolicyDecision(wanted, "rule"),
        resolved_call=resolved,
        binding=binding,
    )


def test_approval_is_void_if_the_policy_became_stricter() -> None:
    for asked, wanted in product(Decision, Decision):
        approval = replace(stores.grant(), required=asked.value, calls={"call 1": ShownCall("binding", {})})
        assert covers(approval, [evaluated({}, wanted=wanted)]) is (asked.rank >= wanted.rank), (asked, wanted)


@pytest.mark.parametrize("decision", Decision)
async def test_call_without_facts_is_sent_only_if_the_policy_allows_it(tmp_path: Path, decision: Decision) -> None:
    world = World.with_rules(tmp_path, f'[[rule]]\ntool = "create_customer"\nthen = "{decision.value}"\n')
    world.desk.identifies_people = True
    call = CreateCustomer(name="Initech")
    outcome = await world.call(call)
    assert isinstance(outcome, {Decision.ALLOW: Done, Decision.DENY: Refused}.get(decision, PendingApproval))
    assert len(world.changes) == int(decision is Decision.ALLOW)


async def test_intent_records_approver_rule_and_target(world: World) -> None:
    page = (await world.approve_outside(world.run())).id
    await world.call(world.run())
    await world.call(world.deletion(), world.form())
    await world.call(world.run(), world.form(Approve(is_temporary=True)))
    await world.call(world.run())
    await world.call(CreateCustomer(name="Initech"))
    (scope,) = await world.temporary_approvals()
    assert scope.permit_until - (scope.decided or 0) == 900
    grants = [grant.id for grant in await world.ledger.decided(9)]
    lines = world.audited("intent")
    intents = [tuple(line.get(key) for key in ("approved_by", "grant", "decision", "effect", "name")) for line in lines]
    flow, rule = "process-new-orders", "mode guarded: "
    assert intents == [
        ("local_page", page, "confirm", "external", flow),
        ("client_form", grants[1], "typed", "destroy", "Globex Exports"),
        ("client_form", grants[0], "confirm", "external", flow),
        ("temporary_approval", f"{scope.id}.temporary", "allow", "external", flow),
        ("policy", None, "allow", "write", "Initech"),
    ]
    rules = [f"{rule}{effect}" for _, _, _, effect, _ in intents]
    rules[3] = "temporary approval"
    assert [line["rule"] for line in lines] == rules


async def test_later_round_answers_only_the_form_that_was_asked(world: World) -> None:
    call = world.run()
    await world.expect(PendingApproval, call)
    desk = await world.open_request()
    asking = await world.first_round(world.deletion())
    for grant in (desk.id, asking.id, "no such grant"):
        refused = await world.expect(Refused, call, FormLater(submitted=(grant, Approve())))
        assert refused.what == "This call has no approval request with that id."
    submitted = FormLater(submitted=(asking.id, Approve("Globex Exports")))
    await world.expect(Done, world.deletion(), submitted)
    assert len(world.changes) == 1


async def test_answer_is_recorded_under_the_name_of_its_form(world: World) -> None:
    await world.expect(Done, world.run(), replace(world.form(), name="terminal"))
    quick = replace(world.form(seconds=0.5), name="dialog")
    await world.expect(PendingApproval, world.deletion(), quick)
    assert [grant.by for grant in await world.ledger.decided(9)] == ["terminal"]
    now = world.timestamp
    marks = [await world.ledger.marked(f"distrust {name} local") for name in ("dialog", "client_form")]
    assert [until > now for until in marks] == [True, False]


async def test_expired_request_is_recorded_once_after_the_configured_time(tmp_path: Path) -> None:
    world = World(tmp_path, Policy(approval_lifetime=3600.0))
    asked = await world.expect(PendingApproval, world.run())
    world.clock.pass_(3599)
    again = await world.expect(PendingApproval, world.run())
    assert again.request.expires == asked.request.expires
    world.clock.pass_(1)
    for _ in range(2):
        await world.expect(PendingApproval, world.run())
    events = [(entry["event"], entry["tool"], entry.get("approved_by")) for entry in entries(world.audit_path)]
    assert events == [(event, "run_workflow", None) for event in ("asked", "expired", "asked")]


async def test_request_opened_by_another_process_is_shown(tmp_path: Path) -> None:
    class Late(Ledger):
        """The other process opens it after this one has looked."""

        async def latest(self, *_: object, **__: object) -> ApprovalRequest | None:
            return None

    world = World(tmp_path)
    other = World(tmp_path, clock=world.clock, tokens="u", ledger=Late(SqliteStore(str(tmp_path / "ledger.sqlite3"))))
    for one in (world, other):
        await one.expect(PendingApproval, one.run())
    waiting = await world.open_request()
    assert world.desk.shown == other.desk.shown == [waiting.id]


async def test_form_closes_the_request_on_another_channel(world: World) -> None:
    call = world.run()
    await world.expect(PendingApproval, call)
    desk = await world.open_request()
    await world.expect(Done, call, world.form())
    closed = not_none(await world.ledger.find(desk.id))
    assert (closed.state, closed.note) == (RequestState.STALE, "asked in a form instead")


async def test_scopes_are_checked_for_each_call_of_a_batch(world: World) -> None:
    calls = [CreateCustomer(name="Initech"), world.deletion(), CreateCustomer(name="Umbrella")]
    may, may_not = (frozenset(some) for some in ({WRITE, DESTROY}, {WRITE}))
    answered = world.form()
    for some in (calls, calls[1:2]):
        with pytest.raises(InsufficientScope):
            await world.dispatch(batch_of(*some), Caller(Asker(), answered, may_not))
    assert (answered.asked, world.changes) == ([], [])
    only = await world.dispatch(
        batch_of(CreateCustomer(name="A"), CreateCustomer(name="B")), Caller(Asker("a"), None, may_not)
    )
    assert isinstance(only, Done)
    before = len(world.changes)

    class Withdrawn(Caller):
        """Caller whose sign-in loses a scope once the first call was sent."""

        def check(self, tool: str, *effects: Effect) -> None:
            scopes = may if len(world.changes) == before else may_not
            Caller(self.asker, None, scopes).check(tool, *effects)

    call = batch_of(*calls)
    with pytest.raises(Incomplete) as stopped:
        await world.dispatch(call, Withdrawn(Asker(), answered))
    rows: Any = stopped.value.facts["calls"]
    assert [row["outcome"] for row in rows] == ["done", "refused", "left"]
    assert "fastn:destroy" in rows[1]["message"]
    assert isinstance(await world.dispatch(call, Caller(Asker(), answered, may)), Done)
    assert (len(answered.asked), len(world.changes)) == (1, before + 3)
    assert [line["approved_by"] for line in world.audited("intent")][2:] == ["client_form"] * 3


async def test_allowance_names_the_calls_left_in_the_plan(tmp_path: Path) -> None:
    world = World(tmp_path, Policy(rules=CONFIRMING, plan=plan_of(planned("create_customer", 2))))
    left: list[object] = [await world.guard.allowance(Asker())]
    for name in ("A", "B"):
        await world.expect(Done, CreateCustomer(name=name))
        left.append(await world.guard.allowance(Asker()))
    entry_words = "2 x create_customer with any arguments"
    assert left == [{"mode": "guarded", "plan": [{"entry": entry_words, "left": count}]} for count in (2, 1, 0)]
    asked = world.form()
    await world.expect(Done, CreateCustomer(name="C"), asked)
    assert len(asked.asked) == 1


@pytest.mark.parametrize(
    ("mode", "notifies", "needed"), [("guarded", True, False), ("guarded", False, True), ("unattended", False, False)]
)
async def test_client_prompt_is_needed_only_if_nothing_else_notifies_a_person(
    tmp_path: Path, mode: Any, notifies: bool, needed: bool
) -> None:
    """The page and webhooks bring a request before a person; a terminal waits until somebody looks."""
    world = World(tmp_path, Policy(mode))
    world.desk.notifies = notifies
    assert world.guard.needs_client_prompt is needed


async def test_request_names_its_requester(world: World) -> None:
    """The person or the client, without secrets; empty without a name."""
    await world.dispatch(
        world.deletion(), Caller(Asker(client_name="Claude Desktop fsk_live_0123456789abcdef0123"), None)
    )
    await world.dispatch(world.run(), Caller(Asker(), None))
    named, nameless = await world.ledger.waiting(world.timestamp)
    assert str(named.asked_by).startswith("Claude Desktop ")
    assert "0123456789" not in str(named)
    assert nameless.asked_by is None


async def test_call_too_long_for_a_form_is_decided_at_a_terminal(world: World) -> None:
    terminal = world.form()
    terminal.is_terminal = True
    long = CreateRole(name="R", permissions=[f"resource-{n}:write" for n in range(200)])
    assert not isinstance(await world.call(long, terminal), PendingApproval)
    assert len(terminal.asked) == 1


async def test_approval_id_begins_with_its_prefix(tmp_path: Path) -> None:
    """A token may begin with "-", which a command takes for an option."""
    world = World(tmp_path, tokens="-x")
    request = await world.approve_outside(world.run())
    assert request.id.startswith("ap_-x")
    message = await TerminalApprovals(world.ledger, world.audit, world.system).withdraw(request.id, "")
    assert message is not None
    world.close()
