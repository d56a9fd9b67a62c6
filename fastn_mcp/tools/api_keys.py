"""API keys of the account. They belong to the workspace, not to a person."""

from typing import Annotated

from pydantic import Field, JsonValue

from fastn_mcp.tools.fields import ApiKeyId, Extra, Name, Texts
from fastn_mcp.tools.operation import DELETE, DOCUMENTED, GET, POST, Operation
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.tool import Effect, FastnObject, SecretRow

EXPIRES = ("expiresAt", "expires")
"""Fields that say until when a key is good; null or `never` where it has no end."""


class ApiKey(SecretRow):
    columns = ("id", "name", "mode", "permissions", "keyPrefix", "last4", "expiresAt", "lastUsed", "lastUsedAt")

    id: JsonValue = None
    name: JsonValue = None


class NewApiKey(FastnObject):
    """What creating one answers, its secrets included: they are delivered as the settings say."""

    id: JsonValue = None
    name: JsonValue = None


class ListApiKeys(List[ApiKey]):
    """List API keys: mode, permissions, expiry, last use. See lastUsed before you revoke."""

    route = GET("/api/v1/api-keys")
    effect = Effect.READ
    evidence = DOCUMENTED("API keys: columns; the path is inferred")


class CreateApiKey(Operation[NewApiKey]):
    """Create an API key, shown once. A Test key is no sandbox: it acts on live connections."""

    route = POST("/api/v1/api-keys")
    effect = Effect.ACCESS
    evidence = DOCUMENTED("API keys; the path is inferred")

    name: Name
    mode: Annotated[str | None, Field(description="Test (default) or Live.")] = None
    permissions: Annotated[
        str | None, Field(description="Full access, Developer, Operator, Viewer (default) or End user.")
    ] = None
    expires: Annotated[str | None, Field(description="30d, 90d (default), 1y, never or a date.")] = None
    customers: Annotated[Texts | None, Field(description="Customer ids; default all.")] = None
    allowed_ips: Annotated[Texts | None, Field(description="Default any.")] = None
    rate_limit_per_minute: Annotated[int | None, Field(description="At least 1.", ge=1)] = None
    extra: Extra = None


class RevokeApiKey(Operation[SecretRow]):
    """Revoke an API key for good. Whatever uses it stops working at once."""

    route = DELETE("/api/v1/api-keys/{api_key_id}")
    effect = Effect.DESTROY
    evidence = DOCUMENTED("API keys, revoke")

    api_key_id: ApiKeyId
