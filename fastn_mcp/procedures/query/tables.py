"""Tables of `query`: their columns, and the list that each is read from."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.account.short_ids import short_id
from fastn_mcp.procedures.query.child_program import TIME, WORD
from fastn_mcp.records.formats import stamp
from fastn_mcp.records.rows import (
    Row,
    connection_refers,
    key_of,
    number,
    objects,
    owner_of,
    started_workflows,
    text,
    timestamp,
    value,
)
from fastn_mcp.records.states import failure_reason, trigger_state, workflow_state
from fastn_mcp.redaction import safe, shorten, texts_in
from fastn_mcp.tools.access import ListApiKeys, ListRoles, ListSecrets, ListUsers, QueryAuditLog, actor_kind
from fastn_mcp.tools.connectors import ListConnections, ListConnectors
from fastn_mcp.tools.customers import ListCustomers
from fastn_mcp.tools.paging import List
from fastn_mcp.tools.triggers import ListTriggers
from fastn_mcp.tools.workflows import ListExecutions, ListWorkflows

ID = "text"
TEXT = "text"
NUMBER = "numeric"

MAX_CELL = 1_000
"""Maximum size of a text in a cell, in characters: 20 of them are less than the longest row of SQLite."""

Names = Mapping[str, Mapping[str, str]]
"""Names of resources by table and id."""

AnyList = type[List[Any]]


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its type, and how it is read from a row of Fastn."""

    name: str
    type: str
    read: Callable[[Row], JsonValue]
    field: str
    """Name under which its value is redacted: that of Fastn's field."""
    names_of: str = ""
    """Table whose names it shows in place of ids; empty if it shows what it reads."""


def _plain(name: str, type_: str, *fields: str) -> Column:
    """Return a column for the first of some fields that is not empty."""

    def read(row: Row) -> JsonValue:
        match type_:
            case "numeric":
                found = value(row, *fields)
                return int(found) if isinstance(found, bool) else number(row, *fields)
            case "time":
                at = timestamp(row, *fields)
                return None if at is None else stamp(at)
            case _:
                return text(row, *fields) or None

    return Column(name, type_, read, fields[0].rpartition(".")[2])


def _columns(type_: str, **fields: str) -> list[Column]:
    return [_plain(name, type_, *paths.split()) for name, paths in fields.items()]


def _derived(name: str, type_: str, read: Callable[[Row], JsonValue]) -> Column:
    return Column(name, type_, read, name)


def _named(name: str, table: str, read: Callable[[Row], JsonValue]) -> Column:
    """Return a column with the name of a resource that a row refers to by id."""
    return Column(name, TEXT, read, "name", names_of=table)


_CUSTOMER = (_derived("customer_id", ID, owner_of), _named("customer", "customers", owner_of))
_CHANGED = (*_columns(TIME, created_at="createdAt", updated_at="updatedAt"),)


@dataclass(frozen=True, slots=True)
class QueryTable:
    """A table. `parts` returns the rows that one row of Fastn's list makes."""

    name: str
    lister: AnyList
    columns: Sequence[Column]
    parts: Callable[[Row], Iterable[Row]] = lambda row: (row,)
    is_window: bool = False
    """Whether only the newest rows are read: there are too many for all."""
    bounds: Sequence[str] = ()
    """Arguments of the list by which the reading can be bounded."""
    lacks: str = ""
    """Which of the rows that one may expect there are none."""
    documented: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    """Values that columns may have, also if no row has them."""

    def types(self) -> dict[str, str]:
        return {column.name: column.type for column in self.columns}

    def needs(self, read: Iterable[str]) -> set[str]:
        """Return the tables with the names that these of its columns show."""
        wanted = set(read)
        return {column.names_of for column in self.columns if column.names_of and column.name in wanted}

    def rows(self, rows: Iterable[Row], names: Names, redacted: Callable[[JsonValue], JsonValue]) -> list[list[Any]]:
        """Return rows of Fastn as cells, redacted and sanitised under the names of Fastn's fields.

        `redacted` redacts the account's own key.
        """
        parts = [part for row in rows for part in self.parts(row)]
        wholes: list[JsonValue] = [
            [{column.field: self._read(column, part, names)} for column in self.columns] for part in parts
        ]
        shown = cast("list[list[dict[str, JsonValue]]]", redacted(_safe_columns(wholes)))
        return [[_cell(next(iter(cell.values()))) for cell in cells] for cells in shown]

    @staticmethod
    def _read(column: Column, row: Row, names: Names) -> JsonValue:
        found = column.read(row)
        if column.names_of:
            return names.get(column.names_of, {}).get(str(found)) if found else None
        return found


