"""One call that was tried, or was to be, and what became of it. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Group(Enum):
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

_GROUPS: Mapping[str, Group] = {
    DONE: Group.DONE,
    "applied_unreadable": Group.DONE,
    "gone": Group.DONE,
    "refused": Group.REFUSED,
    "target_changed": Group.REFUSED,
    DECLINED: Group.DECLINED,
    WAITING: Group.WAITING,
    UNKNOWN: Group.UNKNOWN,
    LEFT: Group.LEFT,
    PREVIEWED: Group.PREVIEWED,
}


def group_of(outcome: str) -> Group:
    """The group of an outcome. Whatever is none of the others has failed."""
    return _GROUPS.get(outcome, Group.FAILED)


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
    def group(self) -> Group:
        return group_of(self.outcome)
