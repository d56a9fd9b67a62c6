"""A sender that filters, counts and pages rows as Fastn may, and records the calls."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from fastn_mcp.errors import FastnError, NotFound
from fastn_mcp.records.rows import FastnObject
from fastn_mcp.tools.customers import GetCustomer
from fastn_mcp.tools.operation import Operation
from fastn_mcp.tools.paging import List, Listed
from fastn_mcp.tools.workflows import ListExecutions

Row = dict[str, Any]

NOW = datetime(2026, 11, 25, 9, 0, tzinfo=UTC)
HIDES = "hides"
"""Names of the fields of a row that Fastn filters by, and does not show."""


def stamp(minutes: float) -> str:
    """Return the time so many minutes ago."""
    return (NOW - timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")


def run(number: int, minutes: float | None = None, status: str = "completed", **more: Any) -> Row:
    """Return a run that began so many minutes ago, by default as many as its number."""
    begun = stamp(number if minutes is None else minutes)
    return {"id": f"exec_{number:012x}", "status": status, "workflowId": "wf_1", "createdAt": begun, **more}


@dataclass
class RowSource:
    """Rows by list, in the order in which they are answered."""

    rows: dict[type[List[Any]], Sequence[Row]]
    has_totals: bool = True
    has_cursors: bool = False
    """Whether pages have a cursor of Fastn's own; otherwise they are read by their offset."""
    is_filtering: bool = True
    error: FastnError | None = None
    """Raised once instead of the next answer."""
    failing: dict[type[List[Any]], FastnError] = field(default_factory=dict[type[List[Any]], FastnError])
    """Raised instead of each answer."""
    meanwhile: Callable[[], object] = lambda: None
    """Called before each answer."""
    calls: list[Operation[Any]] = field(default_factory=list[Operation[Any]])

    async def __call__(self, call: Operation[Any]) -> FastnObject:
        self.calls.append(call)
        self.meanwhile()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if isinstance(call, List):
            listed = cast("List[Any]", call)
            if type(listed) in self.failing:
                raise self.failing[type(listed)]
            return self.page(listed)
        if isinstance(call, GetCustomer):
            return FastnObject.model_validate({"id": call.customer_id, "name": call.customer_id.upper()})
        raise NotFound("There is none.")

    def page(self, call: List[Any]) -> Listed:
        """Return a page as it would be read directly."""
        query, rows = call.request().query, self.rows.get(type(call), ())
        rows = [row for _, row in call.matching_rows(rows)[0]] if self.is_filtering else rows
        start, limit = int(str(query.get("cursor") or query.get("offset") or 0)), int(str(query["limit"]))
        shown = [
            {name: value for name, value in row.items() if name not in (HIDES, *row.get(HIDES, ()))}
            for row in rows[start : start + limit]
        ]
        body: Row = {"data": shown}
        if self.has_totals:
            body["total"] = len(rows)
        if self.has_cursors and start + limit < len(rows):
            body["nextCursor"] = str(start + limit)
        return call.result(body)

    def counts(self) -> Counter[str]:
        """Return the number of calls by operation."""
        return Counter(call.tool_name() for call in self.calls)


def runs(*rows: Row, **options: Any) -> RowSource:
    """Return a source of these runs."""
    return RowSource({ListExecutions: rows}, **options)
