"""The triggers: webhooks, schedules and app events, several with what an audit should find."""

from datetime import datetime, timedelta

from pydantic import JsonValue

from fastn_mcp.cron import next_run
from fastn_mcp.sandbox.state import ORGANISATION, Row, State, moment, stamp


def add(state: State, now: datetime) -> None:
    for made, row in enumerate(_triggers(state, now)):
        put(state, row, now - timedelta(days=100 - 7 * made))


def put(state: State, trigger: Row, when: datetime) -> Row:
    """Keep a trigger that was made then."""
    made = stamp(when)
    row: Row = {
        "id": state.uuid(),
        "description": None,
        "endOrgId": None,
        **trigger,
        "version": 1,
        "createdAt": made,
        "createdBy": "lee@fastn.example",
        "updatedAt": made,
        "updatedBy": "lee@fastn.example",
    }
    return state.put("triggers", row)


def _triggers(state: State, now: datetime) -> list[Row]:
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
    _switched_off(nightly, now)
    hubspot = _connection(state, "hubspot", "widget-inc")
    contacts = app_event("New HubSpot contact", hubspot, "contact.creation")
    contacts["routes"] = [contacts_sync]
    paid = app_event("Paid Shopify orders", _connection(state, "shopify", "globex-exports"), "orders/paid")
    paid["routes"] = [_to(state, "process-new-orders")]
    return [shop, public, hourly, daily, nightly, contacts, paid]


def webhook(state: State, name: str, *routes: JsonValue) -> Row:
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
    """By the platform, and not by a person: it had failed too often."""
    since = stamp(moment(str(trigger["lastRun"])) - timedelta(days=3))
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


def _to(state: State, slug: str, condition: JsonValue = None) -> JsonValue:
    return route(state.named("workflows", slug), condition)


def route(workflow: Row, condition: JsonValue = None) -> JsonValue:
    """To a workflow, for events that fulfil the condition."""
    return {"routeId": workflow["id"], "routeType": "API", "environment": "live", "filter": condition, "payload": None}


def scheduled(now: datetime, name: str, schedule: str, *routes: JsonValue) -> Row:
    """By a schedule that fires once an hour or once a day. What is due at `now` itself is still to come."""
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


def _connection(state: State, app: str, customer: str) -> Row:
    owner = state.named("customers", customer)["id"]
    connector = state.named("connectors", app)["id"]
    return next(row for row in state.all("connections") if (row["connectorId"], row["endOrgId"]) == (connector, owner))


def app_event(name: str, connection: Row, event: str) -> Row:
    """An event of the app that a customer is connected to; heard only while the connection works."""
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


def last_occurrence(trigger: Row) -> datetime:
    """When a schedule of the dataset last fired."""
    return moment(str(trigger["lastRun"]))
