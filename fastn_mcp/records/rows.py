"""Fields of Fastn's rows, read tolerantly: each may be missing, null, of another type or in another spelling.

Field names are given in camelCase and match snake_case too; `connector.name` is `name` in the object `connector`.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, JsonValue
from pydantic.alias_generators import to_snake

Row = Mapping[str, JsonValue]

_MAX_NAME = 80
_MAX_NUMBER = 2**53
_NUMBER = re.compile(r"[+-]?(\d{1,20}|\d{1,3}(,\d{3}){1,6})(\.\d{1,20})?", re.ASCII)
_UTC = re.compile(r"\s*(UTC|GMT)$")
_BASIC_DATE = re.compile(r"\d{8}", re.ASCII)
_FIRST_EPOCH = 1e8
"""Unix seconds. A smaller number (before 1973) is not a timestamp; 0 means never."""
_FIRST_MILLISECONDS = 1e11
"""From here on a number is in milliseconds: as seconds it would be in the year 5138 or later."""
_CONNECTION_PARTS = (6, 7)
_SEPARATORS = re.compile(r"[\s_-]+")


class FastnObject(BaseModel):
    """A response of Fastn. Unknown fields are kept, as the documentation has no schemas."""

    model_config = ConfigDict(extra="allow", frozen=True, defer_build=True)

    columns: ClassVar[tuple[str, ...]] = ()
    """Fields of a concise list, by Fastn's names. Empty for any plain ones."""
    added_columns: ClassVar[tuple[str, ...]] = ()
    """Those of them that the server adds: Fastn's own records do not have them."""
    never: ClassVar[tuple[str, ...]] = ()
    """Times whose absence means never, such as the time of a last use."""
    shape: ClassVar[tuple[tuple[str, str], ...]] = ()
    """Fields that are ours, with their JSON types, for the output schema. Empty for Fastn's own records."""

    @classmethod
    def kept(cls, row: dict[str, JsonValue]) -> dict[str, JsonValue]:
        """Return the fields of a row from Fastn that may be stored and shown; here all of them."""
        return row


def row_of(record: FastnObject | None) -> dict[str, JsonValue]:
    """Return the fields that Fastn sent; empty if there is no record."""
    return {} if record is None else record.model_dump(exclude_unset=True)


def value(row: Row, *fields: str) -> JsonValue:
    """Return the first of these fields that is not null."""
    for field in fields:
        item = _at(row, field)
        if item is not None:
            return item
    return None


def text(row: Row, *fields: str) -> str:
    """Return the first of these fields that is non-blank text or a number, as text; empty if none is."""
    for field in fields:
        item = _at(row, field)
        if isinstance(item, str):
            if item and not item.isspace():
                return item
        elif isinstance(item, (int, float)) and not isinstance(item, bool):
            return str(item)
    return ""


def word(row: Row, *fields: str) -> str:
    """Return `text` as `as_word` does."""
    return as_word(text(row, *fields))


def as_word(content: str) -> str:
    """Normalize the value of an enum: `Not Published` and `NOT_PUBLISHED` are both `not published`."""
    return _SEPARATORS.sub(" ", content.strip().lower())


def number(row: Row, *fields: str) -> float | None:
    """Return the first of these fields that is a number or numeric text."""
    for field in fields:
        item = _number(_at(row, field))
        if item is not None:
            return item
    return None


def timestamp(row: Row, *fields: str) -> datetime | None:
    """Return the first of these fields that is a timestamp, in UTC."""
    for field in fields:
        time = parse_timestamp(_at(row, field))
        if time is not None:
            return time
    return None


def parse_timestamp(raw: object) -> datetime | None:
    """Parse ISO 8601 (UTC if no zone is given), Unix seconds or milliseconds to UTC. None if it is not a timestamp."""
    try:
        # No number has a hyphen in the fifth place.
        if isinstance(raw, str) and (raw[4:5] == "-" or _BASIC_DATE.fullmatch(raw.strip()) or _number(raw) is None):
            parsed = _iso(raw)
            parsed = parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
            return parsed.astimezone(UTC) if parsed.year > 1 else None  # some languages write year 1 for never
        seconds = _number(raw)
        if seconds is None or seconds < _FIRST_EPOCH:
            return None
        return datetime.fromtimestamp(seconds / 1000 if seconds >= _FIRST_MILLISECONDS else seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _iso(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return datetime.fromisoformat(_UTC.sub("Z", text.strip().upper()))


def inside(row: Row, field: str) -> Row:
    """Return the object in a field; empty if there is none."""
    item = _at(row, field)
    return item if isinstance(item, dict) else {}


def objects(row: Row, field: str) -> list[Row]:
    """Return the objects in a list field."""
    items = _at(row, field)
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else []


def key_of(row: Row) -> str:
    """Return the id of a row; empty if it has none."""
    return text(row, "id")


def owner_of(row: Row) -> str | None:
    """Return the id of the customer that owns a row; None if your own account does."""
    return text(row, "endOrgId", "customerId", "customer.id", "endOrg.id") or None


def connection_refers(id_: str) -> dict[str, JsonValue]:
    """Return the environment and the ids of connector and customer in a connection's id, as the fields of its row.

    The id is `ucl:org:environment:connector:authentication:customer`, perhaps with `:name`; empty if it is not.
    """
    parts = id_.split(":")
    if len(parts) not in _CONNECTION_PARTS:
        return {}
    owner = None if parts[5] == "default" else parts[5]
    return {"environment": parts[2], "connectorId": parts[3], "endOrgId": owner}


def started_workflows(trigger: Row) -> list[str]:
    """Return the ids of the workflows that a trigger starts."""
    keys = (text(route, "routeId", "workflowId") for route in objects(trigger, "routes"))
    return [key for key in dict.fromkeys(keys) if key]


def apps_of_customers(workflow: Row) -> list[Row]:
    """Return the apps of a workflow to which each customer connects an account of its own."""
    return [app for app in objects(workflow, "connectors") if word(app, "scope") == "multi tenant"]


def connector_keys(row: Row) -> set[str]:
    """Return the slug and id of a connection's connector, as far as the row has them."""
    fields = ("connectorId", "connectorSlug", "connector.slug", "connector.id")
    keys = {text(row, field) for field in fields}
    keys.discard("")
    return keys


def short(content: str, longest: int = _MAX_NAME) -> str:
    """Collapse whitespace to one line and truncate it to `longest` characters."""
    line = " ".join(content.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def without_empty(row: Row) -> dict[str, JsonValue]:
    """Return the fields that are neither null nor an empty text or list."""
    return {name: item for name, item in row.items() if item not in (None, "", [])}


def _at(row: Row, path: str) -> JsonValue:
    item: JsonValue | Row = row
    for camel, snake in _spellings(path):
        if not isinstance(item, (dict, Mapping)):  # the second check alone is slow
            return None
        there = item.get(camel)
        item = item.get(snake) if there is None else there
    return item  # pyright: ignore[reportReturnType] - a path has at least one part


@lru_cache(maxsize=1024)
def _spellings(path: str) -> tuple[tuple[str, str], ...]:
    return tuple((part, to_snake(part)) for part in path.split("."))


def _number(raw: object) -> float | None:
    parsed: object = raw
    if isinstance(raw, str):
        digits = raw.strip().removesuffix("%").rstrip()
        if _NUMBER.fullmatch(digits):
            digits = digits.replace(",", "")
            parsed = float(digits) if "." in digits else int(digits)
    if isinstance(parsed, (int, float)) and not isinstance(parsed, bool) and abs(parsed) <= _MAX_NUMBER:
        return parsed
    return None
