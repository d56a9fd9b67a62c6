# ruff: noqa: S608 - statements are what is tested
"""The tool `query` and the list tools agree, row by row, on generated accounts."""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.world import World

from fastn_mcp.account.short_ids import short_id
from fastn_mcp.procedures.query.statement_process import IS_AVAILABLE

pytestmark = [
    pytest.mark.no_cover,  # `test_query` covers the tool
    pytest.mark.skipif(not IS_AVAILABLE, reason="statements run where their memory is limited"),
]

Row = dict[str, Any]


@dataclass(frozen=True)
class Listing:
    """A list tool, and the columns of a table by the fields of its rows: `column=field|field`, or the same name."""

    tool: str
    collection: str
    texts: str
    times: str = ""
    numbers: str = ""

    def fields(self) -> Mapping[str, Sequence[str]]:
        """Return the fields by column."""
        named: dict[str, Sequence[str]] = {}
        for each in f"{self.texts} {self.times} {self.numbers}".split():
            column, _, fields = each.partition("=")
            named[column] = (fields or column).split("|")
        return named

    def expected(self, row: Row) -> list[Any]:
        """Return the cells of a row that a list tool returned."""
        return [self._cell(column, [_at(row, field) for field in fields]) for column, fields in self.fields().items()]

    def _cell(self, column: str, values: Sequence[Any]) -> Any:
        if column in _names(self.times):
            return next(filter(None, map(_time, values)), None)
        if column in _names(self.numbers):
            numbers = (value for value in values if value is not None)
            return next((int(value) if value == int(value) else value for value in numbers), None)
        texts = (str(value) for value in values if value is not None and not isinstance(value, bool))
        return next((short_id(text) for text in texts if text.strip()), None)


def _names(columns: str) -> list[str]:
    return [each.partition("=")[0] for each in columns.split()]


def _at(row: Row, field: str) -> Any:
    value: Any = row
    for name in field.split("."):
        value = cast("Row", value).get(name) if isinstance(value, dict) else None
    return value


def _time(value: Any) -> str | None:
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    at = at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")


CHANGED = "created_at=createdAt updated_at=updatedAt"

LISTINGS = {
    "customers": Listing(
        "list_customers",
        "customers",
        "id name slug external_ref=externalRef status plan region admin_email=adminEmail|customerAdmin.email"
        " admin_invite=customerAdmin.inviteStatus created_by=createdBy updated_by=updatedBy",
        CHANGED,
        "connections=connectionsCount",
    ),
    "connectors": Listing("list_connectors", "connectors", "id name slug category visibility origin", CHANGED),
    "connections": Listing(
        "list_connections",
        "connections",
        "id customer_id=endOrgId connector_id=connectorId connector=connector.name|connector.slug auth_type=authType"
        " status status_reason=statusReason user_email=userEmail",
        f"{CHANGED} expires_at=expiresAt last_used_at=lastUsedAt",
    ),
    "workflows": Listing(
        "list_workflows",
        "workflows",
        "id name slug status tier=executionTier version=publishedVersion updated_by=updatedBy",
        CHANGED,
        "timeout_ms=timeoutMs",
    ),
    "triggers": Listing(
        "list_triggers",
        "triggers",
        "id name type status schedule timezone subscription_status=subscriptionStatus authentication"
        " connector_id=connectorId connection_id=connectionId customer_id=endOrgId",
        f"{CHANGED} next_run=nextRun last_run=lastRun",
        "failures=consecutiveFailures",
    ),
    "users": Listing("list_users", "users", "id name email role status", "last_active=lastActive created_at=createdAt"),
    "roles": Listing("list_roles", "roles", "id name parent", numbers="built_in=builtIn"),
    "api_keys": Listing(
        "list_api_keys",
        "apiKeys",
        "id name mode permissions last4 created_by=createdBy",
        "expires_at=expiresAt last_used=lastUsed created_at=createdAt",
    ),
    "secrets": Listing("list_secrets", "secrets", "id name type customer_id=customerId environment scope", CHANGED),
    "audit": Listing(
        "query_audit_log",
        "audit",
        "id actor action resource_type=resource.type resource_id=resource.id customer_id=endOrgId outcome",
        "at=timestamp",
    ),
    "runs": Listing(
        "list_executions",
        "executions",
        "id workflow_id=workflowId workflow=workflowName|workflowSlug customer_id=endOrgId environment status"
        " triggered_by=triggeredBy error_category=errorCategory",
        "created_at=createdAt started_at=startedAt completed_at=completedAt",
        "duration_ms=durationMs",
    ),
}
"""For each table that a list fills row by row."""

TEXTS = st.one_of(
    st.sampled_from(
        ["", " ", "Active", "ACTIVE", "Pending Admin Activation", "it's", "Ünï", "=1+1", "null", "0", "😀"]
    ),
    st.text(max_size=20),
    st.none(),
)
TIMES = st.one_of(
    st.sampled_from([None, "", "2026-11-20", "2026-11-20T10:00:00+02:00", "2026-11-20T23:59:59.999Z", "soon"]),
    st.datetimes(datetime(2020, 1, 1), datetime(2027, 1, 1)).map(lambda at: f"{at.isoformat()}Z"),  # noqa: DTZ001
)
NUMBERS = st.one_of(st.none(), st.integers(0, 10**9), st.sampled_from([0.5, 1.25]))


KEPT = frozenset(["id", "customer_id", "connector_id", "connection_id", "workflow_id", "created_at", "at", "built_in"])
"""Columns whose fields the sandbox itself goes by."""

