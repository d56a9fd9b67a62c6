"""Users: the people of this Fastn account."""

from typing import Annotated

from pydantic import Field, JsonValue

from fastn_mcp.tools.fields import Extra, Search, one_of
from fastn_mcp.tools.operation import DOCUMENTED, GET, POST, Operation
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.tool import Effect, FastnObject


class User(FastnObject):
    columns = ("id", "name", "email", "role", "status", "lastActive")

    id: JsonValue = None
    name: JsonValue = None


class ListUsers(List[User]):
    """List people and their roles."""

    route = GET("/api/v1/users")
    effect = Effect.READ
    evidence = DOCUMENTED("people: columns; the path is inferred")

    search: Search = None
    status: Annotated[str | None, *one_of("Active", "Invited", "Disabled", "Suspended")] = None


class InviteUser(Operation[User]):
    """Invite a person by email. Only the dashboard can change or remove them later."""

    route = POST("/api/v1/users/invite")
    effect = Effect.ACCESS
    evidence = DOCUMENTED("people, invite: email, role; the path is inferred")

    email: Annotated[str, Field(description="Email address.", pattern=r"^[^@\s]+@[^@\s]+$")]
    role: Annotated[str, Field(description="Name or id, from list_roles.", min_length=1)]
    extra: Extra = None
