"""Filters, order and pages of lists; stored runs and run history in one list."""

import base64
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

from pydantic_core import to_json
from typing_extensions import override

from fastn_mcp.sandbox.behaviour import Envelope, Paging, SandboxRefusal, invalid, wrapped
from fastn_mcp.sandbox.run_history import History, milliseconds
from fastn_mcp.sandbox.state import Row, moment
from fastn_mcp.tools.paging import List

_SEARCHED = ("name", "slug", "id", "email", "description")


class Rows:
    """All rows of a list, as `shown` shows each. A place is counted from 0."""

    def __init__(self, rows: Sequence[Row], shown: Callable[[Row], Row]) -> None:
        self._rows = rows
        self._shown = shown

    def __len__(self) -> int:
        return len(self._rows)

    def cut(self, start: int, end: int) -> Iterator[Row]:
        """The rows from `start` until before `end`, as far as there are any."""
        return map(self._shown, self._rows[start:end])

    def place(self, key: str) -> int | None:
        """Where the row with this id stands; None where the list does not have it."""
        return next((place for place, row in enumerate(self._rows) if str(row["id"]) == key), None)


def select(rows: list[Row], call: List[Any]) -> list[Row]:
    """The rows that the filters of `call` let through, newest first; of two from the same moment, the later one."""
    for name in type(call).model_fields.keys() - {"limit", "cursor"}:
        wanted: str | None = getattr(call, name)
        if wanted is None:
            continue
        match name:
            case "search":
                rows = [row for row in rows if wanted.casefold() in _text(row)]
            case "since":
                begin = instant(name, wanted)
                rows = [row for row in rows if moment(_time(row)) >= begin]
            case "until":
                end = instant(name, wanted)
                rows = [row for row in rows if moment(_time(row)) < end]
            case "resource_id":
                rows = [row for row in rows if str(row["resource"]["id"]).casefold() == wanted.casefold()]
            case _:
                field = call.wire(name)
                rows = [row for row in rows if str(row.get(field)).casefold() == wanted.casefold()]
    return sorted(rows, key=_time)[::-1]


def page(rows: Rows, limit: int, query: dict[str, str], paging: Paging) -> tuple[Iterable[Row], Row]:
    """One page, and what stands beside it. Raises `SandboxRefusal`."""
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
        raise SandboxRefusal(400, "VALIDATION_ERROR", "cursor: not a cursor of this list")
    return place + 1


def _offset(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise invalid("offset", "not a whole number of rows")
    return int(text)


def _time(row: Row) -> str:
    return str(row.get("createdAt") or row.get("timestamp") or "")


def instant(name: str, text: str) -> datetime:
    """The moment that a filter names. Raises `SandboxRefusal`."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise invalid(name, "not a time in ISO 8601") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _text(row: Row) -> str:
    return " ".join(str(row[name]) for name in _SEARCHED if row.get(name) is not None).casefold()


def list_body(envelope: Envelope, rows: Iterable[Row], around: Row) -> bytes:
    """The rows in their envelope, with what stands beside them."""
    # An envelope begins with the rows, so that the first empty list is where they go.
    head, tail = to_json(wrapped(envelope, [], around)).split(b"[]", 1)
    body = BytesIO()
    body.write(head + b"[")
    for number, row in enumerate(rows):
        body.write(b"," + to_json(row) if number else to_json(row))
    body.write(b"]" + tail)
    return body.getvalue()


class MergedRows(Rows):
    """Stored runs and runs of the history, newest first. Of two that began together the stored one comes first.

    `numbers` are runs of the history in its order.
    """

    def __init__(
        self, rows: Sequence[Row], shown: Callable[[Row], Row], history: History, numbers: Sequence[int]
    ) -> None:
        super().__init__(rows, shown)
        self._history = history
        self._numbers = numbers
        # For each stored row how many runs of the history come before it.
        self._before = [self._newer(milliseconds(moment(str(row["createdAt"])))) for row in rows]
        self._places = [place + before for place, before in enumerate(self._before)]

    @override
    def __len__(self) -> int:
        return len(self._rows) + len(self._numbers)

    @override
    def cut(self, start: int, end: int) -> Iterator[Row]:
        return (self._shown(self._row(place)) for place in range(start, min(end, len(self))))

    @override
    def place(self, key: str) -> int | None:
        for row, place in zip(self._rows, self._places, strict=True):
            if row["id"] == key:
                return place
        number = self._history.number(key)
        if number is None:
            return None
        at = bisect_left(self._numbers, number)
        if at == len(self._numbers) or self._numbers[at] != number:
            return None
        rank = len(self._numbers) - 1 - at
        return rank + bisect_right(self._before, rank)

    def _newer(self, when: int) -> int:
        return len(self._numbers) - bisect_right(self._numbers, when, key=self._history.begun.__getitem__)

    def _row(self, place: int) -> Row:
        kept = bisect_left(self._places, place)
        if kept < len(self._places) and self._places[kept] == place:
            return self._rows[kept]
        return self._history.row(self._numbers[len(self._numbers) - 1 - (place - kept)])
