"""Moments as Fastn writes them: ISO 8601, or Unix seconds or milliseconds. Pure."""

from collections.abc import Mapping
from datetime import UTC, datetime

from pydantic import JsonValue

_MILLISECONDS = 1e11
"""More than that, and a number of seconds would lie in the year 5138."""


def moment(value: JsonValue) -> datetime | None:
    """The moment, UTC where it names no zone; None where the value is none."""
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return datetime.fromtimestamp(value / 1000 if value > _MILLISECONDS else value, UTC)
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except (ValueError, OverflowError, OSError):
        return None
    return found.replace(tzinfo=UTC) if found is not None and found.tzinfo is None else found


def first_moment(row: Mapping[str, JsonValue], *names: str) -> datetime | None:
    """The first of these fields that is a moment."""
    return next((found for name in names if (found := moment(row.get(name))) is not None), None)
