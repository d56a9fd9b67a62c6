"""Sixty-seven jobs of administrators, with the calls that the server's instructions and answers suggest for each.

A script knows what the person said and what earlier answers returned, but no ids. The account is the large one of
`tests/large_account`. The tests hold the costs, and `make tokens` measures them. Jobs 31 to 50 are in
question_jobs.py, 51 to 67 in answer_jobs.py.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from answer_jobs import ANSWERS
from job import Call, From, Job, Says, all_of, any_row, no_row
from question_jobs import FOUND, QUESTIONS

VARIABLE = "NEW_STRIPE_KEY"
"""In which the operator has put the new value of a secret."""

ENVIRONMENT = {"FASTN_SECRET_ENV": VARIABLE, VARIABLE: "sk_live_of_nobody"}

LAST_NIGHT = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT18:00:00Z")
"""When it began, as an agent that knows the date would write it. The sandbox's past ends at midnight UTC."""

MAX_CALLS = 6
MAX_TOKENS = 5_000
"""For one job: all answers together, in o200k_base."""

MEDIAN_CALLS = 2
MEDIAN_TOKENS = 900
"""For all jobs."""

MAX_REQUESTS = 480
"""For the first thirty jobs together."""

LARGEST = 30_000
"""Characters of one answer."""


def _is_of(connection: dict[str, Any], app: str, email: str) -> bool:
    return connection["connector"]["slug"] == app and connection["userEmail"] == email