def _safe_columns(rows: list[JsonValue]) -> JsonValue:
    """Redact and sanitise cells, each an object of one field: by columns, which takes a fraction of the time."""
    by_column = [list(cells) for cells in zip(*cast("list[list[JsonValue]]", rows), strict=True)]
    safe_columns = [cast("list[JsonValue]", safe(cast(JsonValue, cells))) for cells in by_column]
    return [list(cells) for cells in zip(*safe_columns, strict=True)]


def _cell(found: JsonValue) -> str | float | None:
    if found is None or found == "" or isinstance(found, (list, dict)):
        return None
    if isinstance(found, str):
        return shorten(short_id(found), MAX_CELL)
    return int(found) if isinstance(found, bool) else found


# --- parts of rows -----------------------------------------------------------------------------------------------


def _routes(trigger: Row) -> Iterator[Row]:
    for route in objects(trigger, "routes"):
        if workflow := text(route, "routeId", "workflowId"):
            yield {
                "triggerId": trigger.get("id"),
                "triggerName": trigger.get("name"),
                "workflowId": workflow,
                "environment": route.get("environment"),
            }


def _customers_of_trigger(trigger: Row) -> Iterator[Row]:
    if owner := owner_of(trigger):
        for workflow in started_workflows(trigger) or [""]:
            yield {
                "triggerId": trigger.get("id"),
                "workflowId": workflow,
                "endOrgId": owner,
            }


def _apps(workflow: Row) -> Iterator[Row]:
    for app in objects(workflow, "connectors"):
        yield {
            "workflowId": workflow.get("id"),
            "workflowName": workflow.get("name"),
            "slug": app.get("slug"),
            "scope": app.get("scope"),
        }


def _permissions(role: Row) -> Iterator[Row]:
    granted = role.get("permissions")
    if isinstance(granted, dict):
        texts = [f"{group}:{action}" for group, actions in granted.items() for action in texts_in(actions)]
    else:
        texts = [*texts_in(granted)]
    for permission in texts:
        yield {"roleId": role.get("id"), "roleName": role.get("name"), "permissions": permission}


def _of_connection(field_name: str) -> Callable[[Row], JsonValue]:
    """Return how to read a field of a connection that its id tells as well."""
    return lambda row: text({**connection_refers(key_of(row)), **row}, field_name) or None


def _owner_of_connection(row: Row) -> JsonValue:
    return owner_of(row) or owner_of(connection_refers(key_of(row)))


def _key_customers(row: Row) -> JsonValue:
    return ", ".join(texts_in(row.get("customers"))) or None


def _known(lister: AnyList, **columns: str) -> dict[str, Sequence[str]]:
    """Return the documented values of columns, by the arguments of the list that take them."""
    return {column: lister.known_values(argument) for column, argument in columns.items()}


# --- tables ------------------------------------------------------------------------------------------------------

RUN_COUNTS = "run_counts"

