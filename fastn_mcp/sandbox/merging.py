"""Runs that the state keeps and runs of the history in one list, newest first. Pure.

Of two runs from the same moment the kept one comes first.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence

from fastn_mcp.sandbox.history import History
from fastn_mcp.sandbox.past import milliseconds
from fastn_mcp.sandbox.state import Row, moment


class Merged:
    """`kept` are newest first, `numbers` are runs of the history in its order. `shown` is how a list shows a row."""

    def __init__(
        self, kept: Sequence[Row], history: History, numbers: Sequence[int], shown: Callable[[Row], Row]
    ) -> None:
        self._kept = kept
        self._history = history
        self._numbers = numbers
        self._shown = shown
        # For each kept row how many runs of the history come before it.
        self._before = [self._newer(milliseconds(moment(str(row["createdAt"])))) for row in kept]
        self._places = [place + before for place, before in enumerate(self._before)]

    def __len__(self) -> int:
        return len(self._kept) + len(self._numbers)

    def cut(self, start: int, end: int) -> Iterator[Row]:
        return (self._shown(self._row(place)) for place in range(start, min(end, len(self))))

    def place(self, key: str) -> int | None:
        for row, place in zip(self._kept, self._places, strict=True):
            if row["id"] == key:
                return place
        number = self._history.number(key)
        if number is None:
            return None
        at = bisect_left(self._numbers, number)
        if at == len(self._numbers) or self._numbers[at] != number:
            return None
        rank = len(self._numbers) - 1 - at
        return rank + bisect_right(self._before, rank)

    def _newer(self, when: int) -> int:
        return len(self._numbers) - bisect_right(self._numbers, when, key=self._history.begun.__getitem__)

    def _row(self, place: int) -> Row:
        kept = bisect_left(self._places, place)
        if kept < len(self._places) and self._places[kept] == place:
            return self._kept[kept]
        return self._history.row(self._numbers[len(self._numbers) - 1 - (place - kept)])
