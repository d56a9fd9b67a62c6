"""Filters, applied to rows here: nobody knows which ones Fastn honours. Pure."""

from collections.abc import Iterable
from datetime import UTC, datetime

from pydantic import JsonValue

TIMES = ("createdAt", "startedAt", "timestamp", "created_at", "started_at")
"""Fields that say when a row came to be, the surest first."""

_SEARCHED = ("name", "slug", "id", "email", "description", "externalRef", "adminEmail", "domain")


def matches(row: dict[str, JsonValue], name: str, wire: str, wanted: object) -> bool | None:
    """Whether the row has the wanted value; None where it does not say."""
    if name == "search":
        return str(wanted).casefold() in " ".join(map(str, _searched(row))).casefold()
    if name in ("since", "until"):
        time = next((v for k in TIMES if isinstance(v := row.get(k), str)), None)
        there, bound = moment(time), moment(wanted)
        if there is None or bound is None:
            return None
        return there >= bound if name == "since" else there < bound
    within = row.get(name.removesuffix("_id")) if name.endswith("_id") else None
    for value in (row.get(wire), row.get(name), within.get("id") if isinstance(within, dict) else None):
        if isinstance(value, (str, int)):
            return str(value).casefold() == str(wanted).casefold()
    return None


def moment(text: object) -> datetime | None:
    """A time as ISO 8601 writes it; UTC where it names no zone."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _searched(row: dict[str, JsonValue]) -> Iterable[JsonValue]:
    return (row.get(key) for key in _SEARCHED if row.get(key) is not None)
