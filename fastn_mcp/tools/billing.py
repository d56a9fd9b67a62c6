"""Tools for billing: plan, usage and quotas."""

from typing import Annotated

from pydantic import JsonValue
from typing_extensions import override

from fastn_mcp.records.rows import FastnObject, row_of
from fastn_mcp.tools.operation import GET, INFERRED, Operation
from fastn_mcp.tools.paging import PageCursor, Position
from fastn_mcp.tools.tool import NOT_SENT, Effect

_PAGE = 50
"""Customers on a page of the usage."""


class GetBilling(Operation[FastnObject]):
    """Get plan, price and AI credits."""

    route = GET("/api/v1/billing")
    effect = Effect.READ
    evidence = INFERRED("api-reference, billing")


class GetUsage(Operation[FastnObject]):
    """How much was used, by customer: events, API calls, executions, AI credits."""

    route = GET("/api/v1/billing/usage")
    effect = Effect.READ
    evidence = INFERRED("api-reference, billing")

    cursor: Annotated[PageCursor, NOT_SENT] = None

    @override
    def result(self, body: JsonValue) -> FastnObject:
        """Return the usage with a page of its list of customers, which Fastn sends whole."""
        usage = row_of(super().result(body))
        start = 0 if self.cursor is None else Position.decode(self.cursor).skip
        pages = {name: rows for name, rows in usage.items() if isinstance(rows, list)}
        usage |= {name: rows[start : start + _PAGE] for name, rows in pages.items()}
        if any(len(rows) > start + _PAGE for rows in pages.values()):
            usage["next_cursor"] = Position(skip=start + _PAGE).encode()
        return FastnObject.model_validate(usage)


class GetQuotas(Operation[FastnObject]):
    """How much of the plan's limits is left. At a Hard Block new work is refused; nothing is charged."""

    route = GET("/api/v1/billing/quotas")
    effect = Effect.READ
    evidence = INFERRED("api-reference, billing")
