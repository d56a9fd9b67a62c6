"""What a workflow needs to run: its own state, its triggers and its connections."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from fastn_mcp.fastn.names import label_of
from fastn_mcp.fastn.rows import Row, connector_keys, key_of, number, owner_of, short, text, value
from fastn_mcp.fastn.states import State, connection_state, switched_off, trigger_state, workflow_state
from fastn_mcp.procedures.tables import age
from fastn_mcp.redaction import texts_in


@dataclass(frozen=True, slots=True)
class Setup:
    """A workflow as it is set up. What is not known is empty."""

    name: str = ""
    tier: str = ""
    timeout_ms: float | None = None
    apps: tuple[str, ...] = ()
    """Slugs or ids of the connectors of its manifest."""
    cannot_run: str = ""
    """Why it cannot run at all, where that is so."""


@dataclass(frozen=True, slots=True)
class ConnectionState:
    """A connection: of whom, to what, and whether it works."""

    id: str
    label: str
    """As `TikTok Shop of Katana`."""
    customer: str | None
    status: str
    state: State


@dataclass(frozen=True, slots=True)
class TriggerState:
    """A trigger that starts the workflow, and what is wrong with it."""

    id: str
    name: str
    kind: str
    status: str
    problem: str
    """Empty where nothing is."""
    state: State


def setup(workflow: Row) -> Setup:
    """The workflow of this row."""
    apps = workflow.get("connectors")
    return Setup(
        name=short(text(workflow, "name", "slug"), 120),
        tier=text(workflow, "executionTier").upper(),
        timeout_ms=number(workflow, "timeoutMs"),
        apps=tuple(app for entry in apps if (app := _app(entry))) if isinstance(apps, list) else (),
        cannot_run=_CANNOT_RUN.get(workflow_state(workflow), ""),
    )


_CANNOT_RUN = {
    State.DRAFT: "it was never published (WORKFLOW_NOT_PUBLISHED); somebody has to, in the dashboard",
    State.OFF: "the workflow is switched off (inactive)",
}


def _app(entry: JsonValue) -> str:
    return text(entry, "slug", "connectorId", "id", "name") if isinstance(entry, dict) else str(entry or "")


def connection_states(rows: Iterable[Row], apps: Iterable[str], names: Mapping[str, str]) -> list[ConnectionState]:
    """The connections to these apps, those that do not work first. `names` are of customers, by id."""
    wanted = set(apps)
    found: dict[str, ConnectionState] = {}
    for row in rows:
        if not (connector_keys(row) & wanted):
            continue
        label = short(str(label_of("connection", row, {"customer": names}) or key_of(row)))
        status = short(text(row, "status").upper()) or "UNKNOWN"
        found[key_of(row) or label] = ConnectionState(key_of(row), label, owner_of(row), status, connection_state(row))
    return sorted(found.values(), key=lambda connection: connection.state is State.LIVE)


def trigger_states(rows: Iterable[Row], workflow_id: str, now: datetime) -> list[TriggerState]:
    """The triggers that name the workflow, those with a problem first."""
    found = [_trigger_state(row, now) for row in rows if workflow_id in texts_in(row.get("routes"))]
    return sorted(found, key=lambda trigger: not trigger.problem)


def _trigger_state(row: Row, now: datetime) -> TriggerState:
    status, state = short(text(row, "status")), trigger_state(row)
    subscription = short(text(row, "subscriptionStatus").upper())
    failures = number(row, "consecutiveFailures")
    problem = ""
    if state is State.OFF:
        problem = _disabled(row, now)
    elif state is State.BROKEN:
        problem = f"{status or 'Not disabled'}, but its subscription is {subscription}: it never fires"
    elif state is State.UNKNOWN:
        said = filter(None, (status and f"status {status}", subscription and f"subscription {subscription}"))
        problem = f"whether it fires is not known ({', '.join(said) or 'it has no status'})"
    elif value(row, "manualRegistrationRequired") is True:
        problem = "its webhook has to be registered at the app by hand"
    elif failures:
        problem = f"{failures:.0f} consecutive failures; the platform switches it off after too many"
    return TriggerState(key_of(row), text(row, "name"), text(row, "type"), status or "unknown", problem, state)


def _disabled(row: Row, now: datetime) -> str:
    """Who switched it off, when and why, as far as its history says."""
    off = switched_off(row)
    by = "the platform" if off.is_platform else off.by
    who = f" {'probably ' if off.is_presumed else ''}by {by}" if by else ""
    ago = "" if off.at is None else f" {age(off.at, now)}"
    reason = off.reason.rstrip(".")
    return f"disabled{who}{ago}" + (f": {reason}" if reason else "")
