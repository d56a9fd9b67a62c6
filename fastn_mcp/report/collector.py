"""Collect the calls of a process from its audit entries.

Several entries are one call: asked about, approved, sent, ended. A call that was asked about and is made again is the
same one; so is a declined one that is repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from pydantic import JsonValue

from fastn_mcp.guard.audit.log import AuditEvent


class OutcomeGroup(Enum):
    """What became of a call, as a report groups it."""

    DONE = "done"
    REFUSED = "refused"
    """By the policy, or because the target has changed."""
    DECLINED = "declined"
    WAITING = "waiting"
    """For a person, or for the call to be made again once one has approved it."""
    FAILED = "failed"
    UNKNOWN = "unknown"
    """It may have happened."""
    LEFT = "left"
    """Not tried."""
    PREVIEWED = "previewed"


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
    WAITING: OutcomeGroup.WAITING,
    UNKNOWN: OutcomeGroup.UNKNOWN,
    **{outcome: OutcomeGroup(outcome) for outcome in (DONE, "refused", DECLINED, LEFT, PREVIEWED)},
}


def group_of(outcome: str) -> OutcomeGroup:
    """The group of an outcome. Whatever is none of the others has failed."""
    return _GROUPS.get(outcome, OutcomeGroup.FAILED)


@dataclass(frozen=True, slots=True)
class Link:
    """An entry of the audit: its number, what it records, and its hash."""

    n: int
    event: str
    hash: str


@dataclass(slots=True, eq=False)
class Attempt:
    """A call. Times are as the audit has them, in UTC; what is None is not known."""

    time: str
    tool: str
    outcome: str
    step: int | None = None
    """The number of the call in the script that it belongs to."""
    settled: str | None = None
    """When the newest of it happened."""
    principal: str | None = None
    account: str | None = None
    target: str | None = None
    name: str | None = None
    effect: str | None = None
    rule: str | None = None
    decision: str | None = None
    consent: str | None = None
    message: str | None = None
    duration_ms: float | None = None
    change: str | None = None
    digest: str | None = None
    """Of its arguments."""
    audit: tuple[Link, ...] = ()
    is_split: bool = False
    """Whether it is a batch that was approved: its calls stand for it."""

    @property
    def group(self) -> OutcomeGroup:
        return group_of(self.outcome)


_UNANSWERED = "It was sent, and no answer came: the process was stopped, or ended. Look in Fastn before repeating it."
_APPROVED = "It was approved, and not called again."
_TAKEN = ("principal", "account", "target", "name", "effect", "rule", "decision", "consent", "change", "digest")


class Tally:
    """The calls of one process, in the order in which they were first heard of."""

    def __init__(self) -> None:
        self._heard: list[Attempt] = []
        self.reads = 0
        self.head: Link | None = None
        """The newest entry of the audit."""
        self._step: int | None = None
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
        """Add an entry of the audit, or one like it that is in none."""
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
                if (attempt := self._of_grant.get(_text(line, "grant") or "")) is not None:
                    self._update(attempt, line, WAITING, _APPROVED)
                    attempt.is_split = attempt.is_split or event == AuditEvent.AGREED.value
            case _:
                pass  # of no call

    def begin_step(self, number: int) -> None:
        """Count what follows to call `number` of the script."""
        self._step = number

    def of_step(self, number: int) -> list[Attempt]:
        """What was tried for a call of the script."""
        return [attempt for attempt in self.attempts if attempt.step == number]

    def add(self, attempt: Attempt) -> None:
        """Add a call of which the audit knows nothing: one that never came so far."""
        self._heard.append(attempt)

    def _asked(self, line: Mapping[str, JsonValue]) -> None:
        attempt = self._latest(line, OutcomeGroup.WAITING)
        if attempt is not None and "n" not in line:
            return  # nothing new
        attempt = self._update(attempt or self._begin(line), line, WAITING, _text(line, "message"))
        if (grant := _text(line, "grant")) is not None:
            self._of_grant[grant] = attempt

    def _intent(self, line: Mapping[str, JsonValue]) -> None:
        grant = _text(line, "grant") or ""
        attempt = self._of_grant.get(grant)
        if attempt is not None and attempt.step != self._step:
            attempt = None  # another call of the script was approved by the same answer
        if attempt is None:
            attempt = self._latest(line, OutcomeGroup.WAITING) or self._begin(line)
        self._update(attempt, line, UNKNOWN, _UNANSWERED)
        if (batch := self._of_grant.get(grant.rpartition(".")[0])) is not None:
            attempt.audit = (*batch.audit, *attempt.audit)
        self._of_intent[str(line.get("n"))] = attempt

    def _outcome(self, line: Mapping[str, JsonValue]) -> None:
        attempt = self._of_intent.pop(str(line.get("of")), None)
        if attempt is None:
            return  # of a call that was sent before this began to listen
        took = line.get("duration_ms")
        self._update(attempt, line, _text(line, "outcome") or UNKNOWN, _text(line, "message"))
        attempt.duration_ms = took if isinstance(took, (int, float)) else None

    def _not_sent(self, line: Mapping[str, JsonValue], event: str) -> None:
        outcome = _text(line, "outcome") or event
        if (grant := _text(line, "grant")) is not None:  # a person decided on another channel
            attempt = self._of_grant.get(grant)
        else:
            again = (OutcomeGroup.WAITING, OutcomeGroup.DECLINED) if outcome == DECLINED else (OutcomeGroup.WAITING,)
            attempt = self._latest(line, *again) or self._begin(line)
        if attempt is not None:
            self._update(attempt, line, outcome, _text(line, "message"))

    def _latest(self, line: Mapping[str, JsonValue], *groups: OutcomeGroup) -> Attempt | None:
        """The newest attempt at exactly this call, where it is one of `groups`."""
        attempt = self._of_call.get(self._key(line))
        return None if attempt is None or attempt.is_split or attempt.group not in groups else attempt

    def _key(self, line: Mapping[str, JsonValue]) -> tuple[object, ...]:
        return (self._step, *(line.get(name) for name in ("principal", "account", "tool", "digest")))

    def _begin(self, line: Mapping[str, JsonValue]) -> Attempt:
        attempt = Attempt(_text(line, "time") or "", _text(line, "tool") or "", UNKNOWN, step=self._step)
        self._heard.append(attempt)
        self._of_call[self._key(line)] = attempt
        return attempt

    def _update(self, attempt: Attempt, line: Mapping[str, JsonValue], outcome: str, message: str | None) -> Attempt:
        """Add what an entry says to the attempt that it is about."""
        attempt.outcome, attempt.message, attempt.settled = outcome, message, _text(line, "time")
        for name in _TAKEN:
            if (value := _text(line, name)) is not None:
                setattr(attempt, name, value)
        if (link := _link(line)) is not None:
            attempt.audit = (*attempt.audit, link)
        return attempt


def _link(line: Mapping[str, JsonValue]) -> Link | None:
    n, event, hash_ = line.get("n"), line.get("event"), line.get("hash")
    if isinstance(n, int) and isinstance(event, str) and isinstance(hash_, str):
        return Link(n, event, hash_)
    return None


def _text(line: Mapping[str, JsonValue], name: str) -> str | None:
    value = line.get(name)
    return value if isinstance(value, str) else None
