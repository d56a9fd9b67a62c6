"""AI sessions of one account: what Fastn's AI waits for in each, and what its messages cost."""

from collections.abc import Mapping

from pydantic import JsonValue

from fastn_mcp.errors import FastnError
from fastn_mcp.records.quotas import credits_of, credits_used
from fastn_mcp.records.rows import FastnObject, row_of
from fastn_mcp.tools.ai import AiBuild, AiChat, is_over, normalize_reply
from fastn_mcp.tools.billing import GetBilling
from fastn_mcp.tools.operation import Call, Send

MAX_SESSIONS = 1000
"""Sessions that are remembered. The least recently updated one is dropped first."""

NOT_HEARD = "This server has seen no answer in this session, and Fastn has no way to read what is pending there."


class AiSessions:
    """AI sessions of one account, with the plan, approvals and questions that are pending in each."""

    def __init__(self) -> None:
        self._sessions: dict[str, tuple[list[JsonValue] | None, JsonValue]] = {}
        """Approvals and questions that are pending in each session, None if that is not known, and its plan."""
        self.last_price: float | None = None
        """Credits that the last message used, according to its answer."""

    def note(self, call: Call, answer: FastnObject | None) -> None:
        """Remember what is pending according to `answer`. None, before a call is sent, forgets the session's state.

        A plan is kept until another replaces it or the work ends: Fastn may ask for its approval in a later answer.
        """
        if not isinstance(call, (AiChat, AiBuild)):
            return
        if answer is None:
            if call.session_id in self._sessions:
                self._sessions[call.session_id] = None, self._sessions[call.session_id][1]
            return
        reply = normalize_reply(row_of(answer), call.session_id)
        session = reply.get("session_id")
        self.last_price = credits_used(reply)
        if isinstance(session, str):
            _, plan = self._sessions.pop(session, (None, None))
            self._sessions[session] = _pending(reply), reply.get("plan") or (None if is_over(reply) else plan)
            if len(self._sessions) > MAX_SESSIONS:
                del self._sessions[next(iter(self._sessions))]

    def target(self, call: AiChat | AiBuild) -> FastnObject | None:
        """Return the session that a message continues, with what is pending there; None for a new session.

        The approval is bound to it: if the pending questions change, the approval is void.
        """
        session = call.session_id
        if session is None:
            return None
        pending, plan = self._sessions.get(session, (None, None))
        if pending and plan:
            pending = [{"plan": plan}, *pending]
        return FastnObject.model_validate({"id": session, "pending": NOT_HEARD if pending is None else pending})

    async def costs(self, read: Send) -> str:
        """Describe the credits of a message: the balance, and the price as far as it is known."""
        last = self.last_price
        if last is None:
            price = "Fastn states the price in AI credits only afterwards."
        else:
            price = f"AI credits used by the last message: {last:,.10g}."
        try:
            balance = credits_of(row_of(await read(GetBilling()))).balance or "Fastn does not state the balance."
        except FastnError as error:
            balance = f"The balance could not be read: {error.what}"
        return f"{price} {balance}"


_FIELDS_WITHOUT_QUESTIONS = frozenset(
    {"session_id", "plan", "credits_used", "tool_calls", "questions", "pending_approvals", "id", "messageId"}
    | {"buildId", "buildStatus", "phase", "progress", "resourceId"}
)
"""Fields of a reply that never contain a question of Fastn's AI."""


def _pending(reply: Mapping[str, JsonValue]) -> list[JsonValue]:
    """Return the approvals and questions in a reply, and the other fields that may ask or say what they are about.

    A status may be the status of the turn: the message of a completed one may ask for a "yes".
    """
    lists = (reply.get(name) for name in ("pending_approvals", "questions"))
    asked = [item for items in lists if isinstance(items, list) for item in items]
    rest = {name: item for name, item in reply.items() if name not in _FIELDS_WITHOUT_QUESTIONS}
    return [*asked, rest] if rest else asked
