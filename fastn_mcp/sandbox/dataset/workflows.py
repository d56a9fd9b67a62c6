"""Workflows and triggers of the sandbox's account."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import cast

from pydantic import JsonValue

from fastn_mcp.fastn.cron import next_run
from fastn_mcp.sandbox.state import ORGANISATION, Row, SandboxState, moment, stamp

_WORKFLOWS = (
    # id, name, slug, tier, version, status, connectors, days since it was changed
    ("wf_b5880b29eb25", "Slack Messages to Supabase Hourly Sync", "slack-messages-to-supabase-hourly-sync", "STANDARD",
     5, "active", ("slack", "supabase"), 12),
    ("wf_41f0c6a97d3e", "hubspot-discovery-deal-to-gamma-deck", "hubspot-discovery-deal-to-gamma-deck", "STANDARD",
     2, "active", ("hubspot", "gamma"), 30),
    ("wf_7be2150c84af", "Sync HubSpot contacts to Cin7 customers", "sync-hubspot-contacts-to-cin7-customers",
     "STANDARD", 3, "active", ("hubspot", "cin7Core"), 21),
    ("wf_0d93ee5b1f62", "process-new-orders", "process-new-orders", "INSTANT", 4, "active", ("shopify", "slack"), 8),
    ("wf_c27aa8f04e19", "update-inventory", "update-inventory", "INSTANT", 2, "active", ("shopify",), 40),
    ("wf_96d1b3072c5a", "Sync TikTok Orders to Cin7 Core", "sync-tiktok-orders-to-cin7-core", "STANDARD",
     7, "active", ("tiktokShop", "cin7Core"), 11),
    ("wf_3a8e47d19b60", "tracking-to-shopify-and-buyer", "tracking-to-shopify-and-buyer", "INSTANT", 1, "active",
     ("shopify",), 55),
    ("wf_e5047fb2a8c3", "sync_tiktok_settlements_cin7", "sync_tiktok_settlements_cin7", "STANDARD", None, "draft",
     ("tiktokShop", "cin7Core"), 3),
    ("wf_58c9d02e7f14", "orders-backfill", "orders-backfill", "LONG", 1, "inactive", ("shopify", "supabase"), 90),
)  # fmt: skip

# Apps of the account's own, which no customer connects.
_OF_THE_ACCOUNT = frozenset({"supabase", "gamma"})

_CODE: dict[str, tuple[str, Callable[[Row], Row]]] = {
    "slack-messages-to-supabase-hourly-sync": (
        """  const messages = await fastn.connector.slack.listMessages(ctx.input);
  await fastn.connector.supabase.insertRows({ rows: messages });
  return { messages: messages.length, inserted: true };
""",
        lambda _: {"messages": 42, "inserted": True},
    ),
    "process-new-orders": (
        """  const { orderId, note } = ctx.input;
  const [order] = await fastn.connector.shopify.listOrders({ id: orderId });
  await fastn.connector.slack.postMessage({ channel: "orders", text: `${order?.id}: ${note}` });
  return { orderId: orderId ?? null, note: note ?? null, slack: "sent" };
""",
        lambda given: {"orderId": given.get("orderId"), "note": given.get("note"), "slack": "sent"},
    ),
    "update-inventory": (
        """  const { sku, quantity } = ctx.input;
  await fastn.connector.shopify.updateInventory({ sku, quantity });
  return { sku: sku ?? null, quantity: quantity ?? null, updated: true };
""",
        lambda given: {"sku": given.get("sku"), "quantity": given.get("quantity"), "updated": True},
    ),
}
"""The bodies of the workflows that return more than that all is well, and what each returns for an input."""

_MOST_HOURS = 36
"""The limit of a LONG workflow."""

TIMEOUTS = {"INSTANT": 30_000, "STANDARD": 120_000, "LONG": 900_000}


def add_workflows(state: SandboxState, now: datetime) -> None:
    for key, name, slug, tier, version, status, connectors, days in _WORKFLOWS:
        scopes = {app: "SAAS" if app in _OF_THE_ACCOUNT else "MULTI_TENANT" for app in connectors}
        row = workflow(state, key, name, slug, tier, scopes, now - timedelta(days=days))
        row |= {"status": status, "publishedVersion": f"v{version}" if version else None, "version": version or 1}
        if slug == "process-new-orders":
            row["updatedBy"] = "Edited via agent"
        if slug == "orders-backfill":
            row["timeoutMs"] = _MOST_HOURS * 3_600_000
        state.put("workflows", row)
    failing = state.named("workflows", "sync-tiktok-orders-to-cin7-core")
    state.put("_failing", {"id": failing["id"], "connector": "tiktokShop", "action": "getAuthorizedShops"})
    installed = state.named("workflows", "tracking-to-shopify-and-buyer")["id"]
    acme = state.named("customers", "acme-corp")["id"]
    state.put("_installations", {"id": "inst_5d20c1e97ab4", "workflowId": installed, "endOrgId": acme})


def output_of(workflow: Row, given: Row) -> Row:
    """What the published version of a workflow returns for an input."""
    known = _CODE.get(str(workflow["slug"]))
    return known[1](given) if known else {"ok": True}


def workflow(
    state: SandboxState, key: str, name: str, slug: str, tier: str, connectors: Mapping[str, str], changed: datetime
) -> Row:
    """One row: a published workflow that is switched on. `connectors` are scopes by slug."""
    calls = "".join(f"  await fastn.connector.{app}.{_first_action(state, app)}(ctx.input);\n" for app in connectors)
    body = _CODE[slug][0] if slug in _CODE else f"{calls}  return {{ ok: true }};\n"
    labels: list[JsonValue] = ["sync"] if "sync" in slug else []
    return {
        "id": key,
        "name": name,
        "slug": slug,
        "description": f"{name}.",
        "code": f"export default async function (ctx) {{\n{body}}}\n",
        "executionTier": tier,
        "timeoutMs": TIMEOUTS[tier],
        "status": "active",
        "publishedVersion": "v1",
        "retryPolicy": {"enabled": False, "maxAttempts": 3, "initialIntervalMs": 5000, "backoffCoefficient": 2},
        "inputSchema": {"type": "object"},
        "connectors": [{"slug": app, "scope": scope} for app, scope in connectors.items()],
        "labels": labels,
        "version": 1,
        "createdAt": stamp(changed - timedelta(days=60)),
        "createdBy": "lee@fastn.example",
        "updatedAt": stamp(changed),
        "updatedBy": "lee@fastn.example",
    }


def _first_action(state: SandboxState, app: str) -> str:
    actions = cast("list[Row]", state.named("connectors", app)["actions"])
    return str(actions[0]["slug"])


def add_triggers(state: SandboxState, now: datetime) -> None:
    for made, row in enumerate(_triggers(state, now)):
        put(state, row, now - timedelta(days=100 - 7 * made))


def put(state: SandboxState, trigger: Row, when: datetime) -> Row:
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
    _switched_off(nightly, now)
    hubspot = _connection(state, "hubspot", "widget-inc")
    contacts = app_event("New HubSpot contact", hubspot, "contact.creation")
    contacts["routes"] = [contacts_sync]
    paid = app_event("Paid Shopify orders", _connection(state, "shopify", "globex-exports"), "orders/paid")
    paid["routes"] = [_to(state, "process-new-orders")]
    return [shop, public, hourly, daily, nightly, contacts, paid]


def webhook(state: SandboxState, name: str, *routes: JsonValue) -> Row:
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


def _to(state: SandboxState, slug: str, condition: JsonValue = None) -> JsonValue:
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


def _connection(state: SandboxState, app: str, customer: str) -> Row:
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
