"""What roles and keys may do. Pure data.

Fastn has 42 permissions in ten groups; people's roles and keys' presets are separate systems with the same names. AI
and the audit log are not in it: they are for owners and admins, which for a key means full access.
"""

_GROUPS = {
    "connectors": ("create", "read", "update", "delete", "write"),
    "connections": ("create", "read", "update", "delete", "share", "decrypt"),
    "workflows": ("create", "read", "update", "delete", "execute", "deploy_test", "deploy_prod"),
    "users": ("create", "read", "update", "invite", "remove"),
    "settings": ("read", "update", "manage"),
    "events": ("create", "read", "update", "delete", "replay"),
    "secrets": ("read", "write", "delete"),
    "executions": ("create", "read"),
    "widgets": ("create", "read", "update", "delete"),
    "unified": ("read", "execute"),
}

ALL = frozenset(f"{group}:{action}" for group, actions in _GROUPS.items() for action in actions)

_PEOPLE = frozenset(f"users:{action}" for action in _GROUPS["users"])
_MANAGING = frozenset({"settings:update", "settings:manage"})

VIEWER = frozenset(
    f"{group}:read" for group in ("connectors", "connections", "workflows", "events", "widgets", "unified")
)
OPERATOR = VIEWER | {
    "connections:create",
    "connections:update",
    "workflows:execute",
    "workflows:deploy_test",
    "users:read",
    "settings:read",
    "events:create",
    "events:update",
    "events:delete",
    "events:replay",
    "secrets:read",
    "executions:create",
    "executions:read",
    "widgets:update",
    "unified:execute",
}
DEVELOPER = ALL - _MANAGING - (_PEOPLE - {"users:read"}) - {"connections:decrypt", "workflows:deploy_prod"}
END_USER = ALL - _PEOPLE - _MANAGING

ROLES = {
    "Owner": ALL,
    "Admin": ALL,
    "Developer": DEVELOPER,
    "Operator": OPERATOR,
    "Viewer": VIEWER,
    "End User": END_USER,
}
PRESETS = {
    "Full access": ALL,
    "Developer": DEVELOPER,
    "Operator": OPERATOR,
    "Viewer": VIEWER,
    "End user": END_USER,
}

OWNERS_ONLY = "owners and admins only"
"""Stands where no permission can be granted."""
