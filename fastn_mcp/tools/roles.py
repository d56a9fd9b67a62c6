"""Roles: what people may do."""

from typing import Annotated

from pydantic import Field, JsonValue

from fastn_mcp.tools.fields import Description, Extra, Name, Texts
from fastn_mcp.tools.operation import DOCUMENTED, GET, INFERRED, POST, Operation
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.tool import Effect, FastnObject


class Role(FastnObject):
    columns = ("id", "name", "description", "parent", "permissionCount")

    id: JsonValue = None
    name: JsonValue = None


class ListRoles(List[Role]):
    """List roles, custom ones included."""

    route = GET("/api/v1/roles")
    effect = Effect.READ
    evidence = DOCUMENTED("roles: columns; the path is inferred")


class CreateRole(Operation[Role]):
    """Create a custom role that narrows its parent. Only the dashboard can change or delete it later."""

    route = POST("/api/v1/roles")
    effect = Effect.ACCESS
    evidence = INFERRED("api-reference, roles")

    name: Name
    parent: Annotated[str | None, Field(description="Role to narrow, as Viewer.")] = None
    permissions: Annotated[Texts, Field(description="As workflows:read; the parent must hold all.")]
    description: Description = None
    extra: Extra = None
