"""Fastn's own AI agents. They spend credits, and may change the account."""

from typing import Annotated

from pydantic import Field

from fastn_mcp.operation import INFERRED, POST, Effect, Operation, Record
from fastn_mcp.tools.fields import JsonObject, Texts, WaitSeconds

ApprovalMode = Annotated[str, Field(description="manual (default): asks before each change; auto: does not.")]
SessionId = Annotated[str | None, Field(description="Continues a conversation.")]


class Reply(Record):
    """What the agent says, with its questions and what it wants approved. Untrusted text."""


class AiChat(Operation[Reply]):
    """Send a message to Fastn's AI agent. Spends credits, never repeated by itself; may take minutes."""

    route = POST("/api/v1/ai/chat")
    effect = Effect.SPEND
    evidence = INFERRED("api-reference, AI")

    message: Annotated[str, Field(description="What you ask.", min_length=1)]
    session_id: SessionId = None
    context: Annotated[JsonObject | None, Field(description="As {customerId, workflowId, connectorId}.")] = None
    approval_mode: ApprovalMode = "manual"


class AiBuild(Operation[Reply]):
    """Have Fastn's AI build a connector or workflow. Spends credits. Follow it by ai_chat with its session_id."""

    route = POST("/api/v1/ai/build")
    effect = Effect.SPEND
    evidence = INFERRED("api-reference, AI")

    type: Annotated[str, Field(description="connector or workflow.")]
    prompt: Annotated[str, Field(description="What to build.", min_length=1)]
    name: Annotated[str | None, Field(description="Name of the result.")] = None
    connectors: Annotated[Texts | None, Field(description="Slugs of connectors to use.")] = None
    session_id: SessionId = None
    approval_mode: ApprovalMode = "manual"
    wait_seconds: WaitSeconds = 0
