"""Words for each state of an approval request: the same on pages, in Slack, in reports and for a late vote."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastn_mcp.ledger.approval_request import ApprovalRequest, RequestState

NOT_REPEATED = "Approved, but the agent never repeated the call."
"""What is said of an approval that expired unused."""


@dataclass(frozen=True, slots=True)
class StateWords:
    """Words for a state of a request that is over."""

    word: str
    """As in a list of requests."""
    closed: str
    """Why the request cannot be decided, as a predicate: `This request …`."""
    sentence: str
    """What became of the request."""
    reason: str = ""
    """Why nothing was sent, where no approver is the reason."""


_NOT_ANSWERED = StateWords("Expired", "has expired", "Nobody decided in time. Nothing was sent.", "nobody answered")

STATES: Mapping[RequestState, StateWords] = {
    RequestState.OPEN: _NOT_ANSWERED,
    RequestState.APPROVED: StateWords("Not used", "has already been approved", NOT_REPEATED),
    RequestState.USED: StateWords(
        "Used", "has already been approved, and the call was made", "Approved, and the call was made."
    ),
    RequestState.DECLINED: StateWords("Declined", "has already been declined", "Declined. Nothing was sent."),
    RequestState.UNANSWERED: _NOT_ANSWERED,
    RequestState.STALE: StateWords(
        "Void", "is void, since its target changed", "The target changed before the call was sent. Nothing was sent."
    ),
    RequestState.STOPPED: StateWords(
        "Stopped",
        "is void, since changes were stopped",
        "Void: a person stopped changes.",
        "changes were stopped",
    ),
    RequestState.WITHDRAWN: StateWords(
        "Withdrawn", "was approved, but the approval was withdrawn", "Approved, but the approval was withdrawn."
    ),
}
"""An open or approved request is over once it has expired."""


def state_word(request: ApprovalRequest, now: float) -> str:
    """Return the state of a request in a word or two."""
    if request.expires > now and request.state is RequestState.OPEN:
        return "Waiting"
    if request.expires > now and request.state is RequestState.APPROVED:
        return "Not used yet"
    if request.state is RequestState.UNANSWERED and request.by is not None:
        return "Nobody answered"
    return STATES[request.state].word
