"""Rows of Fastn, read tolerantly: a field that is missing or of another type is None. Pure."""

from collections.abc import Iterable
from datetime import UTC, datetime

from pydantic import JsonValue

Row = dict[str, JsonValue]

_LONGEST = 80


def text(row: Row, *fields: str) -> str | None:
    """The first of the fields that holds a text or a number."""
    for field in fields:
        value = row.get(field)
        if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
            return str(value)
    return None


def word(row: Row, *fields: str) -> str:
    """The same for an enum: in small letters, empty where there is none."""
    return (text(row, *fields) or "").casefold()


def number(row: Row, *fields: str) -> float | None:
    """The first of the fields that holds a number."""
    for field in fields:
        value = row.get(field)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value
    return None


def moment(row: Row, *fields: str) -> datetime | None:
    """The first of the fields that holds a time in ISO 8601; UTC where it names no zone."""
    for field in fields:
        value = row.get(field)
        try:
            found = datetime.fromisoformat(value) if isinstance(value, str) else None
        except ValueError:
            continue
        if found is not None:
            return found if found.tzinfo else found.replace(tzinfo=UTC)
    return None


def inside(row: Row, field: str) -> Row:
    """The object in a field; empty where there is none."""
    value = row.get(field)
    return value if isinstance(value, dict) else {}


def objects(row: Row, field: str) -> list[Row]:
    """The objects in a list."""
    value = row.get(field)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def key_of(row: Row) -> str:
    return text(row, "id") or ""


def name_of(row: Row) -> str:
    return short(text(row, "name", "slug", "email", "id") or "")


def short(said: str, longest: int = _LONGEST) -> str:
    """One line, cut."""
    line = " ".join(said.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def listing(texts: Iterable[str], most: int = 3) -> str:
    """`a, b, c and 4 more`."""
    every = list(texts)
    said = ", ".join(every[:most])
    return f"{said} and {len(every) - most} more" if len(every) > most else said
