"""Customers, users and roles of the dataset, their rows, and the handlers of their operations."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

from fastn_mcp.extensions.sandbox.auth import ALL, ROLES, VIEWER_PERMISSIONS
from fastn_mcp.extensions.sandbox.replies import Rows, conflict, forbidden, invalid, select
from fastn_mcp.extensions.sandbox.resource import (
    One,
    Resource,
    RouteContext,
    disable,
    disconnect,
    endpoint,
    fields,
    slug_for,
)
from fastn_mcp.extensions.sandbox.state import Row, SandboxState, provenance, stamp
from fastn_mcp.tools import customers as tools
from fastn_mcp.tools.access import CreateRole, InviteUser, ListRoles, ListUsers

_CUSTOMERS = (
    # name, slug, external reference, admin, plan, region, days ago
    ("Acme Corp", "acme-corp", "crm-1001", "ops@acme.example", "Growth", "US", 210),
    ("Widget Inc", "widget-inc", "crm-1002", "it@widget.example", "Starter", "US", 160),
    ("Katana", "katana-customer", None, "admin@katana.example", "Growth", "EU", 120),
    ("Globex Exports", "globex-exports", "crm-1044", "apps@globex.example", "Enterprise", "EU", 75),
    ("John-Acme", "acme-customer", None, "john@acme.ai", "Free", "US", 6),
)


def add_customers(state: SandboxState, now: datetime) -> None:
    for name, slug, reference, admin, plan, region, days in _CUSTOMERS:
        row = customer_row(state.uuid(), name, slug, admin=admin, when=now - timedelta(days=days, minutes=17))
        row |= {"externalRef": reference, "plan": plan, "region": region}
        if slug == "globex-exports":
            row["quotaOverrides"] = {"events.day": 200}
        if slug == "acme-customer":
            row |= pending_fields(admin)
        state.put("customers", row)


def customer_row(key: str, name: str, slug: str, admin: str, when: datetime) -> Row:
    row = _customer(key, name, slug, admin) | provenance(stamp(when), "dana@fastn.example")
    return row | {"status": "Active", "customerAdmin": {"email": admin, "inviteStatus": "Accepted"}}


def pending_fields(admin: str) -> Row:
    """Return the fields that differ until the admin accepts the invitation."""
    return {"status": "Pending Admin Activation", "customerAdmin": _invited(admin)}


def _customer(key: str, name: str, slug: str, admin: str | None) -> Row:
    return {
        "id": key,
        "name": name,
        "slug": slug,
        "externalRef": None,
        "status": "Pending Admin Activation",
        "adminEmail": admin,
        "customerAdmin": _invited(admin),
        "plan": "Free",
        "region": "US",
        "quotaOverrides": None,
    }


def _invited(email: str | None) -> Row | None:
    return {"email": email, "inviteStatus": "Invite Pending"} if email else None


CUSTOMERS = Resource(
    "customers",
    "customer",
    settable=fields(text="name externalRef adminEmail plan region", object="quotaOverrides"),
    fixed=fields(text="slug"),
    unique=("name", "slug"),
)


@endpoint(tools.ListCustomers, None)
def list_all(context: RouteContext, call: tools.ListCustomers) -> Rows:
    connected = _connected(context)
    return Rows(select(context.state.all("customers"), call), lambda row: _counted(row, connected))


@endpoint(tools.GetCustomer, None)
def get(context: RouteContext, call: tools.GetCustomer) -> One:
    return One(_shown(context, CUSTOMERS.target(context, call)))


@endpoint(tools.CreateCustomer, "settings:manage")
def create(context: RouteContext, call: tools.CreateCustomer) -> One:
    CUSTOMERS.check(context.body)
    slug = slug_for(call.slug, call.name)
    row = _customer(context.state.uuid(), call.name, slug, call.admin_email)
    row |= {
        "externalRef": call.external_ref,
        "plan": call.plan or "Free",
        "region": context.body.get("region") or "US",
        "quotaOverrides": context.body.get("quotaOverrides"),
    }
    return One(_shown(context, CUSTOMERS.create(context, row)), 201)


@endpoint(tools.UpdateCustomer, "settings:manage")
def update(context: RouteContext, call: tools.UpdateCustomer) -> One:
    row = CUSTOMERS.target(context, call)
    changed = CUSTOMERS.replaced(context, row, _shown(context, row))
    if changed["adminEmail"] != row["adminEmail"]:
        changed["customerAdmin"] = _invited(call.admin_email)
    return One(_shown(context, CUSTOMERS.update(context, changed)))


@endpoint(tools.DeleteCustomer, "settings:manage")
def delete(context: RouteContext, call: tools.DeleteCustomer) -> One:
    row = CUSTOMERS.target(context, call)
    disconnect(context, [c for c in context.state.all("connections") if c["endOrgId"] == row["id"]])
    for secret in context.state.all("secrets"):
        if secret["customerId"] == row["id"]:
            context.state.drop("secrets", secret["id"])
    for trigger in context.state.all("triggers"):
        if trigger.get("endOrgId") == row["id"]:
            disable(context, trigger, "its customer was deleted")
    return CUSTOMERS.remove(context, row)


def _shown(context: RouteContext, row: Row) -> Row:
    return _counted(row, _connected(context))


def _connected(context: RouteContext) -> Counter[str]:
    return Counter(connection["endOrgId"] for connection in context.state.all("connections"))


def _counted(row: Row, connected: Counter[str]) -> Row:
    return {**row, "connectionsCount": connected[row["id"]]}


_USERS = (
    ("Dana Reyes", "dana@fastn.example", "Owner", "Active"),
    ("Lee Okafor", "lee@fastn.example", "Admin", "Active"),
    ("Priya Nair", "priya@fastn.example", "Admin", "Active"),
    ("Tomas Lind", "tomas@fastn.example", "Developer", "Active"),
    ("Mei Tanaka", "mei@fastn.example", "Operator", "Active"),
    ("Sam Porter", "sam@fastn.example", "Viewer", "Invited"),
)

_DESCRIPTIONS = {
    "Owner": "Everything. There is exactly one.",
    "Admin": "Everything.",
    "Developer": "Builds connectors and workflows.",
    "Operator": "Runs and watches.",
    "Viewer": "Looks.",
    "End User": "A customer's person in the widget.",
}


def add_people(state: SandboxState, now: datetime) -> None:
    roles = [
        _role(state.uuid(), name, _DESCRIPTIONS[name], parent=None, permissions=permissions)
        for name, permissions in ROLES.items()
    ]
    support = VIEWER_PERMISSIONS - {"widgets:read", "unified:read"}
    roles.append(
        _role(state.uuid(), "Support read-only", "Looks, for the support team.", parent="Viewer", permissions=support)
    )
    for row in roles:
        is_own = row["parent"] is not None
        row |= {"builtIn": not is_own, "createdAt": stamp(now - timedelta(days=33 if is_own else 1_000))}
        state.put("roles", row)
    for number, (name, email, role, status) in enumerate(_USERS):
        seen = now - timedelta(hours=1 + 7 * number) if status == "Active" else None
        created = now - timedelta(days=1_000 - 170 * number)
        state.put("users", user(state.uuid(), name, email, role=role, created=created, seen=seen))


def user(key: str, name: str | None, email: str, role: str, created: datetime, seen: datetime | None) -> Row:
    """Return the row of a user. One never seen is invited, and has no name yet."""
    return {
        "id": key,
        "name": name if seen else None,
        "email": email,
        "role": role,
        "status": "Active" if seen else "Invited",
        "lastActive": stamp(seen) if seen else None,
        "createdAt": stamp(created),
    }


def _role(key: str, name: str, description: str | None, parent: str | None, permissions: Iterable[str]) -> Row:
    granted = sorted(set(permissions))
    return {
        "id": key,
        "name": name,
        "description": description,
        "builtIn": False,
        "parent": parent,
        "permissions": granted,
        "permissionCount": len(granted),
    }


USERS = Resource("users", "user", settable=fields(text="email role name"), unique=())
ROLES_RESOURCE = Resource("roles", "role", settable=fields(text="name parent description", texts="permissions"))

endpoint(ListUsers, "users:read")(USERS.list)
endpoint(ListRoles, "settings:read")(ROLES_RESOURCE.list)


@endpoint(InviteUser, "users:invite")
def invite(context: RouteContext, call: InviteUser) -> One:
    USERS.check(context.body)
    role = context.state.get("roles", call.role) or context.state.first("roles", "name", call.role)
    if role is None:
        raise invalid("role", "there is no such role")
    if role["name"] == "Owner":
        raise forbidden("There is exactly one Owner")
    if context.state.first("users", "email", call.email) is not None:
        raise conflict("This person is here already", {"field": "email"})
    row = user(context.state.uuid(), None, call.email, role=role["name"], created=context.now, seen=None)
    row["name"] = context.body.get("name")
    context.audit("user.invite", "user", row["id"])
    return One(context.state.put("users", row), 201)


@endpoint(CreateRole, "settings:manage")
def create_role(context: RouteContext, call: CreateRole) -> One:
    ROLES_RESOURCE.check(context.body)
    name = call.parent or "Viewer"
    parent = context.state.get("roles", name) or context.state.first("roles", "name", name)
    if parent is None:
        raise invalid("parent", "there is no such role")
    unknown = sorted(set(call.permissions) - ALL)
    if unknown:
        raise invalid("permissions", f"unknown: {', '.join(unknown)}")
    more = sorted(set(call.permissions) - set(parent["permissions"]))
    if more:
        raise invalid("permissions", f"{parent['name']} does not hold {', '.join(more)}")
    row = _role(context.state.uuid(), call.name, call.description, parent=parent["name"], permissions=call.permissions)
    return One(ROLES_RESOURCE.create(context, row), 201)
