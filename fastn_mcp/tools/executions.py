"""Executions: the runs of workflows. Read-only."""

from typing import Annotated

from pydantic import Field, JsonValue

from fastn_mcp.tools.fields import CustomerId, ExecutionId, Since, Until, WorkflowId, one_of
from fastn_mcp.tools.operation import DOCUMENTED, GET, Operation
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.tool import Effect, FastnObject


class Execution(FastnObject):
    columns = (
        "id", "status", "workflowId", "workflowName", "endOrgId", "createdAt", "durationMs", "triggeredBy", "error",
        "errorCategory", "fixSuggestion",
    )  # fmt: skip

    id: JsonValue = None
    status: JsonValue = None


class ListExecutions(List[Execution]):
    """List runs, newest first. There can be hundreds of thousands: filter."""

    route = GET("/api/v1/executions")
    effect = Effect.READ
    evidence = DOCUMENTED("observed by third parties: limit, offset, workflowId, endOrgId")

    workflow_id: WorkflowId | None = None
    customer_id: Annotated[CustomerId | None, Field(serialization_alias="endOrgId")] = None
    status: Annotated[
        str | None, *one_of("pending", "queued", "running", "completed", "failed", "timeout", "cancelled")
    ] = None
    since: Since = None
    until: Until = None


class GetExecution(Operation[Execution]):
    """Get a run: steps, output, cause and fix of a failure."""

    route = GET("/api/v1/executions/{execution_id}")
    effect = Effect.READ
    evidence = DOCUMENTED(
        "executions: summary, error detail; third parties: errorCategory, fixSuggestion; the path is inferred"
    )

    execution_id: ExecutionId
