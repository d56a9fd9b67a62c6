"""Rank resources by how well their names match a query.

A query's word matches a name's word if it is equal to it, is a prefix or part of it, or differs in a few letters but in
no digit: `order2` is not `order3`. A name scores higher the more of the query it covers, as rare words weigh more than
frequent ones, and the fewer words it has besides. An exact name, slug or id comes first.
"""

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from fastn_mcp.account.directory import Entry

LONGEST_NAME = 200
"""Maximum number of characters of a name that are indexed."""

MOST_WORDS = 12
"""Maximum number of words of a query that are searched for."""

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_POSSESSIVE = re.compile(r"['\u2019]s\b")
_BREAK = re.compile(r"[\W_]+")
_ADDRESS = re.compile(r"([^\s@]*)@\S*")
"""An email address, of which only the part before the @ is read as words."""
_PLAIN = re.compile(r"[^\W\d_]*")
_WHEN = re.compile(
    r"\b(last|this|past|previous)\s+(night|morning|afternoon|evening|weekend|week|month|year|day|hour)\b", re.IGNORECASE
)
"""Times such as "last week". Their words may occur in a name with another meaning."""

_STOP = """
a an the this that these those of for from in into on at to by with and or is are was were be been do does did not no
why what which who whom whose when where how has have had can could should would will may might it its i me my we us
our you your they their there please show tell give find look see get about called named name id if so any all just
again still as whether so but
"""
_CIRCUMSTANCES = """
last night yesterday today tomorrow morning evening week month day hour now recent recently latest fail failed fails
failing failure error errors broken broke break breaks stop stopped stuck wrong happened happen problem issue working
work works run runs ran running fix check list up times timed timing timeout out slow slowly hang hangs crash crashed
change changed changes update create delete remove revoke rotate rename replace disable enable activate deactivate start
restart switch turn off set make add invite onboard offboard connect disconnect reconnect build use uses used using need
before after afterwards while first then only arrive arrives arrived arriving come comes coming missing active inactive
activated activation pending invited disabled draft drafts unpublished expired
"""

STOP = frozenset(_STOP.split())
"""Words that say nothing about the resource."""

CIRCUMSTANCES = frozenset(_CIRCUMSTANCES.split())
"""Words about what happened or is to be done, ignored unless a name contains them."""

_KIND_WORDS = {
    "workflow": "workflow flow sync automation integration pipeline job",
    "customer": "customer tenant account client company",
    "connector": "connector app integration",
    "connection": "connection credential",
    "trigger": "trigger schedule scheduler webhook cron pause paused resume every",
    "user": "user person colleague member",
    "role": "role permission",
    "api_key": "key apikey",
    "secret": "secret token",
}
"""Words that mean a kind, among them what is done with it only. They are searched for in names too."""

ORDER = ("customer", "workflow", "connector", "connection", "trigger", "user", "role", "api_key", "secret")
"""Order of kinds with equal scores."""

EXACT = 100
"""Score of an exact name, slug or id; all other scores are lower."""

FOUND = 45
"""Lowest score of a match."""

_HINTED = 0.75
"""Share of its weight that a kind's name counts for resources of that kind."""
OWNED, POSSIBLE = 0.7, 0.5
"""Share of its weight that a word counts in the name of what the resource belongs to, or may belong to."""
_HINT_WEIGHT = 0.4
_UNKNOWN_WEIGHT = 0.5
_STOP_WEIGHT = 0.1
_NEARLY = 3
"""Points below the best that count as equally good."""
_AGAINST_BEST = 30
"""Points below the best at which matches are dropped."""
_CLEAR = 90
_AGAINST_CLEAR = 15
"""The same if the best has at least `_CLEAR` points."""
PART = 15
"""Lowest score of a match that is one of several things in the query, as its name is in it as it is."""
_VERBATIM = 4
"""Points for a name that the query contains as it is."""
_MOST_NEAR = 3
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
    """Searchable resource: its names, and those of what it belongs to, each with the share of its weight."""

    entry: Entry
    names: tuple[str, ...]
    owners: Mapping[str, float] = field(default_factory=dict[str, float])


class Score(NamedTuple):
    """How well a name matches."""

    points: int = 0
    """0-100."""
    is_verbatim: bool = False
    """Whether the query contains the name as it is."""
    share: float = 0.0
    """Share of the name that the query has, from 0 to 1."""
    read: int = 0
    """Bit mask of the query's words that the name has."""

    def is_found(self, best: int, least: int) -> bool:
        least = min(PART, least) if self.is_verbatim else least
        return self.points >= max(least, best - (_AGAINST_CLEAR if best >= _CLEAR else _AGAINST_BEST))


