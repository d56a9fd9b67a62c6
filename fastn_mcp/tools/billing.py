"""Tools for billing: plan, usage and quotas."""

from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.operation import GET, INFERRED, Operation
from fastn_mcp.tools.tool import Effect


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


class GetQuotas(Operation[FastnObject]):
    """How much of the plan's limits is left. At a Hard Block new work is refused; nothing is charged."""

    route = GET("/api/v1/billing/quotas")
    effect = Effect.READ
    evidence = INFERRED("api-reference, billing")
