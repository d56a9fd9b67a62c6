"""Broken connections, whose they are, and which workflows fail because of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.fastn.names import app_of, owner_name
from fastn_mcp.fastn.rows import Row, connector_keys, key_of, owner_of, text, timestamp, value, word
from fastn_mcp.fastn.states import State, connection_state
from fastn_mcp.procedures.diagnosis.workflow_state import setup
from fastn_mcp.procedures.overview.run_checks import Failing
from fastn_mcp.procedures.tables import dated
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.tool import suggested

_ROOM = 7_300
"""Characters of an answer."""

_LESS_AND_LESS = ((True, 9, 100), (False, 9, 100), (False, 3, 100), (False, 1, 10), (False, 0, 3), (False, 0, 1))
"""Whether ids of customers and what is switched off are told, and how many workflows and connections of an app."""

_FIXES = {
    State.BROKEN: "Each customer has to authorise the app again in the widget; no call from here can do it.",
    State.OFF: "What is inactive was switched off; somebody has to reconnect it in the dashboard.",
}


@dataclass(slots=True)
class _App:
    """An app to which connections do not work."""

    name: str
    keys: set[str] = field(default_factory=set[str])
    """By what workflows may name it."""
    rows: list[Row] = field(default_factory=list[Row])


@dataclass(frozen=True, slots=True)
class Breakage:
    """What was read. `failing` are workflows with their failed runs, `customers` names by id."""

    connections: Sequence[Row]
    workflows: Sequence[Row]
    failing: Sequence[Failing]
    customers: Mapping[str, str]
    now: datetime

    def data(self) -> dict[str, JsonValue]:
        """By app, the most concerned first. What there is no room for is left out, and said."""
        apps = _apps(self.connections)
        states = Counter(map(connection_state, self.connections))
        counts: dict[str, JsonValue] = {"broken": states[State.BROKEN], "switched_off": states[State.OFF]}
        answer: dict[str, JsonValue] = {}
        for ids, workflows, connections in _LESS_AND_LESS:
            told = [self._told(app, workflows, connections, in_full=ids) for app in apps]
            answer = {**counts, "by_connector": [*told]}
            answer |= {"ids": self._ids()} if ids else {"left_out": "The ids of customers, which find gives."}
            if len(to_json(answer)) <= _ROOM:
                break
        fixes = " ".join(fix for state, fix in _FIXES.items() if states[state])
        return answer | ({"fix": fixes} if fixes else {})

    def _told(self, app: _App, workflows: int, connections: int, *, in_full: bool) -> dict[str, JsonValue]:
        told: dict[str, JsonValue] = {"connector": app.name}
        broken = [row for row in app.rows if connection_state(row) is State.BROKEN]
        rows = app.rows if in_full else broken
        if off := len(app.rows) - len(rows):
            told["inactive"] = off
        for row in rows[:connections]:
            of_status = cast("dict[str, JsonValue]", told.setdefault(word(row, "status"), {}))
            whose = owner_name(row, self.customers)
            of_status[whose if whose not in of_status else f"{whose}, {key_of(row)}"] = self._since(row)
        if (more := len(rows) - connections) > 0:
            told["more_connections"] = more
            told["next"] = suggested(ListConnections, connector_id=text(app.rows[0], "connectorId"))
        failing = self._failing(app)
        told["breaks"] = {workflow.key or workflow.name: workflow.name for workflow in failing[:workflows]}
        if (more := len(failing) - workflows) > 0:
            told["more_workflows"] = more
        return told

    def _since(self, row: Row) -> str:
        expired = timestamp(row, "expiresAt")
        if expired is not None and expired <= self.now:
            return dated(expired, self.now)
        used = timestamp(row, "lastUsedAt", "lastUsed")
        return f"last used {dated(used, self.now)}" if used else "unknown since when"

    def _failing(self, app: _App) -> list[Failing]:
        """The workflows that failed for these customers, and that need this app."""
        owners = {owner_of(row): row for row in app.rows}
        needing = {key_of(row) for row in self.workflows if app.keys & {*setup(row).apps}}
        found: list[Failing] = []
        for workflow in self.failing:
            runs = {owner_of(run): run for run in workflow.runs}
            own = runs.keys() & owners.keys()
            if own and (workflow.key in needing or any(_blames(runs[key], app, owners[key]) for key in own)):
                found.append(workflow)
        return found

    def _ids(self) -> dict[str, JsonValue]:
        owners = {owner for row in self.connections if (owner := owner_of(row))}
        return {"customer": {self.customers[owner]: owner for owner in sorted(owners) if owner in self.customers}}


def not_working(rows: Sequence[Row]) -> list[Row]:
    """The connections that are known not to work, the broken ones first."""
    return [row for state in _FIXES for row in rows if connection_state(row) is state]


def _apps(connections: Sequence[Row]) -> list[_App]:
    found: dict[str, _App] = {}
    for row in connections:
        app = found.setdefault(app_of(row), _App(app_of(row)))
        app.keys |= connector_keys(row)
        app.rows.append(row)
    return sorted(found.values(), key=lambda app: -len(app.rows))


def _blames(run: Row, app: _App, connection: Row) -> bool:
    """Whether what the run says of its failure names the connection, or the app."""
    said = str(value(run, "error", "errorMessage") or "").casefold()
    return any(name and name.casefold() in said for name in (key_of(connection), app.name, *app.keys))
