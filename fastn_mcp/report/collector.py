"""Collect the calls of a process from its audit entries.

Several entries are one call: asked about, approved, sent, ended. A call that was asked about and is made again is the
same one; so is a declined one that is repeated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, cast

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
    DONE: OutcomeGroup.DONE,
    "applied_unreadable": OutcomeGroup.DONE,
    "gone": OutcomeGroup.DONE,
    "refused": OutcomeGroup.REFUSED,
    "target_changed": OutcomeGroup.REFUSED,
    DECLINED: OutcomeGroup.DECLINED,
    WAITING: OutcomeGroup.WAITING,
    UNKNOWN: OutcomeGroup.UNKNOWN,
    LEFT: OutcomeGroup.LEFT,
    PREVIEWED: OutcomeGroup.PREVIEWED,
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


@dataclass(frozen=True, slots=True)
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
        self._split: set[int] = set()
        """Batches that were agreed to: their calls stand for them."""
        self.reads = 0
        self.head: Link | None = None
        """The newest entry of the audit."""
        self._step: int | None = None
        self._of_grant: dict[str, int] = {}
        self._of_intent: dict[str, int] = {}
        self._of_call: dict[tuple[object, ...], int] = {}

    @property
    def attempts(self) -> list[Attempt]:
        """All of them."""
        return [attempt for at, attempt in enumerate(self._heard) if at not in self._split]

    def read(self) -> None:
        """A read was made."""
        self.reads += 1

    def entry(self, line: Mapping[str, JsonValue]) -> None:
        """An entry of the audit, or one like it that is in none."""
        try:
            event = AuditEvent(line.get("event"))
        except ValueError:
            return
        if (link := _link(line)) is not None:
            self.head = link
        match event:
            case AuditEvent.ASKED:
                self._asked(line)
            case AuditEvent.INTENT:
                self._intent(line)
            case AuditEvent.OUTCOME:
                self._outcome(line)
            case AuditEvent.REFUSED | AuditEvent.DECLINED:
                self._not_sent(line, event)
            case AuditEvent.APPROVED | AuditEvent.AGREED:
                self._approved(line, event)
            case (
                AuditEvent.EXPIRED
                | AuditEvent.SCOPE_REVOKED
                | AuditEvent.ANSWER_REFUSED
                | AuditEvent.LOG_SHORTENED
                | AuditEvent.LOG_DELETED
            ):
                pass

    def begin_step(self, number: int) -> None:
        """What follows belongs to call `number` of the script."""
        self._step = number

    def of_step(self, number: int) -> list[Attempt]:
        """What was tried for a call of the script."""
        return [attempt for attempt in self.attempts if attempt.step == number]

    def add(self, attempt: Attempt) -> None:
        """A call of which the audit knows nothing: one that never came so far."""
        self._heard.append(attempt)

    def _asked(self, line: Mapping[str, JsonValue]) -> None:
        at = self._latest(line, OutcomeGroup.WAITING)
        if at is not None and "n" not in line:
            return  # nothing new
        at = self._put(at, line, WAITING, _text(line, "message"))
        if (grant := _text(line, "grant")) is not None:
            self._of_grant[grant] = at

    def _approved(self, line: Mapping[str, JsonValue], event: AuditEvent) -> None:
        at = self._of_grant.get(_text(line, "grant") or "")
        if at is None:
            return
        self._put(at, line, WAITING, _APPROVED)
        if event is AuditEvent.AGREED:
            self._split.add(at)

    def _intent(self, line: Mapping[str, JsonValue]) -> None:
        at = self._of_grant.get(_text(line, "grant") or "")
        if at is not None and self._heard[at].step != self._step:
            at = None  # another call of the script was approved by the same answer
        at = self._put(self._latest(line, OutcomeGroup.WAITING) if at is None else at, line, UNKNOWN, _UNANSWERED)
        together = self._of_grant.get((_text(line, "grant") or "").rpartition(".")[0])
        if together is not None:
            had = self._heard[at]
            self._heard[at] = replace(had, audit=(*self._heard[together].audit, *had.audit))
        self._of_intent[str(line.get("n"))] = at

    def _outcome(self, line: Mapping[str, JsonValue]) -> None:
        at = self._of_intent.pop(str(line.get("of")), None)
        if at is None:
            return  # of a call that was sent before this began to listen
        took = line.get("duration_ms")
        self._put(at, line, _text(line, "outcome") or UNKNOWN, _text(line, "message"))
        self._heard[at] = replace(self._heard[at], duration_ms=took if isinstance(took, (int, float)) else None)

    def _not_sent(self, line: Mapping[str, JsonValue], event: AuditEvent) -> None:
        outcome = _text(line, "outcome") or event.value
        if (grant := _text(line, "grant")) is not None:  # a person decided, where the question lay
            if (at := self._of_grant.get(grant)) is not None:
                self._put(at, line, outcome, _text(line, "message"))
            return
        again = (OutcomeGroup.WAITING, OutcomeGroup.DECLINED) if outcome == DECLINED else (OutcomeGroup.WAITING,)
        self._put(self._latest(line, *again), line, outcome, _text(line, "message"))

    def _latest(self, line: Mapping[str, JsonValue], *groups: OutcomeGroup) -> int | None:
        """The newest attempt at exactly this call, where it is one of `groups`."""
        at = self._of_call.get(self._key(line))
        if at is None or at in self._split:
            return None
        return at if self._heard[at].group in groups else None

    def _key(self, line: Mapping[str, JsonValue]) -> tuple[object, ...]:
        return (self._step, *(line.get(name) for name in ("principal", "account", "tool", "digest")))

    def _put(self, at: int | None, line: Mapping[str, JsonValue], outcome: str, message: str | None) -> int:
        """Add to an attempt, or begin one; where it stands."""
        if at is None:
            self._heard.append(Attempt(_text(line, "time") or "", _text(line, "tool") or "", outcome, step=self._step))
            at = len(self._heard) - 1
            self._of_call[self._key(line)] = at
        had = self._heard[at]
        said = {name: value for name in _TAKEN if (value := _text(line, name)) is not None}
        link = _link(line)
        self._heard[at] = replace(
            had,
            outcome=outcome,
            message=message,
            settled=_text(line, "time"),
            audit=had.audit if link is None else (*had.audit, link),
            **cast("dict[str, Any]", said),
        )
        return at


def _link(line: Mapping[str, JsonValue]) -> Link | None:
    n, event, hash_ = line.get("n"), line.get("event"), line.get("hash")
    if isinstance(n, int) and isinstance(event, str) and isinstance(hash_, str):
        return Link(n, event, hash_)
    return None


def _text(line: Mapping[str, JsonValue], name: str) -> str | None:
    value = line.get(name)
    return value if isinstance(value, str) else None
