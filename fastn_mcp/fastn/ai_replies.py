"""Replies of Fastn's AI in one shape, whatever Fastn calls their parts."""

from collections.abc import Mapping

from pydantic import JsonValue

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
GOING_ON = frozenset({"running", "building", "planning", "generating", "in_progress", "queued", "pending"})
_OVER = frozenset({"completed", "done", "deployed", "succeeded", "success"})
FAILED = frozenset({"failed", "error", "cancelled", "canceled", "rejected"})


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
    return bool(reply.get("pending_approvals") or reply.get("questions")) or status_of(reply) in _WAITING


def is_over(reply: Mapping[str, JsonValue]) -> bool:
    """Whether it says that it has ended, well or not."""
    return status_of(reply) in _OVER | FAILED


def status_of(reply: Mapping[str, JsonValue]) -> str:
    """The status in lower case with underscores; empty where there is none."""
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
