"""Words of a question against words of a name, either of which may be run together: `hub spot`, `acmecorp`. Pure."""

from collections.abc import Sequence
from functools import lru_cache

from fastn_mcp.procedures.words import parts

JOINED = 3
"""Words that may be one without their spaces."""

Span = tuple[int, int]
"""The first word of a question and the one after the last, which are read as one."""

Match = tuple[float, int]
"""How sure it is that a span means words of a name, from 0 to 1, and the bits of these words."""


@lru_cache(maxsize=32_768)
def units(name: str) -> tuple[tuple[str, int], ...]:
    """The words of a name and their joins, each with the bits of the words that it covers."""
    found: list[tuple[str, int]] = []
    offset = 0
    for part in parts(name):
        for first, last in spans_of(part):
            found.append(("".join(part[first:last]), ((1 << last - first) - 1) << offset + first))
        offset += len(part)
    return tuple(found)


def spans_of(words: Sequence[str]) -> list[Span]:
    size = len(words)
    return [(first, last) for first in range(size) for last in range(first + 1, min(first + JOINED, size) + 1)]


def better(spans: dict[Span, Match], span: Span, sure: float, covered: int) -> None:
    if span not in spans or (sure, covered) > spans[span]:
        spans[span] = (sure, covered)


def best_reading(spans: dict[Span, Match], weights: list[float]) -> tuple[float, int, int]:
    """The most that the words of a question say of a name, each read once; the bits of the words that both have."""
    best: list[tuple[float, int, int]] = [(0.0, 0, 0)]
    for end in range(1, len(weights) + 1):
        most = best[end - 1]
        for first in range(max(0, end - JOINED), end):
            if (match := spans.get((first, end))) is not None:
                value, covered, read = best[first]
                value += match[0] * sum(weights[first:end])
                most = max(most, (value, covered | match[1], read | (1 << end) - (1 << first)))
        best.append(most)
    return best[-1]
