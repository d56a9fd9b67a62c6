"""The customers: four that are at work and one that waits for its admin."""

from datetime import datetime, timedelta

from fastn_mcp.sandbox.state import Row, State, stamp

_CUSTOMERS = (
    # name, slug, external reference, admin, plan, region, days ago
    ("Acme Corp", "acme-corp", "crm-1001", "ops@acme.example", "Growth", "US", 210),
    ("Widget Inc", "widget-inc", "crm-1002", "it@widget.example", "Starter", "US", 160),
    ("Katana", "katana-customer", None, "admin@katana.example", "Growth", "EU", 120),
    ("Globex Exports", "globex-exports", "crm-1044", "apps@globex.example", "Enterprise", "EU", 75),
    ("John-Acme", "acme-customer", None, "john@acme.ai", "Free", "US", 6),
)


def add(state: State, now: datetime) -> None:
    for name, slug, reference, admin, plan, region, days in _CUSTOMERS:
        row = customer(state.uuid(), name, slug, admin, now - timedelta(days=days, minutes=17))
        row |= {"externalRef": reference, "plan": plan, "region": region}
        if slug == "globex-exports":
            row["quotaOverrides"] = {"events.day": 200}
        if slug == "acme-customer":
            row |= waiting(admin)
        state.put("customers", row)


def customer(key: str, name: str, slug: str, admin: str, when: datetime) -> Row:
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
