"""Customers, users, roles, API keys and secrets of the sandbox's account."""

from datetime import datetime, timedelta

from pydantic import JsonValue

from fastn_mcp.sandbox.auth import KEY, LIVE_KEY, ROLES, VIEWER, VIEWER_KEY, remember
from fastn_mcp.sandbox.state import Row, SandboxState, stamp

_CUSTOMERS = (
    # name, slug, external reference, admin, plan, region, days ago
    ("Acme Corp", "acme-corp", "crm-1001", "ops@acme.example", "Growth", "US", 210),
    ("Widget Inc", "widget-inc", "crm-1002", "it@widget.example", "Starter", "US", 160),
    ("Katana", "katana-customer", None, "admin@katana.example", "Growth", "EU", 120),
    ("Globex Exports", "globex-exports", "crm-1044", "apps@globex.example", "Enterprise", "EU", 75),
    ("John-Acme", "acme-customer", None, "john@acme.ai", "Free", "US", 6),
)


def add_customers(state: SandboxState, now: datetime) -> None:
    for name, slug, reference, admin, plan, region, days in _CUSTOMERS:
        row = customer_row(state.uuid(), name, slug, admin, now - timedelta(days=days, minutes=17))
        row |= {"externalRef": reference, "plan": plan, "region": region}
        if slug == "globex-exports":
            row["quotaOverrides"] = {"events.day": 200}
        if slug == "acme-customer":
            row |= waiting(admin)
        state.put("customers", row)


def customer_row(key: str, name: str, slug: str, admin: str, when: datetime) -> Row:
    """One row: a customer who is at work."""
    made = stamp(when)
    return {
        "id": key,
        "name": name,
        "slug": slug,
        "externalRef": None,
        "status": "Active",
        "adminEmail": admin,
        "customerAdmin": {"email": admin, "inviteStatus": "Accepted"},
        "plan": "Free",
        "region": "US",
        "quotaOverrides": None,
        "version": 1,
        "createdAt": made,
        "createdBy": "dana@fastn.example",
        "updatedAt": made,
        "updatedBy": "dana@fastn.example",
    }


def waiting(admin: str) -> Row:
    """What differs while the admin has not accepted."""
    return {
        "status": "Pending Admin Activation",
        "customerAdmin": {"email": admin, "inviteStatus": "Invite Pending"},
    }


_USERS = (
    ("Dana Reyes", "dana@fastn.example", "Owner", "Active"),
    ("Lee Okafor", "lee@fastn.example", "Admin", "Active"),
    ("Priya Nair", "priya@fastn.example", "Admin", "Active"),
    ("Tomas Lind", "tomas@fastn.example", "Developer", "Active"),
    ("Mei Tanaka", "mei@fastn.example", "Operator", "Active"),
    ("Sam Porter", "sam@fastn.example", "Viewer", "Invited"),
)

_DESCRIPTIONS = {
    "Owner": "Everything. There is exactly one.",
    "Admin": "Everything.",
    "Developer": "Builds connectors and workflows.",
    "Operator": "Runs and watches.",
    "Viewer": "Looks.",
    "End User": "A customer's person in the widget.",
}


def add_people(state: SandboxState, now: datetime) -> None:
    _roles(state, now)
    for number, (name, email, role, status) in enumerate(_USERS):
        seen = now - timedelta(hours=1 + 7 * number) if status == "Active" else None
        made = now - timedelta(days=1_000 - 170 * number)
        state.put("users", user(state.uuid(), name, email, role, made, seen))
    _keys(state, now)
    _secrets(state, now)


def user(key: str, name: str, email: str, role: str, made: datetime, seen: datetime | None) -> Row:
    """One row. Whoever was never seen is invited, and has no name yet."""
    return {
        "id": key,
        "name": name if seen else None,
        "email": email,
        "role": role,
        "status": "Active" if seen else "Invited",
        "lastActive": stamp(seen) if seen else None,
        "createdAt": stamp(made),
    }


def _roles(state: SandboxState, now: datetime) -> None:
    for name, permissions in ROLES.items():
        state.put("roles", _role(state, now, name, _DESCRIPTIONS[name], None, permissions))
    support = VIEWER - {"widgets:read", "unified:read"}
    state.put("roles", _role(state, now, "Support read-only", "Looks, for the support team.", "Viewer", support))


def _role(
    state: SandboxState, now: datetime, name: str, description: str, parent: str | None, permissions: frozenset[str]
) -> Row:
    granted: list[JsonValue] = [*sorted(permissions)]
    return {
        "id": state.uuid(),
        "name": name,
        "description": description,
        "builtIn": parent is None,
        "parent": parent,
        "permissions": granted,
        "permissionCount": len(granted),
        "createdAt": stamp(now - timedelta(days=1_000 if parent is None else 33)),
    }


def _keys(state: SandboxState, now: datetime) -> None:
    hidden = f"fsk_live_{state.hex(32)}"
    expiring = f"fsk_live_{state.hex(32)}"
    for name, key, mode, permissions, used, expires in (
        ("Workflow", hidden, "Live", "Full access", timedelta(minutes=4), None),
        ("MCP", LIVE_KEY, "Live", "Full access", timedelta(hours=3), None),
        ("TEST", VIEWER_KEY, "Test", "Viewer", None, timedelta(days=80)),
        ("BI export", expiring, "Live", "Operator", timedelta(days=1), timedelta(days=6, seconds=-1)),
        ("Sandbox", KEY, "Test", "Full access", None, None),
    ):
        row = api_key(state.next_number("apiKeys"), name, mode, permissions, now - timedelta(days=85))
        row["expiresAt"] = stamp(now + expires) if expires else None
        row["lastUsed"] = stamp(now - used) if used else None
        remember(state, row, key)


def api_key(number: int, name: str, mode: str, permissions: str, made: datetime) -> Row:
    """One row: a key that was never used and never expires."""
    return {
        "id": number,
        "name": name,
        "mode": mode,
        "permissions": permissions,
        "customers": None,
        "allowedIps": [],
        "rateLimitPerMinute": None,
        "verifyCallerIdentity": False,
        "expiresAt": None,
        "lastUsed": None,
        "createdAt": stamp(made),
        "createdBy": "dana@fastn.example",
    }


def _secrets(state: SandboxState, now: datetime) -> None:
    partner = state.named("customers", "globex-exports")["id"]
    for name, kind, customer, environment in (
        ("SHOPIFY_API_TOKEN", "Text", None, None),
        ("STRIPE_SECRET_KEY", "Text", None, None),
        ("PARTNER_TOKEN", "Text", partner, None),
        ("GOOGLE_SA", "JSON", None, "live"),
    ):
        row = secret(state.short_id("sec"), name, kind, customer, now - timedelta(days=140))
        row |= {"environment": environment, "updatedAt": stamp(now - timedelta(days=61))}
        state.put("secrets", row)


def secret(key: str, name: str, kind: str, customer: JsonValue, when: datetime) -> Row:
    """One row, without the value, which nobody sees again."""
    made = stamp(when)
    return {
        "id": key,
        "name": name,
        "type": kind,
        "customerId": customer,
        "environment": None,
        "scope": "customer" if customer else "org",
        "createdAt": made,
        "updatedAt": made,
    }
