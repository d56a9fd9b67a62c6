"""Routes of customers, users and roles."""

from collections import Counter
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.sandbox.auth import ALL
from fastn_mcp.sandbox.paging import matching, newest_first
from fastn_mcp.sandbox.reply import Many, One, Outcome, StoredRows, conflict, forbidden, invalid
from fastn_mcp.sandbox.request_context import RouteContext
from fastn_mcp.sandbox.routes.resource import OBJECT, TEXT, TEXTS, Resource, disable, disconnect
from fastn_mcp.sandbox.state import Row, slug_of
from fastn_mcp.tools.account import CreateRole, InviteUser
from fastn_mcp.tools.customers import CreateCustomer, DeleteCustomer, GetCustomer, UpdateCustomer

CUSTOMERS = Resource(
    "customers",
    "customer",
    settable={
        "name": TEXT,
        "externalRef": TEXT,
        "adminEmail": TEXT,
        "plan": TEXT,
        "region": TEXT,
        "quotaOverrides": OBJECT,
    },
    fixed={"slug": TEXT},
    unique=("name", "slug"),
)


def list_all(desk: RouteContext, call: Any) -> Outcome:
    rows = newest_first(matching(desk.state.all("customers"), call))
    connected = _connected(desk)
    return Many(StoredRows(rows, lambda row: _counted(row, connected)))


def get(desk: RouteContext, call: GetCustomer) -> Outcome:
    return One(_shown(desk, CUSTOMERS.find(desk, call.customer_id)))


def create(desk: RouteContext, call: CreateCustomer) -> Outcome:
    CUSTOMERS.check(desk.body)
    slug = call.slug or slug_of(call.name)
    if not slug:
        raise invalid("slug", "cannot be made from the name; give one")
    row: Row = {
        "id": desk.state.uuid(),
        "name": call.name,
        "slug": slug,
        "externalRef": call.external_ref,
        "status": "Pending Admin Activation",
        "adminEmail": call.admin_email,
        "customerAdmin": _invited(call.admin_email),
        "plan": call.plan or "Free",
        "region": desk.body.get("region") or "US",
        "quotaOverrides": desk.body.get("quotaOverrides"),
    }
    return One(_shown(desk, CUSTOMERS.make(desk, row)), 201)


def update(desk: RouteContext, call: UpdateCustomer) -> Outcome:
    row = CUSTOMERS.find(desk, call.customer_id)
    changed = CUSTOMERS.replaced(desk, row, _shown(desk, row))
    if changed["adminEmail"] != row["adminEmail"]:
        changed["customerAdmin"] = _invited(call.admin_email)
    return One(_shown(desk, CUSTOMERS.keep(desk, changed)))


def delete(desk: RouteContext, call: DeleteCustomer) -> Outcome:
    row = CUSTOMERS.find(desk, call.customer_id)
    mine = [c for c in desk.state.all("connections") if c["endOrgId"] == row["id"]]
    disconnect(desk, mine)
    for secret in desk.state.all("secrets"):
        if secret["customerId"] == row["id"]:
            desk.state.drop("secrets", secret["id"])
    for trigger in desk.state.all("triggers"):
        if trigger.get("endOrgId") == row["id"]:
            disable(desk, trigger, "its customer was deleted")
    return CUSTOMERS.remove(desk, row)


def _shown(desk: RouteContext, row: Row) -> Row:
    return _counted(row, _connected(desk))


def _connected(desk: RouteContext) -> Counter[JsonValue]:
    """How many connections each customer has."""
    return Counter(connection["endOrgId"] for connection in desk.state.all("connections"))


def _counted(row: Row, connected: Counter[JsonValue]) -> Row:
    return {**row, "connectionsCount": connected[row["id"]]}


def _invited(email: str | None) -> Row | None:
    return {"email": email, "inviteStatus": "Invite Pending"} if email else None


USERS = Resource("users", "user", settable={"email": TEXT, "role": TEXT, "name": TEXT}, unique=())
ROLES = Resource("roles", "role", settable={"name": TEXT, "parent": TEXT, "permissions": TEXTS, "description": TEXT})


def invite(desk: RouteContext, call: InviteUser) -> Outcome:
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


def create_role(desk: RouteContext, call: CreateRole) -> Outcome:
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
