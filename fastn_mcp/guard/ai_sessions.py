"""What Fastn's AI last asked in each of its sessions, as this process heard it. Fastn's API has no read for it."""

from typing import cast

from pydantic import JsonValue

from fastn_mcp.operation import Record
from fastn_mcp.procedures import replies
from fastn_mcp.procedures.target import Call
from fastn_mcp.tools.ai import AiBuild, AiChat

_MOST = 1000
"""Sessions that are remembered; the one that was heard of longest ago is forgotten first."""

NOT_HEARD = "This server has heard no answer in this session, and Fastn has no read for what is pending there."


class AiSessions:
    """The sessions of one account."""

    def __init__(self) -> None:
        self._asked: dict[str, list[JsonValue]] = {}

    def note(self, call: Call, answer: Record | None) -> None:
        """Remember what an answer of the AI asks; None while there is no answer yet, and perhaps never will be."""
        if not isinstance(call, (AiChat, AiBuild)):
            return
        if answer is None:
            self._asked.pop(call.session_id or "", None)
            return
        said = cast("dict[str, JsonValue]", answer.model_dump(exclude_unset=True))
        reply = replies.shaped(said, call.session_id)
        session = reply.get("session_id")
        if isinstance(session, str):
            self._asked.pop(session, None)
            asked = (reply.get(name) for name in ("pending_approvals", "questions"))
            self._asked[session] = [item for items in asked if isinstance(items, list) for item in items]
            if len(self._asked) > _MOST:
                del self._asked[next(iter(self._asked))]

    def target(self, call: Call) -> Record | None:
        """The session that a message goes into, with what is pending there; None where it begins one.

        An approval is bound to it: once the AI asks something else, the approval is void.
        """
        session = call.session_id if isinstance(call, (AiChat, AiBuild)) else None
        if session is None:
            return None
        pending = self._asked.get(session)
        return Record.model_validate({"id": session, "pending": NOT_HEARD if pending is None else pending})
