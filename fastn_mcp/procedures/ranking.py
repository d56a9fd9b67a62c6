"""Rank resources by how well their names match a query.

A query's word matches a name's word if it is equal to it, is a prefix or part of it, or differs in a few letters but in
no digit: `order2` is not `order3`. A name scores higher the more of the query it covers, as rare words weigh more than
frequent ones, and the fewer words it has besides. An exact name, slug or id comes first.
"""

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from fastn_mcp.fastn.directory import Entry

LONGEST_NAME = 200
"""Maximum number of characters of a name that are indexed."""

MOST_WORDS = 12
"""Maximum number of words of a query that are searched for."""

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_POSSESSIVE = re.compile(r"['\u2019]s\b")
_BREAK = re.compile(r"[\W_]+")
_PART = re.compile(r"\s[/|>]\s")
_WHEN = re.compile(
    r"\b(last|this|past|previous)\s+(night|morning|afternoon|evening|weekend|week|month|year|day|hour)\b", re.IGNORECASE
)
"""Times such as "last week". Their words may occur in a name with another meaning."""

_STOP = """
a an the this that these those of for from in into on at to by with and or is are was were be been do does did not no
why what which who whom whose when where how has have had can could should would will may might it its i me my we us
our you your they their there please show tell give find look see get about called named name id if so any all just
again still
"""
_CIRCUMSTANCES = """
last night yesterday today tomorrow morning evening week month day hour now recent recently latest fail failed fails
failing failure error errors broken broke break breaks stop stopped stuck wrong happened happen problem issue working
work works run runs ran running fix check list up times timed timing timeout out slow slowly hang hangs crash crashed
"""

STOP = frozenset(_STOP.split())
"""Words that say nothing about the resource."""

CIRCUMSTANCES = frozenset(_CIRCUMSTANCES.split())
"""Words about what happened, ignored unless a name contains them."""

_KIND_WORDS = {
    "workflow": "workflow flow sync automation integration pipeline job",
    "customer": "customer tenant account client company",
    "connector": "connector app integration",
    "connection": "connection credential",
    "trigger": "trigger schedule scheduler webhook cron",
    "user": "user person colleague member",
    "role": "role permission",
    "api_key": "key",
    "secret": "secret token",
}
"""Words that name a kind. They are searched for in names too."""

KINDS: dict[str, frozenset[str]] = {
    word: frozenset(kind for kind, names in _KIND_WORDS.items() if word in names.split())
    for words in _KIND_WORDS.values()
    for word in words.split()
}

ORDER = ("customer", "workflow", "connector", "connection", "trigger", "user", "role", "api_key", "secret")
"""Order of kinds with equal scores."""

EXACT = 100
"""Score of an exact name, slug or id; all other scores are lower."""

FOUND = 45
"""Lowest score of a match."""

_HINTED = 0.75
"""Share of its weight that a kind's name counts for resources of that kind."""
_OWNED = 0.7
"""Share of its weight that a word counts in the name of the resource's customer or connector."""
_ONE_PART = 0.65
"""Factor for names such as `Acme Corp / HubSpot` of which the query mentions one part, and so means that part."""
_HINT_WEIGHT = 0.4
_UNKNOWN_WEIGHT = 0.5
_STOP_WEIGHT = 0.1
_NEARLY = 3
"""Points below the best that count as equally good."""
_AGAINST_BEST = 30
"""Points below the best at which matches are dropped."""
_ID_LETTERS = 4
_LEAST_PART = 4
"""Minimum length of a word that may match inside others; two in scripts with a letter per syllable or word."""
_JOINED = 3
"""Maximum number of words that match as one, without the spaces."""

Span = tuple[int, int]
"""Words of a query read as one: position of the first, and of the one after the last."""

Match = tuple[float, int]
"""Confidence from 0 to 1 that a span means words of a name, and a bit mask of those words."""


@dataclass(frozen=True, slots=True)
class NamedResource:
    """Searchable resource: its names, and those of its customer and connector."""

    entry: Entry
    names: tuple[str, ...]
    owners: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hit:
    """Matching resource; `score` is 0-100."""

    entry: Entry
    score: int


