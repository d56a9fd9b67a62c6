"""Tools for connectors, the apps that workflows can use, and for connections, a customer's account at one of them."""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field, JsonValue
from typing_extensions import override

from fastn_mcp.records.rows import (
    FastnObject,
    Row,
    as_word,
    connection_refers,
    connector_keys,
    key_of,
    objects,
    owner_of,
    parse_timestamp,
    text,
    timestamp,
    word,
)
from fastn_mcp.records.states import CONNECTION_STATUSES
from fastn_mcp.tools.fields import (
    SECRET,
    SEVERAL,
    ConnectionId,
    ConnectorId,
    CustomerFilter,
    Description,
    Extra,
    JsonObject,
    JsonObjects,
    Known,
    Name,
    OfCustomer,
    Search,
    any_of,
)
from fastn_mcp.tools.operation import DELETE, DOCUMENTED, GET, INFERRED, POST, PUT, Create, Operation, Update
from fastn_mcp.tools.paging import APPLIED_HERE, EXPIRY_FIELDS, ExpiresBefore, List, Match, expires_before
from fastn_mcp.tools.slugs import same_name
from fastn_mcp.tools.tool import Effect

Domain = Annotated[str | None, Field(description="Its domain.")]
AuthMethods = Annotated[
    JsonObjects | None,
    Field(description="{type: NO_AUTH|BASIC|DIGEST|BEARER|API_KEY|OAUTH_2|INPUT, title, isDefault, config}."),
]
_NESTED = {"auth_methods": frozenset({"type", "title", "isDefault", "config", "docsUrl"})}


Authentication = Annotated[
    str | None,
    Field(description="For example OAUTH_2.", serialization_alias="authType"),
    SEVERAL,
    Known(("OAUTH_2", "API_KEY", "BASIC", "BEARER", "DIGEST", "INPUT", "NO_AUTH")),
]


def _authenticates(row: Row, wanted: str) -> bool | None:
    """Match a connection's authentication, or one of a connector's. Fastn writes both OAUTH and OAUTH_2."""
    methods = (*objects(row, "authMethods"), {"type": text(row, "authType")})
    types = {word(method, "type").removesuffix(" 2") for method in methods} - {""}
    if not wanted:
        return not types if "authMethods" in row or "authType" in row else None
    return as_word(wanted).removesuffix(" 2") in types if types else None


class Connector(FastnObject):
    columns = ("id", "name", "slug", "category", "origin", "protocol", "visibility")

    id: JsonValue = None
    name: JsonValue = None
    slug: JsonValue = None


class ListConnectors(List[Connector]):
    """List connectors: apps we can integrate. Hundreds, so search."""

    route = GET("/api/v1/connectors")
    evidence = DOCUMENTED("observed by third parties to answer {data: [...]}")
    matching: ClassVar[Mapping[str, Match]] = {"authentication": _authenticates}

    search: Search = None
    category: Annotated[str | None, Field(description="For example CRM.")] = None
    visibility: Annotated[str | None, Field(description="Private or Public.")] = None
    authentication: Authentication = None


class GetConnector(Operation[Connector]):
    """Get a connector: how to sign in (auth methods), actions and events."""

    route = GET("/api/v1/connectors/{connector_id}")
    effect = Effect.READ
    evidence = INFERRED("api-reference, connectors")

    connector_id: ConnectorId


class CreateConnector(Create[Connector]):
    """Add a private connector for an API of your own."""

    route = POST("/api/v1/connectors")
    effect = Effect.WRITE
    evidence = INFERRED("api-reference, connectors")
    raises_to = (Effect.EXTERNAL,)
    nested = _NESTED

    name: Name
    slug: Annotated[str, Field(description="Unique, for example hubspot.", min_length=1)]
    description: Description = None
    domain: Domain = None
    protocol: Annotated[str | None, Field(description="REST (default), MCP, FTP, Database or REDIS.")] = None
    auth_methods: AuthMethods = None
    extra: Extra = None

    @override
    def effect_on(self, target: FastnObject | None, dependents: int | None) -> Effect:
        return self.effective if target is None else _effect_on(self.effective, target, dependents)


class UpdateConnector(Update[Connector]):
    """Change named fields of a connector. Managed ones are read-only; edits stay in test until published."""

    route = PUT("/api/v1/connectors/{connector_id}")
    effect = Effect.WRITE
    evidence = INFERRED("api-reference, connectors")
    raises_to = (Effect.EXTERNAL,)
    nested = _NESTED
    clears = frozenset({"domain"})

    connector_id: ConnectorId
    name: Name | None = None
    description: Description = None
    domain: Domain = None
    auth_methods: AuthMethods = None
    extra: Extra = None

    @override
    def effect_on(self, target: FastnObject | None, dependents: int | None) -> Effect:
        return _effect_on(self.effective, target, dependents)


