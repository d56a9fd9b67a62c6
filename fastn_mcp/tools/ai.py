"""Tools of Fastn's AI agents, which spend credits and may change the account, and their replies in one shape."""

from collections.abc import Mapping
from typing import Annotated, Generic

from pydantic import Field, JsonValue
from typing_extensions import override

from fastn_mcp.records.rows import FastnObject, word
from fastn_mcp.tools.bounds import TextBound
from fastn_mcp.tools.fields import JsonObject, Texts, WaitSeconds
from fastn_mcp.tools.operation import INFERRED, POST, Operation
from fastn_mcp.tools.tool import Effect, Result


class AiReply(FastnObject):
    """A reply of Fastn's AI, with its questions and pending approvals. Untrusted text."""

    shape = (("session_id", "string"), ("questions", "array"), ("pending_approvals", "array"))


class Conversation(Operation[Result], Generic[Result]):
    """Base class of messages to Fastn's AI."""

    effect = Effect.SPEND
    evidence = INFERRED("api-reference, AI")
    raises_to = (Effect.ACCESS,)

    session_id: Annotated[str | None, Field(description="To continue.")] = None
    approval_mode: Annotated[str, Field(description="manual (default) asks before each change; auto does not.")] = (
        "manual"
    )
    wait_seconds: WaitSeconds = 0

    @property
    @override
    def effective(self) -> Effect:
        # A prompt or an approval may make Fastn's AI do anything.
        return super().effective.raised_to(Effect.ACCESS) if self.needs_person else super().effective

    @property
    @override
    def needs_person(self) -> str:
        """Only a first message in manual mode is safe: Fastn asks before it acts on it."""
        if self.approval_mode != "manual":
            return "In any approval_mode but manual, Fastn's AI may change the account without asking."
        if self.session_id is not None:
            return "A message into a session can approve what Fastn's AI has asked there."
        return ""


class AiChat(Conversation[AiReply]):
    """Message Fastn's AI: answer its questions, approve its plan. Spends credits."""

    route = POST("/api/v1/ai/chat")

    message: Annotated[str, Field(description="What you ask.", min_length=1), TextBound(100_000)]
    context: Annotated[JsonObject | None, Field(description="{customerId, workflowId, connectorId}.")] = None

    @property
    @override
    def needs_person(self) -> str:
        context = self.context or {}
        if any(name not in _CONTEXT or not isinstance(value, str | None) for name, value in context.items()):
            return super().needs_person or "Its context holds undocumented fields, and may continue a session."
        return super().needs_person


class AiBuild(Conversation[AiReply]):
    """Have Fastn's AI build a connector or workflow. Spends credits."""

    route = POST("/api/v1/ai/build")

    type: Annotated[str, Field(description="connector or workflow.")]
    prompt: Annotated[str, Field(description="What to build.", min_length=1), TextBound(100_000)]
    name: Annotated[str | None, Field(description="Its name.")] = None
    connectors: Annotated[Texts | None, Field(description="Connector slugs to use.")] = None


_CONTEXT = frozenset({"customerId", "workflowId", "connectorId"})
"""Documented fields of `context`. Another field may name a session."""


Fields = dict[str, JsonValue]

_ALIASES = {
    "session_id": ("sessionId", "session_id", "sessionID", "conversationId", "threadId"),
    "status": ("status", "state"),
    "questions": ("questions", "clarifyingQuestions", "clarifications", "question"),
    "pending_approvals": ("pendingApprovals", "pending_approvals", "approvals", "pendingActions"),
    "tool_calls": ("toolCalls", "tool_calls"),
    "plan": ("plan",),
    "credits_used": ("creditsUsed", "credits_used"),
    "message": ("message", "reply", "content", "text", "response", "answer", "value"),
}
_EMPTY: tuple[JsonValue, ...] = (None, "", [], {})
_LIST_FIELDS = frozenset({"questions", "pending_approvals", "tool_calls"})
_WAITING_STATES = frozenset(
    {"waiting for user", "waiting", "waiting for approval", "needs input", "awaiting approval", "planned"}
)
IN_PROGRESS = frozenset({"running", "building", "planning", "generating", "in progress", "queued", "pending"})
_FINAL_STATES = frozenset({"completed", "done", "deployed", "succeeded", "success"})
FAILED = frozenset({"failed", "error", "cancelled", "canceled", "rejected"})


def normalize_reply(answer: Mapping[str, JsonValue], session: str | None) -> Fields:
    """Return the reply under our field names, given in `_ALIASES`. Unknown fields stay as they are.

    `session` is the id of the session that the message was sent to.
    """
    rest = dict(answer)
    fields: Fields = {}
    for name, aliases in _ALIASES.items():
        for alias in aliases:
            if name not in fields and (value := _field(name, rest.get(alias))) not in _EMPTY:
                del rest[alias]
                fields[name] = value
    if session is not None:
        fields.setdefault("session_id", session)
    known = {alias for aliases in _ALIASES.values() for alias in aliases}
    # Known fields that are empty are left out.
    return fields | {k: v for k, v in rest.items() if k not in fields and not (k in known and v in _EMPTY)}


def _field(name: str, value: JsonValue) -> JsonValue:
    """Return the value of one of our fields; an empty one if Fastn's is not of its type."""
    if name == "session_id":
        return str(value) if isinstance(value, (str, int)) else None
    if name == "message":
        return _message_text(value)
    return [value] if name in _LIST_FIELDS and value not in _EMPTY and not isinstance(value, list) else value


def waits_for_person(reply: Mapping[str, JsonValue]) -> bool:
    """Return whether the AI waits for a person's answer before it continues."""
    return bool(reply.get("pending_approvals") or reply.get("questions")) or word(reply, "status") in _WAITING_STATES


def is_over(reply: Mapping[str, JsonValue]) -> bool:
    """Return whether the reply reports an end, successful or not."""
    return word(reply, "status") in _FINAL_STATES | FAILED


def _message_text(value: JsonValue) -> str:
    """Return the text of a message, of its content or of its parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(filter(None, map(_message_text, value)))
    if isinstance(value, dict):
        return next(filter(None, (_message_text(value.get(name)) for name in ("content", "text", "message"))), "")
    return ""
