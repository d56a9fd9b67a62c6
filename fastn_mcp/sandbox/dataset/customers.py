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
        pending = slug == "acme-customer"
        made = stamp(now - timedelta(days=days, minutes=17))
        row: Row = {
            "id": state.uuid(),
            "name": name,
            "slug": slug,
            "externalRef": reference,
            "status": "Pending Admin Activation" if pending else "Active",
            "adminEmail": admin,
            "customerAdmin": {"email": admin, "inviteStatus": "Invite Pending" if pending else "Accepted"},
            "plan": plan,
            "region": region,
            "quotaOverrides": {"events.day": 5000} if slug == "globex-exports" else None,
            "version": 1,
            "createdAt": made,
            "createdBy": "dana@fastn.example",
            "updatedAt": made,
            "updatedBy": "dana@fastn.example",
        }
        state.put("customers", row)
