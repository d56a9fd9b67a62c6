"""Tools for who may do what: users, roles, API keys, secrets, and Fastn's own audit log."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self, cast

from pydantic import Field, JsonValue, model_validator
from typing_extensions import override

from fastn_mcp.records.rows import FastnObject, Row, as_word, owner_of, text, word
from fastn_mcp.records.states import is_unused
from fastn_mcp.redaction import redact_row
from fastn_mcp.tools.bounds import JsonBound, TextBound
from fastn_mcp.tools.fields import (
    EMAIL,
    SECRET,
    ApiKeyId,
    CustomerFilter,
    CustomerId,
    Description,
    Extra,
    Name,
    NotEmpty,
    Search,
    SecretId,
    Since,
    Texts,
    Until,
    one_of,
)
from fastn_mcp.tools.operation import DELETE, DOCUMENTED, GET, INFERRED, POST, Create, Operation
from fastn_mcp.tools.paging import APPLIED_HERE, EXPIRY_FIELDS, ExpiresBefore, List, Match, expires_before, is_empty
from fastn_mcp.tools.slugs import same_name
from fastn_mcp.tools.tool import UNLISTED, Effect

_MANY_TEXTS = JsonBound(values=1_000, size=100_000)


class SecretRow(FastnObject):
    """A row about a secret. Only fields known to be harmless are kept, whatever Fastn sends."""

    @classmethod
    @override
    def kept(cls, row: dict[str, JsonValue]) -> dict[str, JsonValue]:
        return redact_row(row)

    @model_validator(mode="before")
    @classmethod
    def _redact(cls, row: object) -> object:
        return cls.kept(cast("dict[str, JsonValue]", row)) if isinstance(row, dict) else row


class User(FastnObject):
    columns = ("id", "name", "email", "role", "status", "lastActive")


def _has_role(row: Row, wanted: str) -> bool | None:
    if not wanted:
        return is_empty(row, "role", "roleName")
    role = word(row, "role", "role.name", "roleName")
    return role == as_word(wanted) if role else None


class ListUsers(List[User]):
    """List the people of the team and their access."""

    route = GET("/api/v1/users")
    evidence = DOCUMENTED("people: columns; the path is inferred")
    matching: ClassVar[Mapping[str, Match]] = {"role": _has_role}

    search: Search = None
    status: Annotated[str | None, *one_of("Active", "Invited", "Disabled", "Suspended")] = None
    role: Annotated[str | None, Field(description="Name."), APPLIED_HERE, UNLISTED] = None


class InviteUser(Operation[User]):
    """Invite a colleague by email. Only the dashboard can change or remove them later."""

    route = POST("/api/v1/users/invite")
    effect = Effect.ACCESS
    evidence = DOCUMENTED("people, invite: email, role; the path is inferred")

    email: Annotated[str, Field(description="Email address."), EMAIL]
    role: Annotated[str, Field(description="Name or id, from list_roles.", min_length=1)]
    extra: Extra = None


class Role(FastnObject):
    columns = ("id", "name", "description", "parent", "permissions")


class ListRoles(List[Role]):
    """List roles: which permissions people can have."""

    route = GET("/api/v1/roles")
    evidence = DOCUMENTED("roles: columns; the path is inferred")


class CreateRole(Operation[Role]):
    """Create a custom role that narrows its parent. Only the dashboard can change or delete it later."""

    route = POST("/api/v1/roles")
    effect = Effect.ACCESS
    evidence = INFERRED("api-reference, roles")

    name: Name
    parent: Annotated[str | None, Field(description="Role to narrow, for example Viewer.")] = None
    permissions: Annotated[
        Texts, Field(description="For example workflows:read; the parent must hold all."), _MANY_TEXTS
    ]
    description: Description = None
    extra: Extra = None


KEY_ACTIONS = ("actions", "lastAction")
"""Columns of ours: how many actions of a key the audit log has, and the last one."""


class ApiKey(SecretRow):
    columns = (
        *("id", "name", "mode", "permissions", "keyPrefix", "last4", "expiresAt", "lastUsed", "lastUsedAt"),
        *KEY_ACTIONS,
    )
    added_columns = KEY_ACTIONS
    never = EXPIRY_FIELDS


class NewApiKey(FastnObject):
    """Response to a creation, including the key's secrets, which are delivered as configured."""


