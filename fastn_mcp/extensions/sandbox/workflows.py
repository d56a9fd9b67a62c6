"""Workflows of the dataset, their rows, and the handlers of their operations."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from fastn_mcp.extensions.sandbox.replies import SandboxRefusal, choice, invalid
from fastn_mcp.extensions.sandbox.resource import (
    One,
    Resource,
    RouteContext,
    endpoint,
    fields,
    slug_for,
    stop_triggers_of,
)
from fastn_mcp.extensions.sandbox.state import Row, SandboxState, provenance, stamp
from fastn_mcp.records.rows import objects
from fastn_mcp.tools import workflows as tools

_WORKFLOWS = (
    # id, name, slug, tier, version, status, connectors, days since the last change
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
)  # fmt: skip # a table: a row on as few lines as it needs

# Apps that the account connects, not each customer.
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
        lambda data: {"orderId": data.get("orderId"), "note": data.get("note"), "slack": "sent"},
    ),
    "update-inventory": (
        """  const { sku, quantity } = ctx.input;
  await fastn.connector.shopify.updateInventory({ sku, quantity });
  return { sku: sku ?? null, quantity: quantity ?? null, updated: true };
""",
        lambda data: {"sku": data.get("sku"), "quantity": data.get("quantity"), "updated": True},
    ),
}
"""Code of workflows that return more than `ok`, and the function that computes their output."""

_MAX_HOURS = 36
"""Maximum timeout of a LONG workflow in hours."""

TIMEOUTS = {"INSTANT": 30_000, "STANDARD": 120_000, "LONG": 900_000}


def add_workflows(state: SandboxState, now: datetime) -> None:
    for key, name, slug, tier, version, status, connectors, days in _WORKFLOWS:
        scopes = {app: "SAAS" if app in _OF_THE_ACCOUNT else "MULTI_TENANT" for app in connectors}
        row = workflow(state, key, name, slug=slug, tier=tier, connectors=scopes, changed=now - timedelta(days=days))
        row |= {"status": status, "publishedVersion": f"v{version}" if version else None, "version": version or 1}
        if slug == "process-new-orders":
            row["updatedBy"] = "Edited via agent"
        if slug == "orders-backfill":
            row["timeoutMs"] = _MAX_HOURS * 3_600_000
        state.put("workflows", row)
    failing = state.named("workflows", "sync-tiktok-orders-to-cin7-core")
    state.put("_failing", {"id": failing["id"], "connector": "tiktokShop", "action": "getAuthorizedShops"})
    installed = state.named("workflows", "tracking-to-shopify-and-buyer")["id"]
    acme = state.named("customers", "acme-corp")["id"]
    state.put("_installations", {"id": "inst_5d20c1e97ab4", "workflowId": installed, "endOrgId": acme})


def output_of(workflow: Row, data: Row) -> Row:
    """Return the output of a workflow's published version for an input."""
    code = _CODE.get(workflow["slug"])
    return code[1](data) if code else {"ok": True}


def workflow(
    state: SandboxState, key: str, name: str, slug: str, tier: str, connectors: Mapping[str, str], changed: datetime
) -> Row:
    """Return the row of a published, active workflow. `connectors` maps slugs to scopes."""
    calls = "".join(f"  await fastn.connector.{app}.{_first_action(state, app)}(ctx.input);\n" for app in connectors)
    body = _CODE[slug][0] if slug in _CODE else f"{calls}  return {{ ok: true }};\n"
    return _row(key, name, slug, description=f"{name}.", tier=tier) | {
        "code": f"export default async function (ctx) {{\n{body}}}\n",
        "status": "active",
        "publishedVersion": "v1",
        "retryPolicy": {"enabled": False, "maxAttempts": 3, "initialIntervalMs": 5000, "backoffCoefficient": 2},
        "inputSchema": {"type": "object"},
        "connectors": [{"slug": app, "scope": scope} for app, scope in connectors.items()],
        "labels": ["sync"] if "sync" in slug else [],
        **provenance(stamp(changed - timedelta(days=60)), "lee@fastn.example"),
        "updatedAt": stamp(changed),
    }


