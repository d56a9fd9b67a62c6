"""Connections that do not work, with their customers and the workflows that fail because of them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import cast

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.fastn.names import app_of, owner_name, sentence
from fastn_mcp.fastn.rows import Row, connector_keys, key_of, text, timestamp
from fastn_mcp.fastn.states import State
from fastn_mcp.procedures.diagnosis.account_parts import PartState, who_authorises, workflow_setup
from fastn_mcp.procedures.diagnosis.failures import FailingWorkflow
from fastn_mcp.procedures.tables import dated
from fastn_mcp.tools.connectors import ListConnections
from fastn_mcp.tools.tool import suggested

_LONGEST = 7_300
"""Maximum size of an answer in characters."""

_DETAIL_LEVELS = ((True, 9, 100), (False, 9, 100), (False, 3, 100), (False, 1, 10), (False, 0, 3), (False, 0, 1))
"""Whether to show customer ids and disabled connections; maximum numbers of workflows and connections of an app."""


def connection_impact(
    unusable: Sequence[PartState],
    workflows: Sequence[Row],
    failing: Sequence[FailingWorkflow],
    customers: Mapping[str, str],
    now: datetime,
) -> dict[str, JsonValue]:
    """Group by app, those with most connections first, at the highest level of detail that fits.

    `failing` are workflows with their failed runs; `customers` maps ids to names.
    """
    by_app: dict[str, list[PartState]] = {}
    for connection in unusable:
        by_app.setdefault(app_of(connection.row), []).append(connection)
    apps = sorted(by_app.items(), key=lambda item: -len(item[1]))
    fails = {app: _failing_without(app, connections, workflows, failing) for app, connections in apps}
    owners = {owner for connection in unusable if (owner := connection.customer)}
    ids: JsonValue = {"customer": {customers[owner]: owner for owner in sorted(owners) if owner in customers}}
    broken = [connection for connection in unusable if connection.state is State.BROKEN]
    off = len(unusable) - len(broken)
    answer: dict[str, JsonValue] = {}
    for in_full, most_workflows, most in _DETAIL_LEVELS:
        by_connector: list[JsonValue] = []
        for app, connections in apps:
            shown = [connection for connection in connections if in_full or connection.state is State.BROKEN]
            hidden = len(connections) - len(shown)
            entry: dict[str, JsonValue] = {"connector": app}
            if hidden:
                entry["inactive"] = hidden
            entry |= _connections(shown[:most], customers, now)
            if (more := len(shown) - most) > 0:
                entry["more_connections"] = more
                entry["next"] = suggested(ListConnections, connector_id=text(connections[0].row, "connectorId"))
            entry["breaks"] = {workflow.id or workflow.name: workflow.name for workflow in fails[app][:most_workflows]}
            if (more := len(fails[app]) - most_workflows) > 0:
                entry["more_workflows"] = more
            by_connector.append(entry)
        answer = {"broken": len(broken), "switched_off": off, "by_connector": by_connector}
        answer |= {"ids": ids} if in_full else {"left_out": "The ids of customers, which find gives."}
        if len(to_json(answer)) <= _LONGEST:
            break
    who, where = who_authorises(broken, "each customer")
    fixes = [
        f"{sentence(who)} has to authorise the app again in {where}; no call from here can do it." if broken else "",
        "What is inactive was switched off; somebody has to reconnect it in the dashboard." if off else "",
    ]
    return answer | ({"fix": " ".join(filter(None, fixes))} if any(fixes) else {})


def _connections(shown: Sequence[PartState], customers: Mapping[str, str], now: datetime) -> dict[str, JsonValue]:
    """Return by status and customer name since when each connection does not work."""
    found: dict[str, JsonValue] = {}
    for connection in shown:
        of_status = cast("dict[str, JsonValue]", found.setdefault(connection.status.lower(), {}))
        owner = owner_name(connection.row, customers)
        expired, used = timestamp(connection.row, "expiresAt"), timestamp(connection.row, "lastUsedAt", "lastUsed")
        if expired is not None and expired <= now:
            since = dated(expired, now)
        else:
            since = f"last used {dated(used, now)}" if used else "unknown since when"
        of_status[owner if owner not in of_status else f"{owner}, {connection.id}"] = since
    return found


def _failing_without(
    app: str, connections: Sequence[PartState], workflows: Sequence[Row], failing: Sequence[FailingWorkflow]
) -> list[FailingWorkflow]:
    """Return the workflows that need the app, or whose errors name it, and failed for these customers."""
    names = {name for connection in connections for name in connector_keys(connection.row)}
    needing = {key_of(row) for row in workflows if names & {*workflow_setup(row).apps}}
    owners = {connection.customer: connection for connection in connections}
    found: list[FailingWorkflow] = []
    for workflow in failing:
        runs = {run.customer: run for run in workflow.runs if run.customer in owners}
        blamed = (run.blames((owners[owner].id, app, *names)) for owner, run in runs.items())
        if runs and (workflow.id in needing or any(blamed)):
            found.append(workflow)
    return found
