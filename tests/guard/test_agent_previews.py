"""Previews for the agent: what a call needs before it is made."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import anyio
import pytest
from support.world import FormLater, World, batch_of

from fastn_mcp.errors import Refused
from fastn_mcp.guard import questions as module
from fastn_mcp.guard.approval_form import PendingApproval, form_text
from fastn_mcp.guard.caller import Caller
from fastn_mcp.guard.evaluation import Evaluation
from fastn_mcp.policy.asker import Asker
from fastn_mcp.policy.decision import Decision, PolicyDecision
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.tools.connectors import DeleteConnector
from fastn_mcp.tools.customers import CreateCustomer
from fastn_mcp.tools.tool import Tool
from fastn_mcp.tools.workflows import RunWorkflow

CALLER = Caller(Asker(), None)
APPROVAL = {
    Decision.ALLOW: "none, since the policy allows it",
    Decision.CONFIRM: "a person has to approve it",
    Decision.TYPED: 'a person has to approve it by typing "Initech"',
    Decision.OUT_OF_BAND: "a person has to approve it outside the client",
    Decision.FOUR_EYES: "two people have to approve it",
    Decision.DENY: "refused by the policy (rule 7)",
}


async def evaluation(world: World, tool: Tool[Any]) -> Evaluation:
    evaluated = await world.guard.preview(tool, CALLER)
    assert isinstance(evaluated, Evaluation)
    return evaluated


@pytest.mark.parametrize("decision", Decision)
async def test_agent_preview_says_whose_approval_a_call_needs(world: World, decision: Decision) -> None:
    call = CreateCustomer(name="Initech")
    evaluated = replace(await evaluation(world, call), verdict=PolicyDecision(decision, "rule 7"))
    shown = evaluated.preview(CALLER)
    assert shown.data_for_agent() == evaluated.people_question.data_for_agent() | {"approval": APPROVAL[decision]}
    assert shown.lines() == evaluated.people_question.lines()


async def test_agent_preview_says_whose_approval_a_batch_needs(world: World) -> None:
    call = batch_of(CreateCustomer(name="Initech"))
    evaluated = await evaluation(world, call)
    needs = {"approval": APPROVAL[Decision.ALLOW]}
    assert evaluated.preview(CALLER).data_for_agent() == evaluated.people_question.data_for_agent() | needs


def connector(world: World) -> DeleteConnector:
    return DeleteConnector(connector_id=str(world.sandbox.state.named("connectors", "hubspot")["id"]))


async def test_further_facts_are_shown_and_an_approval_is_not_bound_to_them(world: World) -> None:
    """The last run of a workflow may end while a person decides."""
    call = connector(world)
    plain = await world.judge.questions.with_question(await world.judge.judge_call(call, Asker()))
    (described,) = (await evaluation(world, call)).calls
    assert described.bound() == plain.bound()
    (workflows,) = [row for row in described.people_question.used_by if row["kind"] == "workflows"]
    assert {"last_run", "triggers"} <= examples(workflows)[0].keys()
    assert not any("last_run" in example for row in plain.people_question.used_by for example in examples(row))


def examples(used_by: Mapping[str, Any]) -> list[dict[str, Any]]:
    return used_by.get("all") or used_by["examples"]


async def test_sentences_contain_further_facts(world: World) -> None:
    send = world.client.send

    async def less(call: Any) -> Any:
        answer: Any = await send(call)
        if call.tool_name() == "list_workflows":
            for row in answer.rows:
                row.pop("connectors", None)
        return answer

    world.judge._read = less  # pyright: ignore[reportPrivateUsage]
    call = connector(world)
    plain = await world.judge.questions.with_question(await world.judge.judge_call(call, Asker()))
    described = await evaluation(world, call)
    assert "Workflows that use it were not checked." in plain.people_question.unchecked
    assert described.people_question.unchecked == ""
    assert 'Workflows "Sync HubSpot contacts' in described.people_question.then
    assert described.resolved.dependence == plain.resolved.dependence


def runs(world: World, count: int) -> ApplyChanges:
    return batch_of(*(world.run().model_copy(update={"input": {"n": n}}) for n in range(count)))


async def test_further_facts_are_read_for_ten_calls_of_a_batch(world: World) -> None:
    call = runs(world, 12)
    evaluated = await evaluation(world, call)
    noted = ["notes" in one.people_question.data_for_agent() for one in evaluated.calls]
    assert noted == [True] * 10 + [False] * 2


async def test_preview_without_further_facts_is_shown_after_a_timeout(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def stuck(*_: Any) -> Any:
        await anyio.sleep_forever()

    monkeypatch.setattr(module, "outlook_of", stuck)
    monkeypatch.setattr(module, "_MAX_DESCRIPTION_SECONDS", 0.0)
    (call,) = runs(world, 1).inner_calls
    evaluated = await evaluation(world, call)
    assert "notes" not in evaluated.people_question.data_for_agent()


async def test_person_reads_the_further_facts_on_every_channel(world: World) -> None:
    flow = str(world.sandbox.state.named("workflows", "sync_tiktok_settlements_cin7")["id"])
    call, note = RunWorkflow(workflow_id=flow), "It was never published: Fastn refuses to run it."
    asking = await world.asked_in_form(call, FormLater())
    assert note in form_text(asking)
    for _ in range(2):  # asked out of band, and still waiting
        waiting = await world.expect(PendingApproval, call)
        assert note in waiting.question.data_for_agent()["notes"]  # pyright: ignore[reportOperatorIssue]
    world.desk = None
    world.dispatch = world.dispatching(world.dispatch._secrets, None)  # pyright: ignore[reportPrivateUsage]
    refused = await world.expect(Refused, RunWorkflow(workflow_id=flow, environment="live"))
    assert note in refused.data()["preview"]["notes"]  # pyright: ignore
