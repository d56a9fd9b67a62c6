"""Billing, use, limits and the audit log: what can only be read. Use follows from the rows of the account."""

from collections import Counter
from datetime import datetime, timedelta
from typing import cast

from fastn_mcp.sandbox.dataset.account import LIMITS, month_of
from fastn_mcp.sandbox.paging import matching, newest_first
from fastn_mcp.sandbox.reply import Many, One, Outcome, StoredRows
from fastn_mcp.sandbox.request_context import RouteContext
from fastn_mcp.sandbox.state import Row, stamp
from fastn_mcp.tools.account import GetBilling, GetQuotas, GetUsage, QueryAuditLog

_OTHER_CALLS = {"per day": 92, "per minute": 20}
"""API calls of the account's other clients, of which there are no rows: in percent of the limit."""


def billing(desk: RouteContext, call: GetBilling) -> Outcome:  # noqa: ARG001
    return One(_billing(desk))


def usage(desk: RouteContext, call: GetUsage) -> Outcome:  # noqa: ARG001
    first, following = month_of(desk.now)
    runs = Counter({str(key): count for key, count in desk.history.by_customer(first).items()})
    runs.update(
        str(row["endOrgId"] or "") for row in desk.state.all("executions") if str(row["createdAt"]) >= stamp(first)
    )
    used = _used(desk)
    by_customer: list[Row] = []
    for key, count in runs.most_common():
        customer = desk.state.get("customers", key)
        if key:
            by_customer.append({"customerId": key, "name": customer and customer["name"], "executions": count})
    return One(
        {
            "period": {"from": stamp(first), "to": stamp(following)},
            "events": {"day": used["Events", "per day"], "minute": used["Events", "per minute"]},
            "apiCalls": {"day": used["API calls", "per day"], "minute": used["API calls", "per minute"]},
            "executions": {"month": runs.total()},
            "byCustomer": [*by_customer],
            "aiCredits": cast(Row, _billing(desk)["credits"])["used"],
        }
    )


def quotas(desk: RouteContext, call: GetQuotas) -> Outcome:  # noqa: ARG001
    plan = str(_billing(desk)["plan"])
    used = _used(desk)
    rows = [_quota(*name, limit, used[name]) for name, limit in _limits(plan).items()]
    today = desk.now.replace(hour=0, minute=0, second=0, microsecond=0)
    for customer in desk.state.all("customers"):
        overrides = customer.get("quotaOverrides")
        limit = overrides.get("events.day") if isinstance(overrides, dict) else None
        if isinstance(limit, int) and limit > 0:
            events = _events(desk, today, str(customer["id"]))
            rows.append(_quota(f"Events ({customer['name']})", "per day", limit, events, "override"))
    return One({"plan": plan, "quotas": [*rows]})


def audit(desk: RouteContext, call: QueryAuditLog) -> Outcome:
    return Many(StoredRows(newest_first(matching(desk.state.all("audit"), call))))


def _billing(desk: RouteContext) -> Row:
    return {field: value for field, value in desk.state.rows["billing"]["billing"].items() if field != "id"}


def _limits(plan: str) -> dict[tuple[str, str], int]:
    return LIMITS.get(plan, LIMITS["Free"])


def _used(desk: RouteContext) -> dict[tuple[str, str], int]:
    """How much of each limit is used."""
    state, limits = desk.state, _limits(str(_billing(desk)["plan"]))
    today = desk.now.replace(hour=0, minute=0, second=0, microsecond=0)
    connections = state.all("connections")
    pinned = Counter(str(one) for key in state.all("apiKeys") for one in cast("list[str]", key.get("customers") or []))
    in_use = bool(state.all("customers"))
    spans = _OTHER_CALLS.items()
    calls = {("API calls", span): limits["API calls", span] * part * in_use // 100 for span, part in spans}
    return calls | {
        ("Events", "per day"): _events(desk, today),
        ("Events", "per minute"): _events(desk, desk.now - timedelta(minutes=1)),
        ("Active integrations", "total"): len(
            {str(row.get("connectorId")) for row in connections if row.get("status") == "ACTIVE"}
        ),
        ("Workflows", "per customer"): len([row for row in state.all("workflows") if row.get("publishedVersion")]),
        ("Connected accounts", "total"): len(connections),
        ("API keys", "per customer"): max(pinned.values(), default=0),
    }


def _events(desk: RouteContext, since: datetime, customer: str | None = None) -> int:
    """How many runs webhooks and app events have started."""
    rows = [
        row
        for row in desk.state.all("executions")
        if row.get("triggeredBy") == "webhook"
        and str(row["createdAt"]) >= stamp(since)
        and customer in (None, row.get("endOrgId"))
    ]
    return len(rows) + len(desk.history.numbers(customer=customer, triggered_by="webhook", since=since))


def _quota(name: str, scope: str, limit: int, used: int, source: str = "plan default") -> Row:
    return {
        "name": name,
        "scope": scope,
        "limit": limit,
        "used": used,
        "percent": round(100 * used / limit),
        "enforcement": "Hard Block",
        "source": source,
    }