@dataclass(frozen=True, slots=True)
class Hit:
    """Matching resource; `score` is 0-100."""

    entry: Entry
    score: int
    share: float
    """Share of its name that the query has, from 0 to 1."""
    lacking: tuple[str, ...]
    """The words searched for that it lacks, without those that mean a kind or what happened."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Matches, best first."""

    hits: tuple[Hit, ...]
    near: tuple[str, ...]
    """Similar names, if nothing was found."""
    words: tuple[str, ...]
    """The words searched for, rarest first, without names of kinds."""

    @property
    def leaders(self) -> tuple[Hit, ...]:
        """The matches that are about as good as the best."""
        best = self.hits[0].score if self.hits else 0
        return tuple(hit for hit in self.hits if hit.score >= best - (0 if best == EXACT else _NEARLY))


@lru_cache(maxsize=1024)
def kinds(word: str) -> frozenset[str]:
    """Return the kinds that a word names, in the singular or with an s."""
    singular = word.removesuffix("s")
    return frozenset(kind for kind, words in _KIND_WORDS.items() if {word, singular} & {*words.split()})


@lru_cache(maxsize=32_768)
def words_of(text: str) -> tuple[str, ...]:
    """Return the words of a name or a query, without case and accents: `HubSpot of Müller` is (hub spot of muller)."""
    return tuple(word.casefold() for word in _BREAK.split(_CAMEL.sub(" ", _without_accents(text))) if word)


@lru_cache(maxsize=32_768)
def _phrase(text: str) -> str:
    """Return a text in lower case, with one space around each of its words."""
    return f" {' '.join(filter(None, _BREAK.split(_without_accents(text).casefold())))} "


def _without_accents(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text[:LONGEST_NAME])
    return _POSSESSIVE.sub("", "".join(letter for letter in decomposed if not unicodedata.combining(letter)))


@lru_cache(maxsize=32_768)
def units(name: str) -> tuple[tuple[str, int], ...]:
    """Return the words of a name and their joins, each with the bit mask of the words that it covers."""
    words = words_of(name)
    return tuple(("".join(words[first:last]), (1 << last) - (1 << first)) for first, last in _spans(words))


def _spans(words: Sequence[str]) -> list[Span]:
    size = len(words)
    return [(first, last) for first in range(size) for last in range(first + 1, min(first + _JOINED, size) + 1)]


def _similar(words: Sequence[str], others: Sequence[str]) -> dict[str, float]:
    """Return the words of `others` that `words`, joined to one, may mean, with the confidence from 0 to 1."""
    from rapidfuzz.distance import OSA  # imported late: only searches need it
    from rapidfuzz.process import extract

    word = "".join(words)
    size = len(word)
    found: dict[str, float] = {}
    for other in others if size > 1 else ():
        place = other.find(word)
        if place < 0 or (word[-1].isdigit() and other[place + size : place + size + 1].isdigit()):
            continue  # key1 is not key14
        if not place:
            found[other] = 0.65 + 0.3 * size / len(other)
        elif size >= (_LEAST_PART if word.isascii() else 2):
            found[other] = 0.5 + 0.3 * size / len(other)
    close = extract(word, others, scorer=OSA.normalized_similarity, score_cutoff=0.6, limit=None)
    for other, similarity, _ in close:
        longer = max(size, len(other))
        edits = round((1 - similarity) * longer)
        # Letters that may be wrong, missing, added or swapped with the next.
        allowed = 0 if longer < 4 else 1 if longer < 6 or len(words) > 1 else 2 if longer < 10 else 3
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
class _Query:
    """Words of a query, the query as one phrase, and what a name equal to the whole query may be."""

    phrase: str
    words: Sequence[str]
    whole: set[str]


@dataclass(frozen=True, slots=True)
class _NameWords:
    """Words of one name of a resource."""

    place: int
    phrase: str
    words: tuple[str, ...]


