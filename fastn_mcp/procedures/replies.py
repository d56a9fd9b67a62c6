"""What Fastn's AI answers, in one shape whatever it calls its parts, and how to go on. Pure.

Nothing here answers the AI: what wants approving is put before a person, and so is a question.
"""

from collections.abc import Mapping

from pydantic import JsonValue

from fastn_mcp.procedures.find import Find
from fastn_mcp.procedures.following import following
from fastn_mcp.tools.ai import AiChat
from fastn_mcp.tools.workflows import GetWorkflow

Fields = dict[str, JsonValue]

_SESSION = ("sessionId", "session_id", "sessionID", "conversationId", "threadId")
_MESSAGE = ("message", "reply", "content", "text", "response", "answer", "value")
_OTHERS = {
    "status": ("status", "state"),
    "questions": ("questions", "clarifyingQuestions", "clarifications", "question"),
    "pending_approvals": ("pendingApprovals", "pending_approvals", "approvals", "pendingActions"),
    "tool_calls": ("toolCalls", "tool_calls"),
    "plan": ("plan",),
    "credits_used": ("creditsUsed", "credits_used"),
}
_LISTS = frozenset({"questions", "pending_approvals", "tool_calls"})
_WAITING = frozenset({"waiting_for_user", "waiting", "waiting_for_approval", "needs_input", "awaiting_approval"})
_GOING_ON = frozenset({"running", "building", "planning", "generating", "in_progress", "queued", "pending"})
_OVER = frozenset({"completed", "done", "deployed", "succeeded", "success"})
_FAILED = frozenset({"failed", "error", "cancelled", "canceled", "rejected"})


def shaped(answer: Mapping[str, JsonValue], session: str | None) -> Fields:
    """The answer with `session_id`, `message`, `status`, `questions`, `pending_approvals`, `tool_calls`, `plan` and
    `credits_used`, as far as they are there, and with all that is not known as it is. `session` is the one that was
    spoken in.
    """
    rest = dict(answer)
    found: Fields = {}
    for name in _SESSION:
        if "session_id" not in found and isinstance(value := rest.get(name), (str, int)) and value != "":
            found["session_id"] = str(rest.pop(name))
    if "session_id" not in found and session is not None:
        found["session_id"] = session
    for name, theirs in _OTHERS.items():
        taken = next((their for their in theirs if rest.get(their) not in (None, "", [], {})), None)
        if taken is None:
            continue
        value = rest.pop(taken)
        found[name] = [value] if name in _LISTS and not isinstance(value, list) else value
    for name in _MESSAGE:
        if "message" not in found and (said := _said(rest.get(name))):
            rest.pop(name)
            found["message"] = said
    known = {name for theirs in _OTHERS.values() for name in theirs} | {*_SESSION, *_MESSAGE}
    # What is known and empty says nothing.
    return found | {k: v for k, v in rest.items() if k not in found and not (k in known and v in (None, "", [], {}))}


def waits_for_a_person(reply: Mapping[str, JsonValue]) -> bool:
    """Whether the AI goes on only once somebody has answered."""
    return bool(reply.get("pending_approvals") or reply.get("questions")) or _status(reply) in _WAITING


def is_over(reply: Mapping[str, JsonValue]) -> bool:
    """Whether it says that it has ended, well or not."""
    return _status(reply) in _OVER | _FAILED


def how_to_go_on(reply: Mapping[str, JsonValue]) -> JsonValue:
    """What to do next; None where the AI has ended and asks nothing."""
    session = reply.get("session_id")
    if session is None and waits_for_a_person(reply):
        return "Fastn names no session, so this conversation cannot be continued."
    if reply.get("pending_approvals"):
        return {
            "what": "Show the person what pending_approvals holds: only they can agree. "
            "A rejection says what to do instead. Each answer spends credits.",
            "if_they_agree": _answer(session, "approve"),
            "otherwise": _answer(session, "reject"),
        }
    if waits_for_a_person(reply):
        return {"what": "Ask the person, and answer by ai_chat.", "ai_chat": {"session_id": session}}
    if isinstance(made := reply.get("resourceId"), str) and made:
        # What was made is a draft; an id that is no workflow's may be anything's.
        return following(GetWorkflow, workflow_id=made) if made.startswith("wf_") else following(Find, query=made)
    if session is None:
        return None
    if _status(reply) in _GOING_ON:
        return asking_how_it_goes(reply)
    if _status(reply) in _FAILED:
        return {"what": "It failed. Ask in the same session why, by ai_chat.", "ai_chat": {"session_id": session}}
    return None


def asking_how_it_goes(reply: Mapping[str, JsonValue]) -> JsonValue:
    """What to do while a build goes on."""
    session = reply.get("session_id")
    if session is None:
        return "Look later with list_workflows or list_connectors; Fastn names no session that could be asked."
    return {
        "what": "It goes on. Looking at the lists is free; asking spends a credit, and a person approves it.",
        **(_answer(session, "status?")),
    }


def _answer(session: JsonValue, message: str) -> dict[str, JsonValue]:
    return following(AiChat, session_id=session, message=message) or {}


def _status(reply: Mapping[str, JsonValue]) -> str:
    return str(reply.get("status") or "").casefold().replace(" ", "_").replace("-", "_")


def _said(value: JsonValue) -> str:
    """The text of a message: itself, or that of its content, or of its parts."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "\n".join(filter(None, map(_said, value)))
    if isinstance(value, dict):
        return next((said for name in ("content", "text", "message") if (said := _said(value.get(name)))), "")
    return ""
