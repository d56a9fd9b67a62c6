"""Rank resources by how well their names match a query.

A name is the better, the more of the question it covers, rare words counting more than frequent ones, and the less of
it the question leaves unsaid. A name, slug or id as it is comes first.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from fastn_mcp.procedures.find.query import (
    STOP,
    Match,
    SearchQuery,
    Span,
    alike,
    best_reading,
    better,
    nearest,
    parts,
    question,
    spans_of,
    units,
)

EXACT = 100
"""The score of a name, slug or id as it is. All others have less."""

FOUND = 45
"""The least score of what is shown as found."""

_HINTED = 0.75
"""What the name of a kind counts for a resource of that kind, in shares of its weight."""
_AROUND = 0.7
"""What a word counts that stands in the name of the customer or connector that a resource belongs to."""
_ONE_PART = 0.65
"""What is left of a score where only one part of a name such as `Acme Corp / HubSpot` was spoken of,
which means that part."""
_HINT_WEIGHT = 0.4
_UNKNOWN_WEIGHT = 0.5
_STOP_WEIGHT = 0.1
_NEARLY = 3
"""Points."""
_AGAINST_BEST = 30
"""Points below the best at which the rest is noise."""
_ID_LETTERS = 4

_NOTHING = (0, 0)


@dataclass(frozen=True, slots=True)
class NamedResource:
    """Something that can be found: its names, and those of what it belongs to."""

    kind: str
    id: str
    names: tuple[str, ...]
    around: tuple[str, ...] = ()
    title: str = ""
    """What it is called in an answer, where that is none of its names."""


@dataclass(frozen=True, slots=True)
class Hit:
    """`place` is that of the thing among all; `score` is 0-100."""

    place: int
    score: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """The best first; `ambiguous` says how many of the first are about equally good, 1 where one stands out."""

    hits: tuple[Hit, ...]
    ambiguous: int
    near: tuple[str, ...]
    """Names that are a little like it, where nothing was found."""
    words: tuple[str, ...]
    """What was looked for, the rarest first, without names of kinds."""
    lacking: tuple[str, ...]
    """What was looked for and does not stand in the best."""


@dataclass(frozen=True, slots=True)
class _NameWords:
    """One name of a thing, as words."""

    owner: int
    words: tuple[str, ...]
    whole: str
    parts: tuple[int, ...]
    """The bits of the words of each part."""


class Index:
    """All names, by their words."""

    def __init__(self, things: Sequence[NamedResource], order: Sequence[str]) -> None:
        """`order` is of kinds: of two equals, the one of the earlier kind comes first."""
        self._things = things
        self._order = {kind: number for number, kind in enumerate(order)}
        self._names: list[_NameWords] = []
        self._of: list[range] = []
        self._holding: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        """Word -> names, with the bits of the words there that it covers."""
        self._near: defaultdict[str, list[int]] = defaultdict(list)
        """Word -> things that belong to something with it in its name."""
        for place, thing in enumerate(things):
            first = len(self._names)
            for words, name in {tuple(parts(name)): name for name in reversed(thing.names)}.items():
                if words:
                    self._take(place, name)
            self._of.append(range(first, len(self._names)))
            for word in {word for name in thing.around for word, _ in units(name)}:
                self._near[word].append(place)
        self._ids = [thing.id.casefold() for thing in things]
        self._of_id: defaultdict[str, list[int]] = defaultdict(list)
        for place, own in enumerate(self._ids):
            self._of_id[own].append(place)
        self._vocabulary = list(self._holding.keys() | self._near.keys())
        self._mixed = len({thing.kind for thing in things}) > 1
        self._whole = math.log(1 + len(things)) or 1.0

    def rank(self, text: str) -> Ranking:
        """What `text` means."""
        asked = question(text, frozenset(self._holding))
        meant = {span: alike("".join(asked.words[slice(*span)]), self._vocabulary) for span in spans_of(asked.words)}
        weights = self._weights(asked, meant)
        scores = self._by_words(asked, meant, weights)
        for place, score in self._by_id(text):
            scores[place] = max(scores.get(place, _NOTHING), (score, ~0))
        hits = sorted((Hit(place, score) for place, (score, _) in scores.items()), key=self._rank)
        best = hits[0].score if hits else 0
        found = tuple(hit for hit in hits if hit.score >= max(FOUND, best - _AGAINST_BEST))
        within = 0 if best == EXACT else _NEARLY
        read = scores[found[0].place][1] if found else ~0
        rare = sorted(range(len(asked.words)), key=lambda place: -weights[place])
        return Ranking(
            found,
            sum(hit.score >= best - within for hit in found),
            () if found else self._alternatives(hits, text),
            tuple(dict.fromkeys(asked.words[place] for place in rare if not asked.hint(place))),
            tuple(word for place, word in enumerate(asked.words) if not read >> place & 1),
        )

    def _take(self, owner: int, name: str) -> None:
        number = len(self._names)
        split = parts(name)
        words = tuple(word for part in split for word in part)
        offsets = accumulate(map(len, split), initial=0)
        bits = tuple((1 << len(part)) - 1 << offset for part, offset in zip(split, offsets, strict=False))
        self._names.append(_NameWords(owner, words, "".join(words), bits))
        for unit, covered in units(name):
            self._holding[unit].append((number, covered))

    def _weights(self, asked: SearchQuery, meant: dict[Span, dict[str, float]]) -> list[float]:
        """What each word of the question counts."""
        weights: list[float] = []
        for place in range(len(asked.words)):
            around = [span for span in meant if span[0] <= place < span[1] and meant[span]]
            if not around:
                weights.append(_HINT_WEIGHT if asked.hint(place) else _UNKNOWN_WEIGHT)
                continue
            best = max(around, key=lambda span: (max(meant[span].values()), span[1] - span[0]))
            likest = max(meant[best].values())
            weight = self._rarity(unit for unit, sure in meant[best].items() if sure > likest - 0.01)
            weight /= best[1] - best[0]
            weights.append(min(weight, _HINT_WEIGHT) if asked.hint(place) else weight)
        return weights

    def _rarity(self, units: Iterable[str]) -> float:
        """From 1 for what stands in one name to nearly 0 for what stands in all."""
        count = sum(len(self._holding.get(unit, ())) + len(self._near.get(unit, ())) for unit in units)
        return max(0.05, math.log(1 + len(self._things) / max(count, 1)) / self._whole)

    def _by_words(
        self, asked: SearchQuery, meant: dict[Span, dict[str, float]], weights: list[float]
    ) -> dict[int, tuple[int, int]]:
        """The scores of all things that have something of the question in a name, with the bits of what they have."""
        scores: dict[int, tuple[int, int]] = {}
        for number, spans in self._matches(meant).items():
            name = self._names[number]
            kind = self._things[name.owner].kind
            hinting = [place for place in range(len(asked.words)) if kind in asked.hint(place)]
            for place in hinting:
                better(spans, (place, place + 1), _HINTED, 0)
            score = self._score(name, asked, spans, weights, hinted=bool(hinting))
            scores[name.owner] = max(scores.get(name.owner, _NOTHING), score)
        return scores

    def _matches(self, meant: dict[Span, dict[str, float]]) -> dict[int, dict[Span, Match]]:
        """What of the question stands in each name, or in that of what its owner belongs to."""
        matches: defaultdict[int, dict[Span, Match]] = defaultdict(dict)
        for span, likely in meant.items():
            for unit, sure in likely.items():
                for number, covered in self._holding.get(unit, ()):
                    better(matches[number], span, sure, covered)
                for place in self._near.get(unit, ()):
                    for number in self._of[place]:
                        better(matches[number], span, sure * _AROUND, 0)
        return matches

    def _score(
        self, name: _NameWords, asked: SearchQuery, spans: dict[Span, Match], weights: list[float], *, hinted: bool
    ) -> tuple[int, int]:
        if name.whole in asked.whole:
            return EXACT, ~0
        value, covered, read = best_reading(spans, weights)
        coverage = value / sum(weights)
        said = sum(self._own_weight(word) for bit, word in enumerate(name.words) if covered >> bit & 1)
        precision = said / (sum(map(self._own_weight, name.words)) or 1.0)
        first = 0.01 if covered & 1 else 0.0
        score = 100 * coverage * (0.83 + 0.16 * precision + first)
        if self._mixed and not hinted and len(name.parts) > 1:
            score *= 1.0 if sum(covered & part != 0 for part in name.parts) > 1 else _ONE_PART
        return min(EXACT - 1, round(score)), read

    def _own_weight(self, word: str) -> float:
        return _STOP_WEIGHT if word in STOP else self._rarity((word,))

    def _by_id(self, text: str) -> Iterable[tuple[int, int]]:
        """Things whose id, or a part of it, stands in the text."""
        asked = [word.strip(".,;!?\"'()").casefold() for word in text.split()]
        # Letters alone stand in many ids by chance, and `wf_` stands in each.
        asked = [word for word in asked if len(word) >= _ID_LETTERS and (any(map(str.isdigit, word)) or "_" in word)]
        whole = text.strip().casefold()
        for exact in {whole, *asked} - {""}:
            yield from ((place, EXACT) for place in self._of_id.get(exact, ()))
        for word in asked:
            for place, own in enumerate(self._ids):
                if word in own:
                    yield place, 90 if own.startswith(word) else 70

    def _rank(self, hit: Hit) -> tuple[int, int, str, str]:
        thing = self._things[hit.place]
        return -hit.score, self._order.get(thing.kind, len(self._order)), thing.names[0].casefold(), thing.id

    def _alternatives(self, hits: Sequence[Hit], text: str) -> tuple[str, ...]:
        titles = {thing.names[0]: thing.title or thing.names[0] for thing in self._things}
        likely = [self._things[hit.place].names[0] for hit in hits[:3] if hit.score >= FOUND / 2]
        return tuple(dict.fromkeys(titles[name] for name in likely or nearest(text, list(titles), 3)))
