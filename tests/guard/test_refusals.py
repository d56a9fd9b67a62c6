"""What the guard answers when it sends nothing: each refusal and each waiting request, whole."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support import stores
from support.begun import counted, rated
from support.decisions import moved
from support.faulty_sandbox import Reset
from support.values import not_none
from support.world import FormLater, FormNow, World, batch_of, plan_of, planned, policy_from

from fastn_mcp.account.resolve import by_arguments
from fastn_mcp.errors import Declined, FastnError, Refused, TargetChanged, UnknownOutcome
from fastn_mcp.guard.approval_form import Approve, Decline, NoAnswer, PendingApproval
from fastn_mcp.guard.evaluation import Evaluation, place_in_list
from fastn_mcp.guard.journal import UNSETTLED
from fastn_mcp.guard.key_files import SecretValues
from fastn_mcp.guard.permission import Permission
from fastn_mcp.guard.result import Done
from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState, Vote
from fastn_mcp.ledger.ledger import BudgetLimit
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import Decision, PolicyDecision
from fastn_mcp.policy.plan import would_allow
from fastn_mcp.policy.policy import Policy
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.tools.access import DeleteSecret, ListSecrets
from fastn_mcp.tools.customers import CreateCustomer, UpdateCustomer
from fastn_mcp.tools.tool import Effect

NO_CREATES = '[[rule]]\ntool = "create_*"\nthen = "deny"\nreason = "Not today."\n'


def several(*names: str) -> ApplyChanges:
    """Customers that are created in one list."""
    return batch_of(*(CreateCustomer(name=name) for name in names))


def told(answer: object) -> tuple[str, str, dict[str, Any]]:
    assert isinstance(answer, FastnError), answer
    return answer.what, answer.next_step, dict(answer.facts)


async def test_policy_refusal_names_its_rule_and_who_can_change_it(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, NO_CREATES)
    what, next_step, facts = told(await world.call(CreateCustomer(name="A")))
    rule = facts.pop("rule")
    assert (what, next_step, facts) == (
        f"Refused by {rule}. Not today.",
        "Only a person can change the policy.",
        {},
    )
    assert "line 1" in rule
    assert world.changes == []


async def test_refusal_of_an_unattended_run_holds_the_plan_entry_that_would_allow_the_call(tmp_path: Path) -> None:
    world, call = World(tmp_path, Policy("unattended")), CreateCustomer(name="A")
    what, next_step, facts = told(await world.call(call))
    assert what.startswith("Refused. ")
    assert next_step == "Continue with the rest; report this."
    assert facts["would_allow"] == would_allow(call)
    assert facts.keys() == {"rule", "would_allow"}
    what, next_step, facts = told(await world.call(several("A", "B")))
    assert what.startswith("Call 1, create_customer: Refused. ")
    assert facts["refused_calls"] == [1, 2]
    assert facts["would_allow"] == "\n\n".join(would_allow(CreateCustomer(name=name)) for name in "AB")
    what, next_step, facts = told(await world.call(several("A")))
    assert "refused_calls" not in facts
    assert facts["would_allow"] == would_allow(call)
    assert world.changes == []


async def test_no_plan_entry_is_named_where_a_rule_refuses(tmp_path: Path) -> None:
    rule = '[[rule]]\ntool = "create_customer"\nwhen = { name = "B" }\nthen = "deny"\n'
    world = World(tmp_path, policy_from(tmp_path, rule, "unattended"))
    _, next_step, facts = told(await world.call(CreateCustomer(name="B")))
    assert (next_step, facts.keys()) == ("Continue with the rest; report this.", {"rule"})
    _, _, facts = told(await world.call(several("B", "C")))
    assert facts["refused_calls"] == [1, 2]
    assert facts["would_allow"] == would_allow(CreateCustomer(name="C"))


async def test_list_with_one_denied_call_names_that_call(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, '[[rule]]\ntool = "create_customer"\nwhen = { name = "B" }\nthen = "deny"\n')
    what, _, facts = told(await world.call(several("A", "B", "C")))
    assert what == f"Call 2, create_customer: Refused by {facts['rule']}."
    assert facts.keys() == {"rule"}
    assert world.changes == []


async def test_refusal_names_the_channel_reason_and_expiry_of_its_request(world: World) -> None:
    call = world.run()
    first = await world.expect(PendingApproval, call)
    request = await world.open_request()
    assert (first.where, first.request.expires) == (
        "This client cannot show an approval form. A person has to approve on the desk.",
        request.expires,
    )
    assert first.question == request.question
    world.clock.pass_(5)
    again = await world.expect(PendingApproval, call)
    assert again.where == "Approval has already been requested. A person has to approve on the desk."
    assert (again.request.expires, again.question) == (request.expires, request.question)
    assert world.desk.shown == [request.id] * 2


async def test_request_whose_target_changed_is_replaced_by_one_that_shows_it(world: World) -> None:
    call = world.deletion()
    await world.call(call)
    old = await world.open_request()
    await world.client.send(UpdateCustomer(customer_id=call.customer_id, name="Globex Imports"))
    world.clock.pass_(5)
    answer = await world.expect(PendingApproval, call)
    assert answer.where == "The target has changed since approval was requested. A person has to approve on the desk."
    new = await world.open_request()
    assert (new.principal, answer.request.expires) == ("local", new.expires)
    assert (new.question.target, new.question.name) == (call.customer_id, "Globex Imports")
    ended = not_none(await world.ledger.find(old.id))
    assert (ended.state, ended.decided) == (RequestState.STALE, world.timestamp)


@pytest.mark.parametrize("seconds", [30, 600], ids=["in time", "after its request has expired"])
async def test_unanswered_form_is_replaced_by_a_request_on_another_channel(world: World, seconds: float) -> None:
    """A form that outlives its request is not used for a while."""
    answer = await world.expect(PendingApproval, world.run(), world.form(NoAnswer("closed"), seconds))
    request = await world.open_request()
    assert answer.where == "No person answered: closed. A person has to approve on the desk."
    assert (world.desk.shown, request.principal) == ([request.id], "local")
    assert answer.request.expires == request.expires == world.timestamp + 600
    assert answer.question == request.question
    form = world.form()
    await world.call(world.deletion(), form)
    assert len(form.asked) == (seconds < 600)


@pytest.mark.parametrize("seconds", [600, 601])
async def test_form_that_ends_after_another_call_closed_its_request_gets_a_new_one(
    world: World, seconds: float
) -> None:

    class Late(FormNow):
        async def ask(self, request: ApprovalRequest) -> Any:
            self.clock.pass_(seconds)
            await world.call(world.deletion())
            return await super().ask(request)

    answer = await world.expect(PendingApproval, world.run(), Late(lambda _: NoAnswer("closed"), world.clock, 0))
    assert answer.where == "No person answered: closed. A person has to approve on the desk."
    new = not_none(await world.ledger.find(answer.request.id))
    assert (new.principal, new.tool, new.created) == ("local", "run_workflow", world.timestamp)
    assert answer.question == new.question


async def test_refusal_after_a_decline_includes_its_note(world: World) -> None:
    for note in ("after the release", ""):
        answer = await world.call(world.run(), world.form(Decline(note)))
        assert told(answer) == (
            "A person declined this call.",
            "Do not repeat it; ask what to do instead.",
            {"note": note} if note else {},
        )
    await world.call(world.deletion())
    request = await world.open_request()
    await moved(world.ledger, request.id, [RequestState.OPEN], RequestState.DECLINED, world.timestamp)
    what, next_step, facts = told(await world.call(world.deletion()))
    ends = f"{datetime.fromtimestamp(request.expires, UTC):%Y-%m-%dT%H:%M:%SZ}"
    assert what == "A person declined this call."
    assert next_step == f"The same call stays declined until {ends}. Do not repeat it; ask what to do instead."
    assert facts == {"declined_until": ends}
    assert world.changes == []


@pytest.mark.parametrize("in_form", [True, False])
async def test_declined_call_is_not_sent_once_the_policy_allows_it(world: World, in_form: bool) -> None:
    """It was asked about because of a lost response, which no longer counts after a while."""
    call, form = CreateCustomer(name="Initech"), FormLater() if in_form else None
    world.sandbox.faults.add(Reset(method="POST"))
    await world.expect(UnknownOutcome, call)
    sent = len(world.changes)
    world.clock.pass_(UNSETTLED - 5)
    pending: Any = await world.call(call, form)
    if form is None:
        await moved(world.ledger, pending.request.id, [RequestState.OPEN], RequestState.DECLINED, world.timestamp)
    else:
        form.submitted = pending.request.id, Decline()
    world.clock.pass_(5)
    await world.expect(Declined, call, form)
    assert len(world.changes) == sent
    await world.expect(Done if in_form else Declined, call)


async def test_form_that_ends_late_without_another_channel_is_refused(world: World) -> None:
    world.desk = None
    world.dispatch = world.dispatching(SecretValues({}, []), None)
    for seconds in (600, 30):
        what, next_step, facts = told(await world.call(world.run(), world.form(NoAnswer("closed"), seconds)))
        assert what == "No person answered: closed. run_workflow needs a person's approval."
        assert next_step == "Use a client that shows forms, or a terminal: fastn-mcp call run_workflow"
        assert facts["preview"]["target"]["name"] == "process-new-orders"
        world.clock.pass_(901)
    ended, _ = await world.ledger.decided(10)
    assert (ended.state, ended.by, ended.note) == (RequestState.UNANSWERED, "client_form", "closed")


async def test_answer_to_a_request_that_is_used_or_expired_says_so(world: World) -> None:
    call = world.run()
    used_up: Any = ("This approval was already used, or has expired.", "Call again for a new approval request.", {})
    asking = await world.first_round(call)
    answer = FormLater(submitted=(asking.id, Approve()))
    await world.expect(Done, call, answer)
    assert told(await world.call(call, answer)) == used_up
    late = await world.asked_in_form(call, FormLater())
    world.clock.pass_(600)
    assert told(await world.call(call, FormLater(submitted=(late.id, Approve())))) == used_up
    assert len(world.changes) == 1


async def test_later_round_belongs_to_its_caller_and_is_evaluated_once(world: World) -> None:
    call = world.run()
    asking = await world.first_round(call)
    reads = len(world.sandbox.requests)
    await world.expect(Done, call, FormLater(submitted=(asking.id, Approve())))
    once = len(world.sandbox.requests) - reads
    reads = len(world.sandbox.requests)
    await world.expect(Done, call, world.form())
    # A form within the call: the last runs are read for it, and the time that passed makes its evaluation stale.
    assert len(world.sandbox.requests) - reads == 2 * once


async def test_approved_target_that_changed_is_refused_with_what_is_there_now(world: World) -> None:
    call = world.deletion()
    await world.call(call)
    request = await world.open_request()
    await moved(world.ledger, request.id, [RequestState.OPEN], RequestState.APPROVED, world.timestamp)
    await world.client.send(UpdateCustomer(customer_id=call.customer_id, name="Globex Imports"))
    answer = await world.expect(TargetChanged, call)
    what, next_step, facts = told(answer)
    assert what == "The target is no longer in the state that was approved."
    assert next_step == "See the preview. Call again for a new approval request."
    assert facts.keys() == {"preview"}
    assert facts["preview"]["target"]["name"] == "Globex Imports"
    assert [heard.method for heard in world.changes] == ["PUT"]


async def test_two_people_without_a_channel_that_tells_them_apart_are_refused(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, '[[rule]]\ntool = "delete_*"\nthen = "four_eyes"\n')
    what, next_step, facts = told(await world.call(world.deletion(), world.form()))
    rule = "policy.toml line 1: rule delete_*"
    assert what == f"delete_customer needs two people ({rule}), and this server cannot tell people apart."
    assert (
        next_step
        == "The operator can set up Slack or a webhook with approvers; or a person makes the change in the dashboard."
    )
    assert facts["preview"]["target"]["name"] == "Globex Exports"
    assert world.desk.shown == []


async def test_budget_that_others_used_up_meanwhile_allows_no_call(tmp_path: Path) -> None:
    world = World.with_rules(tmp_path, "[budget]\nwrite = 1\n")
    current = await world.judge.judge_call(CreateCustomer(name="A"), Asker())
    allowed = Permission("policy")
    assert await world.begun(current, allowed)
    assert not await world.begun(current, allowed)
    assert await world.begun(current, allowed, Asker("other"))
    request = replace(
        stores.grant(), id="ap_1", calls={current.id: current.bound()}, required="confirm", expected=None,
        created=world.timestamp, expires=world.timestamp + 600,
    )  # fmt: skip
    await world.ledger.open(request)
    approved = await world.ledger.decide(request, Vote("page", True, world.timestamp), "page")
    with pytest.raises(Refused) as caught:
        await world.begun(current, Permission("page", approved))
    assert told(caught.value) == ("The budget for write calls is used up.", "A person can raise it in the policy.", {})
    unused = await world.ledger.find("ap_1")
    assert unused is not None
    assert unused.used == ()
    denied = replace(current, verdict=PolicyDecision(Decision.DENY, "a rule", "Why."))
    with pytest.raises(Refused) as caught:
        await world.begun(denied, allowed, Asker("third"))
    assert told(caught.value) == (
        "Refused by a rule. Why.",
        "Only a person can change the policy.",
        {"rule": "a rule"},
    )


async def test_plan_entry_that_others_used_up_meanwhile_allows_no_call(tmp_path: Path) -> None:
    world = World(tmp_path, Policy("guarded", plan=plan_of(planned("delete_secret", targets=("*",)))))
    call = DeleteSecret(secret_id=str((await world.rows(ListSecrets()))[0].id))
    current = await world.judge.judge_call(call, Asker())
    assert await world.begun(current, Permission("plan"))
    assert not await world.begun(current, Permission("plan"))
    # A plan's call does not count in the rate of what people approve.
    at = world.timestamp
    assert await world.ledger.rate_uses(world.judge.budgets.rate_budget("local"), 300, at) == []


async def test_allowance_names_the_period_of_each_budget_and_never_less_than_nothing(tmp_path: Path) -> None:
    """Approved calls may go beyond the budget for spending, and a smaller budget may replace a larger one."""
    world = World.with_rules(
        tmp_path, '[budget]\nper = "run"\nspend = 1\ndestroy_rate = "1 per 90s"\n[budget.run]\nwrite = 1\n'
    )
    for _ in range(3):
        for effect in ("spend", "write"):
            limit = BudgetLimit(effect, world.judge.budgets.period("run", "local"), 9)
            assert await counted(world.ledger, limit, at=world.timestamp)
        assert await rated(world.ledger, world.judge.budgets.rate_budget("local"), 9, 90, world.timestamp)
    assert await world.guard.allowance(Asker()) == {
        "mode": "guarded",
        "budgets": [
            {"effect": "write", "per": "run", "left": 0, "of": 1},
            {"effect": "spend", "per": "run", "left": 0, "of": 1},
            {"effect": "destroy", "per": "1.5 minutes", "left": 0, "of": 1},
        ],
    }


def test_evaluation_without_a_read_cannot_be_approved() -> None:
    verdict = PolicyDecision(Decision.ALLOW, "default")
    call = CreateCustomer(name="A")
    unread = Evaluation(tool=call, id="digest", effect=Effect.WRITE, verdict=verdict, resolved_call=by_arguments(call))
    assert unread.name is None
    with pytest.raises(TypeError, match="without a read"):
        unread.bound()


async def test_id_of_a_list_is_short_and_its_calls_are_named_by_number(tmp_path: Path) -> None:
    """The id is in results and keys of the ledger."""
    world, one = World(tmp_path), CreateCustomer(name="A")
    assert re.fullmatch("batch_[0-9a-f]{24}", world.judge.list_ids(several("A"), Asker())[0])
    assert place_in_list(one, 1) == ""
    assert place_in_list(several("A"), 1) == "Call 1, create_customer: "
