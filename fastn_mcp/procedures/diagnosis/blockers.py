"""States and problems of workflows, connections and triggers, what each blocks, and who can repair it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from fastn_mcp.records.formats import age, counted, quoted, sentence
from fastn_mcp.records.labels import ACCOUNT, app_of, label_of, name_of, owner_name
from fastn_mcp.records.platform import PUBLIC, webhook_authentication
from fastn_mcp.records.rows import Row, connector_keys, key_of, number, owner_of, short, text, value, word
from fastn_mcp.records.states import (
    OAUTH,
    State,
    auth_type,
    connection_state,
    switched_off,
    trigger_state,
    workflow_state,
)


@dataclass(frozen=True, slots=True)
class PartState:
    """A connection or trigger, with its state and problem."""

    row: Row
    label: str
    """As `TikTok Shop of Katana`."""
    owner: str
    """Name of its customer, or `ACCOUNT`."""
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


_BLOCKED = {
    State.DRAFT: (
        f"was {State.DRAFT.value}: every run of it is refused (WORKFLOW_NOT_PUBLISHED) until somebody publishes "
        "it in the dashboard"
    ),
    State.OFF: f"is {State.OFF.value}: no trigger starts it, and run_workflow still does",
}


def blocked(workflow: Row) -> str:
    """Return what the state of a workflow prevents, as a predicate, for example `is …`; empty if nothing."""
    return _BLOCKED.get(workflow_state(workflow), "")


def apps_of(workflow: Row) -> list[str]:
    """Return the slugs or ids of the connectors in the manifest of a workflow."""
    apps = workflow.get("connectors")
    slugs = (
        text(app, "slug", "connectorId", "id", "name") if isinstance(app, dict) else str(app or "")
        for app in (apps if isinstance(apps, list) else ())
    )
    return [*filter(None, slugs)]


_PROBLEMS = {
    "FAILED": "authorisation revoked, or no longer valid",
    "EXPIRED": "credentials could not be renewed",
    "INACTIVE": State.OFF.value,
}


def connection_states(rows: Iterable[Row], customers: Mapping[str, str]) -> list[PartState]:
    """Return the connections, those not live first. `customers` maps ids to names."""
    states: list[PartState] = []
    for row in rows:
        label = short(str(label_of("connection", row, {"customer": customers}) or key_of(row)))
        status = short(text(row, "status").upper()) or "UNKNOWN"
        owner = owner_name(row, customers)
        states.append(
            PartState(row, label, owner, status=status, state=connection_state(row), problem=_PROBLEMS.get(status, ""))
        )
    return sorted(states, key=lambda connection: connection.state.is_usable)


def connections_to(apps: Iterable[str], connections: Iterable[PartState]) -> list[PartState]:
    """Return the connections to any of these apps, named by slug or id."""
    names = {*apps}
    return [connection for connection in connections if connector_keys(connection.row) & names]


_OWNERS_BY_SCOPE = {"multi tenant": (False,), "saas": (True,)}
"""Whether the account's own connections are used, or those of a run's customer. Without a known scope it may be
both."""


def broken_for(workflow: Row, customer: str | None, connections: Sequence[PartState]) -> list[PartState]:
    """Return the broken connections that a run of a workflow for a customer meets, as far as `connections` tell.

    These are the connections of the customer and of the account. An app of which one of them works is not met.
    """
    met: list[PartState] = []
    apps = workflow.get("connectors")
    for app in apps if isinstance(apps, list) else ():
        scope = word(app, "scope") if isinstance(app, dict) else ""
        usable = connections_to(apps_of({"connectors": [app]}), connections)
        owners = _OWNERS_BY_SCOPE.get(scope, (True, False))
        own = [each for each in usable if (each.customer is None) in owners and each.customer in (None, customer)]
        if all(each.state.is_broken for each in usable):
            met += own
    return met


_BY_AUTH_TYPE = {
    **dict.fromkeys(OAUTH, "authorise {} again"),
    "api key": "enter a new API key for {}",
    "bearer": "enter a new token for {}",
    **dict.fromkeys(("basic", "digest"), "enter user name and password for {} again"),
    "input": "enter the credentials for {} again",
}
_BY_ANY_AUTH_TYPE = "authorise {} again, or enter its credentials again,"


def repairs(connections: Iterable[PartState], *, named: int = 3) -> str:
    """Return who has to do what, and where, to repair each of these connections, by its auth type.

    At most `named` owners are named for each app; with 0, they are counted for all apps.
    """
    owners: dict[tuple[str, str, bool], list[str]] = {}
    for connection in connections:
        app = quoted(app_of(connection.row)) if named else "the app"
        action = _repair(connection)
        by_customer = connection.customer is not None and connection.state is not State.OFF
        where = "the widget" if by_customer else "the dashboard"
        owners.setdefault((action.format(app), where, connection.customer is None), []).append(quoted(connection.owner))
    return " ".join(sentence(f"{_who(who, named)} {action} in {where}.") for (action, where, _), who in owners.items())


def _repair(connection: PartState) -> str:
    """Return what repairs a connection; `{}` stands for its app."""
    if connection.state is State.OFF:
        return "reconnect {}"
    return _BY_AUTH_TYPE.get(auth_type(connection.row), _BY_ANY_AUTH_TYPE)


def brief_repairs(connections: Iterable[PartState]) -> list[str]:
    """Return what repairs each of these connections, for a cell of a table: `authorise HubSpot again`."""
    return [_repair(each).format(quoted(app_of(each.row))).rstrip(",") for each in connections]


def _who(owners: Sequence[str], named: int) -> str:
    if ACCOUNT in owners:
        return "for the account itself, somebody has to"
    who = listed(owners, named) if named else counted(len(owners), "customer")
    return f"{who} {'has' if len(owners) == 1 else 'have'} to"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return names for a sentence, each once: `A, B and 2 more`."""
    unique = list(dict.fromkeys(names))
    more = len(unique) - most
    if more > 1:
        unique = [*unique[:most], f"{more} more"]
    return " and ".join(filter(None, (", ".join(unique[:-1]), *unique[-1:])))


