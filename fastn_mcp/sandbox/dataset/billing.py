"""Plan, credits, use and limits: a free plan that is nearly used up."""

from datetime import datetime

from fastn_mcp.sandbox.state import Row, State, stamp


def add(state: State, now: datetime) -> None:
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    state.put(
        "billing",
        {
            "id": "billing",
            "plan": "Free",
            "price": {"amount": 0, "currency": "USD", "interval": "month"},
            "credits": {"used": 38, "included": 50, "resetsAt": stamp(following)},
            "byAgent": {"Orchestrator": 21, "Docs Agent": 9, "Error Diagnosis": 8},
            "invoices": [],
        },
    )
    used = {
        row["slug"]: number for row, number in zip(state.all("customers"), (3_120, 640, 212, 1_980, 0), strict=True)
    }
    state.put(
        "usage",
        {
            "id": "usage",
            "period": {"from": stamp(first), "to": stamp(following)},
            "events": {"day": 312, "minute": 2},
            "apiCalls": {"day": 920, "minute": 4},
            "executions": {"month": sum(used.values())},
            "byCustomer": [
                {"customerId": row["id"], "name": row["name"], "executions": used[row["slug"]]}
                for row in state.all("customers")
            ],
        },
    )
    quotas: list[Row] = [
        _quota("Events", "per day", 500, 312),
        _quota("Events", "per minute", 10, 2),
        _quota("API calls", "per day", 1000, 920),
        _quota("API calls", "per minute", 20, 4),
        _quota("Active integrations", "total", 5, 3),
        _quota("Workflows", "per customer", 10, 8),
        _quota("Connected accounts", "total", 25, 8),
        _quota("API keys", "per customer", 5, 1),
        {**_quota("Events (Globex Exports)", "per day", 5000, 1980), "source": "override"},
    ]
    state.put("quotas", {"id": "quotas", "plan": "Free", "quotas": [*quotas]})


def _quota(name: str, scope: str, limit: int, used: int) -> Row:
    return {
        "name": name,
        "scope": scope,
        "limit": limit,
        "used": used,
        "percent": round(100 * used / limit),
        "enforcement": "Hard Block",
        "source": "plan default",
    }
