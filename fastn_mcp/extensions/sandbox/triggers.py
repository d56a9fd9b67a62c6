"""Triggers of the dataset, their rows, and the handlers of their operations.

A trigger is validated when it is created, because one that never fires looks like one that does.
"""

from datetime import datetime, timedelta

from fastn_mcp.extensions.sandbox.connectors import connection_of
from fastn_mcp.extensions.sandbox.replies import check_choice, invalid
from fastn_mcp.extensions.sandbox.resource import One, Resource, RouteContext, endpoint, fields, set_status
from fastn_mcp.extensions.sandbox.state import ORGANISATION, Row, SandboxState, parse_stamp, provenance, stamp
from fastn_mcp.records.cron import next_run
from fastn_mcp.tools import triggers as tools


def add_triggers(state: SandboxState, now: datetime) -> None:
    for number, row in enumerate(_triggers(state, now)):
        add_trigger(state, row, now - timedelta(days=100 - 7 * number))


def add_trigger(state: SandboxState, trigger: Row, when: datetime) -> Row:
    row: Row = {"id": state.uuid(), "description": None, "endOrgId": None}
    return state.put("triggers", row | trigger | provenance(stamp(when), "lee@fastn.example"))


def _triggers(state: SandboxState, now: datetime) -> list[Row]:
    katana = state.named("customers", "katana-customer")["id"]
    shop = webhook(
        state,
        "Shop events",
        _to(state, "process-new-orders", {"key": "event_type", "value": "order.created"}),
        _to(state, "update-inventory", {"key": "event_type", "value": "inventory.updated"}),
    )
    public = webhook(state, "Tracking updates (public)", _to(state, "tracking-to-shopify-and-buyer"))
    public |= {"authentication": "NONE", "deduplicationKey": None, "executionMode": "SEQUENTIAL"}
    hourly = scheduled(now, "Hourly Slack sync", "0 * * * *", _to(state, "slack-messages-to-supabase-hourly-sync"))
    daily = scheduled(now, "Daily TikTok sync", "0 15 * * *", _to(state, "sync-tiktok-orders-to-cin7-core"))
    daily |= {"endOrgId": katana, "consecutiveFailures": 9}
    contacts_sync = _to(state, "sync-hubspot-contacts-to-cin7-customers")
    nightly = scheduled(now, "Nightly contact sync", "30 2 * * *", contacts_sync)
    nightly["endOrgId"] = state.named("customers", "widget-inc")["id"]
    _switched_off(nightly, now)
    contacts = app_event("New HubSpot contact", _connection(state, "hubspot", "widget-inc"), "contact.creation")
    contacts["routes"] = [contacts_sync]
    paid = app_event("Paid Shopify orders", _connection(state, "shopify", "globex-exports"), "orders/paid")
    paid["routes"] = [_to(state, "process-new-orders")]
    return [shop, public, hourly, daily, nightly, contacts, paid]


def webhook(state: SandboxState, name: str, *routes: Row) -> Row:
    key = state.uuid()
    return {
        "name": name,
        "type": "webhook",
        "status": "Active",
        "webhookId": key,
        "url": webhook_url(key),
        "authentication": "API_KEY",
        "executionMode": "PARALLEL",
        "deduplicationKey": "event_id",
        "maxAttempts": 3,
        "backoff": "EXPONENTIAL",
        "routes": [*routes],
    }


def _switched_off(trigger: Row, now: datetime) -> None:
    """Set the fields of a trigger that the platform disabled after too many failures."""
    since = stamp(parse_stamp(trigger["lastRun"]) - timedelta(days=3))
    reason = "20 consecutive failures; may be enabled again after 30 minutes."
    trigger |= {
        "status": "Disabled",
        "nextRun": None,
        "lastRun": since,
        "consecutiveFailures": 20,
        "statusHistory": [
            {"status": "Active", "at": stamp(now - timedelta(days=60)), "by": "lee@fastn.example"},
            {"status": "Disabled", "at": since, "by": "platform", "reason": reason},
        ],
    }


def _to(state: SandboxState, slug: str, condition: Row | None = None) -> Row:
    return route(state.named("workflows", slug), condition)


def route(workflow: Row, condition: Row | None = None) -> Row:
    """Return a route to a workflow, for events that meet the condition."""
    return {"routeId": workflow["id"], "routeType": "API", "environment": "live", "filter": condition, "payload": None}


def scheduled(now: datetime, name: str, schedule: str, *routes: Row) -> Row:
    """Return a trigger with an hourly or daily schedule. An occurrence at exactly `now` has not run yet."""
    coming = next_run(schedule, "UTC", now - timedelta(minutes=1))
    last = coming - timedelta(hours=1 if schedule.split()[1] == "*" else 24)
    return {
        "name": name,
        "type": "scheduler",
        "status": "Active",
        "schedule": schedule,
        "timezone": "UTC",
        "runImmediately": False,
        "keepFailedDeliveries": True,
        "nextRun": stamp(coming),
        "lastRun": stamp(last),
        "consecutiveFailures": 0,
        "statusHistory": [],
        "routes": [*routes],
    }