KEPT_OF_TABLES = {
    "api_keys": {"mode", "permissions", "expires_at"},
    "runs": {"status", "started_at", "completed_at", "duration_ms"},
}
"""The same, of single tables: whether a key is accepted, and how far a run is."""


def _edits() -> st.SearchStrategy[tuple[str, int, str, Any]]:
    """Return edits: a table, the place of a row, a field, and its new value."""

    def of(table: str) -> st.SearchStrategy[tuple[str, int, str, Any]]:
        listing = LISTINGS[table]
        kept = KEPT | KEPT_OF_TABLES.get(table, set())
        place = st.integers(0, 1000)
        values = {listing.texts: TEXTS, listing.times: TIMES, listing.numbers: NUMBERS}
        choices: list[st.SearchStrategy[tuple[str, int, str, Any]]] = []
        for columns, strategy in values.items():
            fields = [listing.fields()[column][0] for column in _names(columns) if column not in kept]
            if fields:
                choices.append(st.tuples(st.just(table), place, st.sampled_from(fields), strategy))
        return st.one_of(choices)

    return st.sampled_from(sorted(LISTINGS)).flatmap(of)


def edited(world: World, edits: Sequence[tuple[str, int, str, Any]], dropped: Sequence[tuple[str, int]]) -> None:
    """Change an account: values of its rows, and rows that are not there."""
    state = world.sandbox.state
    state.rows["_runs"] = {}  # a run that waits would begin once it is read
    for table, place in dropped:
        rows = state.all(LISTINGS[table].collection)
        if len(rows) > 1 and table != "api_keys":
            state.drop(LISTINGS[table].collection, rows[place % len(rows)]["id"])
    for table, place, field, value in edits:
        rows = state.all(LISTINGS[table].collection)
        *path, name = field.split(".")
        target = rows[place % len(rows)]
        for part in path:
            target = target[part]
        target[name] = value


async def queried(world: World, statement: str, **arguments: Any) -> list[list[Any]]:
    """Return all rows of a statement."""
    rows: list[list[Any]] = []
    offset: int | None = 0
    while offset is not None:
        data = (await world.rendered_tool("query", sql=statement, offset=offset, max_kb=30, **arguments))["data"]
        rows += data["rows"]
        offset = data.get("next_offset")
    return rows


async def listed(world: World, tool: str) -> list[Row]:
    answers = await world.pages(tool, limit=100, detail="full")
    return [row for answer in answers for row in answer["data"]]


async def number_of(world: World, tool: str, **filters: Any) -> int:
    """Return the number of rows on all pages of a list: not every one has a total."""
    pages: list[Any] = [answer["data"] for answer in await world.pages(tool, limit=100, detail="concise", **filters)]
    return sum(len(page["rows"] if "columns" in page else page) for page in pages)


@given(
    edits=st.lists(_edits(), max_size=40),
    dropped=st.lists(st.tuples(st.sampled_from(sorted(LISTINGS)), st.integers(0, 1000)), max_size=10),
)
@settings(max_examples=2, phases=[Phase.generate])
def test_rows_agree_with_the_lists(edits: list[tuple[str, int, str, Any]], dropped: list[tuple[str, int]]) -> None:
    async def compare(folder: Path) -> None:
        world = World(folder, snapshot_seconds=90)
        edited(world, edits, dropped)
        for table, listing in LISTINGS.items():
            rows = await queried(world, f"select {', '.join(listing.fields())} from {table}")
            expected = [listing.expected(row) for row in await listed(world, listing.tool)]
            for row, other in zip(rows, expected, strict=True):
                assert row == other, (table, edits)
        world.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(Path(folder)))


FILTERS = (
    ("connections", "status", "list_connections", "status", ("ACTIVE", "EXPIRED", "FAILED", "INACTIVE")),
    ("workflows", "status", "list_workflows", "status", ("active", "inactive", "draft")),
    ("triggers", "status", "list_triggers", "status", ("Active", "Disabled")),
    ("runs", "status", "list_executions", "status", ("completed", "failed", "timeout", "cancelled")),
)
"""Column of words, and the filter of the list tool: table, column, tool, argument, documented values."""


@given(seed=st.randoms(use_true_random=False), period=st.tuples(st.integers(1, 100), st.integers(1, 100)))
@settings(max_examples=2, phases=[Phase.generate])
def test_counts_agree_with_filtered_lists(seed: Any, period: tuple[int, int]) -> None:
    """Also those of `run_counts`, by Fastn's own totals."""

    async def compare(folder: Path) -> None:
        world = World(folder, snapshot_seconds=90)
        state = world.sandbox.state
        state.rows["_runs"] = {}
        for table, column, _, _, values in FILTERS:
            for row in state.all(LISTINGS[table].collection):
                row[LISTINGS[table].fields()[column][0]] = seed.choice(values)
        for table, column, tool, argument, values in FILTERS:
            counted = dict(await queried(world, f"select {column}, count(*) from {table} group by 1"))
            for value in values:
                total = await number_of(world, tool, **{argument: value})
                assert counted.get(value, 0) == total, (table, value)
        hours, length = period
        until = world.clock.at - timedelta(hours=hours)
        bounds = {"since": (until - timedelta(hours=length)).isoformat(), "until": until.isoformat()}
        rows = await queried(
            world, "select status, customer_id, sum(runs) from run_counts where runs > 0 group by 1, 2", **bounds
        )
        counts = {(status, customer): runs for status, customer, runs in rows}
        for customer in state.all("customers"):
            for status in ("completed", "failed", "timeout"):
                filters = {"customer_id": customer["id"], "status": status, **bounds}
                total = await number_of(world, "list_executions", **filters)
                assert counts.get((status, customer["id"]), 0) == total, (status, customer["name"])
        world.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(Path(folder)))
