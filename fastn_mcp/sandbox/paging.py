"""Lists: filters, order and pages. Pure."""

import base64
from datetime import UTC, datetime
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.sandbox.behaviour import Paging
from fastn_mcp.sandbox.reply import Refusal, invalid
from fastn_mcp.sandbox.state import Row, moment
from fastn_mcp.tools.listing import List

_SEARCHED = ("name", "slug", "id", "email", "description")
_TIMES = ("createdAt", "timestamp")


def newest_first(rows: list[Row]) -> list[Row]:
    """By the time of making; of two from the same moment, the later one first."""
    return sorted(rows, key=_time)[::-1]


def matching(rows: list[Row], call: List[Any]) -> list[Row]:
    """The rows that the filters of `call` let through."""
    for name in type(call).model_fields.keys() - {"limit", "cursor"}:
        wanted: str | None = getattr(call, name)
        if wanted is None:
            continue
        if name == "search":
            rows = [row for row in rows if wanted.casefold() in _text(row)]
        elif name == "since":
            begin = _instant(name, wanted)
            rows = [row for row in rows if moment(_time(row)) >= begin]
        elif name == "until":
            end = _instant(name, wanted)
            rows = [row for row in rows if moment(_time(row)) < end]
        else:
            wire = call.wire(name)
            rows = [row for row in rows if str(_value(row, wire)).casefold() == wanted.casefold()]
    return rows


def page(rows: list[Row], limit: int, query: dict[str, str], paging: Paging) -> tuple[list[Row], Row]:
    """One page, and what stands beside it. Raises `Refusal`."""
    if paging is Paging.IGNORED:
        return rows, {}
    start = _after(rows, query["cursor"]) if "cursor" in query else _offset(query.get("offset", "0"))
    cut = rows[start : start + limit]
    around: Row = {}
    if paging in (Paging.TOTAL, Paging.TOTAL_AND_CURSOR):
        around |= {"total": len(rows), "limit": limit, "offset": start}
    if paging in (Paging.CURSOR, Paging.TOTAL_AND_CURSOR):
        more = bool(cut) and start + limit < len(rows)
        around["nextCursor"] = _cursor(cut[-1]) if more else None
    return cut, around


def _cursor(row: Row) -> str:
    return base64.urlsafe_b64encode(f"after {row['id']}".encode()).decode()


def _after(rows: list[Row], cursor: str) -> int:
    for number, row in enumerate(rows, 1):
        if _cursor(row) == cursor:
            return number
    raise Refusal(400, "VALIDATION_ERROR", "cursor: not a cursor of this list")


def _offset(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise invalid("offset", "not a whole number of rows")
    return int(text)


def _time(row: Row) -> str:
    return str(next((row[name] for name in _TIMES if name in row), ""))


def _instant(name: str, text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise invalid(name, "not a time in ISO 8601") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _text(row: Row) -> str:
    return " ".join(str(row[name]) for name in _SEARCHED if row.get(name) is not None).casefold()


def _value(row: Row, wire: str) -> JsonValue:
    if wire == "resourceId":
        return cast(Row, row["resource"])["id"]
    return row.get(wire)
