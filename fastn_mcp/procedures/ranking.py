"""Rank resources by how well their names match a query.

    score = 100 * coverage * (1 - _BREVITY * unasked), and `_VERBATIM` more if the query contains the name as it is

`coverage` is the share of the query that a name has: each word counts by its rarity (weight), and by how surely it
means a word of the name (confidence). It may be its plural, its beginning or a part, or differ in a few letters but
not in a digit: `order2` is not `order3`. Words of its kind, and of what the resource belongs to, count too, but less.
`unasked` is the share of the name that the query does not have.
"""

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from fastn_mcp.account.entries import Entry

# Points of the score.
EXACT = 100  # a whole name, slug or id; one less if spaces or the order of words differ
FOUND = 45  # the lowest of a match
PART = 15  # the lowest of a name that the query contains as it is, among other things
_ID_BEGINNING, _ID_PART = 90, 70  # an id or email that begins with a word of the query, or has it elsewhere
_VERBATIM = 4
_NEARLY = 3  # below the best: equally good
_CLEAR, _FAR_FROM_CLEAR, _FAR = 90, 15, 30  # below the best: dropped; sooner if the best is clear

# Confidence that a word of the query means a word of the name.
_PLURAL = 0.97
_BEGINNING, _INSIDE, _LONG_PART = 0.65, 0.5, 0.3  # a part of the other, and how much more if it is nearly all of it
_TYPO = 0.7  # the lowest similarity of a misspelt word; joined words may differ in one letter
_OF_ITS_KIND = 0.75  # the word "workflow" for a workflow
OWNED, POSSIBLE = 0.7, 0.5  # a word of what the resource belongs to, or may belong to

# Weight of a word: 1 if a single name has it.
_FREQUENT_WEIGHT = 0.05  # all names have it, or it is as empty as "the"
_KIND_WEIGHT = 0.4  # at most, of a word for a kind
_UNKNOWN_WEIGHT = 0.5  # no name has it
_BREVITY = 0.16  # weight of the words that only the name has, against those of the query

_MAX_WORDS = 12  # of a query
_MAX_JOINED = 3  # words that match as one, without the spaces
_MAX_LETTERS = 200  # of a name that is indexed
_MIN_PART = 4  # letters of a misspelt word, a part of an id or word; 2 of a word where a letter is a syllable
_MAX_NEAR = 3  # similar names

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

_EMPTY_WORDS = """
a an the this that these those of for from in into on at to by with and or is are was were be been do does did not no
why what which who whom whose when where how has have had can could should would will may might it its i me my we us
our you your they their there please show tell give find look see get about called named name id if so any all just
again still as whether so but
"""
_CIRCUMSTANCE_WORDS = """
last night yesterday today tomorrow morning evening week month day hour now recent recently latest fail failed fails
failing failure error errors broken broke break breaks stop stopped stuck wrong happened happen problem issue working
work works run runs ran running fix check list up times timed timing timeout out slow slowly hang hangs crash crashed
change changed changes update create delete remove revoke rotate rename replace disable enable activate deactivate start
restart switch turn off set make add invite onboard offboard connect disconnect reconnect build use uses used using need
before after afterwards while first then only arrive arrives arrived arriving come comes coming missing active inactive
activated activation pending invited disabled draft drafts unpublished expired
"""
_EMPTY, _CIRCUMSTANCES = frozenset(_EMPTY_WORDS.split()), frozenset(_CIRCUMSTANCE_WORDS.split())
"""Words that say nothing about the resource; and about what happened, which are ignored unless a name contains them."""

_KIND_WORDS = {
    "customer": "customer tenant account client company",
    "workflow": "workflow flow sync automation integration pipeline job",
    "connector": "connector app integration",
    "connection": "connection credential",
    "trigger": "trigger schedule scheduler webhook cron pause paused resume every",
    "user": "user person colleague member",
    "role": "role permission",
    "api_key": "key apikey",
    "secret": "secret token",
}
"""Words that mean a kind, or are done with it only. Of equal scores, those of the first kinds come first."""

Span = tuple[int, int]
"""Words of a query read as one: position of the first, and of the one after the last."""

Match = tuple[float, Sequence[int]]
"""Confidence from 0 to 1 that a word means words of a name, and the positions of those words."""


@dataclass(frozen=True, slots=True)
class NamedResource:
    """Searchable resource: its names, and those of what it belongs to, each with the confidence in their words."""

    entry: Entry
    names: tuple[str, ...]
    owners: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Hit:
    """Matching resource; `score` is 0-100."""

    entry: Entry
    score: int
    share: float = 1.0
    """Share of its name that the query has, from 0 to 1."""
    lacking: tuple[str, ...] = ()
    """The words searched for that it lacks, without those that mean a kind or what happened."""
    is_verbatim: bool = True
    """Whether the query contains its name as it is."""


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
    decomposed = unicodedata.normalize("NFKD", text[:_MAX_LETTERS])
    return _POSSESSIVE.sub("", "".join(letter for letter in decomposed if not unicodedata.combining(letter)))