def _is_unused(row: Row, wanted: bool) -> bool | None:
    unused = is_unused(row)
    return None if unused is None else unused is wanted


class ListApiKeys(List[ApiKey]):
    """List API keys: expiry; see lastUsed before you revoke."""

    route = GET("/api/v1/api-keys")
    evidence = DOCUMENTED("API keys: columns; the path is inferred")
    matching: ClassVar[Mapping[str, Match]] = {"expires_before": expires_before, "never_used": _is_unused}

    expires_before: Annotated[ExpiresBefore, UNLISTED] = None
    never_used: Annotated[bool | None, Field(description="By lastUsed."), APPLIED_HERE, UNLISTED] = None
    permissions: Annotated[str | None, Field(description="Preset, such as Full access."), APPLIED_HERE, UNLISTED] = None


class CreateApiKey(Operation[NewApiKey]):
    """Issue an API key (access token). It goes to a file on the server's machine, or is shown once."""

    route = POST("/api/v1/api-keys")
    effect = Effect.ACCESS
    evidence = DOCUMENTED("API keys; the path is inferred")
    defaults: ClassVar[Mapping[str, str]] = {"mode": "Test", "permissions": "Viewer", "expires": "90d"}

    name: Name
    mode: Annotated[NotEmpty | None, Field(description="Test (default) or Live; both act on live connections.")] = None
    permissions: Annotated[
        NotEmpty | None, Field(description="Full access, Developer, Operator, Viewer (default, read-only) or End user.")
    ] = None
    expires: Annotated[NotEmpty | None, Field(description="30d, 90d (default), 1y, never or a date.")] = None
    customers: Annotated[Texts | None, Field(description="Ids or names; default all."), _MANY_TEXTS] = None
    allowed_ips: Annotated[Texts | None, Field(description="Default any.")] = None
    rate_limit_per_minute: Annotated[int | None, Field(description="At least 1.", ge=1)] = None
    extra: Extra = None


class RevokeApiKey(Operation[SecretRow]):
    """Revoke a leaked or unused API key for good. What uses it stops working at once."""

    route = DELETE("/api/v1/api-keys/{api_key_id}")
    effect = Effect.DESTROY
    evidence = DOCUMENTED("API keys, revoke")

    api_key_id: ApiKeyId


class FastnSecret(SecretRow):
    columns = ("id", "name", "type", "customerId", "environment", "updatedAt")


class ListSecrets(List[FastnSecret]):
    """List secrets: names and scopes, never values."""

    route = GET("/api/v1/secrets")
    evidence = DOCUMENTED("secrets: columns; the path is inferred")

    search: Annotated[Search, UNLISTED] = None
    customer_id: CustomerFilter | None = None


class CreateSecret(Create[FastnSecret]):
    """Store a secret (password, token), or overwrite the one of the same name and scope, without undo."""

    route = POST("/api/v1/secrets")
    effect = Effect.ACCESS
    evidence = DOCUMENTED("secrets; the path is inferred")

    name: Annotated[
        str,
        Field(description="UPPER_SNAKE_CASE, at most 200 characters.", min_length=1, max_length=200),
        TextBound(200),
    ]
    value: Annotated[
        str | None,
        Field(description="Leave it out: a person types it.", json_schema_extra=SECRET, repr=False),
        TextBound(64_000),
    ] = None
    value_from_env: Annotated[str | None, Field(description="Server variable that holds it.")] = None
    type: Annotated[str | None, Field(description="Text (default) or JSON.")] = None
    customer_id: Annotated[CustomerId | None, Field(description="Else for all customers.")] = None
    environment: Annotated[str | None, Field(description="test or live; else both.")] = None
    extra: Extra = None

    @property
    @override
    def looked_for(self) -> Mapping[str, str]:
        return {"name": self.name}

    @override
    def may_overwrite(self, row: Row) -> bool | None:
        """Return whether `row` is a secret of the same name and scope, which this one overwrites.

        None if that is not known: the name may be the same to Fastn, or one scope includes the other.
        """
        name = text(row, "name")
        if name and same_name(self.name, name) is False:
            return False
        existing = owner_of(row), text(row, "environment") or None
        own = self.customer_id, self.environment
        if any(a and b and a.casefold() != b.casefold() for a, b in zip(own, existing, strict=True)):
            return False
        return True if name == self.name and own == existing else None

    @property
    @override
    def person_types(self) -> str | None:
        """The value, where neither it nor a variable was given."""
        return "value" if self.value is None and self.value_from_env is None else None

    @model_validator(mode="after")
    def _has_one_value(self) -> Self:
        if self.value is not None and self.value_from_env is not None:
            raise ValueError("give value or value_from_env, or neither: then a person types it")
        return self


