"""The fields of Fastn's rows, read tolerantly: each may be missing, null, of another type or in another spelling.

Fields are named in camelCase and found in snake_case too; `connector.name` is the name in the object `connector`.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

from pydantic import JsonValue
from pydantic.alias_generators import to_snake

from fastn_mcp.tools.tool import FastnObject

Row = Mapping[str, JsonValue]

_LONGEST_NAME = 80
_LARGEST = 2**53
_NUMBER = re.compile(r"[+-]?(\d{1,20}|\d{1,3}(,\d{3}){1,6})(\.\d{1,20})?", re.ASCII)
_BASIC_DATE = re.compile(r"\d{8}", re.ASCII)
_FIRST_EPOCH = 1e8
"""Seconds: a smaller number, of before 1973, is no time of Fastn's; 0 stands for never."""
_FIRST_MILLISECONDS = 1e11
"""A number of seconds would lie in the year 5138 or later."""
_SEPARATORS = re.compile(r"[\s_-]+")


def row_of(record: FastnObject | None) -> dict[str, JsonValue]:
    """The fields that Fastn sent; none where there is no record."""
    return {} if record is None else record.model_dump(exclude_unset=True)


def value(row: Row, *fields: str) -> JsonValue:
    """The first of these fields that is not null."""
    return next((found for field in fields if (found := _at(row, field)) is not None), None)


def text(row: Row, *fields: str) -> str:
    """The first of these fields that is a text or a number, as text; empty where none is."""
    for field in fields:
        found = _at(row, field)
        if isinstance(found, (str, int, float)) and not isinstance(found, bool) and (said := str(found)).strip():
            return said
    return ""


def word(row: Row, *fields: str) -> str:
    """The same for an enum: `Not Published` and `NOT_PUBLISHED` are both `not published`."""
    return _SEPARATORS.sub(" ", text(row, *fields).strip().lower())


def number(row: Row, *fields: str) -> float | None:
    """The first of these fields that is a number, or a text that is one."""
    return next((found for field in fields if (found := _number(_at(row, field))) is not None), None)


def timestamp(row: Row, *fields: str) -> datetime | None:
    """The first of these fields that is a time, in UTC."""
    return next((found for field in fields if (found := parse_timestamp(_at(row, field))) is not None), None)


def parse_timestamp(given: object) -> datetime | None:
    """A time in UTC: ISO 8601 (UTC where it names no zone), Unix seconds or milliseconds. None if not a time."""
    try:
        if isinstance(given, str) and (_BASIC_DATE.fullmatch(given.strip()) or _number(given) is None):
            found = datetime.fromisoformat(re.sub(r"\s*(UTC|GMT)$", "Z", given.strip().upper()))
            found = found if found.tzinfo else found.replace(tzinfo=UTC)
            return found.astimezone(UTC) if found.year > 1 else None  # some languages write year 1 for never
        seconds = _number(given)
        if seconds is None or seconds < _FIRST_EPOCH:
            return None
        return datetime.fromtimestamp(seconds / 1000 if seconds >= _FIRST_MILLISECONDS else seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def inside(row: Row, field: str) -> Row:
    """The object in a field; empty where there is none."""
    found = _at(row, field)
    return found if isinstance(found, dict) else {}


def objects(row: Row, field: str) -> list[Row]:
    """The objects in a list."""
    found = _at(row, field)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def key_of(row: Row) -> str:
    """Its id; empty where it has none."""
    return text(row, "id")


def owner_of(row: Row) -> str | None:
    """Id of the customer that it belongs to; None where it is the account's own."""
    return text(row, "endOrgId", "customerId", "customer.id", "endOrg.id") or None


def started_workflows(trigger: Row) -> list[str]:
    """Ids of the workflows that a trigger starts."""
    keys = (text(route, "routeId", "workflowId") for route in objects(trigger, "routes"))
    return [key for key in dict.fromkeys(keys) if key]


def connector_keys(row: Row) -> set[str]:
    """Slug and id of the connector of a connection, as far as the row says them."""
    fields = ("connectorId", "connectorSlug", "connector.slug", "connector.id")
    return {said for field in fields if (said := text(row, field))}


def short(said: str, longest: int = _LONGEST_NAME) -> str:
    """One line, cut."""
    line = " ".join(said.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _at(row: Row, path: str) -> JsonValue:
    found: JsonValue | Row = row
    for camel, snake in _spellings(path):
        if not isinstance(found, Mapping):
            return None
        found = there if (there := found.get(camel)) is not None else found.get(snake)
    return found  # pyright: ignore[reportReturnType] - a path has at least one part


@lru_cache(maxsize=1024)
def _spellings(path: str) -> tuple[tuple[str, str], ...]:
    return tuple((part, to_snake(part)) for part in path.split("."))


def _number(given: object) -> float | None:
    found: object = given
    if isinstance(given, str) and _NUMBER.fullmatch(said := given.strip().removesuffix("%").rstrip()):
        said = said.replace(",", "")
        found = float(said) if "." in said else int(said)
    if isinstance(found, (int, float)) and not isinstance(found, bool) and abs(found) <= _LARGEST:
        return found
    return None