def trigger_states(rows: Iterable[Row], now: datetime, customers: Mapping[str, str]) -> list[PartState]:
    """Return the triggers, the ones with a problem first. `customers` maps ids to names."""
    states = [_trigger_state(row, now, customers) for row in rows]
    return sorted(states, key=lambda trigger: not trigger.problem)


def failures_in_a_row(trigger: Row) -> int:
    return int(number(trigger, "consecutiveFailures") or 0)


def _trigger_state(row: Row, now: datetime, customers: Mapping[str, str]) -> PartState:
    status = short(text(row, "status"))
    state = trigger_state(row)
    subscription = short(text(row, "subscriptionStatus").upper())
    problem = ""
    if state is State.OFF:
        problem = _disabled(row, now)
    elif state is State.BROKEN:
        problem = f"{quoted(status or 'on')}, but it never fires, since its subscription is {quoted(subscription)}"
    elif state is State.UNKNOWN:
        known = filter(
            None, (status and f"status {quoted(status)}", subscription and f"subscription {quoted(subscription)}")
        )
        problem = f"whether it fires is not known ({', '.join(known) or 'it has no status'})"
    elif value(row, "manualRegistrationRequired") is True:
        problem = "its webhook has to be registered at the app by hand"
    elif failures := failures_in_a_row(row):
        problem = f"{counted(failures, 'failure')} in a row; Fastn switches it off after too many"
    return PartState(
        row, name_of(row), owner_name(row, customers), status=status or "unknown", state=state, problem=problem
    )


def _disabled(row: Row, now: datetime) -> str:
    """Describe who disabled a trigger, when and why, as far as its history says."""
    off = switched_off(row)
    by = "Fastn" if off.is_platform else off.by and quoted(off.by)
    who = f" {'probably ' if off.is_presumed else ''}by {by}" if by else ""
    ago = "" if off.at is None else f" {age(min(off.at, now), now)}"
    failures = failures_in_a_row(row)
    if off.is_platform and failures and (not off.reason or "consecutive failures" in off.reason):
        return f"{State.OFF.value}{who}{ago}, after {counted(failures, 'failure')} in a row"
    reason = off.reason.rstrip(".") if off.is_platform and off.by else quoted(off.reason)
    return f"{State.OFF.value}{who}{ago}" + (f": {reason}" if reason else "")


def is_public(trigger: Row) -> bool:
    """Whether the trigger is a webhook without authentication."""
    return "webhook" in (word(trigger, "type") or "webhook") and webhook_authentication(trigger) in PUBLIC
