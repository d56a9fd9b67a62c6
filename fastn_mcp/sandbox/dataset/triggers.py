"""The triggers: webhooks, schedules and app events, several with what an audit should find."""

from datetime import datetime, timedelta

from pydantic import JsonValue

from fastn_mcp.sandbox.cron import next_run
from fastn_mcp.sandbox.state import ORGANISATION, Row, State, moment, stamp


def add(state: State, now: datetime) -> None:
    for made, trigger in enumerate(_triggers(state, now)):
        when = stamp(now - timedelta(days=100 - 7 * made))
        row: Row = {
            "id": state.uuid(),
            "description": None,
            "endOrgId": None,
            **trigger,
            "version": 1,
            "createdAt": when,
            "createdBy": "lee@fastn.example",
            "updatedAt": when,
            "updatedBy": "lee@fastn.example",
        }
        state.put("triggers", row)


def _triggers(state: State, now: datetime) -> list[Row]:
    katana = state.named("customers", "katana-customer")["id"]
    shop = _webhook(
        state,
        "Shop events",
        _to(state, "process-new-orders", {"key": "event_type", "value": "order.created"}),
        _to(state, "update-inventory", {"key": "event_type", "value": "inventory.updated"}),
    )
    public = _webhook(state, "Tracking updates (public)", _to(state, "tracking-to-shopify-and-buyer"))
    public |= {"authentication": "NONE", "deduplicationKey": None, "executionMode": "SEQUENTIAL"}
    hourly = _scheduled(state, now, "Hourly Slack sync", "0 * * * *", "slack-messages-to-supabase-hourly-sync")
    daily = _scheduled(state, now, "Daily TikTok sync", "0 15 * * *", "sync-tiktok-orders-to-cin7-core")
    daily |= {"endOrgId": katana, "consecutiveFailures": 9}
    nightly = _scheduled(state, now, "Nightly contact sync", "30 2 * * *", "sync-hubspot-contacts-to-cin7-customers")
    _switched_off(nightly, now)
    contacts = _app_event(state, "New HubSpot contact", "hubspot", "widget-inc", "contact.creation", "ACTIVE")
    contacts["routes"] = [_to(state, "sync-hubspot-contacts-to-cin7-customers")]
    paid = _app_event(state, "Paid Shopify orders", "shopify", "globex-exports", "orders/paid", "FAILED")
    paid["routes"] = [_to(state, "process-new-orders")]
    return [shop, public, hourly, daily, nightly, contacts, paid]


def _webhook(state: State, name: str, *routes: JsonValue) -> Row:
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
    since = stamp(now - timedelta(days=4, hours=3))
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
    workflow = state.named("workflows", slug)["id"]
    return {"routeId": workflow, "routeType": "API", "environment": "live", "filter": condition, "payload": None}


def _scheduled(state: State, now: datetime, name: str, schedule: str, slug: str) -> Row:
    coming = next_run(schedule, "UTC", now)
    last = coming - timedelta(hours=1 if schedule.startswith("0 * ") else 24)
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
        "routes": [_to(state, slug)],
    }


def _app_event(state: State, name: str, app: str, customer: str, event: str, subscription: str) -> Row:
    owner = state.named("customers", customer)["id"]
    connector = state.named("connectors", app)["id"]
    connection = next(
        row for row in state.all("connections") if (row["connectorId"], row["endOrgId"]) == (connector, owner)
    )
    return {
        "name": name,
        "type": "app_event",
        "status": "Active",
        "endOrgId": owner,
        "connectorId": connector,
        "connectionId": connection["id"],
        "events": [event],
        "subscriptionStatus": subscription,
        "manualRegistrationRequired": False,
    }


def webhook_url(webhook: str) -> str:
    return f"https://webhooks.fastn.dev/prod/triggers/{ORGANISATION}/webhooks/{webhook}"


def last_occurrence(trigger: Row) -> datetime:
    """When a schedule of the dataset last fired."""
    return moment(str(trigger["lastRun"]))
