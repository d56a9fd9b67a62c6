"""Seventeen more jobs: questions whose answers once misled agents, left something out, or took them many calls.

They continue the fifty of jobs.py and question_jobs.py, on the same account and by the same rules.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from account import KEY
from job import Call, From, Job, Rows

MAX_CALLS = 4
MAX_TOKENS = 3_000
"""For one of these jobs."""

_NOW = datetime.now(UTC)
_MIDNIGHT = _NOW.replace(hour=0, minute=0, second=0, microsecond=0)
"""The sandbox's past ends then."""

DAY_AGO = f"{_MIDNIGHT - timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
MIDNIGHT = f"{_MIDNIGHT:%Y-%m-%dT%H:%M:%SZ}"
FORTNIGHT_AGO = f"{_MIDNIGHT - timedelta(days=14):%Y-%m-%dT%H:%M:%SZ}"

LONG_AGO = f"{_MIDNIGHT - timedelta(days=60):%Y-%m-%d}"
"""Before Fastn's history of runs begins, which is kept for 30 days."""

_HOURLY = 10
"""Number of hourly schedules that are on."""


def _without_reference(rows: Rows) -> Sequence[str]:
    return [f'"total":{sum(not row.get("externalRef") for row in rows("customers"))}']


ANSWERS: tuple[Job, ...] = (
    Job(
        51,
        "Which customers have no external reference? How many are they?",
        (
            Call(
                "query",
                {"sql": "select name, slug from customers where external_ref is null order by name", "csv": True},
                ('"file": "', '"total"'),
            ),
        ),
        facts=(".csv",),
        texts=_without_reference,
    ),
    Job(
        52,
        "How many runs did our hourly schedules make yesterday, and for how many customers?",
        (
            Call(
                "query",
                {
                    "sql": "select r.workflow_id, t.name from triggers t join trigger_routes r on r.trigger_id = t.id"
                    " where t.status = 'Active' and t.schedule like '% * * * *' and t.schedule not like '%-% * * *'"
                },
                ("Hourly Slack sync",),
            ),
            Call(
                "query",
                {
                    "sql": "select workflow, count(*), count(distinct customer_id) from runs"
                    " where triggered_by = 'scheduler' group by 1",
                    "workflow_id": [From(0, ("rows", number, 0)) for number in range(_HOURLY)],
                    "since": DAY_AGO,
                    "until": MIDNIGHT,
                },
                ('"runs": "all ', f"of {_HOURLY} workflows"),
            ),
        ),
        facts=("Daily NetSuite sales report in Google Sheets",),
    ),
    Job(
        53,
        "Who started orders-backfill last, a person or a key?",
        (
            Call(
                "list_executions",
                {"workflow_id": "orders-backfill", "limit": 1, "fields": ["id", "status", "createdAt"]},
                ('"id": "exec_',),
            ),
            Call("get_execution", {"execution_id": From(0, (0, "id"))}, ('"startedBy": "',)),
        ),
        facts=("API key 1",),
    ),
    Job(
        54,
        "Which of our API keys is yours, and what did each of the newest ten do last?",
        (Call("list_api_keys", {"limit": 10}, ('"own_key": "', '"actions"', '"actions_of": "')),),
        facts=(KEY[-4:], "lacks most reads"),
    ),
    Job(
        55,
        "Did anybody change anything yesterday?",
        (
            Call(
                "query_audit_log",
                {"since": DAY_AGO, "changes_only": True},
                ('"filtered_out": "', '"log_begins"', '"log_lacks"', '"last_before"'),
            ),
        ),
        facts=("logins by people",),
    ),
    Job(
        56,
        "Which plan has Globex Exports, who is its admin, and what has it connected?",
        (
            Call("get_customer", {"customer_id": "Globex Exports"}, ('"plan"', '"externalRef"')),
            Call("list_connections", {"customer_id": "Globex Exports"}, ('"customer"',)),
        ),
        facts=("apps@globex.example", "Shopify"),
    ),
    Job(
        57,
        "Does anything use the customer Harvest Supply Co besides its connections?",
        (Call("find_dependents", {"customer_id": "Harvest Supply Co"}, ('"not_checked": []', '"none": [')),),
        facts=("secrets", "triggers"),
    ),
    Job(
        58,
        "What is broken at Katana?",
        (Call("diagnose", {"customer_id": "Katana"}, ('"verdict"', '"connections": [')),),
        facts=("TikTok Shop", "Cin7 Core", "FAILED", "EXPIRED"),
    ),
    Job(
        59,
        "Which fields of input does process-new-orders read?",
        (Call("get_workflow", {"workflow_id": "process-new-orders"}, ('"input_fields": [',)),),
        facts=("orderId", "note"),
    ),
    Job(
        60,
        "Who can call the webhook Shop events, and what does it start?",
        (Call("get_trigger", {"trigger_id": "Shop events"}, ('"callers"', '"runs_in_24_hours"')),),
        facts=("x-fastn-access-key", "update-inventory"),
    ),
    Job(
        61,
        "Ask Fastn's AI what is wrong with the TikTok sync. Did it change anything?",
        (Call("ai_chat", {"message": "What is wrong with the TikTok sync?"}, ('"according_to_fastn"',)),),
        facts=("asks before each change",),
    ),
    Job(
        62,
        "Did the runs of our three biggest customers go up, this week against the last?",
        (
            Call("query", {"sql": "select id, name, connections from customers order by connections desc limit 3"}),
            Call(
                "query",
                {
                    "sql": "select customer, sum(case when day < substr(ago('168 hours'), 1, 10) then runs end) before,"
                    " sum(case when day >= substr(ago('168 hours'), 1, 10) then runs end) after"
                    " from run_counts group by 1",
                    "customer_id": [From(0, ("rows", number, 0)) for number in range(3)],
                    "since": FORTNIGHT_AGO,
                    "until": MIDNIGHT,
                },
                ('"run_counts": "exact from ',),
            ),
        ),
        facts=("Alder Hotels BV",),
    ),
    Job(
        63,
        "How many runs did we have two months ago?",
        (
            Call(
                "list_executions",
                {"since": LONG_AGO, "until": LONG_AGO, "limit": 1},
                ('"history_begins": "',),
            ),
        ),
        facts=("begins",),
    ),
    Job(
        64,
        "Why does Reconcile HubSpot contacts with Airtable time out?",
        (
            Call(
                "diagnose",
                {"workflow_id": "Reconcile HubSpot contacts with Airtable", "hours": 24},
                ("until its limit of 120 s", "completed runs take at most"),
            ),
        ),
        facts=("hangs",),
    ),
    Job(
        65,
        "If I make a webhook that starts process-new-orders, who can call it? Do not make it.",
        (
            Call(
                "preview_change",
                {
                    "tool": "create_trigger",
                    "arguments": {
                        "name": "Warehouse orders",
                        "type": "webhook",
                        "routes": [{"routeId": "process-new-orders"}],
                    },
                },
                ("with an API key",),
            ),
        ),
        facts=("x-fastn-access-key",),
    ),
    Job(
        66,
        "What needs attention today, and at which customers?",
        (Call("get_overview", {}, ('"findings": [', '"fix"')),),
        facts=("Windmill Apparel Ltd", "Cin7 Core"),
    ),
    Job(
        67,
        "Which customers have broken connections, since when, and what do they have to do?",
        (Call("get_overview", {"about": "customers"}, ('"broken_since"', '"fix"')),),
        facts=("Windmill Apparel Ltd", "in the widget"),
    ),
)
