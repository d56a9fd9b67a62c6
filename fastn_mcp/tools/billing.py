"""Tools for billing: plan, usage and quotas."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import JsonValue
from pydantic_core import to_json
from typing_extensions import override

from fastn_mcp.records.rows import FastnObject, row_of
from fastn_mcp.tools.operation import GET, INFERRED, Operation
from fastn_mcp.tools.paging import PageCursor, Position
from fastn_mcp.tools.tool import NOT_SENT, Effect

_PAGE = 50
"""Maximum number of customers on a page of the usage."""

_MAX_BYTES = 6_000
"""Maximum size of a page's customers as JSON, which an answer has room for."""


class GetBilling(Operation[FastnObject]):
    """Get plan, price and AI credits."""

    route = GET("/api/v1/billing")
    effect = Effect.READ
    evidence = INFERRED("api-reference, billing")


class GetUsage(Operation[FastnObject]):
    """Usage: events, API calls, AI credits; executions also by customer."""

    route = GET("/api/v1/billing/usage")
    effect = Effect.READ
    evidence = INFERRED("api-reference, billing")

    cursor: Annotated[PageCursor, NOT_SENT] = None

    @override
    def result(self, body: JsonValue) -> FastnObject:
        """Return the usage with a page of its list of customers, which Fastn sends whole."""
        usage = row_of(super().result(body))
        start = 0 if self.cursor is None else Position.decode(self.cursor).skip
        lists = {name: rows for name, rows in usage.items() if isinstance(rows, list)}
        count, page = _page(lists, start)
        if any(len(rows) > start + count for rows in lists.values()):
            usage["next_cursor"] = Position(skip=start + count).encode()
        return FastnObject.model_validate(usage | page)


def _page(lists: Mapping[str, list[JsonValue]], start: int) -> tuple[int, dict[str, list[JsonValue]]]:
    """Return how many rows of each list fit on a page, at least one, and these rows."""
    page: dict[str, list[JsonValue]] = {}
    for count in range(_PAGE, 0, -1):
        page = {name: rows[start : start + count] for name, rows in lists.items()}
        if len(to_json(page)) <= _MAX_BYTES:
            return count, page
    return 1, page


class GetQuotas(Operation[FastnObject]):
    """How much of the plan's limits is left. At a Hard Block new work is refused; nothing is charged."""

    route = GET("/api/v1/billing/quotas")
    effect = Effect.READ
    evidence = INFERRED("api-reference, billing")
