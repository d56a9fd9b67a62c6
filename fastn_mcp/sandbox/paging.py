"""Lists: filters, order and pages. Pure."""

import base64
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, cast

from pydantic import JsonValue

from fastn_mcp.sandbox.behaviour import Paging
from fastn_mcp.sandbox.reply import Refusal, invalid
from fastn_mcp.sandbox.rows import Rows
from fastn_mcp.sandbox.state import Row, moment
from fastn_mcp.tools.listing import List

_SEARCHED = ("name", "slug", "id", "email", "description")


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
            begin = instant(name, wanted)
            rows = [row for row in rows if moment(_time(row)) >= begin]
        elif name == "until":
            end = instant(name, wanted)
            rows = [row for row in rows if moment(_time(row)) < end]
        else:
            wire = call.wire(name)
            rows = [row for row in rows if str(_value(row, wire)).casefold() == wanted.casefold()]
    return rows


def page(rows: Rows, limit: int, query: dict[str, str], paging: Paging) -> tuple[Iterable[Row], Row]:
    """One page, and what stands beside it. Raises `Refusal`."""
    if paging is Paging.IGNORED:
        return rows.cut(0, len(rows)), {}
    start = _after(rows, query["cursor"]) if "cursor" in query else _offset(query.get("offset", "0"))
    cut = list(rows.cut(start, start + limit))
    around: Row = {}
    if paging in (Paging.TOTAL, Paging.TOTAL_AND_CURSOR):
        around |= {"total": len(rows), "limit": limit, "offset": start}
    if paging in (Paging.CURSOR, Paging.TOTAL_AND_CURSOR):
        more = bool(cut) and start + limit < len(rows)
        around["nextCursor"] = _cursor(str(cut[-1]["id"])) if more else None
    return cut, around


def _cursor(key: str) -> str:
    return base64.urlsafe_b64encode(f"after {key}".encode()).decode()


def _after(rows: Rows, cursor: str) -> int:
    try:
        key = base64.urlsafe_b64decode(cursor).decode().removeprefix("after ")
    except ValueError:
        key = ""
    place = rows.place(key) if _cursor(key) == cursor else None
    if place is None:
        raise Refusal(400, "VALIDATION_ERROR", "cursor: not a cursor of this list")
    return place + 1


def _offset(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise invalid("offset", "not a whole number of rows")
    return int(text)


def _time(row: Row) -> str:
    return str(row.get("createdAt") or row.get("timestamp") or "")


def instant(name: str, text: str) -> datetime:
    """The moment that a filter names. Raises `Refusal`."""
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
