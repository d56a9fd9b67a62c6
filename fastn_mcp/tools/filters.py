"""Filters, applied to rows here: nobody knows which ones Fastn honours. Pure."""

from collections.abc import Iterable

from pydantic import JsonValue

from fastn_mcp.fastn.rows import owner_of, parse_timestamp, text, timestamp, word

_TIMES = ("createdAt", "startedAt", "timestamp")
"""Fields that say when a row came to be, the surest first."""

_SEARCHED = ("name", "slug", "id", "email", "description", "externalRef", "adminEmail", "domain")


def matches(row: dict[str, JsonValue], name: str, wire: str, wanted: object) -> bool | None:
    """Whether the row has the wanted value; None where it does not say."""
    if name == "search":
        return str(wanted).casefold() in " ".join(map(str, _searched(row))).casefold()
    if name in ("since", "until"):
        there, bound = timestamp(row, *_TIMES), parse_timestamp(wanted)
        if there is None or bound is None:
            return None
        return there >= bound if name == "since" else there < bound
    if name.endswith("_id"):
        owner = owner_of(row) if name == "customer_id" else None
        there, asked = owner or text(row, wire, name, name.replace("_id", ".id")), str(wanted)
        return there.casefold() == asked.casefold() if there else None
    there = word(row, wire)
    return there == word({wire: str(wanted)}, wire) if there else None


def _searched(row: dict[str, JsonValue]) -> Iterable[JsonValue]:
    return (row.get(key) for key in _SEARCHED if row.get(key) is not None)
