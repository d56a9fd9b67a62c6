"""Facts of the platform: what cannot be done through its API, and where it can. Each is worded here only."""

import re

from fastn_mcp.records.formats import quoted
from fastn_mcp.records.rows import Row, short, text, word
from fastn_mcp.records.states import State, run_state, workflow_state

PEOPLE = "A person's role can be changed, and their access removed, only in the dashboard (Settings > People)."
ROLES = "Roles can be changed or deleted only in the dashboard (Settings > Roles)."
PERMISSIONS = (
    "No permission that Fastn documents governs customers and billing. Its AI and the audit log are for owners and "
    "admins, whatever their permissions."
)
RUNS = "Runs can be cancelled or replayed only in the dashboard (Activity > Executions)."
PUBLISHING = "Workflows can be published, deployed or rolled back only in the dashboard (Integrations > Workflows)."
IN_TRASH = "can be restored from Trash in the dashboard"
"""What is said of a deleted workflow, before the call and after it."""
TRASH = "A workflow can be restored, with its slug and history, only in the dashboard (Settings > Trash)."
KEYS = (
    "API keys can be changed only in the dashboard (Settings > API keys); here, create another and revoke the old one."
)
WEBHOOK_KEY = (
    "Callers send an API key in the header x-fastn-access-key (older: x-fastn-key); which keys it accepts is not "
    "documented."
)
WEBHOOK_PUBLIC = "Anyone who knows the URL can call it: it requires no authentication."
NO_CUSTOMER = "No customer is set. Fastn does not document which customers it then runs for."
SECRETS = "The value of a secret cannot be read anywhere; create_secret overwrites it."

# Each fact, the page of Fastn's documentation that says so, and the words of queries that ask: one of each group.
_FACTS = (
    (
        PEOPLE,
        "people",
        "change update remove delete offboard promote demote",
        "user person people colleague member role team",
    ),
    (ROLES, "roles", "change update edit remove delete", "role"),
    (PERMISSIONS, "roles, permission groups", "permission scope", ""),
    (RUNS, "executions", "cancel abort kill stop terminate replay", "run execution running backfill job"),
    (PUBLISHING, "workflows, versions", "publish unpublish deploy rollback roll", ""),
    (TRASH, "trash", "restore recover undelete trash", ""),
    (KEYS, "API keys", "change update edit rotate extend renew", "key"),
    (SECRETS, "secrets", "show read reveal see value", "secret"),
)


def facts_about(query: str) -> list[str]:
    """Return the facts that a query asks about, in sentences."""
    words = re.findall(r"[a-z]+", query.lower())
    asked = {word if word == "teams" else word.removesuffix("s") for word in words}  # Microsoft Teams is an app
    groups = {text: [actions, *filter(None, [things])] for text, _, actions, things in _FACTS}
    return [text for text, group in groups.items() if not any(asked.isdisjoint(words.split()) for words in group)]


def note_on(tool: str, record: Row) -> str:
    """Return the fact that the answer of a reading tool raises; empty if none. `record` is what it read."""
    if tool in ("get_execution", "wait_for_execution"):
        return "" if run_state(record).has_ended else RUNS
    if tool == "get_workflow":
        return PUBLISHING if workflow_state(record) is State.DRAFT else ""
    return {"list_users": PEOPLE, "list_roles": PERMISSIONS}.get(tool, "")


def is_webhook(trigger: Row) -> bool:
    return word(trigger, "type") == "webhook"


def webhook_authentication(trigger: Row) -> str:
    """Return how a webhook checks its callers, in lower case; empty if the row does not tell."""
    return word(trigger, "authentication.type", "authentication", "auth")


PUBLIC = ("none", "public", "no auth")
"""Values of a webhook's authentication with which anybody may call it."""


def callers_of(trigger: Row) -> str:
    """Return who may call a webhook, and how; empty for any other trigger."""
    if not is_webhook(trigger):
        return ""
    authentication = webhook_authentication(trigger)
    if authentication in PUBLIC:
        return WEBHOOK_PUBLIC
    if authentication == "api key":
        return WEBHOOK_KEY
    kind = quoted(short(text(trigger, "authentication.type", "authentication", "auth")))
    return f"Who may call it is not known: authentication {kind or 'is not named'}."
