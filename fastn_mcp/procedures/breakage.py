"""Which connections no longer work, whose they are, and which workflows fail for want of them. Pure: no I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.procedures.ages import dated
from fastn_mcp.procedures.following import following
from fastn_mcp.procedures.health import setup
from fastn_mcp.procedures.troubles.access import owner_of
from fastn_mcp.procedures.troubles.rows import Row, inside, key_of, moment, short, text, word
from fastn_mcp.procedures.troubles.runs import Failing
from fastn_mcp.tools.connections import ListConnections

BROKEN = ("failed", "expired")

_ROOM = 7_300
"""Characters of an answer."""

_LESS_AND_LESS = ((True, 9, 100), (False, 9, 100), (False, 3, 100), (False, 1, 10), (False, 0, 3), (False, 0, 1))
"""Whether ids of customers are told, and how many workflows and connections of an app."""

_FIX = "Each customer has to authorise the app again in the widget; no call from here can do it."


@dataclass(slots=True)
class _App:
    """An app to which connections broke."""

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
        answer: dict[str, JsonValue] = {}
        for ids, workflows, connections in _LESS_AND_LESS:
            told = [self._told(app, workflows, connections) for app in apps]
            answer = {"broken": len(self.connections), "by_connector": [*told]}
            answer |= {"ids": self._ids()} if ids else {"left_out": "The ids of customers, which find gives."}
            if len(to_json(answer)) <= _ROOM:
                break
        return answer | ({"fix": _FIX} if self.connections else {})

    def _told(self, app: _App, workflows: int, connections: int) -> dict[str, JsonValue]:
        told: dict[str, JsonValue] = {"connector": app.name}
        for row in app.rows[:connections]:
            of_status = cast("dict[str, JsonValue]", told.setdefault(word(row, "status"), {}))
            whose = self._whose(row)
            of_status[whose if whose not in of_status else f"{whose}, {key_of(row)}"] = self._since(row)
        if (more := len(app.rows) - connections) > 0:
            told["more_connections"] = more
            told["next"] = following(ListConnections, connector_id=text(app.rows[0], "connectorId"))
        failing = self._failing(app)
        told["breaks"] = {workflow.key or workflow.name: workflow.name for workflow in failing[:workflows]}
        if (more := len(failing) - workflows) > 0:
            told["more_workflows"] = more
        return told

    def _whose(self, row: Row) -> str:
        owner = owner_of(row)
        return short(self.customers.get(owner, owner)) if owner else "the account itself"

    def _since(self, row: Row) -> str:
        expired = moment(row, "expiresAt")
        if expired is not None and expired <= self.now:
            return dated(expired, self.now)
        used = moment(row, "lastUsedAt", "lastUsed")
        return f"last used {dated(used, self.now)}" if used else "unknown since when"

    def _failing(self, app: _App) -> list[Failing]:
        """The workflows that failed for these customers, and that need this app."""
        owners = {owner_of(row): row for row in app.rows}
        needing = {key_of(row) for row in self.workflows if app.keys & {*setup(row).apps}}
        found: list[Failing] = []
        for workflow in self.failing:
            runs = {text(run, "endOrgId", "customerId"): run for run in workflow.runs}
            own = runs.keys() & owners.keys()
            if own and (workflow.key in needing or any(_blames(runs[key], app, owners[key]) for key in own)):
                found.append(workflow)
        return found

    def _ids(self) -> dict[str, JsonValue]:
        owners = {owner for row in self.connections if (owner := owner_of(row))}
        return {"customer": {self.customers[owner]: owner for owner in sorted(owners) if owner in self.customers}}


def broken(rows: Sequence[Row]) -> list[Row]:
    """The connections that no longer work."""
    return [row for row in rows if word(row, "status") in BROKEN]


def _apps(connections: Sequence[Row]) -> list[_App]:
    found: dict[str, _App] = {}
    for row in connections:
        there = inside(row, "connector")
        name = text(there, "name", "slug") or text(row, "connectorName", "connectorSlug", "connectorId") or "unknown"
        app = found.setdefault(name, _App(short(name)))
        said = (text(there, "slug"), text(there, "id"), text(row, "connectorSlug"), text(row, "connectorId"))
        app.keys |= {key for key in said if key}
        app.rows.append(row)
    return sorted(found.values(), key=lambda app: -len(app.rows))


def _blames(run: Row, app: _App, connection: Row) -> bool:
    """Whether what the run says of its failure names the connection, or the app."""
    said = str(inside(run, "error") or text(run, "error", "errorMessage") or "").casefold()
    return any(name and name.casefold() in said for name in (key_of(connection), app.name, *app.keys))
