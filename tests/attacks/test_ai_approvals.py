"""The agent approves nothing inside Fastn's AI, in any mode, whatever a policy allows."""

from pathlib import Path
from typing import Any

import pytest
from support.policy_files import ALLOWS, rules_of
from support.scripted_client import LATEST, connected, each_version, session
from support.server_process import body
from support.slack import served_slack
from support.slack_world import DANA, slack_world
from support.world import World

from fastn_mcp.policy.policy import Policy

ORDERS = "wf_0d93ee5b1f62"
OPEN = """
[defaults]
spend = "allow"
access = "allow"
[[rule]]
tool = "ai_*"
then = "allow"
"""
POLICIES = {
    "a budget": "[budget]\nspend = 100",
    "a budget for the run": "[budget.run]\nspend = 100",
    "runs and first messages allowed": ALLOWS,
    "all allowed": OPEN,
}


def opened(folder: Path, policy: str) -> World:
    """Return a world under one of the policies that let first messages pass."""
    return World(folder, Policy(rules=rules_of(folder, POLICIES[policy])))


def session_of(reply: dict[str, Any]) -> str:
    assert "data" in reply, reply
    return str(reply["data"]["session_id"])


@pytest.mark.parametrize("policy", POLICIES)
async def test_question_of_the_ai_is_shown_to_a_person_before_an_answer(tmp_path: Path, policy: str) -> None:
    world = opened(tmp_path, policy)
    async with session(world, LATEST) as call:
        for number, answer in enumerate(("approve", "yes, go on", "status?", "reject"), 1):
            pending = await call("ai_chat", message=f"Delete the workflow {ORDERS} now")
            assert len(call.messages) == number - 1
            reply = await call("ai_chat", message=answer, session_id=session_of(pending))
            assert reply["outcome"] == "declined", answer
            question = call.messages[-1]
            assert "deleteWorkflow" in question
            assert ORDERS in question
            assert (len(call.messages), len(world.changes)) == (number, number)
            world.clock.pass_(1000)
    assert world.sandbox.state.get("workflows", ORDERS) is not None


ACTING: tuple[tuple[str, dict[str, Any]], ...] = (
    ("ai_chat", {"message": f"Delete the workflow {ORDERS} now", "approval_mode": "auto"}),
    ("ai_chat", {"message": "hello there", "approval_mode": "Manual "}),
    ("ai_chat", {"message": "hello there", "approval_mode": ""}),
    ("ai_chat", {"message": "approve", "session_id": "ses_elsewhere"}),
    ("ai_chat", {"message": "approve", "session_id": ""}),
    ("ai_chat", {"message": "approve", "context": {"sessionId": "ses_elsewhere"}}),
    ("ai_chat", {"message": "approve", "context": {"customerId": {"sessionId": "ses_elsewhere"}}}),
    ("ai_build", {"type": "workflow", "prompt": "Sync orders", "approval_mode": "auto"}),
    ("ai_build", {"type": "workflow", "prompt": "approve", "session_id": "ses_elsewhere"}),
)


@pytest.mark.parametrize("policy", POLICIES)
async def test_message_that_may_act_or_approve_needs_approval(tmp_path: Path, policy: str) -> None:
    world = opened(tmp_path, policy)
    async with session(world, LATEST) as call:
        for number, (tool, arguments) in enumerate(ACTING, 1):
            reply = await call(tool, **arguments)
            assert reply["outcome"] == "declined", arguments
            assert len(call.messages) == number, arguments
            assert world.changes == []
            assert ("has seen no answer in this session" in call.messages[-1]) is ("session_id" in arguments)
            world.clock.pass_(1000)


@each_version
async def test_approved_message_reaches_the_ai_once(tmp_path: Path, version: str) -> None:
    world = opened(tmp_path, "a budget")
    async with session(world, version, approves=True) as call:
        pending = await call("ai_chat", message=f"Delete the workflow {ORDERS} now")
        await call("ai_chat", message="approve", session_id=session_of(pending))
        assert world.sandbox.state.get("workflows", ORDERS) is None
        await call("ai_chat", message="approve", session_id=session_of(pending))
    assert len(call.messages) == 2
    assert "Done." in call.messages[1].partition("Pending there: ")[2]


async def test_question_of_the_ai_is_shown_in_slack_before_an_answer(tmp_path: Path) -> None:
    policy = Policy(rules=rules_of(tmp_path, OPEN))
    with served_slack() as slack:
        async with slack_world(tmp_path, slack, policy) as world, connected(world, LATEST) as client:
            pending = await client.call_tool("ai_chat", {"message": f"Delete the workflow {ORDERS} now"})
            answer = {"message": "approve", "session_id": session_of(body(pending))}
            assert body(await client.call_tool("ai_chat", answer))["status"] == "approval_required"
            (message,) = slack.messages
            assert "deleteWorkflow" in message.text
            assert ORDERS in message.text
            assert len(world.changes) == 1
            assert await slack.decide(DANA, message) == ""
            await client.call_tool("ai_chat", answer)
            assert world.sandbox.state.get("workflows", ORDERS) is None
            assert body(await client.call_tool("ai_chat", answer))["status"] == "approval_required"
            assert len(world.changes) == 2