THIRTY: tuple[Job, ...] = (
    Job(
        1,
        "Onboard Nordlicht Bikes, admin ops@nordlicht.example, and tell me whether its admin has activated.",
        (
            Call("find", {"query": "Nordlicht Bikes", "kind": "customer"}, ('"found": []',)),
            Call("create_customer", {"name": "Nordlicht Bikes", "admin_email": "ops@nordlicht.example"}),
            Call(
                "get_customer",
                {"customer_id": From(1, ("id",))},
                ('"status": "Pending Admin Activation"', '"inviteStatus": "Invite Pending"'),
            ),
        ),
        ("POST customers",),
        any_row("customers", name="Nordlicht Bikes", adminEmail="ops@nordlicht.example"),
        ("Pending Admin Activation",),
    ),
    Job(
        2,
        "Which customers have expired or failed connections, and which workflows does that break?",
        (
            Call(
                "get_overview",
                {"about": "connections"},
                ('"HubSpot of Acme Corp"', "Acme HubSpot sync (", "authorise the app again", "a new API key"),
            ),
        ),
        (),
        facts=("Acme Corp", "HubSpot", "Katana", "TikTok Shop"),
    ),
    Job(
        3,
        "Why did the acme hubspot sync fail last night?",
        (
            Call(
                "diagnose",
                {"workflow_id": "acme hubspot sync"},
                (
                    "connection HubSpot of Acme Corp is EXPIRED",
                    "listContacts",
                    '"will_not_help"',
                    "failures in a row",
                ),
            ),
        ),
        (),
        facts=("HubSpot", "Acme Corp", "EXPIRED"),
    ),
    Job(
        4,
        "Run the slack to supabase sync for Acme Corp first, and report when it has finished.",
        (
            Call(
                "find",
                {"query": "the slack to supabase sync for Acme Corp"},
                ('"name": "Slack Messages to Supabase Hourly Sync"', '"runs_for"'),
            ),
            Call(
                "run_workflow",
                {
                    "workflow_id": From(0, FOUND),
                    "customer_id": From(0, ("found", 0, "runs_for", 0, "id")),
                    "wait_seconds": 45,
                },
                ('"status": "completed"', '"waited_seconds"'),
            ),
        ),
        ("POST workflows",),
        facts=("completed",),
    ),
    Job(
        5,
        "Pause the hourly slack sync while I fix it; afterwards make it every 15 minutes.",
        (
            Call("find", {"query": "pause the hourly slack sync"}, ('"name": "Hourly Slack sync"', '"starts"')),
            Call(
                "update_trigger",
                {"trigger_id": From(0, FOUND), "status": "Disabled"},
                ('"status": "Disabled"', '"undo": "undo_change"'),
            ),
            Call(
                "update_trigger",
                {"trigger_id": From(0, FOUND), "status": "Active", "schedule": "*/15 * * * *"},
                ('"status": "Active"', '"schedule": "*/15 * * * *"', '"undo": "undo_change"'),
            ),
        ),
        ("PUT triggers", "PUT triggers"),
        any_row("triggers", name="Hourly Slack sync", status="Active", schedule="*/15 * * * *"),
    ),
    Job(
        6,
        "Weekly health report: success rate per workflow, top errors, quota use.",
        (
            Call(
                "get_overview",
                {"hours": 168, "about": "workflows"},
                ('"severity": "high"', '"success_rate"', '"top_errors"', "connection cannot be used"),
            ),
            Call("get_quotas", {}, ('"API calls"', '"percent"')),
        ),
        (),
        facts=("API calls",),
    ),
    Job(
        7,
        "Do we have quota for this 100k-record backfill?",
        (
            Call("get_quotas", {}, ('"Hard Block"', '"limit"', '"used"')),
            Call("get_usage", {}, ('"executions"', '"byCustomer"')),
        ),
        (),
        facts=("Hard Block",),
    ),
    Job(
        8,
        "Create a read-only key for the BI team that ends in 30 days, and revoke TEST if it was never used.",
        (
            Call("get_overview", {"about": "access"}, ("API keys have never been used", '"TEST"')),
            Call(
                "create_api_key",
                {"name": "BI team", "permissions": "Viewer", "expires": "30d"},
                ('"permissions": "Viewer"', '"expiresAt"', '"key": "[in '),
            ),
            Call(
                "revoke_api_key",
                {"api_key_id": From(0, ("table", "rows", Says("TEST"), 1))},
                ('"done": "revoke_api_key"',),
            ),
        ),
        ("POST api-keys", "DELETE api-keys"),
        all_of(any_row("apiKeys", name="BI team", permissions="Viewer"), no_row("apiKeys", name="TEST")),
    ),
    Job(
        9,
        f"Rotate STRIPE_SECRET_KEY for Globex Exports only; the new value is in {VARIABLE}.",
        (
            Call("find", {"query": "Globex Exports", "kind": "customer"}, ('"name": "Globex Exports"',)),
            Call(
                "create_secret",
                {"name": "STRIPE_SECRET_KEY", "value_from_env": VARIABLE, "customer_id": From(0, FOUND)},
                ('"scope": "customer"', '"why": "Whether it overwrote something is unknown'),
            ),
            Call(
                "list_secrets",
                {"customer_id": From(0, FOUND)},
                ('"name": "STRIPE_SECRET_KEY"', '"customer": "Globex Exports"', "just now"),
            ),
        ),
        ("POST secrets",),
        any_row("secrets", name="STRIPE_SECRET_KEY", scope="customer"),
    ),
    Job(
        10,
        "Invite sam.rivera@fastn.example as Operator, and make a support role that sees runs but runs nothing.",
        (
            Call("list_roles", {"fields": ["name", "permissions"]}, ('"Operator"', "executions:create,read")),
            Call("invite_user", {"email": "sam.rivera@fastn.example", "role": "Operator"}, ('"status": "Invited"',)),
            Call(
                "create_role",
                {
                    "name": "Support, sees runs",
                    "parent": "Operator",
                    "permissions": ["workflows:read", "executions:read"],
                },
                ('"name": "Support, sees runs"',),
            ),
        ),
        ("POST users", "POST roles"),
        all_of(
            any_row("users", email="sam.rivera@fastn.example", role="Operator"),
            any_row("roles", name="Support, sees runs", permissions=["executions:read", "workflows:read"]),
        ),
    ),
    Job(
        11,
        "Who changed the slack to supabase sync? What did key 1 do? Did anyone touch production last night?",
        (
            Call(
                "find",
                {"query": "the slack to supabase sync", "kind": "workflow"},
                ('"name": "Slack Messages to Supabase Hourly Sync"',),
            ),
            Call(
                "query_audit_log",
                {"resource_id": From(0, FOUND)},
                ('"actor": "lee@fastn.example"', '"action": "workflow.publish"', " ago)"),
            ),
            Call("query_audit_log", {"actor": "apikey:1", "limit": 3}, ('"actor": "apikey:1"', '"next_cursor"')),
            Call("query_audit_log", {"since": LAST_NIGHT}, ('"timestamp"', '"actor"', '"outcome"')),
        ),
        (),
        facts=("lee@fastn.example", "apikey:1"),
    ),
    Job(
        12,
        "Offboard Widget Inc.",
        (
            Call("find", {"query": "Widget Inc", "kind": "customer"}, ('"name": "Widget Inc"',)),
            Call(
                "find_dependents",
                {"customer_id": From(0, FOUND)},
                ('"kind": "connections"', '"HubSpot of Widget Inc"', '"last_run"'),
            ),
            Call("delete_customer", {"customer_id": From(0, FOUND)}, ('"done": "delete_customer"', "secrets are lost")),
        ),
        ("DELETE customers",),
        all_of(no_row("customers", name="Widget Inc"), any_row("customers", name="Widget Inc UK")),
    ),
    Job(
        13,
        "Which workflows use the Slack connector, before I delete it?",
        (
            Call("find", {"query": "the Slack connector"}, ('"name": "Slack"',)),
            Call(
                "find_dependents",
                {"connector_id": From(0, FOUND)},
                ('"kind": "workflows"', '"process-new-orders"', '"not_checked"', '"last_run"'),
            ),
        ),
        (),
        facts=("process-new-orders", "Slack Messages to Supabase Hourly Sync"),
    ),
    Job(
        14,
        "Build a workflow that syncs Shopify orders to Xero. (The plan is shown to the person, who agrees.)",
        (
            Call(
                "ai_build",
                {"type": "workflow", "prompt": "Sync Shopify orders to Xero", "connectors": ["shopify", "xero"]},
                ('"buildStatus": "PLANNING"', '"tool": "ai_chat"'),
            ),
            Call("ai_chat", From(0, ("next", "arguments")), ('"plan"', '"pending_approvals"', '"if_they_agree"')),
            Call("ai_chat", From(1, ("next", "if_they_agree", "arguments")), ('"created"', '"get_workflow"')),
        ),
        (),
        any_row("workflows", slug="sync-shopify-orders-to-xero", status="draft"),
    ),
    Job(
        15,
        "Which app-event triggers are Active but not subscribed?",
        (Call("get_overview", {"about": "triggers"}, ("on but never fire", '"Paid Shopify orders"')),),
        (),
        facts=("Paid Shopify orders",),
    ),
    Job(
        16,
        "The orders of Katana do not arrive. Why, and who has to do what?",
        (Call("diagnose", {"customer_id": "Katana"}),),
        facts=("TikTok Shop", "FAILED"),
    ),
    Job(
        17,
        "What does the newest failure of the TikTok sync say, word for word?",
        (
            Call("find", {"query": "the tiktok orders sync", "kind": "workflow"}),
            Call(
                "list_executions",
                {
                    "workflow_id": From(0, ("found", Says("Sync TikTok Orders"), "id")),
                    "status": "failed",
                    "limit": 1,
                    "detail": "full",
                },
            ),
        ),
        facts=("is not usable or does not belong to this org for connector",),
    ),
    Job(
        18,
        "Move Globex Exports to the plan Growth. No, wait: undo that.",
        (
            Call("find", {"query": "Globex Exports", "kind": "customer"}),
            Call("update_customer", {"customer_id": From(0, FOUND), "plan": "Growth"}, ('"undo": "undo_change"',)),
            Call("undo_change", {"change_id": From(1, ("change_id",), "receipt")}),
        ),
        ("PUT customers", "PUT customers"),
        any_row("customers", name="Globex Exports", plan="Enterprise", quotaOverrides={"events.day": 200}),
    ),
    Job(
        19,
        "The webhook trigger Shop events shall be called Shop events (EU).",
        (
            Call("find", {"query": "Shop events", "kind": "trigger"}, ('"name": "Shop events"',)),
            Call("update_trigger", {"trigger_id": From(0, FOUND), "name": "Shop events (EU)"}),
        ),
        ("PUT triggers",),
        lambda rows: (
            [
                len(row["routes"])
                for row in rows("triggers")
                if row["name"].startswith("Shop events") and row["status"] == "Active"
            ]
            == [2]
        ),
    ),
    Job(
        20,
        "Prepare a trigger that starts orders-backfill every night at three, Berlin time; leave it switched off.",
        (
            Call("find", {"query": "orders-backfill", "kind": "workflow"}, ('"name": "orders-backfill"',)),
            Call(
                "create_trigger",
                {
                    "name": "Nightly backfill",
                    "type": "scheduler",
                    "schedule": "0 3 * * *",
                    "timezone": "Europe/Berlin",
                    "status": "Disabled",
                    "routes": [{"routeId": From(0, FOUND), "routeType": "API", "environment": "live"}],
                },
            ),
        ),
        ("POST triggers",),
        any_row("triggers", name="Nightly backfill", status="Disabled", schedule="0 3 * * *", timezone="Europe/Berlin"),
    ),
    Job(
        21,
        "Disconnect Xero for Acme Corp. What breaks?",
        (
            Call("find", {"query": "Xero of Acme Corp", "kind": "connection"}, ('"name": "Xero of Acme Corp"',)),
            Call("preview_change", {"tool": "delete_connection", "arguments": {"connection_id": From(0, FOUND)}}),
            Call("delete_connection", {"connection_id": From(0, FOUND)}, ('"done": "delete_connection"',)),
        ),
        ("DELETE connections",),
        lambda rows: not [row for row in rows("connections") if _is_of(row, "xero", "ops@acme.example")],
    ),
    Job(
        22,
        "Throw away the draft sync_tiktok_settlements_cin7.",
        (
            Call("find", {"query": "sync_tiktok_settlements_cin7"}, ('"name": "sync_tiktok_settlements_cin7"',)),
            Call("delete_workflow", {"workflow_id": From(0, FOUND)}, ('"done": "delete_workflow"',)),
        ),
        ("DELETE workflows",),
        no_row("workflows", slug="sync_tiktok_settlements_cin7"),
    ),
    Job(
        23,
        "Create the customers Hooli, Initech and Initrode on the plan Starter, and ask me once.",
        (
            Call(
                "apply_changes",
                {
                    "changes": [
                        {"tool": "create_customer", "arguments": {"name": name, "plan": "Starter"}}
                        for name in ("Hooli", "Initech", "Initrode")
                    ]
                },
            ),
        ),
        ("POST customers",) * 3,
        all_of(*(any_row("customers", name=name, plan="Starter") for name in ("Hooli", "Initech", "Initrode"))),
    ),
    Job(
        24,
        "What would be lost if we deleted Katana? Do not delete it.",
        (
            Call("find", {"query": "Katana", "kind": "customer"}, ('"name": "Katana"',)),
            Call("preview_change", {"tool": "delete_customer", "arguments": {"customer_id": From(0, FOUND)}}),
        ),
        (),
        any_row("customers", name="Katana"),
        ("TikTok Shop", "Cin7 Core"),
    ),
    Job(
        25,
        "Whom do we still have to remind to accept the invitation as a customer's admin?",
        (Call("list_customers", {"status": "Pending Admin Activation", "limit": 100}),),
        facts=("John-Acme",),
    ),
    Job(
        26,
        "How many runs failed in the last week, and which workflow failed most?",
        (Call("get_overview", {"hours": 168, "about": "workflows"}, ('"success_rate"',)),),
        facts=("Daily NetSuite sales report in Google Sheets",),
    ),
    Job(
        27,
        "Is anything on fire?",
        (Call("get_overview", {}, ('"findings"',)),),
        facts=("Paid Shopify orders",),
    ),
    Job(
        28,
        "Which apps has Acme Corp connected, do they work, and when was each last used?",
        (
            Call("find", {"query": "Acme Corp", "kind": "customer"}, ('"name": "Acme Corp"',)),
            Call("list_connections", {"customer_id": From(0, FOUND)}),
        ),
        facts=("Shopify", "Slack", "Xero", "HubSpot", "EXPIRED"),
    ),
    Job(
        29,
        "Which actions does our Gamma connector have, and what do they need? Describe it as: Decks for sales.",
        (
            Call("find", {"query": "Gamma", "kind": "connector"}, ('"name": "Gamma"',)),
            Call("get_connector", {"connector_id": From(0, FOUND)}, ('"input"',)),
            Call("update_connector", {"connector_id": From(0, FOUND), "description": "Decks for sales"}),
        ),
        ("PUT connectors",),
        lambda rows: any(
            row["slug"] == "gamma" and row["description"] == "Decks for sales" and row["actions"]
            for row in rows("connectors")
        ),
        ("createDeck",),
    ),
    Job(
        30,
        "Run process-new-orders for Acme Corp with the order SO-77 and show me what it returned.",
        (
            Call("find", {"query": "process-new-orders", "kind": "workflow"}, ('"name": "process-new-orders"',)),
            Call("find", {"query": "Acme Corp", "kind": "customer"}, ('"name": "Acme Corp"',)),
            Call(
                "run_workflow",
                {
                    "workflow_id": From(0, FOUND),
                    "customer_id": From(1, FOUND),
                    "input": {"orderId": "SO-77"},
                    "wait_seconds": 30,
                },
                ('"orderId": "SO-77"',),
            ),
        ),
        ("POST workflows",),
        lambda rows: any(row["input"] == {"orderId": "SO-77"} for row in rows("executions")),
        ("sent",),
    ),
)

JOBS = (*THIRTY, *QUESTIONS, *ANSWERS)
