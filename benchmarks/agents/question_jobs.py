"""Twenty more jobs: the questions for which agents needed most calls, each answered by the first call or two.

They continue the thirty of jobs.py, on the same account and by the same rules. Some answers depend on the rows and the
day: `texts` computes what they have to contain.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from account import KEY
from job import Call, Captured, From, Job, Rows, any_row, no_row

FOUND = ("found", 0, "id")
"""Where `find` has the id of what it found first."""

LIMITS = {31: (2, 2_500), 32: (2, 2_500), 34: (1, 4_000)}
"""Calls and tokens of jobs with limits of their own."""

_SATURDAY, _FRIDAY = 5, 4


def _last(weekday: int) -> datetime:
    """Return midnight UTC of the last such day before today; Monday is 0."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=(today.weekday() - weekday) % 7 or 7)


SINCE_THE_WEEKEND = int((datetime.now(UTC) - _last(_SATURDAY)).total_seconds() // 3600) + 1
"""Hours."""

FRIDAY = _last(_FRIDAY).strftime("%Y-%m-%dT%H:%M:%SZ")

_ALIKE = (
    "Acme Corp", "Acme Logistics", "Acme Foods", "Akme Foods", "ACME Corporation", "Acme Corp Europe", "Acmecorp",
    "Acme Co",
)  # fmt: skip


def _connections_of_the_alike(rows: Rows) -> Sequence[str]:
    """Return how `find_dependents` counts the connections of each of the customers with similar names."""
    owners = [row["endOrgId"] for row in rows("connections")]
    ids = {row["name"]: row["id"] for row in rows("customers")}
    counts = {name: owners.count(ids[name]) for name in _ALIKE}
    return [f'"name":"{name}","used_by":["{count} connection{"s" * (count != 1)} (' for name, count in counts.items()]


def _keys_never_used(rows: Rows) -> Sequence[str]:
    return [f'"name":"{row["name"]}"' for row in rows("apiKeys") if not row["lastUsed"]]


def _failures_in_a_row(rows: Rows) -> Sequence[str]:
    names = ("Acme HubSpot sync, at night", "Daily TikTok sync")
    return [f'"consecutiveFailures":{row["consecutiveFailures"]}' for row in rows("triggers") if row["name"] in names]


def _stopped_since_friday(rows: Rows) -> Sequence[str]:
    """Return how `list_connections` counts what is not active and was used, changed or expired since then."""
    stopped = [row for row in rows("connections") if row["status"] != "ACTIVE"]
    count = sum(
        any((row.get(name) or "") >= FRIDAY for name in ("lastUsedAt", "updatedAt", "expiresAt")) for row in stopped
    )
    return [f'"total":{count},']


QUESTIONS: tuple[Job, ...] = (
    Job(
        31,
        "Which HubSpot customers stopped since the weekend, and what do I tell them?",
        (
            Call(
                "diagnose",
                {"connector_id": "HubSpot", "hours": SINCE_THE_WEEKEND},
                ('"customer": "Acme Corp"', '"connection": "EXPIRED"', '"since"', '"tell"'),
            ),
        ),
        facts=("Acme Corp", "EXPIRED", "connect HubSpot again"),
    ),
    Job(
        32,
        "Is anything about to expire in the next two weeks?",
        (
            Call(
                "get_overview",
                {"about": "expiry", "hours": 336},
                ("Fastn does not renew them itself", "API keys expire", '"expires"', '"not_checked": [{"what"'),
            ),
        ),
        facts=("A key is not renewed", "Fastn renews them itself", "Data dashboard"),
    ),
    Job(
        33,
        "Which runs hang, since when, and for whom?",
        (
            Call(
                "list_executions",
                {"under_way_minutes": 60},
                ('"total": 2', '"order": "longest first"', '"elapsed"', '"status": "queued"', '"status": "running"'),
            ),
        ),
        facts=("orders-backfill", "Acme Corp", "queued", "running"),
    ),
    Job(
        34,
        "Success rate by workflow, worst first.",
        (
            Call(
                "get_overview",
                {"about": "workflows", "order": "rate"},
                ('"success_rate", "last_success", "why"', '"Acme HubSpot sync", 5, 0, "0.0 %"'),
            ),
        ),
        facts=("Acme HubSpot sync", "The hubspot connection cannot be used"),
    ),
    Job(
        35,
        "What would happen if I ran process-new-orders live for Globex Exports? Do not run it.",
        (
            Call("find", {"query": "process-new-orders for Globex Exports"}, ('"runs_for"', '"Globex Exports"')),
            Call(
                "preview_change",
                {
                    "tool": "run_workflow",
                    "arguments": {
                        "workflow_id": From(0, FOUND),
                        "customer_id": From(0, ("found", 0, "runs_for", 0, "id")),
                        "environment": "live",
                    },
                },
                ("is INACTIVE", "the run will fail where it calls"),
            ),
        ),
        facts=("Shopify of Globex Exports", "INACTIVE"),
    ),
    Job(
        36,
        "Who depends on the Slack connector, and what would its deletion do? Do not delete it.",
        (
            Call("find_dependents", {"connector_id": "Slack"}, ('"Slack of Acme Corp"', '"workflows"')),
            Call(
                "preview_change",
                {"tool": "delete_connector", "arguments": {"connector_id": From(0, ("of", "id"))}},
                ("workflows stop", '"dependents": {"tool": "find_dependents"'),
            ),
        ),
        holds=any_row("connectors", slug="slack"),
        facts=("Slack of Acme Corp", "by typing", "have to authorise again"),
    ),
    Job(
        37,
        "Delete process-new-orders. Which triggers does that stop?",
        (
            Call("find", {"query": "process-new-orders", "kind": "workflow"}, ('"name": "process-new-orders"',)),
            Call(
                "delete_workflow",
                {"workflow_id": From(0, FOUND)},
                ('"stopped_triggers": ["Paid Shopify orders (',),
            ),
        ),
        ("DELETE workflows",),
        no_row("workflows", slug="process-new-orders"),
        ("Paid Shopify orders",),
    ),
    Job(
        38,
        f"What do these customers have: {', '.join(_ALIKE)}?",
        (Call("find_dependents", {"customer_id": list(_ALIKE)}, ('"not_checked": []',)),),
        facts=_ALIKE,
        texts=_connections_of_the_alike,
    ),
    Job(
        39,
        "Publish sync_tiktok_settlements_cin7, cancel the run of orders-backfill that hangs, and make Lee a Viewer.",
        (
            Call(
                "find",
                {"query": "publish sync_tiktok_settlements_cin7"},
                ("Workflows can be published", '"state": "never published"'),
            ),
            Call("find", {"query": "cancel the run of orders-backfill"}, ("Runs can be cancelled",)),
            Call(
                "list_users",
                {"search": "Lee", "fields": ["name", "role"]},
                ("A person's role can be changed", '"role": "Admin"'),
            ),
        ),
        holds=any_row("workflows", slug="sync_tiktok_settlements_cin7", status="draft"),
        facts=("published", "cancelled", "role can be changed"),
    ),
    Job(
        40,
        "Who or what started the last runs of orders-backfill?",
        (
            Call(
                "list_executions",
                {
                    "workflow_id": "orders-backfill",
                    "limit": 5,
                    "fields": ["status", "triggeredBy", "createdAt", "customer"],
                },
                ('"triggeredBy": "manual"', '"total": 3'),
            ),
        ),
        facts=("manual", "Globex Exports"),
    ),
    Job(
        41,
        "Which API keys were never used?",
        (Call("list_api_keys", {"never_used": True}, ('"looked_at"', '"lastUsed": "never"')),),
        facts=("TEST", "Data dashboard"),
        texts=_keys_never_used,
    ),
    Job(
        42,
        "Which triggers are failing, and for whom?",
        (Call("list_triggers", {"problem": "failing"}, ('"customer": "Katana"', '"customer": "Acme Corp"')),),
        facts=("Daily TikTok sync", "Katana", "Acme HubSpot sync, at night"),
        texts=_failures_in_a_row,
    ),
    Job(
        43,
        "What state is HubSpot of Acme Corp in? Disconnect it, by the id that you listed.",
        (
            Call(
                "list_connections",
                {"customer_id": "Acme Corp", "connector_id": "HubSpot"},
                ('"id": "ref_', '"status": "EXPIRED"'),
            ),
            Call(
                "delete_connection",
                {"connection_id": From(0, (0, "id"))},
                ('"name": "HubSpot of Acme Corp"', '"done": "delete_connection"'),
            ),
        ),
        ("DELETE connections",),
        lambda rows: (
            sorted(row["connector"]["slug"] for row in rows("connections") if row["userEmail"] == "ops@acme.example")
            == ["shopify", "slack", "xero"]
        ),
        ("EXPIRED",),
    ),
    Job(
        44,
        "Give Globex Exports the same schedule that Katana has, called Globex TikTok sync; leave it switched off.",
        (
            Call("list_triggers", {"customer_id": "Katana", "detail": "full"}, ('"timezone"', '"routes"')),
            Call("find", {"query": "Globex Exports", "kind": "customer"}, ('"name": "Globex Exports"',)),
            Call(
                "create_trigger",
                {
                    "name": "Globex TikTok sync",
                    "type": "scheduler",
                    "customer_id": From(1, FOUND),
                    "schedule": From(0, (0, "schedule")),
                    "timezone": From(0, (0, "timezone")),
                    "routes": [
                        {
                            "routeId": From(0, (0, "routes", 0, "routeId")),
                            "environment": From(0, (0, "routes", 0, "environment")),
                        }
                    ],
                    "status": "Disabled",
                },
                ('"status": "Disabled"',),
            ),
        ),
        ("POST triggers",),
        lambda rows: any(
            row["name"] == "Globex TikTok sync"
            and any_row("customers", id=row["endOrgId"], name="Globex Exports")(rows)
            and (row["schedule"], row["timezone"], row["status"]) == ("0 15 * * *", "UTC", "Disabled")
            for row in rows("triggers")
        ),
    ),
    Job(
        45,
        "Why does the TikTok sync fail?",
        (
            Call("diagnose", {"workflow_id": "TikTok sync"}, ("Did you mean: ",), is_refused=True),
            Call(
                "diagnose",
                {"workflow_id": From(0, (Captured(r"Did you mean: (.+?) \("),), "next")},
                ('"name": "Sync TikTok Orders to Cin7 Core"', '"causes": [{'),
            ),
        ),
        facts=("Katana", "TikTok Shop"),
    ),
    Job(
        46,
        "Plan a workflow that copies Stripe refunds to Xero. Show me the plan and what agreeing costs; do not agree.",
        (
            Call(
                "ai_build",
                {"type": "workflow", "prompt": "Copy Stripe refunds to Xero", "connectors": ["stripe", "xero"]},
                ('"buildStatus": "PLANNING"', "Each message spends AI credits"),
            ),
            Call("ai_chat", From(0, ("next", "arguments")), ('"plan"', '"if_they_agree"', '"otherwise"')),
        ),
        holds=no_row("workflows", slug="copy-stripe-refunds-to-xero"),
        facts=("copy-stripe-refunds-to-xero", "spends AI credits"),
    ),
    Job(
        47,
        "Store the warehouse's token as WAREHOUSE_TOKEN. I will type it myself; you must not see it.",
        (
            Call(
                "preview_change",
                {"tool": "create_secret", "arguments": {"name": "WAREHOUSE_TOKEN"}},
                ("You enter its value.",),
            ),
            Call("create_secret", {"name": "WAREHOUSE_TOKEN"}, ('"done": "create_secret"',)),
        ),
        ("POST secrets",),
        any_row("secrets", name="WAREHOUSE_TOKEN", scope="org"),
    ),
    Job(
        48,
        "Who changed orders-backfill last?",
        (
            Call("query_audit_log", {"resource_id": "orders-backfill"}, ('"total": 0', '"log_begins"', "updatedBy")),
            Call(
                "list_workflows",
                {"search": "orders-backfill", "fields": ["name", "updatedAt", "updatedBy"]},
                ('"updatedBy": "',),
            ),
        ),
        facts=("log_begins", "updatedBy", "@fastn.example"),
    ),
    Job(
        49,
        "Which API key are you using, what may it do, and what time is it at Fastn?",
        (Call("get_overview", {"about": "access"}, ('"now": "', f'"key_ends": "{KEY[-4:]}"', '"permissions": "')),),
        facts=(KEY[-4:], "Full access"),
        texts=lambda _: [f'"now":"{datetime.now(UTC):%Y-%m-%dT}'],
    ),
    Job(
        50,
        "Which connections stopped working since Friday?",
        (
            Call(
                "list_connections",
                {
                    "status": "!ACTIVE",
                    "since": FRIDAY,
                    "limit": 100,
                    "fields": ["customer", "connector", "status", "lastUsedAt"],
                },
                ('"Acme Corp"', '"HubSpot"', "Rows with any other status are not here."),
            ),
        ),
        facts=("Acme Corp", "HubSpot", "EXPIRED"),
        texts=_stopped_since_friday,
    ),
)
