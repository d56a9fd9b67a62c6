"""Tests of the simulated AI agents."""

from typing import Any

import pytest
from support.clock import Clock
from support.direct_sandbox import Fastn

from fastn_mcp.tools.ai import AiBuild, AiChat
from fastn_mcp.tools.billing import GetBilling, GetUsage
from fastn_mcp.tools.connectors import ListConnectors
from fastn_mcp.tools.workflows import GetWorkflow, ListWorkflows

TRACKING = "wf_3a8e47d19b60"


def chat(fastn: Fastn, message: str, session: str | None = None, mode: str = "manual") -> Any:
    return fastn(AiChat(message=message, session_id=session, approval_mode=mode)).data


def build(fastn: Fastn, mode: str, kind: str = "workflow", **arguments: Any) -> Any:
    return fastn(AiBuild(type=kind, prompt="Sync orders to Xero", approval_mode=mode, **arguments)).data


def names(fastn: Fastn) -> set[str]:
    return {row["name"] for row in fastn(ListWorkflows()).data}


def test_manual_mode_change_waits_for_approval(fastn: Fastn) -> None:
    """Fastn's documentation: Manual shows a card with tool and arguments, to accept or reject."""
    asked = chat(fastn, "Please create a workflow for returns")
    (card,) = asked["pendingApprovals"]
    before = names(fastn)

    assert (asked["status"], card["tool"]) == ("waiting_for_user", "createWorkflow")
    assert chat(fastn, "What are you waiting for?", asked["sessionId"])["pendingApprovals"] == [card]
    assert names(fastn) == before
    done = chat(fastn, "approve", asked["sessionId"])
    assert done["toolCalls"][0]["tool"] == "createWorkflow"
    assert len(names(fastn)) == len(before) + 1


def test_rejected_change_is_not_made(fastn: Fastn) -> None:
    """Fastn's documentation: Reject leads to another plan."""
    asked = chat(fastn, f"Delete {TRACKING}, please")
    chat(fastn, "Reject: not this one", asked["sessionId"])

    assert fastn(GetWorkflow(workflow_id=TRACKING)).status == 200
    assert chat(fastn, "approve it now", asked["sessionId"])["toolCalls"] == []


def test_auto_mode_sends_no_cards(fastn: Fastn) -> None:
    """Fastn's documentation: Auto, its default, does not ask."""
    reply = chat(fastn, f"Delete {TRACKING}, please", mode="auto")

    assert (reply["status"], reply["toolCalls"][0]["tool"]) == ("completed", "deleteWorkflow")
    assert fastn(GetWorkflow(workflow_id=TRACKING)).status == 404
    actors = [row["actor"] for row in fastn.sandbox.state.all("audit") if row["action"] == "workflow.trash"]
    assert actors == ["agent"]


def test_approval_of_a_deleted_resource_changes_nothing(fastn: Fastn) -> None:
    asked = chat(fastn, f"Delete {TRACKING}, please")
    chat(fastn, f"Delete {TRACKING}, please", mode="auto")

    assert chat(fastn, "yes", asked["sessionId"])["status"] == "completed"
    assert "pendingApprovals" in chat(fastn, f"Delete {TRACKING}, please")


def test_build_completes_after_some_polls(fastn: Fastn) -> None:
    """Fastn's documentation: BUILD PROGRESS n/N. There is no status endpoint, so the session is polled."""
    answer = fastn(AiBuild(type="Workflow", prompt="Sync orders to Xero", connectors=["xero"], approval_mode="auto"))
    started = answer.data

    replies = [chat(fastn, "status?", started["sessionId"]) for _ in range(4)]

    assert (answer.status, started["progress"], started["buildStatus"]) == (202, {"step": 0, "total": 4}, "PLANNING")
    assert [reply["status"] for reply in replies] == ["running", "running", "running", "completed"]
    assert replies[0]["message"] == "BUILD PROGRESS 1/4: Connectors"
    created = fastn(GetWorkflow(workflow_id=replies[3]["resourceId"])).data
    assert (created["name"], created["status"], created["createdBy"]) == ("Sync orders to Xero", "draft", "agent")
    assert created["connectors"] == [{"slug": "xero", "scope": "MULTI_TENANT"}]
    again = chat(fastn, "status?", started["sessionId"])
    assert again["resourceId"] == replies[3]["resourceId"]
    assert "workflows" in chat(fastn, "And how are my workflows?", started["sessionId"])["message"]


def test_build_proceeds_with_time(fastn: Fastn, clock: Clock) -> None:
    started = build(fastn, "auto", kind="connector", name="Initech")
    clock.pass_(minutes=5)

    done = chat(fastn, "status?", started["sessionId"])

    assert done["status"] == "completed"
    assert done["resourceId"] in {row["id"] for row in fastn(ListConnectors(search="Initech")).data}


@pytest.mark.parametrize("kind", ["workflow", "connector"])
def test_build_does_not_overwrite_an_existing_resource(fastn: Fastn, kind: str, clock: Clock) -> None:
    created: list[str] = []
    for _ in range(2):
        started = build(fastn, "auto", kind=kind, name="Twice")
        clock.pass_(minutes=5)
        created.append(chat(fastn, "status?", started["sessionId"])["resourceId"])

    assert created[0] == created[1]


def test_invalid_build_names_the_field(fastn: Fastn) -> None:
    assert fastn(AiBuild(type="spaceship", prompt="x")).field == "type"
    assert fastn(AiBuild(type="workflow", prompt="x", connectors=["nothing"])).field == "connectors"
    assert fastn(AiChat(message="Hi there", approval_mode="maybe")).field == "approvalMode"
    assert fastn.ask("POST", "/api/v1/ai/chat", body={"message": "Hi there", "colour": "red"}).field == "colour"
    assert fastn(AiChat(message="Hello there", session_id="ses_nothing")).status == 404


def test_agents_spend_credits_until_they_are_used_up(fastn: Fastn) -> None:
    """Fastn's documentation: 50 credits are included; waiting does not clear QUOTA_EXCEEDED."""
    for _ in range(12):
        chat(fastn, "How are my workflows?")

    refused = fastn(AiChat(message="How are my workflows?"))

    assert (refused.status, refused.error["code"]) == (429, "QUOTA_EXCEEDED")
    assert "retry-after" not in refused.reply.headers
    assert fastn(GetBilling()).data["credits"]["used"] == 50
    assert fastn(GetUsage()).data["aiCredits"] == 50
