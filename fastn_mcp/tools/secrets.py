"""Secrets that workflows read by name. Their values can be written, never read."""

from typing import Annotated, Self

from pydantic import Field, JsonValue, model_validator
from typing_extensions import override

from fastn_mcp.tools.fields import SECRET, CustomerId, Extra, SecretId
from fastn_mcp.tools.operation import DELETE, DOCUMENTED, GET, POST, Create, Operation
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.tool import Effect, FastnObject, SecretRow


class FastnSecret(SecretRow):
    columns = ("id", "name", "type", "customerId", "environment", "updatedAt")

    id: JsonValue = None
    name: JsonValue = None


class ListSecrets(List[FastnSecret]):
    """List secrets: names and scopes, never values."""

    route = GET("/api/v1/secrets")
    effect = Effect.READ
    evidence = DOCUMENTED("secrets: columns; the path is inferred")

    customer_id: CustomerId | None = None


class CreateSecret(Create[FastnSecret]):
    """Create a secret, or overwrite the one of the same name and scope, without undo."""

    route = POST("/api/v1/secrets")
    effect = Effect.ACCESS
    evidence = DOCUMENTED("secrets; the path is inferred")

    name: Annotated[str, Field(description="UPPER_SNAKE_CASE, at most 200 characters.", min_length=1, max_length=200)]
    value: Annotated[
        str | None, Field(description="The secret. Better: value_from_env.", json_schema_extra=SECRET, repr=False)
    ] = None
    value_from_env: Annotated[str | None, Field(description="Server variable that holds it.")] = None
    type: Annotated[str | None, Field(description="Text (default) or JSON.")] = None
    customer_id: Annotated[CustomerId | None, Field(description="Else for all customers.")] = None
    environment: Annotated[str | None, Field(description="test or live; else both.")] = None
    extra: Extra = None

    @override
    def may_overwrite(self, row: FastnObject) -> bool | None:
        """A secret is overwritten by one of the same name and scope."""
        scope = (self.name, self.customer_id, self.environment)
        return scope == tuple(getattr(row, field, None) for field in ("name", "customerId", "environment"))

    @model_validator(mode="after")
    def _has_one_value(self) -> Self:
        if (self.value is None) == (self.value_from_env is None):
            raise ValueError("give either value or value_from_env")
        return self


class DeleteSecret(Operation[SecretRow]):
    """Delete a secret for good. Workflows that read it fail at their next run."""

    route = DELETE("/api/v1/secrets/{secret_id}")
    effect = Effect.DESTROY
    evidence = DOCUMENTED("secrets, delete")

    secret_id: SecretId
