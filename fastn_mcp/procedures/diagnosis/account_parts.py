"""Problems of workflows, connections and triggers, and who can fix them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from fastn_mcp.fastn.names import label_of
from fastn_mcp.fastn.rows import (
    Row,
    connector_keys,
    key_of,
    number,
    owner_of,
    short,
    started_workflows,
    text,
    value,
    word,
)
from fastn_mcp.fastn.states import State, connection_state, switched_off, trigger_state, workflow_state
from fastn_mcp.procedures.tables import age


@dataclass(frozen=True, slots=True)
class WorkflowSetup:
    """Configuration of a workflow. Unknown fields are empty."""

    name: str
    tier: str
    timeout_ms: float | None
    apps: tuple[str, ...]
    """Slugs or ids of the connectors in its manifest."""
    cannot_run: str
    """Why it cannot run at all; empty if it can."""


@dataclass(frozen=True, slots=True)
class PartState:
    """A connection or trigger, with its state and problem."""

    row: Row
    label: str
    """As `TikTok Shop of Katana`."""
    status: str
    state: State
    problem: str = ""
    """Empty if there is none."""

    @property
    def id(self) -> str:
        return key_of(self.row)

    @property
    def customer(self) -> str | None:
        """Id of its customer; None if it is the account's own."""
        return owner_of(self.row)


_CANNOT_RUN = {
    State.DRAFT: "it was never published (WORKFLOW_NOT_PUBLISHED); somebody has to, in the dashboard",
    State.OFF: "the workflow is switched off (inactive)",
}


def workflow_setup(row: Row) -> WorkflowSetup:
    apps = row.get("connectors")
    return WorkflowSetup(
        name=short(text(row, "name", "slug"), 120),
        tier=text(row, "executionTier").upper(),
        timeout_ms=number(row, "timeoutMs"),
        apps=tuple(app for entry in apps if (app := _app(entry))) if isinstance(apps, list) else (),
        cannot_run=_CANNOT_RUN.get(workflow_state(row), ""),
    )


def _app(entry: JsonValue) -> str:
    return text(entry, "slug", "connectorId", "id", "name") if isinstance(entry, dict) else str(entry or "")


_PROBLEMS = {
    "FAILED": "its authorisation was revoked or no longer fits",
    "EXPIRED": "its credentials could not be renewed",
    "INACTIVE": "it was switched off",
}


def connection_states(rows: Iterable[Row], customers: Mapping[str, str]) -> list[PartState]:
    """Return the connections, those not live first. `customers` maps ids to names."""
    found: list[PartState] = []
    for row in rows:
        label = short(str(label_of("connection", row, {"customer": customers}) or key_of(row)))
        status = short(text(row, "status").upper()) or "UNKNOWN"
        found.append(PartState(row, label, status, connection_state(row), _PROBLEMS.get(status, "")))
    return sorted(found, key=lambda connection: connection.state is State.LIVE)


def connections_to(apps: Iterable[str], connections: Iterable[PartState]) -> list[PartState]:
    """Return the connections to any of these apps, named by slug or id."""
    names = {*apps}
    return [connection for connection in connections if connector_keys(connection.row) & names]


def who_authorises(broken: Iterable[PartState], customer: str = "the customer") -> tuple[str, str]:
    """Return who has to authorise the app again for these connections, and where."""
    owned = [connection.customer is not None for connection in broken]
    if all(owned):
        return customer, "the widget"
    if not any(owned):
        return "somebody", "the dashboard, for the account itself"
    return f"{customer}, or somebody for the account itself,", "the widget or the dashboard"


def trigger_states(rows: Iterable[Row], now: datetime) -> list[PartState]:
    """Return the triggers, those with a problem first."""
    return sorted((_trigger_state(row, now) for row in rows), key=lambda trigger: not trigger.problem)


def triggers_of(workflow_id: str, triggers: Iterable[Row]) -> list[Row]:
    """Return the triggers that start a workflow."""
    return [row for row in triggers if workflow_id in started_workflows(row)]


def failures_in_a_row(trigger: Row) -> int:
    return int(number(trigger, "consecutiveFailures") or 0)


def _trigger_state(row: Row, now: datetime) -> PartState:
    status, state = short(text(row, "status")), trigger_state(row)
    subscription = short(text(row, "subscriptionStatus").upper())
    problem = ""
    if state is State.OFF:
        problem = _disabled(row, now)
    elif state is State.BROKEN:
        problem = f"{status or 'Not disabled'}, but its subscription is {subscription}: it never fires"
    elif state is State.UNKNOWN:
        known = filter(None, (status and f"status {status}", subscription and f"subscription {subscription}"))
        problem = f"whether it fires is not known ({', '.join(known) or 'it has no status'})"
    elif value(row, "manualRegistrationRequired") is True:
        problem = "its webhook has to be registered at the app by hand"
    elif failures := failures_in_a_row(row):
        problem = f"{failures} consecutive failures; the platform switches it off after too many"
    return PartState(row, text(row, "name"), status or "unknown", state, problem)


def _disabled(row: Row, now: datetime) -> str:
    """Describe who disabled a trigger, when and why, as far as its history says."""
    off = switched_off(row)
    by = "the platform" if off.is_platform else off.by
    who = f" {'probably ' if off.is_presumed else ''}by {by}" if by else ""
    ago = "" if off.at is None else f" {age(off.at, now)}"
    reason = off.reason.rstrip(".")
    return f"disabled{who}{ago}" + (f": {reason}" if reason else "")


def is_public(trigger: Row) -> bool:
    """Whether the trigger is a webhook without authentication."""
    protection = word(trigger, "authentication.type", "authentication", "auth")
    return "webhook" in (word(trigger, "type") or "webhook") and protection in ("none", "public", "no auth")
