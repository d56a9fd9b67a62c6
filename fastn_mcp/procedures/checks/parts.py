"""Connections and triggers with their states and problems, and who can repair a connection."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from fastn_mcp.records.formats import counted, quoted, sentence
from fastn_mcp.records.labels import ACCOUNT, app_of, label_of, owner_name
from fastn_mcp.records.rows import Row, connector_keys, key_of, owner_of, short, text, word
from fastn_mcp.records.states import OAUTH, State, auth_type, connection_state


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
    fix: str = ""
    """What helps."""

    @property
    def id(self) -> str:
        return key_of(self.row)

    @property
    def customer(self) -> str | None:
        """Id of its customer; None if it is the account's own."""
        return owner_of(self.row)


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
        part = PartState(
            row, label, owner, status=status, state=connection_state(row), problem=_PROBLEMS.get(status, "")
        )
        states.append(replace(part, fix=repairs([part])) if part.state.is_broken else part)
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

    A run uses the connections of the customer and of the account. An app is left out if one of its connections works.
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
    owners: dict[tuple[str, bool], list[str]] = {}
    for connection in connections:
        app = quoted(app_of(connection.row)) if named else "the app"
        owners.setdefault((_repair(connection, app), connection.customer is None), []).append(quoted(connection.owner))
    return " ".join(sentence(f"{_who(who, named)} {action}.") for (action, _), who in owners.items())


def repair(connection: PartState) -> str:
    """Return what has to be done to repair a connection, and where: `authorise TikTok Shop again in the widget`."""
    return _repair(connection, quoted(app_of(connection.row)))


def _repair(connection: PartState, app: str) -> str:
    action = _BY_AUTH_TYPE.get(auth_type(connection.row), _BY_ANY_AUTH_TYPE)
    if connection.state is State.OFF:
        action = "reconnect {}"
    by_customer = connection.customer is not None and connection.state is not State.OFF
    return f"{action.format(app)} in {'the widget' if by_customer else 'the dashboard'}"


def _who(owners: Sequence[str], named: int) -> str:
    if ACCOUNT in owners:
        return "for your own account, a person has to"
    who = listed(owners, named) if named else counted(len(owners), "customer")
    return f"{who} {'has' if len(owners) == 1 else 'have'} to"


def listed(names: Sequence[str], most: int = 3) -> str:
    """Return names for a sentence, each once: `A, B and 2 more`."""
    unique = list(dict.fromkeys(names))
    more = len(unique) - most
    if more > 1:
        unique = [*unique[:most], f"{more} more"]
    return " and ".join(filter(None, (", ".join(unique[:-1]), *unique[-1:])))
