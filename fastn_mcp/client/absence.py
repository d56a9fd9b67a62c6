"""Proof that a list has no row that a filter would find.

How Fastn filters is not documented. A row in a filtered answer exists. That there is none proves nothing by itself:
Fastn may not know the filter, compare letter case, or not look into the field. So the same filter also has to find a
row that is known to exist: by a text that only one field of it has, in another letter case, or by what it refers to.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic_core import to_json

from fastn_mcp.client.reads import read_page
from fastn_mcp.records.rows import Row, connection_refers, key_of, owner_of, text
from fastn_mcp.tools.operation import Send
from fastn_mcp.tools.paging import MAX_LIMIT, List

Filters = Mapping[str, str]
"""Filters of a list, by the names of its arguments."""

FiltersOf = Callable[[Row], Filters | None]
"""The filters that find a known row; None if there are none."""

MIN_FRAGMENT = 3
"""Minimum length in characters of a part of a text that is searched for in place of the whole."""


@dataclass(frozen=True, slots=True)
class FilteredRows:
    """The answer of a list to filters."""

    rows: Sequence[Row]
    is_filtered: bool
    """Whether Fastn sent no other row, so that it did not ignore the filters."""
    is_whole: bool
    """Whether there is no further page."""

    def has(self, row: Row) -> bool:
        return key_of(row) in map(key_of, self.rows)


@dataclass(frozen=True, slots=True)
class Control:
    """Filters that have to find a row that is known to exist."""

    filters: Filters
    row: Row

    @property
    def length(self) -> int:
        """Length of the filters in characters. The longest are the most selective."""
        return len("".join(self.filters.values()))


async def read_filtered(lister: Callable[..., List[Any]], filters: Filters, send: Send) -> FilteredRows:
    """Read the first page of what filters leave. Raises a `FastnError`, and `ValueError` for an invalid filter."""
    page = await read_page(lister(limit=MAX_LIMIT, **filters), send)
    is_filtered = page.received == len(page.rows) and not page.not_checked
    return FilteredRows(page.rows, is_filtered, is_whole=page.next_cursor is None)


async def finds_known_rows(lister: Callable[..., List[Any]], controls: Sequence[Control | None], send: Send) -> bool:
    """Return whether all controls find their rows. False without any, or if one could not be made."""
    for control in controls:
        if control is None:
            return False
        answer = await read_filtered(lister, control.filters, send)
        if not answer.is_filtered or not answer.has(control.row):
            return False
    return bool(controls)


def control_by(
    filters_of: FiltersOf, known: Iterable[Row], differs_from: Mapping[str, Any] | None = None
) -> Control | None:
    """Return the most selective control by a known row; None if no row makes one.

    `differs_from`: the filters that have found nothing, which prove nothing themselves.
    """
    candidates = ((filters_of(row), row) for row in known if key_of(row))
    controls = [Control(filters, row) for filters, row in candidates if filters is not None and filters != differs_from]
    return max(controls, key=lambda each: each.length, default=None)


def text_in_other_case(field: str) -> FiltersOf:
    """Return the search for the inner part of a field, in another letter case, unless another field has it too."""

    def filters_of(row: Row) -> Filters | None:
        content = row.get(field)
        if not isinstance(content, str) or not content.isascii():
            return None
        fragment = content.strip()[1:-1].strip()
        if len(fragment) < MIN_FRAGMENT or fragment.swapcase() == fragment:
            return None
        others = to_json({name: value for name, value in row.items() if name != field}).decode()
        return None if fragment.lower() in others.lower() else {"search": fragment.swapcase()}

    return filters_of


def references_of(*names: str) -> FiltersOf:
    """Return the filters of these names for a row's connector and customer; none if the row lacks one."""

    def filters_of(row: Row) -> Filters | None:
        fields = {**connection_refers(key_of(row)), **row}
        held = {"connector_id": text(fields, "connectorId", "connector.id"), "customer_id": owner_of(fields) or ""}
        filters = {name: held.get(name, "") for name in names}
        return filters if all(filters.values()) else None

    return filters_of
