"""What the guard machine draws from: policies, calls of agents, people and their limits."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from fastn_mcp.config.model import Mode
from fastn_mcp.extensions.sandbox.state import SandboxState

ISSUER = "https://login.example.com|"

TENANTS: Mapping[str, str] = MappingProxyType({"anna": "acme", "ben": "globex"})
"""Tenant of each person whose agent makes calls."""

ALL_SCOPES = frozenset({"fastn:read", "fastn:write", "fastn:destroy", "fastn:admin"})

IDEMPOTENT = ("PUT", "DELETE")
"""Methods of changes that may be sent again after their response was lost."""

# --- policies ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PolicyCase:
    """A mode with a policy file, and what they mean for the invariants."""

    name: str
    rules: str = ""
    mode: Mode = "guarded"
    allowed: frozenset[str] = frozenset({"write"})
    """Effects that it allows without a person. Whatever raises an effect may only ask for more."""
    approval_wait: float = 0.0
    """Seconds for which a call waits for people."""


LIMITED = "limits"
"""Name of the policy with limits."""

_POLICIES = (
    PolicyCase("plain"),
    PolicyCase(LIMITED, '[budget]\nwrite = 1\nexternal = 2\ndestroy_rate = "2 per 5m"\n'),
    PolicyCase("four eyes", '[defaults]\ndestroy = "four_eyes"\naccess = "four_eyes"\n'),
    PolicyCase(
        "strict",
        '[defaults]\nwrite = "confirm"\nexternal = "out_of_band"\ntrash = "deny"\n',
        allowed=frozenset(),
        approval_wait=6.0,
    ),
)

POLICIES: Mapping[str, PolicyCase] = MappingProxyType({policy.name: policy for policy in _POLICIES})

BUDGETS: Mapping[str, int] = MappingProxyType({"write": 1, "external": 2})
"""Calls of a person in a day by effect, under the policy with limits."""

DESTROY_LIMIT = 2
DESTROY_SECONDS = 300.0
"""Approvals of a person that destroy within so many seconds, under the policy with limits."""

TEMPORARY_SECONDS = 900.0
"""Seconds for which a temporary approval holds."""

UNSETTLED_SECONDS = 600.0
"""Seconds for which a call whose outcome is unknown is not repeated without a person."""

READING_SECONDS = 1.0
"""Seconds below which an answer to a form is a program's."""

SKEW = 120.0
"""Seconds by which the clock of a machine is wrong, before or after the right time."""

# --- tools -------------------------------------------------------------------------------------------------------

EFFECTS: Mapping[str, str] = MappingProxyType(
    {
        "create_customer": "write",
        "update_customer": "write",
        "run_workflow": "external",
        "invite_user": "access",
        "delete_workflow": "trash",
        "delete_customer": "destroy",
        "delete_connection": "destroy",
    }
)
"""Effect of each tool that agents call here, if nothing raises it."""

SCOPES: Mapping[str, str] = MappingProxyType(
    {
        "write": "fastn:write",
        "external": "fastn:write",
        "access": "fastn:admin",
        "trash": "fastn:destroy",
        "destroy": "fastn:destroy",
    }
)
"""Scope of a sign-in that each effect needs."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool and its arguments, as an agent calls it."""

    tool: str
    arguments: dict[str, Any]


Subject = str | tuple[str, ...]
"""Name of a call, or of the calls of a list."""

SUBJECTS = (
    "create",
    "plan",
    "rename",
    "run",
    "invite",
    "trash",
    "delete widget",
    "delete katana",
    "delete john",
    "disconnect",
)

LISTS = (
    ("plan", "run"),
    ("invite", "trash", "create"),
    ("delete widget", "delete katana"),
    ("run", "invite"),
)

DELETIONS = ("delete widget", "delete katana", "delete john")


@dataclass(frozen=True, slots=True)
class NamedRecord:
    """A record of the account that somebody renames in the dashboard."""

    collection: str
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class AccountCalls:
    """Calls on the sandbox's account by name, and its records that are renamed."""

    calls: Mapping[str, ToolCall]
    renamed: tuple[NamedRecord, ...] = field(default=())

    def of(self, subject: Subject, list_name: str | None = None) -> ToolCall:
        """Return the call of a subject. `list_name` tells two lists of the same calls apart."""
        if isinstance(subject, str):
            return self.calls[subject]
        changes = [{"tool": self.calls[name].tool, "arguments": self.calls[name].arguments} for name in subject]
        arguments: dict[str, Any] = {"changes": changes}
        if list_name is not None:
            arguments["batch"] = list_name
        return ToolCall("apply_changes", arguments)


def account_calls(state: SandboxState) -> AccountCalls:
    """Return the calls on a sandbox that has just begun."""
    customers = {str(row["name"]): str(row["id"]) for row in state.all("customers")}
    workflows = {str(row["name"]): str(row["id"]) for row in state.all("workflows")}
    connection = str(state.all("connections")[0]["id"])
    live, draft = "process-new-orders", "sync_tiktok_settlements_cin7"
    acme = customers["Acme Corp"]
    calls = {
        "create": ToolCall("create_customer", {"name": "Initech"}),
        "plan": ToolCall("update_customer", {"customer_id": acme, "plan": "Growth"}),
        "rename": ToolCall("update_customer", {"customer_id": acme, "name": "Acme Corporation"}),
        "run": ToolCall("run_workflow", {"workflow_id": workflows[live]}),
        "invite": ToolCall("invite_user", {"email": "sam@example.com", "role": "Viewer"}),
        "trash": ToolCall("delete_workflow", {"workflow_id": workflows[draft]}),
        "delete widget": ToolCall("delete_customer", {"customer_id": customers["Widget Inc"]}),
        "delete katana": ToolCall("delete_customer", {"customer_id": customers["Katana"]}),
        "delete john": ToolCall("delete_customer", {"customer_id": customers["John-Acme"]}),
        "disconnect": ToolCall("delete_connection", {"connection_id": connection}),
    }
    renamed = (
        NamedRecord("customers", customers["Widget Inc"], "Widget Inc"),
        NamedRecord("customers", customers["Katana"], "Katana"),
        NamedRecord("workflows", workflows[live], live),
        NamedRecord("workflows", workflows[draft], draft),
    )
    return AccountCalls(calls, renamed)
