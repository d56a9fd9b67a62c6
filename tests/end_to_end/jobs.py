"""Fifteen typical admin jobs as scripts over tools.

The tests limit the cost of a job with them; the benchmark measures it. A script knows what the person said and what
earlier answers returned, but no ids. The account is the large one of `tests/large_account`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

VARIABLE = "NEW_STRIPE_KEY"
"""In which the operator has put the new value of a secret."""

ENVIRONMENT = {"FASTN_SECRET_ENV": VARIABLE, VARIABLE: "sk_live_of_nobody"}

LAST_NIGHT = (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%dT18:00:00Z")
"""When it began, as an agent that knows the date would write it. The sandbox's past ends at midnight UTC."""

MOST_CALLS = 4
MOST_TOKENS = 6_000
"""For one job: all answers together, in o200k_base."""

LARGEST = 8_000
"""Characters of one answer."""


@dataclass(frozen=True, slots=True)
class From:
    """A value from an earlier answer: the call, counted from 0, and the path in its `data`.

    In the path a number is a list index, a text a field, and `Says` selects a list entry.
    """

    call: int
    path: tuple["int | str | Says", ...]

    def out_of(self, answers: Sequence[Mapping[str, Any]]) -> Any:
        value: Any = answers[self.call]["data"]
        for part in self.path:
            value = part.among(value) if isinstance(part, Says) else value[part]
        return value


@dataclass(frozen=True, slots=True)
class Says:
    """Selects the one list entry that contains this."""

    words: str

    def among(self, entries: list[Any]) -> Any:
        (found,) = [entry for entry in entries if self.words in json.dumps(entry)]
        return found


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call, and what its answer must say for the job to continue."""

    tool: str
    arguments: "Mapping[str, Any] | From"
    says: tuple[str, ...] = ()

    def filled(self, answers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the arguments with values of earlier answers, or the whole call that an answer suggested."""
        if isinstance(self.arguments, From):
            return cast("dict[str, Any]", self.arguments.out_of(answers))
        return {
            name: value.out_of(answers) if isinstance(value, From) else value for name, value in self.arguments.items()
        }


@dataclass(frozen=True, slots=True)
class Job:
    """What the person said, and the calls that do it. `proof` shows that it was done and is not counted."""

    number: int
    said: str
    calls: tuple[Call, ...]
    proof: tuple[Call, ...] = field(default=())

    def __str__(self) -> str:
        return f"{self.number}"


FOUND = ("found", 0, "id")
"""Where `find` has the id of what it found first."""

JOBS: tuple[Job, ...] = (
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
        (Call("find", {"query": "nordlicht bikes"}, ('"name": "Nordlicht Bikes"',)),),
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
    ),
    Job(
        3,
        "Why did the acme hubspot sync fail last night?",
        (
            Call("find", {"query": "the acme hubspot sync"}, ('"name": "Acme HubSpot sync"',)),
            Call(
                "diagnose",
                {"workflow_id": From(0, FOUND)},
                (
                    "connection HubSpot of Acme Corp is EXPIRED",
                    "listContacts",
                    '"will_not_help"',
                    "consecutive failures",
                ),
            ),
        ),
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
        (
            Call(
                "list_changes",
                {"limit": 1},
                ('"schedule": {"from": "0 * * * *", "to": "*/15 * * * *"}', '"name": "Hourly Slack sync'),
            ),
        ),
    ),
    Job(
        6,
        "Weekly health report: success rate per workflow, top errors, quota use.",
        (
            Call("get_overview", {"hours": 168}, ('"severity": "high"', "1 quota is at 80 % or more: API calls")),
            Call(
                "get_overview",
                {"hours": 168, "about": "runs"},
                ('"success_rate"', '"top_errors"', "connection cannot be used", '"tool": "diagnose"'),
            ),
            Call("get_quotas", {}, ('"API calls"', '"percent"')),
        ),
    ),
    Job(
        7,
        "Do we have quota for this 100k-record backfill?",
        (
            Call("get_quotas", {}, ('"Hard Block"', '"limit"', '"used"')),
            Call("get_usage", {}, ('"executions"', '"byCustomer"')),
        ),
    ),
    Job(
        8,
        "Create a read-only key for the BI team that ends in 30 days, and revoke TEST if it was never used.",
        (
            Call("get_overview", {"about": "access"}, ("API keys were never used", '"name": "TEST"')),
            Call(
                "create_api_key",
                {"name": "BI team", "permissions": "Viewer", "expires": "30d"},
                ('"permissions": "Viewer"', '"expiresAt"', '"key": "[in '),
            ),
            Call(
                "revoke_api_key",
                {"api_key_id": From(0, ("findings", Says("never used"), "rows", Says("TEST"), "id"))},
                ('"done": "revoke_api_key"',),
            ),
        ),
        (Call("find", {"query": "BI team", "kind": "api_key"}, ('"name": "BI team"',)),),
    ),
    Job(
        9,
        f"Rotate STRIPE_SECRET_KEY for Globex Exports only; the new value is in {VARIABLE}.",
        (
            Call("find", {"query": "Globex Exports", "kind": "customer"}, ('"name": "Globex Exports"',)),
            Call(
                "create_secret",
                {"name": "STRIPE_SECRET_KEY", "value_from_env": VARIABLE, "customer_id": From(0, FOUND)},
                ('"scope": "customer"', '"restores"'),
            ),
            Call(
                "list_secrets",
                {"customer_id": From(0, FOUND)},
                ('"name": "STRIPE_SECRET_KEY"', '"customer": "Globex Exports"', "just now"),
            ),
        ),
    ),
    Job(
        10,
        "Invite sam.rivera@fastn.example as Operator, and make a support role that sees runs but runs nothing.",
        (
            Call("list_roles", {"fields": ["name", "permissions"]}, ('"Operator"', '"executions:read"')),
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
        (
            Call("list_users", {"search": "sam.rivera"}, ('"role": "Operator"', '"status": "Invited"')),
            Call("list_roles", {}, ('"name": "Support, sees runs"',)),
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
    ),
    Job(
        12,
        "Offboard Widget Inc.",
        (
            Call("find", {"query": "Widget Inc", "kind": "customer"}, ('"name": "Widget Inc"',)),
            Call(
                "find_dependents",
                {"kind": "customer", "id": From(0, FOUND)},
                ('"kind": "connections"', '"HubSpot of Widget Inc"', '"tool": "delete_customer"'),
            ),
            Call("delete_customer", {"customer_id": From(0, FOUND)}, ('"done": "delete_customer"', "secrets are lost")),
        ),
        (Call("list_customers", {"search": "Widget Inc"}, ('"total": 1', '"name": "Widget Inc UK"')),),
    ),
    Job(
        13,
        "Which workflows use the Slack connector, before I delete it?",
        (
            Call("find", {"query": "the Slack connector"}, ('"name": "Slack"',)),
            Call(
                "find_dependents",
                {"kind": "connector", "id": From(0, FOUND)},
                ('"kind": "workflows"', '"process-new-orders"', '"not_checked"', '"dry_run": true'),
            ),
        ),
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
        (Call("list_workflows", {"search": "Shopify orders to Xero"}, ('"status": "draft"',)),),
    ),
    Job(
        15,
        "Which app-event triggers are Active but not subscribed?",
        (Call("get_overview", {"about": "triggers"}, ("not disabled and never fire", '"Paid Shopify orders"')),),
    ),
)