@lru_cache(maxsize=32_768)
def units(name: str) -> Sequence[tuple[str, Sequence[int]]]:
    """Return the words of a name and their joins, each with the positions of the words that it covers."""
    words = words_of(name)
    return tuple(("".join(words[first:last]), range(first, last)) for first, last in _spans(words))


def _spans(words: Sequence[str]) -> list[Span]:
    size = len(words)
    return [(first, last) for first in range(size) for last in range(first + 1, min(first + _MAX_JOINED, size) + 1)]


def _similar(words: Sequence[str], others: Sequence[str]) -> dict[str, float]:
    """Return the words of `others` that `words`, joined to one, may mean, with the confidence from 0 to 1."""
    from rapidfuzz.distance import OSA  # imported late: only searches need it
    from rapidfuzz.process import extract

    word, meant = "".join(words), dict[str, float]()
    size = len(word)
    least = _TYPO if len(words) == 1 else max(_TYPO, 1 - 1 / size)
    for other in others if size > 1 else ():
        place = other.find(word)
        if place < 0 or (word[-1].isdigit() and other[place + size : place + size + 1].isdigit()):
            continue  # key1 is not key14
        if not place or size >= (_MIN_PART if word.isascii() else 2):
            meant[other] = (_INSIDE if place else _BEGINNING) + _LONG_PART * size / len(other)
    # Letters that may be wrong, missing, added or swapped with the next.
    for other, similarity, _ in extract(word, others, scorer=OSA.normalized_similarity, score_cutoff=least, limit=None):
        if other == word:
            meant[other] = 1.0
        elif word.rstrip("s") == other.rstrip("s"):
            meant[other] = _PLURAL
        elif max(size, len(other)) >= _MIN_PART and _digits(word) == _digits(other):
            meant[other] = max(meant.get(other, 0.0), similarity)
    return meant


def _digits(word: str) -> str:
    return "".join(filter(str.isdigit, word))


class _Query(NamedTuple):
    """A query as it is read with the words of an index."""

    phrase: str
    whole: set[str]
    """What a name is, without spaces, that the query consists of."""
    words: Sequence[str]
    subjects: dict[int, str]
    """Its words by position, without those that mean a kind or what happened."""
    meanings: dict[Span, dict[str, float]]
    """Words of names that spans may mean, with the confidence."""
    weights: Sequence[float]


class _EntryName(NamedTuple):
    """A name of the resource at `place`."""

    place: int
    phrase: str
    words: Sequence[str]