class Index:
    """Index of all names by their words."""

    def __init__(self, resources: Sequence[NamedResource]) -> None:
        self._resources = resources
        self._names: list[_NameWords] = []
        self._names_of: list[range] = []
        self._holding: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        """Word -> names, with the bit mask of the words that it covers there."""
        self._owned: defaultdict[str, list[tuple[int, float]]] = defaultdict(list)
        """Word -> resources that belong to what has it in its name, and the share of its weight."""
        for place, resource in enumerate(resources):
            first = len(self._names)
            for words, name in {words_of(name): name for name in reversed(resource.names)}.items():
                for unit, covered in units(name):
                    self._holding[unit].append((len(self._names), covered))
                if words:
                    self._names.append(_NameWords(place, _phrase(name), words))
            self._names_of.append(range(first, len(self._names)))
            for name, share in resource.owners.items():
                for word in {word for word, _ in units(name)}:
                    self._owned[word].append((place, share))
        self._keys = [tuple(map(str.casefold, (it.entry.id, *it.entry.emails))) for it in resources]
        self._vocabulary = list(self._holding.keys() | self._owned.keys())
        self._whole = math.log(1 + len(resources)) or 1.0

    def rank(self, query: str, least: int = FOUND) -> Ranking:
        """Rank the resources that `query` may mean. `least` is the lowest score of a match."""
        plain = _ADDRESS.sub(r"\1 ", _WHEN.sub(" ", query))
        all_words = words_of(plain) or words_of(query)
        meaningful = [word for word in all_words if word not in STOP]
        subject = [word for word in meaningful if word not in CIRCUMSTANCES or word in self._holding]
        words = (subject or meaningful or all_words)[:MOST_WORDS]
        meant = {span: _similar(words[slice(*span)], self._vocabulary) for span in _spans(words)}
        weights = self._weights(words, meant)
        scores = self._by_words(_Query(_phrase(query), words, {"".join(all_words), "".join(words)}), meant, weights)
        for place, points in self._by_id(query):
            scores[place] = max(scores.get(place, Score()), Score(points, True, 1.0, ~0))
        ranked = sorted(scores, key=lambda place: self._rank(place, scores[place].points))
        best = scores[ranked[0]].points if ranked else 0
        found = [self._hit(place, scores[place], words) for place in ranked if scores[place].is_found(best, least)]
        rarest = sorted(range(len(words)), key=lambda place: -weights[place])
        likely = [place for place in ranked[:_MOST_NEAR] if scores[place].points >= FOUND / 2]
        return Ranking(
            tuple(found),
            () if found else self._alternatives(likely, query),
            tuple(dict.fromkeys(words[place] for place in rarest if not kinds(words[place]))),
        )

    def _hit(self, place: int, score: Score, words: Sequence[str]) -> Hit:
        lacking = tuple(
            word
            for number, word in enumerate(words)
            if not score.read >> number & 1 and not kinds(word) and word not in CIRCUMSTANCES
        )
        return Hit(self._resources[place].entry, score.points, score.share, lacking)

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

    def _by_words(self, query: _Query, meant: dict[Span, dict[str, float]], weights: list[float]) -> dict[int, Score]:
        """Return the score of each resource with a matching name."""
        matches: defaultdict[int, dict[Span, Match]] = defaultdict(dict)
        for span, likely in meant.items():
            for unit, sure in likely.items():
                for number, covered in self._holding.get(unit, ()):
                    _keep_better(matches[number], span, (sure, covered))
                for place, share in self._owned.get(unit, ()):
                    for number in self._names_of[place]:
                        _keep_better(matches[number], span, (sure * share, 0))
        scores: dict[int, Score] = {}
        for number, spans in matches.items():
            name = self._names[number]
            kind = self._resources[name.place].entry.kind
            for place, word in enumerate(query.words):
                if kind in kinds(word):
                    _keep_better(spans, (place, place + 1), (_HINTED, 0))
            score = self._score(query, name, spans, weights)
            scores[name.place] = max(scores.get(name.place, score), score)
        return scores

    def _score(self, query: _Query, name: _NameWords, spans: dict[Span, Match], weights: list[float]) -> Score:
        is_verbatim = name.phrase in query.phrase
        if "".join(name.words) in query.whole:
            return Score(EXACT if is_verbatim else EXACT - 1, is_verbatim, 1.0, ~0)
        value, covered, read = _best_reading(spans, weights)
        own = [_STOP_WEIGHT if word in STOP else self._rarity((word,)) for word in name.words]
        share = sum(weight for bit, weight in enumerate(own) if covered >> bit & 1) / (sum(own) or 1.0)
        coverage = value / sum(weights)
        points = 100 * coverage * (0.83 + 0.16 * share + (0.01 if covered & 1 else 0.0))
        return Score(min(EXACT - 1, round(points) + _VERBATIM * is_verbatim), is_verbatim, share, read)

    def _by_id(self, query: str) -> Iterable[tuple[int, int]]:
        """Yield the position and score of each resource whose id or email, or a part of it, is in the query."""
        words = [word.strip(".,;!?\"'()").casefold() for word in query.split()]
        # Plain words match many ids by chance.
        words = [word for word in words if len(word) >= _ID_LETTERS and not _PLAIN.fullmatch(word)]
        whole = {query.strip().casefold(), *words} - {""}
        for place, keys in enumerate(self._keys):
            if not whole.isdisjoint(keys):
                yield place, EXACT
            elif contained := [(key, word) for key in keys for word in words if word in key]:
                yield place, 90 if any(key.startswith(word) for key, word in contained) else 70

    def _rank(self, place: int, score: int) -> tuple[int, int, str, str]:
        resource = self._resources[place]
        return -score, ORDER.index(resource.entry.kind), resource.names[0].casefold(), resource.entry.id

    def _alternatives(self, likely: Sequence[int], query: str) -> tuple[str, ...]:
        """Return names that may have been meant."""
        from rapidfuzz.fuzz import ratio
        from rapidfuzz.process import extract

        found = [self._resources[place].entry.name for place in likely]
        if not found:
            names = {resource.names[0]: resource.entry.name for resource in self._resources}
            close = extract(query, list(names), scorer=ratio, processor=str.casefold, score_cutoff=70, limit=_MOST_NEAR)
            found = [names[name] for name, _, _ in close]
        return tuple(dict.fromkeys(found))