@dataclass(frozen=True, slots=True)
class Ranking:
    """Matches, best first; `ambiguous` is how many of the first are about equally good, 1 if one stands out."""

    hits: tuple[Hit, ...]
    ambiguous: int
    near: tuple[str, ...]
    """Similar names, if nothing was found."""
    words: tuple[str, ...]
    """The words searched for, rarest first, without names of kinds."""
    lacking: tuple[str, ...]
    """The words searched for that the best match lacks."""


def kinds(word: str) -> frozenset[str]:
    """Return the kinds that a word names."""
    return KINDS.get(word) or KINDS.get(word.removesuffix("s")) or frozenset()


@lru_cache(maxsize=32_768)
def parts(text: str) -> tuple[tuple[str, ...], ...]:
    """Split a name into words by part, without case and accents: `Acme Corp / HubSpot` is (acme corp) (hub spot)."""
    decomposed = unicodedata.normalize("NFKD", text[:LONGEST_NAME])
    plain = "".join(letter for letter in decomposed if not unicodedata.combining(letter))
    split = (_BREAK.split(_CAMEL.sub(" ", part)) for part in _PART.split(_POSSESSIVE.sub("", plain)))
    return tuple(words for part in split if (words := tuple(word.casefold() for word in part if word)))


@lru_cache(maxsize=32_768)
def units(name: str) -> tuple[tuple[str, int], ...]:
    """Return the words of a name and their joins, each with the bit mask of the words that it covers."""
    found: list[tuple[str, int]] = []
    offset = 0
    for part in parts(name):
        found += [
            ("".join(part[first:last]), ((1 << last - first) - 1) << offset + first) for first, last in _spans(part)
        ]
        offset += len(part)
    return tuple(found)


def _spans(words: Sequence[str]) -> list[Span]:
    size = len(words)
    return [(first, last) for first in range(size) for last in range(first + 1, min(first + _JOINED, size) + 1)]


def _similar(word: str, others: Sequence[str]) -> dict[str, float]:
    """Return the words of `others` that `word` may mean, with the confidence from 0 to 1."""
    from rapidfuzz.distance import OSA  # imported late: only searches need it
    from rapidfuzz.process import extract

    size = len(word)
    found: dict[str, float] = {}
    for other in others if size > 1 else ():
        if other.startswith(word):
            found[other] = 0.65 + 0.3 * size / len(other)
        elif word in other and size >= (_LEAST_PART if word.isascii() else 2):
            found[other] = 0.5 + 0.3 * size / len(other)
    close = extract(word, others, scorer=OSA.normalized_similarity, score_cutoff=0.6, limit=None)
    for other, similarity, _ in close:
        longer = max(size, len(other))
        edits = round((1 - similarity) * longer)
        # Letters that may be wrong, missing, added or swapped with the next.
        allowed = 0 if longer < 4 else 1 if longer < 6 else 2 if longer < 10 else 3
        if not edits:
            found[other] = 1.0
        elif word.rstrip("s") == other.rstrip("s"):
            found[other] = 0.97
        elif edits <= allowed and _digits(word) == _digits(other):
            found[other] = max(found.get(other, 0.0), similarity if word[0] == other[0] else similarity - 0.05)
    return found


def _digits(word: str) -> str:
    return "".join(filter(str.isdigit, word))


def _keep_better(spans: dict[Span, Match], span: Span, match: Match) -> None:
    spans[span] = max(spans.get(span, match), match)


def _best_reading(spans: dict[Span, Match], weights: list[float]) -> tuple[float, int, int]:
    """Return the best value of the query's words for a name, each used once, and the bit masks of the common words."""
    best: list[tuple[float, int, int]] = [(0.0, 0, 0)]
    for end in range(1, len(weights) + 1):
        most = best[end - 1]
        for first in range(max(0, end - _JOINED), end):
            if (match := spans.get((first, end))) is not None:
                value, covered, read = best[first]
                value += match[0] * sum(weights[first:end])
                most = max(most, (value, covered | match[1], read | (1 << end) - (1 << first)))
        best.append(most)
    return best[-1]


