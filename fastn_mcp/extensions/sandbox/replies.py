"""Replies of the sandbox: refusals, and pages of lists with their filters and order."""

import base64
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.client.exchange import Answer
from fastn_mcp.extensions.sandbox.state import Row, parse_stamp
from fastn_mcp.tools.paging import APPLIED_HERE, List

JSON = {"content-type": "application/json"}


class SandboxRefusal(Exception):
    """Refusal of a request, sent as an error response."""

    def __init__(
        self, status: int, code: str, message: str, details: JsonValue = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.headers = headers or {}

    def reply(self) -> Answer:
        error: dict[str, JsonValue] = {"code": self.code, "message": self.message}
        if self.details is not None:
            error["details"] = self.details
        seconds = self.headers.get("retry-after", "")
        if seconds.isdigit():
            error["retryAfter"] = int(seconds)
        return Answer(self.status, self.headers | JSON, to_json({"error": error}))


def not_allowed(method: str, allowed: Iterable[str]) -> SandboxRefusal:
    """Return the refusal for a path that exists, but not with this method."""
    headers = {"allow": ", ".join(sorted(set(allowed)))}
    return SandboxRefusal(405, "METHOD_NOT_ALLOWED", f"{method} is not allowed here", headers=headers)


def invalid(field: str, problem: str) -> SandboxRefusal:
    """Return the refusal of a field's value; `field` is its name on the wire."""
    return SandboxRefusal(422, "VALIDATION_ERROR", f"{field}: {problem}", [{"field": field, "problem": problem}])


def check_choice(field: str, value: object, choices: Collection[str]) -> None:
    """Raise the refusal of a value that is not one of the choices."""
    if value not in choices:
        raise invalid(field, f"one of {', '.join(choices)}")


def choice(field: str, text: str, choices: Collection[str]) -> str:
    """Return the choice that a text names in any case. Raises the refusal of another text."""
    chosen = next((each for each in choices if each.casefold() == text.casefold()), text)
    check_choice(field, chosen, choices)
    return chosen


def conflict(message: str, details: JsonValue = None) -> SandboxRefusal:
    return SandboxRefusal(409, "CONFLICT", message, details)


def not_found() -> SandboxRefusal:
    return SandboxRefusal(404, "NOT_FOUND", "The resource does not exist, or you do not have access.")


def forbidden(message: str) -> SandboxRefusal:
    return SandboxRefusal(403, "FORBIDDEN", message)


_SEARCHED_FIELDS = ("name", "slug", "id", "email", "description", "externalRef")


class Rows:
    """All rows of a list, rendered by `shown`. Positions count from 0."""

    def __init__(self, rows: Sequence[Row], shown: Callable[[Row], Row]) -> None:
        self._rows = rows
        self._shown = shown

    def __len__(self) -> int:
        return len(self._rows)

    def slice(self, start: int, end: int) -> Iterator[Row]:
        """Return the rows from `start` to before `end`."""
        return map(self._shown, self._rows[start:end])

    def position(self, key: str) -> int | None:
        """Return the position of the row with this id; None if it is not in the list."""
        return next((position for position, row in enumerate(self._rows) if str(row["id"]) == key), None)

    def count(self, field: str) -> Counter[Any]:
        """Count the rows by the value of a field."""
        return Counter(row[field] for row in reversed(self._rows))


def select(rows: list[Row], call: List[Any]) -> list[Row]:
    """Return the rows that match the filters of `call`, newest first; at equal times, the one stored last."""
    for name, wanted in call.filters.items():
        if APPLIED_HERE in type(call).model_fields[name].metadata:  # Fastn has no such filter
            continue
        match name:
            case "search":
                rows = [row for row in rows if wanted.casefold() in _text(row)]
            case "since":
                begin = instant(name, wanted)
                rows = [row for row in rows if parse_stamp(_time(row)) >= begin]
            case "until":
                end = instant(name, wanted)
                rows = [row for row in rows if parse_stamp(_time(row)) < end]
            case _:
                field = call.wire(name)
                rows = [row for row in rows if wanted.casefold() in _values(row, name, field)]
    return sorted(rows, key=_time)[::-1]


_NESTED = {
    "resource_id": ("resource", "id"),
    "workflow_id": ("routes", "routeId"),
    "connector_id": ("connectors", "slug"),
    "authentication": ("authMethods", "type"),
}
"""Filters of objects inside a row: their field, and the field in them."""


def _values(row: Row, name: str, field: str) -> list[str]:
    """Return what a row says about a filter, in lower case."""
    outer, inner = _NESTED.get(name, ("", ""))
    if outer not in row:
        return [] if row.get(field) is None else [str(row[field]).casefold()]
    objects: list[Row] = row[outer] if isinstance(row[outer], list) else [row[outer]]
    return [str(item[inner]).casefold() for item in objects]


def page(rows: Rows, limit: int, query: dict[str, str]) -> tuple[list[Row], Row]:
    """Return one page and its pagination fields. Raises `SandboxRefusal` for an invalid cursor or offset."""
    start = _after(rows, query["cursor"]) if "cursor" in query else _offset(query.get("offset", "0"))
    items = list(rows.slice(start, start + limit))
    more = bool(items) and start + limit < len(rows)
    cursor = _cursor(str(items[-1]["id"])) if more else None
    return items, {"total": len(rows), "limit": limit, "offset": start, "nextCursor": cursor}


def _cursor(key: str) -> str:
    return base64.urlsafe_b64encode(f"after {key}".encode()).decode()


def _after(rows: Rows, cursor: str) -> int:
    try:
        key = base64.urlsafe_b64decode(cursor).decode().removeprefix("after ")
    except ValueError:
        key = ""
    position = rows.position(key) if _cursor(key) == cursor else None
    if position is None:
        raise SandboxRefusal(400, "VALIDATION_ERROR", "cursor: not a cursor of this list")
    return position + 1


def _offset(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise invalid("offset", "not a whole number of rows")
    return int(text)


def _time(row: Row) -> str:
    return str(row.get("createdAt") or row.get("timestamp") or "")


def instant(field: str, text: str, problem: str = "not a time in ISO 8601") -> datetime:
    """Parse the time in a field, in UTC if it has no zone. Raises `SandboxRefusal`."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise invalid(field, problem) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _text(row: Row) -> str:
    return " ".join(str(row[name]) for name in _SEARCHED_FIELDS if row.get(name) is not None).casefold()
