"""Whether a workflow runs, a connection works and a trigger fires, by what Fastn documents of their rows.

Lists name documented values only. What anything else means is not known: each caller says what it makes of that.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from fastn_mcp.fastn.rows import Row, number, objects, short, text, timestamp, value, word


class State(Enum):
    """What a resource does, as far as its row says."""

    LIVE = "live"
    """A workflow that runs, a connection that works, a trigger that fires."""
    OFF = "switched off"
    BROKEN = "broken"
    """A connection that lost its credentials; a trigger that its app does not call."""
    DRAFT = "never published"
    UNKNOWN = "unknown"


class RunState(Enum):
    """How a run stands, as far as its row says."""

    UNDER_WAY = "under way"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        return self is not RunState.UNDER_WAY

    @property
    def is_failure(self) -> bool:
        return self in (RunState.FAILED, RunState.TIMED_OUT)


_CONNECTION = {
    "active": State.LIVE,
    "failed": State.BROKEN,
    "expired": State.BROKEN,
    "inactive": State.OFF,
}
_SUBSCRIPTION = {
    "": State.LIVE,
    "active": State.LIVE,
    "subscribed": State.LIVE,
    "failed": State.BROKEN,
    "not subscribed": State.BROKEN,
}
_RUN = {
    **dict.fromkeys(("completed", "success", "succeeded"), RunState.COMPLETED),
    **dict.fromkeys(("failed", "error"), RunState.FAILED),
    **dict.fromkeys(("timeout", "timed out"), RunState.TIMED_OUT),
    **dict.fromkeys(("cancelled", "canceled"), RunState.CANCELLED),
}
_UNPUBLISHED = ("draft", "not published")

NOT_WORKING = tuple(status.upper() for status, state in _CONNECTION.items() if state is not State.LIVE)
"""The statuses of connections that cannot be used."""

PENDING = "Pending Admin Activation"
"""The status of a customer whose admin has not accepted the invitation."""

MANY_FAILURES = 3
"""Failures in a row after which a trigger is worth a word, and Fastn may have switched it off."""

_PLATFORM = ("platform", "system", "fastn", "auto")


def workflow_state(row: Row) -> State:
    """Whether it runs. A draft whose earlier version is published does."""
    status, published = word(row, "status"), _is_published(row)
    if status == "inactive":
        return State.OFF
    if status in _UNPUBLISHED:
        return State.LIVE if published else State.DRAFT
    return State.LIVE if status == "active" and published is not False else State.UNKNOWN


def _is_published(row: Row) -> bool | None:
    """Whether it has a published version; None where the row does not say."""
    version = value(row, "publishedVersion")
    if version not in (None, "") and word(row, "publishedVersion") != "unpublished":
        return True
    says = "publishedVersion" in row or "published_version" in row or word(row, "version") == "unpublished"
    return False if says else None


def connection_state(row: Row) -> State:
    """Whether it works."""
    return _CONNECTION.get(word(row, "status"), State.UNKNOWN)


def trigger_state(row: Row) -> State:
    """Whether it fires. Its subscription at the app is apart from its status."""
    status = word(row, "status")
    if status == "disabled":
        return State.OFF
    subscription = _SUBSCRIPTION.get(word(row, "subscriptionStatus"), State.UNKNOWN)
    return subscription if status == "active" or subscription is State.BROKEN else State.UNKNOWN


def run_state(row: Row) -> RunState:
    """Whether it has ended, and how. One whose status is not known still runs."""
    return _RUN.get(word(row, "status"), RunState.UNDER_WAY)


STATES: Mapping[str, Callable[[Row], State]] = {
    "connections": connection_state,
    "triggers": trigger_state,
    "workflows": workflow_state,
}
"""By kind."""


@dataclass(frozen=True, slots=True)
class SwitchOff:
    """Who switched something off, when and why; empty or None where the row does not say."""

    by: str
    is_platform: bool
    """Whether it was Fastn itself; so it is presumed of many failures in a row where nobody is named."""
    at: datetime | None
    reason: str

    @property
    def is_presumed(self) -> bool:
        return self.is_platform and not self.by


def switched_off(row: Row) -> SwitchOff:
    """How a trigger that is disabled came to be so, by the newest entry of its history that says it."""
    entries = [entry for entry in objects(row, "statusHistory") if word(entry, "status", "to") == "disabled"]
    entry: Row = max(reversed(entries), key=_when) if entries else {}
    by = short(text(entry, "by.name", "by", "actor.name", "actor", "changedBy"))
    failures = number(row, "consecutiveFailures") or 0
    is_platform = by.lower() in _PLATFORM if by else failures >= MANY_FAILURES
    return SwitchOff(by, is_platform, _at(entry), short(text(entry, "reason")))


def _at(entry: Row) -> datetime | None:
    return timestamp(entry, "at", "timestamp", "createdAt")


def _when(entry: Row) -> datetime:
    return _at(entry) or datetime.min.replace(tzinfo=UTC)