_ALL = (
    QueryTable(
        "customers",
        ListCustomers,
        (
            *_columns(ID, id="id"),
            *_columns(TEXT, name="name", slug="slug", external_ref="externalRef"),
            *_columns(WORD, status="status", plan="plan", region="region"),
            *_columns(TEXT, admin_email="adminEmail customerAdmin.email"),
            *_columns(WORD, admin_invite="customerAdmin.inviteStatus"),
            *_columns(NUMBER, connections="connectionsCount"),
            *_CHANGED,
            *_columns(TEXT, created_by="createdBy", updated_by="updatedBy"),
        ),
        documented=_known(ListCustomers, status="status"),
    ),
    QueryTable(
        "connectors",
        ListConnectors,
        (
            *_columns(ID, id="id"),
            *_columns(TEXT, name="name", slug="slug"),
            *_columns(WORD, category="category", visibility="visibility", origin="origin"),
            *_CHANGED,
        ),
    ),
    QueryTable(
        "connections",
        ListConnections,
        (
            *_columns(ID, id="id"),
            _derived("customer_id", ID, _owner_of_connection),
            _named("customer", "customers", _owner_of_connection),
            _derived("connector_id", ID, _of_connection("connectorId")),
            *_columns(TEXT, connector="connector.name connectorName connector.slug connectorSlug"),
            *_columns(WORD, auth_type="authType", status="status"),
            *_columns(TEXT, status_reason="statusReason", user_email="userEmail"),
            _derived("environment", WORD, _of_connection("environment")),
            *_columns(TIME, expires_at="expiresAt", last_used_at="lastUsedAt lastUsed"),
            *_CHANGED,
        ),
        bounds=("customer_id",),
        documented=_known(ListConnections, status="status"),
    ),
    QueryTable(
        "workflows",
        ListWorkflows,
        (
            *_columns(ID, id="id"),
            *_columns(TEXT, name="name", slug="slug"),
            *_columns(WORD, status="status"),
            _derived("state", WORD, lambda row: workflow_state(row).value),
            *_columns(WORD, tier="executionTier"),
            *_columns(NUMBER, timeout_ms="timeoutMs"),
            *_columns(TEXT, version="publishedVersion"),
            *_CHANGED,
            *_columns(TEXT, updated_by="updatedBy"),
        ),
        documented=_known(ListWorkflows, status="status"),
    ),
    QueryTable(
        "workflow_connectors",
        ListWorkflows,
        (
            *_columns(ID, workflow_id="workflowId"),
            *_columns(TEXT, workflow="workflowName"),
            *_columns(WORD, connector="slug", scope="scope"),
        ),
        parts=_apps,
    ),
    QueryTable(
        "triggers",
        ListTriggers,
        (
            *_columns(ID, id="id"),
            *_columns(TEXT, name="name"),
            *_columns(WORD, type="type", status="status"),
            _derived("state", WORD, lambda row: trigger_state(row).value),
            *_columns(TEXT, schedule="schedule cron", timezone="timezone"),
            *_columns(TIME, next_run="nextRun", last_run="lastRun"),
            *_columns(NUMBER, failures="consecutiveFailures"),
            *_columns(WORD, subscription_status="subscriptionStatus", authentication="authentication"),
            *_columns(ID, connector_id="connectorId", connection_id="connectionId"),
            *_CUSTOMER,
            *_CHANGED,
        ),
        bounds=("customer_id", "workflow_id"),
        documented=_known(
            ListTriggers,
            type="type",
            status="status",
            subscription_status="subscription_status",
            authentication="authentication",
        ),
    ),
    QueryTable(
        "trigger_routes",
        ListTriggers,
        (
            *_columns(ID, trigger_id="triggerId"),
            *_columns(TEXT, trigger="triggerName"),
            *_columns(ID, workflow_id="workflowId"),
            _named("workflow", "workflows", lambda row: row.get("workflowId")),
            *_columns(WORD, environment="environment"),
        ),
        parts=_routes,
        bounds=("customer_id", "workflow_id"),
    ),
    QueryTable(
        "trigger_customers",
        ListTriggers,
        (
            *_columns(ID, trigger_id="triggerId"),
            *_columns(ID, workflow_id="workflowId"),
            *_CUSTOMER,
        ),
        parts=_customers_of_trigger,
        bounds=("customer_id", "workflow_id"),
        lacks="triggers that name no customer, which may run for several,",
    ),
    QueryTable(
        "users",
        ListUsers,
        (
            *_columns(ID, id="id"),
            *_columns(TEXT, name="name", email="email"),
            *_columns(WORD, role="role.name roleName role", status="status"),
            *_columns(TIME, last_active="lastActive", created_at="createdAt"),
        ),
        documented=_known(ListUsers, status="status"),
    ),
    QueryTable(
        "roles",
        ListRoles,
        (
            *_columns(ID, id="id"),
            *_columns(TEXT, name="name", parent="parent"),
            *_columns(NUMBER, built_in="builtIn"),
        ),
    ),
    QueryTable(
        "role_permissions",
        ListRoles,
        (
            *_columns(ID, role_id="roleId"),
            *_columns(WORD, role="roleName"),
            *_columns(TEXT, permission="permissions"),
        ),
        parts=_permissions,
    ),
    QueryTable(
        "api_keys",
        ListApiKeys,
        (
            *_columns(ID, id="id"),
            *_columns(TEXT, name="name"),
            *_columns(WORD, mode="mode", permissions="permissions.preset permissions preset"),
            _derived("customers", TEXT, _key_customers),
            *_columns(TEXT, last4="last4"),
            *_columns(TIME, expires_at="expiresAt expires", last_used="lastUsed lastUsedAt", created_at="createdAt"),
            *_columns(TEXT, created_by="createdBy"),
        ),
    ),
    QueryTable(
        "secrets",
        ListSecrets,
        (
            *_columns(ID, id="id"),
            *_columns(TEXT, name="name"),
            *_columns(WORD, type="type"),
            *_CUSTOMER,
            *_columns(WORD, environment="environment", scope="scope"),
            *_CHANGED,
        ),
        bounds=("customer_id",),
    ),
    QueryTable(
        "audit",
        QueryAuditLog,
        (
            *_columns(ID, id="id"),
            *_columns(TIME, at="timestamp createdAt"),
            *_columns(TEXT, actor="actor"),
            _derived("actor_kind", WORD, actor_kind),
            *_columns(WORD, action="action event type", resource_type="resource.type resourceType"),
            *_columns(ID, resource_id="resource.id resourceId"),
            *_CUSTOMER,
            *_columns(WORD, outcome="outcome"),
        ),
        is_window=True,
        bounds=("since", "until"),
        documented={"actor_kind": ("person", "key", "agent", "system")},
    ),
    QueryTable(
        "runs",
        ListExecutions,
        (
            *_columns(ID, id="id", workflow_id="workflowId"),
            *_columns(TEXT, workflow="workflowName workflowSlug"),
            *_CUSTOMER,
            *_columns(WORD, environment="environment", status="status", triggered_by="triggeredBy"),
            *_columns(NUMBER, duration_ms="durationMs"),
            _derived("error", TEXT, lambda row: failure_reason(row) or None),
            *_columns(WORD, error_category="errorCategory"),
            *_columns(TIME, created_at="createdAt", started_at="startedAt", completed_at="completedAt"),
        ),
        is_window=True,
        bounds=("since", "until", "customer_id", "workflow_id"),
        documented=_known(ListExecutions, status="status", triggered_by="started_by"),
    ),
    QueryTable(
        RUN_COUNTS,
        ListExecutions,
        (
            *_columns(TIME, hour="hour"),
            *_columns(TEXT, day="day", week="week", month="month"),
            *_columns(ID, workflow_id="workflowId"),
            _named("workflow", "workflows", lambda row: row.get("workflowId")),
            *_CUSTOMER,
            *_columns(WORD, status="status"),
            *_columns(NUMBER, runs="runs", median_ms="median_ms", p90_ms="p90_ms"),
        ),
        bounds=("since", "until", "customer_id", "workflow_id"),
        documented=_known(ListExecutions, status="status"),
    ),
)

TABLES: Mapping[str, QueryTable] = {table.name: table for table in _ALL}


def columns_in_words() -> str:
    """Return all tables with their columns, for the tool's description; * for created_at and updated_at."""
    tables: list[str] = []
    for table in TABLES.values():
        names = [column.name for column in table.columns if column not in _CHANGED]
        tables.append(f"{table.name}{'*' * (_CHANGED[0] in table.columns)}({' '.join(names)})")
    return "; ".join(tables)
