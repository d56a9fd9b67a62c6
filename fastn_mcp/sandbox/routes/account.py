"""Billing, use, limits and the audit log: what can only be read."""

from typing import cast

from fastn_mcp.sandbox.desk import Desk
from fastn_mcp.sandbox.paging import matching, newest_first
from fastn_mcp.sandbox.reply import Many, One, Outcome
from fastn_mcp.sandbox.rows import Kept
from fastn_mcp.sandbox.state import Row
from fastn_mcp.tools.audit import QueryAuditLog
from fastn_mcp.tools.billing import GetBilling, GetQuotas, GetUsage


def billing(desk: Desk, call: GetBilling) -> Outcome:  # noqa: ARG001
    return One(_of(desk, "billing"))


def usage(desk: Desk, call: GetUsage) -> Outcome:  # noqa: ARG001
    credits_ = cast(Row, _of(desk, "billing")["credits"])
    return One(_of(desk, "usage") | {"aiCredits": credits_["used"]})


def quotas(desk: Desk, call: GetQuotas) -> Outcome:  # noqa: ARG001
    return One(_of(desk, "quotas"))


def audit(desk: Desk, call: QueryAuditLog) -> Outcome:
    return Many(Kept(newest_first(matching(desk.state.all("audit"), call))))


def _of(desk: Desk, name: str) -> Row:
    """The one row of a collection that has one; its id is ours."""
    return {field: value for field, value in desk.state.rows[name][name].items() if field != "id"}