def _first_action(state: SandboxState, app: str) -> str:
    return state.named("connectors", app)["actions"][0]["slug"]


WORKFLOWS = Resource(
    "workflows",
    "workflow",
    settable=fields(
        text="name description code executionTier status",
        number="timeoutMs",
        flag="escalateOnTimeout",
        object="retryPolicy inputSchema outputSchema testInput",
        objects="connectors",
        texts="labels",
    ),
    fixed=fields(text="slug"),
    unique=("name", "slug"),
    long=frozenset({"code", "inputSchema", "outputSchema", "testInput"}),
)

endpoint(tools.ListWorkflows, "workflows:read")(WORKFLOWS.list)
endpoint(tools.GetWorkflow, "workflows:read")(WORKFLOWS.get)


@endpoint(tools.CreateWorkflow, "workflows:create")
def create(context: RouteContext, call: tools.CreateWorkflow) -> One:
    WORKFLOWS.check(context.body)
    _check_connectors(context, context.body)
    slug = slug_for(call.slug, call.name)
    tier = choice("executionTier", call.execution_tier or "INSTANT", TIMEOUTS)
    if context.body.get("status") not in (None, "draft"):
        raise invalid("status", "a new workflow is a draft until it is published")
    row = new_workflow(context.state, call.name, slug, call.description)
    row |= {name: value for name, value in context.body.items() if name in WORKFLOWS.settable and value is not None}
    row |= {"executionTier": tier, "timeoutMs": call.timeout_ms or TIMEOUTS[tier]}
    return One(WORKFLOWS.create(context, row), 201)


@endpoint(tools.UpdateWorkflow, "workflows:update")
def update(context: RouteContext, call: tools.UpdateWorkflow) -> One:
    row = WORKFLOWS.target(context, call)
    changed = WORKFLOWS.replaced(context, row, row)
    _check_connectors(context, changed)
    changed["executionTier"] = tier = choice(
        "executionTier", changed["executionTier"] or row["executionTier"], TIMEOUTS
    )
    changed["timeoutMs"] = changed["timeoutMs"] or TIMEOUTS[tier]
    status = None if call.status is None else choice("status", call.status, ("active", "inactive", "draft"))
    if status == "active" and row["publishedVersion"] is None:
        raise not_published()
    return One(WORKFLOWS.update(context, changed))


@endpoint(tools.DeleteWorkflow, "workflows:delete")
def delete(context: RouteContext, call: tools.DeleteWorkflow) -> One:
    return trash(context, WORKFLOWS.target(context, call))


def trash(context: RouteContext, row: Row, actor: str | None = None) -> One:
    """Delete a workflow, and disable its triggers."""
    deleted = WORKFLOWS.remove(context, row, "trash", actor)
    stop_triggers_of(context, row)
    return deleted


def new_workflow(state: SandboxState, name: str, slug: str, description: str | None) -> Row:
    return _row(state.short_id("wf"), name, slug, description=description, tier="INSTANT")


def _row(key: str, name: str, slug: str, description: str | None, tier: str) -> Row:
    return {
        "id": key,
        "name": name,
        "slug": slug,
        "description": description,
        "code": None,
        "executionTier": tier,
        "timeoutMs": TIMEOUTS[tier],
        "status": "draft",
        "publishedVersion": None,
        "retryPolicy": None,
        "inputSchema": None,
        "connectors": [],
        "labels": [],
    }


def not_published() -> SandboxRefusal:
    return SandboxRefusal(409, "WORKFLOW_NOT_PUBLISHED", "The workflow has no published version")


def _check_connectors(context: RouteContext, row: Row) -> None:
    """Refuse a workflow that uses an app which the account does not have."""
    for app in objects(row, "connectors"):
        if context.state.first("connectors", "slug", app.get("slug")) is None:
            raise invalid("connectors", f"there is no connector {app.get('slug')}")
