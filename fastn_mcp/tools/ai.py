"""Fastn's own AI agents. They spend credits, and may change the account."""

from typing import Annotated

from pydantic import Field, JsonValue
from typing_extensions import override

from fastn_mcp.tools.fields import JsonObject, Texts, WaitSeconds
from fastn_mcp.tools.operation import INFERRED, POST, Operation
from fastn_mcp.tools.tool import Effect, FastnObject

ApprovalMode = Annotated[str, Field(description="manual (default) asks before each change; auto does not.")]
SessionId = Annotated[str | None, Field(description="To continue.")]


class AiReply(FastnObject):
    """What the agent says, with its questions and what it wants approved. Untrusted text."""


class AiChat(Operation[AiReply]):
    """Send a message to Fastn's AI. Spends credits; may take minutes. Never retried."""

    route = POST("/api/v1/ai/chat")
    effect = Effect.SPEND
    evidence = INFERRED("api-reference, AI")

    raises_to = (Effect.ACCESS,)

    message: Annotated[str, Field(description="What you ask.", min_length=1)]
    session_id: SessionId = None
    context: Annotated[JsonObject | None, Field(description="As {customerId, workflowId, connectorId}.")] = None
    approval_mode: ApprovalMode = "manual"

    @property
    @override
    def effective(self) -> Effect:
        return _effect(super().effective, self.needs_person)

    @property
    @override
    def needs_person(self) -> str:
        return _needs_person(self.session_id, self.approval_mode, self.context)


class AiBuild(Operation[AiReply]):
    """Have Fastn's AI build a connector or workflow. Spends credits. Follow it by ai_chat with its session_id."""

    route = POST("/api/v1/ai/build")
    effect = Effect.SPEND
    evidence = INFERRED("api-reference, AI")

    raises_to = (Effect.ACCESS,)

    type: Annotated[str, Field(description="connector or workflow.")]
    prompt: Annotated[str, Field(description="What to build.", min_length=1)]
    name: Annotated[str | None, Field(description="Its name.")] = None
    connectors: Annotated[Texts | None, Field(description="Connector slugs to use.")] = None
    session_id: SessionId = None
    approval_mode: ApprovalMode = "manual"
    wait_seconds: WaitSeconds = 0

    @property
    @override
    def effective(self) -> Effect:
        return _effect(super().effective, self.needs_person)

    @property
    @override
    def needs_person(self) -> str:
        return _needs_person(self.session_id, self.approval_mode, None)


_CONTEXT = frozenset({"customerId", "workflowId", "connectorId"})
"""What a message can be about, as documented. Another field may name a session."""


def _needs_person(session: str | None, mode: str, context: dict[str, JsonValue] | None) -> str:
    """Only a first message in manual mode does nothing by itself: Fastn asks before it acts on it."""
    if mode != "manual":
        return "In any approval_mode but manual, Fastn's AI may change the account without asking."
    if session is not None:
        return "A message into a session can approve what Fastn's AI has asked there."
    if any(name not in _CONTEXT or not isinstance(value, str | None) for name, value in (context or {}).items()):
        return "Its context holds what is not documented, and may continue a session."
    return ""


def _effect(effect: Effect, needs_person: str) -> Effect:
    """What Fastn's AI is told to do, or is allowed to do, may be anything."""
    return effect.raised_to(Effect.ACCESS) if needs_person else effect