class Index:
    """Index of all names by their words."""

    def __init__(self, resources: Sequence[NamedResource]) -> None:
        self._resources = resources
        self._names: list[_EntryName] = []
        self._holding: defaultdict[str, list[tuple[int, float, Sequence[int]]]] = defaultdict(list)
        """Word -> names of what has it or belongs to what has it, with the confidence, and the words that it covers."""
        for place, resource in enumerate(resources):
            owners = {unit: share for name, share in resource.owners.items() for unit, _ in units(name)}
            for words, name in {words_of(name): name for name in reversed(resource.names)}.items():
                for unit, covered in units(name):
                    self._holding[unit].append((len(self._names), 1.0, covered))
                if words:
                    for unit, share in owners.items():
                        self._holding[unit].append((len(self._names), share, ()))
                    self._names.append(_EntryName(place, _phrase(name), words))
        self._keys = [tuple(map(str.casefold, (it.entry.id, *it.entry.emails))) for it in resources]
        self._vocabulary = list(self._holding)
        kind_order = {kind: number for number, kind in enumerate(_KIND_WORDS)}
        self._order = [(kind_order[it.entry.kind], it.names[0].casefold(), it.entry.id) for it in resources]
        self._meanings: dict[str, dict[str, float]] = {}
        self._most = math.log(1 + len(resources)) or 1.0

    def rank(self, query: str, of: Collection[str], least: int = FOUND) -> Ranking:
        """Rank the resources of the kinds in `of` that `query` may mean. `least` is the lowest score of a match."""
        reading = self._read(query)
        found = self._by_words(reading)
        for place, score in self._by_id(query):
            if place not in found or found[place].score < score:
                found[place] = Hit(self._resources[place].entry, score)
        wanted = [place for place, hit in found.items() if hit.entry.kind in of]
        ranked = [found[place] for place in sorted(wanted, key=lambda it: (-found[it].score, self._order[it]))]
        best = ranked[0].score if ranked else 0
        lowest = best - (_FAR_FROM_CLEAR if best >= _CLEAR else _FAR)
        hits = [hit for hit in ranked if hit.score >= max(PART if hit.is_verbatim else least, lowest)]
        near = [] if hits else [hit.entry.name for hit in ranked[:_MAX_NEAR] if hit.score >= FOUND / 2]
        rarest = sorted(zip(reading.words, reading.weights, strict=True), key=lambda pair: -pair[1])
        words = dict.fromkeys(word for word, _ in rarest if not kinds(word))
        return Ranking(tuple(hits), tuple(dict.fromkeys(near)), tuple(words))

    def _read(self, query: str) -> _Query:
        all_words = words_of(_ADDRESS.sub(r"\1 ", _WHEN.sub(" ", query))) or words_of(query)
        meaningful = [word for word in all_words if word not in _EMPTY]
        subject = [word for word in meaningful if word not in _CIRCUMSTANCES or word in self._holding]
        words = (subject or meaningful or all_words)[:_MAX_WORDS]
        meanings = {span: self._similar_to(words[slice(*span)]) for span in _spans(words)}
        weights = [self._weight(place, word, meanings) for place, word in enumerate(words)]
        subjects = {place: word for place, word in enumerate(words) if not kinds(word) and word not in _CIRCUMSTANCES}
        return _Query(_phrase(query), {"".join(all_words), "".join(words)}, words, subjects, meanings, weights)

    def _similar_to(self, words: Sequence[str]) -> dict[str, float]:
        """Return what joined words may mean. It is kept, as one search ranks the same words several times."""
        key = " ".join(words)
        if key not in self._meanings:
            self._meanings[key] = _similar(words, self._vocabulary)
        return self._meanings[key]

    def _weight(self, place: int, word: str, meanings: dict[Span, dict[str, float]]) -> float:
        """Return the weight of a word of the query: the rarity of what it most surely means."""
        spans = [span for span in meanings if span[0] <= place < span[1] and meanings[span]]
        if not spans:
            return _KIND_WEIGHT if kinds(word) else _UNKNOWN_WEIGHT
        first, last = max(spans, key=lambda span: (max(meanings[span].values()), span[1] - span[0]))
        likely = meanings[first, last]
        surest = max(likely.values())
        weight = self._rarity(unit for unit, sure in likely.items() if sure == surest) / (last - first)
        return min(weight, _KIND_WEIGHT) if kinds(word) else weight

    def _rarity(self, words: Iterable[str]) -> float:
        count = sum(len(self._holding.get(word, ())) for word in words)
        return max(_FREQUENT_WEIGHT, math.log(1 + len(self._resources) / max(count, 1)) / self._most)

    def _by_words(self, query: _Query) -> dict[int, Hit]:
        """Return each resource with a matching name, by its position."""
        matches: defaultdict[int, dict[int, Match]] = defaultdict(dict)
        for (first, last), likely in query.meanings.items():
            for unit, sure in likely.items():
                for number, share, covered in self._holding[unit]:
                    for place in range(first, last):
                        _keep_better(matches[number], place, (sure * share, covered))
        hits: dict[int, Hit] = {}
        for number, best in matches.items():
            name = self._names[number]
            for place, word in enumerate(query.words):
                if self._resources[name.place].entry.kind in kinds(word):
                    _keep_better(best, place, (_OF_ITS_KIND, ()))
            hit = self._hit(query, name, best)
            hits[name.place] = max(
                hits.get(name.place, hit), hit, key=lambda hit: (hit.score, hit.is_verbatim, hit.share)
            )
        return hits

    def _hit(self, query: _Query, name: _EntryName, matches: dict[int, Match]) -> Hit:
        entry, is_verbatim = self._resources[name.place].entry, name.phrase in query.phrase
        if "".join(name.words) in query.whole:
            return Hit(entry, EXACT if is_verbatim else EXACT - 1, is_verbatim=is_verbatim)
        coverage = sum(query.weights[place] * sure for place, (sure, _) in matches.items()) / sum(query.weights)
        covered = {number for _, numbers in matches.values() for number in numbers}
        own = [_FREQUENT_WEIGHT if word in _EMPTY else self._rarity((word,)) for word in name.words]
        share = sum(own[number] for number in covered) / sum(own)
        points = round(100 * coverage * (1 - _BREVITY * (1 - share)))
        lacking = tuple(word for place, word in query.subjects.items() if place not in matches)
        return Hit(entry, min(EXACT - 1, points + _VERBATIM * is_verbatim), share, lacking, is_verbatim)

    def _by_id(self, query: str) -> Iterable[tuple[int, int]]:
        """Yield the position and score of each resource whose id or email, or a part of it, is in the query."""
        words = [word.strip(".,;!?\"'()").casefold() for word in query.split()]
        # Plain words match many ids by chance.
        words = [word for word in words if len(word) >= _MIN_PART and not _PLAIN.fullmatch(word)]
        whole = {query.strip().casefold(), *words} - {""}
        for place, keys in enumerate(self._keys):
            if not whole.isdisjoint(keys):
                yield place, EXACT
            elif parts := [(key, word) for key in keys for word in words if word in key]:
                yield place, _ID_BEGINNING if any(key.startswith(word) for key, word in parts) else _ID_PART


def _keep_better(matches: dict[int, Match], place: int, match: Match) -> None:
    """Keep the surer of two matches, or else the one with more words."""
    known = matches.get(place)
    if known is None or (match[0], len(match[1])) > (known[0], len(known[1])):
        matches[place] = match
