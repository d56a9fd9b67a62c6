"""The rows of a list, newest first, of which only those that are shown are made. Pure."""

from collections.abc import Callable, Iterator
from typing import Protocol

from fastn_mcp.sandbox.state import Row


class Rows(Protocol):
    """All rows of a list. A place is counted from 0."""

    def __len__(self) -> int: ...

    def cut(self, start: int, end: int) -> Iterator[Row]:
        """The rows from `start` until before `end`, as far as there are any."""
        ...

    def place(self, key: str) -> int | None:
        """Where the row with this id stands; None where the list does not have it."""
        ...


def _as_it_is(row: Row) -> Row:
    return row


class Kept:
    """Rows that the state keeps. `shown` is how a list shows one."""

    def __init__(self, rows: list[Row], shown: Callable[[Row], Row] = _as_it_is) -> None:
        self._rows = rows
        self._shown = shown

    def __len__(self) -> int:
        return len(self._rows)

    def cut(self, start: int, end: int) -> Iterator[Row]:
        return map(self._shown, self._rows[start:end])

    def place(self, key: str) -> int | None:
        return next((place for place, row in enumerate(self._rows) if str(row["id"]) == key), None)
