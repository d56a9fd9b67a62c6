"""What stops when something that it needs goes away."""

from typing import cast

from pydantic import JsonValue

from fastn_mcp.sandbox.desk import Desk
from fastn_mcp.sandbox.state import Row


def disconnect(desk: Desk, connections: list[Row]) -> None:
    """Drop connections with their credentials. Triggers that listen by them no longer hear anything."""
    for connection in connections:
        desk.state.drop("connections", connection["id"])
        desk.audit("connection.delete", "connection", connection["id"], connection["endOrgId"])
        for trigger in desk.state.all("triggers"):
            if trigger.get("connectionId") == connection["id"]:
                trigger["subscriptionStatus"] = "FAILED"
                _touch(desk, "triggers", trigger)


def stop_triggers_of(desk: Desk, workflow: Row) -> None:
    """A trigger stops once all the workflows that it starts are gone."""
    for trigger in desk.state.all("triggers"):
        targets = targets_of(trigger)
        alive = [target for target in targets if desk.state.get("workflows", target) is not None]
        if workflow["id"] in targets and not [target for target in alive if target != workflow["id"]]:
            disable(desk, trigger, f"its workflow {workflow['slug']} is gone or off")


def disable(desk: Desk, trigger: Row, reason: str) -> None:
    if trigger["status"] != "Disabled":
        history = cast("list[JsonValue]", trigger.get("statusHistory") or [])[-19:]
        entry: Row = {"status": "Disabled", "at": desk.time, "by": "platform", "reason": reason}
        trigger |= {"status": "Disabled", "nextRun": None, "statusHistory": [*history, entry]}
        _touch(desk, "triggers", trigger)


def deactivate(desk: Desk, workflow: Row) -> None:
    """Switch a workflow off, and with it what starts it."""
    workflow["status"] = "inactive"
    _touch(desk, "workflows", workflow)
    stop_triggers_of(desk, workflow)


def targets_of(trigger: Row) -> list[str]:
    """The ids of the workflows that a trigger starts."""
    routes = trigger.get("routes")
    rows = routes if isinstance(routes, list) else []
    return [str(row.get("routeId")) for row in rows if isinstance(row, dict)]


def _touch(desk: Desk, collection: str, row: Row) -> None:
    row["updatedAt"] = desk.time
    row["version"] = cast(int, row["version"]) + 1
    desk.state.put(collection, row)
