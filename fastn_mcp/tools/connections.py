"""Connections: a customer's own account at an app, with its credentials."""

from typing import Annotated

from pydantic import Field, JsonValue

from fastn_mcp.tools.fields import SECRET, ConnectionId, ConnectorId, CustomerId, Extra, JsonObject, one_of
from fastn_mcp.tools.operation import DELETE, DOCUMENTED, GET, POST, Operation
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.tool import Effect, FastnObject

# Connections carry the customer as `endOrgId`.
OfCustomer = Annotated[str | None, Field(description="Else the account's own.", serialization_alias="endOrgId")]


class Connection(FastnObject):
    columns = ("id", "name", "status", "connector", "connectorId", "endOrgId", "authType", "expiresAt", "lastUsedAt")

    id: JsonValue = None
    name: JsonValue = None
    status: JsonValue = None


class ListConnections(List[Connection]):
    """List connections. EXPIRED or FAILED ones need the customer to authorise again."""

    route = GET("/api/v1/connections")
    effect = Effect.READ
    evidence = DOCUMENTED("connections")

    customer_id: Annotated[CustomerId | None, Field(serialization_alias="endOrgId")] = None
    connector_id: ConnectorId | None = None
    status: Annotated[str | None, *one_of("ACTIVE", "INACTIVE", "EXPIRED", "FAILED")] = None


class CreateConnection(Operation[Connection]):
    """Connect an app by credentials. OAuth needs a person: pass on the authorizationUrl of the answer."""

    route = POST("/api/v1/connections")
    effect = Effect.EXTERNAL
    evidence = DOCUMENTED("observed by third parties: connectorId, authMethodId, name, credentials")

    connector_id: ConnectorId
    auth_method_id: Annotated[str | None, Field(description="From get_connector.")] = None
    name: Annotated[str | None, Field(description="As default.")] = None
    customer_id: OfCustomer = None
    credentials: Annotated[
        JsonObject | None,
        Field(description="As {token} or {headerName, apiKey}.", json_schema_extra=SECRET, repr=False),
    ] = None
    extra: Extra = None


class DeleteConnection(Operation[FastnObject]):
    """Disconnect: deletes the credentials, syncs stop. Only the customer can authorise again."""

    route = DELETE("/api/v1/connections/{connection_id}")
    effect = Effect.DESTROY
    evidence = DOCUMENTED("connections, disconnect")

    connection_id: ConnectionId