@dataclass(frozen=True, slots=True)
class _NameWords:
    """Words of one name of a resource; `parts` are bit masks of the words of each part."""

    place: int
    words: tuple[str, ...]
    parts: tuple[int, ...]


class Index:
    """Index of all names by their words."""

    def __init__(self, resources: Sequence[NamedResource]) -> None:
        self._resources = resources
        self._names: list[_NameWords] = []
        self._names_of: list[range] = []
        self._holding: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        """Word -> names, with the bit mask of the words that it covers there."""
        self._owned: defaultdict[str, list[int]] = defaultdict(list)
        """Word -> resources whose customer or connector has it in its name."""
        for place, resource in enumerate(resources):
            first = len(self._names)
            for split, name in {parts(name): name for name in reversed(resource.names)}.items():
                if split:
                    self._add(place, split, name)
            self._names_of.append(range(first, len(self._names)))
            for word in {word for name in resource.owners for word, _ in units(name)}:
                self._owned[word].append(place)
        self._ids = [resource.entry.id.casefold() for resource in resources]
        self._vocabulary = list(self._holding.keys() | self._owned.keys())
        self._mixed = len({resource.entry.kind for resource in resources}) > 1
        self._whole = math.log(1 + len(resources)) or 1.0

    def _add(self, place: int, split: Sequence[Sequence[str]], name: str) -> None:
        offsets = accumulate(map(len, split), initial=0)
        bits = tuple((1 << len(part)) - 1 << offset for part, offset in zip(split, offsets, strict=False))
        for unit, covered in units(name):
            self._holding[unit].append((len(self._names), covered))
        self._names.append(_NameWords(place, tuple(word for part in split for word in part), bits))

    def rank(self, query: str) -> Ranking:
        """Rank the resources that `query` may mean."""
        all_words = [word for part in parts(_WHEN.sub(" ", query)) or parts(query) for word in part]
        meaningful = [word for word in all_words if word not in STOP]
        subject = [word for word in meaningful if word not in CIRCUMSTANCES or word in self._holding]
        words = (subject or meaningful or all_words)[:MOST_WORDS]
        meant = {span: _similar("".join(words[slice(*span)]), self._vocabulary) for span in _spans(words)}
        weights = self._weights(words, meant)
        scores = self._by_words(words, meant, weights, {"".join(all_words), "".join(words)})
        for place, score in self._by_id(query):
            scores[place] = max(scores.get(place, (0, 0)), (score, ~0))
        ranked = sorted(scores, key=lambda place: self._rank(place, scores[place][0]))
        hits = [Hit(self._resources[place].entry, scores[place][0]) for place in ranked]
        best = hits[0].score if hits else 0
        found = tuple(hit for hit in hits if hit.score >= max(FOUND, best - _AGAINST_BEST))
        read = scores[ranked[0]][1] if found else ~0
        rarest = sorted(range(len(words)), key=lambda place: -weights[place])
        return Ranking(
            found,
            sum(hit.score >= best - (0 if best == EXACT else _NEARLY) for hit in found),
            () if found else self._alternatives(hits, query),
            tuple(dict.fromkeys(words[place] for place in rarest if not kinds(words[place]))),
            tuple(word for place, word in enumerate(words) if not read >> place & 1),
        )

    def _weights(self, words: Sequence[str], meant: dict[Span, dict[str, float]]) -> list[float]:
        """Return the weight of each word of the query."""
        weights: list[float] = []
        for place, word in enumerate(words):
            readings = [span for span in meant if span[0] <= place < span[1] and meant[span]]
            if not readings:
                weights.append(_HINT_WEIGHT if kinds(word) else _UNKNOWN_WEIGHT)
                continue
            best = max(readings, key=lambda span: (max(meant[span].values()), span[1] - span[0]))
            surest = max(meant[best].values())
            weight = self._rarity(unit for unit, sure in meant[best].items() if sure > surest - 0.01)
            weight /= best[1] - best[0]
            weights.append(min(weight, _HINT_WEIGHT) if kinds(word) else weight)
        return weights

    def _rarity(self, words: Iterable[str]) -> float:
        """Return the rarity of words: 1 if one name contains them, nearly 0 if all do."""
        count = sum(len(self._holding.get(word, ())) + len(self._owned.get(word, ())) for word in words)
        return max(0.05, math.log(1 + len(self._resources) / max(count, 1)) / self._whole)

    def _by_words(
        self, words: Sequence[str], meant: dict[Span, dict[str, float]], weights: list[float], whole: set[str]
    ) -> dict[int, tuple[int, int]]:
        """Return the score of each resource with a matching name, and a bit mask of the query's words that it has."""
        matches: defaultdict[int, dict[Span, Match]] = defaultdict(dict)
        for span, likely in meant.items():
            for unit, sure in likely.items():
                for number, covered in self._holding.get(unit, ()):
                    _keep_better(matches[number], span, (sure, covered))
                for place in self._owned.get(unit, ()):
                    for number in self._names_of[place]:
                        _keep_better(matches[number], span, (sure * _OWNED, 0))
        scores: dict[int, tuple[int, int]] = {}
        for number, spans in matches.items():
            name = self._names[number]
            kind = self._resources[name.place].entry.kind
            hints = [place for place, word in enumerate(words) if kind in kinds(word)]
            for place in hints:
                _keep_better(spans, (place, place + 1), (_HINTED, 0))
            score = (
                (EXACT, ~0) if "".join(name.words) in whole else self._score(name, spans, weights, hinted=bool(hints))
            )
            scores[name.place] = max(scores.get(name.place, (0, 0)), score)
        return scores

    def _score(
        self, name: _NameWords, spans: dict[Span, Match], weights: list[float], *, hinted: bool
    ) -> tuple[int, int]:
        value, covered, read = _best_reading(spans, weights)
        own = [_STOP_WEIGHT if word in STOP else self._rarity((word,)) for word in name.words]
        precision = sum(weight for bit, weight in enumerate(own) if covered >> bit & 1) / (sum(own) or 1.0)
        coverage = value / sum(weights)
        score = 100 * coverage * (0.83 + 0.16 * precision + (0.01 if covered & 1 else 0.0))
        if self._mixed and not hinted and len(name.parts) > 1 and sum(covered & part != 0 for part in name.parts) < 2:
            score *= _ONE_PART
        return min(EXACT - 1, round(score)), read

    def _by_id(self, query: str) -> Iterable[tuple[int, int]]:
        """Yield the position and score of each resource whose id, or a part of it, is in the query."""
        words = [word.strip(".,;!?\"'()").casefold() for word in query.split()]
        # Plain letters match many ids by chance, and `wf_` matches every workflow.
        words = [word for word in words if len(word) >= _ID_LETTERS and (any(map(str.isdigit, word)) or "_" in word)]
        whole = {query.strip().casefold(), *words} - {""}
        for place, own in enumerate(self._ids):
            if own in whole:
                yield place, EXACT
            elif contained := [word for word in words if word in own]:
                yield place, 90 if any(map(own.startswith, contained)) else 70

    def _rank(self, place: int, score: int) -> tuple[int, int, str, str]:
        resource = self._resources[place]
        return -score, ORDER.index(resource.entry.kind), resource.names[0].casefold(), resource.entry.id

    def _alternatives(self, hits: Sequence[Hit], query: str) -> tuple[str, ...]:
        """Return names that may have been meant."""
        from rapidfuzz.fuzz import ratio
        from rapidfuzz.process import extract

        likely = [hit.entry.name for hit in hits[:3] if hit.score >= FOUND / 2]
        if not likely:
            names = {resource.names[0]: resource.entry.name for resource in self._resources}
            close = extract(query, list(names), scorer=ratio, processor=str.casefold, score_cutoff=55, limit=3)
            likely = [names[name] for name, _, _ in close]
        return tuple(dict.fromkeys(likely))