class DeleteSecret(Operation[SecretRow]):
    """Delete a secret for good. Workflows that read it fail at their next run."""

    route = DELETE("/api/v1/secrets/{secret_id}")
    effect = Effect.DESTROY
    evidence = DOCUMENTED("secrets, delete")

    secret_id: SecretId


EXECUTION = "workflow.execute"
"""Prefix of the actions of runs in the audit log."""

_ROUTINE = (EXECUTION, "auth.login", "auth.logout", "credential.token_refresh")


_ACTORS = {"apikey": "key", "api key": "key", "key": "key", "system": "system", "agent": "agent", "user": "person"}


def actor_kind(row: Row) -> str | None:
    """Return who acted: `person`, `key`, `agent` or `system`, by the actor itself where that tells."""
    actor = text(row, "actor")
    if not actor:
        return None
    if "@" in actor:
        return "person"
    return _ACTORS.get(actor.partition(":")[0].lower()) or _ACTORS.get(text(row, "actorType").lower())


_OCCASIONS = {EXECUTION: "run", "auth.": "login", "credential.token_refresh": "credential renewal"}
"""What an entry is about, by the beginning of its action; a read by its end, and a change otherwise."""

_ACTORS_IN_WORDS = {"person": "people", "key": "API keys", "agent": "Fastn's AI", "system": "the system"}


def entry_kind(row: Row) -> tuple[str, str]:
    """Return what an entry of the audit log is about, as a noun, and who acted: a run, and API keys."""
    action = text(row, "action", "event", "type")
    otherwise = "read" if action.endswith(".read") else "change"
    occasion = next((noun for beginning, noun in _OCCASIONS.items() if action.startswith(beginning)), otherwise)
    return occasion, _ACTORS_IN_WORDS.get(actor_kind(row) or "", "others")


class AuditEntry(FastnObject):
    columns = ("timestamp", "actor", "action", "resource", "endOrgId", "outcome")


def _acted_on(row: Row, wanted: str) -> bool | None:
    """Match an entry by its resource; a login has none."""
    id_ = text(row, "resource.id", "resourceId")
    if not wanted:
        return not id_
    if id_:
        return id_.casefold() == wanted.casefold()
    resource = row.get("resource")
    return False if isinstance(resource, dict) and "id" in resource else None


def _is_change(row: Row, wanted: bool) -> bool | None:
    """Match what is no sign-in, renewed token, read or run, which are most of a log; everything unless `wanted`."""
    action = text(row, "action", "event", "type")
    if not action:
        return None
    return not wanted or not (action.startswith(_ROUTINE) or action.endswith(".read"))


class QueryAuditLog(List[AuditEntry]):
    """What colleagues did: who changed or deleted what. Owners and admins only."""

    route = GET("/api/v1/audit")
    evidence = DOCUMENTED("audit log: columns, filters; the path is /api/v1/audit-log there")
    matching: ClassVar[Mapping[str, Match]] = {"resource_id": _acted_on, "changes_only": _is_change}
    keeps_dropped = True

    actor: Annotated[str | None, Field(description="For example apikey:8.")] = None
    action: Annotated[str | None, Field(description="For example workflow.publish.")] = None
    changes_only: Annotated[bool | None, Field(description="No logins, reads, runs."), APPLIED_HERE] = None
    resource_id: Annotated[str | None, Field(description="Id/name.")] = None
    since: Since = None
    until: Until = None
