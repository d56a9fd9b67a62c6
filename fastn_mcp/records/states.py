"""States of workflows, connections, triggers and runs, from the documented fields of their rows.

Tables hold documented values only. Any other value is `State.UNKNOWN`: each caller decides how to treat it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

from fastn_mcp.records.formats import dated
from fastn_mcp.records.rows import Row, as_word, number, objects, short, text, timestamp, value, word


class State(Enum):
    """State of a resource, as far as its row tells. The value is the word that users read, the same for every kind."""

    LIVE = "live"
    """A workflow that runs, a connection that works, a trigger that fires."""
    OFF = "switched off"
    """An inactive workflow or connection, a disabled trigger."""
    BROKEN = "broken"
    """A connection that lost its credentials; a trigger that its app does not call."""
    DRAFT = "never published"
    UNKNOWN = "unknown"

    @property
    def is_usable(self) -> bool:
        """Whether it certainly runs, works or fires. A resource in an unknown state is neither usable nor broken."""
        return self is State.LIVE

    @property
    def is_broken(self) -> bool:
        """Whether it certainly does not run, work or fire: it failed, was switched off or was never published."""
        return self in (State.BROKEN, State.OFF, State.DRAFT)


class RunState(Enum):
    """State of a run, as far as its row tells."""

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
    "inactive": State.OFF,
    "expired": State.BROKEN,
    "failed": State.BROKEN,
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

CONNECTION_STATUSES = tuple(status.upper() for status in _CONNECTION)
"""Documented statuses of connections."""

BROKEN_STATUSES = tuple(status.upper() for status, state in reversed(_CONNECTION.items()) if state.is_broken)
"""Statuses of broken connections, the worst first."""

PENDING = "Pending Admin Activation"
"""Status of a customer whose admin has not accepted the invitation."""

MANY_FAILURES = 3
"""Consecutive failures from which on a trigger is reported, and Fastn may have disabled it."""

_PLATFORM = ("platform", "system", "fastn", "auto")


def workflow_state(row: Row) -> State:
    """Return whether a workflow runs. A draft does if an earlier version is published."""
    status = word(row, "status")
    published = _is_published(row)
    if status == "inactive":
        return State.OFF
    if status in _UNPUBLISHED:
        return State.LIVE if published else State.DRAFT
    return State.LIVE if status == "active" and published is not False else State.UNKNOWN


def _is_published(row: Row) -> bool | None:
    """Return whether a workflow has a published version; None if the row does not tell."""
    version = value(row, "publishedVersion")
    if version not in (None, "") and word(row, "publishedVersion") != "unpublished":
        return True
    is_known = "publishedVersion" in row or "published_version" in row or word(row, "version") == "unpublished"
    return False if is_known else None


def is_pending(customer: Row) -> bool:
    """Return whether a customer waits for its admin to accept the invitation: nothing runs for it until then."""
    return word(customer, "status") == as_word(PENDING)


def is_unfinished(kind: str, row: Row) -> bool:
    """Return whether it is a workflow that was never published, or a customer that is not active yet."""
    return workflow_state(row) is State.DRAFT if kind == "workflow" else kind == "customer" and is_pending(row)


def connection_state(row: Row) -> State:
    return _CONNECTION.get(word(row, "status"), State.UNKNOWN)


def broken_since(connection: Row, now: datetime) -> str:
    """Return since when a connection is broken, as far as its row tells.

    Of one that was switched off that is not its expiry: the row does not tell when that was done.
    """
    expired = timestamp(connection, "expiresAt")
    used = timestamp(connection, "lastUsedAt", "lastUsed")
    is_off = connection_state(connection) is State.OFF
    if expired is not None and expired <= now and not is_off:
        return dated(expired, now)
    return f"last used {dated(used, now)}" if used else "at an unknown time"


def trigger_state(row: Row) -> State:
    """Return whether a trigger fires, by its status and its subscription at the app."""
    status = word(row, "status")
    if status == "disabled":
        return State.OFF
    subscription = _SUBSCRIPTION.get(word(row, "subscriptionStatus"), State.UNKNOWN)
    return subscription if status == "active" or subscription is State.BROKEN else State.UNKNOWN


def run_state(row: Row) -> RunState:
    """Return whether a run has ended, and how. An unknown status counts as under way."""
    return _RUN.get(word(row, "status"), RunState.UNDER_WAY)


def state_in_words(status: str) -> State | RunState | None:
    """Return the state that a status tells of whatever has it; None if it is not a documented one."""
    word = as_word(status)
    named = next((state for state in (*State, *RunState) if state.value == word), None)
    return named or _RUN.get(word) or _CONNECTION.get(word) or _SUBSCRIPTION.get(word or "-")


def failure_reason(run: Row) -> str:
    """Return why a run failed; empty if it did not fail or its row does not tell."""
    return text(run, "error.headline", "error.message", "error") if run_state(run).is_failure else ""


STATES: Mapping[str, Callable[[Row], State]] = {
    "connections": connection_state,
    "triggers": trigger_state,
    "workflows": workflow_state,
}
"""State functions by kind."""


def status_and_state(kind: str, row: Row) -> dict[str, str]:
    """Return the status of a resource of a kind such as `workflow`, and its state unless the status says it."""
    status = text(row, "status")
    state = STATES.get(f"{kind}s", lambda _: State.UNKNOWN)(row)
    words = {"status": status} if status else {}
    is_plain = state is State.UNKNOWN or (state.is_usable and as_word(status) == "active")
    return words if is_plain else words | {"state": state.value}


@dataclass(frozen=True, slots=True)
class SwitchOff:
    """Who disabled a trigger, when and why. Fields are empty or None if the row does not tell."""

    by: str
    is_platform: bool
    """Whether Fastn itself did. Presumed after many consecutive failures if nobody is named."""
    at: datetime | None
    reason: str

    @property
    def is_presumed(self) -> bool:
        return self.is_platform and not self.by


def switched_off(row: Row) -> SwitchOff:
    """Return who disabled a trigger, when and why, from the newest such entry of its status history."""
    entries = [entry for entry in objects(row, "statusHistory") if word(entry, "status", "to") == "disabled"]
    never = datetime.min.replace(tzinfo=UTC)
    entry: Row = max(reversed(entries), key=lambda entry: _at(entry) or never) if entries else {}
    by = short(text(entry, "by.name", "by", "actor.name", "actor", "changedBy"))
    failures = number(row, "consecutiveFailures") or 0
    is_platform = by.lower() in _PLATFORM if by else failures >= MANY_FAILURES
    return SwitchOff(by, is_platform, _at(entry), short(text(entry, "reason")))


def _at(entry: Row) -> datetime | None:
    return timestamp(entry, "at", "timestamp", "createdAt")


OAUTH = ("oauth", "oauth 2", "oauth 2.0", "oauth2")
"""Auth types whose tokens Fastn refreshes; EXPIRED means that it failed."""


def auth_type(connection: Row) -> str:
    """Return how a connection signs in, as one word in lower case; empty if its row does not tell."""
    return word(connection, "authType", "auth.type")


def renews_itself(connection: Row, now: datetime) -> bool:
    """Whether Fastn certainly renews a connection's credentials, while its refresh token is valid.

    It has not renewed those whose expiry has passed.
    """
    expires = timestamp(connection, "expiresAt")
    return auth_type(connection) in OAUTH and (expires is None or expires > now)


def is_unused(key: Row) -> bool | None:
    """Return whether an API key was never used; None if its row does not tell."""
    fields = ("lastUsed", "lastUsedAt", "last_used", "last_used_at")
    return word(key, *fields) in ("", "never") if any(field in key for field in fields) else None