def _connection(state: SandboxState, app: str, customer: str) -> Row:
    connection = connection_of(state, app, state.named("customers", customer)["id"])
    if connection is None:
        raise KeyError(f"{customer} is not connected to {app}")
    return connection


def app_event(name: str, connection: Row, event: str) -> Row:
    """Return a trigger for an event of a connected app. Its subscription is active only if the connection is."""
    return {
        "name": name,
        "type": "app_event",
        "status": "Active",
        "endOrgId": connection["endOrgId"],
        "connectorId": connection["connectorId"],
        "connectionId": connection["id"],
        "events": [event],
        "subscriptionStatus": "ACTIVE" if connection["status"] == "ACTIVE" else "FAILED",
        "manualRegistrationRequired": False,
    }


def webhook_url(webhook: str) -> str:
    return f"https://webhooks.fastn.dev/prod/triggers/{ORGANISATION}/webhooks/{webhook}"


TRIGGERS = Resource(
    "triggers",
    "trigger",
    settable=fields(
        text="name description status schedule timezone startsAt connectionId authentication executionMode "
        "deduplicationKey backoff endOrgId",
        number="delayMinutes maxAttempts",
        flag="runImmediately keepFailedDeliveries deadLetterQueue",
        objects="routes",
        texts="events",
    ),
    fixed=fields(text="type connectorId webhookId"),
)

_REQUIRED = {
    "webhook": ("routes",),
    "scheduler": ("routes", "schedule", "timezone"),
    "app_event": ("routes", "connectorId", "connectionId", "events"),
}
_AUTHENTICATION = ("API_KEY", "NONE")


endpoint(tools.ListTriggers, "events:read")(TRIGGERS.list)
endpoint(tools.GetTrigger, "events:read")(TRIGGERS.get)
endpoint(tools.DeleteTrigger, "events:delete")(TRIGGERS.delete)


@endpoint(tools.CreateTrigger, "events:create")
def create(context: RouteContext, call: tools.CreateTrigger) -> One:
    TRIGGERS.check(context.body)
    check_choice("type", call.type, _REQUIRED)
    row: Row = {"id": context.state.uuid(), "type": call.type}
    row |= {name: context.body.get(name) for name in sorted(TRIGGERS.settable)}
    set_status(row, _status(call.status or "Active"), context.time, context.actor)
    match call.type:
        case "webhook":
            row["webhookId"] = context.body.get("webhookId") or context.state.uuid()
            row["url"] = webhook_url(row["webhookId"])
            row["authentication"] = call.authentication or "API_KEY"
            row["executionMode"] = row["executionMode"] or "PARALLEL"
        case "scheduler":
            row |= {"lastRun": None, "consecutiveFailures": 0}
        case _:
            row["connectorId"] = call.connector_id
    for name in _REQUIRED[call.type]:
        if not row[name]:
            raise invalid(name, f"needed for {call.type}")
    _settle(context, row)
    return One(TRIGGERS.create(context, row), 201)


@endpoint(tools.UpdateTrigger, "events:update")
def update(context: RouteContext, call: tools.UpdateTrigger) -> One:
    row = TRIGGERS.target(context, call)
    changed = TRIGGERS.replaced(context, row, row)
    if call.status is not None:
        changed["status"] = _status(call.status)
    if changed["status"] != row["status"]:
        set_status(changed, changed["status"], context.time, context.actor)
        if changed["status"] == "Active" and "consecutiveFailures" in row:
            changed["consecutiveFailures"] = 0
    _settle(context, changed)
    return One(TRIGGERS.update(context, changed))


def _settle(context: RouteContext, row: Row) -> None:
    """Validate a trigger, and set its computed fields. Raises `SandboxRefusal`."""
    for number, target in enumerate(row["routes"] or []):
        context.existing("workflows", target.get("routeId"), f"routes[{number}].routeId", "workflow")
    match row["type"]:
        case "webhook":
            if row["authentication"] is not None:
                check_choice("authentication", row["authentication"], _AUTHENTICATION)
        case "scheduler":
            row["nextRun"] = _next(context, row)
        case _:
            row["subscriptionStatus"] = _subscription(context, row)


def _next(context: RouteContext, row: Row) -> str | None:
    """Return the next occurrence; None for a trigger that is disabled or whose PUT omitted the schedule."""
    if not row["schedule"] or not row["timezone"]:
        return None
    try:
        coming = next_run(row["schedule"], row["timezone"], context.now)
    except ValueError as error:
        name = "timezone" if "time zone" in str(error) else "schedule"
        raise invalid(name, str(error)) from None
    return stamp(coming) if row["status"] == "Active" else None


def _subscription(context: RouteContext, row: Row) -> str:
    """Return the subscription status; FAILED if a PUT omitted the connection. Raises `SandboxRefusal`."""
    if row["connectionId"] is None:
        return "FAILED"
    connection = context.state.get("connections", row["connectionId"])
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
