"""Users and roles. Both can be added and not changed: that is for the dashboard."""

from typing import cast

from pydantic import JsonValue

from fastn_mcp.sandbox.desk import Desk
from fastn_mcp.sandbox.permissions import ALL
from fastn_mcp.sandbox.reply import One, Outcome, conflict, forbidden, invalid
from fastn_mcp.sandbox.routes.fields import TEXT, TEXTS
from fastn_mcp.sandbox.routes.resource import Resource
from fastn_mcp.sandbox.state import Row
from fastn_mcp.tools.roles import CreateRole
from fastn_mcp.tools.users import InviteUser

USERS = Resource("users", "user", settable={"email": TEXT, "role": TEXT, "name": TEXT}, unique=())
ROLES = Resource("roles", "role", settable={"name": TEXT, "parent": TEXT, "permissions": TEXTS, "description": TEXT})


def invite(desk: Desk, call: InviteUser) -> Outcome:
    USERS.check(desk.body)
    role = desk.state.get("roles", call.role) or desk.state.first("roles", "name", call.role)
    if role is None:
        raise invalid("role", "there is no such role")
    if role["name"] == "Owner":
        raise forbidden("There is exactly one Owner")
    if desk.state.first("users", "email", call.email) is not None:
        raise conflict("This person is here already", {"field": "email"})
    row: Row = {
        "id": desk.state.uuid(),
        "name": desk.body.get("name"),
        "email": call.email,
        "role": role["name"],
        "status": "Invited",
        "lastActive": None,
        "createdAt": desk.time,
    }
    desk.audit("user.invite", "user", row["id"])
    return One(desk.state.put("users", row), 201)


def create_role(desk: Desk, call: CreateRole) -> Outcome:
    ROLES.check(desk.body)
    wanted = call.parent or "Viewer"
    parent = desk.state.get("roles", wanted) or desk.state.first("roles", "name", wanted)
    if parent is None:
        raise invalid("parent", "there is no such role")
    if unknown := sorted(set(call.permissions) - ALL):
        raise invalid("permissions", f"unknown: {', '.join(unknown)}")
    held = cast("list[str]", parent["permissions"])
    if more := sorted(set(call.permissions) - set(held)):
        raise invalid("permissions", f"{parent['name']} does not hold {', '.join(more)}")
    granted: list[JsonValue] = [*sorted(set(call.permissions))]
    row: Row = {
        "id": desk.state.uuid(),
        "name": call.name,
        "description": call.description,
        "builtIn": False,
        "parent": parent["name"],
        "permissions": granted,
        "permissionCount": len(granted),
    }
    return One(ROLES.make(desk, row), 201)
