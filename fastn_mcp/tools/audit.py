"""Fastn's own audit log. Read-only."""

from typing import Annotated

from pydantic import Field, JsonValue

from fastn_mcp.tools.fields import Since, Until
from fastn_mcp.tools.operation import DOCUMENTED, GET
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.tool import Effect, FastnObject


class AuditEntry(FastnObject):
    columns = ("timestamp", "actor", "action", "resource", "endOrgId", "outcome")

    id: JsonValue = None


class QueryAuditLog(List[AuditEntry]):
    """List who did what, newest first. Millions of rows: filter. Owners and admins only."""

    route = GET("/api/v1/audit")
    effect = Effect.READ
    evidence = DOCUMENTED("audit log: columns, filters; the path is /api/v1/audit-log there")

    actor: Annotated[str | None, Field(description="Who, as apikey:8.")] = None
    action: Annotated[str | None, Field(description="As workflow.publish.")] = None
    resource_id: Annotated[str | None, Field(description="What was acted on.")] = None
    since: Since = None
    until: Until = None
