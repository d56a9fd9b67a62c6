"""Collect the calls of a process from its audit entries.

Several entries form one call: requested, approved, sent, ended. A repeated call that waits for approval, or was
declined, counts as the same call.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from pydantic import JsonValue

from fastn_mcp.audit.log import AuditEvent
from fastn_mcp.guard.approval.states import NOT_REPEATED, STATES
from fastn_mcp.ledger.approval_request import RequestState


class OutcomeGroup(Enum):
    """Group of call outcomes in a report."""

    DONE = "done"
    REFUSED = "refused"
    """Refused by the policy, or because the target has changed."""
    DECLINED = "declined"
    WAITING = "waiting"
    """Waiting for a person, or for the call to be repeated after approval."""
    FAILED = "failed"
    UNKNOWN = "unknown"
    """The call may have been executed."""
    LEFT = "left"
    """Not attempted."""
    PREVIEWED = "previewed"


MAY_HAVE_HAPPENED = "The change may or may not have been made. Check in Fastn before you repeat it."


@dataclass(frozen=True, slots=True)
class OutcomeWords:
    """Words for a group of outcomes, and its mark on a page."""

    word: str
    heading: str
    """As in a report."""
    mark: str = "none"


OUTCOMES: Mapping[OutcomeGroup, OutcomeWords] = {
    OutcomeGroup.UNKNOWN: OutcomeWords("Unknown", f"Unknown. {MAY_HAVE_HAPPENED.rstrip('.')}", "unknown"),
    OutcomeGroup.FAILED: OutcomeWords("Failed", "Failed", "failed"),
    OutcomeGroup.REFUSED: OutcomeWords("Refused", "Refused"),
    OutcomeGroup.DECLINED: OutcomeWords("Declined", "Declined by a person"),
    OutcomeGroup.WAITING: OutcomeWords("Waiting", "Waiting for a person"),
    OutcomeGroup.LEFT: OutcomeWords("Left", "Left: not tried"),
    OutcomeGroup.DONE: OutcomeWords("Done", "Done", "done"),
    OutcomeGroup.PREVIEWED: OutcomeWords("Previewed", "Previewed: nothing was sent"),
}
"""In order of interest."""

LEFT = "left"
PREVIEWED = "previewed"
UNKNOWN = "unknown_outcome"
WAITING = "approval_required"
DECLINED = "declined"
DONE = "done"

_GROUPS: Mapping[str, OutcomeGroup] = {
    "applied_unreadable": OutcomeGroup.DONE,
    "gone": OutcomeGroup.DONE,
    "target_changed": OutcomeGroup.REFUSED,
    AuditEvent.STOPPED.value: OutcomeGroup.REFUSED,
    AuditEvent.EXPIRED.value: OutcomeGroup.REFUSED,
    AuditEvent.WITHDRAWN.value: OutcomeGroup.DECLINED,
    WAITING: OutcomeGroup.WAITING,
    UNKNOWN: OutcomeGroup.UNKNOWN,
    **{outcome: OutcomeGroup(outcome) for outcome in (DONE, "refused", DECLINED, LEFT, PREVIEWED)},
}


def group_of(outcome: str) -> OutcomeGroup:
    """Return the group of an outcome. Outcomes not listed count as failed."""
    return _GROUPS.get(outcome, OutcomeGroup.FAILED)


@dataclass(frozen=True, slots=True)
class Link:
    """Reference to an audit entry: number, event and hash."""

    n: int
    event: str
    hash: str


@dataclass(slots=True, eq=False)
class Attempt:
    """A call. Times are from the audit log, in UTC. A field that is None is unknown."""

    time: str
    tool: str
    outcome: str
    step: int | None = None
    """Number of the call in the script."""
    settled: str | None = None
    """Time of the newest event."""
    principal: str | None = None
    principal_name: str | None = None
    account: str | None = None
    target: str | None = None
    name: str | None = None
    effect: str | None = None
    rule: str | None = None
    decision: str | None = None
    approved_by: str | None = None
    message: str | None = None
    duration_ms: float | None = None
    requests: int | None = None
    """Requests sent to Fastn for it."""
    change: str | None = None
    grant: str | None = None
    """Approval request or temporary approval; for a call of a batch, with a point and the call's number."""
    audit: tuple[Link, ...] = ()
    is_split: bool = False
    """Whether this is an approved batch, which the report replaces with its calls."""

    @property
    def group(self) -> OutcomeGroup:
        return group_of(self.outcome)


_UNANSWERED = f"It was sent, but the process was stopped or ended before an answer came. {MAY_HAVE_HAPPENED}"
_ENDED = {
    AuditEvent.EXPIRED.value: STATES[RequestState.UNANSWERED].sentence,
    AuditEvent.WITHDRAWN.value: STATES[RequestState.WITHDRAWN].sentence,
    AuditEvent.STOPPED.value: STATES[RequestState.STOPPED].sentence,
}
"""Messages of calls whose approval request ended, where nobody gave a reason."""

_AUDIT_FIELDS = (
    *("principal", "principal_name", "account", "target", "name", "effect", "rule", "decision", "approved_by"),
    *("change", "grant"),
)
"""Fields of an attempt that are named as in an audit entry."""


