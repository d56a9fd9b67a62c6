"""Lists: limits, cursors and filters, applied here whether or not Fastn honours them.

Fastn's pagination and filters are not documented, so they are sent, and then applied to the response.
"""

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache, partial
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, Self, TypeVar, cast

from pydantic import AfterValidator, BeforeValidator, Field, JsonValue, SkipValidation, model_validator
from pydantic_core import to_json
from typing_extensions import override

from fastn_mcp.errors import first_few, nearest
from fastn_mcp.records.rows import FastnObject, Row, as_word, owner_of, parse_timestamp, text, timestamp, word
from fastn_mcp.tools.fields import Cursor, Known, Limit, Texts, in_words, joined, separated
from fastn_mcp.tools.operation import Operation, Request, Route
from fastn_mcp.tools.tool import NOT_SENT, UNLISTED, Effect

MAX_LIMIT = 100
"""Maximum number of rows requested per page."""

MAX_OBJECTS = 20
"""Maximum limit of a page whose rows are shown as objects; the default."""


class Position(NamedTuple):
    """Start of a page: Fastn's own cursor or an offset, and the number of rows from there that were shown already.

    `before` identifies the previous page, to detect a server that ignores the offset and sends the same rows again.
    `size` is the number of rows to request; 0 for the client's limit.
    """

    cursor: str | None = None
    offset: int = 0
    skip: int = 0
    before: str = ""
    size: int = 0

    def after(self, count: int) -> "Position":
        """Return the position after so many further rows."""
        return self._replace(skip=self.skip + count)

    def encode(self) -> str:
        return base64.urlsafe_b64encode(json.dumps(self).encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "Position":
        """Return the position in an encoded cursor. Raises ValueError if it is not valid."""
        try:
            cursor, *numbers, before, size = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            offset, skip = map(int, numbers)
            if not (cursor is None or isinstance(cursor, str)) or min(offset, skip) < 0 or not 0 <= int(size) <= 100:
                raise ValueError
            if cursor is not None:
                cursor.encode()  # a lone surrogate could not be sent
            return cls(cursor, offset, skip, before=str(before), size=int(size))
        except (ValueError, TypeError, OverflowError, RecursionError) as error:
            raise ValueError("not a next_cursor of an earlier page") from error


def _readable(cursor: str | None) -> str | None:
    if cursor is not None:
        Position.decode(cursor)
    return cursor


PageCursor = Annotated[Cursor, AfterValidator(_readable)]

Place = tuple[Position, int]
"""Where a row was: the start of its response, and its number from there. The next page starts `after` it."""

_START = Position()
_CREATED_FIELDS = ("createdAt", "startedAt", "timestamp")
"""Fields with the creation time of a row, the most reliable first."""


def created(row: Row) -> datetime | None:
    """Return the creation time of a row, as `since` and `until` compare it."""
    return timestamp(row, *_CREATED_FIELDS)


def created_newest_first(rows: Sequence[Row]) -> list[datetime] | None:
    """Return the creation times of rows; None unless all have one and the newest come first."""
    times = [*filter(None, map(created, rows))]
    return times if len(times) == len(rows) and all(map(datetime.__ge__, times, times[1:])) else None


APPLIED_HERE = object()
"""Marks a filter that is applied here only: nothing says that Fastn has such a one."""

EXPIRY_FIELDS = ("expiresAt", "expires")
"""Fields with an expiry; null or `never` if there is none."""

ExpiresBefore = Annotated[str | None, Field(description="ISO 8601; soonest first."), APPLIED_HERE]

ORDERS = {"expires_before": ("soonest first", EXPIRY_FIELDS), "under_way_minutes": ("longest first", _CREATED_FIELDS)}
"""Filters by which a list is sorted here: the order, and the fields with the time, earliest first."""


def expires_before(row: Row, wanted: str) -> bool | None:
    """Match what expires before a time, or has expired."""
    at = timestamp(row, *EXPIRY_FIELDS)
    if at and (bound := parse_timestamp(wanted)):
        return at < bound
    return False if at is None and any(name in row for name in EXPIRY_FIELDS) else None


_TIMES = ("since", "until", "expires_before")
"""Filters whose value is a time."""

NOT_A_TIME = "is not a time in ISO 8601, such as 2026-11-28T06:00:00Z"
"""Predicate for a value of such a filter that cannot be read."""


def values_of(choice: str) -> tuple[list[str], bool]:
    """Return the values of a filter with known ones, and whether they are excluded: `FAILED,EXPIRED` or `!A,!B`."""
    is_excluded = choice.strip().startswith("!")
    values = [value.strip() for value in choice.split(",")]
    if is_excluded:
        values = [value.removeprefix("!").strip() for value in values]
    return list(dict.fromkeys(values)), is_excluded


def _unknown_values(name: str, values: Sequence[str], known: tuple[str, ...]) -> list[str]:
    """Describe the unknown values of a filter: the first by name, the rest by number."""
    words = first_few(values, lambda value: f"unknown value {value[:64]!r}{nearest(value, known)}")
    return [f"{name}: {each}; use one of {in_words(known)}" for each in words]


_SEARCHED_FIELDS = ("name", "slug", "id", "email", "description", "externalRef", "adminEmail", "domain")


Match = Callable[[Row, Any], bool | None]
"""Whether a row matches the value of a filter; None if the row does not tell."""

Condition = Callable[[Row], bool | None]
"""Whether a row matches a filter; None if the row does not tell."""


def condition(name: str, wire: str, wanted: object) -> Condition:
    """Return the condition of a filter that is compared with the field of its name."""
    if name == "search":
        return partial(_contains, str(wanted).casefold())
    if name in ("since", "until"):
        return partial(_is_within, name, parse_timestamp(wanted))
    if name.endswith("_id"):
        return partial(_has_id, (wire, name, name.replace("_id", ".id")), str(wanted).casefold())
    return partial(_has_word, wire, as_word(str(wanted)))


def _contains(wanted: str, row: Row) -> bool:
    searched = (str(row[key]) for key in _SEARCHED_FIELDS if row.get(key) is not None)
    return wanted in " ".join(searched).casefold()


def _is_within(name: str, bound: datetime | None, row: Row) -> bool | None:
    at = created(row)
    if at is None or bound is None:
        return None
    return at >= bound if name == "since" else at < bound


def _has_id(names: tuple[str, ...], wanted: str, row: Row) -> bool | None:
    owner = owner_of(row) if "customer_id" in names else None
    id_ = owner or text(row, *names)
    return id_.casefold() == wanted if id_ or names[0] in row else None  # an empty one is wanted where none is


def _has_word(wire: str, wanted: str, row: Row) -> bool | None:
    content = word(row, wire)
    if not wanted:
        return is_empty(row, wire)
    return content == wanted if content else None


def is_empty(row: Row, *fields: str) -> bool | None:
    """Return whether a row has nothing in these fields, which an empty filter wants; None if it lacks them all."""
    if text(row, *fields):
        return False
    return True if any(field in row for field in fields) else None


_CURSOR_FIELDS = ("nextCursor", "next_cursor", "nextPageToken", "next", "cursor")
_TOTAL = ("total", "totalCount", "total_count", "count")
_ROWS = ("data", "items", "results")

CONCISE = "concise"
FULL = "full"


def _detail(detail: str | None) -> str | None:
    if detail not in (None, CONCISE, FULL):
        raise ValueError(f"must be {CONCISE} or {FULL}")
    return detail


Detail = Annotated[str | None, Field(description="concise or full."), AfterValidator(_detail), NOT_SENT, UNLISTED]
MAX_FIELDS = 100
"""Maximum number of fields that an answer is asked for."""


def _few(names: list[str] | None) -> list[str] | None:
    if names is not None and len(names) > MAX_FIELDS:
        raise ValueError(f"{len(names)} values; at most {MAX_FIELDS} are accepted")
    return names


Fields = Annotated[
    Texts | None,
    BeforeValidator(separated),
    AfterValidator(_few),
    Field(description="Only these."),
    NOT_SENT,
    UNLISTED,
]

R = TypeVar("R", bound=Row)
Item = TypeVar("Item", bound=FastnObject)


class Listed(FastnObject):
    """A page of a list as it was read. It can be cut at any row and continued from there."""

    rows: SkipValidation[list[dict[str, JsonValue]]]
    """The rows as they were parsed, since making objects of them takes longer than parsing them."""
    next_cursor: Annotated[str | None, Field(description="Give it as `cursor` to read on.")] = None
    total: Annotated[int | None, Field(description="How many there are in all, if Fastn says so.")] = None
    not_checked: Annotated[list[str] | None, Field(description="Filters that the rows could not confirm.")] = None
    places: SkipValidation[list[Place]] = Field(default=[], exclude=True)
    received: int = Field(default=0, exclude=True)
    """Number of rows that Fastn sent for it, including rows that do not match."""


class List(Operation[Listed], Generic[Item]):
    """Base class of lists, with their common arguments."""

    effect = Effect.READ
    matching: ClassVar[Mapping[str, Match]] = {}
    """Filters that are compared with other fields than the one of their name."""

    limit: Limit = 20
    cursor: PageCursor = None
    fields: Fields = None
    detail: Detail = None

    @model_validator(mode="before")
    @classmethod
    def _join_values(cls, raw: object) -> object:
        """Take a list of values for each filter with known ones."""
        if not isinstance(raw, dict):
            return raw
        arguments = cast("dict[str, object]", raw)
        known = {name for name in arguments if name in cls.model_fields and cls.known_values(name)}
        return {name: joined(value) if name in known else value for name, value in arguments.items()}

    @property
    def is_table(self) -> bool:
        """Whether rows are shown as a table: columns once, rows as arrays. A few rows are read best as objects."""
        return self.limit > MAX_OBJECTS and self.detail != FULL

    @classmethod
    @cache
    def row_type(cls) -> type[FastnObject]:
        """Return the type of the rows."""
        return super()._result_type()

    @classmethod
    @override
    def _result_type(cls) -> type[FastnObject]:
        return Listed

    @property
    def position(self) -> Position:
        """Position at which the page starts."""
        return _START if self.cursor is None else Position.decode(self.cursor)

    @override
    def request(self, route: Route | None = None) -> Request:
        request = super().request(route)
        for name in ("cursor", *self.applied_here()):
            request.query.pop(self.wire(name), None)
        position = self.position
        request.query["limit"] = position.size or self.limit
        if position.cursor is not None:
            request.query["cursor"] = position.cursor
        elif position.offset:
            request.query["offset"] = position.offset
        return request

    def wider(self, cursor: str, limit: int) -> Self:
        """Return the list from `cursor` on, with `limit` rows, read in the largest pages."""
        position = Position.decode(cursor)._replace(size=MAX_LIMIT)
        return self.model_copy(update={"cursor": position.encode(), "limit": limit})

    def applied_here(self) -> list[str]:
        """Return the names of the filters that are not sent, such as several values in one, or an empty one."""
        return [
            name
            for name, value in self.filters.items()
            if value == ""
            or APPLIED_HERE in type(self).model_fields[name].metadata
            or (self.known_values(name) and values_of(value) != ([value], False))
        ]

    @classmethod
    def known_values(cls, name: str) -> tuple[str, ...]:
        """Return the known values of a filter; empty if any text may be one."""
        metadata = cls.model_fields[name].metadata
        return next((known.values for known in metadata if isinstance(known, Known)), ())

    @property
    def statuses(self) -> Sequence[str]:
        """Known statuses that the list can be read by, one after the other; empty if one request asks for all."""
        values, is_excluded = values_of(getattr(self, "status", None) or "")
        if is_excluded:
            return [value for value in self.known_values("status") if as_word(value) not in map(as_word, values)]
        return values if len(values) > 1 else ()

    def unknown(self, rows: Sequence[Row]) -> list[str]:
        """Describe the filters with a value that is not known and none of these rows has, or that is not a time."""
        texts = {name: self.filters[name] for name in _TIMES if self.filters.get(name) is not None}
        times = {name: parse_timestamp(value) for name, value in texts.items()}
        problems = [f"{name}: {texts[name][:64]!r} {NOT_A_TIME}" for name, at in times.items() if at is None]
        begin = times.get("since")
        end = times.get("until")
        if begin and end and begin >= end:
            problems.append(f"since: it is not before {texts['until'][:64]}, so nothing can match")
        for name, choice in self.filters.items():
            known = self.known_values(name)
            plain = set(map(str.casefold, known))
            unknown = [
                value
                for value in values_of(str(choice))[0]
                if plain
                and value
                and value.casefold() not in plain
                and not any(map(self._condition_of(name, value), rows))
            ]
            problems += _unknown_values(name, unknown, known)
        return problems

    @override
    def result(self, body: JsonValue) -> Listed:
        position = self.position
        rows, around = rows_of(body)
        if position.before and mark(rows) == position.before:
            rows = []  # the offset was ignored: these rows were shown already
        fresh = rows[position.skip :]
        total = next(
            (n for n in map(around.get, _TOTAL) if isinstance(n, int) and n is not True and 0 <= n < 2**53), None
        )
        matching, unchecked = self.matching_rows(fresh)
        page = matching[: self.limit]
        start = position._replace(size=position.size or self.limit)
        following = start.after(page[-1][0]) if len(matching) > len(page) else None
        if following is None:
            following = _following(position, start.size, len(rows), fresh=fresh, around=around, total=total)
        kept = self.row_type().kept
        return Listed(
            rows=[kept(row) for _, row in page],
            places=[(start, number) for number, _ in page],
            received=len(rows),
            next_cursor=following and following.encode(),
            # A total that counts rows which do not match, or may not, would mislead.
            total=total if len(matching) == len(fresh) and not unchecked else None,
            not_checked=unchecked or None,
        )

    def _condition(self, name: str, wanted: Any) -> Condition:
        values, is_excluded = values_of(wanted) if self.known_values(name) else ([wanted], False)
        conditions = [self._condition_of(name, value) for value in values]
        if len(conditions) == 1 and not is_excluded:
            return conditions[0]

        def matches(row: Row) -> bool | None:
            answers = {each(row) for each in conditions}
            return (True in answers) is not is_excluded if answers != {None} else None

        return matches

    def _condition_of(self, name: str, value: Any) -> Condition:
        compare = type(self).matching.get(name)
        if compare:
            return lambda row: compare(row, value)
        return condition(name, self.wire(name), value)

    def matching_rows(
        self, rows: Iterable[R], filters: Mapping[str, Any] | None = None
    ) -> tuple[list[tuple[int, R]], list[str]]:
        """Return the numbered rows that match, and the filters that could not be checked. By default, all filters."""
        filters = self.filters if filters is None else filters
        conditions = [(name, self._condition(name, value)) for name, value in filters.items()]
        if not conditions:
            return list(enumerate(rows, 1)), []
        matching = list[tuple[int, R]]()
        unchecked = set[str]()
        for number, row in enumerate(rows, 1):
            unknown: list[str] = []
            for name, matches in conditions:
                answer = matches(row)
                if answer is False:
                    break
                if answer is None:
                    unknown.append(name)
            else:
                matching.append((number, row))
                unchecked.update(unknown)
        return matching, sorted(unchecked)


def rows_of(body: JsonValue) -> tuple[list[dict[str, JsonValue]], dict[str, JsonValue]]:
    """Return the rows of a response, and the fields around them."""
    around: dict[str, JsonValue] = {}
    if isinstance(body, dict):
        lists = [v for k, v in body.items() if isinstance(v, list) and (k in _ROWS or _are_objects(v))]
        if not lists:
            is_empty = not body or ("id" not in body and any(body.get(name, ...) is None for name in _ROWS))
            return ([] if is_empty else [body]), {}
        around = dict(body)
        for nested in ("pagination", "meta", "page"):
            more = body.get(nested)
            if isinstance(more, dict):
                around |= more
        body = lists[0]
    if isinstance(body, list):
        return [row if isinstance(row, dict) else {"value": row} for row in body], around
    return ([] if body is None else [{"value": body}]), {}


def _are_objects(values: list[JsonValue]) -> bool:
    return all(isinstance(value, dict) for value in values)


def _following(
    position: Position,
    requested: int,
    received: int,
    fresh: list[dict[str, JsonValue]],
    around: dict[str, JsonValue],
    total: int | None,
) -> Position | None:
    """Return the start of the next response; None if there is none."""
    cursors = map(around.get, _CURSOR_FIELDS)
    cursor = next((each for each in cursors if isinstance(each, str) and each), None)
    if cursor is not None:
        return Position(cursor=cursor)
    reached = position.offset + received
    more = reached < total if total is not None else received == requested
    if fresh and position.cursor is None and received <= requested and more:
        return Position(offset=reached, before=mark(fresh))
    return None


def mark(rows: list[dict[str, JsonValue]]) -> str:
    """Return a digest of the first row, which identifies a page."""
    return hashlib.sha256(to_json(rows[0])).hexdigest()[:12] if rows else ""
