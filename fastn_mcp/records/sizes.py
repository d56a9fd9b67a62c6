"""JSON values cut to a size in bytes, and how many rows of a list have room."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

from pydantic import JsonValue
from pydantic_core import to_json

from fastn_mcp.redaction import shorten

_LONGEST_TEXT = 8_000
"""Characters of a text, and entries of a list or an object, from which cutting begins."""

_T = TypeVar("_T")


def size_of(value: JsonValue) -> int:
    """Return the size of a value as JSON, in bytes."""
    return len(to_json(value))


def cut_to(value: JsonValue, budget: int) -> tuple[JsonValue, str]:
    """Cut a value until it fits into `budget` bytes. Return it with a sentence on what was cut."""
    if size_of(value) <= budget:
        return value, ""
    limit = _LONGEST_TEXT
    while limit > 1:
        limit //= 2
        cut = truncate(value, limit)
        if size_of(cut) <= budget:
            return cut, f"Texts are cut at {limit} characters, lists and objects at {limit} entries."
    # A character of JSON takes up to four bytes inside a JSON string.
    return truncate(to_json(value).decode(), max(budget // 4 - 40, 0)), "Only the beginning is here, as text."


def truncate(value: JsonValue, limit: int) -> JsonValue:
    """Cut texts to `limit` characters, and lists and objects to `limit` entries, at every depth."""
    if isinstance(value, str):
        return shorten(value, limit)
    if isinstance(value, list):
        included = [truncate(item, limit) for item in value[:limit]]
        return [*included, f"[{len(value) - limit} more]"] if len(value) > limit else included
    if isinstance(value, dict):
        entries = {shorten(name, limit): truncate(item, limit) for name, item in islice(value.items(), limit)}
        return entries | ({f"[{len(value) - limit} more]": None} if len(value) > limit else {})
    return value


def fitting_rows(
    rows: Iterable[tuple[_T, int]], *, count: int, budget: int, long_rows: int, cut_row: Callable[[_T, int], _T]
) -> tuple[list[_T], int]:
    """Return as many rows as fit into `budget` bytes, at least one, and how many of them were cut.

    `rows` have their size in bytes; there are `count` of them. Where not all fit, a row is cut to one share of the
    budget, of which there are `long_rows`, so that a long row does not fill the page. Later rows are not read.
    """
    share = budget // max(min(count, long_rows), 1)
    included: list[tuple[_T, int]] = []
    total = 0
    least = 0
    for row, size in rows:
        least += min(size + 1, share)
        if least > budget:
            break
        included.append((row, size + 1))
        total += size + 1
    if total <= budget:
        return [row for row, _ in included], 0
    fitted = [cut_row(row, share - 1) if size > share else row for row, size in included]
    return fitted, sum(size > share for _, size in included)
