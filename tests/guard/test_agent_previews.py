"""Previews for the agent: what a call needs before it is made. Ours."""

from dataclasses import replace

import pytest
from world import World

from fastn_mcp.guard.approval.flow import Caller
from fastn_mcp.guard.changes import Batch
from fastn_mcp.guard.evaluation import Evaluation
from fastn_mcp.guard.policy import Decision, PolicyDecision
from fastn_mcp.procedures.apply_changes import ApplyChanges
from fastn_mcp.tools.customers import CreateCustomer

pytestmark = pytest.mark.anyio

APPROVAL = {
    Decision.ALLOW: "none: the policy allows it",
    Decision.CONFIRM: "a person has to approve it",
    Decision.TYPED: 'a person has to approve it by typing "Initech"',
    Decision.OUT_OF_BAND: "a person has to approve it outside of the client",
    Decision.FOUR_EYES: "two people have to approve it",
    Decision.DENY: "refused by the policy (rule 7)",
}


async def evaluation(world: World, batch: Batch) -> Evaluation:
    found = await world.guard.preview(batch, Caller("local", None))
    assert isinstance(found, Evaluation)
    return found


@pytest.mark.parametrize("decision", Decision)
async def test_agent_reads_whose_approval_a_call_needs(world: World, decision: Decision) -> None:
    """Ours: a person who is asked does not, as they are the answer."""
    call = CreateCustomer(name="Initech")
    found = replace(await evaluation(world, Batch(call, (call,))), verdict=PolicyDecision(decision, "rule 7"))
    shown = found.preview_for_agent()
    assert shown.data() == found.preview.data() | {"approval": APPROVAL[decision]}
    assert shown.lines() == found.preview.lines()


async def test_agent_reads_whose_approval_a_list_needs(world: World) -> None:
    change = {"tool": "create_customer", "arguments": {"name": "Initech"}}
    call = ApplyChanges.model_validate({"changes": [change]})
    found = await evaluation(world, Batch(call, call.inner_calls))  # pyright: ignore[reportArgumentType]
    assert found.preview_for_agent().data() == found.preview.data() | {"approval": APPROVAL[Decision.ALLOW]}
