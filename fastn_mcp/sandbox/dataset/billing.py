"""Plan and credits. Use and limits follow from the rows: see `routes/account.py`."""

from datetime import datetime

from fastn_mcp.sandbox.size import Size
from fastn_mcp.sandbox.state import State, stamp

LIMITS = {
    "Free": {
        ("Events", "per day"): 500,
        ("Events", "per minute"): 10,
        ("API calls", "per day"): 1_000,
        ("API calls", "per minute"): 20,
        ("Active integrations", "total"): 10,
        ("Workflows", "per customer"): 10,
        ("Connected accounts", "total"): 25,
        ("API keys", "per customer"): 5,
    },
    "Enterprise": {
        ("Events", "per day"): 50_000,
        ("Events", "per minute"): 1_000,
        ("API calls", "per day"): 100_000,
        ("API calls", "per minute"): 2_000,
        ("Active integrations", "total"): 100,
        ("Workflows", "per customer"): 250,
        ("Connected accounts", "total"): 5_000,
        ("API keys", "per customer"): 50,
    },
}


def add(state: State, now: datetime, size: Size) -> None:
    _, following = month_of(now)
    state.put(
        "billing",
        {
            "id": "billing",
            "plan": "Free" if size is Size.SMALL else "Enterprise",
            "price": {"amount": 0, "currency": "USD", "interval": "month"},
            "credits": {"used": 38, "included": 50, "resetsAt": stamp(following)},
            "byAgent": {"Orchestrator": 21, "Docs Agent": 9, "Error Diagnosis": 8},
            "invoices": [],
        },
    )


def month_of(now: datetime) -> tuple[datetime, datetime]:
    """The first moment of the month, and of the following one."""
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return first, first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
