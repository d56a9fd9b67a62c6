"""Lists: a bounded page whatever Fastn honours. Pure: no I/O.

Nothing is known of Fastn's pagination and filters, so they are sent, and then applied to what came back.
"""

import base64
import hashlib
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeGuard, cast

from pydantic import Field, JsonValue, field_validator
from pydantic_core import to_json

from fastn_mcp.operation import Item, Operation, Page, Request, Route
from fastn_mcp.tools.fields import Cursor, Limit

_NEXT = ("nextCursor", "next_cursor", "nextPageToken", "next", "cursor")
_TOTAL = ("total", "totalCount", "total_count", "count")
_ROWS = ("data", "items", "results")


class Listed(Page[Item], Generic[Item]):
    """A page, with the filters of which the rows show nothing, so that nobody could apply them here."""

    not_checked: Annotated[list[str] | None, Field(description="Filters that the rows could not confirm.")] = None


class List(Operation[Listed[Item]], Generic[Item]):
    """What every list takes."""

    limit: Limit = 20
    cursor: Cursor = None

    @field_validator("cursor")
    @classmethod
    def _readable(cls, cursor: str | None) -> str | None:
        if cursor is not None:
            _Position.decode(cursor)
        return cursor

    def request(self, route: Route | None = None) -> Request:
        request = super().request(route)
        request.query.pop("cursor", None)
        position = _Position.decode(self.cursor)
        if position.cursor is not None:
            request.query["cursor"] = position.cursor
        elif position.offset:
            request.query["offset"] = position.offset
        return request

    def result(self, body: JsonValue) -> Listed[Item]:
        position = _Position.decode(self.cursor)
        rows, around = _rows(body)
        if position.before and _mark(rows) == position.before:
            rows = []  # no offset was taken: these rows were shown already
        fresh = rows[position.skip :]
        total = next((v for k in _TOTAL if _is_count(v := around.get(k))), None)
        matching, unchecked = self._filtered(fresh)
        page = matching[: self.limit]
        following = _following(position, self.limit, len(rows), len(fresh), fresh, page, around, total)
        values: dict[str, Any] = {
            "items": page,
            "next_cursor": following,
            "total": total,
            "not_checked": unchecked or None,
        }
        return cast(Listed[Item], type(self).returns.model_validate(values))

    def _filtered(self, rows: list[dict[str, JsonValue]]) -> tuple[list[dict[str, JsonValue]], list[str]]:
        wanted = {
            name: value
            for name in type(self).model_fields
            if name not in ("limit", "cursor") and (value := getattr(self, name)) is not None
        }
        kept: list[dict[str, JsonValue]] = []
        unchecked: set[str] = set()
        for row in rows:
            answers = {name: _matches(row, name, self.wire(name), value) for name, value in wanted.items()}
            if False not in answers.values():
                kept.append(row)
                unchecked |= {name for name, answer in answers.items() if answer is None}
        return kept, sorted(unchecked)


class _Position:
    """Where a page begins: Fastn's own cursor or an offset, and how many rows of that answer were shown already.

    `before` tells the page before, so that a server that takes no offset and answers the same rows again is noticed.
    """

    def __init__(self, cursor: str | None = None, offset: int = 0, skip: int = 0, before: str = "") -> None:
        self.cursor, self.offset, self.skip, self.before = cursor, offset, skip, before

    def encode(self) -> str:
        parts = [self.cursor, self.offset, self.skip, self.before]
        return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str | None) -> "_Position":
        if text is None:
            return cls()
        try:
            cursor, offset, skip, before = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            if not (cursor is None or isinstance(cursor, str)) or min(int(offset), int(skip)) < 0:
                raise ValueError
            if cursor is not None:
                cursor.encode()  # a lone surrogate could not be sent
            return cls(cursor, int(offset), int(skip), str(before))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError("not a next_cursor of an earlier page") from error


def _rows(body: JsonValue) -> tuple[list[dict[str, JsonValue]], dict[str, JsonValue]]:
    """The rows of an answer, and what stood around them."""
    if isinstance(body, list):
        return [row if isinstance(row, dict) else {"value": row} for row in body], {}
    if isinstance(body, dict):
        lists = [v for k, v in body.items() if isinstance(v, list) and (k in _ROWS or all(map(_is_object, v)))]
        if lists:
            around = dict(body)
            for nested in ("pagination", "meta", "page"):
                if isinstance(more := body.get(nested), dict):
                    around |= more
            return _rows(lists[0])[0], around
        return ([body] if body else []), {}
    return ([] if body is None else [{"value": body}]), {}


def _is_count(value: JsonValue) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_object(value: JsonValue) -> bool:
    return isinstance(value, dict)


def _following(
    position: _Position,
    limit: int,
    received: int,
    new: int,
    fresh: list[dict[str, JsonValue]],
    page: list[dict[str, JsonValue]],
    around: dict[str, JsonValue],
    total: int | None,
) -> str | None:
    if page and page[-1] is not fresh[-1] and len(page) == limit:
        # More rows lie in the same answer than were asked for.
        shown = next(number for number, row in enumerate(fresh, 1) if row is page[-1])
        return _Position(position.cursor, position.offset, position.skip + shown).encode()
    theirs = next((v for k in _NEXT if isinstance(v := around.get(k), str) and v), None)
    if theirs is not None:
        return _Position(cursor=theirs).encode()
    reached = position.offset + received
    more = reached < total if total is not None else received == limit
    if new and position.cursor is None and received <= limit and more:
        return _Position(offset=reached, before=_mark(fresh)).encode()
    return None


def _mark(rows: list[dict[str, JsonValue]]) -> str:
    """What tells a page by its first row."""
    return hashlib.sha256(to_json(rows[0])).hexdigest()[:12] if rows else ""


def _matches(row: dict[str, JsonValue], name: str, wire: str, wanted: object) -> bool | None:
    """Whether the row has the wanted value; None where it does not say."""
    if name == "search":
        return str(wanted).casefold() in " ".join(map(str, _searched(row))).casefold()
    if name in ("since", "until"):
        time = next((v for k in _TIMES if isinstance(v := row.get(k), str)), None)
        there, bound = _moment(time), _moment(wanted)
        if there is None or bound is None:
            return None
        return there >= bound if name == "since" else there < bound
    for key in (wire, name):
        value = row.get(key)
        if isinstance(value, (str, int)):
            return str(value).casefold() == str(wanted).casefold()
    return None


def _moment(text: object) -> datetime | None:
    """A time as ISO 8601 writes it; UTC where it names no zone."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_TIMES = ("createdAt", "startedAt", "timestamp", "created_at", "started_at")


def _searched(row: dict[str, JsonValue]) -> Iterable[JsonValue]:
    return (row.get(key) for key in ("name", "slug", "id", "email", "description") if row.get(key) is not None)
