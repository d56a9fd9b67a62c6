"""Secrets that workflows read by name. Their values can be written, never read."""

from typing import Annotated

from pydantic import Field

from fastn_mcp.operation import DELETE, DOCUMENTED, GET, INFERRED, POST, Effect, Operation, Record
from fastn_mcp.tools.fields import SECRET, CustomerId, Extra, SecretId
from fastn_mcp.tools.listing import List


class Secret(Record):
    id: str | int | None = None
    name: str | None = None


class ListSecrets(List[Secret]):
    """List secrets: names and scopes, never values."""

    route = GET("/api/v1/secrets")
    effect = Effect.READ
    evidence = INFERRED("api-reference, secrets")

    customer_id: CustomerId | None = None


class CreateSecret(Operation[Secret]):
    """Create a secret, or overwrite the one of the same name and scope, without undo."""

    route = POST("/api/v1/secrets")
    effect = Effect.ACCESS
    evidence = DOCUMENTED("secrets; the path is inferred")

    name: Annotated[str, Field(description="UPPER_SNAKE_CASE, at most 200 characters.", min_length=1, max_length=200)]
    value: Annotated[str, Field(description="The secret; never shown again.", json_schema_extra=SECRET, repr=False)]
    type: Annotated[str | None, Field(description="Text (default) or JSON.")] = None
    customer_id: Annotated[CustomerId | None, Field(description="Only for this customer; else for all.")] = None
    environment: Annotated[str | None, Field(description="test or live; else both.")] = None
    extra: Extra = None


class DeleteSecret(Operation[Record]):
    """Delete a secret for good. Workflows that read it fail at their next run."""

    route = DELETE("/api/v1/secrets/{secret_id}")
    effect = Effect.DESTROY
    evidence = DOCUMENTED("secrets, delete")

    secret_id: SecretId