class Tally:
    """Calls of one process, in the order in which they were first seen."""

    def __init__(self) -> None:
        self._heard: list[Attempt] = []
        self.reads = 0
        self.head: Link | None = None
        """Newest audit entry."""
        self.step: int | None = None
        """Number of the call in the script to which the following entries belong."""
        self._of_grant: dict[str, Attempt] = {}
        self._of_intent: dict[str, Attempt] = {}
        self._of_call: dict[tuple[object, ...], Attempt] = {}

    @property
    def attempts(self) -> list[Attempt]:
        return [attempt for attempt in self._heard if not attempt.is_split]

    def read(self) -> None:
        """Count a read."""
        self.reads += 1

    def entry(self, line: Mapping[str, JsonValue]) -> None:
        """Add an audit entry, or an unrecorded event of the same form."""
        self.head = _link(line) or self.head
        match line.get("event"):
            case AuditEvent.ASKED.value:
                self._asked(line)
            case AuditEvent.INTENT.value:
                self._intent(line)
            case AuditEvent.OUTCOME.value:
                self._outcome(line)
            case AuditEvent.REFUSED.value | AuditEvent.DECLINED.value as event:
                self._not_sent(line, event)
            case AuditEvent.APPROVED.value | AuditEvent.AGREED.value as event:
                attempt = self._of_grant.get(_text(line, "grant") or "")
                if attempt is not None:
                    self._update(attempt, line, WAITING, NOT_REPEATED)
                    attempt.is_split = attempt.is_split or event == AuditEvent.AGREED.value
            case AuditEvent.EXPIRED.value | AuditEvent.WITHDRAWN.value | AuditEvent.STOPPED.value as event:
                attempt = self._of_grant.get(_text(line, "grant") or "")
                if attempt is not None:
                    self._update(attempt, line, event, _text(line, "message") or _ENDED[event])
            case _:
                pass  # not about a call

    def of_step(self, number: int) -> list[Attempt]:
        """Return the attempts of a call of the script."""
        return [attempt for attempt in self.attempts if attempt.step == number]

    def add(self, attempt: Attempt) -> None:
        """Add a call that is not in the audit log, because it did not get that far."""
        self._heard.append(attempt)

    def _asked(self, line: Mapping[str, JsonValue]) -> None:
        attempt = self._latest(line, OutcomeGroup.WAITING)
        if attempt is not None and "n" not in line:
            return  # already known
        attempt = self._update(attempt or self._begin(line), line, WAITING, _text(line, "message"))
        grant = _text(line, "grant")
        if grant is not None:
            self._of_grant[grant] = attempt

    def _intent(self, line: Mapping[str, JsonValue]) -> None:
        grant = _text(line, "grant") or ""
        attempt = self._of_grant.get(grant)
        if attempt is not None and attempt.step != self.step:
            attempt = None  # the same answer approved another call of the script
        if attempt is None:
            attempt = self._latest(line, OutcomeGroup.WAITING) or self._begin(line)
        self._update(attempt, line, UNKNOWN, _UNANSWERED)
        batch = self._of_grant.get(grant.rpartition(".")[0])
        if batch is not None:
            attempt.audit = (*batch.audit, *attempt.audit)
        self._of_intent[str(line.get("n"))] = attempt

    def _outcome(self, line: Mapping[str, JsonValue]) -> None:
        attempt = self._of_intent.pop(str(line.get("of")), None)
        if attempt is None:
            return  # the call was sent before collection started
        took = line.get("duration_ms")
        requests = line.get("requests")
        self._update(attempt, line, _text(line, "outcome") or UNKNOWN, _text(line, "message"))
        attempt.duration_ms = took if isinstance(took, (int, float)) else None
        attempt.requests = requests if isinstance(requests, int) else None

    def _not_sent(self, line: Mapping[str, JsonValue], event: str) -> None:
        outcome = _text(line, "outcome") or event
        grant = _text(line, "grant")
        if grant is not None:  # a person decided out-of-band
            attempt = self._of_grant.get(grant)
        else:
            again = (OutcomeGroup.WAITING, OutcomeGroup.DECLINED) if outcome == DECLINED else (OutcomeGroup.WAITING,)
            attempt = self._latest(line, *again) or self._begin(line)
        if attempt is not None:
            self._update(attempt, line, outcome, _text(line, "message"))

    def _latest(self, line: Mapping[str, JsonValue], *groups: OutcomeGroup) -> Attempt | None:
        """Return the newest attempt of exactly this call, if it is in one of `groups`."""
        attempt = self._of_call.get(self._key(line))
        return None if attempt is None or attempt.is_split or attempt.group not in groups else attempt

    def _key(self, line: Mapping[str, JsonValue]) -> tuple[object, ...]:
        return (self.step, *(str(line.get(name)) for name in ("principal", "account", "tool", "digest")))

    def _begin(self, line: Mapping[str, JsonValue]) -> Attempt:
        attempt = Attempt(_text(line, "time") or "", _text(line, "tool") or "", UNKNOWN, step=self.step)
        self._heard.append(attempt)
        self._of_call[self._key(line)] = attempt
        return attempt

    def _update(self, attempt: Attempt, line: Mapping[str, JsonValue], outcome: str, message: str | None) -> Attempt:
        """Update an attempt from an audit entry."""
        attempt.outcome = outcome
        attempt.message = message
        attempt.settled = _text(line, "time")
        for name in _AUDIT_FIELDS:
            value = _text(line, name)
            if value is not None:
                setattr(attempt, name, value)
        link = _link(line)
        if link is not None:
            attempt.audit = (*attempt.audit, link)
        return attempt


def _link(line: Mapping[str, JsonValue]) -> Link | None:
    n = line.get("n")
    event = line.get("event")
    hash_ = line.get("hash")
    if isinstance(n, int) and isinstance(event, str) and isinstance(hash_, str):
        return Link(n, event, hash_)
    return None


def _text(line: Mapping[str, JsonValue], name: str) -> str | None:
    value = line.get(name)
    return value if isinstance(value, str) else None
