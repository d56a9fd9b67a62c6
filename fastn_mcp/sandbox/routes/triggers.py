"""Triggers: checked when they are made, because one that never fires looks like one that does."""

from typing import cast

from pydantic import JsonValue

from fastn_mcp.fastn.cron import next_run
from fastn_mcp.sandbox.dataset.workflows import webhook_url
from fastn_mcp.sandbox.reply import Nothing, One, Outcome, invalid
from fastn_mcp.sandbox.request_context import RouteContext
from fastn_mcp.sandbox.routes.resource import FLAG, NUMBER, OBJECTS, TEXT, TEXTS, Resource
from fastn_mcp.sandbox.state import Row, stamp
from fastn_mcp.tools.triggers import CreateTrigger, DeleteTrigger, GetTrigger, UpdateTrigger

TRIGGERS = Resource(
    "triggers",
    "trigger",
    settable={
        "name": TEXT,
        "description": TEXT,
        "status": TEXT,
        "routes": OBJECTS,
        "schedule": TEXT,
        "timezone": TEXT,
        "startsAt": TEXT,
        "runImmediately": FLAG,
        "delayMinutes": NUMBER,
        "keepFailedDeliveries": FLAG,
        "connectionId": TEXT,
        "events": TEXTS,
        "authentication": TEXT,
        "executionMode": TEXT,
        "deduplicationKey": TEXT,
        "maxAttempts": NUMBER,
        "backoff": TEXT,
        "deadLetterQueue": FLAG,
        "endOrgId": TEXT,
    },
    fixed={"type": TEXT, "connectorId": TEXT, "webhookId": TEXT},
)

_TYPES = ("webhook", "scheduler", "app_event")
_REQUIRED = {
    "webhook": ("routes",),
    "scheduler": ("routes", "schedule", "timezone"),
    "app_event": ("routes", "connectorId", "connectionId", "events"),
}
_AUTHENTICATION = ("API_KEY", "NONE")


def get(desk: RouteContext, call: GetTrigger) -> Outcome:
    return One(TRIGGERS.find(desk, call.trigger_id))


def create(desk: RouteContext, call: CreateTrigger) -> Outcome:
    TRIGGERS.check(desk.body)
    if call.type not in _TYPES:
        raise invalid("type", f"one of {', '.join(_TYPES)}")
    row: Row = {"id": desk.state.uuid(), "type": call.type}
    row |= {name: desk.body.get(name) for name in sorted(TRIGGERS.settable)}
    row["status"] = _status(call.status or "Active")
    row["statusHistory"] = [{"status": row["status"], "at": desk.time, "by": desk.actor}]
    match call.type:
        case "webhook":
            row["webhookId"] = desk.body.get("webhookId") or desk.state.uuid()
            row["url"] = webhook_url(str(row["webhookId"]))
            row["authentication"] = call.authentication or "API_KEY"
            row["executionMode"] = row["executionMode"] or "PARALLEL"
        case "scheduler":
            row |= {"lastRun": None, "consecutiveFailures": 0}
        case _:
            row["connectorId"] = call.connector_id
    for name in _REQUIRED[call.type]:
        if not row[name]:
            raise invalid(name, f"needed for {call.type}")
    _settle(desk, row)
    return One(TRIGGERS.make(desk, row), 201)


def update(desk: RouteContext, call: UpdateTrigger) -> Outcome:
    row = TRIGGERS.find(desk, call.trigger_id)
    changed = TRIGGERS.replaced(desk, row, row)
    if call.status is not None:
        changed["status"] = _status(call.status)
    if changed["status"] != row["status"]:
        history = cast("list[JsonValue]", row.get("statusHistory") or [])[-19:]
        entry: Row = {"status": changed["status"], "at": desk.time, "by": desk.actor}
        changed["statusHistory"] = [*history, entry]
        if changed["status"] == "Active" and "consecutiveFailures" in row:
            changed["consecutiveFailures"] = 0
    _settle(desk, changed)
    return One(TRIGGERS.keep(desk, changed))


def delete(desk: RouteContext, call: DeleteTrigger) -> Outcome:
    TRIGGERS.remove(desk, TRIGGERS.find(desk, call.trigger_id))
    return Nothing()


def _settle(desk: RouteContext, row: Row) -> None:
    """Check what is there, and fill in what follows from it. Raises `Refusal`."""
    _check_routes(desk, cast("list[Row]", row["routes"] or []))
    match row["type"]:
        case "webhook":
            if row["authentication"] not in (None, *_AUTHENTICATION):
                raise invalid("authentication", f"one of {', '.join(_AUTHENTICATION)}")
        case "scheduler":
            row["nextRun"] = _next(desk, row)
        case _:
            row["subscriptionStatus"] = _subscription(desk, row)


def _check_routes(desk: RouteContext, routes: list[Row]) -> None:
    for number, route in enumerate(routes):
        if desk.state.get("workflows", route.get("routeId")) is None:
            raise invalid(f"routes[{number}].routeId", "there is no such workflow")


def _next(desk: RouteContext, row: Row) -> str | None:
    """When it fires next. A PUT that left the schedule out has stopped it."""
    if not row["schedule"] or not row["timezone"]:
        return None
    try:
        coming = next_run(str(row["schedule"]), str(row["timezone"]), desk.now)
    except ValueError as error:
        name = "timezone" if "time zone" in str(error) else "schedule"
        raise invalid(name, str(error)) from None
    return stamp(coming) if row["status"] == "Active" else None


def _subscription(desk: RouteContext, row: Row) -> str:
    """Whether the app tells of its events. A PUT that left the connection out has unsubscribed."""
    if row["connectionId"] is None:
        return "FAILED"
    connection = desk.state.get("connections", row["connectionId"])
    if connection is None or connection["connectorId"] != row["connectorId"]:
        raise invalid("connectionId", "there is no such connection of this connector")
    if connection["status"] == "ACTIVE":
        return "ACTIVE"
    if row["status"] == "Active":
        raise invalid("connectionId", f"the connection is {connection['status']}; an app event needs an active one")
    return "FAILED"


def _status(text: str) -> str:
    if text.strip().casefold() == "disabled":
        return "Disabled"
    if text.casefold() not in ("active", "enabled"):
        raise invalid("status", "Active or Disabled")
    return "Active"