class DeleteConnector(Operation[FastnObject]):
    """Delete a connector and the credentials of all its connections for good. Workflows that use it stop."""

    route = DELETE("/api/v1/connectors/{connector_id}")
    effect = Effect.DESTROY
    evidence = DOCUMENTED("connectors, delete")

    connector_id: ConnectorId


def _effect_on(effect: Effect, connector: FastnObject | None, dependents: int | None) -> Effect:
    """Raise the effect to external, unless the connector is private and nothing uses it."""
    visibility = getattr(connector, "visibility", None)
    is_private = isinstance(visibility, str) and visibility.strip().casefold() == "private"
    return effect if is_private and dependents == 0 else effect.raised_to(Effect.EXTERNAL)


def _changed_since(row: Row, wanted: str) -> bool | None:
    """Match a connection by its last use or change, or by its expiry if it has expired."""
    expiry = EXPIRY_FIELDS[:1] if word(row, "status") == "expired" else ()
    fields = ("lastUsedAt", "lastUsed", "updatedAt", "createdAt", *expiry)
    times = list(filter(None, (timestamp(row, field) for field in fields)))
    begin = parse_timestamp(wanted)
    return max(times) >= begin if times and begin else None


class Connection(FastnObject):
    columns = ("id", "name", "status", "connector", "connectorId", "endOrgId", "authType", "expiresAt", "lastUsedAt")

    id: JsonValue = None
    name: JsonValue = None
    status: JsonValue = None


class ListConnections(List[Connection]):
    """List the apps that customers have connected. EXPIRED or FAILED ones need the customer to authorise again."""

    route = GET("/api/v1/connections")
    evidence = DOCUMENTED("connections")
    matching: ClassVar[Mapping[str, Match]] = {
        "authentication": _authenticates,
        "since": _changed_since,
        "expires_before": expires_before,
    }

    customer_id: Annotated[CustomerFilter | None, Field(serialization_alias="endOrgId")] = None
    connector_id: ConnectorId | None = None
    status: Annotated[str | None, *any_of(*CONNECTION_STATUSES)] = None
    since: Annotated[str | None, Field(description="Used, changed or expired from then, ISO 8601."), APPLIED_HERE] = (
        None
    )
    expires_before: ExpiresBefore = None
    authentication: Authentication = None


_DEFAULT_NAME = "default"
"""Name of a connection whose create gave none."""


class CreateConnection(Create[Connection]):
    """Connect or reconnect a customer's app with credentials. OAuth needs a person: pass on the authorizationUrl."""

    route = POST("/api/v1/connections")
    effect = Effect.EXTERNAL
    evidence = DOCUMENTED("observed by third parties: connectorId, authMethodId, name, credentials")

    connector_id: ConnectorId
    auth_method_id: Annotated[str | None, Field(description="From get_connector.")] = None
    name: Annotated[str | None, Field(description="For example default.")] = None
    customer_id: OfCustomer = None
    credentials: Annotated[
        JsonObject | None,
        Field(description="Such as {token}. Leave it out: a person types it.", json_schema_extra=SECRET, repr=False),
    ] = None
    extra: Extra = None

    @property
    @override
    def beside(self) -> Mapping[str, str | None]:
        """The connections of the same customer to the same app. It may replace the credentials of one of them.

        Undocumented fields may name another customer.
        """
        customer = None if self.is_undocumented else self.customer_id
        return {"connector_id": self.connector_id, "customer_id": customer}

    @override
    def may_overwrite(self, row: Row) -> bool | None:
        """Return whether `row` is of the same app, customer and name.

        None if that is not known: the row does not say it, undocumented fields may name another customer, or this gives
        no name and `row` has one of its own.
        """
        fields = {**connection_refers(key_of(row)), **row}
        keys = connector_keys(fields)
        owner = owner_of(fields)
        if keys and self.connector_id not in keys:
            return False
        is_owner_known = owner is not None or any(name in fields for name in ("endOrgId", "customerId"))
        if is_owner_known and (owner or "").casefold() != (self.customer_id or "").casefold():
            return None if self.is_undocumented else False
        is_same = same_name(self.name or _DEFAULT_NAME, text(row, "name") or _DEFAULT_NAME)
        if is_same is False:
            return None if self.name is None else False
        return is_same if keys and is_owner_known else None

    @property
    @override
    def person_types(self) -> str | None:
        """The credentials, unless they were given. `fastn.credentials` reads whether the connector takes any."""
        return "credentials" if self.credentials is None else None


class DeleteConnection(Operation[FastnObject]):
    """Disconnect a customer's app: deletes the credentials, syncs stop. Only the customer can authorise again."""

    route = DELETE("/api/v1/connections/{connection_id}")
    effect = Effect.DESTROY
    evidence = DOCUMENTED("connections, disconnect")

    connection_id: ConnectionId
